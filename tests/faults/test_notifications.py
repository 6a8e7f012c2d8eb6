"""Flow 5: every published notification, and every alarm, is in the inbox once."""

import json
from concurrent.futures import ThreadPoolExecutor

from tests.faults import counting
from tests.faults.conftest import Tell
from tests.faults.counting import count_notifications, name, sns_event
from tests.faults.weather import Weather, cases, killing, short, wire
from tests.system.stack import Faulty
from tests.system.wire import cut_after, cut_before, failed, failed_after, throttled, unavailable

KEEP = {"operation": "dynamodb:PutItem", "caller": "record_notification"}
# Three deliveries of two tries each are six: one more would be for good.
FEW = 4


@cases(
    {
        "DynamoDB throttles": wire(**KEEP, fault=throttled, first=FEW),
        "DynamoDB answers 500": wire(**KEEP, fault=failed, first=FEW),
        "DynamoDB keeps it and says 500": wire(**KEEP, fault=failed_after, first=FEW),
        "DynamoDB keeps it and the answer is lost": wire(**KEEP, fault=cut_after, first=FEW),
        "the connection is cut before the write": wire(**KEEP, fault=cut_before, first=FEW),
        "the function is killed before the write": killing("dynamodb:PutItem", "record_notification"),
        "the function is killed after the write": killing("dynamodb:PutItem", "record_notification", done=True),
        "one of five calls fails": wire("dynamodb:PutItem", unavailable, share=0.2),
    },
    in_short=["DynamoDB keeps it and the answer is lost"],
)
def test_notifications_published_in_this_weather(system: Faulty, weather: Weather, tell: Tell) -> None:
    with weather(system):
        keys = counting.publish(system, 5)
    tell(count_notifications(system, keys))


def test_dynamodb_is_away_for_longer_than_all_tries(system: Faulty, tell: Tell) -> None:
    with system.wire.fault(**KEEP, fault=throttled):
        keys = counting.publish(system, 2)
        count = count_notifications(system, keys)
    assert count.waiting == 2
    for body in counting.letters(system, "FAILURES_QUEUE_URL"):
        if any(key in body for key in keys):
            ok, error = system.invoke("record_notification", counting.request_in(body))
            assert ok, error
    tell(count_notifications(system, keys))


@short
def test_each_notification_is_delivered_three_times_and_out_of_order(system: Faulty, tell: Tell) -> None:
    keys = [name("n") for _ in range(4)]
    events = [sns_event(key) for key in keys]
    for each in [*events, *reversed(events), *events]:
        ok, error = system.invoke("record_notification", each)
        assert ok, error
    tell(count_notifications(system, keys))


def test_the_same_notification_at_the_same_moment_ten_times(system: Faulty, tell: Tell) -> None:
    key = name("n")
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: system.invoke("record_notification", sns_event(key)), range(10)))
    assert all(ok for ok, _ in answers)
    tell(count_notifications(system, [key]))


def test_a_broken_message_among_good_ones(system: Faulty, tell: Tell) -> None:
    first, last = name("n"), name("n")
    broken = {"Records": [sns_event(first)["Records"][0], {"Sns": {"MessageId": name("m")}}]}
    ok, _ = system.invoke("record_notification", broken)
    assert not ok
    ok, error = system.invoke("record_notification", sns_event(first, last))
    assert ok, error
    tell(count_notifications(system, [first, last]))


def test_an_alarm_is_delivered_twice(system: Faulty, tell: Tell) -> None:
    text = json.dumps({"AlarmName": name("alarm"), "NewStateValue": "ALARM"})
    event = sns_event(text)
    del event["Records"][0]["Sns"]["MessageAttributes"]
    for _ in range(2):
        ok, error = system.invoke("record_alarm", event)
        assert ok, error
    tell(count_notifications(system, [text]))
