"""Tests orders (flow 2) under faults. Every accepted order must be stored once and announced at least once."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.faults import counting
from tests.faults.cases import SOME, Case, cases, killing, short, wire
from tests.faults.conftest import Record
from tests.faults.counting import count_orders, order
from tests.system.events import sqs_event
from tests.system.faults import (
    cut_after,
    cut_before,
    denied,
    failed,
    failed_after,
    invalid,
    late,
    refusing,
    throttled,
    unavailable,
)
from tests.system.letters import own_letters
from tests.system.stack import Faulty
from tests.system.system import Answer, new_id, wait_for
from tests.system.waiting import at_once

WRITE = "dynamodb:BatchExecuteStatement"
# The batches are written concurrently, so this number of faults covers both attempts of every batch.
MANY = 12
ANNOUNCE = {"operation": "sns:Publish", "caller": "announce_orders"}


@cases(
    {
        "SQS throttles the API": wire("sqs:SendMessageBatch", throttled, first=SOME),
        "SQS returns 500 to the API": wire("sqs:SendMessageBatch", failed, first=SOME),
        "SQS accepts the messages, but its response is lost": wire("sqs:SendMessageBatch", cut_after, first=SOME),
        "SQS refuses half of each batch": wire("sqs:SendMessageBatch", refusing(), first=3),
        "DynamoDB throttles the API's read of stored orders": wire("dynamodb:BatchGetItem", throttled, first=SOME),
        "DynamoDB leaves some of the API's keys unprocessed": wire("dynamodb:BatchGetItem", refusing(), first=3),
        "DynamoDB throttles the writes": wire(WRITE, throttled, first=MANY),
        "DynamoDB returns 500 for the writes": wire(WRITE, failed, first=MANY),
        "the connection is cut before the write": wire(WRITE, cut_before, first=MANY),
        "the orders are written, but the response is lost": wire(WRITE, cut_after, first=MANY),
        "the orders are written, but the response is 500": wire(WRITE, failed_after, first=MANY),
        "DynamoDB throttles some items of each batch": wire(WRITE, refusing(), first=3),
        "SNS throttles the announcement": wire(**ANNOUNCE, fault=throttled, first=SOME),
        "SNS returns 503 for the announcement": wire(**ANNOUNCE, fault=unavailable, first=SOME),
        "SNS accepts the announcement but returns 500": wire(**ANNOUNCE, fault=failed_after, first=3),
        "SNS accepts the announcement, but its response is lost": wire(**ANNOUNCE, fault=cut_after, first=3),
        "one call in five fails": wire("(dynamodb|sns|sqs):.*", failed, share=0.2),
    },
    in_short=["the orders are written, but the response is lost"],
)
def test_orders_placed_during_this_fault(system: Faulty, case: Case, record: Record) -> None:
    with case(system):
        accepted = counting.place(system, [order("a list") for _ in range(40)])
        for _ in range(3):
            accepted += counting.place(system, [order("single")])
    record(count_orders(system, accepted))


@cases(
    {
        "DynamoDB is unavailable until the outage ends": wire("dynamodb:.*", unavailable),
        "DynamoDB refuses access until the outage ends": wire(WRITE, denied),
        "SNS is unavailable until the outage ends": wire("sns:.*", unavailable),
        "SNS refuses access until the outage ends": wire(**ANNOUNCE, fault=denied),
    },
)
def test_orders_that_arrive_in_an_outage_complete_without_a_person(system: Faulty, case: Case, record: Record) -> None:
    with case(system) as rule:
        accepted = counting.send(system, [order("early") for _ in range(9)])
        wait_for(lambda: rule.met >= 15, "several tries")
        accepted += counting.send(system, [order("late") for _ in range(9)])
        wait_for(lambda: rule.met >= 30, "many tries")
        assert not counting.dead(system, accepted)
    count = count_orders(system, accepted)
    record(count)
    assert not count.waiting


def test_throttled_invocations_do_not_use_up_tries(system: Faulty, record: Record) -> None:
    orders = [order("throttled") for _ in range(5)]
    sqs, url = system.aws("sqs"), system.env["ORDERS_QUEUE_URL"]

    def deliveries() -> int:
        name = "ApproximateReceiveCount"
        options = {"QueueUrl": url, "VisibilityTimeout": 1, "MessageSystemAttributeNames": [name]}
        messages = sqs.receive_message(**options).get("Messages", [])
        return max((int(each["Attributes"][name]) for each in messages), default=0)

    # A slow invocation takes the only place until the queue's deliveries have been throttled often enough.
    with system.concurrency("store_orders", 1), system.visibility(1), ThreadPoolExecutor(1) as pool:
        with system.wire.fault(WRITE, late(6), first=2) as rule:
            slow = pool.submit(system.invoke, "store_orders", sqs_event(counting.message(order("slow"))))
            wait_for(lambda: rule.met, "the slow write")
            accepted = counting.send(system, orders)
            wait_for(lambda: deliveries() > 5, "throttled deliveries")
        slow.result()
    count = count_orders(system, accepted)
    record(count)
    assert not count.waiting


# --- repeated deliveries ----------------------------------------------------------------------------------------------


def test_each_message_is_delivered_two_and_three_times_and_out_of_order(system: Faulty, record: Record) -> None:
    orders = [order("again") for _ in range(20)]
    counting.send(system, [*orders, *reversed(orders), *orders[10:]])
    record(count_orders(system, [each["orderID"] for each in orders]))


def test_a_poison_message_among_good_ones(system: Faulty, record: Record) -> None:
    orders = [order("good") for _ in range(9)]
    with own_letters(system) as letters:
        poison = "{" + letters.new_id("poison")
        sent = counting.send(system, [*orders[:4], poison, *orders[4:]])
        record(count_orders(system, sent))
        wait_for(lambda: counting.dead(system, [poison]), "the dead letter")


@short
def test_a_large_batch_is_redelivered_after_the_function_timed_out_halfway(system: Faulty, record: Record) -> None:
    # The function writes 25 orders at a time, and the third write hangs until Lambda's timeout. The event with all 100
    # orders is then delivered again.
    orders = [order("large") for _ in range(100)]
    event = sqs_event(*map(counting.message, orders))
    with system.timeout("store_orders", 3), system.wire.fault(WRITE, late(6), every=3, first=1):
        ok, error = system.invoke("store_orders", event)
    assert not ok
    assert "timed out" in error["errorMessage"]
    assert system.call("store_orders", event) == {"batchItemFailures": []}
    record(count_orders(system, [each["orderID"] for each in orders]))


def test_the_queue_redelivers_a_batch_after_the_function_timed_out(system: Faulty, record: Record) -> None:
    orders = [order("cut off") for _ in range(30)]
    with system.visibility(5), system.timeout("store_orders", 3), system.wire.fault(WRITE, late(6), first=2):
        sent = counting.send(system, orders)
    record(count_orders(system, sent))


@cases(
    {
        "store_orders is killed before it writes": killing(WRITE, "store_orders"),
        "store_orders is killed after it writes": killing(WRITE, "store_orders", done=True),
        "announce_orders is killed before it publishes": killing("sns:Publish", "announce_orders"),
        "announce_orders is killed after it publishes": killing("sns:Publish", "announce_orders", done=True),
    },
    in_short=["store_orders is killed after it writes"],
)
def test_orders_of_a_killed_function(system: Faulty, case: Case, record: Record) -> None:
    with system.visibility(3):
        with case(system):
            accepted = counting.place(system, [order("killed") for _ in range(20)])
        count = count_orders(system, accepted)
    record(count)


def test_the_stream_replays_its_records(system: Faulty, record: Record) -> None:
    accepted = counting.place(system, [order("replayed") for _ in range(10)])
    wait_for(lambda: not count_orders(system, accepted).lost, "the announcements")
    for _ in range(2):
        system.call("announce_orders", {"Records": counting.stream_records(system, accepted)})
    record(count_orders(system, accepted))


def test_the_queue_refuses_a_shorter_retry_delay(system: Faulty, record: Record) -> None:
    with (
        system.visibility(3),
        system.wire.fault("sqs:ChangeMessageVisibilityBatch", failed, first=2),
        system.wire.fault(WRITE, throttled, first=4),
    ):
        accepted = counting.place(system, [order("late") for _ in range(10)])
    record(count_orders(system, accepted))


def test_sns_throttles_the_notification_of_a_conflict(system: Faulty, record: Record) -> None:
    first, neighbours = order("first"), [order("neighbour") for _ in range(5)]
    stored = counting.place(system, [first])
    wait_for(lambda: not count_orders(system, stored).lost, "the first order")
    other = {**first, "item": "Tea"}
    with system.wire.fault("sns:Publish", throttled, caller="store_orders", first=4):
        sent = counting.send(system, [*neighbours[:2], other, *neighbours[2:]])
    wait_for(lambda: conflicts(system, first), "the report of the conflict")
    record(count_orders(system, sent))
    assert system.get(f"/orders/{first['orderID']}")["items"][0]["item"] == first["item"]


def conflicts(system: Faulty, placed: dict[str, Any]) -> int:
    facts = (each["facts"] for each in counting.inbox(system, placed["orderID"]))
    return counting.orders_of("conflict", facts)[placed["orderID"]]


def test_two_orders_with_the_same_id_arrive_twice_each_at_once(system: Faulty, record: Record) -> None:
    # The order that is stored first stays unchanged. The conflict with the other order is reported once.
    one = order("twins")
    other = {**one, "item": "Tea"}
    counting.send(system, [one, other, other, one])
    wait_for(lambda: conflicts(system, one), "the report of the conflict")
    record(count_orders(system, [one["orderID"]]))


def test_one_order_is_refused_by_sns_and_its_neighbours_are_announced(system: Faulty, record: Record) -> None:
    # Only the refused order becomes a dead letter. A redrive announces that order later.
    odd, neighbours = order("odd"), [order("neighbour") for _ in range(9)]
    with system.wire.fault(**ANNOUNCE, fault=invalid, when=lambda call: odd["orderID"] in call):
        accepted = counting.send(system, [*neighbours[:4], odd, *neighbours[4:]])
        count = count_orders(system, accepted)
    assert count.waiting == 1
    counting.redrive(system, odd["orderID"])
    record(count_orders(system, accepted))
    assert not count_orders(system, accepted).waiting


def test_one_order_is_refused_by_dynamodb_and_its_neighbours_are_stored(system: Faulty, record: Record) -> None:
    odd, neighbours = order("odd"), [order("neighbour") for _ in range(9)]
    with system.wire.fault(WRITE, invalid, when=lambda call: odd["orderID"] in call):
        accepted = counting.send(system, [*neighbours[:4], odd, *neighbours[4:]])
        count = count_orders(system, accepted)
    assert count.waiting == 1
    # The response to SendMessageBatch is lost during the redrive, so the order is sent twice.
    with system.wire.fault("sqs:SendMessageBatch", cut_after, caller="api", first=1):
        counting.redrive(system, odd["orderID"])
    record(count_orders(system, accepted))
    assert not count_orders(system, accepted).waiting


# --- a client that sends everything ten times ------------------------------------------------------------------------


def test_the_same_post_ten_times_at_once_with_an_order_id(system: Faulty, record: Record) -> None:
    placed = order("hasty")
    answers = at_once(lambda: system.post("/orders", placed))
    assert answers == answers[:1] * 10
    record(count_orders(system, [placed["orderID"]]))


def test_the_same_post_ten_times_at_once_with_a_key(system: Faulty, record: Record) -> None:
    bodies, key = [{"customerID": "hasty", "item": "Mocha"}, {"customerID": "hasty", "item": "Tea"}], new_id("k")
    answers = at_once(lambda: system.post("/orders", bodies, Idempotency_Key=key))
    assert answers == answers[:1] * 10
    record(count_orders(system, [each["orderID"] for each in answers[0]["orders"]]))


def test_one_key_for_two_orders_ten_times_at_once(system: Faulty, record: Record) -> None:
    key = new_id("k")

    def post(item: str) -> Answer:
        return system.request("POST", "/orders", [{"customerID": "hasty", "item": item}], Idempotency_Key=key)

    answers = at_once(post, "Mocha", "Tea")
    assert sorted(answer.status for answer in answers) == [202] * 5 + [409] * 5
    [accepted] = {answer.json["orders"][0]["orderID"] for answer in answers if answer.status == 202}
    record(count_orders(system, [accepted]))
