"""Changes a stored order: its status, or its items and note.

Each change is a conditional write, so nobody overwrites a change that they have not seen. The order keeps its changes,
and what a correction replaced. Its ``digest`` stays that of the order as placed, so a late copy of the first request
is still recognised as the same order.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from chalicelib import idempotency, rest
from chalicelib.errors import Conflict, NotFound, Problem, Unavailable, aws_errors
from chalicelib.fields import Fields
from chalicelib.logs import logger
from chalicelib.orders.listing import read, shown_whole
from chalicelib.orders.order import ORDER_ID, STATUSES, Item, read_items, read_note, stored_items, stored_note
from chalicelib.timeline import timestamp

if TYPE_CHECKING:
    from chalice.app import Request

CORRECTED = "CORRECTED"
CHANGE_FIELDS = ("from", "status", "items", "note", "version")
# An item in DynamoDB has at most 400 kB, and keeps what each correction replaced.
CORRECTIONS = 20
CHANGES_BYTES = 200_000
# Corrections without a version are tried again if another change came between reading and writing.
TRIES = 3
VERSIONS = 1_000_000

log = logger("orders")


@dataclass(frozen=True)
class Change:
    """A change to an order that now has the status ``expected`` and, if given, this ``version``.

    A change of status has a ``status``. A correction has ``items``, a ``note``, or both.
    """

    expected: str
    version: int | None = None
    status: str | None = None
    items: tuple[Item, ...] | None = None
    note: str | None = None
    has_note: bool = False

    @property
    def name(self) -> str:
        return self.status or CORRECTED


def parse(body: Any) -> Change:
    """Returns the change in the JSON body of a request. Raises ``InvalidRequest`` if the body is not valid."""
    expected = "an object with from and status, or with items or note"
    fields = Fields.of_body(body, CHANGE_FIELDS, of="a change", expected=expected)
    is_correction = "items" in fields or "note" in fields
    version = fields.whole_number("version", 0, VERSIONS, default=0) if "version" in fields else None
    present, status = fields.get("from", "PLACED" if is_correction else None), fields.get("status")
    known = isinstance(present, str) and present in STATUSES
    if present is None:
        fields.refuse("from", "is missing: send the present status of the order")
    elif not known:
        fields.refuse("from", f"must be one of {', '.join(STATUSES)}")
    if is_correction:
        if "status" in fields:
            fields.refuse("status", "cannot be combined with items or note")
        if known and present != "PLACED":
            fields.refuse("from", "must be PLACED, because only a placed order can be corrected")
        items = tuple(read_items(fields)) if "items" in fields else None
        change = Change("PLACED", version, items=items, note=read_note(fields), has_note="note" in fields)
    else:
        if status is None:
            fields.refuse("status", "is missing, and so are items and note: send what to change")
        elif known and (not isinstance(status, str) or status not in STATUSES[present]):
            following = " or ".join(STATUSES[present]) or "nothing else"
            fields.refuse("status", f"must be {following}, because that is what {present} can become")
        change = Change(str(present), version, str(status))
    fields.check()
    return change


def patch(
    request: Request, order_id: str, *, dynamodb: Any, orders: str, requests: str, now: datetime
) -> dict[str, Any]:
    """Makes the change in a request, and returns the order.

    ``orders`` and ``requests`` are the names of the tables. Raises ``NotFound`` if the order is not stored, and
    ``Conflict`` if it no longer has the expected status or version.
    """
    content, key = rest.utf8_body(request), rest.idempotency_key(request)
    change = parse(content)
    if not ORDER_ID.fullmatch(order_id):
        raise NotFound("order", order_id[:64])
    idempotency.claim(rest.route(request), key, [order_id, content], dynamodb=dynamodb, table=requests, now=now)
    entry = {
        "at": {"S": timestamp(now)},
        "by": {"S": rest.caller(request).name},
        "change": {"S": change.name},
        "key": {"S": key or secrets.token_urlsafe(12)},
    }
    return shown_whole(make(order_id, change, entry, dynamodb=dynamodb, table=orders))


@aws_errors()
def make(order_id: str, change: Change, entry: dict[str, Any], *, dynamodb: Any, table: str) -> dict[str, Any]:
    """Makes a change, and returns the order's item. ``entry`` describes the change, and is added to the item.

    If the item has a change with the same ``key``, this is a repetition, which changes nothing.
    """
    for _ in range(TRIES):
        item = read(order_id, dynamodb, table)
        if _has(item, entry):
            return item
        _check(item, change)
        sets = {"status": {"S": change.status}} if change.status else _corrected(item, change)
        if not sets:
            return item
        before = {} if change.status else {"items": item["items"], "note": item["note"]}
        updated = _write(item, sets, {**entry, **before}, dynamodb, table)
        if updated is not None:
            log.info("order changed", extra={"orderID": order_id, "change": change.name, "version": version(updated)})
            return updated
    # Only a correction or a status change that others overtook several times ends here.
    raise Unavailable("the order is being changed by others: try again in a moment")


def version(item: dict[str, Any]) -> int:
    """Returns the number of changes to the order."""
    return int(item.get("version", {}).get("N", 0))


def _has(item: dict[str, Any], entry: dict[str, Any]) -> bool:
    return any(each["M"]["key"] == entry["key"] for each in item.get("changes", {}).get("L", []))


def _check(item: dict[str, Any], change: Change) -> None:
    status = item["status"]["S"]
    if status != change.expected:
        raise Conflict([Problem("from", f"the order is {status} by now, not {change.expected}")])
    if change.version is not None and change.version != version(item):
        raise Conflict([Problem("version", f"the order has version {version(item)} by now, not {change.version}")])


def _corrected(item: dict[str, Any], change: Change) -> dict[str, Any]:
    """Returns the attributes that a correction sets. Raises ``Conflict`` if there is no room for another correction."""
    given = {
        **({} if change.items is None else {"items": stored_items(change.items)}),
        **({"note": stored_note(change.note)} if change.has_note else {}),
    }
    sets = {name: value for name, value in given.items() if value != item[name]}
    changes = item.get("changes", {}).get("L", [])
    if sets and (len(changes) >= CORRECTIONS or len(json.dumps(changes)) > CHANGES_BYTES):
        message = "the order was corrected too often; cancel it, and place a new order"
        raise Conflict([Problem("items", message)])
    return sets


def _write(
    item: dict[str, Any], sets: dict[str, Any], entry: dict[str, Any], dynamodb: Any, table: str
) -> dict[str, Any] | None:
    """Writes a change to the order in ``item``. Returns the new item, or None if the order has changed since."""
    values = {
        **sets,
        "version": {"N": str(version(item) + 1)},
        "changedAt": entry["at"],
        "changedBy": entry["by"],
        "lastChange": entry["change"],
    }
    names = {f"#{name}": name for name in [*values, "changes"]}
    terms = [f"#{name} = :{name}" for name in values]
    try:
        answer = dynamodb.update_item(
            TableName=table,
            Key={"orderID": item["orderID"]},
            UpdateExpression=f"SET {', '.join(terms)}, #changes = list_append(if_not_exists(#changes, :none), :entry)",
            ConditionExpression="#version = :before" if version(item) else "attribute_not_exists(#version)",
            ExpressionAttributeNames=names,
            ExpressionAttributeValues={
                **{f":{name}": value for name, value in values.items()},
                ":none": {"L": []},
                ":entry": {"L": [{"M": entry}]},
                **({":before": item["version"]} if version(item) else {}),
            },
            ReturnValues="ALL_NEW",
        )
    except dynamodb.exceptions.ConditionalCheckFailedException:
        return None
    new: dict[str, Any] = answer["Attributes"]
    return new
