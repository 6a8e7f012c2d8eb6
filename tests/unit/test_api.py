"""The REST API through Chalice's test client: every route, and every kind of bad input."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.stub import Stubber
from chalice.test import HTTPResponse

import app
from chalicelib.settings import VERSION
from tests.unit.conftest import ENVIRONMENT, ROOT, Api, Aws

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
ORDER = {"orderID": "o-1", "customerID": "c-1", "item": "Lima", "quantity": 2}


def refused(response: HTTPResponse, status: int, code: str) -> str:
    """The message of an error, after a look at its shape."""
    assert response.status_code == status, response.body
    assert list(response.json_body) == ["Code", "Message"]
    assert response.json_body["Code"] == code
    message: str = response.json_body["Message"]
    assert message
    assert "Traceback" not in message
    return message


def started(api: Api, body: Any = b"", **headers: str) -> dict[str, Any]:
    response = api.post("/create_report", body, **headers)
    assert response.status_code == 202, response.body
    report: dict[str, Any] = response.json_body
    return report


def started_in_turn(api: Api, aws: Aws, *kinds: str) -> list[str]:
    """The ids of reports that were started a second after each other."""
    ids = []
    for second, kind in enumerate(kinds):
        ids.append(started(api, {"kind": kind})["reportId"])
        aws.execution(ids[-1]).start_date = datetime(2026, 11, 21, 3, 14, second, tzinfo=UTC)
    return ids


def sqs_event(bodies: list[dict[str, Any]]) -> dict[str, Any]:
    """What Lambda would hand to store_orders; Chalice's generator gives all messages one id."""
    return {
        "Records": [
            {
                "messageId": f"m-{number}",
                "receiptHandle": f"r-{number}",
                "body": json.dumps(body),
                "attributes": {"ApproximateReceiveCount": "1"},
            }
            for number, body in enumerate(bodies)
        ]
    }


def place(api: Api, aws: Aws, *orders: dict[str, Any]) -> None:
    """Orders that went all the way into the table."""
    assert api.post("/orders", list(orders)).status_code == 202
    result = api.client.lambda_.invoke("store_orders", sqs_event(aws.queued()))
    assert result.payload == {"batchItemFailures": []}


# --- POST /create_report ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b" \n", {}, {"kind": "inventory"}])
def test_an_inventory_report_is_started_by_nothing_an_empty_object_or_its_kind(api: Api, aws: Aws, body: Any) -> None:
    report = started(api, body)
    report_id = report["reportId"]
    assert report == {
        "reportId": report_id,
        "kind": "inventory",
        "status": "RUNNING",
        "href": f"/reports/{report_id}",
    }
    assert aws.execution(report_id).state_machine_arn == ENVIRONMENT["INVENTORY_REPORT_ARN"]


@pytest.mark.parametrize("mode", ["metrics", "listing"])
def test_a_storage_report_is_started_in_the_mode_asked_for(api: Api, aws: Aws, mode: str) -> None:
    report = started(api, {"kind": "storage", "mode": mode})
    assert report["kind"] == "storage"
    execution = aws.execution(report["reportId"])
    assert execution.state_machine_arn == ENVIRONMENT["STORAGE_REPORT_ARN"]
    assert json.loads(execution.execution_input).items() >= {"mode": mode, "requestedBy": "mia"}.items()


def test_a_report_keeps_the_name_of_whoever_asked_first(api: Api, aws: Aws) -> None:
    ben = api.sent_by("ben", "managers")
    first = started(api, idempotency_key="monday")["reportId"]
    assert started(ben, idempotency_key="monday")["reportId"] == first
    assert api.get(f"/reports/{first}").json_body["requestedBy"] == "mia"
    assert api.get(f"/reports/{started(ben)['reportId']}").json_body["requestedBy"] == "ben"


@pytest.mark.parametrize("given", ["{}", "[]", "null", '"requestedBy"', '{"requestedBy": 7}', '{"mode": "listing"}'])
def test_a_report_that_was_started_by_hand_has_no_name(api: Api, aws: Aws, given: str) -> None:
    aws.sfn.start_execution(stateMachineArn=ENVIRONMENT["STORAGE_REPORT_ARN"], name="by-hand", input=given)
    assert api.get("/reports/by-hand").json_body["requestedBy"] is None


@pytest.mark.parametrize("body", [{"kind": "inventory", "requestedBy": "eve"}, {"requestedBy": "mia"}])
def test_a_report_takes_no_name_from_the_body(api: Api, aws: Aws, body: Any) -> None:
    message = refused(api.post("/create_report", body), 400, "InvalidRequest")
    assert message == '"requestedBy": is not a field of a report'


