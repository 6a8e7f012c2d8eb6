"""Recognizes orders that the stream delivers again although they were announced.

A new event source mapping reads the stream from its start, and the stream keeps records for 24 hours. The inbox names
every order that was announced. An order that the inbox does not name is announced, because it may never have been.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib import facts
from chalicelib.errors import Unavailable
from chalicelib.logs import logger
from chalicelib.timeline import Item, periods, timestamp

# Nobody can replace a mapping in this time, so younger records are not looked up. Usually, every record is younger.
FRESH_SECONDS = 5
# Older records are not in the stream. A record without a time counts as very old.
KEPT_SECONDS = 26 * 3600
# DynamoDB gives the time of a record in whole seconds, and SNS gives the time of a notification by another clock.
TOLERANCE_SECONDS = 2
PAGE = 100

# A function of this type receives orders, with the Unix times at which they were written. It returns the ids of those
# that were announced since. It stops reading when its second argument returns False.
FindAnnounced = Callable[[dict[str, float], Callable[[], bool]], set[str]]

log = logger("orders")


def find_announced_with(dynamodb: Any, table: str, now: datetime) -> FindAnnounced:
    """Returns a function that finds announced orders in the inbox ``table``.

    An order that the function did not find is announced again, which is better than not at all.
    """

    def find(written: dict[str, float], has_time: Callable[[], bool]) -> set[str]:
        ages = {order_id: now.timestamp() - moment for order_id, moment in written.items()}
        missing = {each: written[each] for each, age in ages.items() if FRESH_SECONDS < age < KEPT_SECONDS}
        found: set[str] = set()
        if not missing:
            return found
        since = min(missing.values()) - TOLERANCE_SECONDS
        queries = deque(_query(table, period, since) for period in periods(datetime.fromtimestamp(since, UTC), now))
        try:
            # The oldest notifications of every partition are read first, because they usually name every order.
            while queries and missing and has_time():
                query = queries.popleft()
                answer = dynamodb.query(**query)
                for order_id in [each for item in answer["Items"] for each in _announced(item, missing)]:
                    found.add(order_id)
                    missing.pop(order_id, None)
                if key := answer.get("LastEvaluatedKey"):
                    queries.append({**query, "ExclusiveStartKey": key})
        except (BotoCoreError, ClientError, Unavailable) as error:
            log.warning("the inbox cannot be read, so orders may be announced again", extra={"reason": str(error)})
        return found

    return find


def _query(table: str, period: str, since: float) -> dict[str, Any]:
    return {
        "TableName": table,
        "IndexName": "byPeriod",
        "KeyConditionExpression": "period = :period AND sortKey >= :since",
        "ExpressionAttributeValues": {
            ":period": {"S": period},
            ":since": {"S": timestamp(datetime.fromtimestamp(since, UTC))},
        },
        "ProjectionExpression": f"kind, sentAt, {facts.NAME}",
        "Limit": PAGE,
    }


def _announced(item: Item, missing: dict[str, float]) -> list[str]:
    """Returns the orders in ``missing`` that an inbox item announces, and that were written before the item."""
    placed = facts.of_item(item)
    if item["kind"]["S"] != "order" or placed.get("outcome") != "placed":
        return []
    sent_at = datetime.fromisoformat(item["sentAt"]["S"]).timestamp() + TOLERANCE_SECONDS
    return [each for each in placed["orderIDs"] if each in missing and missing[each] <= sent_at]
