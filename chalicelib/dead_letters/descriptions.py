"""Describes failed events in one line of plain text, and finds their correlation ids."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote_plus

from chalicelib import correlation
from chalicelib.orders import announce

TEXT_CHARACTERS = 300
NAMES_SHOWN = 3
# This pattern also matches links in JSON, in which a backslash may escape an ampersand or a slash.
LINK = re.compile(r"\b[a-z][a-z0-9+.-]{0,20}:(?:\\*/){2}(?:[^\s\"'<>\\]|\\+(?:u[0-9a-f]{4}|/))+", re.IGNORECASE)


def one_line(text: str) -> str:
    """Converts ``text`` to one line of at most 300 printable characters. Removes links, because they are secret."""
    line = LINK.sub("(a link)", text[: 10 * TEXT_CHARACTERS])
    line = "".join(character if character.isprintable() else "?" for character in " ".join(line.split()))
    return (line if len(line) <= TEXT_CHARACTERS else line[: TEXT_CHARACTERS - 1] + "…") or "no text"


def correlation_ids(kind: str, payload: dict[str, Any]) -> tuple[str, ...]:
    """Returns the correlation ids of all records in an event."""
    records = payload["Records"] if isinstance(payload.get("Records"), list) else []
    if kind == "announcement":
        return without_none(*map(correlation.of_order, records))
    if kind == "upload":
        return without_none(*map(correlation.of_upload, records))
    messages = [each.get("Sns") for each in records if isinstance(each, dict)]
    return tuple(each for sns in messages for each in correlation.of_sns(sns))


def without_none(*ids: str | None) -> tuple[str, ...]:
    return tuple(filter(None, ids))


def event(kind: str, payload: dict[str, Any], function: str) -> str:
    """Names the orders, files or notifications in an event."""
    try:
        records = payload["Records"]
        if kind == "announcement":
            names = [_order(each) for each in records]
        elif kind == "upload":
            names = [unquote_plus(each["s3"]["object"]["key"]) for each in records]
        else:
            names = [notification(each["Sns"]) for each in records]
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        about = ", ".join(names[:NAMES_SHOWN]) + more
    except (KeyError, TypeError, AttributeError):
        about = ""
    if not about:
        return f"an unreadable event for {function.rpartition('-')[2]}"
    return f"announcement of {about}" if kind == "announcement" else f"{kind} {about}"


def _order(record: dict[str, Any]) -> str:
    """Describes an order, such as ``order o-1 of customer ada`` or ``cancelled order o-1 of customer ada``."""
    change = announce.announced_change(record)
    kind = f"{change.lower()} order" if change in announce.ANNOUNCED_CHANGES else "order"
    return f"{kind} {record['dynamodb']['Keys']['orderID']['S']} of customer {announce.customer(record)}"


def notification(sns: dict[str, Any]) -> str:
    """Returns the subject of a notification, or its id."""
    return f"'{sns['Subject']}'" if sns.get("Subject") else f"{sns['MessageId']}, which has no subject"
