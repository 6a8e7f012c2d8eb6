"""Tests that a request's id reaches the inbox and that ``make trace`` finds every log record with that id."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pytest

from chalicelib import correlation
from local import logs
from tests.system.reports import start
from tests.system.system import System, wait_for

Trace = Callable[[str], list[str]]


@pytest.fixture
def trace(system: System, capsys: pytest.CaptureFixture[str]) -> Trace:
    """Returns a function that runs ``make trace`` and returns the output lines without their timestamps."""

    def lines(identifier: str) -> list[str]:
        capsys.readouterr()
        logs.trace(system.stack, identifier)
        return [line[25:] for line in capsys.readouterr().out.splitlines() if line[:2] == "20"]

    return lines


def kept(system: System, correlation_id: str) -> list[dict[str, Any]]:
    """Returns the notifications that a request caused."""
    pages = system.aws("dynamodb").get_paginator("scan").paginate(TableName=system.env["NOTIFICATIONS_TABLE"])
    items = [item for page in pages for item in page["Items"]]
    return [item for item in items if {"S": correlation_id} in item.get("correlationIds", {}).get("L", [])]


def names(lines: list[str]) -> set[tuple[str, str]]:
    """Returns the source and the message of each line."""
    return {(source, rest.strip().split("  ")[0]) for source, _, rest in (line.partition(" ") for line in lines)}


def test_an_order_can_be_traced_to_the_inbox_by_its_id_or_the_requests(system: System, trace: Trace) -> None:
    order_id, request_id = (secrets.token_hex(8) for _ in range(2))
    order = {"orderID": order_id, "customerID": "c", "item": "Mocha"}
    answer = system.request("POST", "/orders", order, X_Request_Id=request_id)
    assert (answer.status, answer.headers["X-Request-Id"]) == (202, request_id)
    expected = {
        ("API", "order queued"),
        ("API", "request answered"),
        ("store_orders", "order stored"),
        ("announce_orders", "notification published"),
        ("announce_orders", "order announced"),
        ("record_notification", "notification kept"),
    }
    wait_for(lambda: names(trace(order_id)) >= expected, "the last line about the order")
    assert names(trace(order_id)) == names(trace(request_id)) == expected
    [entry] = kept(system, request_id)
    assert order_id in entry["message"]["S"]


def test_a_report_can_be_traced_to_the_inbox_by_its_id_or_the_requests(system: System, trace: Trace) -> None:
    request_id = secrets.token_hex(8)
    report = system.report({"kind": "inventory"}, X_Request_Id=request_id)
    assert report["status"] == "SUCCEEDED"
    expected = {
        ("API", "report started"),
        ("API", "request answered"),
        ("read_inventory", "inventory read"),
        ("render_report", "inventory report rendered"),
        ("presign_report", "link made"),
        ("record_notification", "notification kept"),
    }
    wait_for(lambda: names(trace(report["reportId"])) >= expected, "the last line about the report")
    # Each request for the report adds a log line about the report's link.
    assert names(trace(report["reportId"])) - {("API", "link made")} == expected
    assert names(trace(request_id)) - {("API", "link made")} == expected
    [entry] = kept(system, request_id)
    assert report["reportId"] in entry["message"]["S"]


def test_a_report_that_is_started_by_hand_gets_its_own_id(system: System) -> None:
    for given in ("[]", '{"correlationId": "two words"}'):
        name = start(system, "inventory", given)
        assert system.ended(name)["status"] == "SUCCEEDED"
        assert wait_for(lambda name=name: kept(system, name), "its notification")  # type: ignore[misc]


def test_an_upload_can_be_traced_by_its_key(system: System, trace: Trace) -> None:
    key = system.upload(f"photos/caf\u00e9 (1) {secrets.token_hex(8)}.jpg", b"x")
    expected = {
        ("receive_upload", "upload received"),
        ("receive_upload", "notification published"),
        ("record_notification", "notification kept"),
    }
    wait_for(lambda: names(trace(key)) == expected, "the last line about the upload")


def test_the_gateway_keeps_a_clients_id_or_creates_one(system: System) -> None:
    url = f"{system.env['REST_API_URL']}/health"
    assert system.request("GET", url, X_Request_Id="monday-1").headers["X-Request-Id"] == "monday-1"
    assert correlation.valid(system.request("GET", url).headers["X-Request-Id"])


def test_an_unknown_id_gets_a_hint(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    assert not logs.trace(system.stack, "never-seen")
    assert "X-Request-Id" in capsys.readouterr().out
