"""The state machines' definitions against the template, the configuration and the code."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chalicelib import errors, storage
from infra.functions import MYSQL_USERS
from tests.wiring.permissions import allowed
from tests.wiring.stage import MACHINES, ROOT
from tests.wiring.template import Template

Machine = tuple[str, dict[str, Any]]
# The first and the last state build the state anew; the others only lead on.
WITHOUT_RESULT = {"Begin", "Done", "IsAnythingLeft", "WhatFailed", "Failed", "Unannounced"}
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
    placeholder = state["Parameters"]["FunctionName"].removeprefix("${").removesuffix("}")
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
    # Kept apart, so that the execution ends with the cause of the first failure.
    assert catch["ResultPath"] == "$.unpublished"
    assert states["Failed"] == {"Type": "Fail", "ErrorPath": "$.failure.Error", "CausePath": "$.told.reason"}
    assert states["Unannounced"]["CausePath"] == "$.told.reason"
    pattern = template.properties("UnannouncedReports")["EventPattern"]["detail"]
    assert pattern["status"] == ["FAILED"]
    # The others are the errors of a Pass or a Choice, the errors that no Catch gets, and an event without an error.
    assert {"exists": False} in pattern["error"]
    assert {each for each in pattern["error"] if isinstance(each, str)} == {
        states["Unannounced"]["Error"],
        *("States.DataLimitExceeded", "States.IntrinsicFailure", "States.NoChoiceMatched"),
        *("States.ParameterPathFailure", "States.ResultPathMatchFailure", "States.Runtime"),
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
    # The only path without a failure: every failure on it leads elsewhere.
    assert paths(definition, definition["StartAt"]) == [
        ["Begin", "ReadInventory", "RenderAndPresign", "WriteNotice", "NotifyReport", "Done"]
    ]
    leads = {
        name
        for name, state in states.items()
        if {"WriteNotice", "NotifyReport"} & {*next_states(state), *(each["Next"] for each in state.get("Catch", []))}
    }
    assert leads == {"RenderAndPresign", "WriteNotice"}


def test_the_storage_report_measures_before_it_notifies() -> None:
    definition = definition_of("StorageReport")
    first_round = ["Begin", "MeasureBuckets", "IsAnythingLeft"]
    next_round = ["MeasureShares", "AddUpShares", "IsAnythingLeft"]
    end = ["WriteNotice", "NotifyStorage", "Done"]
    assert sorted(paths(definition, definition["StartAt"]), key=len) == [
        [*first_round, *end],
        [*first_round, *next_round, *end],
    ]


def test_a_success_ends_with_the_summary(machine: Machine) -> None:
    assert machine[1]["States"]["Done"]["Parameters"].keys() == {"reportId.$", "reportKey.$", "summary.$"}


def test_as_many_functions_measure_at_once_as_there_are_shares() -> None:
    assert definition_of("StorageReport")["States"]["MeasureShares"]["MaxConcurrency"] == storage.SHARES


@pytest.fixture(scope="module")
def evaluate() -> Iterator[Callable[[str, Any], Any]]:
    """Evaluates a JSONata expression with ``$states``. The import raises the recursion limit of the whole process."""
    limit = sys.getrecursionlimit()
    from jsonata.jsonata import Jsonata  # type: ignore[import-untyped]

    yield lambda expression, states: Jsonata.jsonata(expression).evaluate(None, {"states": states})
    sys.setrecursionlimit(limit)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"correlationId": "request-1", "mode": "listing"}, "request-1"),
        ({"correlationId": "a" * 80}, "a" * 80),
        ({"correlationId": "a" * 81}, "by-hand"),
        ({"correlationId": ""}, "by-hand"),
        ({"correlationId": 'two words, "quoted"'}, "by-hand"),
        ({"correlationId": 7}, "by-hand"),
        ({"correlationId": None}, "by-hand"),
        ({"correlationId": ["request-1", "request-2"]}, "by-hand"),
        ({}, "by-hand"),
        ([], "by-hand"),
        ("request-1", "by-hand"),
        (7, "by-hand"),
        (None, "by-hand"),
    ],
)
def test_an_execution_has_the_id_of_its_request_and_without_one_its_own(
    machine: Machine, given: Any, expected: str, evaluate: Callable[[str, Any], Any]
) -> None:
    """No input is an error here, because no Catch would get it. The state is always an object that takes results."""
    begin = machine[1]["States"][machine[1]["StartAt"]]
    assert (begin["Type"], begin["QueryLanguage"], list(begin["Output"])) == ("Pass", "JSONata", ["correlationId"])
    expression = begin["Output"]["correlationId"].removeprefix("{%").removesuffix("%}")
    execution = {"context": {"Execution": {"Name": "by-hand", "Input": given}}}
    assert evaluate(expression, execution) == expected


def test_every_function_and_every_notification_gets_the_id(machine: Machine) -> None:
    for name, state in tasks(machine[1]).items():
        parameters = state["Parameters"]
        if state["Resource"] == INVOKE:
            assert parameters["Payload"]["correlationId.$"] == "$.correlationId", name
        else:
            attribute = parameters["MessageAttributes"]["correlationIds"]
            assert attribute["DataType"] == "String.Array", name
            assert attribute["StringValue.$"] == "States.JsonToString(States.Array($.correlationId))", name
    shares = machine[1]["States"].get("MeasureShares")
    assert shares is None or shares["ItemSelector"]["correlationId.$"] == "$.correlationId"


def test_rows_never_travel_through_the_state(machine: Machine) -> None:
    """Every function's answer is cut down to named fields: keys, totals, texts."""
    for name, state in tasks(machine[1], INVOKE).items():
        assert "ResultSelector" in state, name
        assert "$.Payload" not in state["ResultSelector"].values(), name


def test_an_sms_has_no_link(machine: Machine) -> None:
    texts = [state["Parameters"] for _, state in all_states(machine[1]) if "sms" in str(state.get("Parameters", {}))]
    assert texts
    for parameters in texts:
        assert "url" not in parameters.get("sms.$", parameters.get("sms"))


def test_the_notifications_have_their_kind_and_a_key_of_their_own(machine: Machine) -> None:
    kind = "report" if machine[0] == "InventoryReport" else "storage"
    published = [state["Parameters"]["MessageAttributes"] for state in tasks(machine[1], PUBLISH).values()]
    assert [each["kind"]["StringValue"] for each in published] == [kind, kind]
    keys = {each["key"]["StringValue.$"] for each in published}
    assert len(keys) == 2
    assert all("$$.Execution.Name" in key for key in keys)


def test_no_state_overwrites_the_result_of_another(machine: Machine) -> None:
    definition = machine[1]
    catches = {catch["Next"] for state in definition["States"].values() for catch in state.get("Catch", [])}
    for start in (definition["StartAt"], *catches):
        for path in paths(definition, start):
            # AddUpShares replaces the sums of the round before.
            names = [name for name in path if name not in WITHOUT_RESULT | {"AddUpShares"}]
            kept = [definition["States"][name]["ResultPath"] for name in names]
            assert len(set(kept)) == len(kept), path
            assert all(re.fullmatch(r"\$\.\w+", each) for each in kept), path
