"""One id from the request to the notification, hop by hop, and on the way back of what failed."""

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import correlation, dead_letters
from chalicelib.notifications import Notification, publisher
from chalicelib.orders import Item, Order
from chalicelib.orders.announce import announced_part
from chalicelib.orders.store import stored_item
from tests.unit.conftest import ENVIRONMENT, Api, Aws
from tests.unit.ordering import PLACED_AT, message, messages, order, store
from tests.unit.test_dead_letters import DEAD, FAILURES, ORDER, PLACES, envelope, invocation, s3_event, stream_record
from tests.unit.test_dead_letters import message as letter
from tests.unit.test_logs import records
from tests.unit.test_notifications import record, sent
from tests.unit.test_uploads import event as upload_event

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=90),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def told(lines: io.StringIO, text: str) -> list[dict[str, Any]]:
    """The log records with this message."""
    return [each for each in records(lines) if each["message"] == text]


def attribute(correlation_id: str) -> dict[str, Any]:
    """Of a message as Lambda hands it over."""
    return {"correlationId": {"stringValue": correlation_id, "dataType": "String"}}


def event_of(*pairs: tuple[Order | str, str]) -> dict[str, Any]:
    """An SQS event of bodies, each with the id of the request that brought it."""
    event = messages(*(body for body, _ in pairs))
    for each, (_, correlation_id) in zip(event["Records"], pairs, strict=True):
        each["messageAttributes"] = attribute(correlation_id)
    return event


# --- The request ------------------------------------------------------------------------------------------------------


def test_an_answer_has_the_clients_own_id(api: Api) -> None:
    assert api.get("/health", **{"X-Request-Id": "monday-1"}).headers["X-Request-Id"] == "monday-1"


def test_without_one_of_the_clients_each_request_has_an_id_of_its_own(api: Api) -> None:
    ids = [api.get("/health").headers["X-Request-Id"] for _ in range(2)]
    assert all(map(correlation.valid, ids))
    assert ids[0] != ids[1]


@pytest.mark.parametrize("given", ["", "a" * 81, "two words", "a\u00e9", "a/b", "<a>", "a,b", "a\n", '{"a": 1}'])
def test_a_malformed_id_is_no_error_and_is_not_taken(api: Api, given: str) -> None:
    answer = api.get("/health", **{"X-Request-Id": given})
    assert answer.status_code == 200
    assert correlation.valid(answer.headers["X-Request-Id"])
    assert answer.headers["X-Request-Id"] != given


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/orders", b"{", 400),
        ("POST", "/orders", b"x" * 1_000_001, 413),
        ("GET", "/orders/none", b"", 404),
        ("GET", "/reports?limit=0", b"", 400),
        ("POST", "/orders", b"<order/>", 415),
    ],
)
def test_an_error_has_the_id_too_and_a_record_that_tells_its_status(
    api: Api, aws: Aws, log_lines: io.StringIO, method: str, path: str, body: bytes, status: int
) -> None:
    kind = {"content-type": "text/xml"} if status == 415 else {}
    call = (lambda **headers: api.post(path, body, **headers)) if method == "POST" else (lambda **_: api.get(path, **_))
    answer = call(**kind, **{"X-Request-Id": "r-1"})
    assert (answer.status_code, answer.headers["X-Request-Id"]) == (status, "r-1")
    [answered] = told(log_lines, "request answered")
    assert (answered["correlationId"], answered["status"]) == ("r-1", status)
    assert answered["route"].startswith(f"{method} /")