def test_two_requests_without_a_key_are_two_reports(api: Api, aws: Aws) -> None:
    assert started(api)["reportId"] != started(api)["reportId"]


def test_the_same_key_is_the_same_report_even_after_it_has_ended(api: Api, aws: Aws) -> None:
    first = started(api, idempotency_key="monday")
    assert started(api, {"kind": "inventory"}, idempotency_key="monday") == first
    aws.finish(first["reportId"], "FAILED")
    assert started(api, idempotency_key="monday") == first
    assert len(api.get("/reports").json_body["reports"]) == 1


@pytest.mark.parametrize("other", [{"kind": "inventory"}, {"kind": "storage", "mode": "metrics"}])
@pytest.mark.parametrize("ended", [False, True])
def test_a_key_used_for_another_request_is_a_conflict(api: Api, aws: Aws, other: Any, ended: bool) -> None:
    first = started(api, {"kind": "storage"}, idempotency_key="monday")
    if ended:
        aws.finish(first["reportId"], output='{"summary": {}}')
    message = refused(api.post("/create_report", other, idempotency_key="monday"), 409, "Conflict")
    assert message.startswith("Idempotency-Key: monday ")
    assert len(api.get("/reports").json_body["reports"]) == 1


@pytest.mark.parametrize("path", ["/create_report", "/orders"])
@pytest.mark.parametrize("key", ["", "a" * 65, "a b", "a/b", "ä", "a\n"])
def test_a_malformed_key_is_refused(api: Api, aws: Aws, path: str, key: str) -> None:
    body = {} if path == "/create_report" else {"customerID": "c", "item": "Mocha"}
    message = refused(api.post(path, body, idempotency_key=key), 400, "InvalidRequest")
    assert message == "Idempotency-Key: must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -"


def test_the_longest_key_is_taken(api: Api, aws: Aws) -> None:
    report = started(api, {"kind": "inventory"}, idempotency_key="_-" * 32)
    assert api.get(report["href"]).status_code == 200


@pytest.mark.parametrize(
    ("body", "problems"),
    [
        ({"kind": "coffee"}, ["kind: must be one of inventory, storage"]),
        ({"kind": None}, ["kind: must be"]),
        ({"kind": ["storage"]}, ["kind: must be"]),
        ({"kind": "storage", "mode": "guess"}, ["mode: must be one of listing, metrics"]),
        ({"kind": "storage", "mode": {}}, ["mode: must be"]),
        ({"mode": "listing"}, ["mode: is for reports of the kind storage only"]),
        ({"since": "2026"}, ['"since": is not a field']),
        ({"kind": 1, "mode": 2, "a\u0000\ud800": 3}, ['"a\\u0000\\ud800": is not', "kind: must", "mode: must"]),
        ([], ["body: must be an object, or nothing"]),
        ("storage", ["body: must be an object"]),
        (0, ["body: must be an object"]),
    ],
)
def test_a_wrong_report_request_names_every_field_that_is_wrong(api: Api, body: Any, problems: list[str]) -> None:
    message = refused(api.post("/create_report", body), 400, "InvalidRequest")
    assert all(problem in message for problem in problems), message
    assert message.count(": ") == len(problems)


def test_location_is_absolute_under_chalice_local(api: Api, aws: Aws) -> None:
    response = api.post("/create_report", host="127.0.0.1:8000")
    assert response.headers["Location"] == f"http://127.0.0.1:8000{response.json_body['href']}"


def test_location_has_the_stage_and_the_scheme_behind_api_gateway(aws: Aws) -> None:
    event = {
        "requestContext": {
            "httpMethod": "POST",
            "resourcePath": "/create_report",
            "path": "/api/create_report",
            "authorizer": {"principalId": "mia", "groups": "managers", "integrationLatency": 12},
        },
        "headers": {"Host": "x1.execute-api.us-east-1.amazonaws.com", "X-Forwarded-Proto": "https"},
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "body": None,
        "isBase64Encoded": False,
    }
    answer = app.app(event, None)
    location = "https://x1.execute-api.us-east-1.amazonaws.com/api" + json.loads(answer["body"])["href"]
    assert answer["headers"]["Location"] == location


# --- GET /reports/{reportId} ------------------------------------------------------------------------------------------


