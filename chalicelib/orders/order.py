"""Defines and validates an order, and converts it to and from a queue message."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import unicodedata
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from chalicelib.errors import InvalidRequest, Problem
from chalicelib.fields import Fields
from chalicelib.timeline import timestamp

ITEMS_IN_ORDER = 100
QUANTITY = 10_000
# Maximum length of a Cognito user name.
USER_NAME = 128
ORDER_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
# This pattern matches control characters, lone surrogates and two characters that SQS and SNS refuse.
NO_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
NO_TEXT_OF_LINES = re.compile(r"(?![\n\t])" + NO_TEXT.pattern)
# This pattern matches text that shows nothing: spaces, zero-width characters and the letters that fonts leave empty.
BLANK = re.compile(
    r"[\s\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    r"\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb]*"
)

# The names of two changes. Each other change has the name of the new status.
PLACED, CORRECTED = "PLACED", "CORRECTED"
# The statuses of an order, and those that may follow each.
STATUSES = {PLACED: ("READY", "CANCELLED"), "READY": ("SERVED", "CANCELLED"), "SERVED": (), "CANCELLED": ()}

ITEM_FIELDS = ("item", "quantity")
ORDER_FIELDS = ("orderID", "customerID", *ITEM_FIELDS, "items", "note")
MESSAGE_FIELDS = (*ORDER_FIELDS, "placedAt", "requestedBy")


@dataclass(frozen=True)
class Item:
    item: str
    quantity: int


@dataclass(frozen=True)
class Order:
    """An accepted order. Fields with ``compare=False`` are not part of the order's content.

    ``placed_at`` is the time at which the order was accepted. ``requested_by`` is the name of the user who sent the
    order. ``correlation_id`` is the request's correlation id.
    """

    order_id: str
    customer_id: str
    items: tuple[Item, ...]
    note: str | None = None
    placed_at: str = field(default="", compare=False)
    requested_by: str | None = field(default=None, compare=False)
    correlation_id: str | None = field(default=None, compare=False)

    def digest(self) -> str:
        """Returns a hash of the order's content."""
        content = [self.customer_id, [[each.item, each.quantity] for each in self.items], self.note]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def is_stored_as(self, digest: str) -> bool:
        """Returns whether ``digest`` belongs to an order with the same content."""
        # Version 0.2.0 stored a customer id as it was sent, possibly with decomposed accents.
        decomposed = replace(self, customer_id=unicodedata.normalize("NFD", self.customer_id))
        return digest in (self.digest(), decomposed.digest())

    def to_json(self) -> str:
        """Returns the body of the SQS message for the order.

        The correlation id is sent as a message attribute instead.
        """
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
        """Parses an order from a message body.

        Raises ``InvalidRequest`` if the body does not have the format that ``to_json`` writes.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            raise InvalidRequest([Problem("body", "is not JSON")]) from None
        message = Fields.of_body(content, MESSAGE_FIELDS, of="an order", expected="an object")
        # Without an orderID, each delivery of the message would create a new order.
        for name in ("orderID", "note"):
            if name not in message:
                message.refuse(name, "is missing")
        # A message that was added to the queue manually might contain no user name.
        requested_by, placed_at = message.get("requestedBy"), message.get("placedAt")
        if requested_by is not None and not _is_user_name(requested_by):
            message.refuse("requestedBy", f"must be a name (maximum {USER_NAME} characters)")
        if not _is_timestamp(placed_at):
            message.refuse("placedAt", "must be a time in UTC with microseconds")
        order = _read_order(message, placed_at)
        message.check()
        return replace(order, requested_by=requested_by)


def parse_order(value: Any, problems: list[Problem], place: str, placed_at: str) -> Order | None:
    """Parses an order from a request's JSON. If the order is invalid, adds to ``problems`` and returns None.

    An order without an orderID gets a new id. ``place`` is the path of the order in the request body.
    """
    before = len(problems)
    expected = "an object with customerID and item or items"
    fields = Fields.of(value, ORDER_FIELDS, problems, place, of="an order", expected=expected)
    order = None if fields is None else _read_order(fields, placed_at)
    return order if len(problems) == before else None


def _read_order(fields: Fields, placed_at: str) -> Order:
    """Creates an order from ``fields``. The order is valid only if no problem is added to ``fields``."""
    order_id = fields.get("orderID")
    if "orderID" in fields and not (isinstance(order_id, str) and ORDER_ID.fullmatch(order_id)):
        fields.refuse("orderID", "must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -")
    # Two spellings of an accented letter are the same customer.
    customer_id = _read_text(fields, "customerID", 64, composed=True)
    if "items" in fields:
        if "item" in fields or "quantity" in fields:
            fields.refuse("items", "cannot be combined with item or quantity; send either items or item")
        items = read_items(fields)
    else:
        items = [_read_item(fields)]
    return Order(order_id or secrets.token_urlsafe(16), customer_id, tuple(items), read_note(fields), placed_at)


def read_note(fields: Fields) -> str | None:
    """Returns the note in ``fields``, or None if there is none. A missing note is valid."""
    return None if fields.get("note") is None else _read_text(fields, "note", 500, least=0, lines=True)


def read_items(fields: Fields) -> list[Item]:
    """Returns the list ``items`` in ``fields``. It is valid only if no problem is added to ``fields``."""
    given = fields.get("items")
    if not isinstance(given, list) or not 1 <= len(given) <= ITEMS_IN_ORDER:
        fields.refuse("items", f"must be a list of 1 to {ITEMS_IN_ORDER} objects with item and quantity")
        return []
    items = []
    for index, each in enumerate(given):
        place = fields.path(f"items[{index}]")
        expected = "an object with item and quantity"
        item = Fields.of(each, ITEM_FIELDS, fields.problems, place, of="an item", expected=expected)
        if item is not None:
            items.append(_read_item(item))
    return items


def _read_item(fields: Fields) -> Item:
    quantity = fields.whole_number("quantity", 1, QUANTITY, default=1)
    return Item(_read_text(fields, "item", 200), quantity)


def _read_text(
    fields: Fields, name: str, most: int, *, least: int = 1, lines: bool = False, composed: bool = False
) -> str:
    value = fields.get(name)
    if composed and isinstance(value, str):
        value = unicodedata.normalize("NFC", value)
    if name not in fields:
        fields.refuse(name, "is missing")
    elif not isinstance(value, str):
        fields.refuse(name, "must be a string")
    elif not least <= len(value) <= most:
        fields.refuse(name, f"must have {least} to {most} characters, but has {len(value)}")
    elif least and BLANK.fullmatch(value):
        fields.refuse(name, "is blank")
    elif bad := (NO_TEXT_OF_LINES if lines else NO_TEXT).search(value):
        fields.refuse(name, f"contains U+{ord(bad[0]):04X} at position {bad.start()}, which is not allowed")
    return value if isinstance(value, str) else ""


def stored_items(items: tuple[Item, ...]) -> dict[str, Any]:
    """Converts the items of an order to a DynamoDB attribute."""
    return {"L": [{"M": {"item": {"S": each.item}, "quantity": {"N": str(each.quantity)}}} for each in items]}


def stored_note(note: str | None) -> dict[str, Any]:
    return {"NULL": True} if note is None else {"S": note}


def _is_user_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= USER_NAME and not NO_TEXT.search(value)


def _is_timestamp(value: Any) -> bool:
    try:
        return bool(timestamp(datetime.fromisoformat(value)) == value)
    except (TypeError, ValueError, OverflowError):
        return False
