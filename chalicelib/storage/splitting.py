"""Decides where to split the key ranges of one bucket, so that idle threads can list parts of them.

Nobody knows in advance how the keys of a bucket are distributed. A range is therefore split at a guess, and the thread
that takes the upper part lists it at once. If the guess was bad, that thread finds no keys, and one call was lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from chalicelib.storage.alphabet import ASCII, Alphabet
from chalicelib.storage.measurement import Tally
from chalicelib.storage.ranges import Range, character, common_prefix_length, successor

KEYS_PER_PAGE = 1_000
# A split wastes one call if the upper part of the range is empty. The first function can split a bucket SPLIT_BUDGET
# times. Every function can also make one split for each PAGES_PER_SPLIT pages that it lists.
SPLIT_BUDGET, PAGES_PER_SPLIT = 31, 20
# A range with fewer keys than this is not worth a split.
MIN_KEYS = 3 * KEYS_PER_PAGE
# This estimate stands for a range whose size is unknown.
UNKNOWN_ESTIMATE = 1e12
# Only a range with this many times the average number of keys per thread is split.
SPLIT_THRESHOLD = 2.5
# A survey tries at most this many positions or characters at once.
MOST_SPLIT_KEYS = 8
# A page is not typical of its range if the common prefix of its keys is over this many characters longer than that of
# the range. The range is then surveyed.
UNKNOWN_CHARACTERS = 4


@dataclass
class Survey:
    """Splits a range at several guesses at once, and waits for the first page of each part.

    The guesses differ in their length, or if ``by_character`` is true, in their last character.
    """

    keys: Range
    guesses: list[str]
    by_character: bool
    parts: list[RangeState]
    waiting: int


@dataclass
class RangeState:
    """The known facts about a range. The range was split off at ``guess``.

    ``first_key`` is the first key of the range. ``page_first`` and ``page_last`` are the first and last keys on the
    newest page. ``upper`` is the part that was last split off.
    """

    guess: str = ""
    page_first: str = ""
    page_last: str = ""
    first_key: str = ""
    pages: int = 0
    estimate: float = math.inf
    survey: Survey | None = None
    is_surveyed: bool = False
    has_no_middle: bool = False
    upper: RangeState | None = None

    @property
    def can_be_split(self) -> bool:
        # The first page of the upper part must arrive first, because it shows whether the last split was a good one.
        is_waiting = not self.page_last or self.survey or (self.upper and not self.upper.pages)
        return not is_waiting and not self.has_no_middle


@dataclass
class Splitter:
    """Splits the key ranges in ``tally.left`` for up to ``workers`` threads. Only one thread may call it at a time."""

    tally: Tally
    workers: int
    _alphabet: Alphabet = field(default_factory=Alphabet)
    _parts: dict[int, RangeState] = field(init=False)
    _first_splits: int = field(init=False)
    _survey: Survey | None = None
    _calls: int = 0
    _splits: int = 0

    def __post_init__(self) -> None:
        self._parts = {number: RangeState() for number in self.tally.left}
        self._first_splits = SPLIT_BUDGET if Range() in self.tally.left.values() else 0

    def record_page(self, number: int, keys: Sequence[str]) -> None:
        """Notes a page of range ``number``. ``keys`` are its first key, its last key and some keys between them."""
        part, left = self._parts[number], self.tally.left.get(number)
        part.pages += 1
        self._calls += 1
        part.has_no_middle = False
        if keys:
            self._alphabet.learn(keys)
            if (
                left
                and part.page_last
                and common_prefix_length(part.page_last, keys[-1]) <= common_prefix_length(keys[-1], left.until) + 1
            ):
                # The keys have reached another prefix, and may be distributed differently there.
                part.is_surveyed = False
            part.page_first, part.page_last, part.first_key = keys[0], keys[-1], part.first_key or keys[0]
        elif part.pages == 1 and part.guess and not left:
            self._alphabet.learn_gap(part.guess)
        if part.pages == 1 and part.survey:
            part.survey.waiting -= 1
            self._finish_survey(part.survey)
        elif part.pages == 1 and left and not part.is_surveyed and not self._survey:
            self._start_survey(number, common_prefix_length(keys[0], keys[-1]) if keys else 0)
        if left:
            self._estimate(number)
        else:
            del self._parts[number]

    @property
    def largest(self) -> float:
        """The estimated number of keys in the largest range that can be split. A survey counts as infinitely large."""
        if self._splits >= self._first_splits + max(0, self._calls - self._splits) // PAGES_PER_SPLIT:
            return 0
        if self._survey and self._survey.guesses:
            return math.inf
        estimates = [part.estimate for part in self._parts.values()]
        least = max(MIN_KEYS, SPLIT_THRESHOLD / self.workers * sum(each for each in estimates if each < math.inf))
        largest = max((part.estimate for part in self._parts.values() if part.can_be_split), default=0)
        return largest if largest >= least else 0

    def split(self) -> int | None:
        """Splits the largest range, and returns the number of the upper part, or None if that is not possible."""
        while largest := self.largest:
            survey = self._survey if self._survey and self._survey.guesses else None
            if new := self._next_guess(survey) if survey else self._bisect(largest):
                return new
        return None

    def _next_guess(self, survey: Survey) -> int | None:
        """Splits the range that contains the next guess of a survey."""
        guess = survey.guesses.pop(0)
        for number, keys in self.tally.left.items():
            if guess in keys and guess != keys.until and keys.uploads == survey.keys.uploads:
                new = self._split(number, guess)
                self._parts[new].survey = survey
                survey.parts.append(self._parts[new])
                return new
        # The guess has already been passed.
        survey.waiting -= 1
        self._finish_survey(survey)
        return None

    def _bisect(self, estimate: float) -> int | None:
        """Splits the range with this estimate, or begins a survey of it."""
        number, part = next(
            (n, each) for n, each in self._parts.items() if each.can_be_split and each.estimate == estimate
        )
        keys, page = self.tally.left[number], common_prefix_length(part.page_first, part.page_last)
        if not part.is_surveyed and not self._survey and page - self._start(keys) > UNKNOWN_CHARACTERS:
            part.is_surveyed = True
            self._start_survey(number, page)
            return None
        key = self._alphabet.middle(keys)
        if key is None:
            part.has_no_middle = True
            return None
        new = self._split(number, key)
        self._parts[new].is_surveyed = part.is_surveyed
        return new

    def _split(self, number: int, key: str) -> int:
        part, new = self._parts[number], RangeState(guess=key)
        ratio = self._alphabet.ratio_after(self.tally.left[number], key)
        if part.estimate < math.inf:
            upper = 1 / 2 if ratio is None else ratio / (1 + ratio)
            new.estimate = part.estimate * upper
            part.estimate -= new.estimate
        part.upper = new
        new_number = self.tally.split(number, key)
        self._parts[new_number] = new
        self._splits += 1
        return new_number

    def _estimate(self, number: int) -> None:
        part, keys = self._parts[number], self.tally.left[number]
        if keys.after == keys.until:
            # Only versions or uploads of one key follow, so the range cannot be split.
            part.estimate = 0
            return
        if part.survey or not part.page_last:
            part.estimate = math.inf
            return
        # The newest page shows how dense the keys are.
        ratio = self._alphabet.ratio_after(Range(part.page_first, keys.until), part.page_last)
        part.estimate = UNKNOWN_ESTIMATE if ratio is None else min(KEYS_PER_PAGE * ratio, UNKNOWN_ESTIMATE)

    @staticmethod
    def _start(keys: Range) -> int:
        return common_prefix_length(keys.after, keys.until)

    # --- Surveys ------------------------------------------------------------------------------------------------------

    def _start_survey(self, number: int, deepest: int) -> None:
        """Prepares a survey of a range. Keys may differ at positions up to ``deepest``."""
        keys = self.tally.left[number]
        deepest = min(deepest, len(keys.after) - 1)
        if deepest < 0:
            return
        guesses = list(self._guesses(keys, deepest))
        by_character = len(guesses) <= 1
        if by_character:
            guesses = list(self._characters(keys, len(guesses[0]) - 1 if guesses else deepest))[::-1]
        if guesses:
            part = self._parts[number]
            self._survey = Survey(keys, _spread(guesses), by_character, [part], 0)
            self._survey.waiting = len(self._survey.guesses)
            part.survey = self._survey

    def _guesses(self, keys: Range, deepest: int) -> Iterator[str]:
        """For each prefix of ``keys.after``, yields a key after all keys with this prefix. The shortest comes first.

        Prefixes that end inside a word are skipped, because keys rarely differ there.
        """
        key, start = keys.after, self._start(keys)
        for position in range(start, deepest + 1):
            guess = successor(key[: position + 1])
            is_in_word = start < position < deepest and all(each.isalpha() for each in key[position - 1 : position + 1])
            if guess and guess in keys and guess != keys.until and not (is_in_word and key[position].isascii()):
                yield guess

    def _characters(self, keys: Range, position: int) -> Iterator[str]:
        """Yields keys after ``keys.after`` whose characters at ``position`` are further and further away."""
        key = keys.after
        own = ord(key[position])
        following = [each for each in self._alphabet.with_similar({key[position]}) if each >= own]
        if own >= ASCII:
            code_points = [own + 4**step for step in range(MOST_SPLIT_KEYS)]
        else:
            steps = (2**step - 1 for step in range(MOST_SPLIT_KEYS))
            code_points = [following[step] for step in steps if step < len(following) - 1]
            code_points.append(following[-1])
        for code_point in code_points:
            guess = successor(key[:position] + character(code_point))
            if guess and guess in keys and guess != keys.until:
                yield guess

    def _finish_survey(self, survey: Survey) -> None:
        """Ends a survey if the first pages of all its parts have arrived."""
        if survey.waiting:
            return
        self._survey = None
        for part in survey.parts:
            part.survey = None
        found = {part.first_key: part for part in survey.parts[1:] if part.first_key}
        highest = found[max(found)] if found else None
        numbers = [number for number, part in self._parts.items() if number in self.tally.left]
        for number in numbers:
            part = self._parts[number]
            # Many keys may follow the highest key found, so its range is surveyed next.
            if part is highest and (not survey.by_character or self.tally.left[number].until == survey.keys.until):
                self._start_survey(number, common_prefix_length(part.first_key, survey.keys.after))
        for number in numbers:
            if self._parts[number].pages:
                self._estimate(number)


def _spread(guesses: list[str]) -> list[str]:
    """Returns at most ``MOST_SPLIT_KEYS`` of the guesses, evenly spread over the list."""
    if len(guesses) <= MOST_SPLIT_KEYS:
        return guesses
    return [guesses[round(number * (len(guesses) - 1) / (MOST_SPLIT_KEYS - 1))] for number in range(MOST_SPLIT_KEYS)]
