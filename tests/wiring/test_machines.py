"""The state machines' definitions against the template, the configuration and the code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from statelint.cli import main as statelint  # type: ignore[import-untyped]

from chalicelib import errors, storage
from infra.deploy import place
from tests.wiring.conftest import MACHINES, ROOT
from tests.wiring.permissions import allowed
from tests.wiring.template import Template

Machine = tuple[str, dict[str, Any]]
ASL_VALIDATOR = "4.0.0"
# The first and the last state make the state anew; the others only lead on.
WITHOUT_RESULT = {"Begin", "Done", "IsAnythingLeft", "WhatFailed", "Failed", "Unannounced"}
INVOKE = "arn:aws:states:::lambda:invoke"
PUBLISH = "arn:aws:states:::sns:publish"
# What AWS names in Retry and may be well a moment later. A time-out is not: the next try would take as long, except
# of a call that takes milliseconds.
PASSING = {
    INVOKE: {
        "Lambda.AWSLambdaException",
        "Lambda.ClientExecutionTimeoutException",
        "Lambda.SdkClientException",
        "Lambda.ServiceException",
        "Lambda.TooManyRequestsException",
    },
    PUBLISH: {
        # Step Functions' name for what SNS has no name for, throttling among it.
        "SNS.AmazonSNSException",
        "SNS.InternalErrorException",
        "SNS.KMSThrottlingException",
        "SNS.SdkClientException",
        "SNS.ThrottledException",
        "States.Timeout",
    },
}


def all_states(definition: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every state, those within a Parallel or a Map too."""
    for name, state in definition["States"].items():
        yield name, state
        for branch in branches(state):
            yield from all_states(branch)


def branches(state: dict[str, Any]) -> list[dict[str, Any]]:
    """What a Parallel or a Map runs within itself."""
    return state.get("Branches", []) + ([state["ItemProcessor"]] if "ItemProcessor" in state else [])


def tasks(definition: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: state for name, state in all_states(definition) if state["Type"] == "Task"}


def function_of(template: Template, machine: str, state: dict[str, Any]) -> str:
    """The name in app.py of the function that a task invokes."""
    placeholder = state["Parameters"]["FunctionName"].removeprefix("${").removesuffix("}")
    arn: str = template.properties(machine)["DefinitionSubstitutions"][placeholder]
    return arn.removeprefix("arn:aws:lambda:<region>:<account>:function:cafe-<stage>-")


def pauses(retry: dict[str, Any]) -> float:
    """The seconds between all tries of a retrier, at the most."""
    return sum(
        min(retry["IntervalSeconds"] * retry["BackoffRate"] ** number, retry["MaxDelaySeconds"])
        for number in range(retry["MaxAttempts"])
    )


def next_states(state: dict[str, Any]) -> list[str]:
    """Where the execution may go from here if nothing fails."""
    if state["Type"] == "Choice":
        return [*(choice["Next"] for choice in state["Choices"]), state["Default"]]
    return [state["Next"]] if "Next" in state else []


def paths(definition: dict[str, Any], start: str, been: tuple[str, ...] = ()) -> list[list[str]]:
    """Every way from ``start`` to an end on which nothing (further) fails, and that is at most twice at a state."""
    following = [each for each in next_states(definition["States"][start]) if been.count(each) < 2]
    if not next_states(definition["States"][start]):
        return [[start]]
    return [[start, *rest] for each in following for rest in paths(definition, each, (*been, each))]


# --- linters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", MACHINES.values())
def test_statelint_finds_nothing(file: str) -> None:
    assert statelint([str(ROOT / "infra" / file)]) == 0


@pytest.fixture
def asl_validator() -> Path:
    """The program, of the version that is pinned here. It is installed once, where git ignores it."""
    npm = shutil.which("npm")
    if not npm:
        pytest.skip("asl-validator needs Node.js, and there is no npm on the PATH")
    folder = ROOT / "node_modules"
    manifest = folder / "asl-validator" / "package.json"
    if not (manifest.exists() and json.loads(manifest.read_text())["version"] == ASL_VALIDATOR):
        options = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--prefix", str(ROOT)]
        run(npm, "install", *options, f"asl-validator@{ASL_VALIDATOR}")
    return folder / ".bin" / "asl-validator"


def test_asl_validator_finds_nothing(asl_validator: Path) -> None:
    for file in MACHINES.values():
        run(str(asl_validator), "--json-path", str(ROOT / "infra" / file))


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- substitutions, functions and rights ------------------------------------------------------------------------------


