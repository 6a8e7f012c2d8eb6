"""Tests that an alarm is raised while dead letters wait, reaches the inbox, and ends when the queue is empty."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from tests.system.letters import own_letters
from tests.system.system import System, new_id, wait_for


def alarm(system: System, name: str) -> dict[str, Any]:
    [found] = system.aws("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    return dict(found)


@pytest.mark.parametrize(
    ("queue", "name"), [("ORDERS_DEAD_LETTER_URL", "cafe-dev-orders-dead"), ("FAILURES_QUEUE_URL", "cafe-dev-failures")]
)
def test_a_dead_letter_raises_an_alarm_that_reaches_the_inbox(system: System, queue: str, name: str) -> None:
    with own_letters(system) as letters:
        letters.put(queue, "what is this?")
        wait_for(lambda: alarm(system, name)["StateValue"] == "ALARM", f"the alarm {name}")
        # An earlier test's dead letter may have raised the alarm.
        since = alarm(system, name)["StateUpdatedTimestamp"]

        def messages() -> list[dict[str, Any]]:
            alarms = [n for n in system.all("/notifications?kind=alarm", "notifications") if name in n["subject"]]
            contents = [json.loads(each["message"]) for each in alarms]
            return [each for each in contents if datetime.fromisoformat(each["StateChangeTime"]) >= since]

        message = wait_for(messages, f"the message of the alarm {name}")[-1]
    assert (message["AlarmName"], message["NewStateValue"]) == (name, "ALARM")
    assert message["AlarmDescription"].endswith("Runbook: Dead letters")
    [dimension] = message["Trigger"]["Dimensions"]
    assert system.env[queue].endswith("/" + dimension["value"])


def test_an_alarm_ends_without_a_message_when_its_queue_is_empty(system: System) -> None:
    # The test has its own queue and alarm, because other tests leave messages in the shared queues for a moment.
    sqs, cloudwatch, name = system.aws("sqs"), system.aws("cloudwatch"), new_id("watched")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    settings = {key: alarm(system, "cafe-dev-failures")[key] for key in SETTINGS}
    dimensions = [{"Name": "QueueName", "Value": name}]
    # AWS would require a period of a minute, but the test would take longer.
    cloudwatch.put_metric_alarm(**settings, AlarmName=name, Dimensions=dimensions, Period=10)
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


SETTINGS = (
    *("Namespace", "MetricName", "Statistic", "EvaluationPeriods", "Threshold", "ComparisonOperator"),
    *("TreatMissingData", "AlarmActions"),
)
