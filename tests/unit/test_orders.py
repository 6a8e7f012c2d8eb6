"""Tests which orders are valid, which orders reach the queue, and which orders a list shows."""

import json
import unicodedata
from datetime import date
from typing import Any

import pytest
from botocore.stub import Stubber
from hypothesis import example, given
from hypothesis import strategies as st

from chalicelib import queues
from chalicelib.errors import Conflict, InvalidRequest, Unavailable
from chalicelib.orders import listing, placing
from chalicelib.orders.order import BLANK, ORDER_ID, Item, Order
from chalicelib.orders.store import _insertion
from chalicelib.rest import Page
from tests.unit.cloud import Aws
from tests.unit.ordering import NOW, PLACED_AT, QUEUE_URL, TABLE, messages, order, store


def body(**fields: Any) -> dict[str, Any]:
    return {"customerID": "c-1", "item": "Lima", **fields}


def problems(given: Any) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        placing.parse(given, NOW)
    return [str(each) for each in caught.value.problems]


def test_the_quantity_of_a_single_item_defaults_to_1() -> None:
    (parsed,) = placing.parse(body(orderID="o-1"), NOW)
    assert parsed == Order("o-1", "c-1", (Item("Lima", 1),), None)
    assert parsed.placed_at == PLACED_AT


def test_the_idempotency_key_gives_orders_their_ids() -> None:
    assert placing.parse(body(), NOW, "monday")[0].order_id == "monday"
    first = [order.order_id for order in placing.parse([body()] * 100, NOW, "k" * 64)]
    assert first == [order.order_id for order in placing.parse([body()] * 100, NOW, "k" * 64)]
    assert len(set(first)) == 100
    assert all(ORDER_ID.fullmatch(order_id) for order_id in first)
    assert not set(first) & {order.order_id for order in placing.parse([body()] * 100, NOW, "another")}
    # An order that is sent with an id keeps that id.
    given = [body(orderID="o-1"), body()]
    assert placing.parse(given, NOW, "monday")[0].order_id == "o-1"
    assert placing.parse(given[0], NOW, "monday")[0].order_id == "o-1"


def test_the_largest_order_fits_into_one_message_and_one_item() -> None:
    """An SQS message can have up to 1 MiB, and a DynamoDB item up to 400 KB.

    A character needs up to 12 bytes in a message, and up to 4 bytes in an item.
    """
    largest = Order("x" * 64, "😀" * 64, (Item("😀" * 200, 10_000),) * 100, "😀" * 500, PLACED_AT)
    assert len(largest.to_json()) < queues.BYTES
    assert len(json.dumps(_insertion(largest, TABLE), ensure_ascii=False).encode()) < 400_000


BAD_ID = "orderID: must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -"
BAD_ITEMS = "items: must be a list of 1 to 100 objects with item and quantity"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ["customerID: is missing", "item: is missing"]),
        *((body(customerID=each), ["customerID: must be a string"]) for each in (None, 7)),
        (body(customerID="c" * 65), ["customerID: must have 1 to 64 characters, but has 65"]),
        *((body(customerID=each), ["customerID: is blank"]) for each in ("  ", "\u200b\u2060")),
        *((body(item=each), ["item: is blank"]) for each in ("\u200b\ufeff \u00ad", "\u3164\u2800", "\u200d\ufe0f")),
        (body(customerID="\u0958" * 64), ["customerID: must have 1 to 64 characters, but has 128"]),
        (body(item=["Lima"]), ["item: must be a string"]),
        (body(item="i" * 201), ["item: must have 1 to 200 characters, but has 201"]),
        (body(item="a\nb"), ["item: contains U+000A at position 1, which is not allowed"]),
        (body(item="\u0085x"), ["item: contains U+0085 at position 0, which is not allowed"]),
        (body(note="n" * 501), ["note: must have 0 to 500 characters, but has 501"]),
        (body(note="a\u001b[31m"), ["note: contains U+001B at position 1, which is not allowed"]),
        *((body(orderID=each), [BAD_ID]) for each in ("", "o" * 65, "a/b", "o-1\n", "é", None, 1)),
        (body(requestedBy="eve"), ["requestedBy: is not a field of an order"]),
        (body(**{"a\n\ud800": 1}), ['"a\\n\\ud800": is not a field of an order']),
        (body(**{"x" * 100_000: 1}), [f"{'x' * 40}: is not a field of an order"]),
        (body(items=[{"item": "x"}]), ["items: cannot be combined with item or quantity; send either items or item"]),
        *(({"customerID": "c", "items": each}, [BAD_ITEMS]) for each in ([], {}, [{"item": "x"}] * 101)),
        ({"customerID": "c", "items": ["x"]}, ["items[0]: must be an object with item and quantity"]),
        (
            {"customerID": "c", "items": [{"item": "x"}, {"item": "", "quantity": 0, "size": "L"}]},
            [
                "items[1].size: is not a field of an item",
                "items[1].quantity: must be a whole number from 1 to 10,000",
                "items[1].item: must have 1 to 200 characters, but has 0",
            ],
        ),
        ([body(), []], ["orders[1]: must be an object with customerID and item or items"]),
        ([], ["orders: must contain 1 to 100 orders, not 0"]),
        ([body()] * 101, ["orders: must contain 1 to 100 orders, not 101"]),
        *((each, ["body: must be an object with customerID and item or items"]) for each in ("order", None, 5, True)),
    ],
)
def test_an_invalid_order_names_each_wrong_field_and_its_problem(given: Any, expected: list[str]) -> None:
    assert problems(given) == expected


