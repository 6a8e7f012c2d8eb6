"""Tests that an alarm about a queue reaches the inbox, and ends when the queue is empty."""

from typing import Any

import pytest

from tests.system.letters import own_letters
from tests.system.system import System, new_id, wait_for


def alarm(system: System, name: str) -> dict[str, Any]:
    [found] = system.aws("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    return dict(found)


@pytest.mark.parametrize(("queue", "name"), [("ORDERS_DEAD_LETTER", "orders-dead"), ("FAILURES_QUEUE", "failures")])
def test_a_dead_letter_raises_an_alarm_that_reaches_the_inbox(system: System, queue: str, name: str) -> None:
    with own_letters(system) as letters:
        letters.put(f"{queue}_URL", "what is this?")
        # An earlier test's dead letter may already have raised the alarm.
        wait_for(lambda: alarm(system, f"cafe-dev-{name}")["StateValue"] == "ALARM", f"the alarm {name}")
        assert "Runbook: Dead letters" in system.notification(f"cafe-dev-{name}", "alarm")["message"]


def test_an_alarm_ends_without_a_message_when_its_queue_is_empty(system: System) -> None:
    # The test has its own queue and alarm, because the shared queues may contain other dead letters.
    sqs, cloudwatch, name = system.aws("sqs"), system.aws("cloudwatch"), new_id("watched")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    settable = cloudwatch.meta.service_model.operation_model("PutMetricAlarm").input_shape.members
    settings = {key: value for key, value in alarm(system, "cafe-dev-failures").items() if key in settable}
    # On AWS, the period would be at least a minute.
    settings |= {"AlarmName": name, "Dimensions": [{"Name": "QueueName", "Value": name}], "Period": 10}
    cloudwatch.put_metric_alarm(**settings)
    try:
        sqs.send_message(QueueUrl=url, MessageBody="x")
        entry = system.notification(name, "alarm")
        assert entry["subject"] == f'ALARM: "{name}" in US East (N. Virginia)'
        sqs.purge_queue(QueueUrl=url)
        wait_for(lambda: alarm(system, name)["StateValue"] == "OK", "the end of the alarm")
        assert system.notifications(name, "alarm") == [entry]
    finally:
        cloudwatch.delete_alarms(AlarmNames=[name])
        sqs.delete_queue(QueueUrl=url)
