"""Describes ranges of keys. Several threads or Lambda functions can list different ranges of one large bucket.

Python sorts strings by code point, and S3 sorts keys by UTF-8 bytes. Both orders are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

LAST_CODE_POINT = 0x10FFFF
# The code points of surrogates are not characters.
SURROGATES = range(0xD800, 0xE000)


@dataclass(frozen=True)
class Range:
    """The keys after ``after``, up to and including ``until``. If ``until`` is None, the range has no end.

    If ``version`` is set, the range also contains the versions or unfinished uploads of the key ``after`` that follow
    this version id or upload id. If ``uploads`` is true, the range is one of unfinished uploads.
    """

    after: str = ""
    until: str | None = None
    version: str = ""
    uploads: bool = False

    def __contains__(self, key: str) -> bool:
        return key > self.after and (self.until is None or key <= self.until)


def common_prefix_length(key: str, other: str | None) -> int:
    """Returns the number of characters that two keys have in common at their start. None is the end of a bucket."""
    length = 0
    for one, two in zip(key, other or "", strict=False):
        if one != two:
            break
        length += 1
    return length


def character(code_point: int) -> str:
    """Returns the character with this code point, or the next possible character."""
    return chr(min(SURROGATES.stop if code_point in SURROGATES else code_point, LAST_CODE_POINT))


def successor(prefix: str) -> str | None:
    """Returns a short key after all keys that begin with ``prefix``, or None if there is no such key."""
    return prefix[:-1] + character(ord(prefix[-1]) + 1) if ord(prefix[-1]) < LAST_CODE_POINT else None