def test_a_running_report_has_null_for_what_is_not_known_yet(api: Api, aws: Aws) -> None:
    report = started(api)
    shown = api.get(report["href"])
    assert shown.status_code == 200
    assert TIMESTAMP.fullmatch(shown.json_body["startedAt"])
    assert shown.json_body == {
        "reportId": report["reportId"],
        "kind": "inventory",
        "status": "RUNNING",
        "startedAt": shown.json_body["startedAt"],
        "finishedAt": None,
        "summary": None,
        "url": None,
        "expiresAt": None,
        "error": None,
        "requestedBy": "mia",
    }


def test_a_succeeded_report_has_its_summary_and_a_fresh_link_for_an_hour(api: Api, aws: Aws) -> None:
    report_id = started(api)["reportId"]
    summary = {"rows": 3, "suppliers": 2, "quantity": 12, "generatedAt": "2026-11-21T03:14:15.123456Z"}
    aws.s3.put_object(Bucket=ENVIRONMENT["REPORTS_BUCKET"], Key=f"inventory/{report_id}/report.html", Body=b"<p>")
    aws.finish(report_id, output=json.dumps({"summary": summary, "more": 1}))
    before = app.now()
    shown = api.get(f"/reports/{report_id}").json_body
    assert (shown["status"], shown["summary"], shown["error"]) == ("SUCCEEDED", summary, None)
    assert TIMESTAMP.fullmatch(shown["finishedAt"])
    assert f"/inventory/{report_id}/report.html?" in shown["url"]
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in shown["url"]
    assert "X-Amz-Expires=3600&" in shown["url"]
    expires_at = datetime.fromisoformat(shown["expiresAt"])
    assert before <= expires_at - timedelta(hours=1) <= app.now()


def test_a_report_whose_page_is_gone_has_no_link(api: Api, aws: Aws) -> None:
    report_id = started(api)["reportId"]
    aws.finish(report_id, output='{"summary": {"rows": 3}}')
    shown = api.get(f"/reports/{report_id}").json_body
    assert (shown["status"], shown["summary"]) == ("SUCCEEDED", {"rows": 3})
    assert (shown["url"], shown["expiresAt"]) == (None, None)


@pytest.mark.parametrize(
    ("status", "fields", "reason"),
    [
        (
            "FAILED",
            {"error": "DatabaseRefused", "cause": "MySQL refuses: no such table"},
            "MySQL refuses: no such table",
        ),
        ("FAILED", {"error": "States.Runtime"}, "States.Runtime"),
        ("TIMED_OUT", {}, "the report took too long and was given up"),
        ("ABORTED", {}, "the report was stopped by hand"),
    ],
)
def test_a_report_that_failed_says_why(api: Api, aws: Aws, status: str, fields: dict[str, str], reason: str) -> None:
    report_id = started(api)["reportId"]
    aws.finish(report_id, status, **fields)
    shown = api.get(f"/reports/{report_id}").json_body
    assert (shown["status"], shown["error"], shown["summary"], shown["url"]) == (status, reason, None, None)


def test_a_report_that_was_started_by_hand_is_found_by_its_executions_name(api: Api, aws: Aws) -> None:
    aws.sfn.start_execution(stateMachineArn=ENVIRONMENT["STORAGE_REPORT_ARN"], name="by-hand", input="{}")
    assert api.get("/reports/by-hand").json_body["kind"] == "storage"


@pytest.mark.parametrize("report_id", ["inventory-none", "no%2Fslash", "a" * 81, "a:b", "%00", "é", "null"])
def test_a_report_that_is_not_there_is_a_404(api: Api, aws: Aws, report_id: str) -> None:
    message = refused(api.get(f"/reports/{report_id}"), 404, "NotFound")
    assert message.startswith("there is no report ")


# --- GET /reports/{reportId}/history ----------------------------------------------------------------------------------


def test_a_reports_history_has_its_states(api: Api, aws: Aws) -> None:
    report_id = started(api)["reportId"]
    shown = api.get(f"/reports/{report_id}/history").json_body
    assert (shown["reportId"], shown["kind"], shown["status"]) == (report_id, "inventory", "RUNNING")
    # What moto tells of is none of these; tests/unit/test_history.py has the rest.
    assert {state["name"]: state["status"] for state in shown["states"]}["ReadInventory"] == "waiting"
    assert shown["partial"] is False


@pytest.mark.parametrize("report_id", ["inventory-none", "a" * 81, "a:b"])
def test_a_report_that_is_not_there_has_no_history(api: Api, aws: Aws, report_id: str) -> None:
    refused(api.get(f"/reports/{report_id}/history"), 404, "NotFound")


# --- GET /reports -----------------------------------------------------------------------------------------------------


