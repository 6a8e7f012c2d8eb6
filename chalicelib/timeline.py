"""Newest-first lists from DynamoDB without a scan and without one hot key.

An item is in an index whose partition key ``period`` is its month and a shard (``2026-11#3``), and whose sort key
``sortKey`` is its time and its id (``2026-11-21T03:14:15.123456Z#order-1``). Writing spreads over ``SHARDS``
partitions. Reading asks every shard of a month for its newest items and merges them, and goes to the month before
only where the page is not full: a page costs the same however many items there are.
"""

from __future__ import annotations

import heapq
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any

from chalicelib.errors import InvalidRequest, Problem

# A partition of an index takes 1,000 writes a second: so 8,000 orders a second before one is hot.
SHARDS = 8
# Lambda returns 6 MB at most; a page ends well before that, whatever its limit is.
PAGE_BYTES = 1_000_000
# A page of some of the items ends after so many of all, with what it has found: rare ones cost the same as others.
LOOKED_AT = 1_000
# Of what is recent: each call reads up to 1 MB.
RECENT_CALLS = 4
# Sorts after every sort key.
END_OF_TIME = "9999"

# What follows the list's name in a token: a sort key's time without its punctuation, and its id in hexadecimal. So a
# token needs no escaping in a URL, and `chalicelib/openapi.json` can say exactly which texts are tokens.
TOKEN = re.compile(
    "([0-9]{4})(0[1-9]|1[0-2])([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{6})Z"
    "-((2[1-9a-f]|[3-6][0-9a-f]|7[0-9a-e]){1,512})"
)

Item = dict[str, Any]


