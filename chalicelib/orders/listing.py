"""Reads stored orders for the REST interface."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

from chalicelib import rest
from chalicelib.errors import InvalidRequest, NotFound, Problem, Unavailable, aws_errors
from chalicelib.orders.order import ORDER_ID, STATUSES
from chalicelib.rest import Page
from chalicelib.timeline import END_OF_TIME, Item, Timeline, timestamp

FILTERS = ("customerID", "status", "since", "until")
# The attributes of an order in a list. The list of its changes can be a hundred times larger.
LISTED = (
    *("orderID", "customerID", "items", "note", "status", "placedAt", "requestedBy"),
    *("version", "changedAt", "changedBy", "sortKey"),
)
# Maximum number of keys that DynamoDB accepts in one call.
KEYS = 100


@aws_errors()
def get(order_id: str, *, dynamodb: Any, table: str) -> dict[str, Any]:
    """Returns one order. Raises ``NotFound`` if the order does not exist."""
    return shown_whole(read(order_id, dynamodb, table))


def read(order_id: str, dynamodb: Any, table: str) -> dict[str, Any]:
    """Returns the item of an order. Raises ``NotFound`` if the order does not exist."""
    answer = {}
    if ORDER_ID.fullmatch(order_id):
        answer = dynamodb.get_item(TableName=table, Key={"orderID": {"S": order_id}}, ConsistentRead=True)
    if "Item" not in answer:
        raise NotFound("order", order_id[:64])
    item: dict[str, Any] = answer["Item"]
    return item


@aws_errors()
def newest(page: Page, since: date, *, dynamodb: Any, table: str, now: datetime | None = None) -> dict[str, Any]:
    """Returns ``{"orders": [order], "next": token or None}``, newest first.

    The filters of ``page`` are ``customerID``, ``status`` (several with commas between them), ``since`` and ``until``.
    A page that is filtered by status may contain fewer orders than its limit even if another page follows.
    """
    timeline, moment, problems = Timeline(dynamodb, table, LISTED), now or datetime.now(UTC), list[Problem]()
    customer, is_included = page.filters.get("customerID"), _with_status(page.filters.get("status"), problems)
    first, until = span(page.filters, since, problems)
    composed = None if customer is None else unicodedata.normalize("NFC", customer)
    if composed is not None and not 1 <= len(composed) <= 64:
        problems.append(Problem("customerID", "must have 1 to 64 characters"))
    if problems:
        raise InvalidRequest(problems)
    if customer is None or composed is None:
        items, token = timeline.page("orders", first, page.limit, page.next, moment, is_included, until)
    else:
        # Customer ids are stored in NFC, but an older version stored them as they were sent.
        spellings = sorted({composed, unicodedata.normalize("NFD", customer), customer})
        items, token = timeline.page_of(
            "byCustomer", "customerID", spellings, "orders", page.limit, page.next, is_included, first, until
        )
    return {"orders": [shown(item) for item in items], "next": token}


def span(given: Mapping[str, str], created: date, problems: list[Problem]) -> tuple[str, str]:
    """Returns the time from which orders are listed, and the time at which the list ends, as parts of sort keys.

    ``given`` may contain ``since`` and ``until``. No order is older than ``created``.
    """
    found = {"since": "", "until": END_OF_TIME}
    for name in [name for name in found if name in given]:
        try:
            found[name] = timestamp(rest.moment(name, given[name]))
        except InvalidRequest as error:
            problems += error.problems
    return max(created.isoformat(), found["since"]), found["until"]


def _with_status(text: str | None, problems: list[Problem]) -> Callable[[Item], bool] | None:
    if text is None:
        return None
    statuses = text.split(",")
    if not set(statuses) <= set(STATUSES):
        problems.append(Problem("status", f"must be one or more of {', '.join(STATUSES)}, with commas between"))
    return lambda item: item["status"]["S"] in statuses


def stored_digests(order_ids: list[str], dynamodb: Any, table: str) -> dict[str, str]:
    """Returns the digests of stored orders, keyed by order id. Raises ``Unavailable`` if DynamoDB skipped a key."""
    digests: dict[str, str] = {}
    for start in range(0, len(order_ids), KEYS):
        keys = [{"orderID": {"S": order_id}} for order_id in order_ids[start : start + KEYS]]
        request = {"Keys": keys, "ProjectionExpression": "orderID, digest", "ConsistentRead": True}
        with aws_errors():
            answer = dynamodb.batch_get_item(RequestItems={table: request})
        if answer.get("UnprocessedKeys"):
            raise Unavailable("the orders table is busy: try again in a moment")
        digests |= {item["orderID"]["S"]: item.get("digest", {}).get("S", "") for item in answer["Responses"][table]}
    return digests


def shown(item: Item) -> dict[str, Any]:
    """Returns an order without its changes."""
    return {
        "orderID": item["orderID"]["S"],
        "customerID": item["customerID"]["S"],
        "items": _shown_items(item["items"]),
        "note": item["note"].get("S"),
        "status": item["status"]["S"],
        "placedAt": item["placedAt"]["S"],
        # Orders that were stored before the API required sign-in have no user name.
        "requestedBy": item.get("requestedBy", {}).get("S"),
        "version": int(item.get("version", {}).get("N", 0)),
        "changedAt": item.get("changedAt", {}).get("S"),
        "changedBy": item.get("changedBy", {}).get("S"),
    }


def shown_whole(item: Item) -> dict[str, Any]:
    """Returns an order with its changes, oldest first, and what each correction replaced."""
    return {**shown(item), "changes": [_shown_change(each["M"]) for each in item.get("changes", {}).get("L", [])]}


def _shown_change(change: Item) -> dict[str, Any]:
    before = {"items": _shown_items(change["items"]), "note": change["note"].get("S")} if "items" in change else None
    return {"at": change["at"]["S"], "by": change["by"]["S"], "change": change["change"]["S"], "before": before}


def _shown_items(items: Item) -> list[dict[str, Any]]:
    return [{"item": each["M"]["item"]["S"], "quantity": int(each["M"]["quantity"]["N"])} for each in items["L"]]
