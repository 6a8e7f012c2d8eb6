"""Tests that subscribers receive the right notifications and that the inbox stores each notification exactly once."""

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chalicelib import notifications
from chalicelib.notifications import Notification, publisher
from tests.unit.api import Api
from tests.unit.cloud import ENVIRONMENT, Aws
from tests.unit.logged import records
from tests.unit.notices import NOW, attributes, inbox, record, sent


def notification(**fields: str) -> Notification:
    given = {"kind": "order", "key": "orders/1", "subject": "1 new order", "message": "text", "sms": "short", **fields}
    return Notification(**given)


def ids(page: dict[str, Any]) -> list[str]:
    return [each["messageId"] for each in page["notifications"]]


def published(aws: Aws, given: Notification) -> dict[str, Any]:
    """Publishes a notification to moto's SNS, and returns the arguments of the call."""
    calls = aws.calls(aws.sns, "Publish")
    publisher(aws.sns, ENVIRONMENT["TOPIC_ARN"])(given)
    (call,) = calls
    return call


def test_each_protocol_gets_its_text_and_the_filter_its_kind(aws: Aws, log_lines: io.StringIO) -> None:
    assert published(aws, notification()) == {
        "TopicArn": ENVIRONMENT["TOPIC_ARN"],
        "Subject": "1 new order",
        "Message": '{"default": "text", "sms": "short"}',
        "MessageStructure": "json",
        "MessageAttributes": {
            "kind": {"DataType": "String", "StringValue": "order"},
            "key": {"DataType": "String", "StringValue": "orders/1"},
        },
    }
    (message,) = aws.published()
    assert (message["Subject"], message["Message"]) == ("1 new order", "text")
    [line] = records(log_lines, "notification published")
    assert (line["kind"], line["key"]) == ("order", "orders/1")


def test_the_facts_are_an_attribute_of_the_message(aws: Aws) -> None:
    given = {"outcome": "placed", "orderIDs": ["Zoë\ud800"]}
    call = published(aws, notification(facts=given))
    attribute = call["MessageAttributes"]["facts"]
    assert (attribute["DataType"], json.loads(attribute["StringValue"])) == ("String", given)


def test_too_many_facts_are_left_out_and_the_message_is_sent(aws: Aws) -> None:
    call = published(aws, notification(facts={"orderIDs": ["x" * 64] * 1_000}))
    assert "facts" not in call["MessageAttributes"]


@pytest.mark.parametrize("character", ["x", "é", "😀", '"', "\u0001"])
def test_a_message_of_any_length_is_cut_to_what_sns_accepts(aws: Aws, character: str) -> None:
    call = published(aws, notification(message=character * 300_000, sms=character * 1000))
    texts = json.loads(call["Message"])
    for name, most in (("default", notifications.MESSAGE_BYTES), ("sms", notifications.SMS_BYTES)):
        assert len(texts[name].encode()) <= most
        assert texts[name].endswith(f"{character}…")
    fitting = "é" * (notifications.MESSAGE_BYTES // 2 - 1)
    assert json.loads(published(aws, notification(message=fitting))["Message"])["default"] == fitting
    size = len(call["Message"].encode()) + len(call["Subject"]) + sum(map(len, ("kind", "order", "key", "orders/1")))
    assert size <= 262_144


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 new order", "1 new order"),
        ("  two\r\n lines\tand  spaces ", "two lines and spaces"),
        ("Café Größe ☕", "Cafe Gro?e ?"),
        ("a\u0000b\u007f", "a?b?"),
        *(("\u2028", "Cafe"), ("", "Cafe")),
        *(("x" * 100, "x" * 100), ("x" * 101, "x" * 97 + "...")),
    ],
)
def test_a_subject_is_at_most_100_printable_characters_on_one_line(text: str, expected: str) -> None:
    assert notifications.subject(text) == expected


def test_a_key_that_is_too_long_for_the_table_is_replaced_by_one_that_fits(aws: Aws) -> None:
    keys = [
        published(aws, replace(notification(), key=key))["MessageAttributes"]["key"]["StringValue"]
        for key in ("é" * 1024, "é" * 1024 + "a", "é" * 1024 + "b", "é" * 1024 + "a")
    ]
    assert keys[0] == "é" * 1024
    assert keys[1] == keys[3] != keys[2]
    assert all(len(key.encode()) <= 2_048 for key in keys)
    # Another publisher may send a key that is too long for the table.
    for length in (2_048, 2_049):
        record(aws, sent(length, MessageAttributes=attributes(kind="order", key="x" * length)))
    assert ids(inbox(aws)) == ["m-2049", "m-2048"]
    assert {len(item["notificationID"]["S"]) for item in aws.kept()} == {64, 2_048}