def timestamp(moment: datetime) -> str:
    """``moment`` as UTC in ISO 8601 with microseconds, which sorts as text."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def index_keys(moment: str, identifier: str) -> dict[str, str]:
    """The attributes ``period`` and ``sortKey`` of an item made at ``moment``, a ``timestamp``."""
    shard = zlib.crc32(identifier.encode()) % SHARDS
    return {"period": f"{moment[:7]}#{shard}", "sortKey": f"{moment}#{identifier}"}


def periods(since: datetime, now: datetime) -> list[str]:
    """The partitions of the index that have the items since then. Over a few days they are of two months at most."""
    months = dict.fromkeys(timestamp(moment)[:7] for moment in (since, now))
    return [f"{month}#{shard}" for month in months for shard in range(SHARDS)]


class Timeline:
    """The newest-first list of one table. ``dynamodb`` is a client."""

    def __init__(self, dynamodb: Any, table: str) -> None:
        self._dynamodb = dynamodb
        self._table = table

    def page(
        self,
        name: str,
        since: date,
        limit: int,
        token: str | None,
        now: datetime,
        wanted: Callable[[Item], bool] | None = None,
    ) -> tuple[list[Item], str | None]:
        """Up to ``limit`` items not older than ``since``, and the token of the next page or None.

        ``name`` is the list's name, kept in its tokens. Where only some items are ``wanted``, a page may have fewer
        and not be the last. Raises ``InvalidRequest`` for a token of another list.
        """
        before = read_token(name, token)
        # Of some items as much at once as will be looked at, for they may be far apart.
        ahead = limit if wanted is None else LOOKED_AT // SHARDS
        return self._cut(name, self._by_period(since, before, ahead, now), limit, wanted)

    def page_of(
        self, index: str, key: str, value: str, name: str, limit: int, token: str | None
    ) -> tuple[list[Item], str | None]:
        """The same for the items whose attribute ``key`` is ``value``, from an index of their own.

        A token is a place in time, so one of the list of all, or of another ``value``, goes on from there.
        """
        return self._cut(name, self._query(index, key, value, read_token(name, token), "0", limit), limit)

    def _by_period(self, since: date, before: str, limit: int, now: datetime) -> Iterator[Item]:
        month = min(before[:7], timestamp(now)[:7])
        first = since.isoformat()
        # An earlier page may have ended where nothing is left by now, and BETWEEN refuses ends the wrong way round.
        if before < first:
            return
        # Imported here: most of those that need a timestamp list nothing.
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(SHARDS) as pool:
            while month >= first[:7]:
                shards = [
                    self._query("byPeriod", "period", f"{month}#{shard}", before, first, limit)
                    for shard in range(SHARDS)
                ]
                # Each shard's first page is fetched at the same time; a second one only if the merge comes to it.
                heads = pool.map(lambda shard: next(shard, None), shards)
                started = [_prepend(head, shard) for head, shard in zip(heads, shards, strict=True) if head is not None]
                yield from heapq.merge(*started, key=lambda item: item["sortKey"]["S"], reverse=True)
                year, number = int(month[:4]), int(month[5:])
                month = f"{year - 1}-12" if number == 1 else f"{year}-{number - 1:02}"

    def recent(self, period: str, since: str, most: int, select: Mapping[str, Any]) -> tuple[list[Item], str]:
        """The items of one of the ``periods`` since the time ``since``, and the sort key since which they are all
        there: a later one where there are more than ``most``, or more than a few megabytes.

        ``select`` has what else a query takes to give less of each item, or fewer of them.
        """
        arguments = self._arguments("byPeriod", "period", period, END_OF_TIME, since)
        for name, value in select.items():
            arguments[name] = arguments.get(name, {}) | value if isinstance(value, dict) else value
        items: list[Item] = []
        looked_at = 0
        for _ in range(RECENT_CALLS):
            # One more than wanted tells whether there are more.
            answer = self._dynamodb.query(**arguments, Limit=most + 1 - looked_at)
            items += answer["Items"]
            looked_at += answer["ScannedCount"]
            if "LastEvaluatedKey" not in answer:
                return items, since
            arguments["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
            if looked_at > most:
                break
        return items, arguments["ExclusiveStartKey"]["sortKey"]["S"]

    def _query(self, index: str, key: str, value: str, before: str, since: str, limit: int) -> Iterator[Item]:
        arguments = {**self._arguments(index, key, value, before, since), "Limit": limit + 1}
        while True:
            answer = self._dynamodb.query(**arguments)
            # BETWEEN includes its ends, and the token's own item was on the page before.
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
        name: str, items: Iterator[Item], limit: int, wanted: Callable[[Item], bool] | None = None
    ) -> tuple[list[Item], str | None]:
        page: list[Item] = []
        size, last = 0, ""
        for looked_at, item in enumerate(items):
            if wanted is None or wanted(item):
                size += len(json.dumps(item))
                if len(page) == limit or (page and size > PAGE_BYTES):
                    return page, write_token(name, last)
                page.append(item)
            elif looked_at >= LOOKED_AT:
                return page, write_token(name, last)
            last = item["sortKey"]["S"]
        return page, None


def _prepend(head: Item, rest: Iterator[Item]) -> Iterator[Item]:
    yield head
    yield from rest


def write_token(name: str, sort_key: str) -> str:
    """The value of ``next`` that continues the list ``name`` after ``sort_key``."""
    moment, _, identifier = sort_key.partition("#")
    return f"{name}-{re.sub('[-:.]', '', moment)}-{identifier.encode().hex()}"


def read_token(name: str, token: str | None) -> str:
    """The sort key to continue before; ``END_OF_TIME`` without a token. Raises ``InvalidRequest`` for one not ours.

    Any time and id will do, for what was listed there may be gone by now.
    """
    if token is None:
        return END_OF_TIME
    found = TOKEN.fullmatch(token.removeprefix(f"{name}-")) if token.startswith(f"{name}-") else None
    if found is None:
        message = "is not the `next` of an earlier page of this very list; leave it out to start anew"
        raise InvalidRequest([Problem("next", message)])
    year, month, day, hour, minute, second, fraction, identifier, _ = found.groups()
    return f"{year}-{month}-{day}T{hour}:{minute}:{second}.{fraction}Z#{bytes.fromhex(identifier).decode()}"
