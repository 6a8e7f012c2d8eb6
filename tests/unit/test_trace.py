"""Tests how ``make trace`` finds the log records about an order or a request by any of its ids."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import trace
from infra.deploy.target import DeployError


class Logs:
    """Fakes CloudWatch Logs with these lines, and runs Insights queries in the form that ``trace`` uses."""

    meta = SimpleNamespace(region_name="eu-central-1")

    def __init__(self, *lines: tuple[str, dict[str, Any] | str]) -> None:
        self.lines = [
            (f"123456789012:{group}", each if isinstance(each, str) else json.dumps(each)) for group, each in lines
        ]
        self.asked: list[dict[str, Any]] = []
        self.statuses = ["Scheduled", "Running", "Complete"]

    def start_query(self, **asked: Any) -> dict[str, str]:
        self.asked.append(asked)
        self.waiting = list(self.statuses)
        return {"queryId": str(len(self.asked) - 1)}

    def get_query_results(self, queryId: str) -> dict[str, Any]:  # noqa: N803 - AWS's own name
        if (status := self.waiting.pop(0)) != "Complete":
            return {"status": status, "results": []}
        asked = re.search("like /(.*)/\n", self.asked[int(queryId)]["queryString"])
        assert asked
        found = [
            {"@timestamp": "2026-11-21 03:14:15.000", "@log": group, "@message": message, "@ptr": "CmEKJgoiNzg"}
            for group, message in self.lines
            if re.search(asked[1], message)
        ]
        return {"status": status, "results": [[{"field": n, "value": v} for n, v in row.items()] for row in found]}

    def describe_query_definitions(self, queryDefinitionNamePrefix: str) -> dict[str, Any]:  # noqa: N803 - AWS's own
        names = ("cafe-prod/trace-old", "cafe-prod/trace")
        query = {"logGroupNames": ["/aws/lambda/cafe-prod"], "queryString": trace.QUERY}
        return {"queryDefinitions": [{"name": n, **query} for n in names if n.startswith(queryDefinitionNamePrefix)]}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "POLL_SECONDS", 0)


def record(second: int, message: str, **facts: Any) -> dict[str, Any]:
    return {"timestamp": f"2026-11-21T03:14:{second:02}.123456+00:00", "level": "INFO", "message": message, **facts}


API, STORE, ANNOUNCE, KEEP = (
    f"/aws/lambda/cafe-prod{name}" for name in ("", "-store_orders", "-announce_orders", "-record_notification")
)
ORDERS = (
    (KEEP, record(5, "notification kept", correlationIds=["r-1", "r-2"], messageId="m-1")),
    (API, record(1, "order queued", orderID="o-1", correlationId="r-1")),
    (API, record(1, "order queued", orderID="o-12", correlationId="r-1")),
    (API, record(2, "request answered", route="POST /orders", status=202, correlationId="r-1")),
    (API, record(2, "request answered", route="POST /orders", status=202, correlationId="r-2")),
    (STORE, record(3, "order stored", orderID="o-1", correlationId="r-1")),
    (API, record(2, "metrics", OrdersAccepted=2, correlationId="r-1", _aws={})),
    (STORE, record(3, "order stored", orderID="o-12", correlationId="r-1")),
    (ANNOUNCE, record(4, "orders not announced", orderIDs=["o-1", "o-12"], correlationIds=["r-1", "r-1"])),
    (ANNOUNCE, record(4, "order announced", orderID="o-2", correlationId="r-2")),
)


def follow(logs: Logs, identifier: str) -> Any:
    return trace.follow(trace.asker(logs, "prod", ["/g"], trace.QUERY, timedelta(days=1)), identifier)


def followed(identifier: str, *lines: tuple[str, dict[str, Any] | str]) -> list[str]:
    """Returns the lines as a person sees them, but without the date."""
    found = follow(Logs(*lines), identifier)
    return [re.sub(r"^2026-11-21 03:14:(\d\d)\.\d{3} +", r"\1 ", line) for line in trace.shown(found)] if found else []


def test_an_order_is_followed_from_its_request_to_the_inbox_without_its_neighbours() -> None:
    assert followed("o-1", *ORDERS) == [
        "01 API                  order queued  orderID=o-1",
        "02 API                  request answered  route=POST /orders  status=202",
        "03 store_orders         order stored  orderID=o-1",
        '04 announce_orders      orders not announced  orderIDs=["o-1", "o-12"]',
        "05 record_notification  notification kept  messageId=m-1",
    ]


REQUESTS = (
    (API, record(1, "order queued", orderID="o-1", correlationId="mine")),
    (API, record(2, "request answered", status=202, correlationId="mine", requestId="g-1")),
    ("/aws/apigateway/cafe-prod-access", {"message": "request", "requestId": "g-1", "status": "202"}),
    ("/aws/apigateway/cafe-prod-access", {"message": "request", "requestId": "g-2", "status": "429"}),
)


@pytest.mark.parametrize("identifier", ["o-1", "mine", "g-1"])
def test_a_request_is_followed_into_the_access_log(identifier: str) -> None:
    lines = followed(identifier, *REQUESTS)
    assert len(lines) == 3
    assert any("access  request  requestId=g-1  status=202" in line for line in lines)


@given(st.text(min_size=1).filter(lambda text: text == text.strip()))
def test_any_text_is_found_and_does_not_break_the_query(text: str) -> None:
    line = json.dumps({"key": text})
    [found] = [each for each in [line] if re.search(f"[^A-Za-z0-9_-]({trace.pattern([text])})[^A-Za-z0-9_-]", each)]
    assert found == line
    # A line break would end the query's filter, and a slash would end the regular expression.
    assert "\n" not in trace.pattern([text])
    assert not re.search(r"(?<!\\)(\\\\)*/", trace.pattern([text]))


def test_an_exception_is_shown_below_its_record_and_other_lines_as_they_are() -> None:
    broken = record(1, "not imported", key="a", level="ERROR", exc_info="Traceback:\n  ValueError: x")
    machine = {"type": "TaskFailed", "details": {"error": "E", "cause": "a"}, "execution_arn": "a"}
    states = ("/aws/vendedlogs/states/cafe-prod-report", machine)
    assert followed("a", (API, broken), states, (STORE, "Task timed out, key a ..."))[-5:] == [
        "01 API           ERROR not imported  key=a",
        "    Traceback:",
        "      ValueError: x",
        "15 report        TaskFailed  error=E",
        "15 store_orders  Task timed out, key a ...",
    ]


def test_a_query_that_does_not_complete_is_an_error() -> None:
    logs = Logs(*ORDERS)
    for status in ("Failed", "Cancelled", "Timeout", "Unknown"):
        logs.statuses = ["Running", status]
        with pytest.raises(DeployError, match=status):
            follow(logs, "o-1")


def run(logs: Logs, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(trace, "client", lambda _: logs)
    return trace.main(list(arguments))


def test_the_command_runs_the_saved_query(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    logs = Logs(*ORDERS)
    assert run(logs, monkeypatch, "o-1", "prod", "7d") == 0
    assert logs.asked[0]["logGroupNames"] == ["/aws/lambda/cafe-prod"]
    assert logs.asked[0]["endTime"] - logs.asked[0]["startTime"] == 7 * 24 * 3600
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "5 records from API, store_orders, announce_orders, record_notification; correlationId r-1"


def test_a_full_result_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [(STORE, record(3, f"try {number}", orderID="o-1", correlationId="r-1")) for number in range(1_000)]
    assert run(Logs(*lines), monkeypatch, "o-1", "prod") == 0
    assert capsys.readouterr().out.endswith("More records may exist, because a query returns at most 1,000.\n")
    assert run(Logs(*lines[1:]), monkeypatch, "o-1", "prod") == 0
    assert "There may be more" not in capsys.readouterr().out


def test_a_query_has_at_most_20_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    logs = Logs(*[(API, record(1, "report found by its key", reportId="r", correlationId=f"c-{n}")) for n in range(50)])
    assert run(logs, monkeypatch, "r", "prod") == 0
    assert logs.asked[1]["queryString"].count("|c-") == 19


def test_without_a_match_there_is_one_query_and_hints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = Logs(*ORDERS)
    assert run(logs, monkeypatch, "o-9", "prod") == 1
    [asked] = logs.asked
    assert asked["endTime"] - asked["startTime"] == 24 * 3600
    printed = capsys.readouterr().out
    assert printed.startswith('No record in the logs of prod contains "o-9".')
    for hint in ("X-Request-Id", "SINCE=30d", "LogRetentionDays"):
        assert hint in printed


def test_a_stage_without_the_query_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Logs(), monkeypatch, "o-1", "other") == 1
    assert "the saved query cafe-other/trace does not exist in eu-central-1" in capsys.readouterr().err
