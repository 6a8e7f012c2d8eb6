"""Notifications: what goes out to subscribers, and what is kept of it, once each."""

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import notifications
from chalicelib.errors import Unavailable
from chalicelib.notifications import Notification, publisher
from chalicelib.rest import Page
from tests.unit.conftest import ENVIRONMENT, Api, Aws

NOW = datetime(2026, 11, 21, 3, 14, 15, 123456, UTC)
TABLE = ENVIRONMENT["NOTIFICATIONS_TABLE"]


def notification(**fields: str) -> Notification:
    given = {"kind": "order", "key": "orders/1", "subject": "1 new order", "message": "text", "sms": "short", **fields}
    return Notification(**given)


def sent(number: int = 1, moment: datetime = NOW, **fields: Any) -> dict[str, Any]:
    """One record of an SNS event; a field that is None is left out."""
    sns = {
        "Type": "Notification",
        "MessageId": f"m-{number}",
        "TopicArn": ENVIRONMENT["TOPIC_ARN"],
        "Subject": "1 new order",
        "Message": "1 new order:\n- order o-1 of customer c-1",
        "Timestamp": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "MessageAttributes": {
            "kind": {"Type": "String", "Value": "order"},
            "key": {"Type": "String", "Value": f"orders/{number}"},
        },
        **fields,
    }
    return {"EventSource": "aws:sns", "Sns": {name: each for name, each in sns.items() if each is not None}}


def record(aws: Aws, *records: dict[str, Any], **options: str) -> None:
    notifications.record({"Records": list(records)}, dynamodb=aws.dynamodb, table=TABLE, **options)


def inbox(
    aws: Aws, limit: int = 100, token: str | None = None, now: datetime = NOW, links: bool = True
) -> dict[str, Any]:
    return notifications.inbox(Page(limit, token, {}), links=links, dynamodb=aws.dynamodb, table=TABLE, now=now)


# --- Publishing -------------------------------------------------------------------------------------------------------


def published(aws: Aws, given: Notification) -> dict[str, Any]:
    """The arguments of the call of SNS, which moto's SNS took."""
    calls = aws.calls(aws.sns, "Publish")
    publisher(aws.sns, ENVIRONMENT["TOPIC_ARN"])(given)
    (call,) = calls
    return call


def test_each_protocol_gets_its_text_and_the_filter_its_kind(aws: Aws) -> None:
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


@pytest.mark.parametrize("character", ["x", "é", "☕", "😀", '"', "\n", "\u0001"])
def test_a_message_of_any_length_is_cut_to_what_sns_takes(aws: Aws, character: str) -> None:
    call = published(aws, notification(message=character * 300_000, sms=character * 1000))
    texts = json.loads(call["Message"])
    assert len(texts["default"].encode()) <= notifications.MESSAGE_BYTES
    assert texts["default"].endswith(f"{character}…")
    assert len(texts["sms"].encode()) <= notifications.SMS_BYTES
    assert texts["sms"].endswith(f"{character}…")
    size = len(call["Message"].encode()) + len(call["Subject"]) + sum(map(len, ("kind", "order", "key", "orders/1")))
    assert size <= 262_144


def test_a_message_that_fits_is_not_touched(aws: Aws) -> None:
    text = "é" * (notifications.MESSAGE_BYTES // 2 - 1)
    assert json.loads(published(aws, notification(message=text))["Message"])["default"] == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 new order", "1 new order"),
        ("  two\r\n lines\tand  spaces ", "two lines and spaces"),
        ("Café Größe ☕", "Cafe Gro?e ?"),
        ("a\u0000b\u007f", "a?b?"),
        ("\u2028", "Cafe"),
        ("", "Cafe"),
        ("x" * 100, "x" * 100),
        ("x" * 101, "x" * 97 + "..."),
    ],
)
def test_a_subject_is_at_most_100_printable_characters_on_one_line(text: str, expected: str) -> None:
    assert notifications.subject(text) == expected


@given(st.text())
def test_any_text_becomes_a_subject_that_sns_takes(text: str) -> None:
    """https://docs.aws.amazon.com/sns/latest/api/API_Publish.html"""
    subject = notifications.subject(text)
    assert 1 <= len(subject) <= 100
    assert all(" " <= character <= "~" for character in subject)
    assert subject[0] != " "


def test_a_message_of_another_publisher_with_too_long_a_key_is_kept_too(aws: Aws) -> None:
    for length in (2_048, 2_049):
        key = {"Type": "String", "Value": "x" * length}
        record(aws, sent(length, MessageAttributes={"kind": {"Type": "String", "Value": "order"}, "key": key}))
    assert [each["messageId"] for each in inbox(aws)["notifications"]] == ["m-2049", "m-2048"]
    ids = {len(item["notificationID"]["S"]) for item in aws.dynamodb.scan(TableName=TABLE)["Items"]}
    assert ids == {64, 2_048}