def test_an_unforeseen_error_has_the_id_too(api: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chalicelib.orders.get", lambda *_, **__: 1 / 0)
    answer = api.get("/orders/o-1", **{"X-Request-Id": "r-1"})
    assert (answer.status_code, answer.headers["X-Request-Id"]) == (500, "r-1")


def test_behind_api_gateway_it_is_the_gateways_own_id() -> None:
    import app

    event = {
        "requestContext": {"httpMethod": "GET", "resourcePath": "/health", "requestId": "c6af9ac6-7b61-11e6-9a41"},
        "headers": {"Host": "api.example"},
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "body": None,
        "isBase64Encoded": False,
    }
    assert app.app(event, None)["headers"]["X-Request-Id"] == "c6af9ac6-7b61-11e6-9a41"


def test_no_record_after_the_request_has_its_id(api: Api, log_lines: io.StringIO) -> None:
    api.get("/health", **{"X-Request-Id": "r-1"})
    assert correlation.current() is None


# --- An order ---------------------------------------------------------------------------------------------------------


def test_an_order_goes_from_the_request_to_the_inbox_with_the_id(api: Api, aws: Aws, log_lines: io.StringIO) -> None:
    """Each function gets what the one before has left, as AWS hands it over."""
    api.post("/orders", {"orderID": "o-1", "customerID": "c-1", "item": "Lima"}, **{"X-Request-Id": "r-1"})
    [queued] = aws.sqs.receive_message(QueueUrl=ENVIRONMENT["ORDERS_QUEUE_URL"], MessageAttributeNames=["All"])[
        "Messages"
    ]
    assert queued["MessageAttributes"]["correlationId"]["StringValue"] == "r-1"
    received = message(queued["Body"]) | {"messageAttributes": attribute("r-1")}
    api.client.lambda_.invoke("store_orders", {"Records": [received]})
    image = aws.stored()["o-1"]
    assert image["correlationId"] == {"S": "r-1"}
    change = {"eventID": "e-1", "eventName": "INSERT", "eventSourceARN": ENVIRONMENT["ORDERS_STREAM_ARN"]}
    change["dynamodb"] = {"Keys": {"orderID": {"S": "o-1"}}, "NewImage": image, "SequenceNumber": "1"}
    api.client.lambda_.invoke("announce_orders", {"Records": [change]})
    [published] = aws.published()
    given = published["MessageAttributes"]["correlationIds"]
    assert given == {"Type": "String.Array", "Value": '["r-1"]'}
    api.client.lambda_.invoke("record_notification", {"Records": [sent(MessageAttributes={"correlationIds": given})]})
    assert aws.kept()[0]["correlationIds"] == {"L": [{"S": "r-1"}]}
    logged = {each["message"]: each.get("correlationId") or each.get("correlationIds") for each in records(log_lines)}
    assert logged == {
        "order queued": "r-1",
        "request answered": "r-1",
        # The last one is of many orders' figures.
        "metrics": None,
        "order stored": "r-1",
        "notification published": ["r-1"],
        "order announced": "r-1",
        "notification kept": ["r-1"],
    }


def test_the_id_is_no_part_of_what_an_order_is() -> None:
    one, other = (Order("o-1", "c-1", (Item("Lima", 1),), None, PLACED_AT, None, each) for each in ("r-1", "r-2"))
    assert one == other
    assert one.digest() == other.digest()
    assert one.to_json() == other.to_json()


def test_the_same_order_from_another_request_is_stored_already_and_keeps_the_first_id(
    aws: Aws, log_lines: io.StringIO
) -> None:
    for correlation_id in ("r-1", "r-2"):
        assert store(aws, event_of((order(), correlation_id))) == []
    assert aws.stored()["o-1"]["correlationId"] == {"S": "r-1"}
    assert [each["correlationId"] for each in told(log_lines, "order stored already")] == ["r-2"]


def test_each_record_of_a_batch_names_its_own_orders_id(aws: Aws, log_lines: io.StringIO) -> None:
    store(aws, event_of((order("o-1"), "r-1"), ("no order", "r-2"), (order("o-3"), "r-3")))
    stored = {each["orderID"]: each["correlationId"] for each in told(log_lines, "order stored")}
    assert stored == {"o-1": "r-1", "o-3": "r-3"}
    assert [each["correlationId"] for each in told(log_lines, "message refused")] == ["r-2"]


@pytest.mark.parametrize("body", ["", "{", "[]", '{"correlationId": "forged"}', "\u2028", "9" * 5_000])
def test_a_bad_body_has_the_id_of_its_message_all_the_same(aws: Aws, log_lines: io.StringIO, body: str) -> None:
    store(aws, event_of((body, "r-1")))
    assert [each["correlationId"] for each in told(log_lines, "message refused")] == ["r-1"]


@pytest.mark.parametrize("given", ["two words", "", "a" * 81, "\x00"])
def test_a_malformed_id_in_the_queue_is_left_out_and_the_order_is_stored(aws: Aws, given: str) -> None:
    assert store(aws, event_of((order(), given))) == []
    assert "correlationId" not in aws.stored()["o-1"]


def test_a_conflict_is_told_with_the_ids_of_those_that_were_refused(aws: Aws) -> None:
    store(aws, event_of((order(), "r-1")))
    published: list[Notification] = []
    store(aws, event_of((order(quantity=2), "r-2"), (order(quantity=3), "r-3")), published.append)
    assert published[0].correlation_ids == ("r-2", "r-3")


def test_one_notification_of_many_orders_has_a_hundred_ids_each_once(aws: Aws) -> None:
    ids = tuple(f"{'a' * 77}{number:03}" for number in range(101))
    calls = aws.calls(aws.sns, "Publish")
    publisher(aws.sns, ENVIRONMENT["TOPIC_ARN"])(Notification("order", "k", "s", "x" * 300_000, "s", ids[:1] + ids))
    [call] = calls
    assert json.loads(call["MessageAttributes"]["correlationIds"]["StringValue"]) == list(ids[:100])
    # What SNS takes in all.
    assert len(json.dumps(call).encode()) < 262_144


def test_an_item_without_an_id_has_no_such_attribute() -> None:
    assert "correlationId" not in stored_item(order())


# --- A report, an upload, a notification ------------------------------------------------------------------------------


def test_a_report_is_started_with_the_id_of_its_request(api: Api, aws: Aws, log_lines: io.StringIO) -> None:
    report_id = api.post("/create_report", **{"X-Request-Id": "r-1"}).json_body["reportId"]
    assert json.loads(aws.execution(report_id).execution_input)["correlationId"] == "r-1"
    [started] = told(log_lines, "report started")
    assert (started["correlationId"], started["reportId"]) == ("r-1", report_id)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"correlationId": "r-1"}, "r-1"),
        ({"correlationId": "two words"}, "inventory-1"),
        ({"correlationId": 7}, "inventory-1"),
        ({}, "inventory-1"),
        (["r-1"], "inventory-1"),
        (None, "inventory-1"),
    ],
)
def test_a_state_machines_function_logs_the_id_of_the_request_or_the_name_of_the_execution(
    api: Api, aws: Aws, log_lines: io.StringIO, request_: Any, expected: str
) -> None:
    api.client.lambda_.invoke("presign_report", {"reportId": "inventory-1", "request": request_})
    [made] = told(log_lines, "link made")
    assert made["correlationId"] == expected


