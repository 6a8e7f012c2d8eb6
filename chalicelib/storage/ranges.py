"""Splits the keys of a bucket into ranges. Several threads or Lambda functions can then list one large bucket.

Python sorts strings by code point, and S3 sorts keys by UTF-8 bytes. Both orders are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile

# Only ASCII characters are tried, so a range whose keys begin with non-ASCII characters is split less evenly.
LAST_CHARACTER = 0x7F


@dataclass(frozen=True)
class Range:
    """The keys after ``after``, up to and including ``until``. If ``until`` is None, the range has no end.

    If ``version`` is set, the range also has the rest of the versions of ``after``, or the rest of its unfinished
    uploads. ``version`` is the id after which they follow. ``uploads`` says that the keys are those of uploads.
    """

    after: str = ""
    until: str | None = None
    version: str = ""
    uploads: bool = False

    def __contains__(self, key: str) -> bool:
        begins = key > self.after or (key == self.after and self.version != "")
        return begins and (self.until is None or key <= self.until)


def middle(rest: Range, has_keys: Callable[[Range], bool]) -> str | None:
    """Returns the key at which to split ``rest`` into two ranges that may contain keys.

    Returns None if no split is possible.

    ``rest`` must begin after an existing key. ``has_keys`` asks S3 whether a range contains keys. Many keys share
    prefixes, such as folders and dates. The function therefore finds the first position at which a later key differs
    from the existing key. Next, it finds the last character that later keys have at that position. The split is halfway
    between the existing key's character and that last character. A split takes about ten requests to S3.
    """
    key = rest.after

    def later(prefix: str, character: int) -> bool:
        after = prefix + chr(character)
        return (rest.until is None or after < rest.until) and has_keys(Range(after, rest.until))

    # If a later key differs at or before a position, the same is true for all following positions. A binary search can
    # therefore find the first position at which a later key differs.
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(key, rest.until or "", strict=False))
    first, last = len(list(shared)), len(key)
    while first < last:
        place = (first + last) // 2
        if ord(key[place]) < LAST_CHARACTER and later(key[:place], ord(key[place]) + 1):
            last = place
        else:
            first = place + 1
    if first == len(key):
        return None
    prefix, own = key[:first], ord(key[first]) + 1
    low, high = own, LAST_CHARACTER
    while low < high:
        character = (low + high + 1) // 2
        if later(prefix, character):
            low = character
        else:
            high = character - 1
    return prefix + chr((own + low) // 2)
