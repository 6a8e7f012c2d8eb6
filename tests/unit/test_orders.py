"""Orders: what one may be, what reaches the queue, the table and the subscribers, and what a failing part changes."""

import copy
import io
import json
import re
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, ParamValidationError
from botocore.stub import Stubber
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import orders
from chalicelib.errors import Conflict, InvalidRequest, Unavailable
from chalicelib.notifications import Notification, Publish, one_line
from chalicelib.orders import Item, Order
from chalicelib.rest import Page
from tests.unit.conftest import ENVIRONMENT, Api, Aws

NOW = datetime(2026, 11, 21, 3, 14, 15, 123456, UTC)
PLACED_AT = "2026-11-21T03:14:15.123456Z"
QUEUE_URL, TABLE = ENVIRONMENT["ORDERS_QUEUE_URL"], ENVIRONMENT["ORDERS_TABLE"]


def order(order_id: str = "o-1", customer_id: str = "c-1", quantity: int = 1) -> Order:
    return Order(order_id, customer_id, (Item("Lima", quantity),), None, PLACED_AT)


def body(**fields: Any) -> dict[str, Any]:
    return {"customerID": "c-1", "item": "Lima", **fields}


def problems(given: Any) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        orders.parse(given, NOW)
    return caught.value.problems


def message(text: str, number: int = 1, received: int = 1) -> dict[str, Any]:
    """One record of an SQS event."""
    return {
        "messageId": f"m-{number}",
        "receiptHandle": f"r-{number}",
        "body": text,
        "attributes": {"ApproximateReceiveCount": str(received)},
        "messageAttributes": {},
        "md5OfBody": "754ac2f7a12df38320e0c5eafd060145",
        "eventSource": "aws:sqs",
        "eventSourceARN": ENVIRONMENT["ORDERS_QUEUE_ARN"],
        "awsRegion": "us-east-1",
    }


def messages(*given: Order | str) -> dict[str, Any]:
    """An SQS event with the messages m-1, m-2 and so on."""
    texts = [each if isinstance(each, str) else each.to_json() for each in given]
    return {"Records": [message(text, number) for number, text in enumerate(texts, 1)]}


# --- What an order may be ---------------------------------------------------------------------------------------------


def test_an_order_of_one_item_has_quantity_1_if_left_out() -> None:
    (parsed,) = orders.parse(body(orderID="o-1"), NOW)
    assert parsed == Order("o-1", "c-1", (Item("Lima", 1),), None)
    assert parsed.placed_at == PLACED_AT


def test_an_order_of_items_keeps_their_sequence() -> None:
    items = [{"item": "b", "quantity": 2}, {"item": "a"}, {"item": "b", "quantity": 2}]
    (parsed,) = orders.parse({"customerID": "c", "items": items, "note": "soon"}, NOW)
    assert parsed.items == (Item("b", 2), Item("a", 1), Item("b", 2))
    assert parsed.note == "soon"


def test_every_limit_is_inclusive() -> None:
    largest = {
        "orderID": "a-Z_9" * 12 + "xxxx",
        "customerID": "☕" * 64,
        "items": [{"item": "é" * 200, "quantity": 10_000}] * 100,
        "note": "n" * 500,
    }
    assert orders.parse(largest, NOW)
    assert len(orders.parse([body()] * 100, NOW)) == 100
    assert orders.parse({"orderID": "-", "customerID": "c", "item": "i", "quantity": 1, "note": ""}, NOW)


def test_the_idempotency_key_is_the_id_of_a_single_order() -> None:
    assert orders.parse(body(), NOW, "monday")[0].order_id == "monday"


def test_the_same_key_gives_the_orders_of_a_list_the_same_ids_and_each_another() -> None:
    first = [order.order_id for order in orders.parse([body()] * 100, NOW, "k" * 64)]
    assert first == [order.order_id for order in orders.parse([body()] * 100, NOW, "k" * 64)]
    assert len(set(first)) == 100
    assert all(orders.ORDER_ID.fullmatch(order_id) for order_id in first)
    assert not set(first) & {order.order_id for order in orders.parse([body()] * 100, NOW, "another")}


def test_an_orders_own_id_stays_under_any_key() -> None:
    given = [body(orderID="o-1"), body()]
    assert orders.parse(given, NOW, "monday")[0].order_id == "o-1"
    assert orders.parse(given[0], NOW, "monday")[0].order_id == "o-1"


def test_the_largest_order_fits_into_one_message_and_one_item() -> None:
    """SQS takes 1 MiB, DynamoDB 400 KB; in the message a character has up to 12 bytes, in the item up to 4."""
    largest = Order("x" * 64, "😀" * 64, (Item("😀" * 200, 10_000),) * 100, "😀" * 500, PLACED_AT)
    assert len(largest.to_json()) < orders.SQS_BYTES
    assert len(json.dumps(orders._insertion(largest, TABLE), ensure_ascii=False).encode()) < 400_000


