"""Tests that a request's id reaches the inbox and that ``make trace`` finds every log record with that id."""

from __future__ import annotations

import html
import re
import secrets
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from chalicelib import correlation
from infra.waterfall import facts, journeys
from infra.waterfall.hops import Journey
from local import logs
from tests.system.reports import start, states
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


# --- The page ---------------------------------------------------------------------------------------------------------


def whole(system: System, identifier: str) -> list[Journey]:
    """Waits until no hop is missing, and returns the journeys of an id.

    Also checks that the hops add up to the time from end to end.
    """

    def look() -> list[Journey]:
        lines = logs.lines_about(system.stack, identifier)
        found = journeys.subjects(lines, identifier)
        known = facts.read(lines, found, system.aws, system.env)
        made = list(journeys.journeys(lines, found, known))
        return made if made and not any(each.missing for each in made) else []

    made = wait_for(look, f"every hop of {identifier}")
    for each in made:
        assert each.sum == pytest.approx(each.end_to_end, rel=0.05)
    return made


def hops(journey: Journey) -> list[str]:
    return [hop.name for hop in journey.hops]


def shown(system: System, identifier: str, **headers: str) -> list[str]:
    """Returns the names of the bars on the page that the console links to."""
    url = f"{system.stack.api_url}/local/trace?id={quote(identifier, safe='')}"
    answer = system.sent_by(None).request("GET", url, **headers)
    assert answer.status == 200, answer.text
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    return [html.unescape(name) for name in re.findall('<span class="name">([^<]+?)(?: <b>| *</span>)', answer.text)]


def test_the_page_of_an_order_shows_every_hop_and_later_changes(system: System) -> None:
    order_id = secrets.token_hex(8)
    system.post("/orders", {"orderID": order_id, "customerID": "c", "item": "Mocha"})
    placed = ["POST /orders", "wait in the queue", "store_orders", "write to DynamoDB", "wait in the stream"]
    placed += ["announce_orders", "SNS", "record_notification (inbox)"]
    assert [hops(each) for each in whole(system, order_id)] == [placed]
    assert system.request("PATCH", f"/orders/{order_id}", {"from": "PLACED", "status": "READY"}).status == 200
    made = wait_for(lambda: whole(system, order_id)[1:], "the change")
    assert [(each.title, hops(each)) for each in made] == [("Order ready", ["PATCH /orders/{order_id}"])]
    assert shown(system, order_id)[:9] == [*placed, "PATCH /orders/{order_id}"]


def test_the_page_of_a_report_shows_every_state_and_function(system: System) -> None:
    report = system.report({"kind": "inventory"})
    expected = ["POST /create_report", "start of the state machine", "ReadInventory", "read_inventory"]
    expected += ["RenderAndPresign", "RenderReport", "render_report", "PresignReport", "presign_report"]
    expected += ["NotifyReport", "SNS", "record_notification (inbox)"]
    [journey] = whole(system, report["reportId"])
    assert [name for name in hops(journey) if name != "between two states"] == expected
    visited = {each["name"] for each in states(system, report["reportId"]).values() if each["status"] != "skipped"}
    assert visited <= set(expected)
    assert set(expected) <= set(shown(system, report["reportId"]))


def test_the_page_of_an_upload_shows_every_hop(system: System) -> None:
    body = "supplier_name,type,product_name,price,description,quantity\nMaple,Arabica,Hop,1.00,x,1\n"
    key = system.upload(f"inventory/{secrets.token_hex(8)}.csv", body)
    expected = ["S3 event", "receive_upload", "MySQL import", "announcement", "SNS", "record_notification (inbox)"]
    assert [hops(each) for each in whole(system, key)] == [expected]
    assert shown(system, key)[:6] == expected


@pytest.mark.parametrize("headers", [{"Host": "cafe.example"}, {"Sec_Fetch_Site": "cross-site"}], ids=str)
def test_no_other_site_can_read_the_page(system: System, headers: dict[str, str]) -> None:
    answer = system.request("GET", f"{system.stack.api_url}/local/trace?id=o-1", **headers)
    assert answer.status == 403


def test_the_page_of_an_unknown_id_says_so(system: System) -> None:
    answer = system.request("GET", f"{system.stack.api_url}/local/trace?id=never-seen")
    assert (answer.status, "X-Request-Id" in answer.text) == (404, True)
    assert system.request("GET", f"{system.stack.api_url}/local/trace?id=a%00b").status == 400


def test_the_page_of_a_cancelled_order_shows_its_announcement(system: System) -> None:
    order_id = secrets.token_hex(8)
    system.post("/orders", {"orderID": order_id, "customerID": "c", "item": "Mocha"})
    whole(system, order_id)
    assert system.request("PATCH", f"/orders/{order_id}", {"from": "PLACED", "status": "CANCELLED"}).status == 200
    [cancelled] = wait_for(lambda: whole(system, order_id)[1:], "the change")
    expected = ["wait in the stream", "announce_orders", "SNS", "record_notification (inbox)"]
    assert (cancelled.title, hops(cancelled)) == ("Order cancelled", ["PATCH /orders/{order_id}", *expected])
