"""Reads lists from DynamoDB, newest items first, without table scans or hot partitions.

The index's partition key ``period`` is a month and a shard (``2026-11#3``). The index's sort key ``sortKey`` is a time
and an id (``2026-11-21T03:14:15.123456Z#order-1``). Writes are spread over ``SHARDS`` partitions. A read merges the
newest items from all shards of a month, and continues with earlier months until the page is full. The cost of reading a
page does not depend on the size of the table.
"""

from __future__ import annotations

import heapq
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from string import punctuation
from typing import Any
from urllib.parse import quote, unquote

from chalicelib.errors import InvalidRequest, Problem

# A partition of an index accepts 1,000 writes a second, so eight partitions accept 8,000 orders a second.
SHARDS = 8
# Maximum size of a page in bytes. Lambda limits a response to 6 MB.
PAGE_BYTES = 1_000_000
# A filtered page stops after examining this many items, to limit the cost of searching for rare items.
EXAMINED = 1_000
# Maximum number of items that a query reads at once. All shards together then read about as many as a page examines.
AHEAD = EXAMINED // SHARDS
# Maximum number of DynamoDB calls in the method ``recent``. Each call reads up to 1 MB.
RECENT_CALLS = 4
# This string sorts after every sort key.
END_OF_TIME = "9999"

# This pattern matches the part of a page token that follows the name of the list. The matched part contains the time
# from a sort key without punctuation, and the id from the sort key in hexadecimal. Page tokens need no escaping in
# URLs, and `chalicelib/openapi.json` describes their exact format.
TOKEN = re.compile(
    "([0-9]{4})(0[1-9]|1[0-2])([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{6})Z"
    "-((2[1-9a-f]|[3-6][0-9a-f]|7[0-9a-e]){1,1024})"
)
# An id in a page token contains these characters unchanged, and the bytes of other characters as %xx.
PLAIN = punctuation.replace("%", "")

Item = dict[str, Any]


def timestamp(moment: datetime) -> str:
    """Formats ``moment`` as an ISO 8601 string in UTC with microseconds. The strings can be sorted by time."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def index_keys(moment: str, identifier: str) -> dict[str, str]:
    """Returns an item's ``period`` and ``sortKey`` attributes. ``moment`` is a string that ``timestamp`` returned."""
    shard = zlib.crc32(identifier.encode()) % SHARDS
    return {"period": f"{moment[:7]}#{shard}", "sortKey": f"{moment}#{identifier}"}


def periods(since: datetime, now: datetime) -> list[str]:
    """Returns the index partitions from ``since`` to ``now``, which must be at most a few days apart."""
    months = dict.fromkeys(timestamp(moment)[:7] for moment in (since, now))
    return [f"{month}#{shard}" for month in months for shard in range(SHARDS)]