def test_an_order_without_an_id_gets_a_new_one_each_time() -> None:
    first, second = orders.parse([body(), body()], NOW)
    assert first.order_id != second.order_id
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", first.order_id)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ["customerID: is missing", "item: is missing"]),
        ({"customerID": "c", "quantity": 2}, ["item: is missing"]),
        (body(customerID=None), ["customerID: must be a text"]),
        (body(customerID=7), ["customerID: must be a text"]),
        (body(customerID=""), ["customerID: must have 1 to 64 characters, and has 0"]),
        (body(customerID="c" * 65), ["customerID: must have 1 to 64 characters, and has 65"]),
        (body(customerID="  "), ["customerID: is blank"]),
        (body(item=["Lima"]), ["item: must be a text"]),
        (body(item="i" * 201), ["item: must have 1 to 200 characters, and has 201"]),
        (body(item="a\u0000b"), ["item: has U+0000, which is no text, at position 1"]),
        (body(item="a\nb"), ["item: has U+000A, which is no text, at position 1"]),
        (body(item="\u0085x"), ["item: has U+0085, which is no text, at position 0"]),
        (body(item="\ud83d"), ["item: has U+D83D, which is no text, at position 0"]),
        (body(item="x\uffff"), ["item: has U+FFFF, which is no text, at position 1"]),
        (body(note="n" * 501), ["note: must have 0 to 500 characters, and has 501"]),
        (body(note=None), ["note: must be a text"]),
        (body(note="a\u001b[31m"), ["note: has U+001B, which is no text, at position 1"]),
        (body(orderID=""), ["orderID: must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -"]),
        (body(orderID="o" * 65), ["orderID: must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -"]),
        (body(orderID="a/b"), ["orderID: must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -"]),
        (body(orderID="o-1\n"), ["orderID: must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -"]),
        (body(orderID="é"), ["orderID: must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -"]),
        (body(orderID=None), ["orderID: must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -"]),
        (body(orderID=1), ["orderID: must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -"]),
        (body(price="1.50"), ['"price": is not a field of an order']),
        (body(**{"a\n\ud800": 1}), ['"a\\n\\ud800": is not a field of an order']),
        (body(items=[{"item": "x"}]), ["items: stands beside item or quantity; give one or the other"]),
        (
            {"customerID": "c", "items": [{"item": "x"}], "quantity": 2},
            ["items: stands beside item or quantity; give one or the other"],
        ),
        ({"customerID": "c", "items": []}, ["items: must be a list of 1 to 100 objects with item and quantity"]),
        ({"customerID": "c", "items": {}}, ["items: must be a list of 1 to 100 objects with item and quantity"]),
        (
            {"customerID": "c", "items": [{"item": "x"}] * 101},
            ["items: must be a list of 1 to 100 objects with item and quantity"],
        ),
        ({"customerID": "c", "items": ["x"]}, ["items[0]: must be an object with item and quantity"]),
        (
            {"customerID": "c", "items": [{"item": "x"}, {"item": "", "quantity": 0, "size": "L"}]},
            [
                'items[1]."size": is not a field of an item',
                "items[1].quantity: must be a whole number from 1 to 10,000",
                "items[1].item: must have 1 to 200 characters, and has 0",
            ],
        ),
        ([body(), body(quantity=0)], ["orders[1].quantity: must be a whole number from 1 to 10,000"]),
        ([body(), []], ["orders[1]: must be an object with customerID and item or items"]),
        ([], ["orders: must be 1 to 100, and these are 0"]),
        ([body()] * 101, ["orders: must be 1 to 100, and these are 101"]),
        ("order", ["body: must be an object with customerID and item or items"]),
        (None, ["body: must be an object with customerID and item or items"]),
    ],
)
def test_a_wrong_order_names_each_field_and_what_is_wrong(given: Any, expected: list[str]) -> None:
    assert problems(given) == expected


@pytest.mark.parametrize("quantity", [0, -1, 10_001, 10**40, 1.5, 1e300, 1e400, "1", True, None, [], {}])
def test_a_quantity_that_is_no_whole_number_from_1_to_10000_is_refused(quantity: Any) -> None:
    assert problems(body(quantity=quantity)) == ["quantity: must be a whole number from 1 to 10,000"]


def test_a_whole_number_with_a_point_is_whole() -> None:
    """JSON has one kind of numbers."""
    assert orders.parse(body(quantity=2.0), NOW)[0].items == (Item("Lima", 2),)


def test_a_note_may_have_lines_and_tabs() -> None:
    assert orders.parse(body(note="a\n\tb ☕"), NOW)[0].note == "a\n\tb ☕"


