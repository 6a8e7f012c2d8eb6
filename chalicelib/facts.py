"""Stores the facts of a notification as JSON in an SNS message attribute and in an inbox item.

Programs read only the facts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

NAME = "facts"
# Maximum size in bytes of the facts in a notification. SNS limits a message and its attributes to 262,144 bytes in
# total.
BYTES = 40_000


def sns_attribute(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the facts as an SNS message attribute, or no attribute if the facts are too large."""
    text = json.dumps(facts)
    if not facts or len(text) > BYTES:
        return {}
    return {NAME: {"DataType": "String", "StringValue": text}}


def item_attribute(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the facts as an attribute of a DynamoDB item."""
    return {NAME: {"S": json.dumps(facts)}} if facts else {}


def of_item(item: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the facts in an inbox item. Items that were stored before facts were introduced contain no facts."""
    return read(item.get(NAME, {}).get("S"))


def read(text: str | None) -> dict[str, Any]:
    """Parses the facts in the value of an attribute.

    If another program published the message, the value may be any string.
    """
    try:
        # By default, Python's JSON parser accepts NaN, although NaN is not valid JSON.
        facts = json.loads(text or "{}", parse_constant=str)
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}
