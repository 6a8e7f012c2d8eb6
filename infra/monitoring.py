"""Generates CloudWatch alarms and a dashboard from ``infra/functions.py`` and ``infra/resources.yaml``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from infra.functions import BY_NAME, FUNCTIONS, Function

Resources = dict[str, Any]

# Each resource type has a metric namespace, a dimension, and an attribute that contains the dimension's value.
WATCHED = {
    "AWS::SQS::Queue": ("AWS/SQS", "QueueName", "QueueName"),
    "AWS::SNS::Topic": ("AWS/SNS", "TopicName", "TopicName"),
    "AWS::StepFunctions::StateMachine": ("AWS/States", "StateMachineArn", ""),
}
# Alarms on these metrics have a period of one minute. Most other alarms have a period of five minutes.
LEVELS = ("ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage", "IteratorAge")
GRID_COLUMNS, WIDGET_ROWS = 24, 6


def alarm(dimensions: Mapping[str, Any], namespace: str, declared: Mapping[str, Any]) -> Resources:
    """Returns the CloudFormation resource of an alarm, keyed by its logical id.

    ``declared`` has the keys ``Name``, ``Metric``, ``Above``, ``Means`` and ``Runbook``. ``Runbook`` is the heading of
    the section in docs/runbook.md about this alarm. ``What`` is a dimension of a metric that the functions emit.
    ``Period`` is in seconds, and ``Periods`` is the number of periods in a row that must exceed the threshold.
    """
    name, metric = declared["Name"], declared["Metric"]
    if "What" in declared:
        namespace, dimensions = "Cafe", {"stage": {"Ref": "Stage"}, "what": declared["What"]}
    level = metric in LEVELS
    maximum = level or "What" in declared
    statistic = {"ExtendedStatistic": "p99"} if metric == "Duration" else {"Statistic": "Maximum" if maximum else "Sum"}
    properties = {
        "AlarmName": {"Fn::Sub": f"cafe-${{Stage}}-{name}"},
        "AlarmDescription": f"{declared['Means']} Runbook: {declared['Runbook']}",
        "Namespace": namespace,
        "MetricName": metric,
        "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
        **statistic,
        "Period": declared.get("Period", 60 if level else 300),
        "EvaluationPeriods": declared.get("Periods", 1),
        "Threshold": declared["Above"],
        "ComparisonOperator": "GreaterThanThreshold",
        # CloudWatch receives no data while a resource is idle.
        "TreatMissingData": "notBreaching",
        "AlarmActions": [{"Ref": "AlarmsTopic"}],
    }
    words = name.replace("_", "-").split("-")
    logical_id = "".join(word[0].upper() + word[1:] for word in words) + "Alarm"
    return {logical_id: {"Type": "AWS::CloudWatch::Alarm", "Properties": properties}}


def resource_alarms(logical_id: str, resource: Mapping[str, Any]) -> Resources:
    """Returns the alarms that a resource in the template declares under ``Alarms``."""
    namespace, dimension, attribute = WATCHED[resource["Type"]]
    value = {"Fn::GetAtt": [logical_id, attribute]} if attribute else {"Ref": logical_id}
    alarms: Resources = {}
    for declared in resource.get("Alarms", []):
        alarms |= alarm({dimension: value}, namespace, declared)
    return alarms


def function_alarms(function: Function, declared: list[Mapping[str, Any]]) -> Resources:
    """Returns the alarms that a function declares, and the standard alarms of every function.

    The standard alarms exist only if the parameter ``Watching`` is ``full``, unless the function declares them itself.
    """
    dimensions = {"FunctionName": {"Fn::Sub": f"cafe-${{Stage}}{function.suffix}"}}
    alarms: Resources = {}
    for each in declared:
        alarms |= alarm(dimensions, "AWS/Lambda", each)
    for each in _of_every_function(function):
        [(logical_id, made)] = alarm(dimensions, "AWS/Lambda", each).items()
        logical_id = logical_id.replace("ApiHandler", "ApiFunction")
        alarms.setdefault(logical_id, {**made, "Condition": "WatchesFunctions"})
    return alarms


def _of_every_function(function: Function) -> Iterator[dict[str, Any]]:
    name = function.name.replace("api_handler", "api-handler")
    who = "the API's function" if function.name == "api_handler" else function.name
    yield {
        "Name": f"{name}-errors",
        "Metric": "Errors",
        "Above": 2,
        "Means": f"Within five minutes, {who} failed three times.",
        "Runbook": "A function fails",
    }
    yield {
        "Name": f"{name}-throttles",
        "Metric": "Throttles",
        "Above": 2,
        "Means": f"Within five minutes, {who} was throttled three times.",
        "Runbook": "A function is throttled",
    }
    yield {
        "Name": f"{name}-slow",
        "Metric": "Duration",
        "Above": round(function.slow_seconds * 1000),
        "Means": f"1 % of calls to {who} take more than "
        f"{function.slow_seconds:g} of the {function.timeout} seconds allowed.",
        "Runbook": "A function nears its time-out",
    }
    if function.asynchronous:
        yield {
            "Name": f"{name}-lost",
            "Metric": "DestinationDeliveryFailures",
            "Above": 0,
            "Means": f"A failed event for {who} did not reach the retries queue.",
            "Runbook": "Something is lost",
        }


def dashboard(rows: list[list[Mapping[str, Any]]]) -> str:
    """Returns the body of a CloudWatch dashboard as JSON. All widgets in a row have the same width.

    A widget has ``Title``, ``Statistic``, ``Period``, and either ``Metrics`` or ``FunctionMetric``. ``FunctionMetric``
    is shown for the functions listed in ``Functions``. ``Functions`` defaults to all functions except ``migrate`` and
    ``rotate_password``.
    """
    widgets = []
    for y, row in enumerate(rows):
        width = GRID_COLUMNS // len(row)
        for x, widget in enumerate(row):
            properties = {
                "title": widget["Title"],
                "region": "${AWS::Region}",
                "view": "timeSeries",
                "stacked": False,
                "stat": widget["Statistic"],
                "period": widget["Period"],
                "metrics": widget.get("Metrics") or _function_metrics(widget),
            }
            place = {"x": x * width, "y": y * WIDGET_ROWS, "width": width, "height": WIDGET_ROWS}
            widgets.append({"type": "metric", **place, "properties": properties})
    return json.dumps({"widgets": widgets})


def _function_metrics(widget: Mapping[str, Any]) -> list[list[Any]]:
    daily = [function.name for function in FUNCTIONS if function.works_daily]
    functions = [BY_NAME[name] for name in widget.get("Functions", daily)]
    return [
        [
            *("AWS/Lambda", widget["FunctionMetric"], "FunctionName", f"cafe-${{Stage}}{function.suffix}"),
            {"label": function.name.replace("api_handler", "API")},
        ]
        for function in functions
    ]
