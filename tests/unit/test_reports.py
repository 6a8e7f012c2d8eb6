"""Reports: what may be asked for, that a key starts one execution only, and what is shown of each."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.stub import ANY, Stubber
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import clients, correlation, reports
from chalicelib.errors import InvalidRequest, NotFound, Unavailable
from chalicelib.rest import Page
from tests.unit.cloud import ENVIRONMENT, Aws

NOW = datetime(2026, 11, 21, 3, 14, 15, 123456, UTC)
MACHINES = {"inventory": ENVIRONMENT["INVENTORY_REPORT_ARN"], "storage": ENVIRONMENT["STORAGE_REPORT_ARN"]}
BUCKET = ENVIRONMENT["REPORTS_BUCKET"]
INVENTORY = {"kind": "inventory"}
LISTING = {"kind": "storage", "mode": "listing"}


def start(aws: Aws, wanted: dict[str, str], key: str | None = None) -> dict[str, Any]:
    return reports.start(wanted, key, "mia", sfn=aws.sfn, machines=MACHINES, now=NOW)


def get(aws: Aws, report_id: str) -> dict[str, Any]:
    return reports.get(report_id, sfn=aws.sfn, machines=MACHINES, s3=aws.s3, bucket=BUCKET, now=NOW)


def newest(aws: Aws, limit: int, token: str | None = None, **filters: str) -> dict[str, Any]:
    return reports.newest(Page(limit, token, filters), sfn=aws.sfn, machines=MACHINES)


def run_by_hand(aws: Aws, kind: str, name: str, started_at: datetime) -> None:
    aws.sfn.start_execution(stateMachineArn=MACHINES[kind], name=name)
    aws.execution(name).start_date = started_at


# --- What may be asked for --------------------------------------------------------------------------------------------


def test_an_inventory_is_what_is_meant_if_nothing_is_said() -> None:
    assert reports.parse({}) == INVENTORY


def test_a_storage_report_lists_if_no_mode_is_said() -> None:
    assert reports.parse({"kind": "storage"}) == LISTING


@given(
    st.dictionaries(
        st.sampled_from(["kind", "mode"]) | st.text(),
        st.sampled_from(["inventory", "storage", "listing", "metrics"])
        | st.none()
        | st.integers()
        | st.lists(st.text()),
        max_size=20,
    )
)
def test_any_object_is_a_request_or_is_refused_by_the_names_of_its_fields(body: dict[str, Any]) -> None:
    try:
        wanted = reports.parse(body)
    except InvalidRequest as error:
        problems = error.problems
    else:
        assert body.items() <= {**INVENTORY, **wanted}.items()
        return
    named = {problem.rpartition(": ")[0] for problem in problems}
    assert named <= {"kind", "mode"} | {json.dumps(name[:40]) for name in body}


def test_fields_of_any_number_and_length_make_a_short_message() -> None:
    with pytest.raises(InvalidRequest) as caught:
        reports.parse({f"{number}" + "x" * 5_000: 1 for number in range(100)})
    assert len(str(caught.value)) < 2_000
    assert str(caught.value).endswith("; and 80 more")


# --- Starting one -----------------------------------------------------------------------------------------------------


def test_a_reports_id_tells_its_kind_and_when_it_was_asked_for(aws: Aws) -> None:
    report = start(aws, INVENTORY)
    assert re.fullmatch(r"inventory-20261121T031415-[0-9a-f]{12}", report["reportId"])


def test_the_machine_gets_only_what_it_cannot_know(aws: Aws) -> None:
    with correlation.about("request-1"):
        started = [start(aws, each)["reportId"] for each in (INVENTORY, LISTING)]
    inputs = [json.loads(aws.execution(each).execution_input) for each in started]
    asked = {"requestedBy": "mia", "correlationId": "request-1"}
    assert inputs == [asked, {"mode": "listing", **asked}]


@pytest.mark.parametrize("wanted", [INVENTORY, LISTING], ids=["inventory", "storage"])
@pytest.mark.parametrize("status", ["RUNNING", "SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"])
def test_a_key_is_one_execution_for_ever(aws: Aws, wanted: dict[str, str], status: str) -> None:
    first = start(aws, wanted, "monday")
    if status != "RUNNING":
        aws.finish(first["reportId"], status)
    assert start(aws, wanted, "monday") == first
    assert len(newest(aws, 100)["reports"]) == 1


def test_different_keys_are_different_reports(aws: Aws) -> None:
    assert start(aws, INVENTORY, "a")["reportId"] != start(aws, INVENTORY, "b")["reportId"]


def test_step_functions_out_of_breath_is_a_503(aws: Aws) -> None:
    with Stubber(aws.sfn) as sfn:
        sfn.add_client_error("start_execution", "ThrottlingException", http_status_code=400)
        with pytest.raises(Unavailable, match=r"^StartExecution does not answer for now: try again in a moment$"):
            start(aws, INVENTORY)


# --- One report -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("report_id", ["", "none", "a" * 81, "a/b", "a:b", "ä", "inventory-x\n"])
def test_what_is_no_report_is_not_found(aws: Aws, report_id: str) -> None:
    with pytest.raises(NotFound, match=r"^there is no report "):
        get(aws, report_id)


def test_a_name_that_only_looks_like_an_inventory_is_found_in_the_other_machine(aws: Aws) -> None:
    run_by_hand(aws, "storage", "inventory-of-buckets", NOW)
    assert get(aws, "inventory-of-buckets")["kind"] == "storage"


def test_a_link_is_signed_afresh_at_each_call(aws: Aws) -> None:
    report_id = start(aws, LISTING)["reportId"]
    aws.s3.put_object(Bucket=BUCKET, Key=f"storage/{report_id}/report.html", Body=b"")
    aws.finish(report_id, output='{"summary": {}}')
    later = NOW + timedelta(minutes=30)
    first = get(aws, report_id)
    second = reports.get(report_id, sfn=aws.sfn, machines=MACHINES, s3=aws.s3, bucket=BUCKET, now=later)
    assert first["expiresAt"] == "2026-11-21T04:14:15.123456Z"
    assert second["expiresAt"] == "2026-11-21T04:44:15.123456Z"
    assert f"{BUCKET}" in second["url"]
    assert f"/storage/{report_id}/report.html?" in second["url"]


def test_a_missing_right_to_look_for_the_page_is_not_taken_for_a_missing_page(aws: Aws) -> None:
    report_id = start(aws, INVENTORY)["reportId"]
    aws.finish(report_id, output='{"summary": {}}')
    with Stubber(aws.s3) as s3:
        s3.add_client_error("head_object", "403", http_status_code=403)
        with pytest.raises(ClientError):
            get(aws, report_id)


def test_a_failed_report_without_a_word_says_that_no_reason_is_known(aws: Aws) -> None:
    report_id = start(aws, INVENTORY)["reportId"]
    aws.finish(report_id, "FAILED")
    assert get(aws, report_id)["error"] == "no reason is known"


# --- The list ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_are_all_reports_of_both_machines_newest_first_even_of_one_moment(aws: Aws, limit: int) -> None:
    """Step Functions tells the time in milliseconds."""
    moments = [NOW.replace(microsecond=0) + timedelta(seconds=number // 4) for number in range(12)]
    for number, moment in enumerate(moments):
        run_by_hand(aws, ("inventory", "storage")[number % 2], f"r-{number:02}", moment)
    found: list[str] = []
    sizes = []
    token: str | None = None
    while token or not found:
        page = newest(aws, limit, token)
        token = page["next"]
        sizes.append(len(page["reports"]))
        found += [each["reportId"] for each in page["reports"]]
    assert found == [f"r-{number:02}" for number in reversed(range(12))]
    assert set(sizes[:-1]) <= {limit}


@given(
    st.lists(st.tuples(st.integers(0, 60), st.none() | st.integers(0, 30)), max_size=30),
    st.integers(1, 10),
)
def test_reports_are_listed_by_their_start_though_step_functions_gives_ended_ones_by_their_end(
    minutes: list[tuple[int, int | None]], limit: int
) -> None:
    """Moto gives all by their start, so this Step Functions is made of AWS's words in its documentation."""
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

    found: list[str] = []
    token = None
    while True:
        page = reports.newest(Page(limit, token, {"kind": "inventory"}), sfn=StepFunctions(), machines=MACHINES)
        found += [each["reportId"] for each in page["reports"]]
        token = page["next"]
        if token is None:
            break
    by_start = sorted(executions, key=lambda each: (each["startDate"], each["name"]), reverse=True)
    assert found == [each["name"] for each in by_start]


