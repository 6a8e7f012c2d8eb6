"""Tests changes to stored orders under faults.

Every accepted change must be made once, and a correction or cancellation must be announced at least once.
"""

from collections import Counter
from typing import Any

from tests.faults import counting
from tests.faults.cases import SOME, Case, cases, killing, short, wire
from tests.faults.conftest import Record
from tests.faults.counting import Count, order
from tests.faults.test_orders import ANNOUNCE
from tests.system.faults import cut_after, cut_before, failed, failed_after, invalid, throttled, unavailable
from tests.system.stack import Faulty
from tests.system.system import Answer, new_id
from tests.system.waiting import at_once, wait_for

WRITE = "dynamodb:UpdateItem"
CORRECTION = {"items": [{"item": "Decaf", "quantity": 3}], "note": "no sugar"}
CANCELLATION = {"from": "PLACED", "status": "CANCELLED"}


def placed(system: Faulty, number: int = 6) -> list[str]:
    """Places orders, and waits for their announcements. Returns their ids."""
    accepted = counting.place(system, [order("changed") for _ in range(number)])
    wait_for(lambda: set(accepted) <= counting.announcements(system).keys(), "the announcements")
    return accepted


def send(system: Faulty, order_id: str, change: dict[str, Any], key: str) -> Answer:
    return system.request("PATCH", f"/orders/{order_id}", change, Idempotency_Key=key)


def change(system: Faulty, order_ids: list[str]) -> list[str]:
    """Corrects and cancels orders in turn, and repeats a request after a 503. Returns the ids of the orders."""
    for number, order_id in enumerate(order_ids):
        key = new_id("k")
        for _ in range(counting.TRIES):
            answer = send(system, order_id, CANCELLATION if number % 2 else CORRECTION, key)
            if answer.status != 503:
                break
        assert answer.status == 200, answer.text
    return order_ids


def announced(system: Faulty) -> Counter[str]:
    """Counts how often the subscriber received the first change to each order."""
    found = [each.facts.get("changes", []) for each in system.subscriber.messages()]
    return Counter(order_id for changes in found for order_id, version, _ in changes if version == 1)


def count_changes(system: Faulty, accepted: list[str]) -> Count:
    """Counts the orders whose only change was not made or not announced, or was made or stored more than once."""
    waiting = counting.settled_or_dead(system, lambda: set(accepted) - announced(system).keys())
    seen = announced(system)
    entries = Counter(
        each["message"] for each in counting.inbox(system) if any(one in each["message"] for one in accepted)
    )
    made = {each: len(system.get(f"/orders/{each}")["changes"]) for each in accepted}
    return Count(
        accepted=len(accepted),
        lost=sum(1 for each in accepted if not made[each] or not (seen[each] or each in waiting)),
        doubled=sum(n - 1 for n in made.values() if n) + sum(n - 1 for n in entries.values()),
        again=sum(seen[each] - 1 for each in accepted if seen[each]),
        waiting=len(waiting),
    )


@cases(
    {
        "DynamoDB throttles the change": wire(WRITE, throttled, first=SOME),
        "DynamoDB returns 500 for the change": wire(WRITE, failed, first=SOME),
        "the connection is cut before the change": wire(WRITE, cut_before, first=SOME),
        "the change is made, but the response is lost": wire(WRITE, cut_after, first=SOME),
        "the change is made, but the response is 500": wire(WRITE, failed_after, first=SOME),
        "DynamoDB throttles the API's read of the order": wire("dynamodb:GetItem", throttled, first=SOME),
        "SNS throttles the announcement of a change": wire(**ANNOUNCE, fault=throttled, first=SOME),
        "SNS returns 503 for the announcement of a change": wire(**ANNOUNCE, fault=unavailable, first=SOME),
        "SNS accepts the announcement of a change, but its response is lost": wire(
            **ANNOUNCE, fault=cut_after, first=3
        ),
        "announce_orders is killed before it publishes a change": killing("sns:Publish", "announce_orders"),
        "announce_orders is killed after it publishes a change": killing("sns:Publish", "announce_orders", done=True),
        "one call in five fails": wire("(dynamodb|sns|sqs):.*", failed, share=0.2),
    },
    in_short=["the change is made, but the response is lost"],
)
def test_changes_made_during_this_fault(system: Faulty, case: Case, record: Record) -> None:
    orders = placed(system)
    with case(system):
        change(system, orders)
    record(count_changes(system, orders))


