"""The state machines' definitions against the template, the configuration and the code."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib import errors, storage
from infra.functions import MYSQL_USERS
from tests.wiring.execution import Execution, Failure
from tests.wiring.permissions import allowed
from tests.wiring.stage import MACHINES, ROOT
from tests.wiring.template import Template

Machine = tuple[str, dict[str, Any]]
INVOKE = "arn:aws:states:::lambda:invoke"
PUBLISH = "arn:aws:states:::sns:publish"
# The errors of AWS that can pass in a moment. A time-out of a function is not one: the next try would take as long.
PASSING = {
    INVOKE: {
        *("Lambda.AWSLambdaException", "Lambda.ClientExecutionTimeoutException", "Lambda.SdkClientException"),
        *("Lambda.ServiceException", "Lambda.TooManyRequestsException"),
    },
    PUBLISH: {
        # Step Functions' name for each error that SNS has no name for, such as throttling.
        "SNS.AmazonSNSException",
        *("SNS.InternalErrorException", "SNS.KMSThrottlingException", "SNS.SdkClientException"),
        *("SNS.ThrottledException", "States.Timeout"),
    },
}


def definition_of(name: str) -> dict[str, Any]:
    definition: dict[str, Any] = json.loads((ROOT / "infra" / MACHINES[name]).read_text())
    return definition


def branches(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the machines that a Parallel or a Map runs within itself."""
    return state.get("Branches", []) + ([state["ItemProcessor"]] if "ItemProcessor" in state else [])


