"""Reads stored orders for the REST interface."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from chalicelib.errors import InvalidRequest, NotFound, Problem, Unavailable, aws_errors
from chalicelib.orders.order import ORDER_ID
from chalicelib.rest import Page
from chalicelib.timeline import Timeline

# Maximum number of keys that DynamoDB accepts in one call.
KEYS = 100


@aws_errors()
def get(order_id: str, *, dynamodb: Any, table: str) -> dict[str, Any]:
    """Returns one order. Raises ``NotFound`` if the order does not exist."""
    if ORDER_ID.fullmatch(order_id):
        answer = dynamodb.get_item(TableName=table, Key={"orderID": {"S": order_id}}, ConsistentRead=True)
        if "Item" in answer:
            return _shown(answer["Item"])
    raise NotFound("order", order_id[:64])


@aws_errors()
def newest(page: Page, since: date, *, dynamodb: Any, table: str, now: datetime | None = None) -> dict[str, Any]:
    """Returns ``{"orders": [order], "next": token or None}``, newest first, for one customer or all customers."""
    timeline = Timeline(dynamodb, table)
    customer = page.filters.get("customerID")
    if customer is None:
        items, token = timeline.page("orders", since, page.limit, page.next, now or datetime.now(UTC))
    else:
        if not 1 <= len(customer) <= 64:
            raise InvalidRequest([Problem("customerID", "must have 1 to 64 characters")])
        items, token = timeline.page_of("byCustomer", "customerID", customer, "orders", page.limit, page.next)
    return {"orders": [_shown(item) for item in items], "next": token}


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


def _shown(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "orderID": item["orderID"]["S"],
        "customerID": item["customerID"]["S"],
        "items": [
            {"item": each["M"]["item"]["S"], "quantity": int(each["M"]["quantity"]["N"])} for each in item["items"]["L"]
        ],
        "note": item["note"].get("S"),
        "status": item["status"]["S"],
        "placedAt": item["placedAt"]["S"],
        # Orders that were stored before the API required sign-in have no user name.
        "requestedBy": item.get("requestedBy", {}).get("S"),
    }
