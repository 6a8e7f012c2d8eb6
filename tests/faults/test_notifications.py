"""Tests the inbox (flow 5) under faults. Every published notification and alarm must be in the inbox exactly once."""

import json

from tests.faults import counting
from tests.faults.cases import Case, cases, killing, short, wire
from tests.faults.conftest import Record
from tests.faults.counting import count_notifications
from tests.system.events import sns_event, undelivered
from tests.system.faults import cut_after, cut_before, failed, failed_after, throttled, unavailable
from tests.system.stack import Faulty
from tests.system.system import new_id, wait_for
from tests.system.waiting import at_once

KEEP = {"operation": "dynamodb:PutItem", "caller": "record_notification"}
# SNS delivers a notification up to three times, and each delivery attempts the write twice.
FEW = 4


@cases(
    {
        "DynamoDB throttles": wire(**KEEP, fault=throttled, first=FEW),
        "DynamoDB returns 500": wire(**KEEP, fault=failed, first=FEW),
        "DynamoDB stores it but returns 500": wire(**KEEP, fault=failed_after, first=FEW),
        "DynamoDB stores it, but its response is lost": wire(**KEEP, fault=cut_after, first=FEW),
        "the connection is cut before the write": wire(**KEEP, fault=cut_before, first=FEW),
        "the function is killed before the write": killing("dynamodb:PutItem", "record_notification"),
        "the function is killed after the write": killing("dynamodb:PutItem", "record_notification", done=True),
        "one call in five fails": wire("dynamodb:PutItem", unavailable, share=0.2),
    }
)
def test_notifications_published_during_this_fault(system: Faulty, case: Case, record: Record) -> None:
    keys = [new_id("n") for _ in range(5)]
    with case(system):
        counting.publish(system, keys)
    record(count_notifications(system, keys))


@short
def test_dynamodb_is_unavailable_for_longer_than_all_tries(system: Faulty, record: Record) -> None:
    keys = [new_id("n"), new_id("n")]
    # The fault applies only to this test's keys, because an earlier test's notifications may still arrive.
    with system.wire.fault(**KEEP, fault=throttled, when=lambda call: any(key in call for key in keys)):
        counting.publish(system, keys)
        wait_for(lambda: counting.in_queue(system, "RETRIES_QUEUE_URL"), "a notification in the retries queue")
    record(count_notifications(system, keys))


@short
def test_sns_cannot_deliver_a_notification_to_the_inbox(system: Faulty, record: Record) -> None:
    key = new_id("n")
    letter = undelivered(system.env["TOPIC_ARN"], "For the inbox", key, key=key)
    system.aws("sqs").send_message(QueueUrl=system.env["RETRIES_QUEUE_URL"], MessageBody=json.dumps(letter))
    count = count_notifications(system, [key])
    # The other subscribers had the notification when it was published.
    assert not system.subscriber.about(key)
    record(count)


def test_each_notification_is_delivered_three_times_and_out_of_order(system: Faulty, record: Record) -> None:
    keys = [new_id("n") for _ in range(4)]
    events = [sns_event(key) for key in keys]
    for each in [*events, *reversed(events), *events]:
        system.call("record_notification", each)
    record(count_notifications(system, keys))


def test_the_same_notification_ten_times_at_once(system: Faulty, record: Record) -> None:
    key = new_id("n")
    at_once(lambda: system.call("record_notification", sns_event(key)))
    record(count_notifications(system, [key]))


def test_a_broken_message_among_good_ones(system: Faulty, record: Record) -> None:
    first, last = new_id("n"), new_id("n")
    broken = {"Records": [sns_event(first)["Records"][0], {"Sns": {"MessageId": new_id("m")}}]}
    ok, _ = system.invoke("record_notification", broken)
    assert not ok
    system.call("record_notification", sns_event(first, last))
    record(count_notifications(system, [first, last]))
