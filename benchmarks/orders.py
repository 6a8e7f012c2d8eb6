"""Compares ``store_orders`` with one conditional PutItem call per order, for growing batches.

MiniStack handles one call at a time, and takes 0.2 ms for an INSERT. MiniStack spends a third of the time on parsing
the statement. Parallel calls therefore save little time. The last measurement adds the network latency of a real
DynamoDB.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.cloud import empty_cloud
from benchmarks.compare import in_turns
from benchmarks.results import Result
from chalicelib import clients
from chalicelib.orders import store
from chalicelib.orders.order import Item, Order

PEER = "one PutItem after another"
TABLE = "orders"
# A call to DynamoDB is assumed to spend this many seconds on the network. AWS promises single-digit milliseconds for
# DynamoDB.
NETWORK_SECONDS = 0.005
# Maps each batch size to the goal and the number of rounds. The largest batch has only one round, because the peer
# needs 15 seconds.
SIZES = {10: (1.0, 9), 100: (5.0, 9), 1_000: (5.0, 5), 10_000: (5.0, 1)}


def run() -> Iterator[Result]:
    # Logging is disabled, because log records would appear between the lines of the printed table.
    logging.disable(logging.INFO)
    with empty_cloud():
        _make_table()
        for size, (goal, rounds) in SIZES.items():
            if rounds > 1:
                # The first round is not measured, because it warms up the machine.
                _ours(size), _peers(size)
            work = f"store_orders, {size:,} messages"
            yield in_turns(work, partial(_ours, size), PEER, partial(_peers, size), goal, rounds, size)
        clients.aws("dynamodb").meta.events.register("before-send.dynamodb", lambda **_: time.sleep(NETWORK_SECONDS))
        work = f"store_orders, 1,000 messages, {NETWORK_SECONDS * 1000:.0f} ms latency per call"
        yield in_turns(work, partial(_ours, 1_000), PEER, partial(_peers, 1_000), 5.0, 3)


def _make_table() -> None:
    """Creates the table as in infra/resources.yaml, but without the stream."""

    def index(name: str, key: str) -> dict[str, Any]:
        keys = [{"AttributeName": key, "KeyType": "HASH"}, {"AttributeName": "sortKey", "KeyType": "RANGE"}]
        return {"IndexName": name, "KeySchema": keys, "Projection": {"ProjectionType": "ALL"}}

    clients.aws("dynamodb").create_table(
        TableName=TABLE,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "orderID", "KeyType": "HASH"}],
        AttributeDefinitions=[
            {"AttributeName": name, "AttributeType": "S"} for name in ("orderID", "customerID", "period", "sortKey")
        ],
        GlobalSecondaryIndexes=[index("byPeriod", "period"), index("byCustomer", "customerID")],
    )


def _event(size: int) -> dict[str, Any]:
    items = (Item("flat white", 2), Item("croissant", 1))
    orders = [
        Order(secrets.token_urlsafe(16), f"customer {number % 50}", items, None, "2026-11-21T03:14:15.123456Z")
        for number in range(size)
    ]
    return {
        "Records": [
            {
                "messageId": order.order_id,
                "receiptHandle": order.order_id,
                "body": order.to_json(),
                "attributes": {"ApproximateReceiveCount": "1"},
            }
            for order in orders
        ]
    }


def _ours(size: int) -> float:
    event = _event(size)
    began = time.perf_counter()
    answer = store.store_orders(
        event,
        dynamodb=clients.aws("dynamodb"),
        table=TABLE,
        sqs=clients.aws("sqs"),
        queue_url="",
        dead_letter_url="",
        publish=_refuse_notification,
    )
    seconds = time.perf_counter() - began
    if answer != {"batchItemFailures": []}:
        raise AssertionError(f"store_orders answered {answer}")
    return seconds


def _refuse_notification(notification: Any) -> None:
    raise AssertionError(f"store_orders published {notification}")


def _peers(size: int) -> float:
    event, dynamodb = _event(size), clients.aws("dynamodb")
    began = time.perf_counter()
    for message in event["Records"]:
        item = store.stored_item(Order.from_json(message["body"]))
        dynamodb.put_item(TableName=TABLE, Item=item, ConditionExpression="attribute_not_exists(orderID)")
    return time.perf_counter() - began
