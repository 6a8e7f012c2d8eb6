"""Patches for CloudWatch."""

import json
import time
from datetime import UTC, datetime
from functools import wraps
from itertools import takewhile
from operator import ge, gt, le, lt
from typing import Any

# AWS publishes queue metrics and evaluates alarms once a minute.
SECONDS = 5
ACTIONS = {"OK": "OKActions", "ALARM": "AlarmActions", "INSUFFICIENT_DATA": "InsufficientDataActions"}
STATES = {"notBreaching": "OK", "breaching": "ALARM", "missing": "INSUFFICIENT_DATA"}
COMPARISONS = {"GreaterThan": gt, "GreaterThanOrEqualTo": ge, "LessThan": lt, "LessThanOrEqualTo": le}
SETTINGS = ("MetricName", "Namespace", "Unit", "Period", "EvaluationPeriods", "ComparisonOperator", "Threshold")


def queue_metrics() -> None:
    """AWS publishes the metrics of SQS queues, and evaluates all alarms, every minute.

    MiniStack publishes no queue metrics, and evaluates alarms only when a client puts metric data. The alarms
    ``orders-dead`` and ``failures`` watch the number of visible messages. This patch publishes and evaluates every five
    seconds, in the thread that checks for due schedules.
    """
    from ministack.core.responses import request_scope
    from ministack.services import cloudwatch, scheduler, sqs

    tick, due = scheduler._tick_schedules, 0.0

    @wraps(tick)
    def tick_and_publish() -> None:
        nonlocal due
        tick()
        if time.monotonic() < due:
            return
        due = time.monotonic() + SECONDS
        for (account, region, _), queue in list(sqs._queues._data.items()):
            with request_scope(account, region):
                for name, value in _figures(list(queue["messages"])).items():
                    cloudwatch.record_metric("AWS/SQS", name, value, dimensions={"QueueName": queue["name"]})
                    # The points of the last hour are enough.
                    del cloudwatch._metrics["AWS/SQS", name, f"QueueName={queue['name']}"][: -3600 // SECONDS]
        for account, region in {key[:2] for key in list(cloudwatch._alarms._data)}:
            with request_scope(account, region):
                cloudwatch._evaluate_all_alarms()

    scheduler._tick_schedules = tick_and_publish


def _figures(messages: list[dict[str, Any]]) -> dict[str, int]:
    now = time.time()
    hidden = [each for each in messages if each["visible_at"] > now]
    delayed = sum(each["receive_count"] == 0 for each in hidden)
    # AWS leaves out messages that were received more than three times, according to "Available CloudWatch metrics for
    # Amazon SQS".
    sent = [each["sent_at"] for each in messages if each["receive_count"] <= 3]
    return {
        "ApproximateNumberOfMessagesVisible": len(messages) - len(hidden),
        "ApproximateNumberOfMessagesNotVisible": len(hidden) - delayed,
        "ApproximateNumberOfMessagesDelayed": delayed,
        "ApproximateAgeOfOldestMessage": int(now - min(sent, default=now)),
    }


def alarm_evaluation() -> None:
    """AWS evaluates only the metric with the alarm's dimensions. AWS treats missing data as the alarm requires.

    MiniStack mixes all metrics with the same name, so a message in any queue would raise the alarms of all queues.
    MiniStack also never changes an alarm's state while there is no data.
    """
    from ministack.services import cloudwatch

    def evaluate(alarm: dict[str, Any]) -> None:
        dimensions = cloudwatch._dims_key(cloudwatch._dims_from_list(alarm["Dimensions"]))
        metric = cloudwatch._metrics.get((alarm["Namespace"], alarm["MetricName"], dimensions), [])
        start = time.time() - alarm["Period"] * alarm["EvaluationPeriods"]
        # The newest points come last. A busy function has many older points.
        points = list(takewhile(lambda point: point["Timestamp"] >= start, reversed(metric)))
        statistic = alarm.get("ExtendedStatistic") or alarm["Statistic"]
        value = cloudwatch._stat_value(cloudwatch._calc_stats(points), statistic, points) if points else None
        state = STATES.get(alarm["TreatMissingData"], alarm["StateValue"])
        if value is not None:
            compare = COMPARISONS[alarm["ComparisonOperator"].removesuffix("Threshold")]
            state = "ALARM" if compare(value, alarm["Threshold"]) else "OK"
        if state != alarm["StateValue"]:
            reason = f"Threshold Crossed: the datapoint is {value}, and the threshold is {alarm['Threshold']}."
            change = {"AlarmName": alarm["AlarmName"], "StateValue": state, "StateReason": reason}
            cloudwatch._set_alarm_state({}, change, is_cbor=False, is_json=True)

    cloudwatch._evaluate_alarm = evaluate


def alarm_messages() -> None:
    """AWS sends all settings of an alarm in its message. The topic's policy must allow CloudWatch to publish.

    MiniStack omits some fields and ignores the policy. The inbox stores the message.
    """
    from ministack.core.responses import get_account_id, new_uuid
    from ministack.services import cloudwatch, sns

    def timestamp(seconds: float) -> str:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")

    def send(alarm: dict[str, Any], old_state: str, new_state: str, reason: str) -> None:
        region, extended = "US East (N. Virginia)", alarm.get("ExtendedStatistic")
        kind, statistic = ("ExtendedStatistic", extended) if extended else ("Statistic", alarm["Statistic"].upper())
        message = {
            **{name: alarm[name] for name in ("AlarmName", "AlarmDescription", "AlarmArn", *ACTIONS.values())},
            **{"AWSAccountId": get_account_id(), "Region": region, "StateChangeTime": timestamp(time.time())},
            "AlarmConfigurationUpdatedTimestamp": timestamp(alarm["AlarmConfigurationUpdatedTimestamp"]),
            **{"OldStateValue": old_state, "NewStateValue": new_state, "NewStateReason": reason},
            "Trigger": {
                **{name: alarm[name] for name in (*SETTINGS, "TreatMissingData")},
                **{"StatisticType": kind, kind: statistic, "EvaluateLowSampleCountPercentile": ""},
                "Dimensions": [{"value": each["Value"], "name": each["Name"]} for each in alarm["Dimensions"]],
            },
        }
        for topic in alarm[ACTIONS[new_state]] if alarm["ActionsEnabled"] else ():
            if sns.topic_policy_allows(topic, "cloudwatch.amazonaws.com", alarm["AlarmArn"], get_account_id()):
                subject = f'{new_state}: "{alarm["AlarmName"]}" in {region}'
                sns._fanout(topic, new_uuid(), json.dumps(message), subject[:100])

    cloudwatch._dispatch_alarm_actions = send


def embedded_metrics() -> None:
    """AWS extracts metrics from log lines in the embedded metric format. The project's own metrics use this format.

    MiniStack stores such lines only as logs.
    """
    from ministack.services import cloudwatch, lambda_svc

    write_logs = lambda_svc._emit_lambda_logs

    @wraps(write_logs)
    def write_logs_and_metrics(function: Any, request_id: str, text: str, *arguments: Any, **options: Any) -> None:
        write_logs(function, request_id, text, *arguments, **options)
        lines = (line for line in (text or "").splitlines() if line.startswith("{") and '"CloudWatchMetrics"' in line)
        for record in map(json.loads, lines):
            for directive in record["_aws"]["CloudWatchMetrics"]:
                dimensions = {name: record[name] for name in directive["Dimensions"][0]}
                for each in directive["Metrics"]:
                    point = record["_aws"]["Timestamp"] / 1000, each["Unit"], record[each["Name"]]
                    cloudwatch._store_datum(directive["Namespace"], each["Name"], dimensions, *point, None, None, None)

    lambda_svc._emit_lambda_logs = write_logs_and_metrics