def test_reports_are_listed_newest_first_over_both_machines(api: Api, aws: Aws) -> None:
    ids = started_in_turn(api, aws, "inventory", "storage", "storage", "inventory")
    aws.finish(ids[0], "FAILED")
    listed = api.get("/reports").json_body
    assert listed["next"] is None
    assert [line["reportId"] for line in listed["reports"]] == ids[::-1]
    newest, oldest = listed["reports"][0], listed["reports"][-1]
    assert newest == {
        "reportId": ids[3],
        "kind": "inventory",
        "status": "RUNNING",
        "startedAt": "2026-11-21T03:14:03.000000Z",
        "finishedAt": None,
        "href": f"/reports/{ids[3]}",
    }
    assert oldest["status"] == "FAILED"
    assert TIMESTAMP.fullmatch(oldest["finishedAt"])


def test_reports_of_one_kind_are_listed_alone(api: Api, aws: Aws) -> None:
    started(api)
    storage = started(api, {"kind": "storage"})
    listed = api.get("/reports?kind=storage").json_body["reports"]
    assert [line["reportId"] for line in listed] == [storage["reportId"]]


def test_pages_of_reports_join_to_the_whole_list(api: Api, aws: Aws) -> None:
    ids = started_in_turn(api, aws, *["inventory", "storage", "storage", "inventory"] * 2)
    assert pages(api, "/reports?limit=3", "reports", "reportId") == [ids[7:4:-1], ids[4:1:-1], ids[1::-1]]


def pages(api: Api, path: str, field: str, key: str) -> list[list[str]]:
    """The list at ``path`` by following ``next`` to its end."""
    found, following = [], ""
    while following is not None:
        page = api.get(path + following).json_body
        found.append([each[key] for each in page[field]])
        following = page["next"] and f"&next={page['next']}"
    return found


# --- POST /orders -----------------------------------------------------------------------------------------------------


def test_an_order_is_queued_and_named(api: Api, aws: Aws) -> None:
    response = api.post("/orders", ORDER)
    assert response.status_code == 202
    assert response.json_body == {"orderID": "o-1", "status": "QUEUED", "href": "/orders/o-1"}
    (message,) = aws.queued()
    assert TIMESTAMP.fullmatch(message.pop("placedAt"))
    assert message == {
        "orderID": "o-1",
        "customerID": "c-1",
        "items": [{"item": "Lima", "quantity": 2}],
        "note": None,
        "requestedBy": "mia",
    }


def test_a_list_is_answered_in_its_order_with_the_servers_ids_where_there_are_none(api: Api, aws: Aws) -> None:
    given = [{"orderID": "z", "customerID": "c", "item": "x"}, {"customerID": "c", "item": "x"}, {**ORDER}]
    queued = api.post("/orders", given).json_body["orders"]
    assert [queued[0]["orderID"], queued[2]["orderID"]] == ["z", "o-1"]
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", queued[1]["orderID"])
    assert queued[1] == {
        "orderID": queued[1]["orderID"],
        "status": "QUEUED",
        "href": f"/orders/{queued[1]['orderID']}",
    }


def test_a_list_with_one_bad_order_is_refused_whole(api: Api, aws: Aws) -> None:
    message = refused(
        api.post("/orders", [ORDER, {"customerID": "c", "item": "x", "quantity": 0}]), 400, "InvalidRequest"
    )
    assert message == "orders[1].quantity: must be a whole number from 1 to 10,000"
    assert aws.queued() == []


def test_all_problems_of_a_request_are_named_at_once(api: Api) -> None:
    body = [
        {"customerID": "", "item": 5, "quantity": "2", "price": 1},
        "order",
        {"orderID": "a/b", "customerID": "c", "items": [{"item": "x"}, {"quantity": True}, []], "note": None},
    ]
    message = refused(api.post("/orders", body), 400, "InvalidRequest")
    assert message.split("; ") == [
        'orders[0]."price": is not a field of an order',
        "orders[0].customerID: must have 1 to 64 characters, and has 0",
        "orders[0].quantity: must be a whole number from 1 to 10,000",
        "orders[0].item: must be a text",
        "orders[1]: must be an object with customerID and item or items",
        "orders[2].orderID: must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -",
        "orders[2].items[1].quantity: must be a whole number from 1 to 10,000",
        "orders[2].items[1].item: is missing",
        "orders[2].items[2]: must be an object with item and quantity",
        "orders[2].note: must be a text",
    ]


@pytest.mark.parametrize("body", [b"", b"null", b"5", b'"order"', b"true"])
def test_a_body_that_is_no_order_is_refused(api: Api, body: bytes) -> None:
    assert refused(api.post("/orders", body), 400, "InvalidRequest").startswith("body: must be an object")


