"""Learns which characters the keys of a bucket consist of, to estimate how many keys lie between two keys."""

from __future__ import annotations

import string
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence

from chalicelib.storage import ranges
from chalicelib.storage.ranges import Range, common_prefix_length

# Only this many characters at the beginning of a key are compared.
COMPARED_CHARACTERS = 128
# After this many letters of one case at varying positions, letters that were never seen are assumed not to occur. For
# example, hexadecimal numbers contain only the letters a to f. Before that, any letter may occur.
ENOUGH_LETTERS = 200
# At most this many different characters are recorded for each position.
MOST_CHARACTERS = 200
ASCII = 0x80
CASES = (string.ascii_lowercase, string.ascii_uppercase)
# The smallest share of a range that a floating-point number can distinguish.
PRECISION = 1e-15


class Alphabet:
    """Contains the characters that keys have at each position.

    A key is converted to a number between 0 and 1, with its characters as digits. Keys are assumed to be distributed
    uniformly over these numbers. Each position has its own set of digits. Positions at which all keys have the same
    character are skipped.
    """

    def __init__(self) -> None:
        self._lowest = self._highest = ""
        self._at: dict[int, set[str]] = defaultdict(set)
        self._all: set[str] = set()
        self._varied: dict[str, list[str]] = {case: [] for case in CASES}
        # No keys were found at or above these code points, by position.
        self._limits: dict[int, int] = {}
        self._digits: dict[int, list[int]] = {}
        self._code_points: list[int] = []

    def learn(self, keys: Sequence[str]) -> None:
        """Learns from some keys of one page. ``keys`` must be sorted."""
        self._lowest, self._highest = min(self._lowest or keys[0], keys[0]), max(self._highest, keys[-1])
        for key in keys:
            for position, character in enumerate(key[:COMPARED_CHARACTERS]):
                if character not in self._at[position] and len(self._at[position]) < MOST_CHARACTERS:
                    self._at[position].add(character)
                    self._all.add(character)
                    self._digits, self._code_points = {}, []
        self._learn_letters(keys)

    def _learn_letters(self, keys: Sequence[str]) -> None:
        """Collects letters after the first position at which the keys differ. Letters at that position are sorted."""
        first = common_prefix_length(keys[0], keys[-1]) + 2
        for column in zip(*(key[first:COMPARED_CHARACTERS] for key in keys), strict=False):
            for case, letters in self._varied.items():
                if len(letters) < ENOUGH_LETTERS and len(set(column)) > 3:
                    letters += [character for character in column if character in case]

    def learn_gap(self, guess: str) -> None:
        """Records that the range after ``guess`` was empty. Other prefixes are assumed to have the same gap."""
        position = len(guess) - 1
        self._limits[position] = min(ord(guess[-1]), self._limits.get(position, ord(guess[-1])))
        self._digits = {}

    def _is_likely(self, code_point: int, position: int) -> bool:
        limit = self._limits.get(position)
        return limit is None or code_point < limit or chr(code_point) in self._at[position]

    def with_similar(self, characters: set[str]) -> list[int]:
        """Returns the code points of the characters, and of digits and letters that probably occur as well."""
        found = set(characters)
        if any(character in string.digits for character in characters):
            found |= set(string.digits)
        for case, letters in self._varied.items():
            if any(character in case for character in characters):
                found |= set(case if len(letters) < ENOUGH_LETTERS else letters)
        return sorted(map(ord, found))

    def code_points(self) -> list[int]:
        """Returns the sorted code points of all characters that may occur in keys."""
        self._code_points = self._code_points or self.with_similar(self._all)
        return self._code_points

    def _digits_at(self, position: int) -> list[int]:
        if position not in self._digits:
            seen = self._at.get(position) or self._all
            is_constant = (
                len(seen) == 1
                and position > common_prefix_length(self._lowest, self._highest)
                and not any(character in string.digits for character in seen)
            )
            digits = [ord(*seen)] if is_constant else self.with_similar(seen)
            self._digits[position] = [each for each in digits if self._is_likely(each, position)] or digits
        return self._digits[position]

    def _first_digits(self, keys: Range, position: int) -> Sequence[int]:
        """Returns the code points that keys may have at ``position``, the first at which the range's ends differ."""
        low = ord(keys.after[position]) if position < len(keys.after) else 0
        high = ord(keys.until[position]) if keys.until is not None else max(self.code_points())
        # Non-ASCII scripts have too many characters to learn, so all code points in between are possible.
        if high >= ASCII and (low >= ASCII or not any(low < each <= high for each in self.code_points())):
            return range(low, high + 1)
        return [
            each
            for each in self.code_points()
            if low <= each <= high and (each == low or self._is_likely(each, position))
        ]

    def _number(self, key: str, start: int, first: Sequence[int]) -> float:
        """Converts a key to a number. The characters before position ``start`` are ignored."""
        total, unit = 0.0, 1.0
        for position in range(start, len(key)):
            digits, digit = first if position == start else self._digits_at(position), ord(key[position])
            if len(digits) == 1 and position > start:
                if digit != digits[0]:
                    return total + (unit if digit > digits[0] else 0)
                continue
            place = bisect_left(digits, digit)
            unit /= len(digits) + 1
            total += unit * (place + 1)
            if unit < PRECISION or place == len(digits) or digits[place] != digit:
                break
        return total

    def _keys_near(self, number: float, prefix: str, first: Sequence[int]) -> Iterator[str]:
        """Yields longer and longer keys that begin with ``prefix``. The number of each key is closer to ``number``."""
        key = prefix
        for position in range(len(prefix), COMPARED_CHARACTERS):
            digits = first if position == len(prefix) else self._digits_at(position)
            if len(digits) == 1 and position > len(prefix):
                key += chr(digits[0])
                continue
            number *= len(digits) + 1
            place = min(int(number), len(digits))
            if place == 0:
                return
            number -= place
            key += ranges.character(digits[place - 1])
            yield key

    def _numbers(self, keys: Range, *others: str) -> tuple[int, Sequence[int], list[float]]:
        start = common_prefix_length(keys.after, keys.until)
        first = self._first_digits(keys, start)
        numbers = [self._number(key, start, first) for key in (keys.after, *others)]
        return start, first, [*numbers, 1.0 if keys.until is None else self._number(keys.until, start, first)]

    def middle(self, keys: Range) -> str | None:
        """Returns a short key near the middle of a range, or None if none is known."""
        start, first, (low, high) = self._numbers(keys)
        for key in self._keys_near((low + high) / 2, keys.after[:start], first):
            if key in keys and key != keys.until:
                return key
        return None

    def ratio_after(self, keys: Range, key: str) -> float | None:
        """Returns the estimated ratio of the keys after ``key`` to the keys up to it, or None if it is unknown."""
        _, _, (low, here, high) = self._numbers(keys, key)
        return (high - here) / (here - low) if here > low else None
