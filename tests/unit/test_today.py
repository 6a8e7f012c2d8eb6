"""Tests how ``GET /today`` computes each figure and marks an incomplete count."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.stub import Stubber

from chalicelib import clients, timeline, today
from chalicelib.errors import InvalidRequest
from chalicelib.settings import Settings
from chalicelib.timeline import timestamp
from tests.unit.cloud import ENVIRONMENT, MACHINES, Aws

NOW = datetime(2026, 12, 1, 10, 30, 15, 123456, UTC)
MIDNIGHT = datetime(2026, 12, 1, tzinfo=UTC)
SETTINGS = Settings.read(ENVIRONMENT)


def overview(aws: Aws, since: datetime = MIDNIGHT, now: datetime = NOW) -> dict[str, Any]:
    return today.overview(since, aws=clients.aws, settings=SETTINGS, machines=MACHINES, now=now)


def order(aws: Aws, placed_at: datetime, identifier: str) -> None:
    keys = timeline.index_keys(timestamp(placed_at), identifier)
    item = {name: {"S": value} for name, value in {"orderID": identifier, "customerID": "c", **keys}.items()}
    aws.dynamodb.put_item(TableName=SETTINGS.orders_table, Item=item)


def notification(aws: Aws, sent_at: datetime, kind: str, subject: str = "s", facts: str | None = None) -> None:
    identifier = f"{kind}-{timestamp(sent_at)}-{subject}"
    values = {"notificationID": identifier, "kind": kind, "subject": subject, "message": "m"}
    values |= {} if facts is None else {"facts": facts}
    values |= timeline.index_keys(timestamp(sent_at), identifier)
    item = {name: {"S": value} for name, value in values.items()}
    aws.dynamodb.put_item(TableName=SETTINGS.notifications_table, Item=item)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (None, MIDNIGHT),
        ("2026-12-01T00:00:00.5Z", MIDNIGHT + timedelta(milliseconds=500)),
        ("2026-12-01T00:00:00.000001999Z", MIDNIGHT + timedelta(microseconds=1)),
        *((text, MIDNIGHT) for text in ("2026-12-01T05:45:00+05:45", "2026-11-30T20:30:00-03:30")),
        # A plus sign that is not escaped in a URL arrives as a space.
        ("2026-12-01T05:45:00 05:45", MIDNIGHT),
        # The date is invalid, because November has only 30 days.
        ("2026-11-31T00:00:00Z", MIDNIGHT),
        # The first time is more than two days ago, and the second is in the future.
        ("1000-01-01T00:00:00Z", NOW - timedelta(hours=48)),
        ("2999-12-31T23:59:59-23:59", NOW),
    ],
)
def test_the_count_may_begin_at_any_time_in_the_last_48_hours(text: str, moment: datetime) -> None:
    assert today.since(text, NOW) == today.since(text, NOW.astimezone()) == moment


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "2026-12-01", "2026-12-01T00:00:00", "2026-12-01 00:00:00Z", "2026-12-01T00:00:00  01:00"),
        *("2026-13-01T00:00:00Z", "2026-12-01T24:00:00Z", "2026-12-01T00:00:00Z\n", "٢026-12-01T00:00:00Z"),
        *("2026-12-01T00:00:00+24:00", "1" * 5_000),
    ],
)
def test_a_string_that_is_not_a_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^since: must be a time with a UTC offset"):
        today.since(text, NOW)


def test_before_anything_happens_all_counts_are_0(aws: Aws) -> None:
    assert overview(aws) == {
        "since": timestamp(MIDNIGHT),
        "orders": {
            **{"stored": 0, "waiting": 0, "more": False},
            "hours": [[timestamp(MIDNIGHT + hour * today.HOUR), 0] for hour in range(11)],
        },
        "reports": {"running": 0, "succeeded": 0, "failed": 0, "more": False},
        "uploads": {"imported": 0, "notImported": 0, "other": 0, "more": False},
        "failures": {"deadLetters": 0, "alarms": 0, "more": False},
        "lowStock": None,
        "counted": True,
    }


def test_orders_are_counted_by_the_hour_across_the_end_of_a_month(aws: Aws) -> None:
    since = MIDNIGHT - timedelta(hours=1, minutes=30)
    moments = [since - timedelta(microseconds=1), since, since + timedelta(minutes=59), MIDNIGHT, NOW]
    moments += [since + today.HOUR - timedelta(microseconds=1), since + today.HOUR]
    for number, moment in enumerate(moments):
        order(aws, moment, f"o-{number}")
    orders = overview(aws, since)["orders"]
    assert orders["stored"] == 6
    counts = {hour: count for hour, count in orders["hours"] if count}
    assert counts == {timestamp(since): 3, timestamp(since + today.HOUR): 2, timestamp(since + 12 * today.HOUR): 1}
    assert len(orders["hours"]) == 13


def test_the_last_hour_is_the_current_one(aws: Aws) -> None:
    for length in (timedelta(), timedelta(minutes=59), timedelta(hours=1), timedelta(hours=48)):
        hours = overview(aws, NOW - length)["orders"]["hours"]
        assert len(hours) == int(length / today.HOUR) + 1
        assert hours[0][0] == timestamp(NOW - length)
        assert hours[-1][0] <= timestamp(NOW) < timestamp(datetime.fromisoformat(hours[-1][0]) + today.HOUR)


def test_with_too_many_orders_only_complete_hours_are_counted(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    assert today.ORDERS == 10_000
    monkeypatch.setattr(today, "ORDERS", 10 * timeline.SHARDS)
    for number in range(200):
        order(aws, NOW - timedelta(minutes=3 * number), f"o-{number}")
    shown = overview(aws)
    orders = shown["orders"]
    assert (orders["more"], shown["counted"]) == (True, False)
    assert 80 <= orders["stored"] <= 88
    counts = [count for _, count in orders["hours"]]
    whole = counts.count(20)
    assert 0 < whole < len(counts) - 1
    # The current hour is only half over, so it has about half as many orders.
    assert counts == [None] * (len(counts) - whole - 1) + [20] * whole + [11]
    assert not shown["uploads"]["more"]


def test_the_count_is_complete_up_to_its_limit(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        order(aws, NOW - timedelta(minutes=number), f"o-{number}")
    largest = max(Counter(each["period"]["S"] for each in aws.stored().values()).values())
    # Exactly one order above the limit is not tested, because ``more`` may then be true or false.
    for limit, more in ((largest, False), (largest - 2, True)):
        monkeypatch.setattr(today, "ORDERS", limit * timeline.SHARDS)
        assert overview(aws)["orders"]["more"] is more


def report(aws: Aws, kind: str, name: str, status: str, started_at: datetime, ended_at: datetime | None = None) -> None:
    aws.sfn.start_execution(stateMachineArn=MACHINES[kind], name=name)
    if status != "RUNNING":
        aws.finish(name, status)
    execution = aws.execution(name)
    execution.start_date, execution.stop_date = started_at, ended_at


def test_reports_of_both_kinds_are_counted_by_their_outcome(aws: Aws) -> None:
    before, after = MIDNIGHT - timedelta(hours=1), MIDNIGHT + timedelta(hours=1)
    report(aws, "inventory", "a", "SUCCEEDED", before, after)
    report(aws, "inventory", "b", "SUCCEEDED", before, before)
    report(aws, "inventory", "c", "FAILED", before, MIDNIGHT)
    report(aws, "storage", "d", "TIMED_OUT", after, after)
    report(aws, "storage", "e", "ABORTED", after, after)
    report(aws, "storage", "f", "RUNNING", before - timedelta(days=1))
    assert overview(aws)["reports"] == {"running": 1, "succeeded": 1, "failed": 3, "more": False}


@pytest.mark.parametrize(("oldest", "more"), [(MIDNIGHT, True), (MIDNIGHT - timedelta(microseconds=1), False)])
def test_more_reports_than_fit_on_a_page_are_shown_as_more(oldest: datetime, more: bool) -> None:
    with Stubber(clients.aws("stepfunctions")) as sfn:
        known = {"executionArn": "a", "stateMachineArn": "m", "name": "n", "status": "SUCCEEDED"}
        executions = [{**known, "startDate": MIDNIGHT - timedelta(days=1), "stopDate": each} for each in (NOW, oldest)]
        sfn.add_response("list_executions", {"executions": executions, "nextToken": "x"})
        counts, found, newest = today._executions(clients.aws("stepfunctions"), "m", MIDNIGHT)
    assert (counts["succeeded"], found) == (2 if more else 1, more)
    assert newest
    assert newest["stopDate"] == NOW


LOW = {"count": 7, "limit": 20, "beans": [{"name": "Peaberry", "supplier": "Altura", "quantity": 3}]}


def test_low_stock_is_that_of_the_newest_inventory_report_that_succeeded(aws: Aws) -> None:
    described = aws.calls(aws.sfn, "DescribeExecution")
    summary = {"rows": 9, "generatedAt": "2026-11-21T03:14:15.123456Z"}
    report(aws, "inventory", "low-1", "SUCCEEDED", MIDNIGHT, MIDNIGHT - timedelta(days=7))
    aws.finish("low-1", output=json.dumps({"summary": {**summary, "low": LOW}}))
    report(aws, "inventory", "low-2", "FAILED", MIDNIGHT, NOW)
    report(aws, "inventory", "low-3", "RUNNING", NOW)
    report(aws, "storage", "low-4", "SUCCEEDED", MIDNIGHT, NOW)
    for _ in range(2):
        shown = overview(aws)["lowStock"]
        assert shown == {"href": "/reports/low-1", "generatedAt": summary["generatedAt"], **LOW}
    # The output of a finished report never changes, so it is read once.
    assert len(described) == 1


@pytest.mark.parametrize("summary", [{"rows": 9}, {"rows": 9, "low": None}])
def test_a_report_of_an_older_release_shows_no_low_stock(aws: Aws, summary: dict[str, Any]) -> None:
    name = f"old-{len(summary)}"
    report(aws, "inventory", name, "SUCCEEDED", MIDNIGHT, NOW)
    aws.finish(name, output=json.dumps({"summary": summary}))
    assert overview(aws)["lowStock"] is None


def test_uploads_are_counted_by_their_outcome(aws: Aws) -> None:
    all_facts = [
        *('{"outcome": "imported", "new": 1}', '{"outcome": "imported"}', '{"outcome": "notImported"}'),
        *('{"outcome": "received"}', '{"outcome": ["imported"]}', "Upload: 1 row imported", None),
    ]
    for number, facts in enumerate(all_facts):
        notification(aws, MIDNIGHT + timedelta(minutes=number), "upload", "Upload: 1 row imported, 0 bad", facts)
    notification(aws, MIDNIGHT - timedelta(microseconds=1), "upload", facts=all_facts[0])
    notification(aws, NOW, "order", facts=all_facts[0])
    assert overview(aws)["uploads"] == {"imported": 2, "notImported": 1, "other": 4, "more": False}


def test_orders_on_the_queue_wait_and_failures_are_the_alarms_and_all_dead_letters(aws: Aws) -> None:
    for moment in (MIDNIGHT - timedelta(hours=1), MIDNIGHT, NOW):
        notification(aws, moment, "alarm", "ALARM: cafe-test-failures")
    queues = (SETTINGS.orders_queue_url, 3), (SETTINGS.orders_dead_letter_url, 1), (SETTINGS.failures_queue_url, 2)
    for queue, count in queues:
        for _ in range(count):
            aws.sqs.send_message(QueueUrl=queue, MessageBody="x")
        # One message in the queue is in flight, but still counts.
        aws.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=1)
    shown = overview(aws)
    assert shown["orders"]["waiting"] == 3
    assert shown["failures"] == {"deadLetters": 3, "alarms": 2, "more": False}


def test_with_too_many_notifications_only_the_newest_count(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    assert today.NOTIFICATIONS == 4_000
    monkeypatch.setattr(today, "NOTIFICATIONS", 5 * timeline.SHARDS)
    notification(aws, MIDNIGHT, "alarm")
    for number in range(100):
        notification(aws, MIDNIGHT + timedelta(minutes=1 + number), "order")
    notification(aws, NOW, "alarm", "newest")
    shown = overview(aws)
    assert (shown["failures"]["alarms"], shown["failures"]["more"], shown["uploads"]["more"]) == (1, True, True)
    assert (shown["counted"], shown["orders"]["more"]) == (False, False)


def test_a_day_is_read_in_one_wave_of_calls_that_read_only_what_is_counted(aws: Aws) -> None:
    queries = aws.calls(aws.dynamodb, "Query")
    lists = aws.calls(aws.sfn, "ListExecutions")
    overview(aws)
    # A period that spans two months needs twice as many queries.
    assert len(queries) == 2 * timeline.SHARDS
    assert len(lists) == 2
    for query in queries:
        assert "message" not in query["ProjectionExpression"]
        assert query["Limit"] <= 1 + (today.ORDERS if "orders" in query["TableName"] else today.NOTIFICATIONS) / 8
    overview(aws, NOW - timedelta(hours=12))
    assert len(queries) == 6 * timeline.SHARDS
