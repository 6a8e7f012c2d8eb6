"""Orders into the table: each once, whatever fails, and what cannot be stored among the dead."""

import io
import json
import re
import threading
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError
from botocore.stub import Stubber

from chalicelib import clients
from chalicelib.errors import Unavailable
from chalicelib.notifications import Notification
from chalicelib.orders import Item, Order
from chalicelib.orders import store as storing
from tests.unit.api import Api
from tests.unit.cloud import ENVIRONMENT, Aws
from tests.unit.ordering import PLACED_AT, QUEUE_URL, TABLE, message, messages, order, store


@pytest.fixture
def hastened(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The receipt handles of failed messages, and after how many seconds each comes back."""
    seen: list[tuple[str, int]] = []

    def change(QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        assert QueueUrl == QUEUE_URL
        assert 1 <= len(Entries) <= 10
        seen.extend((each["ReceiptHandle"], each["VisibilityTimeout"]) for each in Entries)
        return {"Successful": [{"Id": each["Id"]} for each in Entries], "Failed": []}

    monkeypatch.setattr(aws.sqs, "change_message_visibility_batch", change)
    return seen


def test_a_batch_is_stored_with_all_that_lists_need(aws: Aws) -> None:
    second = Order("o-2", "c-2", (Item("x", 2), Item("☕", 10_000)), "n", PLACED_AT, "ana")
    assert store(aws, messages(order("o-1"), second)) == []
    stored = aws.stored()
    assert list(stored) == ["o-1", "o-2"]
    assert stored["o-1"]["note"] == {"NULL": True}
    assert stored["o-1"]["requestedBy"] == {"NULL": True}
    period = stored["o-2"].pop("period")["S"]
    assert re.fullmatch(r"2026-11#[0-7]", period)
    assert stored["o-2"] == {
        "orderID": {"S": "o-2"},
        "customerID": {"S": "c-2"},
        "items": {
            "L": [
                {"M": {"item": {"S": "x"}, "quantity": {"N": "2"}}},
                {"M": {"item": {"S": "☕"}, "quantity": {"N": "10000"}}},
            ]
        },
        "note": {"S": "n"},
        "status": {"S": "PLACED"},
        "placedAt": {"S": PLACED_AT},
        "requestedBy": {"S": "ana"},
        "digest": {"S": second.digest()},
        "sortKey": {"S": f"{PLACED_AT}#o-2"},
    }


def test_a_batch_delivered_twice_is_stored_once(aws: Aws) -> None:
    event = messages(order("o-1"), order("o-2"))
    store(aws, event)
    before = aws.stored()
    assert store(aws, event) == []
    assert aws.stored() == before


def test_an_order_twice_in_a_batch_is_stored_once_and_no_conflict(aws: Aws) -> None:
    calls = aws.calls(aws.dynamodb, "BatchExecuteStatement")
    assert store(aws, messages(order(), order())) == []
    assert [len(call["Statements"]) for call in calls] == [1]
    assert list(aws.stored()) == ["o-1"]


def test_a_hundred_orders_are_written_by_25(aws: Aws) -> None:
    calls = aws.calls(aws.dynamodb, "BatchExecuteStatement")
    assert store(aws, messages(*[order(f"o-{number}") for number in range(100)])) == []
    assert [len(call["Statements"]) for call in calls] == [25] * 4
    assert len(aws.stored()) == 100


def test_the_calls_of_a_large_batch_are_under_way_side_by_side_and_eight_at_most(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, most, together = 0, 0, threading.Barrier(storing.WRITERS)

    def write(Statements: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        # It breaks, and the test with it, where not so many come.
        together.wait(timeout=30)
        with lock:
            under_way -= 1
        return {"Responses": [{} for _ in Statements]}

    lock = threading.Lock()
    monkeypatch.setattr(aws.dynamodb, "batch_execute_statement", write)
    orders = [order(f"o-{number}") for number in range(2 * storing.WRITERS * storing.STATEMENTS)]
    assert store(aws, messages(*orders)) == []
    assert most == storing.WRITERS == 8


def test_no_call_of_a_large_batch_begins_that_could_outlast_the_function(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = 100.0
    monkeypatch.setattr(clients.time, "monotonic", lambda: moment)
    event = messages(*[order(f"o-{number}") for number in range(60)])
    with clients.time_limit(30):
        moment += 16
        failed = store(aws, event)
    assert failed == [f"m-{number}" for number in range(1, 61)]
    assert aws.stored() == {}


@pytest.mark.parametrize("batches", [[(1, 2)], [(1,), (2,)]], ids=["in one batch", "in two batches"])
def test_of_two_orders_with_one_id_the_first_stays_and_the_other_is_reported(
    aws: Aws, batches: list[tuple[int, ...]]
) -> None:
    published: list[Notification] = []
    number = 0
    for quantities in batches:
        records = []
        for quantity in quantities:
            number += 1
            records.append(message(order(quantity=quantity).to_json(), number))
        assert store(aws, {"Records": records}, published.append) == []
    assert aws.stored()["o-1"]["items"]["L"][0]["M"]["quantity"] == {"N": "1"}
    (notification,) = published
    assert notification.kind == "order"
    assert notification.subject == "1 order refused: the id is taken"
    assert notification.message.endswith("\n- order o-1 of customer c-1")


def test_a_conflict_that_cannot_be_reported_for_now_comes_back_and_its_neighbours_do_not(aws: Aws) -> None:
    store(aws, messages(order()))

    def publish(_: Notification) -> None:
        raise Unavailable("SNS is away")

    neighbour, conflict = message(order("o-9").to_json(), 1), message(order(quantity=2).to_json(), 2)
    assert store(aws, {"Records": [neighbour, conflict]}, publish) == [conflict["messageId"]]
    assert "o-9" in aws.stored()


def test_a_conflict_delivered_twice_is_reported_under_one_key(aws: Aws) -> None:
    published: list[Notification] = []
    store(aws, messages(order()))
    event = {"Records": [message(order(quantity=2).to_json(), 7)]}
    for _ in range(2):
        assert store(aws, event, published.append) == []
    assert len(published) == 2
    assert len({each.key for each in published}) == 1


POISON = [
    "",
    "{",
    "null",
    "5",
    '"order"',
    "[]",
    "{}",
    "[" * 100_000,
    json.dumps({"orderID": "o", "customerID": "c", "item": "x", "note": None}),
    json.dumps({"orderID": "o", "customerID": "c", "item": "x", "placedAt": PLACED_AT}),
    json.dumps({"orderID": "o", "customerID": "c", "item": "x", "note": None, "placedAt": 5}),
    json.dumps({"orderID": "o", "customerID": "c", "item": "x", "note": None, "placedAt": "yesterday"}),
    json.dumps({"orderID": "o", "customerID": "c", "item": "x", "note": None, "placedAt": "2026-11-21"}),
    json.dumps({"orderID": "o", "customerID": "c", "item": "x", "note": None, "placedAt": "0001-01-01T00:00+23:59"}),
    json.dumps({"customerID": "c", "item": "x", "note": None, "placedAt": PLACED_AT}),
    json.dumps({"orderID": "o", "customerID": "c", "item": "x", "quantity": 0, "note": None, "placedAt": PLACED_AT}),
]


@pytest.mark.parametrize("text", POISON, ids=lambda text: text[:90] or "empty")
def test_a_message_that_is_no_order_is_named_and_its_neighbours_are_stored(
    aws: Aws, hastened: list[tuple[str, int]], log_lines: io.StringIO, text: str
) -> None:
    assert store(aws, messages(order("o-1"), text, order("o-2"))) == ["m-2"]
    assert list(aws.stored()) == ["o-1", "o-2"]
    assert hastened == [("r-2", 1)]
    refused = json.loads(log_lines.getvalue().splitlines()[0])
    assert (refused["message"], refused["messageId"]) == ("message refused", "m-2")
    assert refused["reason"]


def test_a_failed_message_comes_back_after_1_2_4_and_8_seconds(aws: Aws, hastened: list[tuple[str, int]]) -> None:
    for received in (1, 2, 3, 4):
        assert store(aws, {"Records": [message("poison", received=received)]}) == ["m-1"]
    assert [seconds for _, seconds in hastened] == [1, 2, 4, 8]


def dead(aws: Aws) -> list[dict[str, Any]]:
    answer = aws.sqs.receive_message(
        QueueUrl=ENVIRONMENT["ORDERS_DEAD_LETTER_URL"], MaxNumberOfMessages=10, MessageAttributeNames=["All"]
    )
    return list(answer.get("Messages", []))


@pytest.mark.parametrize("body", ["{poison", ' {"orderID": "Zoë\u2028漢" }\n\t'])
def test_after_its_last_try_a_message_is_dead_byte_for_byte_with_the_reason(
    aws: Aws, hastened: list[tuple[str, int]], body: str
) -> None:
    given = message(body, 2, received=storing.TRIES)
    given["attributes"]["SentTimestamp"] = "1795230855123"
    assert store(aws, {"Records": [message(order().to_json(), 1, received=storing.TRIES), given]}) == []
    (letter,) = dead(aws)
    assert letter["Body"] == body
    attributes = {name: each["StringValue"] for name, each in letter["MessageAttributes"].items()}
    assert attributes.pop("reason").startswith("message: is no order: ")
    assert attributes == {"tries": "5", "sent": "1795230855123"}
    assert hastened == []
    assert list(aws.stored()) == ["o-1"]


def test_a_reason_is_what_an_attribute_of_sqs_takes(aws: Aws) -> None:
    body = json.dumps({"orderID": "o", "customerID": "c", "item": "x", "\u0001" * 400: 1, "note": None})[:-1]
    store(aws, {"Records": [message(body + f', "placedAt": "{PLACED_AT}"}}', received=5)]})
    (letter,) = dead(aws)
    reason = letter["MessageAttributes"]["reason"]["StringValue"]
    assert 1 <= len(reason) <= 300
    assert reason.isprintable()


@pytest.mark.parametrize(("code", "status"), [("AccessDenied", 403), ("ServiceUnavailable", 503)])
def test_a_message_that_cannot_be_put_among_the_dead_is_left_to_the_queue(
    aws: Aws, hastened: list[tuple[str, int]], code: str, status: int
) -> None:
    """It has had its five tries, so SQS itself moves it."""
    with Stubber(aws.sqs) as sqs:
        sqs.add_client_error("send_message", code, http_status_code=status)
        assert store(aws, {"Records": [message("poison", received=5)]}) == ["m-1"]
    assert hastened == [("r-1", 8)]


def test_an_order_that_the_table_never_took_is_dead_with_that_reason(aws: Aws) -> None:
    answer = {"Responses": [{"Error": {"Code": "ThrottlingError", "Message": "slower"}}]}
    with Stubber(aws.dynamodb) as dynamodb:
        dynamodb.add_response("batch_execute_statement", answer)
        assert store(aws, {"Records": [message(order().to_json(), received=5)]}) == []
    (letter,) = dead(aws)
    assert letter["MessageAttributes"]["reason"]["StringValue"].startswith("the orders table did not take it")


def test_more_than_ten_failed_messages_are_hastened_by_ten(aws: Aws, hastened: list[tuple[str, int]]) -> None:
    assert len(store(aws, messages(*["poison"] * 23))) == 23
    assert [handle for handle, _ in hastened] == [f"r-{number}" for number in range(1, 24)]


def test_a_failed_message_is_named_even_if_it_cannot_be_hastened(aws: Aws) -> None:
    with Stubber(aws.sqs) as sqs:
        sqs.add_client_error("change_message_visibility_batch", "ServiceUnavailable", http_status_code=503)
        assert store(aws, messages("poison", order())) == ["m-1"]
    assert list(aws.stored()) == ["o-1"]


def test_a_throttled_statement_fails_only_its_own_messages(aws: Aws, hastened: list[tuple[str, int]]) -> None:
    answer = {
        "Responses": [
            {"TableName": TABLE},
            {"Error": {"Code": "ThrottlingError", "Message": "slower"}},
            {"TableName": TABLE},
        ]
    }
    with Stubber(aws.dynamodb) as dynamodb:
        dynamodb.add_response("batch_execute_statement", answer)
        given = messages(order("o-1"), order("o-2"), order("o-3"), order("o-2"))
        assert store(aws, given) == ["m-2", "m-4"]
    assert [handle for handle, _ in hastened] == ["r-2", "r-4"]


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "BatchExecuteStatement")


def test_a_call_that_fails_as_a_whole_fails_its_messages_and_the_other_call_goes_on(
    aws: Aws, hastened: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = aws.dynamodb.batch_execute_statement

    def throttle_25(Statements: list[dict[str, Any]]) -> Any:  # noqa: N803
        if len(Statements) == 25:
            raise refusal("ProvisionedThroughputExceededException")
        return write(Statements=Statements)

    monkeypatch.setattr(aws.dynamodb, "batch_execute_statement", throttle_25)
    failed = store(aws, messages(*[order(f"o-{number}") for number in range(26)]))
    assert failed == [f"m-{number}" for number in range(1, 26)]
    assert len(hastened) == 25
    assert list(aws.stored()) == ["o-25"]


def test_a_lost_connection_fails_the_messages_of_its_call(
    aws: Aws, hastened: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(**_: Any) -> None:
        raise ConnectTimeoutError(endpoint_url="https://dynamodb")

    monkeypatch.setattr(aws.dynamodb, "batch_execute_statement", lose)
    assert store(aws, messages(order("o-1"), order("o-2"))) == ["m-1", "m-2"]


def test_a_known_order_whose_content_cannot_be_read_comes_back(aws: Aws, hastened: list[tuple[str, int]]) -> None:
    with Stubber(aws.dynamodb) as dynamodb:
        duplicate = {"Error": {"Code": "DuplicateItem", "Message": "there"}}
        dynamodb.add_response("batch_execute_statement", {"Responses": [duplicate]})
        dynamodb.add_client_error("batch_get_item", "ThrottlingException", http_status_code=400)
        assert store(aws, messages(order())) == ["m-1"]


@pytest.mark.parametrize("size", [1, 60])
def test_a_missing_right_is_no_matter_of_one_message(aws: Aws, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole batch fails, and the function's error shows it."""

    def refuse(**_: Any) -> None:
        raise refusal("AccessDeniedException")

    monkeypatch.setattr(aws.dynamodb, "batch_execute_statement", refuse)
    with pytest.raises(ClientError, match="AccessDenied"):
        store(aws, messages(*[order(f"o-{number}") for number in range(size)]))


def test_each_stored_order_has_a_log_record_with_its_id(aws: Aws, log_lines: io.StringIO) -> None:
    store(aws, messages(order("o-1"), order("o-2")))
    records = [json.loads(line) for line in log_lines.getvalue().splitlines() if "orderID" in line]
    assert [(each["message"], each["orderID"]) for each in records] == [
        ("order stored", "o-1"),
        ("order stored", "o-2"),
    ]


def test_store_orders_answers_lambda_with_the_failed_messages(
    api: Api, aws: Aws, hastened: list[tuple[str, int]]
) -> None:
    given = messages(order(), "poison", order(quantity=2))
    payload = api.client.lambda_.invoke("store_orders", given).payload
    assert payload == {"batchItemFailures": [{"itemIdentifier": "m-2"}]}
    (notification,) = aws.published()
    assert notification["Subject"] == "1 order refused: the id is taken"
    assert notification["MessageAttributes"]["kind"] == {"Type": "String", "Value": "order"}


def test_store_orders_takes_the_events_of_chalices_generator(api: Api, aws: Aws) -> None:
    event = api.client.events.generate_sqs_event([order().to_json()])
    assert api.client.lambda_.invoke("store_orders", event).payload == {"batchItemFailures": []}
    assert list(aws.stored()) == ["o-1"]