def test_very_many_problems_are_cut_and_counted() -> None:
    found = problems([{}] * 100)
    assert len(found) == 21
    assert found[:2] == ["orders[0].customerID: is missing", "orders[0].item: is missing"]
    assert found[-1] == "and 180 more"


def test_a_fields_name_of_any_length_does_not_swell_the_message() -> None:
    assert problems(body(**{"x" * 100_000: 1})) == [f'"{"x" * 40}": is not a field of an order']


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["orderID", "customerID", "item", "quantity", "items", "note"])


@given(st.dictionaries(FIELDS, JSON) | st.lists(st.dictionaries(FIELDS, JSON), max_size=3) | JSON)
def test_any_json_is_an_order_or_is_refused_and_what_is_taken_comes_back_from_its_message(given: Any) -> None:
    try:
        parsed = orders.parse(given, NOW)
    except InvalidRequest:
        return
    assert [Order.from_json(each.to_json()) for each in parsed] == parsed
    assert all(Order.from_json(each.to_json()).placed_at == PLACED_AT for each in parsed)


TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"), min_size=1).filter(
    str.strip
)
PAIR = {"item": TEXT.map(lambda text: text[:200]).filter(str.strip), "quantity": st.integers(1, 10_000)}
ORDERS = st.fixed_dictionaries(
    {"customerID": TEXT.map(lambda text: text[:64]).filter(str.strip)},
    optional={"orderID": st.from_regex(orders.ORDER_ID, fullmatch=True), "note": st.just("") | TEXT},
)
WRONG = {
    "orderID": st.sampled_from(["", "a b", "x" * 65, "é", None, 7]),
    "customerID": st.sampled_from(["", " ", "x" * 65, "a\x1b[31m", "\ud800", None, 7]),
    "item": st.sampled_from(["", "x" * 201, "a\nb", "\uffff", None, ["x"]]),
    "quantity": st.sampled_from([0, 10_001, 1.5, "1", True, None]),
    "note": st.sampled_from(["x" * 501, "a\x00", "a\r", None, 7]),
}


@given(
    ORDERS,
    st.fixed_dictionaries(PAIR) | st.fixed_dictionaries({"items": st.lists(st.fixed_dictionaries(PAIR), min_size=1)}),
)
def test_every_good_order_is_taken_as_it_is_and_comes_back_from_its_message(head: Any, items: Any) -> None:
    given = head | items
    (parsed,) = orders.parse(given, NOW)
    assert parsed.customer_id == given["customerID"]
    assert parsed.note == given.get("note")
    assert parsed.order_id == given.get("orderID", parsed.order_id)
    assert [vars(each) for each in parsed.items] == given.get("items", [items])
    assert Order.from_json(parsed.to_json()) == parsed


@given(st.fixed_dictionaries({}, optional=WRONG).filter(bool), st.booleans())
def test_every_wrong_field_is_named_and_no_other(wrong: dict[str, Any], several: bool) -> None:
    given = body(orderID="o-1", quantity=1, note="n") | wrong
    place = "orders[1]." if several else ""
    found = problems([body(orderID="o-2"), given] if several else given)
    assert {problem.partition(":")[0] for problem in found} == {place + name for name in wrong}


@given(st.text() | JSON.map(json.dumps) | st.dictionaries(FIELDS | st.just("placedAt"), JSON).map(json.dumps))
def test_any_message_is_an_order_or_is_refused_in_few_words(text: str) -> None:
    try:
        Order.from_json(text)
    except InvalidRequest as error:
        words = str(error)
    else:
        return
    assert 0 < len(words) < 5_000


def test_a_message_of_a_megabyte_is_refused_in_few_words() -> None:
    for text in ("x" * 1_000_000, json.dumps({"placedAt": "9" * 1_000_000, "note": None, "orderID": "o"})):
        with pytest.raises(InvalidRequest) as caught:
            Order.from_json(text)
        assert len(str(caught.value)) <= orders.REASON_CHARACTERS


# --- Onto the queue ---------------------------------------------------------------------------------------------------


def enqueue(aws: Aws, *given: Order) -> None:
    orders.enqueue(list(given), sqs=aws.sqs, queue_url=QUEUE_URL, dynamodb=aws.dynamodb, table=TABLE)


def test_a_hundred_orders_go_to_the_queue_by_ten(aws: Aws) -> None:
    calls = aws.calls(aws.sqs, "SendMessageBatch")
    enqueue(aws, *[order(f"o-{number}") for number in range(100)])
    assert [len(call["Entries"]) for call in calls] == [10] * 10
    assert sorted(each["orderID"] for each in aws.queued()) == sorted(f"o-{number}" for number in range(100))