def test_an_empty_list_and_101_orders_are_refused(api: Api) -> None:
    for count in (0, 101):
        message = refused(api.post("/orders", [ORDER] * count), 400, "InvalidRequest")
        assert message == f"orders: must be 1 to 100, and these are {count}"


def test_a_hundred_orders_are_taken_at_once(api: Api, aws: Aws) -> None:
    response = api.post("/orders", [{**ORDER, "orderID": f"o-{number}"} for number in range(100)])
    assert response.status_code == 202
    assert [each["orderID"] for each in response.json_body["orders"]] == [f"o-{number}" for number in range(100)]
    assert {message["orderID"] for message in aws.queued()} == {f"o-{number}" for number in range(100)}


def test_an_order_twice_in_a_list_is_one_order(api: Api, aws: Aws) -> None:
    response = api.post("/orders", [ORDER, ORDER])
    assert [each["orderID"] for each in response.json_body["orders"]] == ["o-1", "o-1"]
    assert len(aws.queued()) == 1


def test_an_id_twice_in_a_list_with_other_content_is_a_conflict(api: Api) -> None:
    message = refused(api.post("/orders", [ORDER, {**ORDER, "quantity": 3}]), 409, "Conflict")
    assert message == "orders[1].orderID: is that of orders[0], which has other content"


def test_the_same_orders_under_the_same_key_are_the_same_orders(api: Api, aws: Aws) -> None:
    for given in ({"customerID": "c", "item": "Mocha"}, [{"customerID": "c", "item": "Mocha"}] * 3):
        key = f"key-{len(given)}-{type(given).__name__}"
        answers = [api.post("/orders", given, idempotency_key=key).json_body for _ in range(3)]
        assert answers[1:] == answers[:1] * 2
        assert len({each["orderID"] for each in aws.queued()}) == (3 if isinstance(given, list) else 1)


@pytest.mark.parametrize(
    "other",
    [
        {"customerID": "c", "item": "Tea"},
        {"customerID": "c", "item": "Mocha", "orderID": "o-1"},
        [{"customerID": "c", "item": "Mocha"}],
        [],
    ],
    ids=["content", "id", "list", "nothing"],
)
def test_other_orders_under_the_same_key_are_a_conflict_or_refused_and_not_queued(
    api: Api, aws: Aws, other: Any
) -> None:
    api.post("/orders", {"customerID": "c", "item": "Mocha"}, idempotency_key="monday")
    assert len(aws.queued()) == 1
    answer = api.post("/orders", other, idempotency_key="monday")
    if other:
        assert refused(answer, 409, "Conflict").startswith("Idempotency-Key: monday was used for another request")
    else:
        assert answer.status_code == 400
    assert not aws.queued()


def test_orders_that_were_refused_leave_their_key_free(api: Api, aws: Aws) -> None:
    assert api.post("/orders", {"customerID": "c"}, idempotency_key="monday").status_code == 400
    assert api.post("/orders", {"customerID": "c", "item": "Mocha"}, idempotency_key="monday").status_code == 202


def test_an_order_that_is_stored_already_is_accepted_again_and_not_queued(api: Api, aws: Aws) -> None:
    place(api, aws, ORDER)
    response = api.post("/orders", ORDER)
    assert (response.status_code, response.json_body["status"]) == (202, "QUEUED")
    assert aws.queued() == []


def test_an_order_that_is_stored_with_other_content_is_a_conflict(api: Api, aws: Aws) -> None:
    place(api, aws, ORDER)
    changed = [{**ORDER, "orderID": "o-2"}, {**ORDER, "quantity": 3}]
    message = refused(api.post("/orders", changed), 409, "Conflict")
    assert message == "orderID: o-1 is stored already with other content, and stays as it is"
    assert aws.queued() == []
    assert api.get("/orders/o-1").json_body["items"] == [{"item": "Lima", "quantity": 2}]


def test_orders_that_the_queue_refuses_are_named_in_a_503(api: Api, aws: Aws) -> None:
    orders = [{**ORDER, "orderID": f"o-{number}"} for number in range(3)]
    failed = [{"Id": "1", "SenderFault": False, "Code": "InternalError"}]
    taken = [{"Id": each, "MessageId": each, "MD5OfMessageBody": "x"} for each in ("0", "2")]
    with Stubber(aws.sqs) as sqs:
        sqs.add_response("send_message_batch", {"Successful": taken, "Failed": failed})
        message = refused(api.post("/orders", orders), 503, "Unavailable")
    assert message.startswith("1 of 3 orders could not be queued: orders[1] as o-1. The others are accepted.")