def test_a_notification_is_kept_for_30_days_and_shown(aws: Aws) -> None:
    record(aws, sent())
    (kept,) = aws.kept()
    assert kept["expiresAt"] == {"N": str(int((NOW + timedelta(days=30)).timestamp()))}
    shown = {
        "messageId": "m-1",
        "kind": "order",
        "subject": "1 new order",
        "message": "1 new order:\n- order o-1 of customer c-1",
        "facts": {},
        "sentAt": "2026-11-21T03:14:15.123000Z",
    }
    assert inbox(aws) == {"notifications": [shown], "next": None}


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ('{"id": "inventory-1", "kind": "inventory", "outcome": "failed"}',) * 2,
        ('{"low": NaN}', '{"low": "NaN"}'),
        ("Inventory report failed", "{}"),
        ("[1]", "{}"),
        ("9" * 5_000, "{}"),
        ("[" * 100_000, "{}"),
    ],
    ids=["a report's", "not in JSON", "a sentence", "a list", "a long number", "deep"],
)
def test_the_facts_of_a_notification_are_kept_and_shown_as_fields(aws: Aws, text: str, facts: str) -> None:
    record(aws, sent(MessageAttributes=attributes(facts=text)))
    assert inbox(aws)["notifications"][0]["facts"] == json.loads(facts)


def test_a_notification_is_kept_once_if_it_is_delivered_or_published_twice(aws: Aws, log_lines: io.StringIO) -> None:
    """Two SNS messages with the same key are about the same event."""
    again = sent(2, NOW + timedelta(minutes=1), MessageAttributes=attributes(kind="order", key="orders/1"))
    for each in (sent(), sent(), again):
        record(aws, each)
    assert ids(inbox(aws)) == ["m-1"]
    messages = [each["message"] for each in records(log_lines)]
    assert messages == ["notification kept", "notification kept already", "notification kept already"]


@pytest.mark.parametrize("attributes", [None, {}], ids=["left out", "empty"])
def test_a_notification_without_attributes_and_subject_has_the_default_kind_and_no_subject(
    aws: Aws, attributes: dict[str, Any] | None
) -> None:
    given = sent(MessageAttributes=attributes, Subject=None)
    for event in (given, {"Sns": {**given["Sns"], "Subject": None}}):
        record(aws, event)
    assert inbox(aws)["notifications"][0]["subject"] == ""
    (kept,) = aws.kept()
    assert kept["notificationID"] == {"S": "m-1"}
    record(aws, sent(2, NOW + timedelta(hours=1), MessageAttributes=attributes), default_kind="alarm")
    assert [each["kind"] for each in inbox(aws)["notifications"]] == ["alarm", "other"]


def test_the_largest_message_of_sns_fits_into_an_item(aws: Aws) -> None:
    record(aws, sent(Message="é" * 131_000))
    (kept,) = aws.kept()
    assert sum(len(name) + len(str(value).encode()) for name, value in kept.items()) < 400 * 1024


def test_an_expired_notification_is_not_shown_even_if_dynamodb_has_not_deleted_it(aws: Aws) -> None:
    record(aws, sent(1, NOW - timedelta(days=29)), sent(2, NOW - timedelta(days=31)))
    assert len(aws.kept()) == 2
    assert ids(inbox(aws)) == ["m-1"]


LINKED = (
    "Inventory report inventory-1: 3 beans. Open it before 2026-11-21T04:14:15Z: "
    "https://cafe-test-reports.s3.amazonaws.com/inventory/inventory-1/report.html?X-Amz-Signature=abc&X-Amz-Expires=1"
)
CSV = "\nAll rows: HTTP://127.0.0.1:4566/reports/all.csv?X-Amz-Signature=def\nUntil then."
HIDDEN = (
    "Inventory report inventory-1: 3 beans. Open it before 2026-11-21T04:14:15Z: (only managers can open reports)"
    "\nAll rows: (only managers can open reports)\nUntil then."
)


@pytest.mark.parametrize("kind", ["report", "storage"])
def test_staff_see_the_notification_of_a_report_without_its_links(aws: Aws, kind: str) -> None:
    record(aws, sent(Message=LINKED + CSV, MessageAttributes=attributes(kind=kind)))
    assert inbox(aws, links=False)["notifications"][0]["message"] == HIDDEN
    assert inbox(aws)["notifications"][0]["message"] == LINKED + CSV


@pytest.mark.parametrize("kind", ["order", "upload", "alarm", "party"])
def test_staff_see_every_other_notification_unchanged(aws: Aws, kind: str) -> None:
    record(aws, sent(Message="https://example.org was received", MessageAttributes=attributes(kind=kind)))
    assert inbox(aws, links=False)["notifications"][0]["message"] == "https://example.org was received"


def test_the_api_shows_links_to_managers_only(api: Api, aws: Aws) -> None:
    record(aws, sent(0, datetime.now(UTC), Message=LINKED, MessageAttributes=attributes(kind="report")))
    for groups, expected in ((("staff",), False), (("managers",), True), (("staff", "managers"), True)):
        [shown] = api.sent_by("ana", *groups).get("/notifications").json_body["notifications"]
        assert (shown["message"] == LINKED) is expected


def test_the_functions_keep_each_record_of_an_event(api: Api, aws: Aws) -> None:
    api.invoke("record_notification", {"Records": [sent(1, Subject=None), sent(2)]})
    api.invoke("record_notification", api.client.events.generate_sns_event("text", "subject"))
    alarm = json.dumps({"AlarmName": "cafe-test-orders-dead", "NewStateValue": "ALARM"})
    event = sent(3, Message=alarm, Subject='ALARM: "cafe-test-orders-dead"', MessageAttributes={})
    api.invoke("record_alarm", {"Records": [event]})
    assert sorted(each["kind"]["S"] for each in aws.kept()) == ["alarm", "order", "order", "other"]
    assert alarm in [each["message"]["S"] for each in aws.kept()]
