"""Tests requests that `chalice local` and API Gateway pass on to the app in different forms."""

from __future__ import annotations

from typing import Any

import pytest

from tests.system.system import System, new_id, wait_for


@pytest.fixture(params=["CAFE_API_URL", "REST_API_URL"], ids=["chalice local", "API Gateway"])
def address(system: System, request: pytest.FixtureRequest) -> str:
    return system.env[request.param]


def test_an_order_that_is_not_in_utf_8_is_refused(system: System, address: str) -> None:
    answer = system.request("POST", f"{address}/orders", '{"customerID": "Zoë", "item": "x"}'.encode("latin-1"))
    assert (answer.status, answer.json["Code"]) == (400, "InvalidRequest")
    assert "UTF-8" in answer.json["Message"]


def test_a_plus_sign_in_a_time_needs_no_escape(system: System, address: str) -> None:
    assert system.get(f"{address}/today?since=2026-11-28T00:00:00+01:00")["since"]


def test_a_monitor_gets_the_status_without_a_body(system: System, address: str) -> None:
    answer = system.sent_by(None).request("HEAD", f"{address}/health")
    assert (answer.status, answer.text) == (200, "")


@pytest.fixture(scope="module")
def names(system: System) -> set[str]:
    """Starts two executions with each name, one in each state machine."""
    names = {new_id(name) for name in ("2026.11.28-1846", "für-März(2)+a=b@c!'")}
    for name in names:
        for machine in (system.env["INVENTORY_REPORT_ARN"], system.env["STORAGE_REPORT_ARN"]):
            system.aws("stepfunctions").start_execution(stateMachineArn=machine, name=name)
    return names


def test_each_listed_report_opens_whatever_its_name(system: System, address: str, names: set[str]) -> None:
    lines = [each for each in system.all("/reports", "reports") if each["reportId"] in names]
    assert len(lines) == len({each["href"] for each in lines}) == 4

    def ended(line: dict[str, Any]) -> Any:
        report = system.get(address + line["href"])
        return report["status"] != "RUNNING" and report

    for line in lines:
        report = wait_for(lambda line=line: ended(line), line["href"])
        assert (report["kind"], report["reportId"]) == (line["kind"], line["reportId"])
        assert report["status"] == "SUCCEEDED", report["error"]
        assert line["reportId"].replace("'", "&#39;") in system.request("GET", report["url"]).text
        history = system.get(f"{address}{line['href']}/history")
        assert (history["kind"], history["reportId"]) == (line["kind"], line["reportId"])
        system.notification(line["reportId"], "report" if line["kind"] == "inventory" else "storage")