def test_a_queue_that_does_not_answer_is_a_503(api: Api, aws: Aws) -> None:
    with Stubber(aws.sqs) as sqs:
        sqs.add_client_error("send_message_batch", "ThrottlingException", http_status_code=400)
        message = refused(api.post("/orders", ORDER), 503, "Unavailable")
    assert "try again" in message


# --- GET /orders ------------------------------------------------------------------------------------------------------


def test_a_stored_order_is_shown(api: Api, aws: Aws) -> None:
    items = [{"item": "Lima", "quantity": 1}, {"item": "Nariño ☕", "quantity": 10_000}]
    place(api, aws, {"orderID": "o-1", "customerID": "c-1", "items": items, "note": "two\nlines"})
    shown = api.get("/orders/o-1")
    assert shown.status_code == 200
    assert TIMESTAMP.fullmatch(shown.json_body["placedAt"])
    assert shown.json_body == {
        "orderID": "o-1",
        "customerID": "c-1",
        "items": items,
        "note": "two\nlines",
        "status": "PLACED",
        "placedAt": shown.json_body["placedAt"],
        "requestedBy": "mia",
    }


def test_an_order_keeps_the_name_of_whoever_sent_it_first(api: Api, aws: Aws) -> None:
    """The same order of another person is the same order, by its id and by its key."""
    for sender in (api.sent_by("ana", "staff"), api):
        assert sender.post("/orders", ORDER).status_code == 202
        assert sender.post("/orders", {"customerID": "c", "item": "x"}, idempotency_key="lunch").status_code == 202
    api.client.lambda_.invoke("store_orders", sqs_event(aws.queued()))
    assert {each["requestedBy"] for each in api.get("/orders").json_body["orders"]} == {"ana"}
    # And where it is stored by then.
    assert api.post("/orders", ORDER).status_code == 202
    assert aws.queued() == []


def test_an_order_takes_no_name_from_the_body(api: Api, aws: Aws) -> None:
    message = refused(api.post("/orders", {**ORDER, "requestedBy": "eve"}), 400, "InvalidRequest")
    assert message == '"requestedBy": is not a field of an order'


@pytest.mark.parametrize("order_id", ["none", "a%2Fb", "a" * 65, "%00", "é", "o'; drop"])
def test_an_order_that_is_not_there_is_a_404(api: Api, aws: Aws, order_id: str) -> None:
    message = refused(api.get(f"/orders/{order_id}"), 404, "NotFound")
    assert message.startswith("there is no order ")


def test_orders_are_listed_newest_first_by_pages(api: Api, aws: Aws) -> None:
    for number in range(5):
        place(api, aws, {**ORDER, "orderID": f"o-{number}", "customerID": f"c-{number % 2}"})
    assert pages(api, "/orders?limit=2", "orders", "orderID") == [["o-4", "o-3"], ["o-2", "o-1"], ["o-0"]]
    assert pages(api, "/orders?customerID=c-0&limit=2", "orders", "orderID") == [["o-4", "o-2"], ["o-0"]]
    assert api.get("/orders?customerID=none").json_body == {"orders": [], "next": None}
    assert api.get("/orders").json_body["orders"][0] == api.get("/orders/o-4").json_body


@pytest.mark.parametrize("customer", ["", "c" * 65])
def test_a_customer_of_no_possible_id_is_refused(api: Api, customer: str) -> None:
    message = refused(api.get(f"/orders?customerID={customer}"), 400, "InvalidRequest")
    assert message == "customerID: must have 1 to 64 characters"


# --- GET /notifications -----------------------------------------------------------------------------------------------


def test_notifications_are_listed_newest_first_by_pages(api: Api, aws: Aws) -> None:
    moment = app.now()
    for number in range(3):
        event = api.client.events.generate_sns_event(f"text {number}", f"subject {number}", {})
        event["Records"][0]["Sns"]["MessageId"] = f"m-{number}"
        event["Records"][0]["Sns"]["Timestamp"] = (moment + timedelta(seconds=number)).isoformat()
        api.client.lambda_.invoke("record_notification", event)
    assert pages(api, "/notifications?limit=2", "notifications", "messageId") == [["m-2", "m-1"], ["m-0"]]
    newest = api.get("/notifications").json_body["notifications"][0]
    assert TIMESTAMP.fullmatch(newest["sentAt"])
    assert newest == {
        "messageId": "m-2",
        "kind": "other",
        "subject": "subject 2",
        "message": "text 2",
        "facts": {},
        "sentAt": newest["sentAt"],
    }