class Timeline:
    """Reads the items of a table, newest first. ``dynamodb`` is a DynamoDB client.

    Pages contain only the attributes ``listed``, which include ``sortKey``. If it is empty, they have all.
    """

    def __init__(self, dynamodb: Any, table: str, listed: Sequence[str] = ()) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._listed = {f"#{name}": name for name in listed}

    def page(
        self,
        name: str,
        since: str,
        limit: int,
        token: str | None,
        now: datetime,
        is_included: Callable[[Item], bool] | None = None,
        until: str = END_OF_TIME,
    ) -> tuple[list[Item], str | None]:
        """Returns up to ``limit`` items from ``since`` to ``until``, and the next page token or None.

        ``since`` is a date or a time, as in a sort key. ``name`` is the name of the list and is part of each page
        token. A page that is filtered with ``is_included`` may contain fewer than ``limit`` items even if another page
        follows. Raises ``InvalidRequest`` if the token is from another list.
        """
        before = min(read_token(name, token), until)
        return self._cut(name, self._by_period(since, before, _ahead(limit, is_included), now), limit, is_included)

    def page_of(
        self,
        index: str,
        key: str,
        values: Sequence[str],
        name: str,
        limit: int,
        token: str | None,
        is_included: Callable[[Item], bool] | None = None,
        since: str = "0",
        until: str = END_OF_TIME,
    ) -> tuple[list[Item], str | None]:
        """Returns a page of the items whose attribute ``key`` is one of ``values``, read from ``index``.

        A page token marks a point in time. A token from a list with different ``values`` therefore continues at the
        same time.
        """
        before = min(read_token(name, token), until)
        if before < since:
            return [], None
        ahead = _ahead(limit, is_included)
        lists = [self._query(index, key, value, before, since, ahead) for value in values]
        return self._cut(name, _merged(lists), limit, is_included)

    def _by_period(self, first: str, before: str, limit: int, now: datetime) -> Iterator[Item]:
        month = min(before[:7], timestamp(now)[:7])
        # DynamoDB's BETWEEN refuses a range that ends before it begins. An old page token may cause an invalid range.
        if before < first:
            return
        # The import is inside the function because most users of this module need only the function ``timestamp``.
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(SHARDS) as pool:
            while month >= first[:7]:
                shards = [
                    self._query("byPeriod", "period", f"{month}#{shard}", before, first, limit)
                    for shard in range(SHARDS)
                ]
                # The first query pages of all shards are read in parallel. Later query pages are read when the merge
                # needs them.
                heads = pool.map(lambda shard: next(shard, None), shards)
                started = [_prepend(head, shard) for head, shard in zip(heads, shards, strict=True) if head is not None]
                yield from _merged(started)
                year, number = int(month[:4]), int(month[5:])
                month = f"{year - 1}-12" if number == 1 else f"{year}-{number - 1:02}"

    def recent(self, period: str, since: str, most: int, select: Mapping[str, Any]) -> tuple[list[Item], str]:
        """Returns the items in a partition that are not older than ``since``, and a sort key.

        No item at or after the returned sort key is missing. Reads at most ``most`` items and a few megabytes. If older
        items are left out, the returned sort key is later than ``since``. ``select`` contains additional query
        arguments, such as a filter.
        """
        arguments = self._arguments("byPeriod", "period", period, END_OF_TIME, since)
        for name, value in select.items():
            arguments[name] = arguments.get(name, {}) | value if isinstance(value, dict) else value
        items: list[Item] = []
        examined = 0
        for _ in range(RECENT_CALLS):
            # Reading one extra item shows whether more items follow.
            answer = self._dynamodb.query(**arguments, Limit=most + 1 - examined)
            items += answer["Items"]
            examined += answer["ScannedCount"]
            if "LastEvaluatedKey" not in answer:
                return items, since
            arguments["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
            if examined > most:
                break
        return items, arguments["ExclusiveStartKey"]["sortKey"]["S"]

    def _query(self, index: str, key: str, value: str, before: str, since: str, limit: int) -> Iterator[Item]:
        arguments = {**self._arguments(index, key, value, before, since), "Limit": limit + 1}
        if self._listed:
            arguments["ProjectionExpression"] = ", ".join(self._listed)
            arguments["ExpressionAttributeNames"] |= self._listed
        while True:
            answer = self._dynamodb.query(**arguments)
            # BETWEEN includes both ends of the range, but the page token's item was already on the previous page.
            yield from (item for item in answer["Items"] if item["sortKey"]["S"] != before)
            if "LastEvaluatedKey" not in answer:
                return
            arguments["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def _arguments(self, index: str, key: str, value: str, before: str, since: str) -> dict[str, Any]:
        return {
            "TableName": self._table,
            "IndexName": index,
            "KeyConditionExpression": "#key = :value AND sortKey BETWEEN :since AND :before",
            "ExpressionAttributeNames": {"#key": key},
            "ExpressionAttributeValues": {":value": {"S": value}, ":since": {"S": since}, ":before": {"S": before}},
            "ScanIndexForward": False,
        }

    @staticmethod
    def _cut(
        name: str, items: Iterator[Item], limit: int, is_included: Callable[[Item], bool] | None = None
    ) -> tuple[list[Item], str | None]:
        page: list[Item] = []
        size, last = 0, ""
        for examined, item in enumerate(items):
            if is_included is None or is_included(item):
                size += len(json.dumps(item))
                if len(page) == limit or (page and size > PAGE_BYTES):
                    return page, write_token(name, last)
                page.append(item)
            elif examined >= EXAMINED:
                return page, write_token(name, last)
            last = item["sortKey"]["S"]
        return page, None


def _ahead(limit: int, is_included: Callable[[Item], bool] | None) -> int:
    """Returns the number of items for one query. A filter leaves items out, so a filtered page reads more at once."""
    return min(limit, AHEAD) if is_included is None else AHEAD


def _merged(lists: Iterable[Iterator[Item]]) -> Iterator[Item]:
    return heapq.merge(*lists, key=lambda item: item["sortKey"]["S"], reverse=True)


def _prepend(head: Item, rest: Iterator[Item]) -> Iterator[Item]:
    yield head
    yield from rest


def write_token(name: str, sort_key: str) -> str:
    """Returns the page token with which the list ``name`` continues after ``sort_key``."""
    moment, _, identifier = sort_key.partition("#")
    return f"{name}-{re.sub('[-:.]', '', moment)}-{quote(identifier, safe=PLAIN).encode().hex()}"


def read_token(name: str, token: str | None) -> str:
    """Returns the sort key at which the list continues, or ``END_OF_TIME`` if there is no token.

    A token stays valid after its item is deleted. Raises ``InvalidRequest`` if the token is from another list.
    """
    if token is None:
        return END_OF_TIME
    match = TOKEN.fullmatch(token.removeprefix(f"{name}-")) if token.startswith(f"{name}-") else None
    if match is None:
        message = "is not a `next` value from this list; leave it out to start with the first page"
        raise InvalidRequest([Problem("next", message)])
    year, month, day, hour, minute, second, fraction, identifier, _ = match.groups()
    return f"{year}-{month}-{day}T{hour}:{minute}:{second}.{fraction}Z#{unquote(bytes.fromhex(identifier).decode())}"