def test_large_orders_go_to_the_queue_by_what_one_call_takes(aws: Aws) -> None:
    """A character outside of Unicode's first plane has 4 bytes in the request, and 12 in the message."""
    large = [Order(f"o-{number}", "c", (Item("😀" * 200, 1),) * 80, None, PLACED_AT) for number in range(10)]
    calls = aws.calls(aws.sqs, "SendMessageBatch")
    enqueue(aws, *large)
    sizes = [sum(len(entry["MessageBody"].encode()) for entry in call["Entries"]) for call in calls]
    assert len(sizes) > 1
    assert max(sizes) <= 1_048_576
    assert sum(len(call["Entries"]) for call in calls) == 10


def test_an_order_given_twice_is_queued_once(aws: Aws) -> None:
    enqueue(aws, order(), order())
    assert len(aws.queued()) == 1


def test_only_orders_that_are_not_stored_are_queued(aws: Aws) -> None:
    store(aws, messages(order("o-1"), order("o-2")))
    enqueue(aws, order("o-1"), order("o-2"), order("o-3"))
    assert [each["orderID"] for each in aws.queued()] == ["o-3"]


def test_what_was_stored_a_moment_ago_is_known(aws: Aws) -> None:
    """moto always reads like this; DynamoDB only if asked to."""
    calls = aws.calls(aws.dynamodb, "BatchGetItem")
    enqueue(aws, order())
    assert calls[0]["RequestItems"][TABLE]["ConsistentRead"] is True


def test_every_order_that_is_stored_with_other_content_is_named(aws: Aws) -> None:
    store(aws, messages(order("o-1"), order("o-2"), order("o-3")))
    with pytest.raises(Conflict, match=r"^orderID: o-1, o-3 is stored already with other content"):
        enqueue(aws, order("o-1", quantity=9), order("o-2"), order("o-3", quantity=9), order("o-4"))
    assert aws.queued() == []


def test_each_part_of_what_makes_an_order_makes_it_another_and_the_time_does_not() -> None:
    first = Order("o", "c", (Item("x", 1), Item("y", 2)), "n", PLACED_AT)
    others = [
        Order("o", "d", first.items, "n", PLACED_AT),
        Order("o", "c", first.items[::-1], "n", PLACED_AT),
        Order("o", "c", first.items[:1], "n", PLACED_AT),
        Order("o", "c", (Item("x", 1), Item("y", 3)), "n", PLACED_AT),
        Order("o", "c", first.items, None, PLACED_AT),
        Order("o", "c", first.items, "", PLACED_AT),
    ]
    assert len({each.digest() for each in [first, *others]}) == 7
    assert Order("o", "c", first.items, "n", "2027-01-01T00:00:00.000000Z").digest() == first.digest()


def test_what_the_queue_refuses_is_named_and_the_rest_goes_on(aws: Aws) -> None:
    failed = [{"Id": each, "SenderFault": False, "Code": "InternalError"} for each in ("3", "7")]
    with Stubber(aws.sqs) as sqs:
        sqs.add_response("send_message_batch", {"Successful": [], "Failed": failed})
        sqs.add_response("send_message_batch", {"Successful": [], "Failed": []})
        with pytest.raises(
            Unavailable, match=r"^2 of 12 orders .*: orders\[3\] as o-3, orders\[7\] as o-7\. The others are"
        ):
            enqueue(aws, *[order(f"o-{number}") for number in range(12)])
        sqs.assert_no_pending_responses()


def test_orders_whose_call_got_no_answer_are_named_and_the_later_ones_are_queued(aws: Aws) -> None:
    with Stubber(aws.sqs) as sqs:
        sqs.add_client_error("send_message_batch", "ServiceUnavailable", http_status_code=503)
        sqs.add_response("send_message_batch", {"Successful": [], "Failed": []})
        with pytest.raises(Unavailable, match=r"^10 of 12 orders .* orders\[0\] as o-0, .* orders\[9\] as o-9\. The"):
            enqueue(aws, *[order(f"o-{number}") for number in range(12)])
        sqs.assert_no_pending_responses()


def test_keys_that_dynamodb_holds_back_are_a_503(aws: Aws) -> None:
    with Stubber(aws.dynamodb) as dynamodb:
        unprocessed = {TABLE: {"Keys": [{"orderID": {"S": "o-1"}}]}}
        dynamodb.add_response("batch_get_item", {"Responses": {TABLE: []}, "UnprocessedKeys": unprocessed})
        with pytest.raises(Unavailable, match="the orders table is busy"):
            enqueue(aws, order())
    assert aws.queued() == []


# --- Into the table ---------------------------------------------------------------------------------------------------