def test_a_key_that_the_table_would_not_take_becomes_another_one_of_its_own(aws: Aws) -> None:
    keys = [
        published(aws, replace(notification(), key=key))["MessageAttributes"]["key"]["StringValue"]
        for key in ("é" * 1024, "é" * 1024 + "a", "é" * 1024 + "b", "é" * 1024 + "a")
    ]
    assert keys[0] == "é" * 1024
    assert keys[1] == keys[3] != keys[2]
    assert all(len(key.encode()) <= 2_048 for key in keys)


def test_a_publication_is_logged_with_its_key(aws: Aws, log_lines: io.StringIO) -> None:
    published(aws, notification())
    line = json.loads(log_lines.getvalue())
    assert (line["message"], line["kind"], line["key"]) == ("notification published", "order", "orders/1")


# --- Keeping ----------------------------------------------------------------------------------------------------------


def test_a_notification_is_kept_for_30_days_and_shown(aws: Aws) -> None:
    record(aws, sent())
    (kept,) = aws.kept()
    assert kept["expiresAt"] == {"N": str(int((NOW + timedelta(days=30)).timestamp()))}
    assert inbox(aws) == {
        "notifications": [
            {
                "messageId": "m-1",
                "kind": "order",
                "subject": "1 new order",
                "message": "1 new order:\n- order o-1 of customer c-1",
                "facts": {},
                "sentAt": "2026-11-21T03:14:15.123000Z",
            }
        ],
        "next": None,
    }


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
    record(aws, sent(MessageAttributes={"facts": {"Type": "String", "Value": text}}))
    assert inbox(aws)["notifications"][0]["facts"] == json.loads(facts)


@pytest.mark.parametrize("subject", [None, ""], ids=["left out", "empty"])
def test_a_notification_without_a_subject_has_an_empty_one(aws: Aws, subject: str | None) -> None:
    """AWS sends null; a subscription may leave it out."""
    record(aws, sent(Subject=subject))
    assert inbox(aws)["notifications"][0]["subject"] == ""


def test_a_subject_of_null_is_an_empty_one(aws: Aws) -> None:
    event = sent()
    event["Sns"]["Subject"] = None
    record(aws, event)
    assert inbox(aws)["notifications"][0]["subject"] == ""


def test_a_notification_delivered_twice_is_kept_once(aws: Aws, log_lines: io.StringIO) -> None:
    for _ in range(2):
        record(aws, sent())
    assert len(aws.kept()) == 1
    assert [json.loads(line)["message"] for line in log_lines.getvalue().splitlines()] == [
        "notification kept",
        "notification kept already",
    ]


def test_a_fact_published_twice_is_kept_once(aws: Aws) -> None:
    """Two messages of SNS, because a function ran twice: their key is the same."""
    again = sent(2, NOW + timedelta(minutes=1))
    again["Sns"]["MessageAttributes"]["key"]["Value"] = "orders/1"
    record(aws, sent(1), again)
    assert [each["messageId"] for each in inbox(aws)["notifications"]] == ["m-1"]


@pytest.mark.parametrize("attributes", [None, {}], ids=["left out", "empty"])
def test_a_notification_without_attributes_is_of_another_kind_and_kept_by_its_message_id(
    aws: Aws, attributes: dict[str, Any] | None
) -> None:
    for _ in range(2):
        record(aws, sent(MessageAttributes=attributes))
    (kept,) = aws.kept()
    assert kept["notificationID"] == {"S": "m-1"}
    assert inbox(aws)["notifications"][0]["kind"] == "other"


def test_an_alarm_has_no_attributes_and_is_of_the_kind_alarm(aws: Aws) -> None:
    record(aws, sent(MessageAttributes={}), default_kind="alarm")
    assert inbox(aws)["notifications"][0]["kind"] == "alarm"


@pytest.mark.parametrize("kind", ["report", "order", "upload", "storage", "alarm"])
def test_each_kind_stays_what_it_is(aws: Aws, kind: str) -> None:
    record(aws, sent(MessageAttributes={"kind": {"Type": "String", "Value": kind}}))
    assert inbox(aws)["notifications"][0]["kind"] == kind


def test_a_strangers_kind_is_other(aws: Aws) -> None:
    record(aws, sent(MessageAttributes={"kind": {"Type": "String", "Value": "party"}}))
    assert inbox(aws)["notifications"][0]["kind"] == "other"


def test_all_records_of_an_event_are_kept(aws: Aws) -> None:
    record(aws, sent(1), sent(2), sent(3))
    assert len(aws.kept()) == 3


def test_the_largest_message_of_sns_fits_into_an_item(aws: Aws) -> None:
    record(aws, sent(Message="é" * 131_000))
    (kept,) = aws.kept()
    assert sum(len(name) + len(str(value).encode()) for name, value in kept.items()) < 400 * 1024


def test_a_table_that_refuses_fails_the_function_so_that_it_is_tried_again(aws: Aws) -> None:
    with Stubber(aws.dynamodb) as dynamodb:
        dynamodb.add_client_error("put_item", "InternalServerError", http_status_code=500)
        with pytest.raises(ClientError):
            record(aws, sent())


