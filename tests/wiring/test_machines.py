"""Tests that the state machine definitions agree with the template, the configuration and the code."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import pytest

from chalicelib import errors, reports
from chalicelib.dead_letters.reasons import MAY_PASS
from chalicelib.storage import report, shares
from chalicelib.timeline import timestamp
from tests.template import load
from tests.wiring.permissions import allowed
from tests.wiring.stage import MACHINES, ROOT, rendered, resolve
from tests.wiring.template import Template

Machine = tuple[str, dict[str, Any]]
INVOKE = "arn:aws:states:::lambda:invoke"
PUBLISH = "arn:aws:states:::sns:publish"
# These AWS errors are temporary. A function timeout is not temporary, because the next attempt would take just as long.
PASSING = {
    INVOKE: {
        *("Lambda.AWSLambdaException", "Lambda.ClientExecutionTimeoutException", "Lambda.SdkClientException"),
        *("Lambda.ServiceException", "Lambda.TooManyRequestsException"),
    },
    PUBLISH: {
        # Step Functions uses this error name for SNS errors that have no name, such as throttling.
        "SNS.AmazonSNSException",
        *("SNS.InternalErrorException", "SNS.KMSThrottlingException", "SNS.SdkClientException"),
        *("SNS.ThrottledException", "States.Timeout"),
    },
}

# A scheduled report also continues after these errors, which the retriers of its states leave out.
SLOW_OR_KILLED = {
    *("Lambda.EC2ThrottledException", "Lambda.EC2UnexpectedException", "Lambda.Unknown", "Runtime.ExitError"),
    *("Sandbox.Timedout", "States.Timeout"),
}
DAY = 86_400
LONGEST_PAUSE = 300

# While a function is pending, Lambda answers with one of these errors.
NOT_READY = {
    *("Lambda.ENINotReadyException", "Lambda.ResourceConflictException", "Lambda.ResourceNotReadyException"),
}


def definition_of(name: str) -> dict[str, Any]:
    definition: dict[str, Any] = json.loads((ROOT / "infra" / MACHINES[name]).read_text())
    return definition


def branches(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the nested state machines of a Parallel or Map state."""
    return state.get("Branches", []) + ([state["ItemProcessor"]] if "ItemProcessor" in state else [])


