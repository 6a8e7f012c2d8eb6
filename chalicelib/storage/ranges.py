"""Ranges of a bucket's keys, so that several can list one large bucket side by side.

Keys are compared as S3 orders them: Python compares texts by code points, which is the order of their bytes in UTF-8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile

# Of the characters beyond ASCII none is tried: where they begin the keys, a range is split less evenly.
LAST_CHARACTER = 0x7F


@dataclass(frozen=True)
class Range:
    """The keys after ``after`` and up to ``until``, which is the last one itself; None is the bucket's end."""

    after: str = ""
    until: str | None = None

    def __contains__(self, key: str) -> bool:
        return key > self.after and (self.until is None or key <= self.until)


def middle(rest: Range, has: Callable[[Range], bool]) -> str | None:
    """Where to split ``rest`` into two that both may have keys; None where it has none to tell by.

    ``rest`` begins after a key that is there, and ``has`` asks S3 whether there is any key in a range. Keys share
    prefixes, such as folders and dates, so this looks for the first place at which a later key differs from that one,
    then for the last character that there is at this place, and splits half-way: some ten questions.
    """
    key = rest.after

    def later(prefix: str, character: int) -> bool:
        after = prefix + chr(character)
        return (rest.until is None or after < rest.until) and has(Range(after, rest.until))

    # What follows the key's own branch at a place is there for each later place as well.
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
