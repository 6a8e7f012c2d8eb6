"""Tests that the correlation id stays the same from request to notification, even after a redrive."""

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import correlation
from chalicelib.notifications import Notification, publisher
from chalicelib.orders.announce import announced_part
from chalicelib.orders.order import Order
from tests.unit.api import Api, app, gateway_event
from tests.unit.cloud import ENVIRONMENT, Aws
from tests.unit.letters import DEAD, FAILURES, ORDER, envelope, invocation, read, s3_event, stream_record
from tests.unit.letters import message as letter
from tests.unit.logged import records
from tests.unit.notices import attributes, sent
from tests.unit.ordering import QUEUE_URL, message, messages, order, store

REQUEST = {"X-Request-Id": "r-1"}
IDS = attributes(correlationIds='["r-1", "r-2"]')
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=90),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def ids(lines: io.StringIO, text: str) -> list[str | None]:
    """Returns the correlation ids of the log records with this message."""
    return [each.get("correlationId") for each in records(lines, text)]


def attribute(correlation_id: str) -> dict[str, Any]:
    """Returns message attributes with this correlation id, as Lambda receives them."""
    return {"correlationId": {"stringValue": correlation_id, "dataType": "String"}}


def event_of(*pairs: tuple[Order | str, str]) -> dict[str, Any]:
    """Returns an SQS event whose messages have these bodies and request ids."""
    event = messages(*(body for body, _ in pairs))
    for each, (_, correlation_id) in zip(event["Records"], pairs, strict=True):
        each["messageAttributes"] = attribute(correlation_id)
    return event


def test_a_response_has_the_clients_id_or_a_new_id_and_no_later_record_has_it(api: Api) -> None:
    assert api.get("/health", **REQUEST).headers["X-Request-Id"] == "r-1"
    assert correlation.current() is None
    new = [api.get("/health").headers["X-Request-Id"] for _ in range(2)]
    assert all(map(correlation.valid, new))
    assert new[0] != new[1]


@pytest.mark.parametrize("given", ["", "a" * 81, "two words", "a\u00e9", "a/b", "<a>", "a,b", "a\n", '{"a": 1}'])
def test_a_malformed_id_is_not_an_error_and_is_replaced(api: Api, given: str) -> None:
    answer = api.get("/health", **{"X-Request-Id": given})
    assert answer.status_code == 200
    assert correlation.valid(answer.headers["X-Request-Id"])
    assert answer.headers["X-Request-Id"] != given


@pytest.mark.parametrize(
    ("path", "status"), [("/orders/none", 404), ("/reports?limit=0", 400), ("/orders/broken", 500)]
)
def test_an_error_has_the_id_and_a_record_with_its_status(
    api: Api, aws: Aws, log_lines: io.StringIO, monkeypatch: pytest.MonkeyPatch, path: str, status: int
) -> None:
    if status == 500:
        monkeypatch.setattr("chalicelib.orders.listing.get", lambda *_, **__: 1 / 0)
    answer = api.get(path, **REQUEST)
    assert (answer.status_code, answer.headers["X-Request-Id"]) == (status, "r-1")
    if status < 500:
        [answered] = records(log_lines, "request answered")
        assert (answered["correlationId"], answered["status"]) == ("r-1", status)
        assert answered["route"].startswith("GET /")


def test_behind_api_gateway_a_new_id_is_the_gateways_request_id() -> None:
    event = gateway_event(resource="/health", context={"requestId": "c6af9ac6-7b61-11e6-9a41"})
    assert app.app(event, None)["headers"]["X-Request-Id"] == "c6af9ac6-7b61-11e6-9a41"


def test_an_order_that_comes_from_two_requests_keeps_the_first_id(aws: Aws, log_lines: io.StringIO) -> None:
    for correlation_id in ("r-1", "r-2"):
        assert store(aws, event_of((order(), correlation_id))) == []
    assert aws.stored()["o-1"]["correlationId"] == {"S": "r-1"}
    assert ids(log_lines, "order stored already") == ["r-2"]


def test_each_log_record_of_a_batch_has_the_id_of_its_own_message(aws: Aws, log_lines: io.StringIO) -> None:
    bad = ["", "{", "[]", '{"correlationId": "forged"}', "\u2028", "9" * 5_000]
    refused = [(body, f"bad-{number}") for number, body in enumerate(bad)]
    store(aws, event_of((order("o-1"), "r-1"), *refused, (order("o-3"), "r-3")))
    stored = {each["orderID"]: each["correlationId"] for each in records(log_lines, "order stored")}
    assert stored == {"o-1": "r-1", "o-3": "r-3"}
    assert ids(log_lines, "message refused") == [number for _, number in refused]