def test_notifications_of_one_kind_are_listed_alone_by_pages(api: Api, aws: Aws) -> None:
    kinds = ["upload", "order", "upload", "alarm", "upload", "a stranger's"]
    for number, kind in enumerate(kinds):
        attributes = {"kind": {"Type": "String", "Value": kind}}
        event = api.client.events.generate_sns_event(f"text {number}", "subject", attributes)
        event["Records"][0]["Sns"]["MessageId"] = f"m-{number}"
        event["Records"][0]["Sns"]["Timestamp"] = (app.now() + timedelta(seconds=number)).isoformat()
        api.client.lambda_.invoke("record_notification", event)
    assert pages(api, "/notifications?kind=upload&limit=2", "notifications", "messageId") == [["m-4", "m-2"], ["m-0"]]
    for kind, found in (("order", ["m-1"]), ("alarm", ["m-3"]), ("other", ["m-5"]), ("storage", [])):
        assert pages(api, f"/notifications?kind={kind}", "notifications", "messageId") == [found]


@pytest.mark.parametrize("kind", ["", "coffee", "Upload", "upload,order"])
def test_notifications_of_an_unknown_kind_are_refused(api: Api, kind: str) -> None:
    message = refused(api.get(f"/notifications?kind={kind}"), 400, "InvalidRequest")
    assert message == "kind: must be one of report, order, upload, storage, alarm, other"


# --- The parameters of every list -------------------------------------------------------------------------------------

LISTS = ["/reports", "/orders", "/notifications"]


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("limit", ["0", "101", "-1", "1.5", "ten", "", "%20", "1e1", "٣", "²", "9" * 5000])
def test_a_limit_that_is_not_1_to_100_is_refused(api: Api, path: str, limit: str) -> None:
    message = refused(api.get(f"{path}?limit={limit}"), 400, "InvalidRequest")
    assert message == "limit: must be a whole number from 1 to 100"


@pytest.mark.parametrize("path", LISTS)
def test_limits_of_1_and_100_are_taken(api: Api, aws: Aws, path: str) -> None:
    for limit in ("1", "100", "007"):
        assert api.get(f"{path}?limit={limit}").json_body == {path[1:]: [], "next": None}


@pytest.mark.parametrize("path", LISTS)
def test_every_wrong_parameter_is_named(api: Api, path: str) -> None:
    message = refused(api.get(f"{path}?limit=x&page=2&next=a&next=b"), 400, "InvalidRequest")
    assert "page: is not a parameter of this route, which takes limit, next" in message
    assert "next: is there 2 times" in message
    assert "limit: must be" in message


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize(
    "token",
    ["", "x", "AAAA", "é", "%00", "W10", "bnVsbA", "WyJvcmRlcnMiLCIyMDI2Il0", "W" * 9000, "W1tb" * 5000],
)
def test_a_next_that_is_not_ours_is_refused(api: Api, path: str, token: str) -> None:
    message = refused(api.get(f"{path}?next={token}"), 400, "InvalidRequest")
    assert message.startswith("next: is not the `next` of an earlier page of this very list")


def test_the_next_of_another_list_is_refused(api: Api, aws: Aws) -> None:
    for number in range(3):
        started(api)
        place(api, aws, {**ORDER, "orderID": f"o-{number}"})
    lists = ["/reports", "/orders"]
    tokens = {path: api.get(f"{path}?limit=1").json_body["next"] for path in lists}
    assert all(tokens.values())
    others = [(mine, path) for mine in lists for path in [*lists, "/notifications"] if mine != path]
    for mine, path in others:
        refused(api.get(f"{path}?next={tokens[mine]}"), 400, "InvalidRequest")


def test_a_next_goes_on_from_its_moment_whatever_the_filter_is(api: Api, aws: Aws) -> None:
    for number, customer in enumerate(("c-1", "c-2", "c-1", "c-2")):
        place(api, aws, {**ORDER, "orderID": f"o-{number}", "customerID": customer})
    token = api.get("/orders?limit=2").json_body["next"]
    (left,) = api.get(f"/orders?customerID=c-2&next={token}").json_body["orders"]
    assert left["orderID"] == "o-1"


def test_reports_of_an_unknown_kind_are_refused(api: Api) -> None:
    message = refused(api.get("/reports?kind=coffee"), 400, "InvalidRequest")
    assert message == "kind: must be one of inventory, storage"


# --- Bodies that are none ---------------------------------------------------------------------------------------------

