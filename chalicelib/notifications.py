"""Publishes notifications through SNS, and stores each notification exactly once in the inbox table.

A notification contains text for people and ``facts`` for programs. Programs never read the text.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from chalicelib import correlation, facts, metrics
from chalicelib.errors import InvalidRequest, Problem, aws_errors
from chalicelib.logs import logger
from chalicelib.rest import Page
from chalicelib.timeline import Timeline, index_keys, timestamp

KINDS = ("report", "order", "upload", "storage", "alarm")
# Messages from other publishers may have any kind. The inbox shows an unknown kind as ``other``.
SHOWN_KINDS = (*KINDS, "other")
KEPT = timedelta(days=30)
# Notifications about reports and storage contain a link to a report. Staff see the text ``NO_LINK`` instead of the
# link.
KINDS_WITH_LINKS = ("report", "storage")
LINK = re.compile(r"https?://\S+", re.IGNORECASE)
NO_LINK = "(only managers can open reports)"
# SNS limits a message and its attributes to 262,144 bytes, and DynamoDB limits an item to 400 KB.
MESSAGE_BYTES = 200_000
SUBJECT_CHARACTERS = 100
SMS_BYTES = 140
# DynamoDB limits a partition key to 2,048 bytes. The escaped S3 key of an uploaded file may be longer.
KEY_BYTES = 2_048

REPORT_OUTCOMES = ("succeeded", "failed")

log = logger("notifications")


@dataclass(frozen=True)
class Notification:
    """A message to the subscribers of the SNS topic.

    Subscribers can filter by ``kind`` (report, order, upload or storage).

    ``key`` identifies the event and makes it possible to detect a repeated delivery. ``sms`` is a short text without a
    link. ``facts`` may contain any JSON values. ``correlation_ids`` contains the correlation ids of all reported
    events.
    """

    kind: str
    key: str
    subject: str
    message: str
    sms: str
    correlation_ids: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


Publish = Callable[[Notification], None]


def publisher(sns: Any, topic_arn: str) -> Publish:
    """Returns a function that publishes a ``Notification``. The function raises ``Unavailable`` if SNS is unavailable.

    SNS may have accepted the message even if the function raises ``Unavailable``. Publishing the notification again is
    safe, because its ``key`` does not change.
    """

    @aws_errors()
    def publish(notification: Notification) -> None:
        message = json.dumps(
            {"default": _cut(notification.message, MESSAGE_BYTES), "sms": _cut(notification.sms, SMS_BYTES)},
            ensure_ascii=False,
        )
        sns.publish(
            TopicArn=topic_arn,
            Subject=subject(notification.subject),
            Message=message,
            MessageStructure="json",
            MessageAttributes={
                "kind": {"DataType": "String", "StringValue": notification.kind},
                "key": {"DataType": "String", "StringValue": stored_key(notification.key)},
                **facts.sns_attribute(notification.facts),
                **correlation.sns_attribute(notification.correlation_ids),
            },
        )
        identity = {"kind": notification.kind, "key": notification.key}
        log.info("notification published", extra={**identity, correlation.NAMES: notification.correlation_ids})

    return publish


def subject(text: str) -> str:
    """Converts ``text`` to a valid SNS subject: at most 100 printable ASCII characters, with no leading space."""
    # NFKD normalization separates accents from letters, so that the accents can be dropped.
    bare = (character for character in unicodedata.normalize("NFKD", text) if not unicodedata.combining(character))
    plain = "".join(character if " " <= character <= "~" else "?" for character in " ".join("".join(bare).split()))
    if len(plain) > SUBJECT_CHARACTERS:
        plain = plain[: SUBJECT_CHARACTERS - 3] + "..."
    return plain or "Cafe"


def counted(number: int, thing: str) -> str:
    """Returns a number and its noun, such as ``1 order`` or ``2 orders``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def one_line(text: str) -> str:
    """Returns ``text``, or its JSON form if it contains a line break or another unprintable character."""
    return text if text.isprintable() else json.dumps(text)


def stored_key(key: str) -> str:
    """Returns ``key``, or its digest if ``key`` is too long for DynamoDB."""
    encoded = key.encode()
    return key if len(encoded) <= KEY_BYTES else hashlib.sha256(encoded).hexdigest()


def _cut(text: str, limit: int) -> str:
    """Shortens ``text`` so that its JSON form has at most ``limit`` bytes, including escapes."""

    def size(end: int) -> int:
        return len(json.dumps(text[:end], ensure_ascii=False).encode())

    if size(len(text)) <= limit:
        return text
    return text[: bisect_right(range(len(text)), limit - len("…".encode()), key=size) - 1] + "…"