def test_an_upload_has_the_id_of_the_request_that_put_it_there(api: Api, aws: Aws, log_lines: io.StringIO) -> None:
    first, second = upload_event("a.txt"), upload_event("b.txt")
    first["responseElements"] = {"x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "FMyUVURIY8"}
    api.client.lambda_.invoke("receive_upload", {"Records": [first, second]})
    assert [each.get("correlationId") for each in told(log_lines, "upload received")] == ["C3D13FE58DE4C810", None]
    attributes = [each["MessageAttributes"].get("correlationIds", {}).get("Value") for each in aws.published()]
    assert attributes == ['["C3D13FE58DE4C810"]', None]


@pytest.mark.parametrize("given", ["", "r-1", "{}", "[1, null, [], {}]", "[" * 5_000, "NaN", '["two words"]'])
def test_a_strangers_list_of_ids_breaks_nothing(aws: Aws, given: str) -> None:
    record(aws, sent(MessageAttributes={"correlationIds": {"Type": "String", "Value": given}}))
    assert aws.kept()[0]["correlationIds"] == {"L": []}


@given(ANYTHING)
def test_whatever_is_there_in_the_place_of_an_id_is_an_id_or_none(anything: Any) -> None:
    found = [
        correlation.valid(anything),
        correlation.of_sqs({"messageAttributes": anything}),
        correlation.of_sqs({"messageAttributes": {"correlationId": anything}}),
        correlation.of_order(anything),
        correlation.of_order({"dynamodb": {"NewImage": {"correlationId": anything}}}),
        correlation.of_upload(anything),
        correlation.of_upload({"responseElements": {"x-amz-request-id": anything}}),
        *correlation.of_sns(anything),
        *correlation.of_sns({"MessageAttributes": {"correlationIds": {"Value": json.dumps(anything)}}}),
    ]
    assert all(each is None or correlation.ID.fullmatch(each) for each in found)


# --- Dead letters, and back -------------------------------------------------------------------------------------------


def test_a_dead_message_keeps_its_id(aws: Aws) -> None:
    dead = message("no order", received=5) | {"messageAttributes": attribute("r-1")}
    store(aws, {"Records": [dead]})
    [found] = aws.sqs.receive_message(QueueUrl=DEAD, MessageAttributeNames=["All"])["Messages"]
    assert correlation.of_sqs(found) == "r-1"


def test_an_order_that_is_put_back_keeps_its_id(api: Api, aws: Aws, log_lines: io.StringIO) -> None:
    given = correlation.sqs_attribute("r-1")
    aws.sqs.send_message(QueueUrl=DEAD, MessageBody=ORDER, MessageAttributes=given)
    aws.sqs.send_message(QueueUrl=DEAD, MessageBody=ORDER)
    answer = api.post("/dead-letters/redrive", **{"X-Request-Id": "redrive-1"})
    assert answer.json_body["redriven"] == 2
    back = aws.sqs.receive_message(
        QueueUrl=ENVIRONMENT["ORDERS_QUEUE_URL"], MessageAttributeNames=["All"], MaxNumberOfMessages=10
    )["Messages"]
    assert {correlation.of_sqs(each) for each in back} == {"r-1", None}
    put_back = told(log_lines, "dead letter put back")
    assert sorted(map(str, ([*each["correlationIds"], each["correlationId"]] for each in put_back))) == [
        "['r-1', 'redrive-1']",
        "['redrive-1']",
    ]


def test_each_kind_of_letter_has_the_ids_of_what_it_is_about() -> None:
    uploaded, changed = s3_event("a.csv"), stream_record()
    uploaded["Records"][0]["responseElements"] = {"x-amz-request-id": "C3D13FE58DE4C810"}
    changed["dynamodb"]["NewImage"]["correlationId"] = {"S": "r-1"}
    ids = {"correlationIds": {"Type": "String.Array", "Value": '["r-1", "r-2"]'}}
    for content, expected in (
        (invocation("receive_upload", uploaded), ("C3D13FE58DE4C810",)),
        # As announce_orders puts it by.
        (invocation("announce_orders", {"Records": [announced_part(changed)]}), ("r-1",)),
        (invocation("record_notification", {"Records": [sent(MessageAttributes=ids)]}), ("r-1", "r-2")),
        (envelope(MessageAttributes=ids), ("r-1", "r-2")),
    ):
        assert dead_letters.read(letter(content), FAILURES, PLACES).correlation_ids == expected


def test_what_sns_could_not_hand_over_is_published_again_with_its_ids(api: Api, aws: Aws) -> None:
    ids = {"correlationIds": {"Type": "String.Array", "Value": '["r-1", "r-2"]'}}
    aws.sqs.send_message(QueueUrl=FAILURES, MessageBody=json.dumps(envelope(MessageAttributes=ids)))
    api.post("/dead-letters/redrive")
    [again] = aws.published()
    assert json.loads(again["MessageAttributes"]["correlationIds"]["Value"]) == ["r-1", "r-2"]
