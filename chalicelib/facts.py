"""The facts of a notification: JSON in an attribute of the SNS message, and in the stored item."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# The name of the attribute.
NAME = "facts"
# SNS accepts 262,144 bytes for the texts and the attributes of a message.
BYTES = 40_000


def sns_attribute(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the attribute of a message. Too many facts are left out, so that the message is sent."""
    text = json.dumps(facts)
    if not facts or len(text) > BYTES:
        return {}
    return {NAME: {"DataType": "String", "StringValue": text}}


def item_attribute(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the attribute of an item."""
    return {NAME: {"S": json.dumps(facts)}} if facts else {}


def of_item(item: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the facts of an item. Items from before there were facts have none."""
    return read(item.get(NAME, {}).get("S"))


def read(text: str | None) -> dict[str, Any]:
    """Returns the facts in the value of an attribute. Another publisher's attribute can be any text."""
    try:
        # JSON has no NaN, which Python would read and write.
        facts = json.loads(text or "{}", parse_constant=str)
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}
