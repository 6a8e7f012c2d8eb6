"""Provides notifications as SNS delivers them, and helpers that store and list notifications."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from chalicelib import notifications
from chalicelib.rest import Page
from tests.unit.cloud import ENVIRONMENT, Aws

NOW = datetime(2026, 11, 21, 3, 14, 15, 123456, UTC)
TABLE = ENVIRONMENT["NOTIFICATIONS_TABLE"]


def attributes(**values: str) -> dict[str, dict[str, str]]:
    """Returns message attributes as SNS delivers them."""
    return {name: {"Type": "String", "Value": value} for name, value in values.items()}


def sent(number: int = 1, moment: datetime = NOW, **fields: Any) -> dict[str, Any]:
    """Returns one record of an SNS event, without the fields that are None."""
    sns = {
        "Type": "Notification",
        "MessageId": f"m-{number}",
        "TopicArn": ENVIRONMENT["TOPIC_ARN"],
        "Subject": "1 new order",
        "Message": "1 new order:\n- order o-1 of customer c-1",
        "Timestamp": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "MessageAttributes": attributes(kind="order", key=f"orders/{number}"),
        **fields,
    }
    return {"EventSource": "aws:sns", "Sns": {name: each for name, each in sns.items() if each is not None}}


def record(aws: Aws, *records: dict[str, Any], **options: str) -> None:
    notifications.record({"Records": list(records)}, dynamodb=aws.dynamodb, table=TABLE, **options)


def inbox(
    aws: Aws, limit: int = 100, token: str | None = None, now: datetime = NOW, links: bool = True
) -> dict[str, Any]:
    return notifications.inbox(Page(limit, token, {}), links=links, dynamodb=aws.dynamodb, table=TABLE, now=now)
