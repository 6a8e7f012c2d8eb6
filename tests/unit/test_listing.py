"""Tests that key ranges of any distribution are split evenly and counted exactly."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from botocore import handlers
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.keyspaces import KEYSPACES
from chalicelib.storage import splitting
from chalicelib.storage.crew import WORKERS, Crew
from chalicelib.storage.listing import Listing, ObjectPage
from chalicelib.storage.measurement import Failure, Tally
from chalicelib.storage.ranges import Range, successor
from chalicelib.storage.splitting import Splitter
from tests.unit.buckets import NOW, Account

LARGE = 100_000


@dataclass
class Keys:
    """Lists sorted keys page by page, as S3 does. The object with the key at position n has n bytes."""

    keys: list[str]
    per_page: int = splitting.KEYS_PER_PAGE
    calls: int = 0

    def fetch(self, _s3: Any, _bucket: str, keys: Range, token: str | None) -> ObjectPage:
        self.calls += 1
        keys.after.encode()
        start = int(token) if token else bisect_right(self.keys, keys.after) if keys.after else 0
        end = min(start + self.per_page, len(self.keys))
        return ObjectPage(
            self.keys[start:end], list(range(start, end)), str, str(end) if end < len(self.keys) else None
        )

    @property
    def pages(self) -> int:
        return -(-len(self.keys) // self.per_page)

    @property
    def counted(self) -> tuple[int, int]:
        return sum(range(len(self.keys))), len(self.keys)


@dataclass
class Steps:
    """Lists keys in steps. In each step, S3 answers one call of every busy worker, in a random order."""

    source: Keys
    tally: Tally = field(default_factory=lambda: Tally("beans", "us-east-1"))
    busy: list[int] = field(default_factory=list)
    steps: int = 0

    def run(self, most: int = 10**9) -> Steps:
        splitter, random = Splitter(self.tally, WORKERS), Random(7)
        running = list(self.tally.left)
        while running and self.steps < most:
            self.steps += 1
            self.busy.append(len(running))
            random.shuffle(running)
            pages = {number: self.source.fetch(None, "", self.tally.left[number], None) for number in running}
            for number, page in pages.items():
                listed = page.within(self.tally.left[number])
                self.tally.count(number, listed.bytes, listed.objects, listed.rest, NOW)
                splitter.record_page(number, listed.sample)
                if not listed.rest:
                    running.remove(number)
                while len(running) < WORKERS and (new := splitter.split()) is not None:
                    running.append(new)
        return self


@pytest.mark.parametrize("name", KEYSPACES)
def test_a_large_bucket_is_listed_in_parallel_from_its_first_pages(name: str) -> None:
    listing = Steps(Keys(KEYSPACES[name](LARGE))).run()
    assert listing.tally.counted == listing.source.counted
    assert listing.source.calls <= 1.05 * listing.source.pages + 32
    # One worker alone would need 100 steps.
    assert listing.steps <= 60
    assert listing.busy[1] > 1
    assert max(listing.busy[:10]) >= 8


@pytest.mark.parametrize("name", ["uuids", "hashes", "flat", "dates"])
def test_evenly_distributed_keys_keep_most_workers_busy(name: str) -> None:
    assert Steps(Keys(KEYSPACES[name](LARGE))).run().steps <= 25


def test_a_bucket_of_one_page_costs_one_call() -> None:
    assert Steps(Keys(KEYSPACES["flat"](1_000))).run().source.calls == 1


def test_ranges_that_an_earlier_function_left_are_split_again() -> None:
    source = Keys(KEYSPACES["uuids"](LARGE))
    first = Steps(source).run(most=4)
    assert first.tally.left
    for rest in first.tally.left.values():
        later = Steps(source, Tally("beans", "us-east-1", left={0: rest})).run()
        first.tally.add(later.tally)
    assert first.tally.counted == source.counted


# Few different characters make long shared prefixes likely.
TEXT = st.text(st.sampled_from("ab/09~\x00é中文😀😁\ud7ff\ue000\U0010ffff"), min_size=1, max_size=6)


@given(st.sets(TEXT, max_size=120), st.integers(1, 7))
@settings(deadline=None)
def test_threads_count_every_key_exactly_once(keys: set[str], per_page: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splitting, "MIN_KEYS", 1)
        source, tally, crew = Keys(sorted(keys), per_page), Tally("beans", "us-east-1"), Crew(lambda: 900.0)
        Listing(crew, source.fetch, NOW).add(tally, None)
        crew.finish()
    assert (tally.counted, tally.left, tally.error) == (source.counted, {}, None)
    assert source.calls <= 1.05 * source.pages + 32


@pytest.mark.parametrize(
    ("prefix", "key"),
    [("a", "b"), ("a/b", "a/c"), ("\ud7ff", "\ue000"), ("x\U0010fffe", "x\U0010ffff"), ("\U0010ffff", None)],
)
def test_a_key_after_all_keys_with_a_prefix_is_valid_text(prefix: str, key: str | None) -> None:
    assert successor(prefix) == key
    assert key is None or key.encode()


def test_only_the_frame_of_an_answer_is_parsed_as_xml(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing XML takes most of the processor time of a listing."""
    parsed: list[int] = []

    def look(_status: int, body: bytes) -> bool:
        parsed.append(len(body))
        return False

    monkeypatch.setattr(handlers, "_looks_like_special_case_error", look)
    account.bucket("beans", *[1] * 50)
    assert account.measure().total_objects == 50
    assert max(parsed) < 1_000


def test_an_error_in_a_successful_answer_is_not_an_empty_bucket(account: Account) -> None:
    account.bucket("beans", 7)
    account.answer_listings(200, "<Error><Code>SlowDown</Code><Message>Please wait.</Message></Error>")
    assert account.measure().errors == [Failure("beans", "SlowDown: Please wait.")]
