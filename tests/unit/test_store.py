"""Tests that orders are stored exactly once despite failures, and become dead letters if they cannot be stored."""

import io
import json
import re
import threading
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError
from botocore.stub import Stubber

from chalicelib.errors import Unavailable
from chalicelib.notifications import Notification
from chalicelib.orders import store as storing
from chalicelib.orders.order import Item, Order
from tests.unit.api import Api
from tests.unit.cloud import ENVIRONMENT, Aws, refusing
from tests.unit.logged import records
from tests.unit.ordering import NOW, PLACED_AT, QUEUE_URL, TABLE, message, messages, order, store

Retries = list[tuple[str, int]]
NOW_MS = str(int(1000 * NOW.timestamp()))


@pytest.fixture
def retries(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Retries:
    """Returns a list with the receipt handle of each failed message and the seconds until its retry."""
    seen: Retries = []

    def change(QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        assert QueueUrl == QUEUE_URL
        assert 1 <= len(Entries) <= 10
        seen.extend((each["ReceiptHandle"], each["VisibilityTimeout"]) for each in Entries)
        return {"Successful": [{"Id": each["Id"]} for each in Entries], "Failed": []}

    monkeypatch.setattr(aws.sqs, "change_message_visibility_batch", change)
    return seen


def many(count: int) -> dict[str, Any]:
    return messages(*[order(f"o-{number}") for number in range(count)])


def test_a_batch_is_stored_with_all_fields_that_lists_need(aws: Aws, log_lines: io.StringIO) -> None:
    second = Order("o-2", "c-2", (Item("x", 2), Item("☕", 10_000)), "n", PLACED_AT, "ana")
    assert store(aws, messages(order("o-1"), second)) == []
    stored = aws.stored()
    assert list(stored) == ["o-1", "o-2"]
    assert stored["o-1"]["note"] == stored["o-1"]["requestedBy"] == {"NULL": True}
    assert re.fullmatch(r"2026-11#[0-7]", stored["o-2"].pop("period")["S"])
    items = [{"M": {"item": {"S": item}, "quantity": {"N": n}}} for item, n in (("x", "2"), ("☕", "10000"))]
    assert stored["o-2"].pop("items") == {"L": items}
    assert {name: each["S"] for name, each in stored["o-2"].items()} == {
        **{"orderID": "o-2", "customerID": "c-2", "note": "n", "status": "PLACED", "placedAt": PLACED_AT},
        **{"requestedBy": "ana", "digest": second.digest(), "sortKey": f"{PLACED_AT}#o-2"},
    }
    assert [each["orderID"] for each in records(log_lines, "order stored")] == ["o-1", "o-2"]


def test_an_order_that_arrives_twice_is_stored_once(aws: Aws) -> None:
    calls = aws.calls(aws.dynamodb, "BatchExecuteStatement")
    event = messages(order("o-1"), order("o-1"), order("o-2"))
    assert store(aws, event) == []
    assert [len(call["Statements"]) for call in calls] == [2]
    before = aws.stored()
    assert store(aws, event) == []
    assert aws.stored() == before


def test_60_orders_are_written_25_at_a_time(aws: Aws) -> None:
    calls = aws.calls(aws.dynamodb, "BatchExecuteStatement")
    assert store(aws, many(60)) == []
    assert sorted(len(call["Statements"]) for call in calls) == [10, 25, 25]
    assert len(aws.stored()) == 60


def test_at_most_eight_calls_of_a_large_batch_run_at_once(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    running, most, together, lock = 0, 0, threading.Barrier(storing.WRITERS), threading.Lock()

    def write(Statements: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        # If fewer than eight calls run concurrently, the barrier breaks and the test fails.
        together.wait(timeout=30)
        with lock:
            running -= 1
        return {"Responses": [{} for _ in Statements]}

    monkeypatch.setattr(aws.dynamodb, "batch_execute_statement", write)
    assert store(aws, many(2 * storing.WRITERS * storing.STATEMENTS)) == []
    assert most == storing.WRITERS == 8


@pytest.mark.parametrize("batches", [1, 2])
def test_if_two_orders_have_one_id_the_first_is_stored_and_the_other_reported(aws: Aws, batches: int) -> None:
    published: list[Notification] = []
    both = messages(order(quantity=1), order(quantity=2))["Records"]
    for given in [both] if batches == 1 else [both[:1], both[1:]]:
        assert store(aws, {"Records": given}, published.append) == []
    assert aws.stored()["o-1"]["items"]["L"][0]["M"]["quantity"] == {"N": "1"}
    (notification,) = published
    assert notification.kind == "order"
    assert notification.subject == "1 order refused: the id is taken"
    assert notification.message.endswith("\n- order o-1 of customer c-1")
    assert notification.facts == {"outcome": "conflict", "orderIDs": ["o-1"]}
    # If SQS delivers the conflicting order again, the conflict is reported under the same key.
    store(aws, {"Records": both[1:]}, published.append)
    assert published[1].key == notification.key


def test_a_conflict_that_cannot_be_reported_is_retried_without_its_neighbours(aws: Aws) -> None:
    store(aws, messages(order()))

    def publish(_: Notification) -> None:
        raise Unavailable("SNS is away")

    assert store(aws, messages(order("o-9"), order(quantity=2)), publish) == ["m-2"]
    assert "o-9" in aws.stored()


def text(**fields: Any) -> str:
    """Returns an order's message, without the fields that are None."""
    given = {"orderID": "o", "customerID": "c", "item": "x", "note": None, "placedAt": PLACED_AT, **fields}
    return json.dumps({name: each for name, each in given.items() if each is not None or name == "note"})


POISON = [
    *("{", "null", "5", '"order"', "[]", "{}", "[" * 100_000),
    json.dumps({"orderID": "o", "customerID": "c", "item": "x", "placedAt": PLACED_AT}),
    *(text(placedAt=each) for each in (None, 5, "yesterday", "2026-11-21", "0001-01-01T00:00+23:59")),
    *(text(orderID=None), text(quantity=0), ' {"orderID": "Zoë\u2028漢" }\n\t'),
]


def dead(aws: Aws) -> list[dict[str, Any]]:
    return aws.receive(ENVIRONMENT["ORDERS_DEAD_LETTER_URL"])


def attributes(letter: dict[str, Any]) -> dict[str, str]:
    return {name: each["StringValue"] for name, each in letter["MessageAttributes"].items()}


@pytest.mark.parametrize("body", POISON, ids=lambda body: body[:90])
def test_a_message_that_is_not_an_order_is_a_dead_letter_at_once(
    aws: Aws, retries: Retries, log_lines: io.StringIO, body: str
) -> None:
    assert store(aws, messages(order("o-1"), body, order("o-2"))) == []
    assert list(aws.stored()) == ["o-1", "o-2"]
    assert retries == []
    [letter] = dead(aws)
    assert letter["Body"] == body
    [refused] = records(log_lines, "message refused")
    assert refused["messageId"] == "m-2"
    assert refused["reason"] == attributes(letter)["reason"]


THROTTLED = {"Error": {"Code": "ThrottlingError", "Message": "slower"}}


def answering(aws: Aws, *responses: dict[str, Any]) -> Stubber:
    stub = Stubber(aws.dynamodb)
    stub.add_response("batch_execute_statement", {"Responses": list(responses)})
    return stub


def fail(aws: Aws, *given: dict[str, Any]) -> list[str]:
    """Delivers these messages while DynamoDB throttles, and returns the ids of the messages that are retried."""
    with answering(aws, *[THROTTLED] * len(given)):
        return store(aws, {"Records": list(given)})


def test_a_failed_order_is_retried_after_growing_pauses_and_not_all_orders_at_once(aws: Aws, retries: Retries) -> None:
    for received in (1, 2, 3, 4, 300):
        assert fail(aws, message(order().to_json(), received=received)) == ["m-1"]
    for (_, seconds), longest in zip(retries, (1, 2, 4, 8, 300), strict=True):
        assert longest / 2 <= seconds <= longest
    retries.clear()
    fail(aws, *[message(order(f"o-{number}").to_json(), number, received=300) for number in range(20)])
    assert len({seconds for _, seconds in retries}) > 5


def test_only_after_24_hours_an_order_is_a_dead_letter_however_often_it_was_delivered(aws: Aws) -> None:
    young = message(order("o-1").to_json(), 1, received=900, age=24 * 3600 - 1)
    old = message(order("o-2").to_json(), 2, received=2, age=24 * 3600)
    assert fail(aws, young, old) == ["m-1"]
    [letter] = dead(aws)
    assert "o-2" in letter["Body"]
    assert attributes(letter)["reason"] == (
        "retried for 24 hours; the last error: the order could not be stored: An error occurred (ThrottlingError) "
        "when calling the BatchExecuteStatement operation: slower"
    )


def test_the_age_of_the_oldest_waiting_order_is_a_metric(aws: Aws, log_lines: io.StringIO) -> None:
    fail(aws, message(order("o-1").to_json(), 1, age=5), message(order("o-2").to_json(), 2, age=1000, tries="7"))
    assert [each["WaitSeconds"] for each in records(log_lines, "metrics")] == [1000]


@pytest.mark.parametrize(
    "history", [{}, {"tries": "40", "sent": "1795000000000", "letter": "first"}, {"tries": "many"}]
)
def test_a_dead_letter_continues_the_history_of_the_dead_letter_that_was_put_back(
    aws: Aws, history: dict[str, str]
) -> None:
    given = message("{poison", received=2, **history)
    store(aws, {"Records": [given]})
    [letter] = dead(aws)
    expected = {**history, "tries": "42"} if "letter" in history else {"tries": "2", "sent": NOW_MS}
    assert attributes(letter) == {"reason": "body: is not JSON", **expected}


@pytest.mark.parametrize("culprit", [0, 6, 29])
def test_a_bug_makes_only_its_own_message_a_dead_letter(
    aws: Aws, retries: Retries, monkeypatch: pytest.MonkeyPatch, log_lines: io.StringIO, culprit: int
) -> None:
    convert = storing.stored_item

    def stored_item(given: Order) -> dict[str, Any]:
        if given.order_id == f"o-{culprit}":
            raise ValueError("unexpected")
        return convert(given)

    monkeypatch.setattr(storing, "stored_item", stored_item)
    assert store(aws, many(30)) == []
    assert len(aws.stored()) == 29
    [letter] = dead(aws)
    assert attributes(letter)["reason"] == (
        "a retry cannot help: fix the code, then put the message back; the error: ValueError: unexpected"
    )
    assert retries == []
    [logged] = records(log_lines, "message not handled")
    assert "stored_item" in logged["exc_info"]
    # Orders written before the error also count as stored, and not as doubled.
    assert sum(each.get("OrdersStored", 0) for each in records(log_lines)) == 29
    assert not any(each.get("OrdersDoubled") for each in records(log_lines))


def test_an_order_that_dynamodb_refuses_for_its_content_is_a_dead_letter_at_once(aws: Aws) -> None:
    refused = {"Error": {"Code": "ValidationError", "Message": "too large"}}
    with answering(aws, {"TableName": TABLE}, refused) as dynamodb:
        for response in ({"TableName": TABLE}, refused):
            dynamodb.add_response("batch_execute_statement", {"Responses": [response]})
        assert store(aws, messages(order("o-1"), order("o-2"))) == []
    [letter] = dead(aws)
    assert "o-2" in letter["Body"]
    assert attributes(letter)["reason"].endswith(
        "(ValidationError) when calling the BatchExecuteStatement operation: too large"
    )


def test_a_reason_is_logged_and_kept_up_to_300_characters_that_sqs_accepts(aws: Aws, log_lines: io.StringIO) -> None:
    many_problems = {"\u0001" * 40 + str(number): 1 for number in range(20)}
    store(aws, messages(text(**many_problems)))
    (letter,) = dead(aws)
    kept = attributes(letter)["reason"]
    [refused] = records(log_lines, "message refused")
    assert kept == refused["reason"]
    assert len(kept) == 300
    assert kept.isprintable()


def test_a_message_that_cannot_become_a_dead_letter_is_retried(aws: Aws, retries: Retries) -> None:
    with refusing(aws.sqs, "send_message_batch", "AccessDenied", 403):
        assert store(aws, {"Records": [message("poison", received=5)]}) == ["m-1"]
    [(handle, seconds)] = retries
    assert handle == "r-1"
    assert 8 <= seconds <= 16


@pytest.mark.parametrize(("code", "status"), [("ServiceUnavailable", 503), ("AccessDenied", 403)])
def test_a_failed_message_is_named_even_if_its_retry_delay_cannot_be_shortened(
    aws: Aws, code: str, status: int
) -> None:
    with refusing(aws.sqs, "change_message_visibility_batch", code, status):
        assert fail(aws, message(order().to_json())) == ["m-1"]


def test_a_throttled_statement_fails_only_its_own_messages(aws: Aws, retries: Retries) -> None:
    with answering(aws, {"TableName": TABLE}, THROTTLED, {"TableName": TABLE}):
        assert store(aws, messages(order("o-1"), order("o-2"), order("o-3"), order("o-2"))) == ["m-2", "m-4"]
    assert [handle for handle, _ in retries] == ["r-2", "r-4"]


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "BatchExecuteStatement")


@pytest.mark.parametrize(
    "error", [refusal("ProvisionedThroughputExceededException"), ConnectTimeoutError(endpoint_url="x")], ids=repr
)
def test_a_failed_call_fails_only_its_messages(
    aws: Aws, retries: Retries, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    write = aws.dynamodb.batch_execute_statement

    def fail_25(Statements: list[dict[str, Any]]) -> Any:  # noqa: N803
        if len(Statements) == 25:
            raise error
        return write(Statements=Statements)

    monkeypatch.setattr(aws.dynamodb, "batch_execute_statement", fail_25)
    assert store(aws, many(26)) == [f"m-{number}" for number in range(1, 26)]
    assert len(retries) == 25
    assert list(aws.stored()) == ["o-25"]


def test_a_known_order_whose_content_cannot_be_read_is_retried(aws: Aws, retries: Retries) -> None:
    with answering(aws, {"Error": {"Code": "DuplicateItem", "Message": "there"}}) as dynamodb:
        dynamodb.add_client_error("batch_get_item", "ThrottlingException", http_status_code=400)
        assert store(aws, messages(order())) == ["m-1"]


@pytest.mark.parametrize("code", ["AccessDeniedException", "ResourceNotFoundException"])
def test_orders_wait_for_a_missing_permission_or_table_to_come_back(
    aws: Aws, retries: Retries, monkeypatch: pytest.MonkeyPatch, log_lines: io.StringIO, code: str
) -> None:
    def refuse(**_: Any) -> None:
        raise refusal(code)

    monkeypatch.setattr(aws.dynamodb, "batch_execute_statement", refuse)
    assert len(store(aws, many(60))) == len(retries) == 60
    assert dead(aws) == []
    assert code in records(log_lines, "orders not written")[0]["reason"]


def test_store_orders_returns_the_failed_messages_to_lambda(api: Api, aws: Aws, retries: Retries) -> None:
    given = messages(order(), "poison", order(quantity=2))
    assert api.invoke("store_orders", given) == {"batchItemFailures": []}
    assert len(dead(aws)) == 1
    (notification,) = aws.published()
    assert notification["Subject"] == "1 order refused: the id is taken"
    event = api.client.events.generate_sqs_event([order("o-2").to_json()])
    assert api.invoke("store_orders", event) == {"batchItemFailures": []}
    assert list(aws.stored()) == ["o-1", "o-2"]