# --- The inbox --------------------------------------------------------------------------------------------------------


def test_the_inbox_is_newest_first_by_pages(aws: Aws) -> None:
    record(aws, *[sent(number, NOW - timedelta(days=number)) for number in (2, 0, 4, 1, 3)])
    first = inbox(aws, 3)
    second = inbox(aws, 3, first["next"])
    assert [each["messageId"] for each in first["notifications"]] == ["m-0", "m-1", "m-2"]
    assert [each["messageId"] for each in second["notifications"]] == ["m-3", "m-4"]
    assert second["next"] is None


def test_an_expired_notification_is_not_shown_though_it_is_there_still(aws: Aws) -> None:
    """DynamoDB may take days to delete it."""
    record(aws, sent(1, NOW - timedelta(days=29)), sent(2, NOW - timedelta(days=31)))
    assert len(aws.kept()) == 2
    assert [each["messageId"] for each in inbox(aws)["notifications"]] == ["m-1"]


def test_a_page_that_has_expired_since_is_empty(aws: Aws) -> None:
    record(aws, sent(1), sent(2, NOW - timedelta(hours=1)))
    token = inbox(aws, 1)["next"]
    assert inbox(aws, 1, token, NOW + timedelta(days=32)) == {"notifications": [], "next": None}


def test_a_busy_table_is_a_503(aws: Aws) -> None:
    with Stubber(aws.dynamodb) as dynamodb:
        for _ in range(8):
            dynamodb.add_client_error("query", "ThrottlingException", http_status_code=400)
        with pytest.raises(Unavailable):
            inbox(aws)


LINKED = (
    "Inventory report inventory-1: 3 beans. Open it before 2026-11-21T04:14:15Z: "
    "https://cafe-test-reports.s3.amazonaws.com/inventory/inventory-1/report.html?X-Amz-Signature=abc&X-Amz-Expires=1"
)
CSV = "\nAll rows: HTTP://127.0.0.1:4566/reports/all.csv?X-Amz-Signature=def\nUntil then."
HIDDEN = (
    "Inventory report inventory-1: 3 beans. Open it before 2026-11-21T04:14:15Z: (only managers open reports)"
    "\nAll rows: (only managers open reports)\nUntil then."
)


@pytest.mark.parametrize("kind", ["report", "storage"])
def test_staff_see_a_reports_notification_without_its_links(aws: Aws, kind: str) -> None:
    attributes = {"kind": {"Type": "String", "Value": kind}}
    record(aws, sent(Message=LINKED + CSV, MessageAttributes=attributes))
    assert inbox(aws, links=False)["notifications"][0]["message"] == HIDDEN
    assert inbox(aws)["notifications"][0]["message"] == LINKED + CSV


def test_staff_see_every_other_notification_as_it_is(aws: Aws) -> None:
    for number, kind in enumerate(set(notifications.KINDS) - set(notifications.KINDS_WITH_LINKS)):
        attributes = {"kind": {"Type": "String", "Value": kind}}
        record(aws, sent(number, Message="https://example.org was received", MessageAttributes=attributes))
    shown = inbox(aws, links=False)["notifications"]
    assert {each["message"] for each in shown} == {"https://example.org was received"}
    assert len(shown) == 3


def test_the_api_shows_links_to_managers_only(api: Api, aws: Aws) -> None:
    record(aws, sent(0, datetime.now(UTC), Message=LINKED, MessageAttributes={"kind": {"Value": "report"}}))
    seen = {
        groups: sender.get("/notifications").json_body["notifications"][0]["message"] == LINKED
        for groups in (("staff",), ("managers",), ("staff", "managers"))
        for sender in [api.sent_by("ana", *groups)]
    }
    assert seen == {("staff",): False, ("managers",): True, ("staff", "managers"): True}


# --- The functions ----------------------------------------------------------------------------------------------------


def test_record_notification_takes_an_event_without_a_subject(api: Api, aws: Aws) -> None:
    api.client.lambda_.invoke("record_notification", {"Records": [sent(Subject=None)]})
    assert [each["kind"]["S"] for each in aws.kept()] == ["order"]


def test_record_notification_takes_the_events_of_chalices_generator(api: Api, aws: Aws) -> None:
    api.client.lambda_.invoke("record_notification", api.client.events.generate_sns_event("text", "subject"))
    assert [each["kind"]["S"] for each in aws.kept()] == ["other"]


def test_record_alarm_keeps_an_alarm(api: Api, aws: Aws) -> None:
    alarm = json.dumps({"AlarmName": "cafe-test-orders-dead", "NewStateValue": "ALARM"})
    event = sent(Message=alarm, Subject='ALARM: "cafe-test-orders-dead"', MessageAttributes={})
    api.client.lambda_.invoke("record_alarm", {"Records": [event]})
    (kept,) = aws.kept()
    assert (kept["kind"], kept["message"]) == ({"S": "alarm"}, {"S": alarm})
