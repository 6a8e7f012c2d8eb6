"""Tests the responses and errors of the REST API routes through Chalice's test client.

The files test_rest, test_orders and test_reports test how bodies, parameters and keys are parsed.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from chalice.test import Client

from chalicelib import clients, today
from chalicelib.settings import VERSION
from tests.unit.api import Api, app, refused
from tests.unit.cloud import ENVIRONMENT, ROOT, Aws, refusing
from tests.unit.notices import attributes, sent
from tests.unit.ordering import message

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
ORDER = {"orderID": "o-1", "customerID": "c-1", "item": "Lima", "quantity": 2}
MOCHA = {"customerID": "c", "item": "Mocha"}


def started(api: Api, body: Any = b"", **headers: str) -> dict[str, Any]:
    response = api.post("/create_report", body, **headers)
    assert response.status_code == 202, response.body
    report: dict[str, Any] = response.json_body
    return report


def stored(api: Api, aws: Aws) -> None:
    """Runs the function store_orders on the queued orders."""
    records = [message(json.dumps(body), number) for number, body in enumerate(aws.queued())]
    assert api.invoke("store_orders", {"Records": records}) == {"batchItemFailures": []}


def place(api: Api, aws: Aws, *orders: dict[str, Any]) -> None:
    """Posts orders, and stores them in the table."""
    assert api.post("/orders", list(orders)).status_code == 202
    stored(api, aws)


def pages(api: Api, path: str, key: str) -> Iterator[list[str]]:
    """Follows the ``next`` links to the end of a list, and yields the ids on each page."""
    following: str | None = ""
    while following is not None:
        page = api.get(path + following).json_body
        [field] = page.keys() - {"next"}
        yield [each[key] for each in page[field]]
        following = page["next"] and f"&next={page['next']}"


@pytest.mark.parametrize("body", [b"", {}, {"kind": "inventory"}])
def test_without_a_kind_an_inventory_report_is_started(api: Api, aws: Aws, body: Any) -> None:
    response = api.post("/create_report", body, host="127.0.0.1:8000")
    report = response.json_body
    report_id = report["reportId"]
    href = f"/reports/{report_id}"
    assert report == {"reportId": report_id, "kind": "inventory", "status": "RUNNING", "href": href}
    assert response.headers["Location"] == f"http://127.0.0.1:8000{href}"
    assert aws.execution(report_id).state_machine_arn == ENVIRONMENT["INVENTORY_REPORT_ARN"]


def test_a_key_belongs_to_one_report_and_to_its_first_sender(api: Api, aws: Aws) -> None:
    ben, key = api.sent_by("ben", "managers"), "_-" * 32
    first = started(api, idempotency_key=key)
    assert started(ben, {"kind": "inventory"}, idempotency_key=key) == first
    aws.finish(first["reportId"], "FAILED")
    assert started(api, idempotency_key=key) == first
    message = refused(api.post("/create_report", {"kind": "storage"}, idempotency_key=key), 409, "Conflict")
    assert message.startswith(f"Idempotency-Key: {key} ")
    assert [each["reportId"] for each in api.get("/reports").json_body["reports"]] == [first["reportId"]]
    assert api.get(first["href"]).json_body["requestedBy"] == "mia"
    # A request without an idempotency key always starts a new report.
    second = started(ben)
    assert second["reportId"] != first["reportId"] != started(api)["reportId"] != second["reportId"]
    assert api.get(second["href"]).json_body["requestedBy"] == "ben"


def test_a_running_report_has_null_in_fields_not_known_yet(api: Api, aws: Aws) -> None:
    report = started(api)
    shown = api.get(report.pop("href")).json_body
    assert TIMESTAMP.fullmatch(shown.pop("startedAt"))
    unknown = dict.fromkeys(("finishedAt", "summary", "url", "expiresAt", "error"))
    assert shown == {**report, "requestedBy": "mia", "mode": None, "versions": None, **unknown}


@pytest.mark.parametrize("kind", ["inventory", "storage"])
def test_a_succeeded_report_has_its_summary_and_a_fresh_link_for_an_hour(api: Api, aws: Aws, kind: str) -> None:
    report_id = started(api, {"kind": kind})["reportId"]
    summary = {"rows": 3, "suppliers": 2, "quantity": 12, "generatedAt": "2026-11-21T03:14:15.123456Z"}
    aws.finish(report_id, output=json.dumps({"summary": summary, "more": 1}))
    shown = api.get(f"/reports/{report_id}").json_body
    assert (shown["status"], shown["summary"], shown["error"]) == ("SUCCEEDED", summary, None)
    assert TIMESTAMP.fullmatch(shown["finishedAt"])
    # The response has no link to the report's page, because the page does not exist yet.
    assert (shown["url"], shown["expiresAt"]) == (None, None)
    aws.s3.put_object(Bucket=ENVIRONMENT["REPORTS_BUCKET"], Key=f"{kind}/{report_id}/report.html", Body=b"<p>")
    before = app.now()
    shown = api.get(f"/reports/{report_id}").json_body
    assert f"/{kind}/{report_id}/report.html?" in shown["url"]
    expires_at = datetime.fromisoformat(shown["expiresAt"])
    assert before <= expires_at - timedelta(hours=1) <= app.now()


REFUSAL = "MySQL refuses: no such table"


@pytest.mark.parametrize(
    ("status", "fields", "reason"),
    [
        ("FAILED", {"error": "DatabaseRefused", "cause": REFUSAL}, REFUSAL),
        ("FAILED", {"error": "States.Runtime"}, "States.Runtime"),
        ("FAILED", {}, "no reason is known"),
        ("TIMED_OUT", {}, "the report timed out"),
        ("ABORTED", {}, "the report was stopped manually"),
    ],
)
def test_a_failed_report_says_why(api: Api, aws: Aws, status: str, fields: dict[str, str], reason: str) -> None:
    report_id = started(api)["reportId"]
    aws.finish(report_id, status, **fields)
    shown = api.get(f"/reports/{report_id}").json_body
    assert (shown["status"], shown["error"], shown["summary"], shown["url"]) == (status, reason, None, None)


@pytest.mark.parametrize("given", ["{}", "[]", "null", '"requestedBy"', '{"requestedBy": 7}', '{"mode": "listing"}'])
def test_a_report_started_by_hand_is_found_without_a_requester(api: Api, aws: Aws, given: str) -> None:
    aws.sfn.start_execution(stateMachineArn=ENVIRONMENT["STORAGE_REPORT_ARN"], name="by-hand", input=given)
    shown = api.get("/reports/by-hand").json_body
    assert (shown["kind"], shown["requestedBy"], shown["mode"]) == ("storage", None, "listing")
    assert shown["versions"] is False


@pytest.mark.parametrize(
    ("asked", "mode", "versions"),
    [
        ({}, None, None),
        ({"kind": "storage"}, "listing", False),
        ({"kind": "storage", "versions": True}, "listing", True),
        ({"kind": "storage", "mode": "metrics"}, "metrics", False),
    ],
)
def test_a_report_has_the_mode_that_was_requested(
    api: Api, aws: Aws, asked: dict[str, Any], mode: str | None, versions: bool | None
) -> None:
    shown = api.get(started(api, asked)["href"]).json_body
    assert (shown["mode"], shown["versions"]) == (mode, versions)


@pytest.mark.parametrize("report_id", ["inventory-none", "a" * 81, "%00", "a:b"])
@pytest.mark.parametrize("history", ["", "/history"])
def test_a_report_that_does_not_exist_is_a_404(api: Api, aws: Aws, report_id: str, history: str) -> None:
    calls = aws.calls(aws.sfn, "DescribeExecution")
    message = refused(api.get(f"/reports/{report_id}{history}"), 404, "NotFound")
    assert message.startswith("there is no report ")
    # The API does not call Step Functions with a malformed name, because Step Functions would reject it.
    assert bool(calls) is (report_id == "inventory-none")


def test_reports_of_both_machines_are_listed_newest_first_by_pages_and_by_kind(api: Api, aws: Aws) -> None:
    ids = []
    for second, kind in enumerate(["inventory", "storage", "storage", "inventory", "inventory"]):
        ids.append(started(api, {"kind": kind})["reportId"])
        aws.execution(ids[-1]).start_date = datetime(2026, 11, 21, 3, 14, second, tzinfo=UTC)
    aws.finish(ids[0], "FAILED")
    [newest, *_, oldest] = api.get("/reports").json_body["reports"]
    assert newest == {
        **{"reportId": ids[4], "kind": "inventory", "status": "RUNNING"},
        **{"startedAt": "2026-11-21T03:14:04.000000Z", "finishedAt": None, "href": f"/reports/{ids[4]}"},
    }
    assert (oldest["reportId"], oldest["status"]) == (ids[0], "FAILED")
    assert TIMESTAMP.fullmatch(oldest["finishedAt"])
    assert list(pages(api, "/reports?limit=2", "reportId")) == [ids[4:2:-1], ids[2:0:-1], ids[:1]]
    assert list(pages(api, "/reports?kind=storage", "reportId")) == [ids[2:0:-1]]


def test_an_order_is_queued_and_its_id_returned(api: Api, aws: Aws) -> None:
    response = api.post("/orders", ORDER)
    assert response.status_code == 202
    assert response.json_body == {"orderID": "o-1", "status": "QUEUED", "href": "/orders/o-1"}
    (queued,) = aws.queued()
    assert TIMESTAMP.fullmatch(queued.pop("placedAt"))
    items = [{"item": "Lima", "quantity": 2}]
    assert queued == {"orderID": "o-1", "customerID": "c-1", "items": items, "note": None, "requestedBy": "mia"}


def test_a_list_is_answered_in_its_sequence_with_new_ids_where_none_were_given(api: Api, aws: Aws) -> None:
    answered = api.post("/orders", [{**ORDER, "orderID": "z"}, MOCHA, ORDER, ORDER, MOCHA]).json_body["orders"]
    ids = [each["orderID"] for each in answered]
    assert [ids[0], *ids[2:4]] == ["z", "o-1", "o-1"]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", each) for each in ids)
    assert answered[1] == {"orderID": ids[1], "status": "QUEUED", "href": f"/orders/{ids[1]}"}
    assert sorted(each["orderID"] for each in aws.queued()) == sorted({"z", "o-1", ids[1], ids[4]})
    assert ids[1] != ids[4]


def test_two_orders_in_a_list_with_one_id_and_different_content_conflict(api: Api) -> None:
    message = refused(api.post("/orders", [ORDER, {**ORDER, "quantity": 3}]), 409, "Conflict")
    assert message == "orders[1].orderID: is also the id of orders[0], which has different content"


@pytest.mark.parametrize(("given", "count"), [(MOCHA, 1), ([MOCHA] * 3, 3)], ids=["one", "a list"])
def test_the_same_orders_under_the_same_key_keep_their_ids(api: Api, aws: Aws, given: Any, count: int) -> None:
    answers = [api.post("/orders", given, idempotency_key="monday").json_body for _ in range(3)]
    assert answers[1:] == answers[:1] * 2
    assert len({each["orderID"] for each in aws.queued()}) == count


@pytest.mark.parametrize(
    "other", [{**MOCHA, "item": "Tea"}, {**MOCHA, "orderID": "o-1"}, [MOCHA]], ids=["content", "id", "list"]
)
def test_different_orders_under_one_key_are_a_conflict_and_not_queued(api: Api, aws: Aws, other: Any) -> None:
    # An invalid order does not use up its idempotency key.
    assert api.post("/orders", {"customerID": "c"}, idempotency_key="monday").status_code == 400
    assert api.post("/orders", MOCHA, idempotency_key="monday").status_code == 202
    assert len(aws.queued()) == 1
    message = refused(api.post("/orders", other, idempotency_key="monday"), 409, "Conflict")
    assert message.startswith("Idempotency-Key: monday was used for another request")
    assert not aws.queued()


def test_an_order_that_is_not_in_utf_8_is_refused_even_after_api_gateway_has_replaced_its_bytes(api: Api) -> None:
    sent = '{"customerID": "caf\xe9", "item": "x"}'.encode("latin-1")
    for body in (sent, sent.decode(errors="replace").encode()):
        assert "UTF-8" in refused(api.post("/orders", body), 400, "InvalidRequest")


def test_a_stored_order_is_shown(api: Api, aws: Aws) -> None:
    items = [{"item": "Lima", "quantity": 1}, {"item": "Nariño ☕", "quantity": 10_000}]
    placed = {"orderID": "o-1", "customerID": "c-1", "items": items, "note": "two\nlines"}
    place(api, aws, placed)
    shown = api.get("/orders/o-1").json_body
    assert TIMESTAMP.fullmatch(shown.pop("placedAt"))
    changes = {"version": 0, "changedAt": None, "changedBy": None, "changes": []}
    assert shown == {**placed, "status": "PLACED", "requestedBy": "mia", **changes}


def test_an_order_keeps_the_name_of_the_person_who_sent_it_first(api: Api, aws: Aws) -> None:
    """Requests with the same order id or idempotency key are about the same order, even from different people."""
    for sender in (api.sent_by("ana", "staff"), api):
        assert sender.post("/orders", ORDER).status_code == 202
        assert sender.post("/orders", MOCHA, idempotency_key="lunch").status_code == 202
    stored(api, aws)
    assert {each["requestedBy"] for each in api.get("/orders").json_body["orders"]} == {"ana"}
    # An order that is already stored is not queued again.
    assert api.post("/orders", ORDER).status_code == 202
    assert aws.queued() == []


@pytest.mark.parametrize("order_id", ["none", "a%2Fb", "a" * 65, "%00", "é", "o'; drop"])
def test_an_order_that_does_not_exist_is_a_404(api: Api, aws: Aws, order_id: str) -> None:
    change = {"from": "PLACED", "status": "READY"}
    for answer in (api.get(f"/orders/{order_id}"), api.patch(f"/orders/{order_id}", change)):
        assert refused(answer, 404, "NotFound").startswith("there is no order ")
    assert aws.stored() == {}


def test_orders_are_listed_newest_first_by_pages_and_by_customer(api: Api, aws: Aws) -> None:
    for number in range(5):
        place(api, aws, {**ORDER, "orderID": f"o-{number}", "customerID": f"c-{number % 2}"})
    assert list(pages(api, "/orders?limit=2", "orderID")) == [["o-4", "o-3"], ["o-2", "o-1"], ["o-0"]]
    assert list(pages(api, "/orders?customerID=c-0&limit=2", "orderID")) == [["o-4", "o-2"], ["o-0"]]
    assert api.get("/orders?customerID=none").json_body == {"orders": [], "next": None}
    assert {**api.get("/orders").json_body["orders"][0], "changes": []} == api.get("/orders/o-4").json_body


def test_notifications_are_listed_newest_first_by_pages_and_by_kind(api: Api, aws: Aws) -> None:
    for number, kind in enumerate(["upload", "order", "upload", "alarm", "upload", "a stranger's"]):
        moment = app.now() + timedelta(seconds=number)
        api.invoke("record_notification", {"Records": [sent(number, moment, MessageAttributes=attributes(kind=kind))]})
    expected = {
        "limit=4": [["m-5", "m-4", "m-3", "m-2"], ["m-1", "m-0"]],
        "kind=upload&limit=2": [["m-4", "m-2"], ["m-0"]],
        **{"kind=order": [["m-1"]], "kind=alarm": [["m-3"]], "kind=other": [["m-5"]], "kind=storage": [[]]},
    }
    assert {query: list(pages(api, f"/notifications?{query}", "messageId")) for query in expected} == expected


LISTS = ["/reports", "/orders", "/notifications"]
RANGES = ["/orders?", "/orders?customerID=c&", "/orders.csv?"]
STATUSES = "PLACED, READY, SERVED, CANCELLED"
SUCH = "such as 2026-11-21T00:00:00+01:00"


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("/reports?kind=coffee", "kind: must be one of inventory, storage"),
        ("/notifications?kind=Upload", "kind: must be one of report, order, upload, storage, alarm, other"),
        ("/orders?customerID=", "customerID: must have 1 to 64 characters"),
        (f"/orders?customerID={'c' * 65}", "customerID: must have 1 to 64 characters"),
        *(
            (f"/orders?status={text}", f"status: must be one or more of {STATUSES}, with commas between")
            for text in ("", "placed", "PLACED,", "PLACED READY", "QUEUED")
        ),
        *((f"{path}since=2026-11-21", f"since: must be a time with a UTC offset, {SUCH}") for path in RANGES),
        (
            "/orders?since=x&until=y&status=z",
            f"status: must be one or more of {STATUSES}, with commas between; "
            f"since: must be a time with a UTC offset, {SUCH}; until: must be a time with a UTC offset, {SUCH}",
        ),
    ],
)
def test_an_impossible_filter_is_refused(api: Api, query: str, problem: str) -> None:
    assert refused(api.get(query), 400, "InvalidRequest") == problem


def test_a_malformed_token_or_another_lists_token_is_refused(api: Api, aws: Aws) -> None:
    for number in range(3):
        started(api)
        place(api, aws, {**ORDER, "orderID": f"o-{number}"})
    tokens = {"": "W1tb", **{path: api.get(f"{path}?limit=1").json_body["next"] for path in ("/reports", "/orders")}}
    assert all(tokens.values())
    for source, token in tokens.items():
        for path in LISTS:
            if path != source:
                message = refused(api.get(f"{path}?next={token}"), 400, "InvalidRequest")
                assert message.startswith("next: is not a `next` value from this list")


@pytest.mark.parametrize("path", ["/orders", "/create_report", "/orders/o-1"])
def test_a_body_that_cannot_be_read_is_a_400_a_413_or_a_415(api: Api, path: str) -> None:
    send = api.patch if path == "/orders/o-1" else api.post
    assert refused(send(path, b"{"), 400, "InvalidRequest").startswith("body: is not JSON")
    named = send(path, b"{", content_type="application/json; charset=utf-8")
    assert refused(named, 400, "InvalidRequest").startswith("body: is not JSON")
    assert refused(send(path, b" " * 1_000_001), 413, "BodyTooLarge").startswith("the body has 1,000,001 bytes")
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert kind in refused(send(path, b"{}", content_type=kind), 415, "UnsupportedMediaType")


def test_no_cache_stores_an_answer_to_a_request_with_a_token(
    api: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(today, "overview", lambda *_, **__: 1 / 0)
    answers = {
        200: api.get("/orders"),
        202: api.post("/orders", ORDER),
        400: api.post("/orders", b"{"),
        404: api.get("/orders/none"),
        415: api.post("/orders", b"{}", content_type="text/plain"),
        500: api.get("/today"),
    }
    assert {status: answer.status_code for status, answer in answers.items()} == {status: status for status in answers}
    assert {answer.headers.get("Cache-Control") for answer in answers.values()} == {"no-store"}
    for path in ("/", "/console/api.js", "/health", "/openapi.json"):
        assert api.get(path).headers.get("Cache-Control") != "no-store"


def test_health_returns_the_stage_and_the_projects_version(api: Api) -> None:
    response = api.get("/health")
    assert (response.status_code, response.json_body) == (200, {"status": "ok", "stage": "test", "version": VERSION})
    response = api.client.http.head("/health")
    assert (response.status_code, response.body) == (200, b"")
    assert f'\nversion = "{VERSION}"\n' in (ROOT / "pyproject.toml").read_text()


def test_the_openapi_description_is_served_as_json(api: Api) -> None:
    response = api.get("/openapi.json")
    assert response.headers["Content-Type"] == "application/json"
    assert response.json_body == json.loads((ROOT / "chalicelib" / "openapi.json").read_text())


@pytest.mark.parametrize(
    ("body", "path", "service", "operation"),
    [
        ({}, "/create_report", "stepfunctions", "start_execution"),
        (ORDER, "/orders", "sqs", "send_message_batch"),
        (None, "/reports", "stepfunctions", "list_executions"),
        (None, "/reports/inventory-1", "stepfunctions", "describe_execution"),
        (None, "/reports/inventory-1/history", "stepfunctions", "describe_execution"),
        (None, "/orders", "dynamodb", "query"),
        (None, "/orders.csv", "dynamodb", "query"),
        (None, "/orders/o-1", "dynamodb", "get_item"),
        (None, "/notifications", "dynamodb", "query"),
        (None, "/today", "stepfunctions", "list_executions"),
        (None, "/dead-letters", "sqs", "receive_message"),
    ],
)
def test_a_busy_service_of_aws_is_a_503(api: Api, aws: Aws, body: Any, path: str, service: str, operation: str) -> None:
    with refusing(clients.aws(service), operation, "ThrottlingException", times=16):
        response = api.get(path) if body is None else api.post(path, body)
    assert "try again in a moment" in refused(response, 503, "Unavailable")


def test_the_readmes_test_passes(client: Client) -> None:
    [block] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    found: dict[str, Any] = {}
    exec(block, found)
    found["test_the_health_check_names_the_stage"](client)
