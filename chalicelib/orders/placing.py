"""Validates the orders in a request and sends them to the queue."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from chalicelib import correlation, idempotency, metrics, queues, rest
from chalicelib.errors import Conflict, InvalidRequest, Problem, Unavailable, aws_errors
from chalicelib.logs import logger
from chalicelib.orders.listing import stored_digests
from chalicelib.orders.order import Order, parse_order
from chalicelib.settings import Settings
from chalicelib.timeline import timestamp

if TYPE_CHECKING:
    from chalice.app import Request

ORDERS_IN_LIST = 100

log = logger("orders")


def place(request: Request, *, aws: Callable[[str], Any], settings: Settings, now: datetime) -> dict[str, Any]:
    """Sends a request's orders to the queue. Returns one receipt, or ``{"orders": [receipt]}`` for a list."""
    body, key = rest.utf8_body(request), rest.idempotency_key(request)
    dynamodb = aws("dynamodb")
    with count_rejections(body):
        orders = parse(body, now, key, rest.caller(request).name)
        content = [[order.order_id, order.digest()] for order in orders]
        table = settings.requests_table
        idempotency.claim(rest.route(request), key, content, dynamodb=dynamodb, table=table, now=now)
        queue_url, table = settings.orders_queue_url, settings.orders_table
        enqueue(orders, sqs=aws("sqs"), queue_url=queue_url, dynamodb=dynamodb, table=table)
    receipts = [receipt(order) for order in orders]
    return {"orders": receipts} if isinstance(body, list) else receipts[0]


def parse(body: Any, now: datetime, key: str | None = None, requested_by: str | None = None) -> list[Order]:
    """Returns the orders in the JSON body of a request. The body is either one order or a list of 1 to 100 orders.

    An order without an orderID gets an id that is derived from the Idempotency-Key ``key``. Without a key, the id is
    random. Raises ``Conflict`` if the only problem is that different orders have the same id. Raises ``InvalidRequest``
    if there are other problems.
    """
    is_list = isinstance(body, list)
    given = body if is_list else [body]
    if is_list and not 1 <= len(given) <= ORDERS_IN_LIST:
        raise InvalidRequest([Problem("orders", f"must contain 1 to {ORDERS_IN_LIST} orders, not {len(given)}")])
    problems: list[Problem] = []
    conflicts: list[Problem] = []
    placed_at = timestamp(now)
    first_by_id: dict[str, tuple[int, Order]] = {}
    orders = []
    for index, each in enumerate(given):
        order = parse_order(each, problems, f"orders[{index}]" if is_list else "", placed_at)
        if order is None:
            continue
        order = replace(order, requested_by=requested_by)
        if "orderID" not in each and key:
            order = replace(order, order_id=_id_from_key(key, index if is_list else None))
        first_index, first = first_by_id.setdefault(order.order_id, (index, order))
        if first != order:
            message = f"is also the id of orders[{first_index}], which has different content"
            conflicts.append(Problem(f"orders[{index}].orderID", message))
        orders.append(order)
    if problems:
        raise InvalidRequest(problems + conflicts)
    if conflicts:
        raise Conflict(conflicts)
    return orders


@contextmanager
def count_rejections(body: Any) -> Iterator[None]:
    """Counts all orders in a request as rejected if the request is refused. A list of orders is refused as a whole."""
    try:
        yield
    except (InvalidRequest, Conflict):
        metrics.emit({"OrdersRejected": len(body) if isinstance(body, list) else 1})
        raise


def _id_from_key(key: str, index: int | None) -> str:
    """Returns ``key`` for a single order, and a digest of ``key`` and ``index`` for an order in a list."""
    return key if index is None else hashlib.sha256(f"{key} {index}".encode()).hexdigest()[:32]


def receipt(order: Order) -> dict[str, str]:
    """Returns the response for an accepted order."""
    return {"orderID": order.order_id, "status": "QUEUED", "href": f"/orders/{order.order_id}"}


@aws_errors()
def enqueue(orders: list[Order], *, sqs: Any, queue_url: str, dynamodb: Any, table: str) -> None:
    """Sends ``orders`` to the queue, without duplicates and without orders that are already stored.

    Raises ``Conflict`` if an order is already stored with different content. Raises ``Unavailable`` if SQS does not
    accept every order. The error message then lists the orders to send again.
    """
    by_id = {order.order_id: order for order in orders}
    digests = stored_digests(list(by_id), dynamodb, table)
    conflicting = [order_id for order_id, digest in digests.items() if not by_id[order_id].is_stored_as(digest)]
    if conflicting:
        message = f"is already stored with different content: {', '.join(conflicting)}"
        raise Conflict([Problem("orderID", message)])
    new = [order for order_id, order in by_id.items() if order_id not in digests]
    attributes = correlation.sqs_attribute(correlation.current())
    failures = queues.send(sqs, queue_url, [(order.to_json(), attributes) for order in new])
    refused = [new[index].order_id for index in failures]
    for order in new:
        if order.order_id not in refused:
            log.info("order queued", extra={"orderID": order.order_id})
    accepted = sum(order.order_id not in refused for order in orders)
    # If an accepted order was not sent to the queue, it is already stored or is a duplicate within the list.
    metrics.emit({"OrdersAccepted": accepted, "OrdersDoubled": accepted - (len(new) - len(refused))})
    if refused:
        log.error("orders refused by the queue", extra={"orderIDs": refused})
        queues.raise_permanent(failures)
        raise Unavailable(_refusal(orders, refused))


def _refusal(orders: list[Order], refused: list[str]) -> str:
    if len(orders) == 1:
        return f"the order could not be queued: try again in a moment with the orderID {refused[0]}"
    # A client that sent no orderID can identify an order only by its position in the list.
    places = [f"orders[{index}] as {order.order_id}" for index, order in enumerate(orders) if order.order_id in refused]
    return (
        f"{len(places)} of {len(orders)} orders could not be queued: {', '.join(places)}. "
        "The other orders were accepted. Send only the listed orders again, with the listed orderIDs."
    )