def store(aws: Aws, event: dict[str, Any], publish: Callable[[Notification], None] | None = None) -> list[str]:
    """The ids of the messages that failed."""
    result = orders.store(
        event,
        dynamodb=aws.dynamodb,
        table=TABLE,
        sqs=aws.sqs,
        queue_url=QUEUE_URL,
        dead_letter_url=ENVIRONMENT["ORDERS_DEAD_LETTER_URL"],
        publish=publish or (lambda notification: pytest.fail(f"published: {notification}")),
    )
    assert list(result) == ["batchItemFailures"]
    assert all(list(each) == ["itemIdentifier"] for each in result["batchItemFailures"])
    return [each["itemIdentifier"] for each in result["batchItemFailures"]]


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
    second = Order("o-2", "c-2", (Item("x", 2), Item("☕", 10_000)), "n", PLACED_AT)
    assert store(aws, messages(order("o-1"), second)) == []
    stored = aws.stored()
    assert list(stored) == ["o-1", "o-2"]
    assert stored["o-1"]["note"] == {"NULL": True}
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
    given = message(body, 2, received=orders.TRIES)
    given["attributes"]["SentTimestamp"] = "1795230855123"
    assert store(aws, {"Records": [message(order().to_json(), 1, received=orders.TRIES), given]}) == []
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


def test_a_call_that_fails_as_a_whole_fails_its_messages_and_the_next_call_goes_on(
    aws: Aws, hastened: list[tuple[str, int]]
) -> None:
    answer = {"Responses": [{"TableName": TABLE}]}
    with Stubber(aws.dynamodb) as dynamodb:
        dynamodb.add_client_error(
            "batch_execute_statement", "ProvisionedThroughputExceededException", http_status_code=400
        )
        dynamodb.add_response("batch_execute_statement", answer)
        failed = store(aws, messages(*[order(f"o-{number}") for number in range(26)]))
        dynamodb.assert_no_pending_responses()
    assert failed == [f"m-{number}" for number in range(1, 26)]
    assert len(hastened) == 25


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


def test_a_missing_right_is_no_matter_of_one_message(aws: Aws) -> None:
    """The whole batch fails, and the function's error shows it."""
    with Stubber(aws.dynamodb) as dynamodb:
        dynamodb.add_client_error("batch_execute_statement", "AccessDeniedException", http_status_code=400)
        with pytest.raises(ClientError, match="AccessDenied"):
            store(aws, messages(order()))


def test_each_stored_order_has_a_log_record_with_its_id(aws: Aws, log_lines: io.StringIO) -> None:
    store(aws, messages(order("o-1"), order("o-2")))
    records = [json.loads(line) for line in log_lines.getvalue().splitlines()]
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


# --- To the subscribers -----------------------------------------------------------------------------------------------


def record(order_id: str, customer: Any = "c-1", name: str = "INSERT") -> dict[str, Any]:
    """One record of the table's stream."""
    image = {"orderID": {"S": order_id}, "customerID": {"S": customer} if isinstance(customer, str) else customer}
    return {
        "eventID": f"e-{order_id}",
        "eventName": name,
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1",
        "eventSourceARN": ENVIRONMENT["ORDERS_STREAM_ARN"],
        "dynamodb": {
            "ApproximateCreationDateTime": 1795230855.0,
            "Keys": {"orderID": {"S": order_id}},
            "SequenceNumber": f"11000000000{zlib.crc32(order_id.encode()):010}",
            "SizeBytes": 26,
            "StreamViewType": "NEW_IMAGE",
            **({} if name == "REMOVE" else {"NewImage": image}),
        },
    }


class Failures:
    """The failures queue as announce_orders sees it."""

    def __init__(self, *refused: str) -> None:
        self.put: list[str] = []
        self.reasons: list[str] = []
        self.calls = 0
        self.refused = refused

    def __call__(self, records: Sequence[dict[str, Any]], error: Exception) -> list[dict[str, Any]]:
        self.calls += 1
        stuck = [each for each in records if each["eventID"] in self.refused]
        self.put += [each["eventID"] for each in records if each not in stuck]
        self.reasons.append(str(error))
        return stuck


WRITTEN = datetime.fromtimestamp(1795230855, UTC)


def announce(
    records: Sequence[dict[str, Any]],
    publish: Publish,
    put_by: orders.PutBy | None = None,
    *,
    age: int = 1,
    seconds: float = 60,
    redriven: bool = False,
) -> str | None:
    """The event id of the first record that is not done. The records came ``age`` seconds ago."""
    event = {"Records": list(records), **({"redriven": True} if redriven else {})}
    answer = orders.announce(
        event,
        publish=publish,
        put_by=put_by or (lambda records, error: pytest.fail(f"put by: {error!r}") if records else []),
        now=WRITTEN + timedelta(seconds=age),
        seconds_left=lambda: seconds,
    )
    assert list(answer) == ["batchItemFailures"]
    numbers = [each["itemIdentifier"] for each in answer["batchItemFailures"]]
    assert len(numbers) <= 1
    by_number = {each["dynamodb"]["SequenceNumber"]: each["eventID"] for each in records}
    return by_number[numbers[0]] if numbers else None


def announced(*records: dict[str, Any]) -> list[Notification]:
    published: list[Notification] = []
    assert announce(records, published.append) is None
    return published


