"""Tests the alarms, the dashboard and the runbook. AWS must send all of their metrics for existing resources."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import pytest

from chalicelib import metrics, retries, settings
from chalicelib.dead_letters.letters import KINDS
from chalicelib.reports import KINDS as REPORT_KINDS
from chalicelib.storage import crew
from infra.deploy import wiring
from infra.deploy.target import REPOSITORY, Target
from infra.functions import ASYNCHRONOUS, BY_NAME
from tests.wiring.stage import MACHINES, ROOT, as_variables, resolve
from tests.wiring.template import Template

# AWS documents the dimensions and the statistics of each metric.
QUEUE, FUNCTION, MACHINE, TOPIC = ("QueueName",), ("FunctionName",), ("StateMachineArn",), ("TopicName",)
API = ("ApiName", "Stage")
STAGE, REPORT = ("stage",), ("stage", "kind", "outcome")
SENT: dict[tuple[str, str], tuple[tuple[str, ...], set[str]]] = {
    # See https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible"): (QUEUE, {"Maximum"}),
    ("AWS/SQS", "ApproximateAgeOfOldestMessage"): (QUEUE, {"Maximum"}),
    # See https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
    ("AWS/Lambda", "Errors"): (FUNCTION, {"Sum"}),
    ("AWS/Lambda", "Throttles"): (FUNCTION, {"Sum"}),
    ("AWS/Lambda", "Duration"): (FUNCTION, {"p99"}),
    ("AWS/Lambda", "IteratorAge"): (FUNCTION, {"Maximum"}),
    ("AWS/Lambda", "DestinationDeliveryFailures"): (FUNCTION, {"Sum"}),
    # See https://docs.aws.amazon.com/step-functions/latest/dg/procedure-cw-metrics.html
    ("AWS/States", "ExecutionsFailed"): (MACHINE, {"Sum"}),
    ("AWS/States", "ExecutionsTimedOut"): (MACHINE, {"Sum"}),
    ("AWS/States", "ExecutionsAborted"): (MACHINE, {"Sum"}),
    # See https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-metrics-and-dimensions.html
    ("AWS/ApiGateway", "Count"): (API, {"Sum"}),
    ("AWS/ApiGateway", "4XXError"): (API, {"Sum"}),
    ("AWS/ApiGateway", "5XXError"): (API, {"Sum"}),
    ("AWS/ApiGateway", "Latency"): (API, {"p99"}),
    # See https://docs.aws.amazon.com/sns/latest/dg/sns-monitoring-using-cloudwatch.html
    ("AWS/SNS", "NumberOfNotificationsFailedToRedriveToDlq"): (TOPIC, {"Sum"}),
    # The project sends the following metrics itself.
    **{(metrics.NAMESPACE, name): (STAGE, {"Sum"}) for name in metrics.UNITS},
    (metrics.NAMESPACE, "BytesMeasured"): (STAGE, {"Maximum"}),
    (metrics.NAMESPACE, "WaitSeconds"): (("stage", "what"), {"Maximum"}),
    (metrics.NAMESPACE, "Reports"): (REPORT, {"Sum"}),
    (metrics.NAMESPACE, "ReportDuration"): (REPORT, {"p99"}),
}


@pytest.fixture(scope="module")
def alarms(template: Template) -> dict[str, dict[str, Any]]:
    return template.of_type("AWS::CloudWatch::Alarm")


@pytest.fixture(scope="module")
def timeouts(config: dict[str, Any]) -> dict[str, int]:
    """Returns the timeout of each function, keyed by deployed name."""
    target = Target("<stage>", REPOSITORY, False, {}, {})
    default = config["lambda_timeout"]
    given = {"api_handler": {}, **config["lambda_functions"]}
    return {target.function(name): each.get("lambda_timeout", default) for name, each in given.items()}


@pytest.fixture(scope="module")
def real(template: Template, config: dict[str, Any], timeouts: dict[str, int], app: Any) -> dict[str, set[str]]:
    """Returns the names of existing resources, keyed by metric dimension."""
    return {
        "QueueName": {each["QueueName"] for each in template.of_type("AWS::SQS::Queue").values()},
        "TopicName": {each["TopicName"] for each in template.of_type("AWS::SNS::Topic").values()},
        "FunctionName": set(timeouts),
        "StateMachineArn": {template.outputs[f"{name}Arn"] for name in MACHINES},
        # The fixture's app.py belongs to another stage, so the test replaces the stage's name.
        "ApiName": {app.app_name.replace("-test", "-<stage>")},
        "Stage": {config["api_gateway_stage"]},
        "stage": {"<stage>"},
        "kind": set(REPORT_KINDS),
        "outcome": {"succeeded", "failed"},
        "what": {"orders", "failures"},
    }


def dimensions(alarm: dict[str, Any]) -> dict[str, str]:
    return {each["Name"]: each["Value"] for each in alarm["Dimensions"]}


def check(real: dict[str, set[str]], namespace: str, metric: str, given: dict[str, str], statistic: str) -> None:
    """Checks that AWS sends this metric with these dimensions and this statistic, and that the resource exists."""
    names, statistics = SENT[namespace, metric]
    assert tuple(given) == names, metric
    assert all(value in real[dimension] for dimension, value in given.items()), (metric, given)
    assert statistic in statistics, metric


# --- alarms -----------------------------------------------------------------------------------------------------------


def test_every_alarm_is_on_a_metric_that_aws_sends_for_an_existing_resource(
    alarms: dict[str, dict[str, Any]], real: dict[str, set[str]]
) -> None:
    assert len({each["AlarmName"] for each in alarms.values()}) == len(alarms)
    for alarm in alarms.values():
        [statistic] = {alarm[name] for name in ("Statistic", "ExtendedStatistic") if name in alarm}
        check(real, alarm["Namespace"], alarm["MetricName"], dimensions(alarm), statistic)


def test_every_alarm_can_fire_and_notifies_but_not_because_data_is_missing(
    alarms: dict[str, dict[str, Any]], timeouts: dict[str, int], template: Template
) -> None:
    """Every alarm's threshold is below the metric's maximum. Most failures are rare, so one period is enough."""
    queues = {each["QueueName"]: each for each in template.of_type("AWS::SQS::Queue").values()}
    kept = wiring.mappings(as_variables(template.outputs))["announce_orders"]["MaximumRecordAgeInSeconds"]
    for name, alarm in alarms.items():
        periods = 3 if name == "StoreOrdersThrottlesAlarm" else 1
        assert (alarm["EvaluationPeriods"], alarm["ComparisonOperator"]) == (periods, "GreaterThanThreshold"), name
        assert alarm["Period"] in (60, 300) or alarm["MetricName"] == "WaitSeconds", name
        assert "Unit" not in alarm, name
        assert alarm["TreatMissingData"] == "notBreaching", name
        assert alarm["AlarmActions"] == [template.outputs["AlarmsTopicArn"]], name
        match alarm["MetricName"]:
            case "Duration":
                most = timeouts[dimensions(alarm)["FunctionName"]] * 1000
            case "ApproximateAgeOfOldestMessage":
                most = queues[dimensions(alarm)["QueueName"]]["MessageRetentionPeriod"]
            case "IteratorAge":
                most = kept * 1000
            case "WaitSeconds":
                # Retries of a message end after a day, and two measurements are at most a period apart. Between the
                # three tries of an event, Lambda pauses for one and two minutes.
                most, longest = retries.GIVE_UP_SECONDS, max(BY_NAME[name].timeout for name in ASYNCHRONOUS)
                lambdas = 3 * longest + 180 if dimensions(alarm)["what"] == "failures" else 0
                assert alarm["Period"] > lambdas + 2 * settings.longest_retry_seconds()
            case _:
                most = 5
        assert 0 <= alarm["Threshold"] < most, name


def test_one_dead_letter_raises_an_alarm(alarms: dict[str, dict[str, Any]]) -> None:
    assert {
        dimensions(each)["QueueName"]: each["Threshold"]
        for each in alarms.values()
        if each["MetricName"] == "ApproximateNumberOfMessagesVisible"
    } == {"cafe-<stage>-orders-dead": 0, "cafe-<stage>-failures": 0}


def test_every_function_has_alarms_for_errors_throttles_and_duration(
    alarms: dict[str, dict[str, Any]], timeouts: dict[str, int]
) -> None:
    watched = {
        (each["MetricName"], dimensions(each)["FunctionName"]): each["Threshold"]
        for each in alarms.values()
        if each["Namespace"] == "AWS/Lambda"
    }
    for name, seconds in timeouts.items():
        # If one of these functions cannot run, its messages wait, and no other alarm may see them.
        assert watched["Errors", name] == (0 if name.endswith(("-store_orders", "-retry_failures")) else 2)
        assert watched["Throttles", name] == (0 if name.endswith("-store_orders") else 2)
        if name.endswith("-measure_buckets"):
            # The function measures buckets until only the reserved time is left, and then uses some of that time.
            assert (seconds - crew.RESERVE_SECONDS) * 1000 < watched["Duration", name] < seconds * 1000
        else:
            assert watched["Duration", name] == seconds * 800


def test_the_loss_of_an_asynchronous_event_or_of_a_notification_raises_an_alarm(
    alarms: dict[str, dict[str, Any]], template: Template, timeouts: dict[str, int]
) -> None:
    lost = {next(iter(dimensions(each).values())) for name, each in alarms.items() if name.endswith("LostAlarm")}
    asynchronous = wiring.invocations(as_variables(template.outputs))
    assert lost == {f"cafe-<stage>-{name}" for name in asynchronous} | {"cafe-<stage>-notifications"}


def test_a_basic_stage_has_only_the_cheap_alarms_of_queues_reports_and_the_api(
    alarms: dict[str, dict[str, Any]],
) -> None:
    basic = resolve(Watching="basic").of_type("AWS::CloudWatch::Alarm")
    # CloudWatch's free tier includes ten alarms. Each further alarm costs ten cents a month.
    assert len(basic) <= 15
    assert basic.items() <= alarms.items()
    assert {each["MetricName"] for each in basic.values()} == {
        *("ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage", "IteratorAge"),
        *("ExecutionsFailed", "5XXError", "NumberOfNotificationsFailedToRedriveToDlq", "WaitSeconds"),
        *("Errors", "Throttles"),
    }


# --- the dashboard ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dashboard(template: Template) -> list[tuple[str, str, dict[str, str], str]]:
    """Returns the namespace, name, dimensions and statistic of every metric on the dashboard.

    In the dashboard's source, ``...`` repeats the values of the row above.
    """
    [resource] = template.of_type("AWS::CloudWatch::Dashboard").values()
    assert resource["DashboardName"] == "cafe-<stage>"
    rows = []
    for widget in json.loads(resource["DashboardBody"])["widgets"]:
        assert widget["properties"]["region"] == "<region>"
        before: list[str] = []
        for row in widget["properties"]["metrics"]:
            texts = [each for each in row if isinstance(each, str)]
            if texts[0] == "...":
                texts = before[: 1 - len(texts)] + texts[1:]
            before = texts
            given = dict(zip(texts[2::2], texts[3::2], strict=True))
            rows.append((texts[0], texts[1], given, widget["properties"]["stat"]))
    return rows


def test_the_dashboard_has_every_metric_of_ours_errors_and_durations_and_only_as_many_as_are_free(
    dashboard: list[tuple[str, str, dict[str, str], str]], real: dict[str, set[str]], timeouts: dict[str, int]
) -> None:
    for namespace, name, given, statistic in dashboard:
        check(real, namespace, name, given, statistic)
    distinct = {(namespace, name, *given.values()) for namespace, name, given, _ in dashboard}
    assert len(distinct) == len(dashboard) <= 50
    assert {name for namespace, name, *_ in distinct if namespace == metrics.NAMESPACE} == metrics.UNITS.keys()
    daily = timeouts.keys() - {"cafe-<stage>-migrate", "cafe-<stage>-rotate_password"}
    for metric in ("Errors", "Duration"):
        assert {given["FunctionName"] for _, name, given, _ in dashboard if name == metric} == daily


# --- the runbook ------------------------------------------------------------------------------------------------------

RUNBOOK = ROOT / "docs" / "runbook.md"
CHAPTERS = {
    *("How to look", "Alarms", "Kinds of dead letters", "Other failures"),
    *("Faults and their headings", "When a deploy fails"),
}
# The messages of these deploy errors already say what to do.
SAYS_WHAT_TO_DO = (
    *("declined", "there is no terminal to ask", "already has its own database"),
    *("there is no region", "there is no stage"),
    *("there are no AWS credentials", "AWS rejects these credentials", "is not supported: delete the folder"),
    *("has fewer than two availability zones with", "infra/resources.yaml and infra/database.yaml do not have"),
    "has no previous release",
    *("the package contains", "app.py cannot be imported", "version 0.1.0 deployed"),
)


@pytest.fixture(scope="module")
def runbook() -> dict[str, str]:
    """Returns the runbook section about each failure, keyed by heading."""
    parts = re.split(r"^###? (.+)$", RUNBOOK.read_text(), flags=re.MULTILINE)[1:]
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    return {heading: text for heading, text in found.items() if heading not in CHAPTERS}


def test_every_alarm_names_its_heading_in_the_runbook(
    alarms: dict[str, dict[str, Any]], runbook: dict[str, str]
) -> None:
    for name, alarm in alarms.items():
        text, _, heading = alarm["AlarmDescription"].partition(" Runbook: ")
        assert text.endswith("."), name
        assert heading in runbook, name
        called = alarm["AlarmName"].removeprefix("cafe-<stage>-")
        of_a_function = re.sub(r"^[a-z_]+(?=-)", "<function>", called)
        assert {f"`{called}`", f"`{of_a_function}`"} & set(re.findall("`[^`]+`", runbook[heading])), name


def test_every_heading_says_what_to_see_what_to_do_and_how_to_know_that_it_is_over(runbook: dict[str, str]) -> None:
    for heading, text in runbook.items():
        for part in ("**Symptom:**", "**Action:**", "**Resolved when:**"):
            assert text.count(part) == 1, (heading, part)


def test_every_rule_that_notifies_the_alarms_topic_has_its_heading(template: Template, runbook: dict[str, str]) -> None:
    rules = template.of_type("AWS::Events::Rule").values()
    names = [each["Name"] for each in rules if each["Targets"][0]["Arn"] == template.outputs["AlarmsTopicArn"]]
    assert len(names) == 2
    assert all(f"`{name}`" in runbook["A report ended without a result"] for name in names)


def test_every_kind_of_dead_letter_has_its_heading_and_its_row_in_the_page_on_reliability(
    runbook: dict[str, str],
) -> None:
    kinds = set(KINDS)
    assert {heading for heading in runbook if heading.startswith("`")} == {f"`{kind}`" for kind in kinds}
    page = (ROOT / "docs" / "reliability.md").read_text()
    table = page.split("| Dead letter | Cause | Returns to |")[1].split("\n\n")[0]
    letters = [line.split("|")[1] for line in table.splitlines() if not line.startswith("| ---") and line]
    assert len(letters) == 6
    assert {kind for each in letters for kind in kinds if re.search(rf"\b{kind}\b", each)} == kinds - {"unknown"}


def rows(heading: str) -> list[tuple[str, str]]:
    """Returns the table rows below a heading in the runbook, without the header."""
    text = RUNBOOK.read_text().split(f"## {heading}\n")[1].split("\n#")[0]
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [(first.strip(), second.strip()) for first, second in lines[2:]]


def test_every_fault_on_the_page_on_reliability_leads_to_its_headings(runbook: dict[str, str]) -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    table = page.split("| Removed | Cases that failed |\n| --- | --- |\n")[1].split("\n\n")[0]
    cases = [case.strip() for line in table.splitlines() for case in line.split("|")[2].split(";")]
    known = {fault: heading for faults, heading in rows("Faults and their headings") for fault in faults.split(", ")}
    # An entry that begins with "…" continues the previous test case.
    assert [case for case in cases if not case.startswith(("…", *known))] == []
    assert [fault for fault in known if not any(case.startswith(fault) for case in cases)] == []
    headings = {each for text in known.values() for each in re.findall(r"\*(?!\s)([^*]+)\*", text)}
    assert headings <= runbook.keys()


def test_every_error_of_a_deploy_leads_to_its_headings(runbook: dict[str, str]) -> None:
    said = {tuple(re.findall("`([^`]+)`", texts)): headings for texts, headings in rows("When a deploy fails")}
    listed = [text for texts in said for text in texts]
    source = {path.name: path.read_text() for path in (ROOT / "infra" / "deploy").glob("*.py")}
    for text in listed:
        assert any(text in each for each in source.values()), text
    raised = [ast.unparse(node) for text in source.values() for node in ast.walk(ast.parse(text)) if is_error(node)]
    assert len(raised) > 30
    assert [error for error in raised if not any(each in error for each in (*listed, *SAYS_WHAT_TO_DO))] == []
    assert {each for text in said.values() for each in re.findall(r"\*([^*]+)\*", text)} <= runbook.keys()


def is_error(node: ast.AST) -> bool:
    """Returns whether the code creates an error with its own text, instead of passing on an AWS error."""
    return isinstance(node, ast.Call) and bool(re.match(r"DeployError\(.*[a-z]{3} ", ast.unparse(node)))
