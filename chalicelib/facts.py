"""A notification's facts, stored as JSON in an attribute of the SNS message and of the inbox item."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

NAME = "facts"
# Maximum size of the facts. SNS accepts 262,144 bytes for a message with its attributes.
BYTES = 40_000


def sns_attribute(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the facts as attributes of an SNS message. Leaves out facts that are too large for SNS."""
    text = json.dumps(facts)
    if not facts or len(text) > BYTES:
        return {}
    return {NAME: {"DataType": "String", "StringValue": text}}


def item_attribute(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the facts as attributes of a DynamoDB item."""
    return {NAME: {"S": json.dumps(facts)}} if facts else {}


def of_item(item: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the facts in an inbox item. Items that were stored before facts were introduced contain none."""
    return read(item.get(NAME, {}).get("S"))


def read(text: str | None) -> dict[str, Any]:
    """Returns the facts in an attribute's value. An attribute from another publisher may contain any string."""
    try:
        # Python would accept and write NaN, which is not valid JSON.
        facts = json.loads(text or "{}", parse_constant=str)
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}