def all_states(definition: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields every state, including the nested states of Parallel and Map states."""
    for name, state in definition["States"].items():
        yield name, state
        for branch in branches(state):
            yield from all_states(branch)


def tasks(definition: dict[str, Any], resource: str = "") -> dict[str, dict[str, Any]]:
    """Returns all Task states, or only the tasks that use ``resource``."""
    states = all_states(definition)
    return {name: each for name, each in states if each["Type"] == "Task" and resource in ("", each["Resource"])}


def happy_path(definition: dict[str, Any]) -> Iterator[str]:
    """Yields the states that a successful execution enters, including the states in branches."""
    name = definition["StartAt"]
    while name:
        yield name
        state = definition["States"][name]
        for branch in branches(state):
            yield from happy_path(branch)
        name = state.get("Next") or state.get("Default")


def function_of(template: Template, machine: str, state: dict[str, Any]) -> str:
    """Returns the name in app.py of the function that a task invokes."""
    placeholder = state["Arguments"]["FunctionName"].removeprefix("${").removesuffix("}")
    arn: str = template.properties(machine)["DefinitionSubstitutions"][placeholder]
    return arn.removeprefix("arn:aws:lambda:<region>:<account>:function:cafe-<stage>-")


def pauses(retry: dict[str, Any]) -> float:
    """Returns the longest total time, in seconds, that a retrier can wait between attempts."""
    return sum(
        min(retry["IntervalSeconds"] * retry["BackoffRate"] ** number, retry["MaxDelaySeconds"])
        for number in range(retry["MaxAttempts"])
    )


# --- substitutions, functions and permissions -------------------------------------------------------------------------


def test_a_machine_may_invoke_exactly_its_functions_and_publish_to_its_topic(
    machine: Machine, template: Template
) -> None:
    name, _ = machine
    substituted = dict(template.properties(name)["DefinitionSubstitutions"])
    assert substituted.pop("ConsoleUrl") == ""
    rights = [each for each in allowed(template) if each.role == f"{name}Role" and each.resource != "*"]
    assert sorted(each.resource for each in rights) == sorted(substituted.values())
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
    # Idempotency keys need a standard machine, because an express machine does not remember its executions.
    assert properties["StateMachineType"] == "STANDARD"


# --- retries and time-outs --------------------------------------------------------------------------------------------


def test_every_task_is_retried_with_backoff_and_jitter_on_temporary_errors(machine: Machine) -> None:
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


def test_each_of_our_temporary_errors_is_retried_by_its_class_name(template: Template) -> None:
    """Step Functions matches errors by class name, and does not know parent classes."""
    retried: dict[str, set[str]] = {}
    for name in MACHINES:
        for state in tasks(definition_of(name), INVOKE).values():
            own = set(state["Retry"][0]["ErrorEquals"]) - PASSING[INVOKE]
            assert retried.setdefault(function_of(template, name, state), own) == own
    assert retried == {
        "read_inventory": {"DatabaseUnavailable", "Unavailable"},
        "render_report": {"Unavailable"},
        # Signing a link cannot fail temporarily, because it calls no AWS service.
        "presign_report": set(),
        "measure_buckets": {"Unavailable"},
    }
    passing = {
        name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, errors.Unavailable)
    }
    assert set.union(*retried.values()) == passing


def test_a_function_that_is_not_ready_after_idle_weeks_is_retried_for_minutes(machine: Machine) -> None:
    """Lambda needs a few minutes to reconnect an idle function to its network, and any function can be pending."""
    for name, state in tasks(machine[1]).items():
        others = state["Retry"][1:]
        assert len(others) == (state["Resource"] == INVOKE), name
        for retry in others:
            assert set(retry["ErrorEquals"]) == NOT_READY, name
            assert 180 <= pauses(retry) <= 240, name
            assert retry["MaxAttempts"] <= 10, name


def test_a_task_waits_longer_than_its_functions_timeout(
    machine: Machine, template: Template, config: dict[str, Any]
) -> None:
    for state in tasks(machine[1], INVOKE).values():
        function = function_of(template, machine[0], state)
        assert state["TimeoutSeconds"] > config["lambda_functions"][function]["lambda_timeout"], function


def test_the_machine_waits_longer_than_all_tries_of_its_tasks(machine: Machine) -> None:
    """A state machine that times out runs no Catch, so nobody would be notified of the reason."""
    definition = machine[1]

    def longest(state: dict[str, Any]) -> float:
        if branches(state):
            # Branches and the items of a Map run concurrently, so only the longest branch counts.
            return max(sum(map(longest, branch["States"].values())) for branch in branches(state))
        if state["Type"] != "Task":
            return 0
        # Trying to invoke a function that is not ready takes no time, because Lambda refuses immediately.
        return float(
            (state["Retry"][0]["MaxAttempts"] + 1) * state["TimeoutSeconds"] + sum(map(pauses, state["Retry"]))
        )

    rounds = dict.fromkeys(("MeasureShares", "AddUpShares"), report.ROUNDS)
    states = definition["States"].items()
    last = sum(longest(state) * rounds.get(name, 1) for name, state in states)
    # A scheduled report can begin its last attempt after a day.
    assert definition["TimeoutSeconds"] > DAY + LONGEST_PAUSE + last


# --- failures ---------------------------------------------------------------------------------------------------------


def test_every_failure_sends_a_notification_and_ends_the_execution_as_failed(machine: Machine) -> None:
    states = machine[1]["States"]
    for name, state in states.items():
        if state["Type"] not in ("Task", "Parallel", "Map") or name == "NotifyFailure":
            continue
        [catch] = state["Catch"]
        assert (catch["ErrorEquals"], catch["Next"]) == (["States.ALL"], "CanRetryLater"), name
        assert catch["Assign"] == {"failure": "{% $states.errorOutput %}"}, name
        # The state that runs a branch catches the branch's failures.
        assert not any("Catch" in each for branch in branches(state) for each in branch["States"].values())
    assert states["CanRetryLater"]["Default"] == "ExplainFailure"
    assert (states["ExplainFailure"]["Next"], states["NotifyFailure"]["Next"]) == ("NotifyFailure", "Failed")
    assert {states[name]["Cause"] for name in ("Failed", "Unannounced")} == {"{% $reason %}"}


def test_a_failure_without_a_notification_ends_under_the_name_that_raises_the_alarm(
    machine: Machine, template: Template
) -> None:
    states = machine[1]["States"]
    [catch] = states["NotifyFailure"]["Catch"]
    assert (states["NotifyFailure"]["Next"], catch["Next"]) == ("Failed", "Unannounced")
    pattern = template.properties("UnannouncedReports")["EventPattern"]["detail"]
    assert pattern["status"] == ["FAILED"]
    # The other values match errors in Pass or Choice states, errors that no Catch handles, and events without errors.
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


# --- what the reports guarantee ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "announcement", "made_by"),
    [
        ("InventoryReport", "NotifyReport", ["RenderAndPresign"]),
        ("StorageReport", "NotifyStorage", ["IsAnythingLeft", "IsMeasured"]),
    ],
)
def test_a_result_is_announced_only_after_the_state_that_completes_it(
    name: str, announcement: str, made_by: list[str]
) -> None:
    states = definition_of(name)["States"]
    leading = {each for each, state in states.items() if f'"{announcement}"' in json.dumps(state)}
    assert leading == set(made_by)
    # A Parallel state ends when both its branches have ended.
    made = [list(branch["States"]) for each in made_by for branch in branches(states[each])]
    assert made == ([["RenderReport"], ["PresignReport"]] if name == "InventoryReport" else [])


def test_a_report_without_a_failure_enters_few_states_because_aws_bills_per_state(machine: Machine) -> None:
    name, definition = machine
    entered = list(happy_path(definition))
    assert not {"ExplainFailure", "NotifyFailure"} & set(entered)
    assert len(entered) <= {"InventoryReport": 5, "StorageReport": 3}[name], entered
    assert len(list(all_states(definition))) <= 13


def test_as_many_functions_measure_at_once_as_there_are_shares() -> None:
    assert definition_of("StorageReport")["States"]["MeasureShares"]["MaxConcurrency"] == shares.SHARES


# --- expressions ------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def recursion_limit() -> Iterator[None]:
    """Restores the recursion limit, because importing jsonata raises it for the whole process."""
    limit = sys.getrecursionlimit()
    yield
    sys.setrecursionlimit(limit)


def value(template: Any, states: dict[str, Any], **variables: Any) -> Any:
    """Evaluates the expressions in a state's field as Step Functions does, and returns the field."""
    if isinstance(template, dict):
        return {name: value(each, states, **variables) for name, each in template.items()}
    if not template.startswith("{%"):
        return template
    from jsonata.jsonata import Jsonata  # type: ignore[import-untyped]

    expression = Jsonata.jsonata(template.removeprefix("{%").removesuffix("%}"))
    # ``$parse`` is a function that Step Functions adds to JSONata.
    expression.register_lambda("parse", json.loads)
    return expression.evaluate(None, {"states": states, **variables})


@pytest.mark.parametrize(
    ("error", "cause", "reason"),
    [
        (
            "DatabaseRefused",
            '{"errorMessage": "MySQL refuses: no such table", "stackTrace": ["File secret.py"]}',
            "MySQL refuses: no such table",
        ),
        ("States.Timeout", "", "a step timed out"),
        ("SNS.AuthorizationErrorException", "not allowed", "not allowed (SNS.AuthorizationErrorException)"),
        ("Lambda.Unknown", 'Payload: {"errorMessage": "x"}', 'Payload: {"errorMessage": "x"} (Lambda.Unknown)'),
    ],
    ids=["function", "time-out", "service", "unknown"],
)
def test_every_failure_has_a_reason_for_people(machine: Machine, error: str, cause: str, reason: str) -> None:
    expression = machine[1]["States"]["ExplainFailure"]["Assign"]["reason"]
    assert value(expression, {}, failure={"Error": error, "Cause": cause}) == reason


def after(error: str, age: float, given: Any) -> dict[str, Any]:
    """Returns the variables of an execution with the input ``given`` that failed ``age`` seconds after its start."""
    start = datetime(2026, 11, 21, 3, 14, 15, 123_000, tzinfo=UTC)
    execution = {"Input": given, "StartTime": timestamp(start)}
    entered = {"EnteredTime": timestamp(start + timedelta(seconds=age))}
    return {"states": {"context": {"Execution": execution, "State": entered}}, "failure": {"Error": error}}


SCHEDULED = {"scheduled": True, "mode": "listing"}


@pytest.mark.parametrize(
    ("error", "age", "given", "retried"),
    [
        ("Unavailable", 8, SCHEDULED, True),
        ("Unavailable", DAY + 1, SCHEDULED, False),
        ("DatabaseRefused", 8, SCHEDULED, False),
        *(("Unavailable", 8, each, False) for each in ({}, {"scheduled": "true"}, [], "scheduled", None)),
    ],
)
def test_only_a_scheduled_report_continues_after_a_temporary_error_for_a_day(
    machine: Machine, error: str, age: float, given: Any, retried: bool
) -> None:
    [choice] = machine[1]["States"]["CanRetryLater"]["Choices"]
    assert value(choice["Condition"], **after(error, age, given)) is retried
    named = set(re.findall(r"'([\w.]+)'", choice["Condition"]))
    retriers = [retry for each in tasks(machine[1]).values() for retry in each["Retry"]]
    # Other failed work is retried for a day after the same errors. Only an inventory report uses MySQL.
    own = MAY_PASS.keys() - (set() if machine[0] == "InventoryReport" else {"DatabaseUnavailable", "PasswordRefused"})
    assert named == SLOW_OR_KILLED.union(own, *(each["ErrorEquals"] for each in retriers))


def test_a_scheduled_report_waits_longer_and_longer_and_a_day_fits_into_its_history(machine: Machine) -> None:
    seconds = machine[1]["States"]["WaitBeforeRetry"]["Seconds"]
    for age, longest in ((1, 20), (100, 100), (DAY, LONGEST_PAUSE)):
        waits = {value(seconds, **after("Unavailable", age, SCHEDULED)) for _ in range(50)}
        assert longest / 2 <= min(waits) < max(waits) <= longest
        assert all(isinstance(each, int) for each in waits)
    # A task has five events, and three more for each of four retries. Choice and Wait states have two.
    events = 5 * len(list(happy_path(machine[1]))) + 3 * 4 + 2 * 3
    assert (DAY / (0.75 * LONGEST_PAUSE) + 10) * events < 25_000


def test_a_storage_report_whose_notification_failed_does_not_measure_again() -> None:
    states = definition_of("StorageReport")["States"]
    [catch], [resumed] = states["NotifyStorage"]["Catch"], states["IsMeasured"]["Choices"]
    kept = value(catch["Output"], {"input": {"notice": {"subject": "7 kB"}}})
    assert value(resumed["Condition"], {"input": kept}) is True
    assert value(resumed["Condition"], {"input": {"Error": "Unavailable"}}) is False


LINK = "https://reports.example/inventory?X-Amz-Signature=1&x=2"
SUMMARY = {"rows": 7, "suppliers": 3, "quantity": 120, "low": None, "changes": None}
NOTICE = {"subject": "7 kB", "message": "Total: 7 kB", "sms": "7 kB"}
# Each row contains a kind of notification, a kind of report, and an input for the state that announces the result.
KINDS: dict[str, tuple[str, str, Any]] = {
    "InventoryReport": ("report", "inventory", [{"summary": SUMMARY}, {"url": LINK, "expiresAt": "later"}]),
    "StorageReport": ("storage", "storage", {"notice": NOTICE, "summary": {"asOf": "then", "totalBytes": 7}}),
}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"correlationId": "a" * 80}, "a" * 80),
        ({"correlationId": "a" * 81}, "report-1"),
        ({"correlationId": ""}, "report-1"),
        ({"correlationId": 'two words, "quoted"'}, "report-1"),
        ({"correlationId": 7}, "report-1"),
        ({"correlationId": ["request-1", "request-2"]}, "report-1"),
        ({}, "report-1"),
        ([], "report-1"),
        ("request-1", "report-1"),
        (None, "report-1"),
    ],
)
def test_with_any_input_a_notification_has_its_id_or_the_name_of_the_execution(
    machine: Machine, given: Any, expected: str
) -> None:
    kind, report_kind, result = KINDS[machine[0]]
    execution = {"Name": "report-1", "Input": given, "StartTime": "2026-11-21T03:14:15.123Z"}
    states = {"input": result, "context": {"Execution": execution}}
    for name, state in tasks(machine[1], PUBLISH).items():
        failed = name == "NotifyFailure"
        sent = value(state["Arguments"], states, reason="the reason")
        attributes = {name: each["StringValue"] for name, each in sent["MessageAttributes"].items()}
        assert sent["MessageAttributes"]["correlationIds"]["DataType"] == "String.Array"
        assert json.loads(attributes.pop("correlationIds")) == [expected]
        outcome = "failed" if failed else "succeeded"
        size = {} if failed or kind == "report" else {"totalBytes": 7}
        known = {"id": "report-1", "kind": report_kind, "outcome": outcome, **size}
        assert json.loads(attributes.pop("facts")) == known
        key = f"{kind}/report-1" + ("/failed" if failed else "")
        assert attributes == {"kind": kind, "key": key, "startedAt": execution["StartTime"]}
        assert sent["MessageStructure"] == "json"
        message = json.loads(sent["Message"])
        assert ("the reason" in message["default"]) is failed
        # The SMS text contains no link.
        assert "http" not in message["sms"]


