"""Provides orders, and SQS messages that contain orders."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from chalicelib.notifications import Notification
from chalicelib.orders.order import Item, Order
from chalicelib.orders.store import store_orders
from tests.unit.cloud import ENVIRONMENT, Aws

NOW = datetime(2026, 11, 21, 3, 14, 15, 123456, UTC)
PLACED_AT = "2026-11-21T03:14:15.123456Z"
QUEUE_URL, TABLE = ENVIRONMENT["ORDERS_QUEUE_URL"], ENVIRONMENT["ORDERS_TABLE"]


def order(order_id: str = "o-1", customer_id: str = "c-1", quantity: int = 1) -> Order:
    return Order(order_id, customer_id, (Item("Lima", quantity),), None, PLACED_AT)


def message(text: str, number: int = 1, received: int = 1, *, age: float = 0, **history: str) -> dict[str, Any]:
    """Returns one record of an SQS event that was sent ``age`` seconds ago, perhaps by a redrive."""
    return {
        "messageId": f"m-{number}",
        "receiptHandle": f"r-{number}",
        "body": text,
        "attributes": {
            "ApproximateReceiveCount": str(received),
            "SentTimestamp": str(int(1000 * (NOW.timestamp() - age))),
        },
        "messageAttributes": {name: {"stringValue": text, "dataType": "String"} for name, text in history.items()},
        "md5OfBody": "754ac2f7a12df38320e0c5eafd060145",
        "eventSource": "aws:sqs",
        "eventSourceARN": ENVIRONMENT["ORDERS_QUEUE_ARN"],
        "awsRegion": "us-east-1",
    }


def messages(*given: Order | str) -> dict[str, Any]:
    """Returns an SQS event whose messages have the ids ``m-1``, ``m-2`` and so on."""
    texts = [each if isinstance(each, str) else each.to_json() for each in given]
    return {"Records": [message(text, number) for number, text in enumerate(texts, 1)]}


def store(aws: Aws, event: dict[str, Any], publish: Callable[[Notification], None] | None = None) -> list[str]:
    """Runs the function store_orders, and returns the ids of the messages that failed."""
    result = store_orders(
        event,
        dynamodb=aws.dynamodb,
        table=TABLE,
        sqs=aws.sqs,
        queue_url=QUEUE_URL,
        dead_letter_url=ENVIRONMENT["ORDERS_DEAD_LETTER_URL"],
        publish=publish or (lambda notification: pytest.fail(f"published: {notification}")),
        clock=NOW.timestamp,
    )
    assert list(result) == ["batchItemFailures"]
    assert all(list(each) == ["itemIdentifier"] for each in result["batchItemFailures"])
    return [each["itemIdentifier"] for each in result["batchItemFailures"]]