def test_every_placeholder_is_substituted_and_every_substitution_used(machine: Machine, template: Template) -> None:
    name, definition = machine
    placeholders = set(re.findall(r"\$\{(\w+)\}", json.dumps(definition)))
    assert placeholders == template.properties(name)["DefinitionSubstitutions"].keys()


def test_the_template_holds_the_definition_of_the_file(machine: Machine, template: Template) -> None:
    name, definition = machine
    assert json.loads(template.properties(name)["DefinitionString"]) == definition


def test_the_machines_invoke_the_functions_of_app_py_that_have_no_other_trigger(app: Any, template: Template) -> None:
    invoked = [
        function_of(template, name, state)
        for name, file in MACHINES.items()
        for state in tasks(json.loads((ROOT / "infra" / file).read_text())).values()
        if state["Resource"] == INVOKE
    ]
    # The deploy and Secrets Manager call these two.
    others = {"migrate", "rotate_password"}
    assert set(invoked) == {each.name for each in app.pure_lambda_functions} - others


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
    assert log["Level"] == "ALL"
    assert log["IncludeExecutionData"] is False
    [destination] = log["Destinations"]
    group = template.properties(f"{machine[0]}Logs")["LogGroupName"]
    assert destination["CloudWatchLogsLogGroup"]["LogGroupArn"].endswith(f":log-group:{group}:*")
    assert properties["TracingConfiguration"] == {"Enabled": True}
    # Idempotency-Key rests on this: an express machine does not remember its executions.
    assert properties["StateMachineType"] == "STANDARD"


# --- retries and time-outs --------------------------------------------------------------------------------------------


def test_every_task_is_retried_with_backoff_and_jitter(machine: Machine) -> None:
    for name, state in tasks(machine[1]).items():
        assert state["TimeoutSeconds"] > 0, name
        retry = state["Retry"][0]
        assert retry["BackoffRate"] > 1, name
        assert retry["MaxDelaySeconds"] > retry["IntervalSeconds"], name
        assert retry["JitterStrategy"] == "FULL", name
        assert 1 <= retry["MaxAttempts"] <= 5, name


def test_only_what_may_pass_is_retried(machine: Machine) -> None:
    for name, state in tasks(machine[1]).items():
        retry = state["Retry"][0]
        known = PASSING[state["Resource"]]
        assert known <= set(retry["ErrorEquals"]), name
        own = set(retry["ErrorEquals"]) - known
        assert all(issubclass(getattr(errors, error), errors.Unavailable) for error in own), name


def test_each_error_of_ours_that_may_pass_is_retried(template: Template) -> None:
    """By its class's own name: Step Functions knows nothing of a parent class."""
    retried: dict[str, set[str]] = {}
    for name, file in MACHINES.items():
        for state in tasks(json.loads((ROOT / "infra" / file).read_text())).values():
            if state["Resource"] == INVOKE:
                own = set(state["Retry"][0]["ErrorEquals"]) - PASSING[INVOKE]
                assert retried.setdefault(function_of(template, name, state), own) == own
    assert retried == {
        "read_inventory": {"DatabaseUnavailable", "Unavailable"},
        "render_report": {"Unavailable"},
        # Signing calls nobody, so nothing of ours can pass.
        "presign_report": set(),
        "measure_buckets": {"Unavailable"},
    }
    passing = {
        name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, errors.Unavailable)
    }
    assert set.union(*retried.values()) == passing


def test_a_function_of_mysqls_network_that_lost_it_while_it_was_idle_is_waited_for(
    machine: Machine, template: Template
) -> None:
    """Lambda takes some minutes to give it another one. No other function is in a network."""
    for state in tasks(machine[1]).values():
        others = state["Retry"][1:]
        if state["Resource"] != INVOKE or function_of(template, machine[0], state) not in place.FUNCTIONS:
            assert others == []
            continue
        [retry] = others
        assert retry["ErrorEquals"] == ["Lambda.ResourceNotReadyException"]
        assert pauses(retry) >= 180


def test_a_task_waits_longer_than_its_function_may_take(
    machine: Machine, template: Template, config: dict[str, Any]
) -> None:
    for state in tasks(machine[1]).values():
        if state["Resource"] == INVOKE:
            function = function_of(template, machine[0], state)
            assert state["TimeoutSeconds"] > config["lambda_functions"][function]["lambda_timeout"], function