def test_a_batch_of_new_orders_is_one_notification_that_names_each() -> None:
    (notification,) = announced(record("o-1"), record("o-2", "c-2"))
    assert notification.kind == "order"
    assert notification.subject == "2 new orders"
    assert notification.message == "2 new orders:\n- order o-1 of customer c-1\n- order o-2 of customer c-2"
    assert notification.sms == "2 new orders"


def test_one_new_order_is_not_called_orders() -> None:
    assert announced(record("o-1"))[0].subject == "1 new order"


def test_a_changed_or_removed_order_is_not_announced() -> None:
    assert announced(record("o-1", name="MODIFY"), record("o-2", name="REMOVE")) == []
    (notification,) = announced(record("o-1", name="MODIFY"), record("o-2"), record("o-3", name="REMOVE"))
    assert notification.message == "1 new order:\n- order o-2 of customer c-1"


def test_a_batch_delivered_twice_is_announced_under_one_key_and_another_under_another() -> None:
    keys = [announced(*batch)[0].key for batch in ([record("o-1")], [record("o-1")], [record("o-2")])]
    assert keys[0] == keys[1] != keys[2]


EACH_TYPE = {
    "S": "text",
    "N": "1.5",
    "B": "AAE=",
    "SS": ["a", "b"],
    "NS": ["1", "2"],
    "BS": ["AAE="],
    "M": {"a": {"L": [{"NULL": True}]}},
    "L": [{"M": {}}],
    "NULL": True,
    "BOOL": False,
}


@pytest.mark.parametrize("name", EACH_TYPE)
def test_an_image_may_have_attributes_of_each_type(name: str) -> None:
    given = record("o-1")
    given["dynamodb"]["NewImage"]["other"] = {name: EACH_TYPE[name]}
    assert announced(given)[0].message == "1 new order:\n- order o-1 of customer c-1"


@pytest.mark.parametrize("customer", [{"N": "5"}, {"NULL": True}, {"M": {}}, {"SS": ["a"]}])
def test_a_customer_that_is_no_text_is_called_unknown(customer: Any) -> None:
    assert announced(record("o-1", customer))[0].message == "1 new order:\n- order o-1 of customer unknown"


IMAGE = st.recursive(
    st.sampled_from(
        [{"NULL": True}, {"BOOL": False}, {"N": "1"}, {"B": "AA=="}, {"SS": ["a"]}, {"NS": ["1"]}, {"BS": ["AA=="]}]
    )
    | st.text().map(lambda text: {"S": text}),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda values: {"L": values})
        | st.dictionaries(st.text(), inner, max_size=3).map(lambda values: {"M": values})
    ),
)


@given(st.text(min_size=1), st.dictionaries(st.sampled_from(["customerID", "orderID", "items"]) | st.text(), IMAGE))
def test_any_image_is_announced_on_a_line_of_its_own_that_names_the_order(order_id: str, image: dict[str, Any]) -> None:
    given = record(order_id)
    given["dynamodb"]["NewImage"] = image
    (notification,) = announced(given)
    lines = notification.message.splitlines()
    assert lines[0] == "1 new order:"
    assert len(lines) == 2
    assert lines[1].startswith(f"- order {one_line(order_id)} of customer ")


def test_a_record_without_an_image_is_announced_by_its_key() -> None:
    given = record("o-1")
    del given["dynamodb"]["NewImage"]
    assert announced(given)[0].message == "1 new order:\n- order o-1 of customer unknown"


def test_announce_orders_publishes_what_subscribers_filter_by(api: Api, aws: Aws) -> None:
    records = [record("o-1"), record("o-2", name="REMOVE")]
    api.client.lambda_.invoke("announce_orders", {"Records": copy.deepcopy(records)})
    (notification,) = aws.published()
    assert notification["Subject"] == "1 new order"
    assert notification["MessageAttributes"]["kind"]["Value"] == "order"


# What cannot be announced

AWAY = Unavailable("SNS is away")


def refusal(code: str) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": 400}}, "Publish"
    )  # type: ignore[typeddict-item]


class Topic:
    """An SNS that refuses, by the order's id; and keeps which orders each of its messages named."""

    def __init__(self, error: Exception, *refused: str) -> None:
        self.error = error
        self.refused = refused
        self.taken: list[str] = []
        self.calls = 0

    def __call__(self, notification: Notification) -> None:
        self.calls += 1
        named = re.findall(r"order (\S+) of", notification.message)
        if not self.refused or set(self.refused) & set(named):
            raise self.error
        self.taken += named


BATCH = [f"o-{number}" for number in range(10)]
RECORDS = [record(order_id) for order_id in BATCH]


def test_what_may_pass_brings_the_batch_again() -> None:
    topic = Topic(AWAY)
    assert announce(RECORDS, topic) == "e-o-0"
    assert topic.calls == 1