def test_a_conflict_is_reported_with_the_ids_of_the_refused_orders(aws: Aws) -> None:
    store(aws, event_of((order(), "r-1")))
    published: list[Notification] = []
    store(aws, event_of((order(quantity=2), "r-2"), (order(quantity=3), "r-3")), published.append)
    assert published[0].correlation_ids == ("r-2", "r-3")


def test_a_notification_of_many_orders_has_at_most_a_hundred_ids_each_once(aws: Aws) -> None:
    many = tuple(f"{'a' * 77}{number:03}" for number in range(101))
    calls = aws.calls(aws.sns, "Publish")
    publisher(aws.sns, ENVIRONMENT["TOPIC_ARN"])(Notification("order", "k", "s", "x" * 300_000, "s", many[:1] + many))
    [call] = calls
    assert json.loads(call["MessageAttributes"]["correlationIds"]["StringValue"]) == list(many[:100])
    # SNS accepts requests of at most 256 KB.
    assert len(json.dumps(call).encode()) < 262_144


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"correlationId": "r-1"}, "r-1"),
        *((each, "inventory-1") for each in ({"correlationId": "two words"}, {"correlationId": 7}, {}, ["r-1"], None)),
    ],
)
def test_a_function_logs_the_id_of_the_request_or_the_name_of_the_execution(
    api: Api, aws: Aws, log_lines: io.StringIO, given: Any, expected: str
) -> None:
    api.invoke("presign_report", {"reportId": "inventory-1", "request": given})
    assert ids(log_lines, "link made") == [expected]


def test_an_upload_has_the_id_of_the_request_to_s3(api: Api, aws: Aws, log_lines: io.StringIO) -> None:
    event = {"Records": [api.client.events.generate_s3_event("any", key)["Records"][0] for key in ("a.txt", "b.txt")]}
    event["Records"][0]["responseElements"] = {"x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "FMyUVURIY8"}
    event["Records"][1].pop("responseElements", None)
    api.invoke("receive_upload", event)
    assert ids(log_lines, "upload received") == ["C3D13FE58DE4C810", None]
    found = [each["MessageAttributes"].get("correlationIds", {}).get("Value") for each in aws.published()]
    assert found == ['["C3D13FE58DE4C810"]', None]


@given(ANYTHING)
def test_anything_in_place_of_an_id_becomes_a_valid_id_or_none(anything: Any) -> None:
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


def test_a_redriven_dead_letter_keeps_its_id(api: Api, aws: Aws, log_lines: io.StringIO) -> None:
    # The first dead letter comes from the function store_orders.
    store(aws, {"Records": [message("no order", received=5) | {"messageAttributes": attribute("r-1")}]})
    aws.sqs.send_message(QueueUrl=DEAD, MessageBody=ORDER)
    answer = api.post("/dead-letters/redrive", **{"X-Request-Id": "redrive-1"})
    assert answer.json_body["redriven"] == 2
    assert {correlation.of_sqs(each) for each in aws.receive(QUEUE_URL)} == {"r-1", None}
    put_back = records(log_lines, "dead letter redriven")
    assert {each["correlationId"] for each in put_back} == {"redrive-1"}
    assert sorted(each["correlationIds"] for each in put_back) == [[], ["r-1"]]


def test_each_kind_of_dead_letter_has_the_ids_of_its_content() -> None:
    uploaded, changed = s3_event("a.csv"), stream_record()
    uploaded["Records"][0]["responseElements"] = {"x-amz-request-id": "C3D13FE58DE4C810"}
    changed["dynamodb"]["NewImage"]["correlationId"] = {"S": "r-1"}
    for content, expected in (
        (invocation("receive_upload", uploaded), ("C3D13FE58DE4C810",)),
        (invocation("announce_orders", {"Records": [announced_part(changed)]}), ("r-1",)),
        (invocation("record_notification", {"Records": [sent(MessageAttributes=IDS)]}), ("r-1", "r-2")),
        (envelope(MessageAttributes=IDS), ("r-1", "r-2")),
    ):
        assert read(letter(content), FAILURES).correlation_ids == expected
