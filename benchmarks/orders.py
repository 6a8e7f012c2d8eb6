"""Compares ``store_orders`` with one conditional PutItem call per order, for growing batches.

The local cloud handles one call at a time, unlike DynamoDB. The calls therefore go to the stand-in in ``dynamodb.py``.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks import dynamodb
from benchmarks.compare import in_turns
from benchmarks.results import Result
from chalicelib import clients
from chalicelib.orders import store
from chalicelib.orders.order import Item, Order

PEER = "one PutItem after another"
GOAL = 20.0
# Maps each batch size to the number of rounds. The largest batch has only one round, because the peer needs a minute.
SIZES = {100: 9, 1_000: 3, 10_000: 1}


def run() -> Iterator[Result]:
    # Logging is disabled, because log records would appear between the lines of the printed table.
    logging.disable(logging.INFO)
    with dynamodb.stand_in():
        ours, peers = partial(_ours, itertools.count()), partial(_peers, itertools.count())
        # The first round is not measured, because it warms up the machine.
        ours(100), peers(100)
        for size, rounds in SIZES.items():
            work = f"store_orders, {size:,} messages, {dynamodb.SECONDS * 1000:.0f} ms a call"
            yield in_turns(work, partial(ours, size), PEER, partial(peers, size), GOAL, rounds, size)
            if _stored("ours") != _stored("peers"):
                raise AssertionError("store_orders and the peer stored different orders")


def _stored(table: str) -> dict[str, Any]:
    return {item["orderID"]["S"]: item for item in clients.aws("dynamodb").scan(TableName=table)["Items"]}


def _event(numbers: Iterator[int], size: int) -> dict[str, Any]:
    """Returns a batch of orders whose ids are the next ``numbers``."""
    items = (Item("flat white", 2), Item("croissant", 1))
    orders = [
        Order(f"order-{number:016}", f"customer {number % 50}", items, None, "2026-11-21T03:14:15.123456Z")
        for number in itertools.islice(numbers, size)
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


def _ours(numbers: Iterator[int], size: int) -> float:
    event = _event(numbers, size)
    began = time.perf_counter()
    answer = store.store_orders(
        event,
        dynamodb=clients.aws("dynamodb"),
        table="ours",
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


def _peers(numbers: Iterator[int], size: int) -> float:
    event, client = _event(numbers, size), clients.aws("dynamodb")
    began = time.perf_counter()
    for message in event["Records"]:
        item = store.stored_item(Order.from_json(message["body"]))
        client.put_item(TableName="peers", Item=item, ConditionExpression="attribute_not_exists(orderID)")
    return time.perf_counter() - began
