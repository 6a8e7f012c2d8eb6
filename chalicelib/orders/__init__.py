"""Orders: from the request to the queue, and read from the table. ``store`` and ``announce`` have the way between.

An order is stored once, however often it is sent or delivered: every write is conditional on its ``orderID`` being
new. A digest of the content tells the same order sent again from another one under the same id.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

from chalicelib import correlation, metrics
from chalicelib.errors import Conflict, InvalidRequest, NotFound, Unavailable, aws_errors, listed, shown
from chalicelib.logs import logger
from chalicelib.rest import Page
from chalicelib.timeline import Timeline, timestamp

ORDERS_IN_LIST = 100
ITEMS_IN_ORDER = 100
QUANTITY = 10_000
# The longest that a user pool has.
USER_NAME = 128
ORDER_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Control characters, lone surrogates and the two that XML, and so SQS and SNS, never take.
NO_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
NO_TEXT_OF_LINES = re.compile(r"(?![\n\t])" + NO_TEXT.pattern)
# Of a message that is no order the log has this much of the reason.
REASON_CHARACTERS = 200

# Limits of one call: SQS takes 10 messages and 1 MiB, DynamoDB 100 keys.
SQS_ENTRIES = 10
SQS_BYTES = 1_000_000
KEYS = 100

log = logger("orders")


@dataclass(frozen=True)
class Item:
    item: str
    quantity: int


@dataclass(frozen=True)
class Order:
    """``order_id`` is at most 64 of A-Za-z0-9_-, ``placed_at`` a timestamp of when it was accepted.

    ``requested_by`` is the name of who sent it, and ``correlation_id`` the id of the request that brought it; like the
    time, they are no part of what the order is.
    """

    order_id: str
    customer_id: str
    items: tuple[Item, ...]
    note: str | None = None
    placed_at: str = field(default="", compare=False)
    requested_by: str | None = field(default=None, compare=False)
    correlation_id: str | None = field(default=None, compare=False)

    def digest(self) -> str:
        """Equal for two orders with the same content, whenever and by whom they were placed."""
        content = [self.customer_id, [[each.item, each.quantity] for each in self.items], self.note]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def to_json(self) -> str:
        """The body of the message on the queue, of which ``correlation_id`` is an attribute."""
        return json.dumps(
            {
                "orderID": self.order_id,
                "customerID": self.customer_id,
                "items": [{"item": each.item, "quantity": each.quantity} for each in self.items],
                "note": self.note,
                "placedAt": self.placed_at,
                "requestedBy": self.requested_by,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Order:
        """The order in a message of the queue. Raises ``InvalidRequest`` for what ``to_json`` never wrote."""
        try:
            content = json.loads(text)
            placed_at = content.pop("placedAt")
            # A message that came by hand has none.
            requested_by = content.pop("requestedBy", None)
            if requested_by is not None and (len(requested_by) > USER_NAME or NO_TEXT.search(requested_by)):
                raise ValueError(f"requestedBy: {requested_by}")
            if content["note"] is None:
                del content["note"]
            # Without its id it would be a new order each time it is delivered.
            if "orderID" not in content:
                raise KeyError("orderID")
            if timestamp(datetime.fromisoformat(placed_at)) != placed_at:
                raise ValueError(f"placedAt: {placed_at}")
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise InvalidRequest([f"message: is no order: {error!r}"[:REASON_CHARACTERS]]) from None
        problems: list[str] = []
        order = _parse_one(content, "", problems, placed_at)
        if order is None or problems:
            raise InvalidRequest(problems)
        return replace(order, requested_by=requested_by)


# --- from the request to the queue ------------------------------------------------------------------------------------


def parse(body: Any, now: datetime, key: str | None = None, requested_by: str | None = None) -> list[Order]:
    """The orders in a request's JSON body, sent by ``requested_by``: one order, or a list of 1 to 100.

    An order without an orderID gets one: from the Idempotency-Key ``key``, so that the same request gives the same
    orders, or a new one where there is no key. Raises ``InvalidRequest``, and ``Conflict`` where all that is wrong is
    one id for orders of different content.
    """
    several = isinstance(body, list)
    given = body if several else [body]
    problems: list[str] = []
    conflicts: list[str] = []
    if several and not 1 <= len(given) <= ORDERS_IN_LIST:
        raise InvalidRequest([f"orders: must be 1 to {ORDERS_IN_LIST}, and these are {len(given)}"])
    placed_at = timestamp(now)
    by_id: dict[str, tuple[int, Order]] = {}
    result = []
    for index, each in enumerate(given):
        order = _parse_one(each, f"orders[{index}]." if several else "", problems, placed_at)
        if order is None:
            continue
        order = replace(order, requested_by=requested_by)
        if "orderID" not in each and key:
            order = replace(order, order_id=_id_of(key, index if several else None))
        earlier, same = by_id.setdefault(order.order_id, (index, order))
        if same != order:
            conflicts.append(f"orders[{index}].orderID: is that of orders[{earlier}], which has other content")
        result.append(order)
    if problems:
        raise InvalidRequest(problems + conflicts)
    if conflicts:
        raise Conflict("; ".join(listed(conflicts)))
    return result


@contextmanager
def rejections(body: Any) -> Iterator[None]:
    """Counts the orders of a request that is refused for what is in it; a list is refused as a whole."""
    try:
        yield
    except (InvalidRequest, Conflict):
        metrics.emit({"OrdersRejected": len(body) if isinstance(body, list) else 1})
        raise


def _id_of(key: str, index: int | None) -> str:
    """The key itself for a single order; for one of a list a digest, since it must not be longer than a key."""
    return key if index is None else hashlib.sha256(f"{key} {index}".encode()).hexdigest()[:32]


def _parse_one(body: Any, at: str, problems: list[str], placed_at: str) -> Order | None:
    """The order in ``body``, or None after adding to ``problems`` all that is wrong, each with its place ``at``."""
    before = len(problems)
    if not isinstance(body, dict):
        problems.append(f"{at.rstrip('.') or 'body'}: must be an object with customerID and item or items")
        return None
    known = ("orderID", "customerID", "item", "quantity", "items", "note")
    problems.extend(f"{at}{shown(name)}: is not a field of an order" for name in body if name not in known)
    order_id = body.get("orderID", None)
    if "orderID" in body and not (isinstance(order_id, str) and ORDER_ID.fullmatch(order_id)):
        problems.append(f"{at}orderID: must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -")
    customer_id = _text(body, "customerID", 64, at, problems)
    items: list[Item] = []
    if "items" in body:
        if "item" in body or "quantity" in body:
            problems.append(f"{at}items: stands beside item or quantity; give one or the other")
        items = _items(body["items"], at, problems)
    else:
        items = [_item(body, at, problems)]
    note = None if "note" not in body else _text(body, "note", 500, at, problems, least=0, lines=True)
    if len(problems) > before:
        return None
    return Order(order_id or secrets.token_urlsafe(16), customer_id, tuple(items), note, placed_at)


def _items(given: Any, at: str, problems: list[str]) -> list[Item]:
    if not isinstance(given, list) or not 1 <= len(given) <= ITEMS_IN_ORDER:
        problems.append(f"{at}items: must be a list of 1 to {ITEMS_IN_ORDER} objects with item and quantity")
        return []
    items = []
    for index, each in enumerate(given):
        place = f"{at}items[{index}]"
        if not isinstance(each, dict):
            problems.append(f"{place}: must be an object with item and quantity")
            continue
        problems.extend(
            f"{place}.{shown(name)}: is not a field of an item" for name in each if name not in ("item", "quantity")
        )
        items.append(_item(each, f"{place}.", problems))
    return items


def _item(body: dict[str, Any], at: str, problems: list[str]) -> Item:
    quantity = body.get("quantity", 1)
    if isinstance(quantity, float) and quantity.is_integer():
        # JSON has one kind of numbers: 2.0 is 2.
        quantity = int(quantity)
    # True is an int in Python, and no quantity.
    if not isinstance(quantity, int) or isinstance(quantity, bool) or not 1 <= quantity <= QUANTITY:
        problems.append(f"{at}quantity: must be a whole number from 1 to {QUANTITY:,}")
    return Item(_text(body, "item", 200, at, problems), quantity)


def _text(
    body: dict[str, Any], name: str, most: int, at: str, problems: list[str], *, least: int = 1, lines: bool = False
) -> str:
    value = body.get(name)
    if name not in body:
        problems.append(f"{at}{name}: is missing")
    elif not isinstance(value, str):
        problems.append(f"{at}{name}: must be a text")
    elif not least <= len(value) <= most:
        problems.append(f"{at}{name}: must have {least} to {most} characters, and has {len(value)}")
    elif least and not value.strip():
        problems.append(f"{at}{name}: is blank")
    elif wrong := (NO_TEXT_OF_LINES if lines else NO_TEXT).search(value):
        problems.append(f"{at}{name}: has U+{ord(wrong[0]):04X}, which is no text, at position {wrong.start()}")
    return value if isinstance(value, str) else ""


def queued(order: Order) -> dict[str, str]:
    """What the client is told of an accepted order."""
    return {"orderID": order.order_id, "status": "QUEUED", "href": f"/orders/{order.order_id}"}


@aws_errors()
def enqueue(orders: list[Order], *, sqs: Any, queue_url: str, dynamodb: Any, table: str) -> None:
    """Puts ``orders`` on the queue, each once.

    Raises ``Conflict`` where one is stored with other content already, and ``Unavailable``, which names what is on
    the queue by then, where SQS does not take all of them.
    """
    distinct = {order.order_id: order for order in orders}
    stored = stored_digests(list(distinct), dynamodb, table)
    others = [key for key, digest in stored.items() if digest != distinct[key].digest()]
    if others:
        raise Conflict(f"orderID: {', '.join(others)} is stored already with other content, and stays as it is")
    waiting = [order for key, order in distinct.items() if key not in stored]
    refused: list[str] = []
    for chunk in _chunks(waiting):
        attributes = correlation.sqs_attribute(correlation.current())
        entries = [
            {"Id": str(index), "MessageBody": text, "MessageAttributes": attributes}
            for index, (_, text) in enumerate(chunk)
        ]
        try:
            with aws_errors():
                answer = sqs.send_message_batch(QueueUrl=queue_url, Entries=entries)
        except Unavailable:
            # They may be on the queue all the same; sent again with the same ids, they are the same orders.
            refused += [order.order_id for order, _ in chunk]
            continue
        refused += [chunk[int(failed["Id"])][0].order_id for failed in answer.get("Failed", [])]
    for order in waiting:
        if order.order_id not in refused:
            log.info("order queued", extra={"orderID": order.order_id})
    accepted = sum(order.order_id not in refused for order in orders)
    # The others are stored already, or are more than once in the list.
    queued = len(waiting) - len(refused)
    metrics.emit({"OrdersAccepted": accepted, "OrdersDoubled": accepted - queued})
    if refused:
        log.error("orders refused by the queue", extra={"orderIDs": refused})
        if len(orders) == 1:
            raise Unavailable(f"the order could not be queued: try again in a moment, with the orderID {refused[0]}")
        # By place and id: without an orderID of its own the client knows an order by its place only.
        places = [
            f"orders[{index}] as {order.order_id}" for index, order in enumerate(orders) if order.order_id in refused
        ]
        raise Unavailable(
            f"{len(places)} of {len(orders)} orders could not be queued: {', '.join(places)}. "
            "The others are accepted. Send these again, each with the orderID that is named here."
        )


def _chunks(orders: list[Order]) -> Iterator[list[tuple[Order, str]]]:
    """The orders with their messages, in parts that one call of SQS takes: ten, and 1 MiB."""
    chunk: list[tuple[Order, str]] = []
    size = 0
    for order in orders:
        text = order.to_json()
        if chunk and (len(chunk) == SQS_ENTRIES or size + len(text) > SQS_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append((order, text))
        size += len(text)
    if chunk:
        yield chunk


def stored_digests(order_ids: list[str], dynamodb: Any, table: str) -> dict[str, str]:
    """The digest of each of the orders that is stored. Raises ``Unavailable`` where DynamoDB holds some back."""
    found: dict[str, str] = {}
    for start in range(0, len(order_ids), KEYS):
        keys = [{"orderID": {"S": order_id}} for order_id in order_ids[start : start + KEYS]]
        wanted = {"Keys": keys, "ProjectionExpression": "orderID, digest", "ConsistentRead": True}
        with aws_errors():
            answer = dynamodb.batch_get_item(RequestItems={table: wanted})
        if answer.get("UnprocessedKeys"):
            raise Unavailable("the orders table is busy: send the request again in a moment")
        found |= {item["orderID"]["S"]: item.get("digest", {}).get("S", "") for item in answer["Responses"][table]}
    return found


# --- reading ----------------------------------------------------------------------------------------------------------


@aws_errors()
def get(order_id: str, *, dynamodb: Any, table: str) -> dict[str, Any]:
    """The stored order, as the REST interface shows it. Raises ``NotFound``."""
    if ORDER_ID.fullmatch(order_id):
        answer = dynamodb.get_item(TableName=table, Key={"orderID": {"S": order_id}}, ConsistentRead=True)
        if "Item" in answer:
            return _shown_order(answer["Item"])
    raise NotFound("order", order_id[:64])


@aws_errors()
def newest(page: Page, since: date, *, dynamodb: Any, table: str, now: datetime | None = None) -> dict[str, Any]:
    """``{"orders": [order], "next": token or None}``, newest first, of all customers or of one."""
    timeline = Timeline(dynamodb, table)
    customer = page.filters.get("customerID")
    if customer is None:
        items, token = timeline.page("orders", since, page.limit, page.next, now or datetime.now(UTC))
    else:
        if not 1 <= len(customer) <= 64:
            raise InvalidRequest(["customerID: must have 1 to 64 characters"])
        items, token = timeline.page_of("byCustomer", "customerID", customer, "orders", page.limit, page.next)
    return {"orders": [_shown_order(item) for item in items], "next": token}


def _shown_order(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "orderID": item["orderID"]["S"],
        "customerID": item["customerID"]["S"],
        "items": [
            {"item": each["M"]["item"]["S"], "quantity": int(each["M"]["quantity"]["N"])} for each in item["items"]["L"]
        ],
        "note": item["note"].get("S"),
        "status": item["status"]["S"],
        "placedAt": item["placedAt"]["S"],
        # What was stored before there was a sign-in has none.
        "requestedBy": item.get("requestedBy", {}).get("S"),
    }