POSTS = ["/orders", "/create_report"]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"{", "body: is not JSON: Expecting property name enclosed in double quotes at line 1, column 2"),
        (b'{"a": 1,\n"b"}', "at line 2, column 4"),
        (b"{'a': 1}", "body: is not JSON"),
        (b'{"a": 1} {}', "body: is not JSON: Extra data at line 1, column 10"),
        (b'{"quantity": NaN}', "body: is not JSON: NaN is no JSON number"),
        (b'{"quantity": -Infinity}', "body: is not JSON: -Infinity is no JSON number"),
        (b'{"quantity": %s}' % (b"9" * 5000), "body: has a number with too many digits"),
        (b'{"note": "a\nb"}', "body: is not JSON: Invalid control character"),
        (b'{"note": "\xff"}', "body: is not UTF-8 at byte 10"),
        (b"\x00", "body: is not"),
        # It is nested too deeply as well, and which of the two is said depends on Python's version.
        (b"[" * 5000, "body: i"),
        (b"[" * 5000 + b"]" * 5000, "body: its brackets are nested too deeply"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "body: its brackets are nested too deeply"),
        (b"customerID=c&item=x", "body: is not JSON"),
    ],
    ids=lambda value: value[:24] if isinstance(value, bytes) else "",
)
def test_a_body_that_is_no_json_is_refused_saying_where(api: Api, path: str, body: bytes, problem: str) -> None:
    assert problem in refused(api.post(path, body), 400, "InvalidRequest")


@pytest.mark.parametrize("path", POSTS)
def test_a_body_over_1_mb_is_a_413(api: Api, path: str) -> None:
    message = refused(api.post(path, b" " * 1_000_001), 413, "BodyTooLarge")
    assert message.startswith("the body has 1,000,001 bytes, and at most 1,000,000 are taken")


def test_a_body_of_just_1_mb_is_read(api: Api) -> None:
    assert api.post("/orders", b"{}".ljust(1_000_000)).status_code == 400


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""])
def test_another_content_type_is_a_415(api: Api, path: str, content_type: str) -> None:
    headers = {**api.headers, "content-type": content_type}
    message = refused(api.client.http.post(path, headers=headers, body=b"{}"), 415, "UnsupportedMediaType")
    assert content_type in message


def test_json_in_utf8_said_so_is_taken(api: Api, aws: Aws) -> None:
    headers = {**api.headers, "content-type": "application/json; charset=utf-8"}
    assert api.client.http.post("/create_report", headers=headers, body=b"{}").status_code == 202


def test_a_lone_surrogate_is_named_with_its_place(api: Api) -> None:
    for note in (b'"ab\\ud800"', b'"ab\xed\xa0\x80"'):
        body = b'{"customerID": "c", "item": "x", "note": %s}' % note
        message = refused(api.post("/orders", body), 400, "InvalidRequest")
        assert message == "note: has U+D800, which is no text, at position 2"


# --- What the gateway refuses, and the API itself ---------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/orders/a/b", "/reports/a/b", "/none", "/Orders"])
def test_an_unknown_path_has_the_gateways_shape(api: Api, path: str) -> None:
    response = api.with_token(None).get(path)
    assert (response.status_code, response.json_body) == (403, {"message": "Missing Authentication Token"})


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/create_report"), ("DELETE", "/orders/o-1"), ("PUT", "/reports")]
)
def test_another_method_is_a_405(api: Api, method: str, path: str) -> None:
    refused(api.client.http.request(method, path), 405, "MethodNotAllowedError")


def test_health_says_the_stage_and_the_version(api: Api) -> None:
    response = api.get("/health")
    assert response.status_code == 200
    assert response.json_body == {"status": "ok", "stage": "test", "version": VERSION}


def test_the_version_is_that_of_the_project(api: Api) -> None:
    assert f'\nversion = "{VERSION}"\n' in (ROOT / "pyproject.toml").read_text()


def test_the_openapi_description_describes_these_routes(api: Api) -> None:
    response = api.get("/openapi.json")
    assert response.headers["Content-Type"] == "application/json"
    assert response.json_body["openapi"].startswith("3.")
    described = {(path, method.upper()) for path, item in response.json_body["paths"].items() for method in item}
    routes = {(path, method) for path, methods in app.app.routes.items() for method in methods}
    assert {(unnamed(path), method) for path, method in described} == {
        (unnamed(path), method) for path, method in routes
    }


def unnamed(path: str) -> str:
    """Chalice's parameters are Python names, and the description's are those of the interface."""
    return re.sub(r"{\w+}", "{}", path)
