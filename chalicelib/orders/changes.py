"""Changes a stored order: its status, or its items and note.

Each change is a conditional write on the version, so concurrent changes cannot be lost. The order keeps its changes,
and what a correction replaced. Its ``digest`` stays that of the order as placed, so a late copy of the first request
is still recognised as the same order.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from chalicelib import idempotency, rest
from chalicelib.errors import Conflict, Problem, Unavailable, aws_errors
from chalicelib.fields import Fields
from chalicelib.logs import logger
from chalicelib.orders.listing import read, shown_whole
from chalicelib.orders.order import CORRECTED, PLACED, STATUSES, Item, read_items, read_note, stored_items, stored_note
from chalicelib.timeline import timestamp

if TYPE_CHECKING:
    from chalice.app import Request

CHANGE_FIELDS = ("from", "status", "items", "note", "version")
# An order keeps what each correction replaced, which can be up to 90 kB. With these limits, an item stays below 256 kB.
# DynamoDB allows 400 kB, and a message has room for 256 kB.
CORRECTIONS = 20
CHANGES_BYTES = 50_000
# A status change is retried if a correction, which cannot conflict with it, came between reading and writing.
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
    present, status = fields.get("from", PLACED if is_correction else None), fields.get("status")
    known = isinstance(present, str) and present in STATUSES
    if present is None:
        fields.refuse("from", "is missing: send the present status of the order")
    elif not known:
        fields.refuse("from", f"must be one of {', '.join(status for status in STATUSES if STATUSES[status])}")
    elif not STATUSES[present]:
        known = False
        fields.refuse("from", f"is {present}, and such an order can no longer be changed")
    if is_correction:
        if "status" in fields:
            fields.refuse("status", "cannot be combined with items or note")
        if known and present != PLACED:
            fields.refuse("from", "must be PLACED, because only a placed order can be corrected")
        items = tuple(read_items(fields)) if "items" in fields else None
        change = Change(PLACED, version, items=items, note=read_note(fields), has_note="note" in fields)
    else:
        if status is None:
            fields.refuse("status", "is missing, and so are items and note: send what to change")
        elif known and (not isinstance(status, str) or status not in STATUSES[present]):
            following = " or ".join(STATUSES[present])
            fields.refuse("status", f"must be {following}, because a {present} order can become nothing else")
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

    If the item has the same change with the same ``key``, this is a repetition, which changes nothing. Raises
    ``Conflict`` if the order does not have the expected status and version, or if it changes during a correction.
    """
    for tries in range(TRIES + 1):
        item = read(order_id, dynamodb, table)
        # If a write's response was lost, boto3 repeats the write, which fails. The item then has the change.
        if _has(item, entry):
            return item
        _check(item, change)
        sets = {"status": {"S": change.status}} if change.status else _corrected(item, change)
        if not sets:
            return item
        before = {} if change.status else {"items": item["items"], "note": item["note"]}
        updated = _write(item, sets, {**entry, **before}, dynamodb, table) if tries < TRIES else None
        if updated is not None:
            log.info("order changed", extra={"orderID": order_id, "change": change.name, "version": version(updated)})
            return updated
        if not change.status:
            # The next try must not overwrite the other change, even if the request has no version.
            change = replace(change, version=version(item))
    raise Unavailable("the order is being changed by others: try again in a moment")


def version(item: dict[str, Any]) -> int:
    """Returns the number of changes to the order."""
    return int(item.get("version", {}).get("N", 0))


def _has(item: dict[str, Any], entry: dict[str, Any]) -> bool:
    made = [each["M"] for each in item.get("changes", {}).get("L", [])]
    # A key can be used for another change when its claim has expired.
    return any(each["key"] == entry["key"] and each["change"] == entry["change"] for each in made)


def _check(item: dict[str, Any], change: Change) -> None:
    status = item["status"]["S"]
    if status != change.expected:
        problem = Problem("from", f"the order is now {status}, not {change.expected}")
        raise Conflict([problem], Order=shown_whole(item))
    if change.version is not None and change.version != version(item):
        problem = Problem("version", f"the order now has version {version(item)}, not {change.version}")
        raise Conflict([problem], Order=shown_whole(item))


def _corrected(item: dict[str, Any], change: Change) -> dict[str, Any]:
    """Returns the attributes that a correction sets. Raises ``Conflict`` if there is no room for another correction."""
    given = {
        **({} if change.items is None else {"items": stored_items(change.items)}),
        **({"note": stored_note(change.note)} if change.has_note else {}),
    }
    sets = {name: value for name, value in given.items() if value != item[name]}
    changes = item.get("changes", {}).get("L", [])
    size = len(json.dumps(changes, ensure_ascii=False).encode())
    if sets and (len(changes) >= CORRECTIONS or size > CHANGES_BYTES):
        message = "cannot be corrected again, because the order is full: cancel it, and place a new order"
        raise Conflict([Problem(min(sets), message)], Order=shown_whole(item))
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