def test_the_facts_tell_a_size_of_0_bytes_from_an_unknown_size() -> None:
    notify = tasks(definition_of("StorageReport"), PUBLISH)["NotifyStorage"]
    for as_of, size in (("then", 0), (None, None)):
        result = {"notice": NOTICE, "summary": {"asOf": as_of, "totalBytes": 0}}
        states = {"input": result, "context": {"Execution": {"Name": "r", "Input": {}, "StartTime": "now"}}}
        sent = value(notify["Arguments"], states)["MessageAttributes"]["facts"]["StringValue"]
        assert json.loads(sent)["totalBytes"] == size


@pytest.mark.parametrize(
    "console", ["https://abc.execute-api.eu-central-1.amazonaws.com/api/", "http://127.0.0.1:8000/"]
)
@pytest.mark.parametrize("name", ["nightly", "2026.11.28.", "für-März(2)+a=b@c!'", "storage-1", "..", "漢" * 80])
def test_every_notification_links_to_the_consoles_page_of_exactly_this_report(
    machine: Machine, name: str, console: str
) -> None:
    _, kind, result = KINDS[machine[0]]
    states = {"input": result, "context": {"Execution": {"Name": name, "Input": {}, "StartTime": "now"}}}
    for state in tasks(machine[1], PUBLISH).values():
        expression = state["Arguments"]["Message"]
        without = json.loads(value(expression.replace("${ConsoleUrl}", ""), states, reason="the reason"))
        message = json.loads(value(expression.replace("${ConsoleUrl}", console), states, reason="the reason"))
        assert message["sms"] == without["sms"]
        line = message["default"].removeprefix(without["default"])
        page = line.removeprefix("\nThis report in the console, for managers: ")
        # Mail programs do not treat a final full stop or parenthesis as part of a link.
        assert page.isascii()
        tab, report_id, rest = page.removeprefix(f"{console}#").split("/")
        assert (tab, rest) == ("reports", "")
        match = reports.REPORT_ID.fullmatch(unquote(report_id))
        assert match
        assert match.groups() == (kind, name)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"since": "2026-11-20T03:14:15Z", "text": "1 gone ('A \\ \"b\"')."}, True),
        ({"since": None, "text": "No previous report to compare with yet."}, True),
        (None, False),
    ],
)
def test_the_mail_of_an_inventory_report_says_what_changed_and_the_sms_does_not(changes: Any, told: bool) -> None:
    states = definition_of("InventoryReport")["States"]
    rendering = states["RenderAndPresign"]["Branches"][0]["States"]["RenderReport"]["Output"]
    # For a moment during a deploy, the function of the previous release answers. A missing field would be an error.
    assert all(rendering["summary"][name].startswith("{% $exists(") for name in ("low", "changes"))
    payload = {"reportKey": "k", **SUMMARY, "generatedAt": "now"}
    payload = {**payload, "low": {"beans": [{"quantity": 3}]}, "changes": changes} if told else payload
    payload = {name: each for name, each in payload.items() if each is not None}
    rendered = value(rendering, {"result": {"Payload": payload}})
    assert rendered["summary"]["low"] == payload.get("low")
    context = {"Execution": {"Name": "report-1", "Input": {}, "StartTime": "now"}}
    sent = value(
        states["NotifyReport"]["Arguments"],
        {"input": [rendered, {"url": LINK, "expiresAt": "later"}], "context": context},
    )
    message = json.loads(sent["Message"])
    first, *lines = message["default"].replace("${ConsoleUrl}", "").partition("\nThis report")[0].split("\n")
    assert first.endswith(LINK)
    since = changes and changes["since"] and f"Since the report of {changes['since']}: "
    assert lines == ([f"{since or ''}{changes['text']}"] if told else [])
    assert message["sms"] == "Inventory report ready: 7 beans of 3 suppliers, 120 in stock."


def test_the_machines_get_the_consoles_address_and_it_cannot_break_their_expressions(machine: Machine) -> None:
    address = "https://cafe.example/office/"
    assert resolve(ConsoleUrl=address).properties(machine[0])["DefinitionSubstitutions"]["ConsoleUrl"] == address
    pattern = load(rendered())["Parameters"]["ConsoleUrl"]["AllowedPattern"]
    accepted = {
        each for each in ("", address, address[:-1], f"{address}'/", f'{address}"/') if re.search(pattern, each)
    }
    assert accepted == {"", address}


def test_the_state_has_only_named_fields_of_a_functions_result_and_never_rows(machine: Machine) -> None:
    for name, state in tasks(machine[1], INVOKE).items():
        fields = re.findall(r"\$states\.result([\w.]*)", json.dumps(state["Output"]))
        assert all(re.fullmatch(r"\.Payload\.\w+", each) for each in fields), name
