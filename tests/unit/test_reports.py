"""Tests how report requests are checked, how a key starts only one execution, and how the API shows reports."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import clients, correlation, reports
from chalicelib.errors import InvalidRequest
from chalicelib.rest import Page
from tests.unit.cloud import ENVIRONMENT, MACHINES, Aws, refusing

NOW = datetime(2026, 11, 21, 3, 14, 15, 123456, UTC)
BUCKET = ENVIRONMENT["REPORTS_BUCKET"]
INVENTORY = {"kind": "inventory"}
LISTING = {"kind": "storage", "mode": "listing"}


def start(aws: Aws, wanted: dict[str, str], key: str | None = None) -> dict[str, Any]:
    return reports.start(wanted, key, "mia", sfn=aws.sfn, machines=MACHINES, now=NOW)


def get(aws: Aws, report_id: str, now: datetime = NOW) -> dict[str, Any]:
    return reports.get(report_id, sfn=aws.sfn, machines=MACHINES, s3=aws.s3, bucket=BUCKET, now=now)


def newest(sfn: Any, limit: int, token: str | None = None, **filters: str) -> dict[str, Any]:
    return reports.newest(Page(limit, token, filters), sfn=sfn, machines=MACHINES)


def ids(page: dict[str, Any]) -> list[str]:
    return [each["reportId"] for each in page["reports"]]


def pages(sfn: Any, limit: int, **filters: str) -> list[list[str]]:
    page = newest(sfn, limit, **filters)
    found = [ids(page)]
    while page["next"]:
        page = newest(sfn, limit, page["next"], **filters)
        found.append(ids(page))
    return found


def run_by_hand(aws: Aws, kind: str, name: str, started_at: datetime) -> None:
    started = aws.sfn.start_execution(stateMachineArn=MACHINES[kind], name=name)
    aws.execution(started["executionArn"]).start_date = started_at


@pytest.mark.parametrize(
    ("body", "problems"),
    [
        *(({"kind": kind}, ["kind: must be one of inventory, storage"]) for kind in ("coffee", None, ["storage"])),
        *(({"kind": "storage", "mode": mode}, ["mode: must be one of listing, metrics"]) for mode in ("guess", {})),
        ({"mode": "listing"}, ["mode: is allowed only for storage reports"]),
        ({"kind": "storage", "versions": "yes"}, ["versions: must be true or false"]),
        *(
            ({**each, "versions": True}, ["versions: is allowed only for storage reports that list objects"])
            for each in ({}, {"kind": "storage", "mode": "metrics"})
        ),
        ({"since": "2026"}, ["since: is not a field of a report"]),
        (
            {"kind": 1, "mode": 2, "a\u0000\ud800": 3},
            [
                '"a\\u0000\\ud800": is not a field of a report',
                "kind: must be one of inventory, storage",
                "mode: must be one of listing, metrics",
            ],
        ),
        *((body, ["body: must be an object, or nothing"]) for body in ([], "storage", 0)),
    ],
)
def test_an_invalid_request_names_every_wrong_field(body: Any, problems: list[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        reports.parse(body)
    assert [str(each) for each in caught.value.problems] == problems


def test_the_machines_input_is_only_what_it_cannot_know(aws: Aws) -> None:
    with correlation.about("request-1"):
        started = [start(aws, each)["reportId"] for each in (INVENTORY, LISTING, LISTING | {"versions": True})]
    assert re.fullmatch(r"inventory-20261121T031415-[0-9a-f]{12}", started[0])
    inputs = [json.loads(aws.execution(each).execution_input) for each in started]
    asked = {"requestedBy": "mia", "correlationId": "request-1"}
    assert inputs == [asked, {"mode": "listing", **asked}, {"mode": "listing", "versions": True, **asked}]


@pytest.mark.parametrize(
    "name", ["2026.11.28-1846", "nightly", "inventory-1", "storage-1", "f\xfcr-M\xe4rz(2)+a=b@c!'", "..", "\u6f22" * 80]
)
def test_every_listed_report_opens_even_if_both_machines_have_its_name(aws: Aws, name: str) -> None:
    for kind in MACHINES:
        run_by_hand(aws, kind, name, NOW)
    lines = newest(aws.sfn, 1)["reports"] + newest(aws.sfn, 1, newest(aws.sfn, 1)["next"])["reports"]
    assert {(each["kind"], each["reportId"]) for each in lines} == {("inventory", name), ("storage", name)}
    for line in lines:
        escaped = line["href"].removeprefix("/reports/")
        assert escaped == quote(unquote(escaped), safe="")
        assert escaped.strip(".")
        # API Gateway decodes the path, and `chalice local` does not.
        for report_id in (escaped, unquote(escaped)):
            found = get(aws, report_id)
            assert (found["kind"], found["reportId"]) == (line["kind"], name)
    # The name alone also opens a report.
    assert get(aws, name)["reportId"] == name


def test_a_storage_report_whose_name_looks_like_an_inventory_is_found(aws: Aws) -> None:
    run_by_hand(aws, "storage", "inventory-of-buckets", NOW)
    assert get(aws, "inventory-of-buckets")["kind"] == "storage"


def test_a_missing_permission_to_look_for_the_page_is_not_mistaken_for_a_missing_page(aws: Aws) -> None:
    report_id = start(aws, INVENTORY)["reportId"]
    aws.finish(report_id, output='{"summary": {}}')
    with refusing(aws.s3, "head_object", "403", 403), pytest.raises(ClientError):
        get(aws, report_id)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_the_pages_have_all_reports_newest_first_even_those_with_equal_times(aws: Aws, limit: int) -> None:
    """Step Functions returns times with millisecond precision, so several reports can have the same time."""
    moments = [NOW.replace(microsecond=0) + timedelta(seconds=number // 4) for number in range(12)]
    for number, moment in enumerate(moments):
        run_by_hand(aws, ("inventory", "storage")[number % 2], f"r-{number:02}", moment)
    found = pages(aws.sfn, limit)
    assert [each for page in found for each in page] == [f"r-{number:02}" for number in reversed(range(12))]
    assert {len(page) for page in found[:-1]} <= {limit}


@given(st.lists(st.tuples(st.integers(0, 60), st.none() | st.integers(0, 30)), max_size=30), st.integers(1, 10))
def test_reports_are_listed_by_their_start_and_not_by_their_end(
    minutes: list[tuple[int, int | None]], limit: int
) -> None:
    """moto sorts executions by start time, so the test uses a fake that sorts executions as AWS does."""
    executions: list[dict[str, Any]] = []
    for number, (start, took) in enumerate(minutes):
        execution: dict[str, Any] = {"name": f"r-{number:02}", "status": "RUNNING" if took is None else "SUCCEEDED"}
        execution["startDate"] = NOW + timedelta(minutes=start)
        if took is not None:
            execution["stopDate"] = execution["startDate"] + timedelta(minutes=took)
        executions.append(execution)

    class StepFunctions:
        def list_executions(self, stateMachineArn: str, maxResults: int, nextToken: str = "0") -> dict[str, Any]:  # noqa: N803
            ordered = sorted(executions, key=lambda each: each.get("stopDate", each["startDate"]), reverse=True)
            end = int(nextToken) + maxResults
            more = {"nextToken": str(end)} if end < len(ordered) else {}
            return {"executions": ordered[int(nextToken) : end], **more}

    by_start = sorted(executions, key=lambda each: (each["startDate"], each["name"]), reverse=True)
    found = pages(StepFunctions(), limit, kind="inventory")
    assert [each for page in found for each in page] == [each["name"] for each in by_start]


def test_a_link_opens_one_object_for_an_hour_in_its_region_because_a_redirect_breaks_the_signature(aws: Aws) -> None:
    for region, host in (("us-east-1", "s3"), ("eu-central-1", "s3.eu-central-1")):
        link = reports.presign(clients.aws("s3", region), BUCKET, "inventory/r-1/report.html", NOW)
        assert link["expiresAt"] == "2026-11-21T04:14:15.123456Z"
        place, _, query = link["url"].partition("?")
        assert place == f"https://{BUCKET}.{host}.amazonaws.com/inventory/r-1/report.html"
        assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in query
        assert "X-Amz-Expires=3600" in query
