"""Tests that key ranges of any distribution are split evenly and counted exactly."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from botocore import handlers
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.keyspaces import KEYSPACES
from chalicelib.storage import listing, splitting
from chalicelib.storage.crew import WORKERS, Crew
from chalicelib.storage.listing import Listing, ObjectPage
from chalicelib.storage.measurement import Failure, Tally
from chalicelib.storage.ranges import Range, successor
from chalicelib.storage.splitting import Splitter
from tests.unit.buckets import NOW, Account, failure

LARGE = 100_000


@dataclass
class Keys:
    """Lists sorted keys page by page, as S3 does. The object with the key at position n has n bytes."""

    keys: list[str]
    per_page: int = splitting.KEYS_PER_PAGE
    calls: int = 0
    empty: Collection[int] = ()
    refused: int = 0

    def fetch(self, _s3: Any, _bucket: str, keys: Range, token: str | None) -> ObjectPage:
        self.calls += 1
        keys.after.encode()
        start = int(token) if token else bisect_right(self.keys, keys.after) if keys.after else 0
        if self.calls == self.refused:
            raise failure("AccessDenied", 403)
        if self.calls in self.empty:
            return ObjectPage([], [], str, str(start))
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
    steps = Steps(Keys(KEYSPACES[name](LARGE))).run()
    assert steps.tally.counted == steps.source.counted
    assert steps.source.calls <= 1.05 * steps.source.pages + 32
    # One worker alone would need 100 steps.
    assert steps.steps <= 60
    assert steps.busy[1] > 1
    assert max(steps.busy[:10]) >= 8


@pytest.mark.parametrize("name", ["uuids", "hashes", "flat", "dates"])
def test_evenly_distributed_keys_keep_most_workers_busy(name: str) -> None:
    assert Steps(Keys(KEYSPACES[name](LARGE))).run().steps <= 25


def test_a_bucket_of_one_page_costs_one_call() -> None:
    assert Steps(Keys(KEYSPACES["flat"](1_000))).run().source.calls == 1


@pytest.mark.parametrize("name", KEYSPACES)
def test_many_functions_together_make_few_additional_calls(name: str) -> None:
    source, left = Keys(KEYSPACES[name](LARGE)), [Range()]
    total = Tally("beans", "us-east-1", left={})
    while left:
        functions = [Steps(source, Tally("beans", "us-east-1", left={0: rest})).run(most=3) for rest in left]
        left = [rest for each in functions for rest in each.tally.left.values()]
        for each in functions:
            each.tally.left = {}
            total.add(each.tally)
    assert total.counted == source.counted
    assert source.calls <= 1.05 * source.pages + 32


def test_a_large_rest_of_an_earlier_function_is_split_again() -> None:
    later = Steps(Keys(KEYSPACES["uuids"](LARGE)), Tally("beans", "us-east-1", left={0: Range("0")})).run()
    assert later.tally.counted == later.source.counted
    assert later.steps <= 60


# Few different characters make long shared prefixes likely.
TEXT = st.text(st.sampled_from("ab/09~\x00é中文😀😁\ud7ff\ue000\U0010ffff"), min_size=1, max_size=6)


@given(st.sets(TEXT, max_size=120), st.integers(1, 7), st.sets(st.integers(1, 20)), st.integers(1, 40))
@settings(deadline=None)
def test_threads_count_every_key_exactly_once(keys: set[str], per_page: int, empty: set[int], failing: int) -> None:
    """S3 may return pages that contain no keys although others follow. One call for the second bucket is refused."""
    sources = {
        "beans": Keys(sorted(keys), per_page, empty=empty),
        "cups": Keys(sorted(keys), per_page, refused=failing),
    }
    beans, cups = (Tally(name, "us-east-1") for name in sources)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splitting, "MIN_KEYS", 1)
        crew = Crew(lambda: 900.0)
        listing = Listing(crew, lambda s3, name, rest, token: sources[name].fetch(s3, name, rest, token), NOW)
        for tally in (beans, cups):
            listing.add(tally, None)
        crew.finish()
    source = sources["beans"]
    assert (beans.counted, beans.left, beans.error) == (source.counted, {}, None)
    assert source.calls <= 1.05 * source.pages + 32 + len(empty)
    if cups.error:
        assert cups.error == "AccessDenied: no"
    else:
        assert (cups.counted, cups.left) == (source.counted, {})


def test_a_call_that_s3_is_too_busy_for_is_repeated(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAUSE_SECONDS", 0)
    account.bucket("beans", 7)
    refusals = iter([503] * 3)

    def refuse(parsed: dict[str, Any], http_response: Any, **_: Any) -> None:
        if status := next(refusals, None):
            parsed["Error"] = {"Code": "SlowDown", "Message": "Please wait."}
            parsed["ResponseMetadata"]["HTTPStatusCode"] = http_response.status_code = status

    account.s3.meta.events.register("after-call.s3.ListObjectsV2", refuse)
    assert account.measure().total_bytes == 7


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


def test_an_error_in_a_successful_answer_is_not_an_empty_bucket(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAUSE_SECONDS", 0)
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda _: None))
    account.bucket("beans", 7)
    account.answer_listings(200, "<Error><Code>SlowDown</Code><Message>Please wait.</Message></Error>")
    assert account.measure().errors == [Failure("beans", "SlowDown: Please wait.")]