@pytest.mark.parametrize(("code", "status"), [("InternalError", 500), ("Throttling", 400), ("KMSThrottling", 400)])
def test_announce_orders_answers_lambda_with_the_first_record_that_is_to_come_again(
    api: Api, aws: Aws, code: str, status: int
) -> None:
    records = copy.deepcopy(RECORDS)
    for each in records:
        each["dynamodb"]["ApproximateCreationDateTime"] = datetime.now(UTC).timestamp()
    with Stubber(aws.sns) as sns:
        sns.add_client_error("publish", code, http_status_code=status)
        answer = api.client.lambda_.invoke("announce_orders", {"Records": records}).payload
    assert answer == {"batchItemFailures": [{"itemIdentifier": records[0]["dynamodb"]["SequenceNumber"]}]}


def test_an_order_of_two_minutes_is_put_by_and_a_younger_one_behind_it_comes_again() -> None:
    young = copy.deepcopy(RECORDS)
    for each in young[4:]:
        each["dynamodb"]["ApproximateCreationDateTime"] += 60
    failures = Failures()
    assert announce(young, Topic(AWAY), failures, age=130) == "e-o-4"
    assert failures.put == [f"e-{order_id}" for order_id in BATCH[:4]]
    assert failures.reasons == ["SNS is away"]


def test_a_batch_that_is_old_as_a_whole_is_done() -> None:
    failures = Failures()
    assert announce(RECORDS, Topic(AWAY), failures, age=121) is None
    assert len(failures.put) == 10


