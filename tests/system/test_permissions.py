"""Each function has the rights it needs and no more: without one action of its role, its call is refused.

tests/wiring checks the rights that the local cloud does not enforce, by the table in docs/permissions.md.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.system.letters import order_message
from tests.system.system import System, new_id

# `make verify-deploy` runs them, beside the tests that remove each right of the deployer.
pytestmark = pytest.mark.long


def refused(answer: tuple[bool, Any]) -> bool:
    """Whether the function failed because its role lacks a right; SNS has a name of its own for that."""
    ok, error = answer
    return not ok and any(name in error["errorMessage"] for name in ("AccessDenied", "AuthorizationError"))


def read(system: System) -> dict[str, Any]:
    ok, result = system.invoke("read_inventory", {"reportId": "permissions"})
    assert ok, result
    return dict(result)


def sqs_event(system: System) -> dict[str, Any]:
    body = json.dumps(order_message(new_id()))
    record = {"messageId": new_id("m"), "receiptHandle": "none", "body": body}
    return {"Records": [{**record, "attributes": {"ApproximateReceiveCount": "1"}}]}


def sns_event() -> dict[str, Any]:
    sns = {"MessageId": new_id("m"), "Message": "m", "Timestamp": "2026-11-21T08:00:00.000Z", "Subject": None}
    return {"Records": [{"Sns": {**sns, "MessageAttributes": {}}}]}


def s3_event(key: str) -> Callable[[System], Any]:
    """An event that nothing else has caused. Its object may be missing, but not the right to read it."""
    return lambda system: system.s3_event(key.format(new_id()), etag='"0"')


EVENTS: dict[tuple[str, str], Callable[[System], Any]] = {
    ("read_inventory", "s3:PutObject"): lambda _: {"reportId": "permissions"},
    ("render_report", "s3:GetObject"): read,
    ("render_report", "s3:PutObject"): read,
    ("receive_upload", "s3:GetObject"): s3_event("inventory/{}.csv"),
    ("receive_upload", "sns:Publish"): s3_event("other/{}.txt"),
    ("record_notification", "dynamodb:PutItem"): lambda _: sns_event(),
    ("record_alarm", "dynamodb:PutItem"): lambda _: sns_event(),
    ("measure_buckets", "s3:ListAllMyBuckets"): lambda _: {},
    ("measure_buckets", "s3:PutObject"): lambda _: {},
}


@pytest.mark.parametrize(("function", "action"), EVENTS, ids=[" ".join(each) for each in EVENTS])
def test_a_function_without_one_of_its_actions_is_refused(system: System, function: str, action: str) -> None:
    event = EVENTS[function, action](system)
    ok, error = system.invoke(function, event)
    assert ok, error
    with system.without(function, action):
        answer = system.invoke(function, EVENTS[function, action](system))
        assert refused(answer), answer


@pytest.mark.parametrize(("action", "mode"), [("s3:ListBucket", "listing"), ("cloudwatch:ListMetrics", "metrics")])
def test_without_the_right_to_measure_every_bucket_is_named_as_refused(system: System, action: str, mode: str) -> None:
    with system.without("measure_buckets", action):
        ok, result = system.invoke("measure_buckets", {"mode": mode})
    assert ok, result
    assert {each["bucket"] for each in result["summary"]["errors"]} >= {
        system.env["UPLOADS_BUCKET"],
        system.env["REPORTS_BUCKET"],
    }
    assert "denied" in result["summary"]["errors"][0]["error"].lower()


@pytest.mark.parametrize("action", ["dynamodb:PartiQLInsert", "dynamodb:BatchGetItem"])
def test_store_orders_without_its_table_gives_the_message_back(system: System, action: str) -> None:
    event = sqs_event(system)
    if action == "dynamodb:BatchGetItem":
        # It reads only orders that exist already.
        assert system.invoke("store_orders", event)[0]
    with system.without("store_orders", action):
        answer = system.invoke("store_orders", event)
        assert refused(answer), answer


def test_a_link_that_its_signer_may_not_open_answers_403(system: System) -> None:
    csv = read(system)
    ok, page = system.invoke("render_report", csv)
    assert ok, page
    ok, link = system.invoke("presign_report", csv)
    assert ok, link
    assert system.request("GET", link["url"]).status == 200
    with system.without("presign_report", "s3:GetObject"):
        assert system.request("GET", link["url"]).status == 403


@pytest.mark.parametrize(
    ("action", "method", "path", "body"),
    [
        ("states:StartExecution", "POST", "/create_report", {}),
        ("states:ListExecutions", "GET", "/reports", None),
        ("states:DescribeExecution", "GET", "/reports/inventory-1", None),
        ("states:DescribeStateMachineForExecution", "GET", "/reports/{reportId}/history", None),
        ("states:GetExecutionHistory", "GET", "/reports/{reportId}/history", None),
        ("sqs:SendMessage", "POST", "/orders", {"customerID": "c", "item": "x"}),
        ("dynamodb:BatchGetItem", "POST", "/orders", {"customerID": "c", "item": "x"}),
        ("dynamodb:GetItem", "GET", "/orders/o-1", None),
        ("dynamodb:Query", "GET", "/orders", None),
        ("dynamodb:Query", "GET", "/orders?customerID=c", None),
        ("dynamodb:Query", "GET", "/notifications", None),
        ("sqs:ReceiveMessage", "GET", "/dead-letters", None),
        ("sqs:ReceiveMessage", "POST", "/dead-letters/redrive", {"ids": ["none"]}),
        ("sqs:GetQueueAttributes", "GET", "/dead-letters", None),
        ("sqs:GetQueueAttributes", "GET", "/today", None),
        ("states:ListExecutions", "GET", "/today", None),
        ("dynamodb:Query", "GET", "/today", None),
    ],
)
def test_the_api_has_the_rights_of_its_own_role_and_no_others(
    system: System, action: str, method: str, path: str, body: Any
) -> None:
    if "{reportId}" in path:
        # A new report each time, because the API caches what it knows of one.
        path = path.replace("{reportId}", system.post("/create_report")["reportId"])
    else:
        assert system.request(method, path, body).status in (200, 202, 404)
    with system.without("api", action):
        answer = system.request(method, path, body)
    assert answer.status == 500
    assert answer.json == {"Code": "InternalServerError", "Message": "An internal server error occurred."}
    assert action in system.stack.api.log.read_text()


def test_a_report_without_the_right_to_its_page_has_no_link_that_opens(system: System) -> None:
    report = system.report()
    assert system.request("GET", report["url"]).status == 200
    with system.without("api", "s3:GetObject"):
        assert system.request("GET", report["url"]).status == 403
        assert system.request("GET", f"/reports/{report['reportId']}").status == 500