def all_states(definition: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields every state, with those within a Parallel or a Map."""
    for name, state in definition["States"].items():
        yield name, state
        for branch in branches(state):
            yield from all_states(branch)


def tasks(definition: dict[str, Any], resource: str = "") -> dict[str, dict[str, Any]]:
    """Returns the tasks, or those of one resource."""
    states = all_states(definition)
    return {name: each for name, each in states if each["Type"] == "Task" and resource in ("", each["Resource"])}


def function_of(template: Template, machine: str, state: dict[str, Any]) -> str:
    """Returns the name in app.py of the function that a task invokes."""
    placeholder = state["Arguments"]["FunctionName"].removeprefix("${").removesuffix("}")
    arn: str = template.properties(machine)["DefinitionSubstitutions"][placeholder]
    return arn.removeprefix("arn:aws:lambda:<region>:<account>:function:cafe-<stage>-")


def pauses(retry: dict[str, Any]) -> float:
    """Returns the maximum of seconds between all tries of a retrier."""
    return sum(
        min(retry["IntervalSeconds"] * retry["BackoffRate"] ** number, retry["MaxDelaySeconds"])
        for number in range(retry["MaxAttempts"])
    )


def next_states(state: dict[str, Any]) -> list[str]:
    """Returns the states that can follow if nothing fails."""
    if state["Type"] == "Choice":
        return [*(choice["Next"] for choice in state["Choices"]), state["Default"]]
    return [state["Next"]] if "Next" in state else []


def paths(definition: dict[str, Any], start: str, been: tuple[str, ...] = ()) -> list[list[str]]:
    """Returns every path from ``start`` to an end without a further failure, with each state at most twice."""
    following = [each for each in next_states(definition["States"][start]) if been.count(each) < 2]
    if not next_states(definition["States"][start]):
        return [[start]]
    return [[start, *rest] for each in following for rest in paths(definition, each, (*been, each))]


# --- substitutions, functions and rights ------------------------------------------------------------------------------


def test_the_template_has_the_definition_of_the_file_and_every_substitution_that_it_needs(
    machine: Machine, template: Template
) -> None:
    name, definition = machine
    properties = template.properties(name)
    assert json.loads(properties["DefinitionString"]) == definition
    placeholders = set(re.findall(r"\$\{(\w+)\}", json.dumps(definition)))
    assert placeholders == properties["DefinitionSubstitutions"].keys()


def test_the_machines_invoke_the_functions_of_app_py_that_have_no_other_trigger(app: Any, template: Template) -> None:
    invoked = {
        function_of(template, name, state) for name in MACHINES for state in tasks(definition_of(name), INVOKE).values()
    }
    # The deploy calls the first, and Secrets Manager the second.
    others = {"migrate", "rotate_password"}
    assert invoked == {each.name for each in app.pure_lambda_functions} - others


def test_a_machine_may_invoke_exactly_its_functions_and_publish_to_its_topic(
    machine: Machine, template: Template
) -> None:
    name, _ = machine
    substituted = template.properties(name)["DefinitionSubstitutions"].values()
    rights = [each for each in allowed(template) if each.role == f"{name}Role" and each.resource != "*"]
    assert sorted(each.resource for each in rights) == sorted(substituted)
    for each in rights:
        assert each.action == ("sns:Publish" if ":sns:" in each.resource else "lambda:InvokeFunction")


def test_the_machine_is_logged_without_its_data_and_traced(machine: Machine, template: Template) -> None:
    properties = template.properties(machine[0])
    log = properties["LoggingConfiguration"]
    assert (log["Level"], log["IncludeExecutionData"]) == ("ALL", False)
    [destination] = log["Destinations"]
    group = template.properties(f"{machine[0]}Logs")["LogGroupName"]
    assert destination["CloudWatchLogsLogGroup"]["LogGroupArn"].endswith(f":log-group:{group}:*")
    assert properties["TracingConfiguration"] == {"Enabled": True}
    # Idempotency-Key depends on this: an express machine does not remember its executions.
    assert properties["StateMachineType"] == "STANDARD"


# --- retries and time-outs --------------------------------------------------------------------------------------------


def test_every_task_is_retried_with_backoff_and_jitter_on_errors_that_can_pass(machine: Machine) -> None:
    for name, state in tasks(machine[1]).items():
        assert state["TimeoutSeconds"] > 0, name
        retry = state["Retry"][0]
        assert retry["BackoffRate"] > 1, name
        assert retry["MaxDelaySeconds"] > retry["IntervalSeconds"], name
        assert retry["JitterStrategy"] == "FULL", name
        assert 1 <= retry["MaxAttempts"] <= 5, name
        of_aws = PASSING[state["Resource"]]
        assert of_aws <= set(retry["ErrorEquals"]), name
        own = set(retry["ErrorEquals"]) - of_aws
        assert all(issubclass(getattr(errors, error), errors.Unavailable) for error in own), name


def test_each_error_of_ours_that_can_pass_is_retried_by_the_name_of_its_class(template: Template) -> None:
    """Step Functions does not know the parent of a class."""
    retried: dict[str, set[str]] = {}
    for name in MACHINES:
        for state in tasks(definition_of(name), INVOKE).values():
            own = set(state["Retry"][0]["ErrorEquals"]) - PASSING[INVOKE]
            assert retried.setdefault(function_of(template, name, state), own) == own
    assert retried == {
        "read_inventory": {"DatabaseUnavailable", "Unavailable"},
        "render_report": {"Unavailable"},
        # Signing calls no service.
        "presign_report": set(),
        "measure_buckets": {"Unavailable"},
    }
    passing = {
        name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, errors.Unavailable)
    }
    assert set.union(*retried.values()) == passing


def test_a_function_that_lost_its_network_while_it_was_idle_is_retried_for_minutes(
    machine: Machine, template: Template
) -> None:
    """Lambda takes some minutes to give it another one. Only the functions that use MySQL are in a network."""
    for state in tasks(machine[1]).values():
        others = state["Retry"][1:]
        if state["Resource"] != INVOKE or function_of(template, machine[0], state) not in MYSQL_USERS:
            assert others == []
            continue
        [retry] = others
        assert retry["ErrorEquals"] == ["Lambda.ResourceNotReadyException"]
        assert pauses(retry) >= 180


def test_a_task_waits_longer_than_its_function_can_take(
    machine: Machine, template: Template, config: dict[str, Any]
) -> None:
    for state in tasks(machine[1], INVOKE).values():
        function = function_of(template, machine[0], state)
        assert state["TimeoutSeconds"] > config["lambda_functions"][function]["lambda_timeout"], function


def test_the_machine_waits_longer_than_all_tries_of_its_tasks(machine: Machine) -> None:
    """A machine that runs out of time runs no Catch, so nobody would get the reason."""
    definition = machine[1]

    def longest(state: dict[str, Any]) -> float:
        if branches(state):
            # All shares are measured at the same time.
            return max(sum(map(longest, branch["States"].values())) for branch in branches(state))
        if state["Type"] != "Task":
            return 0
        # Lambda refuses a function that is not ready at once.
        return float(
            (state["Retry"][0]["MaxAttempts"] + 1) * state["TimeoutSeconds"] + sum(map(pauses, state["Retry"]))
        )

    rounds = dict.fromkeys(("MeasureShares", "AddUpShares"), storage.ROUNDS)
    states = definition["States"].items()
    assert definition["TimeoutSeconds"] > sum(longest(state) * rounds.get(name, 1) for name, state in states)


# --- failures ---------------------------------------------------------------------------------------------------------


def test_every_failure_sends_a_notification_and_ends_the_execution_as_failed(machine: Machine) -> None:
    definition = machine[1]
    for name, state in definition["States"].items():
        if state["Type"] not in ("Task", "Parallel", "Map") or name == "NotifyFailure":
            continue
        [catch] = state["Catch"]
        assert catch["ErrorEquals"] == ["States.ALL"], name
        for path in paths(definition, catch["Next"]):
            assert path[-2:] == ["NotifyFailure", "Failed"], name
        # The state that runs a branch catches the failures in it.
        for branch in branches(state):
            assert not any("Catch" in each for each in branch["States"].values())


def test_a_failure_without_a_notification_ends_under_the_name_that_raises_the_alarm(
    machine: Machine, template: Template
) -> None:
    states = machine[1]["States"]
    [catch] = states["NotifyFailure"]["Catch"]
    assert (states["NotifyFailure"]["Next"], catch["Next"]) == ("Failed", "Unannounced")
    pattern = template.properties("UnannouncedReports")["EventPattern"]["detail"]
    assert pattern["status"] == ["FAILED"]
    # The others are the errors of a Pass or a Choice, the errors that no Catch gets, and an event without an error.
    assert {"exists": False} in pattern["error"]
    assert {each for each in pattern["error"] if isinstance(each, str)} == {
        states["Unannounced"]["Error"],
        *("States.DataLimitExceeded", "States.NoChoiceMatched", "States.QueryEvaluationError", "States.Runtime"),
    }


def test_every_execution_that_ends_without_a_notification_raises_the_alarm(template: Template) -> None:
    assert template.properties("UnfinishedReports")["EventPattern"]["detail"]["status"] == ["ABORTED", "TIMED_OUT"]
    for rule in ("UnannouncedReports", "UnfinishedReports"):
        machines = template.properties(rule)["EventPattern"]["detail"]["stateMachineArn"]
        assert set(machines) == {template.outputs[f"{name}Arn"] for name in MACHINES}
        assert [each["Arn"] for each in template.properties(rule)["Targets"]] == [template.outputs["AlarmsTopicArn"]]


# --- the promises of the reports --------------------------------------------------------------------------------------


def test_the_link_goes_out_only_when_the_page_is_stored_and_the_link_signed() -> None:
    definition = definition_of("InventoryReport")
    states = definition["States"]
    assert states["RenderAndPresign"]["Type"] == "Parallel"
    assert [list(branch["States"]) for branch in states["RenderAndPresign"]["Branches"]] == [
        ["RenderReport"],
        ["PresignReport"],
    ]
    # The only path to NotifyReport: every failure on it leads elsewhere.
    assert paths(definition, definition["StartAt"]) == [["ReadInventory", "RenderAndPresign", "NotifyReport"]]
    leads = {
        name
        for name, state in states.items()
        if "NotifyReport" in (*next_states(state), *(each["Next"] for each in state.get("Catch", [])))
    }
    assert leads == {"RenderAndPresign"}


def test_the_storage_report_measures_before_it_notifies() -> None:
    definition = definition_of("StorageReport")
    first_round = ["MeasureBuckets", "IsAnythingLeft"]
    next_round = ["MeasureShares", "AddUpShares", "IsAnythingLeft"]
    assert sorted(paths(definition, definition["StartAt"]), key=len) == [
        [*first_round, "NotifyStorage"],
        [*first_round, *next_round, "NotifyStorage"],
    ]


def test_as_many_functions_measure_at_once_as_there_are_shares() -> None:
    assert definition_of("StorageReport")["States"]["MeasureShares"]["MaxConcurrency"] == storage.SHARES


# --- whole executions -------------------------------------------------------------------------------------------------


SUMMARY = {"rows": 7, "suppliers": 3, "quantity": 120, "generatedAt": "2026-11-21T03:14:16.000000Z"}
LINK = "https://reports.example/inventory?X-Amz-Signature=1&x=2"
FAILURE = Failure(
    "DatabaseRefused", '{"errorMessage": "MySQL refuses: no such table", "stackTrace": ["File secret.py"]}'
)
# A function returns more than the state may have.
ROWS = {"beans": ["a row"]}


def payload(**fields: Any) -> dict[str, Any]:
    return {"StatusCode": 200, "Payload": {**fields, **ROWS}}


def measured(*shares: int) -> dict[str, Any]:
    notice = {"subject": "Storage report: 7 kB", "message": "Total size of all buckets: 7 kB", "sms": "7 kB"}
    spread = {"round": 1, "id": "try-1", "shares": list(shares)}
    return payload(reportKey="storage/key", summary={"totalBytes": 7_000}, notice=notice, spread=spread)


ANSWERS: dict[str, dict[str, Any]] = {
    "InventoryReport": {
        "ReadInventory": payload(csvKey="inventory/csv", generatedAt=SUMMARY["generatedAt"]),
        "RenderReport": payload(reportKey="inventory/key", **SUMMARY),
        "PresignReport": payload(url=LINK, expiresAt="2026-11-21T04:14:17Z"),
        "NotifyReport": {"MessageId": "m-1"},
        "NotifyFailure": {"MessageId": "m-2"},
    },
    "StorageReport": {
        "MeasureBuckets": measured(),
        "MeasureShare": payload(),
        "AddUpShares": measured(),
        "NotifyStorage": {"MessageId": "m-1"},
        "NotifyFailure": {"MessageId": "m-2"},
    },
}
KINDS = {"InventoryReport": ("report", "inventory"), "StorageReport": ("storage", "storage")}


@pytest.fixture(autouse=True)
def recursion_limit() -> Iterator[None]:
    """The first evaluation imports jsonata, which raises the limit of the whole process."""
    limit = sys.getrecursionlimit()
    yield
    sys.setrecursionlimit(limit)


def execute(name: str, given: Any = None, **answers: Any) -> Execution:
    """Runs a machine whose tasks succeed, except for the given ``answers``. Answers of other machines do nothing."""
    return Execution(definition_of(name), ANSWERS[name] | answers, given, "report-1").run()


def published(execution: Execution) -> dict[str, Any]:
    """Returns the arguments of the only notification, with its message and its attributes as values."""
    [arguments] = [each for calls in execution.called.values() for each in calls if "TopicArn" in each]
    attributes = {name: each["StringValue"] for name, each in arguments["MessageAttributes"].items()}
    types = {name: each["DataType"] for name, each in arguments["MessageAttributes"].items()}
    assert types == {name: "String.Array" if name == "correlationIds" else "String" for name in attributes}
    assert arguments["MessageStructure"] == "json"
    return {**arguments, "Message": json.loads(arguments["Message"]), "MessageAttributes": attributes}


@pytest.mark.parametrize(("name", "transitions"), [("InventoryReport", 5), ("StorageReport", 3)])
def test_a_report_enters_few_states_because_each_one_is_billed(name: str, transitions: int) -> None:
    """AWS bills every state that an execution enters: a Parallel, and each state in its branches."""
    execution = execute(name)
    assert execution.status == "SUCCEEDED"
    assert len(execution.entered) == transitions, execution.entered
    assert len(list(all_states(definition_of(name)))) <= 10


def test_the_inventory_report_sends_its_link_and_its_totals() -> None:
    execution = execute("InventoryReport")
    notification = published(execution)
    assert notification["Subject"] == "Inventory report ready"
    assert notification["Message"] == {
        "default": "Inventory report report-1: 7 beans of 3 suppliers, 120 in stock."
        f" Open it before 2026-11-21T04:14:17Z: {LINK}",
        "sms": "Inventory report ready: 7 beans of 3 suppliers, 120 in stock.",
    }
    # The link is a secret of its receivers, so the output does not have it.
    assert execution.output == {"reportId": "report-1", "reportKey": "inventory/key", "summary": SUMMARY}


def test_the_page_is_rendered_from_the_file_that_was_read() -> None:
    [render] = execute("InventoryReport").called["RenderReport"]
    assert render["Payload"]["csvKey"] == "inventory/csv"
    assert render["Payload"]["generatedAt"] == SUMMARY["generatedAt"]


def test_the_storage_report_sends_what_was_measured_and_asks_with_any_input() -> None:
    execution = execute("StorageReport", {"mode": "metrics"})
    notification = published(execution)
    assert notification["Subject"] == "Storage report: 7 kB"
    assert notification["Message"] == {"default": "Total size of all buckets: 7 kB", "sms": "7 kB"}
    [measure] = execution.called["MeasureBuckets"]
    assert measure["Payload"] == {"reportId": "report-1", "request": {"mode": "metrics"}, "spread": {"round": 0}}
    assert execution.output == {
        "reportId": "report-1",
        "reportKey": "storage/key",
        "summary": {"totalBytes": 7_000},
    }


def test_each_share_is_measured_and_the_sums_take_the_place_of_those_before() -> None:
    sums = iter([measured(0), {**measured(), "Payload": measured()["Payload"] | {"reportKey": "storage/new"}}])
    execution = execute("StorageReport", MeasureBuckets=measured(0, 1, 2), AddUpShares=lambda _: next(sums))
    shares = [each["Payload"]["spread"] for each in execution.called["MeasureShare"]]
    assert shares == [{"round": 1, "id": "try-1", "share": share} for share in (0, 1, 2, 0)]
    spreads = [each["Payload"]["spread"]["shares"] for each in execution.called["AddUpShares"]]
    assert spreads == [[0, 1, 2], [0]]
    assert (execution.status, execution.output["reportKey"]) == ("SUCCEEDED", "storage/new")
    # A round enters the Map, its shares, the sum and the choice.
    assert len(execution.entered) == 3 + (1 + 3 + 2) + (1 + 1 + 2)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (FAILURE, "MySQL refuses: no such table"),
        (Failure("States.Timeout"), "a step took too long and was given up"),
        (Failure("SNS.AuthorizationErrorException", "not allowed"), "not allowed (SNS.AuthorizationErrorException)"),
        (
            Failure("Lambda.Unknown", 'Payload: {"errorMessage": "x"}'),
            'Payload: {"errorMessage": "x"} (Lambda.Unknown)',
        ),
    ],
    ids=["function", "time-out", "service", "unknown"],
)
def test_every_failure_is_reported_and_ends_with_a_cause_for_people(
    machine: Machine, failure: Failure, reason: str
) -> None:
    name, title = machine[0], machine[0].replace("Report", " report")
    for task in tasks(machine[1]).keys() - {"NotifyFailure"}:
        answers = {"MeasureBuckets": measured(0)} if task in ("MeasureShare", "AddUpShares") else {}
        execution = execute(name, **answers, **{task: failure})
        assert (execution.status, execution.error, execution.cause) == ("FAILED", failure.error, reason), task
        [arguments] = execution.called["NotifyFailure"]
        assert arguments["Subject"] == f"{title} failed"
        assert json.loads(arguments["Message"])["default"] == f"{title} report-1 failed: {reason}"
        assert execution.entered[-3:] == ["ExplainFailure", "NotifyFailure", "Failed"]
        # Nobody gets a link or a total of a report that failed.
        assert not ({"NotifyReport", "NotifyStorage"} - {task}) & execution.called.keys()


def test_a_failure_that_no_notification_reports_keeps_its_cause(machine: Machine) -> None:
    answers = {next(iter(machine[1]["States"])): FAILURE, "NotifyFailure": Failure("States.Timeout")}
    execution = execute(machine[0], **answers)
    assert (execution.error, execution.cause) == ("Unannounced", "MySQL refuses: no such table")


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"correlationId": "request-1", "mode": "listing"}, "request-1"),
        ({"correlationId": "a" * 80}, "a" * 80),
        ({"correlationId": "a" * 81}, "report-1"),
        ({"correlationId": ""}, "report-1"),
        ({"correlationId": 'two words, "quoted"'}, "report-1"),
        ({"correlationId": 7}, "report-1"),
        ({"correlationId": None}, "report-1"),
        ({"correlationId": ["request-1", "request-2"]}, "report-1"),
        ({}, "report-1"),
        ([], "report-1"),
        ("request-1", "report-1"),
        (7, "report-1"),
        (None, "report-1"),
    ],
)
def test_any_input_works_and_a_notification_has_its_id_or_the_name_of_the_execution(
    machine: Machine, given: Any, expected: str, outcome: str
) -> None:
    answers = {next(iter(machine[1]["States"])): FAILURE} if outcome == "failed" else {}
    execution = execute(machine[0], given, **answers)
    kind, report_kind = KINDS[machine[0]]
    attributes = published(execution)["MessageAttributes"]
    assert json.loads(attributes.pop("correlationIds")) == [expected]
    assert json.loads(attributes.pop("facts")) == {"id": "report-1", "kind": report_kind, "outcome": outcome}
    key = f"{kind}/report-1" + ("/failed" if outcome == "failed" else "")
    assert attributes == {"kind": kind, "key": key, "startedAt": "2026-11-21T03:14:15.123Z"}
    # The functions take the id from the request themselves.
    payloads = [each["Payload"] for calls in execution.called.values() for each in calls if "Payload" in each]
    assert payloads
    assert all((each["reportId"], each["request"]) == ("report-1", given) for each in payloads)


def test_rows_never_travel_through_the_state_and_an_sms_has_no_link(machine: Machine) -> None:
    """The state has only named fields of a function's answer: keys, totals, texts."""
    for answers in ({}, {"MeasureBuckets": measured(0)}, {"PresignReport": FAILURE}):
        execution = execute(machine[0], **answers)
        assert "a row" not in json.dumps([execution.called, execution.output, execution.variables])
        assert "http" not in published(execution)["Message"]["sms"]