@pytest.mark.parametrize("culprit", BATCH)
@pytest.mark.parametrize(
    "error",
    [
        refusal("InvalidParameter"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
        ParamValidationError(report="no"),
    ],
    ids=repr,
)
def test_the_order_that_sns_refuses_is_put_by_alone_and_its_neighbours_are_announced_once(
    culprit: str, error: Exception
) -> None:
    topic, failures = Topic(error, culprit), Failures()
    assert announce(RECORDS, topic, failures) is None
    assert topic.taken == [order_id for order_id in BATCH if order_id != culprit]
    assert failures.put == [f"e-{culprit}"]
    assert topic.calls <= 10


def test_a_refusal_that_no_trying_changes_puts_all_by_at_once() -> None:
    topic, failures = Topic(refusal("AuthorizationError")), Failures()
    assert announce(RECORDS, topic, failures) is None
    assert (topic.calls, failures.calls) == (1, 1)
    assert failures.put == [f"e-{order_id}" for order_id in BATCH]


@pytest.mark.parametrize("error", [refusal("InvalidParameter"), refusal("AuthorizationError")], ids=repr)
def test_an_order_that_cannot_be_put_by_either_comes_again_with_those_behind_it(error: Exception) -> None:
    topic, failures = Topic(error, "o-3"), Failures("e-o-3")
    assert announce(RECORDS, topic, failures) == "e-o-3"
    if error.response["Error"]["Code"] == "InvalidParameter":  # type: ignore[attr-defined]
        # None behind it was announced, or it would be once more.
        assert topic.taken == ["o-0", "o-1", "o-2"]


def test_what_was_announced_before_sns_went_away_is_not_announced_again() -> None:
    topic = Topic(refusal("InvalidParameter"), "o-7")

    def publish(notification: Notification) -> None:
        if topic.taken:
            raise AWAY
        topic(notification)

    assert announce(RECORDS, publish) == "e-o-5"
    assert topic.taken == BATCH[:5]


@pytest.mark.parametrize("broken", [{}, {"Keys": {}}, {"Keys": {"orderID": {"N": "1"}}}, {"NewImage": []}])
def test_a_record_that_cannot_be_read_is_put_by_and_its_neighbours_are_announced(broken: dict[str, Any]) -> None:
    bad = record("o-3")
    bad["dynamodb"] = {"SequenceNumber": bad["dynamodb"]["SequenceNumber"], **broken}
    failures = Failures()
    topic = Topic(AWAY, "none")
    assert announce([*RECORDS[:3], bad, *RECORDS[4:]], topic, failures) is None
    assert topic.taken == [each for each in BATCH if each != "o-3"]
    assert failures.put == ["e-o-3"]
    topic = Topic(AWAY, "none")
    assert announce([*RECORDS[:3], bad, *RECORDS[4:]], topic, Failures("e-o-3")) == "e-o-3"
    assert topic.taken == BATCH[:3]


def test_without_time_for_another_try_the_rest_comes_again() -> None:
    topic = Topic(refusal("InvalidParameter"), "o-9")
    assert announce(RECORDS, topic, seconds=5) == "e-o-0"
    assert topic.calls == 1


@pytest.mark.parametrize("age", [1, 1_000_000])
def test_a_redriven_batch_that_may_pass_fails_the_function_so_that_lambda_tries_again(age: int) -> None:
    """Nobody reads the answer of a function that is invoked without waiting."""
    with pytest.raises(Unavailable, match=r"^10 orders could be neither"):
        announce(RECORDS, Topic(AWAY), age=age, redriven=True)


def test_a_redriven_order_that_is_refused_is_put_by_again_or_fails_the_function() -> None:
    failures = Failures()
    assert announce(RECORDS[:1], Topic(refusal("AuthorizationError")), failures, redriven=True) is None
    assert failures.put == ["e-o-0"]
    with pytest.raises(Unavailable):
        announce(RECORDS[:1], Topic(refusal("AuthorizationError")), Failures("e-o-0"), redriven=True)


def failures_of(aws: Aws) -> list[dict[str, Any]]:
    return aws._drain(ENVIRONMENT["FAILURES_QUEUE_URL"])


def test_announce_orders_puts_each_order_by_as_lambda_would_hand_over_its_event(api: Api, aws: Aws) -> None:
    with Stubber(aws.sns) as sns:
        sns.add_client_error("publish", "AuthorizationError", http_status_code=403)
        answer = api.client.lambda_.invoke("announce_orders", {"Records": [*RECORDS, record("o-10")]}).payload
    assert answer == {"batchItemFailures": []}
    found = {each["requestPayload"]["Records"][0]["eventID"]: each for each in failures_of(aws)}
    assert found.keys() == {f"e-{order_id}" for order_id in [*BATCH, "o-10"]}
    letter = found["e-o-3"]
    assert list(letter) == ["version", "timestamp", "requestContext", "requestPayload", "responsePayload"]
    assert list(letter["requestContext"]) == ["requestId", "functionArn", "condition"]
    assert letter["requestContext"]["condition"] == "NotAnnounced"
    assert letter["responsePayload"]["errorType"] == "AuthorizationErrorException"
    assert "AuthorizationError" in letter["responsePayload"]["errorMessage"]
    change = RECORDS[3]["dynamodb"]
    assert letter["requestPayload"] == {
        "Records": [
            {
                "eventID": "e-o-3",
                "eventName": "INSERT",
                "eventSourceARN": ENVIRONMENT["ORDERS_STREAM_ARN"],
                "dynamodb": {
                    "ApproximateCreationDateTime": change["ApproximateCreationDateTime"],
                    "Keys": {"orderID": {"S": "o-3"}},
                    "SequenceNumber": change["SequenceNumber"],
                    "NewImage": {"customerID": {"S": "c-1"}},
                },
            }
        ]
    }
    # It is enough to announce the order by.
    assert announced(*letter["requestPayload"]["Records"])[0].message.endswith("- order o-3 of customer c-1")


@pytest.mark.parametrize("fault", ["AccessDenied", "ServiceUnavailable", "one entry"])
def test_what_the_failures_queue_refuses_comes_again(api: Api, aws: Aws, fault: str) -> None:
    with Stubber(aws.sns) as sns, Stubber(aws.sqs) as sqs:
        sns.add_client_error("publish", "AuthorizationError", http_status_code=403)
        if fault == "one entry":
            entry = {"Id": "3", "Code": "InternalError", "SenderFault": False}
            sqs.add_response("send_message_batch", {"Successful": [], "Failed": [entry]})
        else:
            sqs.add_client_error("send_message_batch", fault, http_status_code=503 if "Un" in fault else 403)
        answer = api.client.lambda_.invoke("announce_orders", {"Records": RECORDS}).payload
    first = RECORDS[3 if fault == "one entry" else 0]
    assert answer == {"batchItemFailures": [{"itemIdentifier": first["dynamodb"]["SequenceNumber"]}]}


# --- Reading ----------------------------------------------------------------------------------------------------------


def test_a_customers_list_has_nothing_of_others_wherever_its_next_is_from(aws: Aws) -> None:
    store(aws, messages(*[order(f"o-{number}", f"c-{number % 2}") for number in range(6)]))
    read = {"dynamodb": aws.dynamodb, "table": TABLE, "now": NOW}
    page = orders.newest(Page(2, None, {"customerID": "c-0"}), date(2026, 1, 1), **read)
    assert [each["orderID"] for each in page["orders"]] == ["o-4", "o-2"]
    page = orders.newest(Page(2, page["next"], {"customerID": "c-1"}), date(2026, 1, 1), **read)
    assert [each["orderID"] for each in page["orders"]] == ["o-1"]


def test_a_busy_table_is_a_503(aws: Aws) -> None:
    with Stubber(aws.dynamodb) as dynamodb:
        dynamodb.add_client_error("get_item", "ThrottlingException", http_status_code=400)
        with pytest.raises(Unavailable, match=r"^GetItem does not answer for now"):
            orders.get("o-1", dynamodb=aws.dynamodb, table=TABLE)