def test_null_is_no_note_and_visible_characters_may_have_invisible_ones_between_them() -> None:
    (parsed,) = placing.parse(body(orderID="o-1", note=None, item="\u200bfamily \U0001f468\u200d\U0001f469"), NOW)
    assert (parsed.note, parsed.items[0].item) == (None, "\u200bfamily \U0001f468\u200d\U0001f469")
    assert parsed.digest() == placing.parse({**body(orderID="o-1"), "item": parsed.items[0].item}, NOW)[0].digest()


def test_a_customer_is_the_same_in_every_normal_form() -> None:
    (composed,), (separate,) = (
        placing.parse(body(orderID="o", customerID=each), NOW) for each in ("Zo\xeb", "Zoe\u0308")
    )
    assert composed == separate
    assert separate.customer_id == "Zo\xeb"
    assert len(placing.parse(body(customerID="e\u0308" * 64), NOW)[0].customer_id) == 64


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["orderID", "customerID", "item", "quantity", "items", "note"])


def is_visible(text: str) -> bool:
    return not BLANK.fullmatch(text)


CHARACTERS = st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff")
TEXT = st.text(CHARACTERS, min_size=1).filter(is_visible)
PAIR = {"item": TEXT.map(lambda text: text[:200]).filter(is_visible), "quantity": st.integers(1, 10_000)}
ORDERS = st.fixed_dictionaries(
    {"customerID": TEXT.map(lambda text: unicodedata.normalize("NFC", text)[:64]).filter(is_visible)},
    optional={"orderID": st.from_regex(ORDER_ID, fullmatch=True), "note": st.just("") | TEXT},
)


@given(
    ORDERS,
    st.fixed_dictionaries(PAIR) | st.fixed_dictionaries({"items": st.lists(st.fixed_dictionaries(PAIR), min_size=1)}),
)
def test_every_valid_order_is_accepted_unchanged_and_read_back_from_its_message(head: Any, items: Any) -> None:
    given = head | items
    (parsed,) = placing.parse(given, NOW)
    assert parsed.customer_id == unicodedata.normalize("NFC", given["customerID"])
    assert parsed.note == given.get("note")
    assert parsed.order_id == given.get("orderID", parsed.order_id)
    assert [vars(each) for each in parsed.items] == given.get("items", [items])
    assert Order.from_json(parsed.to_json()) == parsed


def test_an_order_is_the_same_if_an_older_version_stored_it_with_decomposed_accents() -> None:
    order, decomposed, other = (Order("o", each, (Item("x", 1),)) for each in ("Zo\xeb", "Zoe\u0308", "Zoe"))
    assert [order.is_stored_as(each.digest()) for each in (order, decomposed, other)] == [True, True, False]


MESSAGES = st.dictionaries(FIELDS | st.sampled_from(["placedAt", "requestedBy"]), JSON).map(json.dumps)


@given(st.text() | JSON.map(json.dumps) | MESSAGES)
@example("x" * 1_000_000)
@example(json.dumps({"placedAt": "9" * 1_000_000, "note": None, "orderID": "o"}))
def test_any_message_is_an_order_or_is_refused_with_a_short_reason(text: str) -> None:
    try:
        Order.from_json(text)
    except InvalidRequest as error:
        words = str(error)
    else:
        return
    assert 0 < len(words) <= 2_000


def test_a_message_has_its_senders_name_which_is_not_part_of_the_order() -> None:
    ana, ben = (placing.parse(body(orderID="o-1"), NOW, None, name)[0] for name in ("ana", "ben"))
    assert ana == ben
    assert ana.digest() == ben.digest()
    assert Order.from_json(ana.to_json()).requested_by == "ana"
    by_hand = json.loads(ana.to_json())
    del by_hand["requestedBy"]
    assert Order.from_json(json.dumps(by_hand)) == ana
    assert Order.from_json(json.dumps(by_hand)).requested_by is None