def test_the_machine_waits_longer_than_all_tries_of_its_tasks(machine: Machine) -> None:
    """A machine that runs out of time runs no Catch, so nobody would be told why."""
    definition = machine[1]

    def longest(state: dict[str, Any]) -> float:
        if branches(state):
            # As many functions are called at once as there are shares.
            return max(sum(map(longest, branch["States"].values())) for branch in branches(state))
        if state["Type"] != "Task":
            return 0
        # What is not ready is refused at once.
        return float(
            (state["Retry"][0]["MaxAttempts"] + 1) * state["TimeoutSeconds"] + sum(map(pauses, state["Retry"]))
        )

    rounds = dict.fromkeys(("MeasureShares", "AddUpShares"), storage.ROUNDS)
    states = definition["States"].items()
    assert definition["TimeoutSeconds"] > sum(longest(state) * rounds.get(name, 1) for name, state in states)


# --- failures ---------------------------------------------------------------------------------------------------------


def test_every_failure_is_told_and_ends_the_execution_as_failed(machine: Machine) -> None:
    definition = machine[1]
    for name, state in definition["States"].items():
        if state["Type"] not in ("Task", "Parallel", "Map") or name == "NotifyFailure":
            continue
        [catch] = state["Catch"]
        assert catch["ErrorEquals"] == ["States.ALL"], name
        for path in paths(definition, catch["Next"]):
            assert path[-2:] == ["NotifyFailure", "Failed"], name


def test_a_failure_that_cannot_be_told_ends_under_the_name_that_raises_the_alarm(
    machine: Machine, template: Template
) -> None:
    states = machine[1]["States"]
    [catch] = states["NotifyFailure"]["Catch"]
    assert states["NotifyFailure"]["Next"] == "Failed"
    assert catch["Next"] == "Unannounced"
    # In a place of its own: the cause that the execution ends with is that of the first failure.
    assert catch["ResultPath"] == "$.unpublished"
    assert states["Failed"] == {"Type": "Fail", "ErrorPath": "$.failure.Error", "CausePath": "$.told.reason"}
    assert states["Unannounced"]["CausePath"] == "$.told.reason"

    rule = template.properties("UnannouncedReports")
    pattern = rule["EventPattern"]["detail"]
    assert pattern["status"] == ["FAILED"]
    assert states["Unannounced"]["Error"] in pattern["error"]
    assert set(pattern["stateMachineArn"]) == {
        template.outputs["InventoryReportArn"],
        template.outputs["StorageReportArn"],
    }
    assert [each["Arn"] for each in rule["Targets"]] == [template.outputs["AlarmsTopicArn"]]


def test_the_failures_of_states_without_a_catch_raise_the_alarm(template: Template) -> None:
    """What a Pass or a Choice may raise, and what no Catch sees; and an event that does not tell the error."""
    errors = template.properties("UnannouncedReports")["EventPattern"]["detail"]["error"]
    assert {"exists": False} in errors
    assert {each for each in errors if isinstance(each, str)} - {"Unannounced"} == {
        "States.DataLimitExceeded",
        "States.IntrinsicFailure",
        "States.NoChoiceMatched",
        "States.ParameterPathFailure",
        "States.ResultPathMatchFailure",
        "States.Runtime",
    }


def test_a_success_passes_no_failing_state_and_ends_with_the_summary(machine: Machine) -> None:
    definition = machine[1]
    for path in paths(definition, definition["StartAt"]):
        assert path[-1] == "Done"
        assert not {"NotifyFailure", "Failed"} & set(path)
    assert definition["States"]["Done"]["Parameters"].keys() == {"reportId.$", "reportKey.$", "summary.$"}


def test_a_failure_in_a_branch_is_caught_by_the_state_that_runs_it(machine: Machine) -> None:
    for state in machine[1]["States"].values():
        for branch in branches(state):
            assert not any("Catch" in each for each in branch["States"].values())


# --- the promise of the inventory report ------------------------------------------------------------------------------


def test_the_link_goes_out_only_when_the_page_is_stored_and_the_link_made() -> None:
    definition = json.loads((ROOT / "infra" / "inventory_report.asl.json").read_text())
    states = definition["States"]
    assert states["RenderAndPresign"]["Type"] == "Parallel"
    assert [list(branch["States"]) for branch in states["RenderAndPresign"]["Branches"]] == [
        ["RenderReport"],
        ["PresignReport"],
    ]
    # The one way to NotifyReport: whatever fails on it leads elsewhere.
    assert paths(definition, definition["StartAt"]) == [
        ["Begin", "ReadInventory", "RenderAndPresign", "WriteNotice", "NotifyReport", "Done"]
    ]
    leads = {
        name
        for name, state in states.items()
        if {"WriteNotice", "NotifyReport"} & {*next_states(state), *(each["Next"] for each in state.get("Catch", []))}
    }
    assert leads == {"RenderAndPresign", "WriteNotice"}