def record(event: dict[str, Any], *, dynamodb: Any, table: str, default_kind: str = "other") -> None:
    """Stores each message from an SNS event exactly once, identified by its key or, without a key, by its SNS id.

    ``default_kind`` is the kind of messages that have no ``kind`` attribute, such as alarms.
    """
    for sns in (each["Sns"] for each in event.get("Records", [])):
        attributes = {name: each.get("Value", "") for name, each in (sns.get("MessageAttributes") or {}).items()}
        sent_at = datetime.fromisoformat(sns["Timestamp"])
        known_facts = facts.read(attributes.get(facts.NAME))
        correlation_ids = correlation.of_sns(sns)
        item = {**_item(sns, attributes, sent_at, default_kind), **facts.item_attribute(known_facts)}
        item[correlation.NAMES] = {"L": [{"S": each} for each in correlation_ids]}
        identity = {name: item[name]["S"] for name in ("notificationID", "messageId")}
        about = {**identity, correlation.NAMES: correlation_ids}
        try:
            with aws_errors():
                dynamodb.put_item(
                    TableName=table, Item=item, ConditionExpression="attribute_not_exists(notificationID)"
                )
        except dynamodb.exceptions.ConditionalCheckFailedException:
            log.info("notification kept already", extra=about)
        else:
            log.info("notification kept", extra=about)
            # SNS may deliver a message twice, but each report must be counted only once.
            _count_report(known_facts, attributes, sent_at)


def _item(sns: dict[str, Any], attributes: dict[str, str], sent_at: datetime, default_kind: str) -> dict[str, Any]:
    kind = attributes.get("kind", default_kind)
    moment = timestamp(sent_at)
    values = {
        "notificationID": stored_key(attributes.get("key") or sns["MessageId"]),
        "messageId": sns["MessageId"],
        "kind": kind if kind in KINDS else "other",
        "subject": sns.get("Subject") or "",
        "message": sns["Message"],
        "sentAt": moment,
        **index_keys(moment, sns["MessageId"]),
    }
    expires_at = {"N": str(int((sent_at + KEPT).timestamp()))}
    return {**{name: {"S": value} for name, value in values.items()}, "expiresAt": expires_at}


def _count_report(known_facts: dict[str, Any], attributes: dict[str, str], sent_at: datetime) -> None:
    """Counts a finished report, and records the time in seconds from the start of the report to the notification."""
    kind, outcome = known_facts.get("kind"), known_facts.get("outcome")
    if outcome not in REPORT_OUTCOMES:
        return
    # The import is inside the function because most notifications are not about reports.
    from chalicelib import reports

    if kind not in reports.KINDS:
        return
    figures: dict[str, float] = {"Reports": 1}
    with suppress(KeyError, ValueError, TypeError):
        # The start time and the send time come from different clocks, so their difference may be negative.
        figures["ReportDuration"] = max(0, (sent_at - datetime.fromisoformat(attributes["startedAt"])).total_seconds())
    metrics.emit(figures, kind=kind, outcome=outcome)


@aws_errors()
def inbox(page: Page, *, links: bool, dynamodb: Any, table: str, now: datetime | None = None) -> dict[str, Any]:
    """Returns a page of notifications, newest first, in the format that ``chalicelib/openapi.json`` describes.

    Anyone who has a report's link can open the report, so links are removed unless ``links`` is true. A page that is
    filtered by ``kind`` may be short or empty even if another page follows.
    """
    now = now or datetime.now(UTC)
    kind = page.filters.get("kind")
    if kind is not None and kind not in SHOWN_KINDS:
        raise InvalidRequest([Problem("kind", f"must be one of {', '.join(SHOWN_KINDS)}")])
    is_wanted = None if kind is None else lambda item: bool(item["kind"]["S"] == kind)
    # DynamoDB may take days to delete an expired item, so the list excludes old items.
    since = (now - KEPT).date().isoformat()
    items, token = Timeline(dynamodb, table).page("notifications", since, page.limit, page.next, now, is_wanted)
    return {"notifications": [_shown(item, links) for item in items], "next": token}


def _shown(item: dict[str, Any], links: bool) -> dict[str, Any]:
    shown = {name: item[name]["S"] for name in ("messageId", "kind", "subject", "message", "sentAt")}
    if not links and shown["kind"] in KINDS_WITH_LINKS:
        shown["message"] = LINK.sub(NO_LINK, shown["message"])
    return {**shown, "facts": facts.of_item(item)}
