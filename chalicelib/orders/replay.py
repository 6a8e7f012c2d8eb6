"""Finds the orders and changes that the stream delivers again although they were announced.

A new event source mapping reads the stream from its start, and the stream keeps records for 24 hours. The inbox names
every announced order and change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from math import inf
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib import facts
from chalicelib.errors import Unavailable
from chalicelib.logs import logger
from chalicelib.timeline import periods, timestamp

# Replacing a mapping takes longer than this, so younger records are not looked up. Most records are younger.
FRESH_SECONDS = 5
# DynamoDB rounds a record's time to seconds, and the clock of SNS may differ.
TOLERANCE_SECONDS = 2
PAGE = 100

# Receives the Unix times at which orders were written, or 0, and returns which of them were announced since. A new
# order is named by its id, and a change by ``name_of_change``. Stops reading when the second argument returns False.
FindAnnounced = Callable[[Mapping[str, float], Callable[[], bool]], set[str]]

log = logger("orders")


def name_of_change(order_id: str, version: Any, change: Any) -> str:
    """Returns the name of a change to an order. No order has this id, because ids contain no slash."""
    return f"{order_id}/{version}/{change}"


def find_announced(
    dynamodb: Any, table: str, now: datetime, written: Mapping[str, float], has_time: Callable[[], bool]
) -> set[str]:
    """Finds announced orders and changes in the inbox ``table``.

    Arguments and result: see ``FindAnnounced``. An order that was not found is announced again,
    which is better than not at all.
    """
    fresh = now.timestamp() - FRESH_SECONDS
    earliest = {each: moment - TOLERANCE_SECONDS for each, moment in written.items() if 0 < moment < fresh}
    found: set[str] = set()
    if not earliest:
        return found
    since = datetime.fromtimestamp(min(earliest.values()), UTC)
    query: dict[str, Any] = {
        **{"TableName": table, "IndexName": "byPeriod", "Limit": PAGE},
        "KeyConditionExpression": "period = :period AND sortKey >= :since",
        "ProjectionExpression": f"kind, sentAt, {facts.NAME}",
    }
    start = {":since": {"S": timestamp(since)}}
    # The oldest page of each partition is read first, because it usually names every order.
    queries = deque(
        {**query, "ExpressionAttributeValues": {**start, ":period": {"S": each}}} for each in periods(since, now)
    )
    try:
        while queries and len(found) < len(earliest) and has_time():
            query = queries.popleft()
            answer = dynamodb.query(**query)
            for item in answer["Items"]:
                content, sent_at = facts.of_item(item), datetime.fromisoformat(item["sentAt"]["S"]).timestamp()
                if item["kind"]["S"] == "order" and content.get("outcome") in ("placed", "changed"):
                    found |= {each for each in _names(content) if earliest.get(each, inf) <= sent_at}
            if key := answer.get("LastEvaluatedKey"):
                queries.append({**query, "ExclusiveStartKey": key})
    except (BotoCoreError, ClientError, Unavailable) as error:
        log.warning("the inbox cannot be read, so orders may be announced again", extra={"reason": str(error)})
    return found


def _names(content: dict[str, Any]) -> Iterator[str]:
    """Yields the names of what a notification announced. Other programs may publish to the topic, with other facts."""
    for field in ("orderIDs", "changes"):
        values = content.get(field)
        for value in values if isinstance(values, list) else ():
            match value:
                case str():
                    yield value
                case [str(order_id), int(version), str(change)]:
                    yield name_of_change(order_id, version, change)