@pytest.mark.parametrize("name", [7, [], {}, "x" * 129, "a\nb", "\ud800"])
def test_a_message_with_an_impossible_name_is_refused(name: Any) -> None:
    (parsed,) = placing.parse(body(orderID="o-1"), NOW)
    with pytest.raises(InvalidRequest):
        Order.from_json(json.dumps({**json.loads(parsed.to_json()), "requestedBy": name}))


def enqueue(aws: Aws, *given: Order) -> None:
    placing.enqueue(list(given), sqs=aws.sqs, queue_url=QUEUE_URL, dynamodb=aws.dynamodb, table=TABLE)


def test_only_orders_that_are_not_stored_are_queued_each_once(aws: Aws) -> None:
    store(aws, messages(order("o-1"), order("o-2")))
    calls = aws.calls(aws.dynamodb, "BatchGetItem")
    enqueue(aws, order("o-1"), order("o-2"), order("o-3"), order("o-3"))
    assert [each["orderID"] for each in aws.queued()] == ["o-3"]
    # Only a consistent read returns an order that was stored a moment ago.
    assert calls[0]["RequestItems"][TABLE]["ConsistentRead"] is True


def test_every_order_that_is_stored_with_different_content_is_named(aws: Aws) -> None:
    store(aws, messages(order("o-1"), order("o-2"), order("o-3")))
    with pytest.raises(Conflict, match=r"^orderID: is already stored with different content: o-1, o-3"):
        enqueue(aws, order("o-1", quantity=9), order("o-2"), order("o-3", quantity=9), order("o-4"))
    assert aws.queued() == []


def test_each_part_of_an_orders_content_changes_its_digest_and_the_time_does_not() -> None:
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


def test_orders_that_the_queue_refuses_are_named_and_the_others_are_queued(aws: Aws) -> None:
    failed = [{"Id": each, "SenderFault": False, "Code": "InternalError"} for each in ("3", "7")]
    with Stubber(aws.sqs) as sqs:
        sqs.add_response("send_message_batch", {"Successful": [], "Failed": failed})
        sqs.add_response("send_message_batch", {"Successful": [], "Failed": []})
        with pytest.raises(
            Unavailable,
            match=r"^2 of 12 orders .*: orders\[3\] as o-3, orders\[7\] as o-7\. The other orders were accepted",
        ):
            enqueue(aws, *[order(f"o-{number}") for number in range(12)])
        sqs.assert_no_pending_responses()


def test_keys_that_dynamodb_does_not_process_are_a_503(aws: Aws) -> None:
    with Stubber(aws.dynamodb) as dynamodb:
        unprocessed = {TABLE: {"Keys": [{"orderID": {"S": "o-1"}}]}}
        dynamodb.add_response("batch_get_item", {"Responses": {TABLE: []}, "UnprocessedKeys": unprocessed})
        with pytest.raises(Unavailable, match="the orders table is busy"):
            enqueue(aws, order())
    assert aws.queued() == []


@pytest.mark.parametrize("asked", ["Zo\xeb", "Zoe\u0308"])
def test_a_customers_list_also_has_orders_that_an_older_version_stored_in_another_normal_form(
    aws: Aws, asked: str
) -> None:
    # The function store_orders composes the customer id, so the test changes the id in the table.
    store(aws, messages(*[order(f"o-{number}", "Zo\xeb") for number in range(4)]))
    old = aws.stored()["o-2"] | {"customerID": {"S": "Zoe\u0308"}}
    aws.dynamodb.put_item(TableName=TABLE, Item=old)
    read = {"dynamodb": aws.dynamodb, "table": TABLE, "now": NOW}
    page = listing.newest(Page(2, None, {"customerID": asked}), date(2026, 1, 1), **read)
    rest = listing.newest(Page(2, page["next"], {"customerID": asked}), date(2026, 1, 1), **read)
    assert [each["orderID"] for each in page["orders"] + rest["orders"]] == ["o-3", "o-2", "o-1", "o-0"]


def test_a_customers_list_has_only_their_orders_even_with_another_lists_token(aws: Aws) -> None:
    store(aws, messages(*[order(f"o-{number}", f"c-{number % 2}") for number in range(6)]))
    read = {"dynamodb": aws.dynamodb, "table": TABLE, "now": NOW}
    page = listing.newest(Page(2, None, {"customerID": "c-0"}), date(2026, 1, 1), **read)
    assert [each["orderID"] for each in page["orders"]] == ["o-4", "o-2"]
    page = listing.newest(Page(2, page["next"], {"customerID": "c-1"}), date(2026, 1, 1), **read)
    assert [each["orderID"] for each in page["orders"]] == ["o-1"]