def test_the_storage_report_is_measured_and_then_told() -> None:
    definition = json.loads((ROOT / "infra" / "storage_report.asl.json").read_text())
    measured, a_round = (
        ["Begin", "MeasureBuckets", "IsAnythingLeft"],
        ["MeasureShares", "AddUpShares", "IsAnythingLeft"],
    )
    told = ["WriteNotice", "NotifyStorage", "Done"]
    assert sorted(paths(definition, definition["StartAt"]), key=len) == [
        [*measured, *told],
        [*measured, *a_round, *told],
    ]


def test_as_many_functions_measure_at_once_as_there_are_shares() -> None:
    definition = json.loads((ROOT / "infra" / "storage_report.asl.json").read_text())
    assert definition["States"]["MeasureShares"]["MaxConcurrency"] == storage.SHARES


def test_whatever_the_input_is_the_state_is_an_object(machine: Machine) -> None:
    """Into an input that is none no result can be put, and that error is one that no Catch sees."""
    begin = machine[1]["States"][machine[1]["StartAt"]]
    assert (begin["Type"], list(begin["Output"])) == ("Pass", ["correlationId"])


@pytest.fixture
def evaluate() -> Iterator[Callable[[str, Any], Any]]:
    """JSONata's evaluation of an expression with ``$states``. Its import raises the whole process's recursion limit."""
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
    """Whatever the input is: an error here would be one that no Catch sees."""
    begin = machine[1]["States"]["Begin"]
    assert begin["QueryLanguage"] == "JSONata"
    expression = begin["Output"]["correlationId"].removeprefix("{%").removesuffix("%}")
    execution = {"context": {"Execution": {"Name": "by-hand", "Input": given}}}
    assert evaluate(expression, execution) == expected


def test_every_function_and_every_notice_gets_the_id(machine: Machine) -> None:
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
    for name, state in tasks(machine[1]).items():
        if state["Resource"] == INVOKE:
            assert "ResultSelector" in state, name
            assert "$.Payload" not in state["ResultSelector"].values(), name


def test_telephones_get_no_link(machine: Machine) -> None:
    texts = [state["Parameters"] for _, state in all_states(machine[1]) if "sms" in str(state.get("Parameters", {}))]
    assert texts
    for parameters in texts:
        assert "url" not in parameters.get("sms.$", parameters.get("sms"))


def test_the_notices_tell_their_kind_their_key_and_the_report(machine: Machine) -> None:
    kind = "report" if machine[0] == "InventoryReport" else "storage"
    published = {name: state for name, state in tasks(machine[1]).items() if state["Resource"] == PUBLISH}
    assert len(published) == 2
    for name, state in published.items():
        attributes = state["Parameters"]["MessageAttributes"]
        assert attributes["kind"]["StringValue"] == kind, name
        assert "$$.Execution.Name" in attributes["key"]["StringValue.$"], name
    assert len({state["Parameters"]["MessageAttributes"]["key"]["StringValue.$"] for state in published.values()}) == 2


def test_an_execution_that_ends_without_a_catch_raises_the_alarm(template: Template) -> None:
    rule = template.properties("UnfinishedReports")
    pattern = rule["EventPattern"]["detail"]
    assert pattern["status"] == ["ABORTED", "TIMED_OUT"]
    assert set(pattern["stateMachineArn"]) == {
        template.outputs["InventoryReportArn"],
        template.outputs["StorageReportArn"],
    }
    assert [each["Arn"] for each in rule["Targets"]] == [template.outputs["AlarmsTopicArn"]]


def test_no_state_overwrites_what_another_one_left(machine: Machine) -> None:
    definition = machine[1]
    catches = {catch["Next"] for state in definition["States"].values() for catch in state.get("Catch", [])}
    for start in (definition["StartAt"], *catches):
        for path in paths(definition, start):
            # Adding up puts the new sums in the place of the old ones.
            kept = [
                definition["States"][name]["ResultPath"]
                for name in path
                if name not in WITHOUT_RESULT | {"AddUpShares"}
            ]
            assert len(set(kept)) == len(kept), path
            assert all(re.fullmatch(r"\$\.\w+", each) for each in kept), path
