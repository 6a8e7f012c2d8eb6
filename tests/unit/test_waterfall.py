"""Tests the page of ``make trace`` with log lines, histories and REPORT lines in the form that AWS writes them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra import trace
from infra.trace import Line
from infra.waterfall import facts, journeys, page
from infra.waterfall.facts import Facts, Invocation
from infra.waterfall.hops import Journey

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
STREAM = "2026/11/21/[$LATEST]0d6a"
CORRELATION = {"correlationId": "r-1"}


def moment(milliseconds: float) -> datetime:
    return NOON + timedelta(milliseconds=milliseconds)


def line(source: str, since_noon: float, message: str, /, **about: Any) -> Line:
    group = f"/aws/lambda/cafe-prod-{source}".removesuffix("-API")
    record = {"timestamp": moment(since_noon).isoformat(), "level": "INFO", "message": message, **about}
    return Line.of(source, json.dumps(record), origin=(group, STREAM))


def invocation(source: str, start: float, end: float, init: float = 0, problem: str = "") -> Invocation:
    group = f"/aws/lambda/cafe-prod-{source}".removesuffix("-API")
    first, last = (moment(each).timestamp() for each in (start, end))
    return Invocation((group, STREAM), first, last, init / 1000, problem)


def answered(milliseconds: float, took: int, route: str = "POST /orders", **about: Any) -> Line:
    facts = {"route": route, "status": 202, "milliseconds": took, "requestId": "g-1"}
    return line("API", milliseconds, "request answered", **{**facts, **CORRELATION, **about})


ABOUT = {"orderID": "o-1", **CORRELATION}
PUBLISHED = {"kind": "order", "key": "orders/1", "correlationIds": ["r-1"]}
KEPT = line("record_notification", 1_900, "notification kept", notificationID="orders/1", correlationIds=["r-1"])
ORDER = [
    Line.of(
        "access", json.dumps({"message": "request", "requestId": "g-1", "milliseconds": "450"}), "x", ("/aws/x", "")
    ),
    line("API", 440, "order queued", **ABOUT),
    answered(450, 40),
    line("store_orders", 1_300, "order stored", **ABOUT, writeMilliseconds=20, tries=1),
    line("announce_orders", 1_700, "notification published", **PUBLISHED),
    line("announce_orders", 1_701, "order announced", **ABOUT),
    KEPT,
]
RUNS = [
    invocation("store_orders", 100, 900),
    invocation("store_orders", 1_000, 1_310, init=200),
    invocation("announce_orders", 1_600, 1_710),
    invocation("record_notification", 1_850, 1_905),
]


def made(lines: list[Line], known: Facts, identifier: str = "o-1") -> list[Journey]:
    return list(journeys.journeys(lines, journeys.subjects(lines, identifier), known))


def bars(journey: Journey) -> list[tuple[str, int, int]]:
    """Returns the name, the start and the counted length of each bar, in milliseconds."""

    def length(hop: Any) -> float:
        return (hop.end if hop.kind == "part" else hop.path_end) - hop.start

    return [(hop.name, round((hop.start - journey.start) * 1000), round(length(hop) * 1000)) for hop in journey.hops]


def test_an_order_on_aws_has_every_hop_and_the_waits_between_them() -> None:
    sent = {"orders/1": moment(1_680).timestamp()}
    [journey] = made(ORDER, Facts(RUNS, sent))
    assert bars(journey) == [
        # The latency that API Gateway logs includes the authorizer, which the API's own log does not.
        ("POST /orders", 0, 440),
        ("wait in the queue", 440, 560),
        ("store_orders", 1_000, 300),
        ("cold start", 1_000, 200),
        ("write to DynamoDB", 1_280, 20),
        ("wait in the stream", 1_300, 300),
        ("announce_orders", 1_600, 80),
        ("SNS", 1_680, 170),
        ("record_notification (inbox)", 1_850, 50),
    ]
    assert (journey.missing, journeys.unused(ORDER, [journey])) == ({}, [])
    quick = [line("store_orders", 1_300, "order stored", **ABOUT, writeMilliseconds=0, tries=1)]
    assert ("write to DynamoDB", 1_300, 0) in bars(made([*ORDER[:3], *quick, *ORDER[4:]], Facts(RUNS, sent))[0])
    assert journey.sum == pytest.approx(journey.end_to_end) == pytest.approx(1.9)


def test_failed_attempts_are_hops_with_their_reasons() -> None:
    refused = line("store_orders", 800, "orders not written", orderIDs=["o-1"], reason="throttled", level="WARNING")
    later = line("announce_orders", 1_505, "orders not announced", orderIDs=["o-1"], reason="SNS", level="WARNING")
    runs = [*RUNS, invocation("announce_orders", 1_490, 1_510)]
    [journey] = made([*ORDER, refused, later], Facts(runs))
    failed = [(hop.name, hop.notes) for hop in journey.hops if hop.is_bad]
    assert failed == [
        ("store_orders", ["orders not written throttled"]),
        ("announce_orders", ["orders not announced SNS"]),
    ]
    assert [hop.name for hop in journey.hops].count("wait before the next attempt") == 2
    assert journey.sum == pytest.approx(journey.end_to_end, rel=0.05)


def test_the_invocation_of_another_order_in_the_request_is_no_failed_attempt() -> None:
    other = {**ABOUT, "orderID": "o-0"}
    lines = [line("API", 439, "order queued", **other), line("store_orders", 800, "order stored", **other), *ORDER]
    [journey] = [each for each in made(lines, Facts(RUNS), "r-1") if each.subject == "o-1"]
    assert [hop.name for hop in journey.hops if hop.is_bad or hop.name == "wait before the next attempt"] == []


def test_an_order_on_its_way_names_what_is_missing() -> None:
    [queued] = made(ORDER[:3], Facts())
    assert queued.missing == {"store_orders": "The order is not stored yet."}
    [stored] = made(ORDER[:4], Facts(RUNS))
    assert list(stored.missing) == ["announce_orders"]
    [announced] = made(ORDER[:6], Facts(RUNS))
    assert list(announced.missing) == ["SNS and inbox"]
    [again] = [
        each for each in made([*ORDER[:3], line("API", 900, "order queued", **ABOUT)], Facts()) if not each.missing
    ]
    assert again.title == "Order sent again"
    dead = line("store_orders", 900, "message sent to the dead-letter queue", **CORRELATION, reason="no item")
    [lost] = made([*ORDER[:3], dead], Facts())
    assert "dead letter: no item" in lost.missing["store_orders"]


def test_changes_follow_the_order_with_their_own_hops() -> None:
    route, change = "PATCH /orders/{order_id}", {"orderID": "o-1", "correlationId": "r-2"}
    lines = [
        *ORDER,
        line("API", 60_000, "order changed", **change, change="READY", version=1),
        answered(60_010, 20, route, correlationId="r-2", requestId="g-2", status=200),
        line("API", 70_000, "order changed", **{**change, "correlationId": "r-3"}, change="CANCELLED", version=2),
        answered(70_010, 20, route, correlationId="r-3", requestId="g-3", status=200),
        line("announce_orders", 70_200, "notification published", **{**PUBLISHED, "key": "orders/2"}),
        line("announce_orders", 70_201, "order announced", **ABOUT, change="CANCELLED", version=2),
        line("record_notification", 70_300, "notification kept", notificationID="orders/2"),
    ]
    _, ready, cancelled = made(lines, Facts(RUNS))
    assert (ready.title, bars(ready)) == ("Order ready", [(route, 0, 20)])
    names = [route, "wait in the stream", "announce_orders", "SNS", "record_notification (inbox)"]
    assert (cancelled.title, [name for name, _, _ in bars(cancelled)]) == ("Order cancelled", names)
    # The cancellation does not take another announcement, even if it is later.
    others = ({}, {"change": "PLACED"}, {"change": "CORRECTED", "version": 2}, {"change": "CANCELLED", "version": 1})
    for other in others:
        lines[-2] = line("announce_orders", 70_201, "order announced", **ABOUT, **other)
        _, _, cancelled = made(lines, Facts(RUNS))
        assert list(cancelled.missing) == ["announce_orders"]
    lines[-2] = line("announce_orders", 70_201, "order announced", **ABOUT, change="CANCELLED")
    assert not made(lines, Facts(RUNS))[-1].missing


def event(number: int, milliseconds: int, kind: str, before: int, **details: str) -> dict[str, Any]:
    about = {"xEventDetails": details} if details else {}
    return {"id": number, "previousEventId": before, "timestamp": moment(milliseconds), "type": kind, **about}


HISTORY = [
    event(1, 50, "ExecutionStarted", 0),
    event(2, 100, "TaskStateEntered", 0, name="ReadInventory"),
    event(3, 110, "TaskScheduled", 2),
    event(4, 300, "TaskFailed", 3, error="Unavailable", cause="MySQL is away"),
    event(5, 1_300, "TaskScheduled", 4),
    event(6, 1_500, "TaskSucceeded", 5),
    event(7, 1_500, "TaskStateExited", 6, name="ReadInventory"),
    event(8, 1_520, "ParallelStateEntered", 7, name="Both"),
    event(9, 1_520, "ParallelStateStarted", 8),
    event(10, 1_530, "PassStateEntered", 9, name="Inner"),
    event(11, 1_540, "PassStateExited", 10, name="Inner"),
    event(12, 1_550, "ParallelStateSucceeded", 11),
    event(13, 1_550, "ParallelStateExited", 12, name="Both"),
    event(14, 1_550, "TaskStateEntered", 13, name="NotifyReport"),
    event(15, 1_560, "TaskScheduled", 14),
    event(16, 1_600, "TaskSucceeded", 15),
    event(17, 1_610, "TaskStateExited", 16, name="NotifyReport"),
    event(18, 1_620, "ExecutionSucceeded", 17),
]
REPORT = [
    line("API", 55, "report started", reportId="inventory-1", **CORRELATION),
    answered(60, 60, "POST /create_report"),
    line("read_inventory", 1_490, "inventory read", reportId="inventory-1", **CORRELATION),
    Line.of(
        "inventory-report", json.dumps({"id": "4", "type": "TaskFailed", "execution_arn": "x:inventory-1"}), "2026"
    ),
    line("record_notification", 1_700, "notification kept", notificationID="report/inventory-1"),
]


def test_a_report_shows_its_states_with_their_attempts_and_functions() -> None:
    runs = [invocation("read_inventory", 1_320, 1_495), invocation("record_notification", 1_650, 1_705)]
    foreign = line("read_inventory", 1_491, "foreign", id="abc", reportId="inventory-1")
    other = Line.of("x", json.dumps({"id": "4", "execution_arn": "x:inventory-2"}), "2026")
    [journey] = made([*REPORT, foreign, other], Facts(runs, executions={"inventory-1": HISTORY}), "inventory-1")
    assert [(hop.name, hop.level) for hop in journey.hops] == [
        ("POST /create_report", 0),
        ("start of the state machine", 0),
        ("ReadInventory", 0),
        ("attempt 1", 1),
        ("attempt 2", 1),
        ("read_inventory", 1),
        ("between two states", 0),
        ("Both", 0),
        ("Inner", 1),
        ("NotifyReport", 0),
        ("SNS", 0),
        ("record_notification (inbox)", 0),
    ]
    state = journey.hops[2]
    assert (state.notes, state.is_bad) == (["2 attempts", "Unavailable MySQL is away"], True)
    assert [each.record["type"] for each in state.lines] == ["TaskFailed"]
    assert journey.sum == pytest.approx(journey.end_to_end) == pytest.approx(1.7)


def test_a_report_that_runs_or_is_gone_says_so() -> None:
    [running] = made(REPORT[:2], Facts(executions={"inventory-1": HISTORY[:5]}), "inventory-1")
    assert running.missing == {"SNS and inbox": "The report is still running."}
    assert running.hops[2].notes[-1] == "not finished"
    [gone] = made(REPORT[:2], Facts(), "inventory-1")
    assert list(gone.missing) == ["state machine"]


def test_report_lines_give_the_times_of_invocations_in_one_stream() -> None:
    lines = [
        (10.0, "START RequestId: a Version: 7\n"),
        (10.4, "END RequestId: a\n"),
        (10.4, "REPORT RequestId: a\tDuration: 350.5 ms\tBilled Duration: 900 ms\tInit Duration: 500.0 ms\t\n"),
        (20.0, "START RequestId: b Version: 7\n"),
        (23.0, "REPORT RequestId: b\tDuration: 3000.00 ms\tMemory Size: 256 MB\tStatus: timeout\n"),
        # The local cloud gives all lines of an invocation the time of its end.
        (30.0, "START RequestId: c Version: $LATEST"),
        (30.0, "REPORT RequestId: c\tDuration: 100 ms\tBilled Duration: 100 ms"),
    ]
    found = [(each.start, each.end, each.init, each.problem) for each in facts.invocations(("g", "s"), lines)]
    assert found == [
        (9.5, 10.3505, 0.5, ""),
        (20.0, 23.0, 0, "timeout"),
        (29.9, 30.0, 0, ""),
    ]


HOSTILE = "</pre><script src=//x.example>&\"'"


def test_the_page_is_one_file_without_scripts_and_escapes_everything() -> None:
    lines = [line(each.source, 0, HOSTILE, **ABOUT) for each in ORDER[:1]]
    [journey] = made(ORDER, Facts(RUNS))
    journey.hops[0].notes, journey.missing = [HOSTILE], {HOSTILE: HOSTILE}
    text = page.render([journey], lines, HOSTILE, HOSTILE)
    assert "<script" not in text
    assert text.count("&lt;/pre&gt;&lt;script src=//x.example&gt;") >= 6
    assert not re.search(r"(?:src|href)=\"(?!data:)", text)
    assert not re.search(r"style=|url\(", text)
    [style] = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'" in text
    assert text.count("<dd>1.90 s</dd>") == 2
    assert "100.0 % of end to end" in text


def test_durations_and_the_axis_are_easy_to_read() -> None:
    assert [page.duration(each) for each in (0.0124, 0.9996, 59.5, 185, 7_260)] == [
        "12 ms",
        "1.00 s",
        "59.50 s",
        "3 min 5 s",
        "2 h 1 min",
    ]
    for whole in (0.001, 0.42, 7, 3_600, 900_000):
        assert 2 <= len(page.ticks(whole)) <= page.TICKS + 1


class Cloud:
    """Fakes the AWS clients that a page about the order ``o-1`` needs."""

    meta = SimpleNamespace(region_name="eu-central-1")

    def __call__(self, _service: str) -> Cloud:
        return self

    def describe_query_definitions(self, **_: str) -> dict[str, Any]:
        query = {"name": "cafe-prod/trace", "logGroupNames": ["/g"], "queryString": trace.QUERY}
        return {"queryDefinitions": [query]}

    def start_query(self, **asked: Any) -> dict[str, str]:
        return {"queryId": asked["queryString"]}

    def get_query_results(self, queryId: str) -> dict[str, Any]:  # noqa: N803 - AWS's own name
        fields = ("@timestamp", "@log", "@logStream", "@message")
        lines = ORDER[1:] if "x-9" not in queryId else []
        rows = [(each.time, f"1234:{each.origin[0]}", each.origin[1], each.text) for each in lines]
        return {
            "status": "Complete",
            "results": [
                [{"field": name, "value": value} for name, value in zip(fields, row, strict=True)] for row in rows
            ],
        }

    def describe_stacks(self, **_: str) -> dict[str, Any]:
        outputs = [{"OutputKey": f"{name}Table", "OutputValue": name} for name in ("Orders", "Notifications")]
        return {"Stacks": [{"StackStatus": "UPDATE_COMPLETE", "Outputs": outputs}]}

    def get_item(self, TableName: str, **_: Any) -> dict[str, Any]:  # noqa: N803 - AWS's own name
        return {"Item": {"sentAt": {"S": "2026-11-21T12:00:01.690000Z"}}} if TableName == "Notifications" else {}

    def get_paginator(self, _name: str) -> Cloud:
        return self

    def paginate(self, logGroupName: str, **_: Any) -> list[dict[str, Any]]:  # noqa: N803 - AWS's own name
        run = next((each for each in RUNS[1:] if each.origin[0] == logGroupName), None)
        if not run:
            return []
        start, took = int((run.start + run.init) * 1000), (run.end - run.start - run.init) * 1000
        report = f"REPORT RequestId: a\tDuration: {took} ms\tInit Duration: {run.init * 1000} ms"
        texts = [(start, "START RequestId: a"), (int(run.end * 1000) + 1, report)]
        return [{"events": [{"timestamp": t, "logStreamName": STREAM, "message": text} for t, text in texts]}]


def test_the_command_writes_the_page_of_a_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trace, "client", Cloud())
    file = tmp_path / "trace.html"
    assert trace.main(["--html", str(file), "o-1", "prod"]) == 0
    names = re.findall(r'<span class="name">([^<]+)</span>', file.read_text("utf-8"))
    assert names[:4] == ["POST /orders", "wait in the queue", "store_orders", "cold start"]
    assert names[-1] == "record_notification (inbox)"
    assert trace.main(["--html", str(tmp_path / "none.html"), "x-9", "prod"]) == 1
    assert capsys.readouterr().out.splitlines()[1].startswith('No record in the logs of prod contains "x-9".')
    assert not (tmp_path / "none.html").exists()
    assert trace.main(["--html", str(tmp_path), "o-1", "prod"]) == 1
    assert "could not be written" in capsys.readouterr().err