def test_a_report_that_comes_while_someone_reads_moves_no_page(aws: Aws) -> None:
    for number in range(4):
        run_by_hand(aws, "inventory", f"r-{number}", NOW + timedelta(minutes=number))
    first = newest(aws, 2)
    run_by_hand(aws, "storage", "new", NOW + timedelta(hours=1))
    second = newest(aws, 2, first["next"])
    assert [each["reportId"] for each in first["reports"] + second["reports"]] == ["r-3", "r-2", "r-1", "r-0"]


def test_the_answers_of_step_functions_are_followed_to_their_end(aws: Aws) -> None:
    def answer(*names: str, token: str | None = None) -> dict[str, Any]:
        executions = [
            {
                "executionArn": MACHINES["inventory"].replace("stateMachine", "execution") + f":{name}",
                "stateMachineArn": MACHINES["inventory"],
                "name": name,
                "status": "RUNNING",
                "startDate": NOW - timedelta(minutes=int(name[2:])),
            }
            for name in names
        ]
        return {"executions": executions, **({"nextToken": token} if token else {})}

    with Stubber(aws.sfn) as sfn:
        asked = {"stateMachineArn": MACHINES["inventory"], "maxResults": ANY}
        sfn.add_response("list_executions", answer("r-1", "r-2", token="t"), asked)
        sfn.add_response("list_executions", answer("r-3"), {**asked, "nextToken": "t"})
        listed = newest(aws, 5, kind="inventory")
        sfn.assert_no_pending_responses()
    assert [each["reportId"] for each in listed["reports"]] == ["r-1", "r-2", "r-3"]
    assert listed["next"] is None


def test_an_unknown_kind_is_named(aws: Aws) -> None:
    with pytest.raises(InvalidRequest) as caught:
        newest(aws, 5, kind="")
    assert caught.value.problems == ["kind: must be one of inventory, storage"]


# --- The link ---------------------------------------------------------------------------------------------------------


def test_a_link_names_the_buckets_region_because_a_new_bucket_redirects_and_no_signature_survives_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    url = reports.presign(clients.aws("s3", "eu-central-1"), BUCKET, "k", NOW)["url"]
    assert url.startswith(f"https://{BUCKET}.s3.eu-central-1.amazonaws.com/k?")


def test_a_presigned_link_opens_one_object_for_an_hour(aws: Aws) -> None:
    link = reports.presign(aws.s3, BUCKET, "inventory/r-1/report.html", NOW)
    assert link["expiresAt"] == "2026-11-21T04:14:15.123456Z"
    place, _, query = link["url"].partition("?")
    assert place.startswith("https://")
    assert BUCKET in place
    assert place.endswith("/inventory/r-1/report.html")
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in query
    assert "X-Amz-Expires=3600" in query
