"""Tests how ``make logs`` and ``make dev`` select and format log lines."""

import json
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from local import logs
from local.logs import Entry, Filter

GROUP = "/aws/lambda/cafe-dev-store_orders"


class FakeLogs:
    """Fakes CloudWatch Logs with one log group and with one event per page."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.started: list[int] = []

    def get_paginator(self, operation: str) -> "FakeLogs":
        self.operation = operation
        return self

    def paginate(self, startTime: int = 0, **_: str) -> list[dict[str, Any]]:  # noqa: N803 - AWS's own name
        if self.operation == "describe_log_groups":
            return [{"logGroups": [{"logGroupName": GROUP}]}]
        self.started.append(startTime)
        return [{"events": [event]} for event in self.events if event["timestamp"] >= startTime]

    def write(self, stream: str, timestamp: int, message: str) -> None:
        self.events.append({"logStreamName": stream, "timestamp": timestamp, "message": message})


def test_each_log_line_is_shown_once_in_order_also_one_that_is_late_or_the_same_again() -> None:
    client, recent = FakeLogs(), dict[str, Counter[logs.Event]]()
    rounds = [
        ([("a", 2_000, "again"), ("b", 1_000, "first")], ["first", "again"]),
        ([("a", 2_000, "again")], ["again"]),
        ([("a", 60_000, "new")], ["new"]),
        ([("b", 51_000, "late")], ["late"]),
        ([], []),
    ]
    for written, shown in rounds:
        for line in written:
            client.write(*line)
        found = logs.new_events(client, "/aws/lambda/cafe-dev", recent)
        assert [(group, text) for group, (_, _, text) in found] == [(GROUP, each) for each in shown]
    # Log events that are more than ten seconds older than the newest event are not read again.
    assert client.started[-1] == 50_000
    assert [each[2] for each in recent[GROUP]] == ["new", "late"]


def entries(*texts: str) -> list[Entry]:
    """Returns the log entries of one invocation that ended at 2026-11-29 03:00:00 UTC."""
    events = [(GROUP, (1_795_921_200_000, "stream", text)) for text in texts]
    return list(logs.invocations(events, "dev"))


def record(message: str, **fields: Any) -> str:
    return json.dumps({"level": "INFO", "message": message, "timestamp": "2026-11-29T02:59:59.5+00:00", **fields})


def test_an_invocation_has_a_line_for_each_record_and_its_duration_on_the_last() -> None:
    found = entries(
        "START RequestId: 1 Version: $LATEST",
        record("order stored", orderID="o-1", correlationId="r-1"),
        record("metrics", _aws={}),
        record("order stored", level="WARNING", orderID="o-2", reason="slow"),
        "END RequestId: 1",
        "REPORT RequestId: 1\tDuration: 12.6 ms\tBilled Duration: 13 ms",
    )
    assert [line for entry in found for line in entry.shown()] == [
        "02:59:59.500  store_orders          o-1  order stored",
        "02:59:59.500  store_orders          o-2  WARNING order stored  reason=slow  13 ms",
    ]


def test_an_invocation_without_a_record_still_has_a_line() -> None:
    [entry] = entries("START RequestId: 1", "END RequestId: 1", "REPORT RequestId: 1\tDuration: 3.0 ms")
    assert list(entry.shown()) == ["03:00:00.000  store_orders          -  ended  3 ms"]


@pytest.mark.parametrize(
    "texts",
    [
        ("Traceback (most recent call last):", '  File "app.py", line 1', "ValueError: no"),
        (record("failed", exc_info='Traceback (most recent call last):\n  File "app.py", line 1\nValueError: no'),),
    ],
)
def test_an_error_has_its_traceback(texts: tuple[str, ...]) -> None:
    [entry] = entries(*texts)
    _, *traceback = entry.shown()
    assert traceback == ["    Traceback (most recent call last):", '      File "app.py", line 1', "    ValueError: no"]


def test_a_filter_chooses_a_function_and_a_whole_id() -> None:
    [first, second] = entries(record("order stored", orderID="o-1"), record("order stored", orderID="o-12"))
    assert [each for each in (first, second) if Filter(identifier="o-1")(each)] == [first]
    assert Filter(function="store_orders", since=timedelta(hours=1))(first)
    assert not Filter(function="api")(first)