def test_changes_in_an_outage_complete_without_a_person(system: Faulty, record: Record) -> None:
    early, late = placed(system), placed(system)
    with wire("sns:.*", unavailable)(system) as rule:
        change(system, early)
        wait_for(lambda: rule.met >= 5, "several tries")
        change(system, late)
        wait_for(lambda: rule.met >= 10, "many tries")
        assert not counting.dead(system, early + late)
    count = count_changes(system, early + late)
    record(count)
    assert not count.waiting


def test_a_change_that_dynamodb_cannot_take_is_repeated_with_its_key(system: Faulty, record: Record) -> None:
    orders, key = placed(system, 2), new_id("k")
    outages = [wire("dynamodb:.*", unavailable), wire(WRITE, cut_after)]
    for order_id, outage in zip(orders, outages, strict=True):
        with outage(system):
            answers = [send(system, order_id, CANCELLATION, key + order_id) for _ in range(2)]
        # The second request finds the change that the first one made.
        assert [each.status for each in answers] == ([503, 503] if outage is outages[0] else [503, 200])
        assert send(system, order_id, CANCELLATION, key + order_id).json["status"] == "CANCELLED"
        assert send(system, order_id, CANCELLATION, new_id("k")).status == 409
    record(count_changes(system, orders))


def test_one_change_is_refused_by_sns_and_its_neighbours_are_announced(system: Faulty, record: Record) -> None:
    # The stream delivers all changes in one batch, because SNS is unavailable until all of them are made.
    orders = placed(system)
    odd = orders[2]
    with wire(**ANNOUNCE, fault=unavailable)(system):
        change(system, orders)
    with system.wire.fault(**ANNOUNCE, fault=invalid, when=lambda call: odd in call):
        count = count_changes(system, orders)
    assert count.waiting == 1
    [letter] = [each for each in system.get("/dead-letters?limit=100")["deadLetters"] if odd in each["what"]]
    assert letter["what"] == f"announcement of corrected order {odd} of customer changed"
    counting.redrive(system, odd)
    count = count_changes(system, orders)
    record(count)
    assert not count.waiting


def test_the_stream_replays_changes_and_the_queue_replays_orders(system: Faulty, record: Record) -> None:
    orders = [order("changed") for _ in range(6)]
    ids = counting.place(system, orders)
    wait_for(lambda: set(ids) <= counting.announcements(system).keys(), "the announcements")
    change(system, ids)
    before = [system.get(f"/orders/{each}") for each in ids]
    counting.send(system, [*orders, *reversed(orders)])
    assert counting.place(system, orders) == ids
    count = count_changes(system, ids)
    wait_for(lambda: all(counting.inbox(system, f"{each} of customer changed was") for each in ids), "the inbox")
    records = counting.stream_records(system, ids)
    for each in records:
        # Records that are a few seconds old are looked up in the inbox.
        each["dynamodb"]["ApproximateCreationDateTime"] -= 10
    for size in (5, len(records)):
        system.call("announce_orders", {"Records": records[:size]})
    assert count_changes(system, ids) == count
    record(count)
    assert [system.get(f"/orders/{each}") for each in ids] == before


@short
def test_the_same_change_ten_times_at_once_with_a_key(system: Faulty, record: Record) -> None:
    [order_id], key = placed(system, 1), new_id("k")
    answers = at_once(lambda: send(system, order_id, CANCELLATION, key))
    assert {(each.status, each.json["status"], each.json["version"]) for each in answers} == {(200, "CANCELLED", 1)}
    record(count_changes(system, [order_id]))
