"""Notifications: published through SNS, and each kept once in a table for the inbox."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from chalicelib import correlation, metrics
from chalicelib.errors import InvalidRequest, Problem, aws_errors
from chalicelib.logs import logger
from chalicelib.reports import KINDS as REPORT_KINDS
from chalicelib.rest import Page
from chalicelib.timeline import Timeline, index_keys, timestamp

KINDS = ("report", "order", "upload", "storage", "alarm")
# What came from elsewhere is kept as well.
SHOWN_KINDS = (*KINDS, "other")
KEPT = timedelta(days=30)
# Those that have a report's link, and what staff see in its place.
KINDS_WITH_LINKS = ("report", "storage")
LINK = re.compile(r"https?://\S+", re.IGNORECASE)
NO_LINK = "(only managers open reports)"
# SNS takes 262,144 bytes, with the SMS and the attributes, and a DynamoDB item 400 KB.
MESSAGE_BYTES = 200_000
SUBJECT_CHARACTERS = 100
SMS_BYTES = 140
# DynamoDB takes a partition key of 2,048 bytes, and an upload's key shown with escapes may be longer than that.
KEY_BYTES = 2_048

OUTCOMES = ("succeeded", "failed")
# The name of the attribute that has a notification's facts as JSON, and of the item's field.
FACTS = "facts"

log = logger("notifications")


@dataclass(frozen=True)
class Notification:
    """What subscribers get. ``kind`` is what they may filter by: report, order, upload or storage.

    ``key`` names the fact, so that the same fact delivered twice is known as such. ``sms`` is the short text for
    telephones, without a link. ``correlation_ids`` are those of all that it tells of.
    """

    kind: str
    key: str
    subject: str
    message: str
    sms: str
    correlation_ids: tuple[str, ...] = ()


Publish = Callable[[Notification], None]


def publisher(sns: Any, topic_arn: str) -> Publish:
    """A function that publishes a ``Notification`` to the topic. It raises ``Unavailable`` where SNS fails for now.

    SNS may have taken it all the same: published again, it has the same ``key``.
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
                "key": {"DataType": "String", "StringValue": _short(notification.key)},
                **correlation.sns_attribute(notification.correlation_ids),
            },
        )
        known = {"kind": notification.kind, "key": notification.key}
        log.info("notification published", extra={**known, correlation.NAMES: notification.correlation_ids})

    return publish


def subject(text: str) -> str:
    """``text`` as SNS takes it: at most 100 printable ASCII characters on one line, the first no space."""
    # Letters lose their accents, which are characters of their own in this form.
    bare = (character for character in unicodedata.normalize("NFKD", text) if not unicodedata.combining(character))
    plain = "".join(character if " " <= character <= "~" else "?" for character in " ".join("".join(bare).split()))
    if len(plain) > SUBJECT_CHARACTERS:
        plain = plain[: SUBJECT_CHARACTERS - 3] + "..."
    return plain or "Cafe"


