"""Tests that the pages of a newest-first list contain every item exactly once, for any shards, months and limits."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import pytest
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator
from hypothesis import example, given
from hypothesis import strategies as st

from chalicelib import clients, timeline
from chalicelib.errors import InvalidRequest
from chalicelib.timeline import Item, Timeline
from tests.unit.cloud import Aws

NOW = datetime(2027, 2, 3, 4, 5, 6, 789, UTC)
SINCE = "2026-11-21"


class Table:
    """Fakes a table whose Query works like a DynamoDB query, and returns at most ``most`` items per call."""

    def __init__(self, items: list[Item], most: int = 1000) -> None:
        self.items = sorted(items, key=lambda item: item["sortKey"]["S"], reverse=True)
        self.most = most
        self.queries = 0
        self._lock = threading.Lock()
        self._shape = clients.aws("dynamodb").meta.service_model.operation_model("Query").input_shape

    def query(self, **arguments: Any) -> dict[str, Any]:
        with self._lock:
            self.queries += 1
        problems = ParamValidator().validate(arguments, self._shape)
        assert not problems.has_errors(), problems.generate_report()
        assert arguments["KeyConditionExpression"] == "#key = :value AND sortKey BETWEEN :since AND :before"
        assert arguments["ScanIndexForward"] is False
        values = arguments["ExpressionAttributeValues"]
        since, before = values[":since"]["S"], values[":before"]["S"]
        if since > before:
            error = {"Code": "ValidationException", "Message": "The BETWEEN operator requires upper bound ..."}
            raise ClientError({"Error": error}, "Query")  # type: ignore[typeddict-item]
        key = arguments["ExpressionAttributeNames"]["#key"]
        if "ExclusiveStartKey" in arguments:
            last = arguments["ExclusiveStartKey"]["sortKey"]["S"]
            found = [item for item in self.items if item["sortKey"]["S"] < last]
        else:
            found = self.items
        found = [item for item in found if item[key] == values[":value"] and since <= item["sortKey"]["S"] <= before]
        size = min(arguments["Limit"], self.most)
        # As in DynamoDB, a LastEvaluatedKey does not mean that there are more items.
        more = {"LastEvaluatedKey": found[size - 1]} if len(found) >= size else {}
        return {"Items": found[:size], "Count": len(found[:size]), "ScannedCount": len(found[:size]), **more}


def item(moment: datetime, identifier: str, **fields: str) -> Item:
    keys = timeline.index_keys(timeline.timestamp(moment), identifier)
    return {name: {"S": value} for name, value in {"id": identifier, **keys, **fields}.items()}


def ids(items: list[Item]) -> list[str]:
    return [each["id"]["S"] for each in items]


def follow(read: Callable[[str | None], tuple[list[Item], str | None]]) -> list[list[str]]:
    """Returns the ids of all items, page by page."""
    page, token = read(None)
    found = [ids(page)]
    while token:
        page, token = read(token)
        found.append(ids(page))
    return found


def pages(table: Table, limit: int, since: str = SINCE, now: datetime = NOW) -> list[list[str]]:
    return follow(lambda token: Timeline(table, "orders").page("orders", since, limit, token, now))


# Some of the generated times are equal, and some are at the end of a month or a year.
EDGES = [datetime(2026, 11, 30, 23, 59, 59, 999_999, UTC), datetime(2026, 12, 1, tzinfo=UTC)]
BETWEEN = st.datetimes(datetime(2026, 11, 21), datetime(2027, 2, 3), timezones=st.just(UTC))  # noqa: DTZ001
MOMENTS = st.sampled_from([*EDGES, datetime(2027, 1, 1, tzinfo=UTC), NOW]) | BETWEEN


@given(st.lists(MOMENTS, max_size=25), st.integers(1, 12), st.integers(1, 6))
def test_the_pages_contain_every_item_once_newest_first(moments: list[datetime], limit: int, most: int) -> None:
    items = [item(moment, f"o-{number}", customer=f"c-{number % 2}") for number, moment in enumerate(moments)]
    table = Table(items, most)
    found = pages(table, limit)
    assert [each for page in found for each in page] == ids(table.items)
    assert all(len(page) == limit for page in found[:-1])
    timeline_ = Timeline(table, "orders")
    found = follow(lambda token: timeline_.page_of("byCustomer", "customer", ["c-0"], "orders", limit, token))
    expected = [each for each in table.items if each["customer"]["S"] == "c-0"]
    assert [each for page in found for each in page] == ids(expected)


def test_items_spread_over_the_shards() -> None:
    periods = {timeline.index_keys("2026-11-21T03:14:15.123456Z", f"o-{number}")["period"] for number in range(100)}
    assert periods == {f"2026-11#{shard}" for shard in range(timeline.SHARDS)}


def test_the_first_page_of_a_busy_month_takes_one_query_per_shard() -> None:
    table = Table([item(NOW - timedelta(seconds=number), f"o-{number}") for number in range(1000)])
    page, token = Timeline(table, "orders").page("orders", SINCE, 5, None, NOW)
    assert ids(page) == [f"o-{number}" for number in range(5)]
    assert token
    assert table.queries == timeline.SHARDS


def test_a_list_begins_at_its_date_and_ends_with_its_last_full_page() -> None:
    items = [item(datetime(2026, 11, day, tzinfo=UTC), f"o-{day}") for day in (19, 20, 21, 22)]
    assert pages(Table(items), 10) == pages(Table(items), 2) == [["o-22", "o-21"]]
    assert pages(Table([]), 10) == [[]]


def test_a_page_ends_at_1_mb_and_a_larger_item_is_a_page() -> None:
    items = [item(NOW - timedelta(seconds=number), f"o-{number}", text="x" * 300_000) for number in range(7)]
    assert pages(Table(items), 100) == [["o-0", "o-1", "o-2"], ["o-3", "o-4", "o-5"], ["o-6"]]
    items = [item(NOW - timedelta(seconds=number), f"o-{number}", text="é" * 200_000) for number in range(3)]
    assert pages(Table(items), 100) == [["o-0"], ["o-1"], ["o-2"]]


def some(table: Table, limit: int, identifiers: set[str]) -> tuple[list[list[str]], list[int]]:
    """Returns the ids from ``identifiers`` that the list contains, page by page, and the number of queries per page."""
    queries = [0]

    def read(token: str | None) -> tuple[list[Item], str | None]:
        chosen = lambda item: item["id"]["S"] in identifiers  # noqa: E731
        page = Timeline(table, "orders").page("orders", SINCE, limit, token, NOW, chosen)
        queries.append(table.queries)
        return page

    found = follow(read)
    return found, [after - before for before, after in pairwise(queries)]


@given(st.lists(st.tuples(MOMENTS, st.booleans()), max_size=40), st.integers(1, 6), st.integers(1, 30))
def test_a_filtered_list_is_complete(moments: list[tuple[datetime, bool]], limit: int, examined: int) -> None:
    items = [item(moment, f"id-{number}") for number, (moment, _) in enumerate(moments)]
    wanted = {f"id-{number}" for number, (_, chosen) in enumerate(moments) if chosen}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timeline, "EXAMINED", examined)
        found, _ = some(Table(items), limit, wanted)
    joined = [each for page in found for each in page]
    assert joined == [each for each in ids(Table(items).items) if each in wanted]
    assert max(map(len, found)) <= limit


def test_a_filtered_page_ends_after_a_number_of_items(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timeline.EXAMINED == 1_000
    monkeypatch.setattr(timeline, "EXAMINED", 100)
    items = [item(NOW - timedelta(seconds=number), f"id-{number}") for number in range(225)]
    found, queries = some(Table(items), 50, {"id-3", "id-125", "id-224"})
    assert found == [["id-3"], ["id-125"], ["id-224"]]
    # The cost of a filtered page does not depend on how rare the matching items are. The last page needs more queries,
    # because it also
    # reads the earlier months.
    assert max(queries[:-1]) <= 2 * timeline.SHARDS
    assert some(Table(items[:20]), 2, {"id-1", "id-3"})[0] == [["id-1", "id-3"]]


@given(st.lists(MOMENTS, max_size=40), MOMENTS, st.integers(1, 6), st.integers(1, 5))
@example([NOW] * 60, NOW, 6, 1)
def test_recent_items_are_complete(moments: list[datetime], since: datetime, most: int, at_once: int) -> None:
    items = [item(moment, f"id-{number}") for number, moment in enumerate(moments)]
    beginning = timeline.timestamp(since)
    for period in timeline.periods(since, NOW):
        found, complete = Timeline(Table(items, at_once), "orders").recent(period, beginning, most, {})
        there = {each["id"]["S"] for each in items if each["period"]["S"] == period}
        told = {each["id"]["S"] for each in items if each["sortKey"]["S"] >= complete} & there
        assert complete >= beginning
        assert set(ids(found)) == told
        assert len(found) <= most + 1
        if complete > beginning:
            assert len(found) == most + 1 or len(found) == timeline.RECENT_CALLS * at_once


def test_the_fake_table_answers_queries_as_moto_does(aws: Aws) -> None:
    items = [item(NOW - timedelta(days=10 * number), f"o-{number}") for number in range(8)]
    for each in items:
        aws.dynamodb.put_item(TableName="cafe-test-orders", Item={"orderID": each["id"], **each})
    moto = Timeline(aws.dynamodb, "cafe-test-orders")
    assert follow(lambda token: moto.page("orders", SINCE, 3, token, NOW)) == pages(Table(items), 3)


KEY = "2026-11-21T03:14:15.123456Z#o-1"


@given(st.datetimes(), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=85))
def test_every_sort_key_comes_back_from_its_token(moment: datetime, identifier: str) -> None:
    key = f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z#{identifier}".rjust(
        len("2026-11-21T03:14:15.123456Z#") + len(identifier), "0"
    )
    token = timeline.write_token("orders", key)
    assert quote(token, safe="") == token
    assert timeline.read_token("orders", token) == key


NUMBERS = "orders-20261121T031415123456Z"


@pytest.mark.parametrize(
    "token",
    [
        *("", "=", "not ours", "é", KEY, "orders", "orders-", "orders-9999", "orders-20261121-6f2d31", NUMBERS),
        *(NUMBERS + end for end in ("-", "-6", "-6F2D31", "-6f2d31\n", "-6f2d3120", "-c3a9", "-" + "6f" * 1025)),
        *("orders-20260021T031415123456Z-6f2d31", "orders-20261321T031415123456Z-6f2d31"),
        *("orders-２０２６1121T031415123456Z-6f2d31", "notifications-20261121T031415123456Z-6f2d31", "W1tb" * 5000),
    ],
)
def test_a_token_that_is_not_from_this_list_is_refused(token: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^next: is not a `next` value from this list"):
        timeline.read_token("orders", token)


@pytest.mark.parametrize("moment", ["0000-01-01", "1999-12-31", "2026-11-20", "2026-12-00", "2027-01-99", "9999-12-31"])
def test_a_token_with_any_time_returns_a_page(moment: str) -> None:
    """Notifications expire, so a page token may be older than all remaining items."""
    table = Table([item(NOW, "o-1"), item(datetime(2026, 12, 31, tzinfo=UTC), "o-2")])
    token = timeline.write_token("orders", f"{moment}T00:00:00.000000Z#o-9")
    page, following = Timeline(table, "orders").page("orders", SINCE, 10, token, NOW)
    assert ids(page) == [each for each in ids(table.items) if moment > "2027-02" or (each == "o-2" and moment > "2027")]
    assert following is None


def test_a_timestamp_is_utc_with_microseconds() -> None:
    moment = datetime.fromisoformat("2026-11-21T04:14:15+01:00")
    assert timeline.timestamp(moment) == "2026-11-21T03:14:15.000000Z"