def counted(number: int, thing: str) -> str:
    """``1 order``, ``2 orders``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def one_line(text: str) -> str:
    """``text`` as people may see it in a message: on one line and in one direction, whatever characters it has."""
    return text if text.isprintable() else repr(text)


def _short(key: str) -> str:
    """``key``, or where it is too long another one that is as much its own."""
    encoded = key.encode()
    return key if len(encoded) <= KEY_BYTES else hashlib.sha256(encoded).hexdigest()


def _cut(text: str, limit: int) -> str:
    """As much of ``text`` as has at most ``limit`` bytes in JSON, where a line break or a quote has two."""

    def size(end: int) -> int:
        return len(json.dumps(text[:end], ensure_ascii=False).encode())

    if size(len(text)) <= limit:
        return text
    return text[: bisect_right(range(len(text)), limit - len("…".encode()), key=size) - 1] + "…"


def record(event: dict[str, Any], *, dynamodb: Any, table: str, default_kind: str = "other") -> None:
    """Keeps each message of an SNS event once, by its key or, where it has none, its message id.

    ``default_kind`` is for messages without the attribute ``kind``, such as those of an alarm.
    """
    for sns in (each["Sns"] for each in event.get("Records", [])):
        attributes = {name: each.get("Value", "") for name, each in (sns.get("MessageAttributes") or {}).items()}
        kind = attributes.get("kind", default_kind)
        sent_at = datetime.fromisoformat(sns["Timestamp"])
        identifier = _short(attributes.get("key") or sns["MessageId"])
        moment = timestamp(sent_at)
        values = {
            "notificationID": identifier,
            "messageId": sns["MessageId"],
            "kind": kind if kind in KINDS else "other",
            "subject": sns.get("Subject") or "",
            "message": sns["Message"],
            "sentAt": moment,
            **index_keys(moment, sns["MessageId"]),
        }
        item: dict[str, Any] = {name: {"S": value} for name, value in values.items()}
        item["expiresAt"] = {"N": str(int((sent_at + KEPT).timestamp()))}
        facts = _facts(attributes)
        if facts:
            item[FACTS] = {"S": json.dumps(facts)}
        correlation_ids = correlation.of_sns(sns)
        item[correlation.NAMES] = {"L": [{"S": each} for each in correlation_ids]}
        known = {"notificationID": identifier, "messageId": sns["MessageId"], correlation.NAMES: correlation_ids}
        try:
            dynamodb.put_item(TableName=table, Item=item, ConditionExpression="attribute_not_exists(notificationID)")
        except dynamodb.exceptions.ConditionalCheckFailedException:
            log.info("notification kept already", extra=known)
        else:
            log.info("notification kept", extra=known)
            # SNS can deliver a message twice, and the first one is counted.
            _count_report(facts, attributes, sent_at)


def _facts(attributes: dict[str, str]) -> dict[str, Any]:
    """The facts of a message. Another publisher's attribute can be any text."""
    try:
        # JSON has no NaN, which Python would read and write.
        facts = json.loads(attributes[FACTS], parse_constant=str)
    except (KeyError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _count_report(facts: dict[str, Any], attributes: dict[str, str], sent_at: datetime) -> None:
    """Counts the end of a report, with the seconds from its start to its notification."""
    kind, outcome = facts.get("kind"), facts.get("outcome")
    if kind not in REPORT_KINDS or outcome not in OUTCOMES:
        return
    figures: dict[str, float] = {"Reports": 1}
    with suppress(KeyError, ValueError, TypeError):
        # One of the two clocks can be behind the other.
        figures["ReportDuration"] = max(0, (sent_at - datetime.fromisoformat(attributes["startedAt"])).total_seconds())
    metrics.emit(figures, kind=kind, outcome=outcome)


@aws_errors()
def inbox(page: Page, *, links: bool, dynamodb: Any, table: str, now: datetime | None = None) -> dict[str, Any]:
    """``{"notifications": [{"messageId", "kind", "subject", "message", "facts", "sentAt"}], "next"}``, newest first.

    Whoever has a report's link can open it. Without ``links`` the messages of reports have them no more. A page of one
    ``kind`` may have fewer than its limit, even none, and still a next one.
    """
    now = now or datetime.now(UTC)
    kind = page.filters.get("kind")
    if kind is not None and kind not in SHOWN_KINDS:
        raise InvalidRequest([Problem("kind", f"must be one of {', '.join(SHOWN_KINDS)}")])
    wanted = None if kind is None else lambda item: bool(item["kind"]["S"] == kind)
    # DynamoDB's TTL may take days to delete: what is older than promised is not shown.
    since = (now - KEPT).date()
    items, token = Timeline(dynamodb, table).page("notifications", since, page.limit, page.next, now, wanted)
    names = ("messageId", "kind", "subject", "message", "sentAt")
    shown: list[dict[str, Any]] = [{name: item[name]["S"] for name in names} for item in items]
    for each, item in zip(shown, items, strict=True):
        each[FACTS] = json.loads(item[FACTS]["S"]) if FACTS in item else {}
    for each in shown:
        if not links and each["kind"] in KINDS_WITH_LINKS:
            each["message"] = LINK.sub(NO_LINK, each["message"])
    return {"notifications": shown, "next": token}
