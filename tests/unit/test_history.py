"""Tests how Step Functions events become the history of a report."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.reports import history
from chalicelib.timeline import timestamp
from tests.unit.cloud import MACHINES, definition

NOW = datetime(2026, 11, 21, 3, 14, tzinfo=UTC)
INVENTORY = json.loads(definition("inventory"))


def at(event: int) -> str:
    """Returns an event's timestamp. Events are one second apart."""
    return timestamp(NOW + timedelta(seconds=event))


def listed(told: str) -> list[str]:
    return [event.strip() for event in re.split(r"[|\n]", told) if event.strip()]


def read(told: str) -> list[dict[str, Any]]:
    """Parses events that are separated by ``|`` and have the form ``<type> <name, or error: cause>``.

    By default, each event follows the previous event in the list. An event that begins with ``<number> ->`` follows the
    event with that number.
    """
    events = []
    for number, line in enumerate(listed(told), 1):
        found = re.fullmatch(r"(?:(\d+) -> )?(\w+) ?(.*)", line)
        assert found, line
        before, kind, rest = found.groups()
        event: dict[str, Any] = {"id": number, "previousEventId": int(before or number - 1), "type": kind}
        event["timestamp"] = NOW + timedelta(seconds=number)
        details: dict[str, Any] = {}
        if kind.endswith(("Entered", "Exited")) or kind.startswith("MapIteration"):
            details = {"name": rest}
        elif rest:
            error, _, cause = rest.partition(": ")
            details = {"error": error} | ({"cause": cause} if cause else {})
        if details:
            event[f"{kind[0].lower()}{kind[1:]}EventDetails"] = details
        events.append(event)
    return events


class Executions:
    """Fakes Step Functions with one execution, and returns ``page`` events per call."""

    def __init__(self, machine: dict[str, Any], events: list[dict[str, Any]], status: str, **more: Any) -> None:
        self.machine, self.events, self.status, self.more = machine, events, status, more
        self.asked: list[str] = []
        self.page = history.PAGE_EVENTS

    def describe_execution(self, **asked: str) -> dict[str, Any]:
        ended = {} if self.status == "RUNNING" else {"stopDate": NOW + timedelta(seconds=1_000_000)}
        return {**asked, "name": "inventory-1", "status": self.status, "startDate": NOW, **ended, **self.more}

    def describe_state_machine_for_execution(self, *, executionArn: str) -> dict[str, Any]:  # noqa: N803
        self.asked.append("machine")
        return {"definition": json.dumps(self.machine)}

    def get_execution_history(self, *, nextToken: str = "0", **asked: Any) -> dict[str, Any]:  # noqa: N803
        given = [asked[name] for name in ("executionArn", "maxResults", "includeExecutionData")]
        assert given[1:] == [history.PAGE_EVENTS, False]
        self.asked.append("events")
        events = self.events[::-1] if asked.get("reverseOrder") else self.events
        start, end = int(nextToken), int(nextToken) + self.page
        return {"events": events[start:end]} | ({"nextToken": str(end)} if end < len(events) else {})


def picture(machine: dict[str, Any], told: str, status: str = "RUNNING", **more: Any) -> dict[str, dict[str, Any]]:
    """Returns the states in the picture of an execution, keyed by state name."""
    shown = of(Executions(machine, read(told), status, **more))
    assert not shown["partial"]
    return {state["name"]: state for state in shown["states"]}


def of(executions: Executions) -> dict[str, Any]:
    return history.report_history("inventory-1", sfn=executions, machines=MACHINES)


def statuses(states: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: state["status"] for name, state in states.items()}


def one(state: dict[str, Any], **others: dict[str, Any]) -> dict[str, Any]:
    """Returns a state machine that starts at ``One``."""
    return {"StartAt": "One", "States": {"One": state, **others}}


def one_named(name: str, state: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"StartAt": name, "States": {name: state or TASK}}


def parallel(*branches: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"Type": "Parallel", "Branches": list(branches), **(fields or {"End": True})}


def each_item(states: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"Type": "Map", "ItemProcessor": states, **(fields or {"End": True})}


TASK: dict[str, Any] = {"Type": "Task", "Resource": "r", "End": True}
PASS: dict[str, Any] = {"Type": "Pass", "End": True}
CATCH = {"Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]}
CAUGHT = {"Next": "Caught", **CATCH}

SUCCEEDED = """
    ExecutionStarted | 0 -> TaskStateEntered ReadInventory | TaskScheduled | TaskStarted | TaskSucceeded
    TaskStateExited ReadInventory | ParallelStateEntered RenderAndPresign | ParallelStateStarted
    TaskStateEntered RenderReport | TaskScheduled | 8 -> TaskStateEntered PresignReport | TaskScheduled
    10 -> TaskStarted | 12 -> TaskStarted | TaskSucceeded | TaskStateExited PresignReport | 13 -> TaskSucceeded
    TaskStateExited RenderReport | ParallelStateSucceeded | 18 -> ParallelStateExited RenderAndPresign
    TaskStateEntered NotifyReport | TaskScheduled | TaskStarted | TaskSucceeded | TaskStateExited NotifyReport
    ExecutionSucceeded
"""
FAILURE_PATH = {"CanRetryLater", "WaitBeforeRetry", "ExplainFailure", "NotifyFailure", "Failed", "Unannounced"}


def until(event: int, told: str = SUCCEEDED) -> str:
    """Returns the first ``event`` events. A negative number leaves out the last events."""
    return "\n".join(listed(told)[:event])


# --- The status of each state -----------------------------------------------------------------------------------------


def test_a_task_runs_from_its_entry_to_its_exit() -> None:
    for event in (2, 3, 4, 5):
        reading = picture(INVENTORY, until(event))["ReadInventory"]
        assert (reading["status"], reading["startedAt"], reading["finishedAt"]) == ("running", at(2), None)
        assert reading["tries"] == 1
    read_ = picture(INVENTORY, until(6))["ReadInventory"]
    assert (read_["status"], read_["startedAt"], read_["finishedAt"]) == ("succeeded", at(2), at(6))


def test_after_success_the_states_that_were_not_needed_are_skipped() -> None:
    shown = of(Executions(INVENTORY, read(SUCCEEDED), "SUCCEEDED"))
    assert shown["reportId"] == "inventory-1"
    assert (shown["kind"], shown["status"], shown["startedAt"]) == ("inventory", "SUCCEEDED", timestamp(NOW))
    ends = {state["name"]: state["status"] for state in shown["states"]}
    assert {name for name in ends if ends[name] == "skipped"} == FAILURE_PATH
    assert {ends[name] for name in ends.keys() - FAILURE_PATH} == {"succeeded"}


def test_a_task_that_is_retried_shows_its_tries_and_the_reason() -> None:
    told = """
        ExecutionStarted | 0 -> TaskStateEntered One | TaskScheduled | TaskStarted
        TaskFailed DatabaseUnavailable: {"errorMessage": "MySQL does not answer", "stackTrace": ["secret"]}
        TaskScheduled | TaskStarted | TaskSucceeded | TaskStateExited One
    """
    trying = picture(one(TASK), until(7, told))["One"]
    assert (trying["status"], trying["tries"], trying["error"]) == ("running", 2, "MySQL does not answer")
    assert picture(one(TASK), until(8, told))["One"]["error"] is None
    done = picture(one(TASK), told)["One"]
    assert (done["status"], done["tries"], done["error"]) == ("succeeded", 2, None)


TASK_RUNS = "ExecutionStarted | 0 -> TaskStateEntered One | TaskScheduled | TaskStarted |"
FORK = "ExecutionStarted | 0 -> ParallelStateEntered One | ParallelStateStarted |"
MAP = """ExecutionStarted | 0 -> MapStateEntered One | MapStateStarted | MapIterationStarted One
    3 -> MapIterationStarted One |"""
FAIL = {"Type": "Fail", "Error": "Beans", "Cause": "none left"}
BOTH = parallel(one_named("Left"), one_named("Right"), End=True, **CATCH)
TIMED_OUT = "it timed out"
CASES: dict[str, tuple[dict[str, Any], str, str, dict[str, tuple[str, str | None]]]] = {
    "a task that is caught": (
        one({**TASK, **CATCH}, Caught=PASS),
        TASK_RUNS + "TaskFailed DatabaseRefused: a table is missing | TaskStateExited One | PassStateEntered Caught",
        "RUNNING",
        {"One": ("caught", "a table is missing"), "Caught": ("running", None)},
    ),
    **{
        f"a {kind} that takes too long": (
            one(TASK),
            TASK_RUNS + f"{kind}Scheduled | {kind}TimedOut States.Timeout | ExecutionFailed States.Timeout",
            "FAILED",
            {"One": ("failed", TIMED_OUT)},
        )
        for kind in ("Task", "LambdaFunction", "Activity")
    },
    "a branch that fails while the other is stopped": (
        one(parallel(one_named("Left"), one_named("Right"), **CAUGHT), Caught=PASS),
        FORK
        + """TaskStateEntered Left | TaskScheduled | 3 -> TaskStateEntered Right | TaskScheduled | 5 -> TaskStarted
        7 -> TaskStarted | TaskFailed StorageRefused: may not | TaskStateAborted | 10 -> ParallelStateFailed
        ParallelStateExited One | PassStateEntered Caught""",
        "RUNNING",
        {
            **{"One": ("caught", "may not"), "Left": ("failed", history.STOPPED), "Right": ("failed", "may not")},
            "Caught": ("running", None),
        },
    ),
    "an item that fails": (
        one({"Type": "Map", "Iterator": one_named("Each"), "End": True}),
        MAP
        + """4 -> TaskStateEntered Each | TaskScheduled | 5 -> TaskStateEntered Each | TaskScheduled
        7 -> TaskTimedOut States.Timeout | MapIterationFailed One | 10 -> MapIterationAborted One
        10 -> TaskStateAborted | 10 -> MapStateFailed | ExecutionFailed States.Timeout""",
        "FAILED",
        {"One": ("failed", TIMED_OUT), "Each": ("failed", history.STOPPED)},
    ),
    "a parallel within a parallel": (
        one(parallel(one_named("Inner", parallel(one_named("Deep"))), one_named("Side"))),
        FORK
        + """ParallelStateEntered Inner | ParallelStateStarted | 3 -> TaskStateEntered Side
        5 -> TaskStateEntered Deep | TaskFailed Broken: pipe | ParallelStateFailed | ParallelStateFailed
        ExecutionFailed Broken: pipe""",
        "FAILED",
        {**dict.fromkeys(("One", "Inner", "Deep"), ("failed", "pipe")), "Side": ("failed", history.STOPPED)},
    ),
    "a state that cannot go on": (
        one(PASS),
        "ExecutionStarted | 0 -> PassStateEntered One | ExecutionFailed States.Runtime: no such path",
        "FAILED",
        {"One": ("failed", "no such path")},
    ),
    "a task that failed before the stop": (
        one(TASK),
        TASK_RUNS + "TaskFailed Unavailable: later | 0 -> ExecutionAborted",
        "ABORTED",
        {"One": ("failed", "later")},
    ),
    "a Fail state whose reason is an expression, which only its last event has": (
        one({"Type": "Fail", "Error": "{% $error %}", "Cause": "{% $cause %}"}),
        "ExecutionStarted | 0 -> FailStateEntered One",
        "RUNNING",
        {"One": ("running", None)},
    ),
    "a parallel within a map, of which the other item goes on": (
        one(each_item({"StartAt": "Both", "States": {"Both": BOTH, "Caught": PASS}})),
        MAP
        + """4 -> ParallelStateEntered Both | ParallelStateStarted | 5 -> ParallelStateEntered Both
        ParallelStateStarted | 7 -> TaskStateEntered Left | 9 -> TaskStateEntered Left | 7 -> TaskStateEntered Right
        9 -> TaskStateEntered Right | TaskFailed Broken: pipe | ParallelStateFailed | ParallelStateExited Both""",
        "RUNNING",
        {**dict.fromkeys(("One", "Both", "Left", "Right"), ("running", None)), "Caught": ("waiting", None)},
    ),
    "a Fail state in a branch": (
        one(parallel(one_named("Stop", FAIL), **CAUGHT), Caught=PASS),
        FORK + "FailStateEntered Stop | ParallelStateFailed | ParallelStateExited One",
        "RUNNING",
        {"One": ("caught", "none left"), "Stop": ("failed", "none left"), "Caught": ("waiting", None)},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_failure_is_shown_where_it_happened(case: str) -> None:
    machine, told, status, expected = CASES[case]
    found = re.search(r"ExecutionFailed ([\w.]+)(?:: (.*))?", told)
    ended = {} if found is None else {"error": found[1]} | ({"cause": found[2]} if found[2] else {})
    states = picture(machine, told, status, **ended)
    assert {name: (state["status"], state["error"]) for name, state in states.items()} == expected


def test_a_parallel_that_is_retried_starts_again() -> None:
    machine = one(parallel(one_named("Left"), one_named("Right")))
    told = """
        ExecutionStarted | 0 -> ParallelStateEntered One | ParallelStateStarted | TaskStateEntered Left | TaskScheduled
        3 -> TaskStateEntered Right | TaskScheduled | 5 -> TaskFailed Unavailable: later | ParallelStateStarted
        TaskStateEntered Left | TaskScheduled | TaskSucceeded | TaskStateExited Left
    """
    states = picture(machine, told)
    assert (states["One"]["status"], states["One"]["tries"]) == ("running", 2)
    assert (states["Left"]["tries"], states["Right"]["status"]) == (2, "failed")


def test_a_maps_items_are_one_state_that_was_entered_many_times() -> None:
    machine = one(each_item(one_named("Each")))
    told = """
        ExecutionStarted | 0 -> MapStateEntered One | MapStateStarted | MapIterationStarted One
        3 -> MapIterationStarted One | 4 -> TaskStateEntered Each | TaskScheduled | 5 -> TaskStateEntered Each
        TaskScheduled | 7 -> TaskFailed Unavailable: later | TaskScheduled | 9 -> TaskSucceeded | TaskStateExited Each
        MapIterationSucceeded One | 11 -> TaskSucceeded | TaskStateExited Each | MapIterationSucceeded One
        MapStateSucceeded | 17 -> MapStateExited One | ExecutionSucceeded
    """
    half = picture(machine, until(14, told))["Each"]
    assert (half["status"], half["tries"], half["error"], half["finishedAt"]) == ("running", 3, "later", None)
    states = picture(machine, told, "SUCCEEDED")
    assert statuses(states) == {"One": "succeeded", "Each": "succeeded"}
    each = states["Each"]
    assert (each["tries"], each["error"], each["startedAt"], each["finishedAt"]) == (3, None, at(6), at(16))
    assert states["One"]["tries"] == 1


def test_a_loop_goes_through_the_same_states_again() -> None:
    machine = one(
        {"Type": "Task", "Resource": "r", "Next": "Again"},
        Again={"Type": "Choice", "Choices": [{"Variable": "$.x", "IsPresent": True, "Next": "One"}], "Default": "Two"},
        Two=PASS,
    )
    told = """
        ExecutionStarted | 0 -> TaskStateEntered One | TaskScheduled | TaskSucceeded | TaskStateExited One
        ChoiceStateEntered Again | ChoiceStateExited Again | TaskStateEntered One
    """
    states = picture(machine, told)
    assert statuses(states) == {"One": "running", "Again": "succeeded", "Two": "waiting"}
    assert (states["One"]["tries"], states["One"]["startedAt"], states["One"]["finishedAt"]) == (2, at(2), None)
    assert [states[name]["column"] for name in ("One", "Again", "Two")] == [0, 1, 2]


def test_a_report_that_waits_says_why_and_then_shows_only_its_latest_attempt() -> None:
    machine = one(each_item(one_named("Each"), **CAUGHT), Caught={"Type": "Wait", "Seconds": 10, "Next": "One"})
    fails = """MapStateStarted | MapIterationStarted One | TaskStateEntered Each
        TaskFailed Unavailable: MySQL does not answer | MapIterationFailed One | MapStateFailed | MapStateExited One"""
    waits = f"ExecutionStarted | 0 -> MapStateEntered One | {fails} | WaitStateEntered Caught"
    states = picture(machine, waits)
    assert statuses(states) == {"One": "caught", "Each": "failed", "Caught": "running"}
    assert states["One"]["error"] == "MySQL does not answer"
    again = "MapStateEntered One | MapStateStarted | MapIterationStarted One | TaskStateEntered Each"
    ends = "TaskStateExited Each | MapIterationSucceeded One | MapStateSucceeded | MapStateExited One"
    states = picture(machine, f"{waits} | WaitStateExited Caught | {again} | {ends} | ExecutionSucceeded")
    assert set(statuses(states).values()) == {"succeeded"}
    assert (states["One"]["tries"], states["One"]["error"]) == (2, None)


def test_a_state_whose_expression_fails_is_named_by_that_event() -> None:
    told = """
        ExecutionStarted | 0 -> MapStateEntered One | 0 -> EvaluationFailed States.QueryEvaluationError: no list
        MapStateFailed | ExecutionFailed States.QueryEvaluationError: no list
    """
    executions = Executions(one(each_item(one_named("Each"))), read(told), "FAILED")
    executions.events[2]["evaluationFailedEventDetails"]["state"] = "One"
    states = {state["name"]: state for state in of(executions)["states"]}
    assert (states["One"]["status"], states["One"]["error"]) == ("failed", "no list")
    assert states["Each"]["status"] == "skipped"


def test_states_that_were_running_when_the_report_was_stopped_say_why() -> None:
    states = picture(INVENTORY, until(13) + "\n 0 -> ExecutionTimedOut", "TIMED_OUT")
    for name in ("RenderAndPresign", "RenderReport", "PresignReport"):
        assert (states[name]["status"], states[name]["finishedAt"]) == ("failed", at(1_000_000))
        assert states[name]["error"] == "the report timed out"
    assert states["ReadInventory"]["status"] == "succeeded"
    assert states["NotifyReport"]["status"] == "skipped"


def test_a_failure_is_a_sentence_of_bounded_length_without_a_stack_trace() -> None:
    causes = {
        '{"errorMessage": "no", "errorType": "X", "stackTrace": ["File secret.py"]}': "no",
        **{text: text for text in ("{}", "[]", "no JSON")},
        '{"errorMessage": null}': "None",
        "x" * 30_000: "x" * history.ERROR_CHARACTERS,
    }
    for cause, told in causes.items():
        assert history._reason({"error": "X", "cause": cause}) == told
    assert history._reason({"error": "X"}) == "X"


# --- A long history ---------------------------------------------------------------------------------------------------


def many(items: int, *more: str) -> list[dict[str, Any]]:
    """Returns the events of a Map state whose last item is still running, followed by the events in ``more``."""
    first = "ExecutionStarted | 0 -> TaskStateEntered First | TaskStateExited First | MapStateEntered Items"
    item = (
        "5 -> MapIterationStarted Items | TaskStateEntered Each | TaskScheduled | TaskSucceeded | TaskStateExited Each"
    )
    return read("|".join([until(-2, "|".join([first, "MapStateStarted", *[item] * items])), *more]))


FIRST = {"Type": "Task", "Resource": "r", "Next": "Items"}
MANY = {"StartAt": "First", "States": {"First": FIRST, "Items": each_item(one_named("Each"))}}


def test_with_too_many_events_both_ends_are_read_and_the_picture_is_partial() -> None:
    executions = Executions(MANY, many(4_990), "RUNNING")
    shown = of(executions)
    states = {state["name"]: state for state in shown["states"]}
    assert shown["partial"]
    assert statuses(states) == {"First": "succeeded", "Items": "running", "Each": "running"}
    assert states["First"]["finishedAt"] == at(3)
    # The first five events do not belong to an item of the Map state.
    assert states["Each"]["tries"] == (history.NEWEST_PAGES + 1) * history.PAGE_EVENTS // 5 - 1
    assert executions.asked.count("events") == history.NEWEST_PAGES + 1
    stopped = of(Executions(MANY, many(4_990, "0 -> ExecutionAborted"), "ABORTED"))
    states = {state["name"]: state for state in stopped["states"]}
    assert statuses(states) == {"First": "succeeded", "Items": "failed", "Each": "failed"}


def left_out(machine: dict[str, Any], told: str, page: int, status: str) -> dict[str, str]:
    """Returns the status of each state if only the first and the last ``page`` events are read."""
    executions = Executions(machine, read(told), status)
    executions.page = page
    shown = of(executions)
    assert shown["partial"]
    return {state["name"]: state["status"] for state in shown["states"]}


def test_a_state_whose_entry_was_not_read_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "NEWEST_PAGES", 1)
    found = left_out(INVENTORY, SUCCEEDED, 2, "SUCCEEDED")
    assert (found["ReadInventory"], found["NotifyReport"]) == ("succeeded", "succeeded")
    assert found["RenderAndPresign"] == "skipped"


def test_an_item_whose_start_was_not_read_belongs_to_its_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "NEWEST_PAGES", 1)
    machine = one(each_item(one_named("Each"), **CAUGHT), Caught=PASS)
    told = """
        ExecutionStarted | 0 -> MapStateEntered One | MapStateStarted | MapIterationStarted One
        3 -> MapIterationStarted One | 4 -> TaskStateEntered Each | TaskScheduled | TaskStarted
        5 -> TaskStateEntered Each | TaskFailed Broken: pipe | MapStateFailed | MapStateExited One
    """
    assert left_out(machine, told, 4, "RUNNING") == {"One": "caught", "Each": "failed", "Caught": "waiting"}


@given(st.lists(st.integers(0, 30)), st.lists(st.integers(0, 40)), st.sampled_from(["RUNNING", "SUCCEEDED", "FAILED"]))
def test_each_state_has_a_status_whatever_is_missing(dropped: list[int], before: list[int], status: str) -> None:
    events = [event for number, event in enumerate(read(SUCCEEDED)) if number not in dropped] or read(until(1))
    for event, cause in zip(events, before, strict=False):
        event["previousEventId"] = cause
    states = of(Executions(INVENTORY, events, status))["states"]
    shown = {state["status"] for state in states}
    assert shown <= {"waiting", "running", "succeeded", "failed", "caught", "skipped"}
    assert status == "RUNNING" or not {"waiting", "running"} & shown
    for state in states:
        assert (state["startedAt"] or "") <= (state["finishedAt"] or "9")


# --- The cost of reading ----------------------------------------------------------------------------------------------


def test_the_state_machine_is_read_once_however_often_the_history_is_read() -> None:
    executions = Executions(INVENTORY, read(until(4)), "RUNNING")
    for _ in range(5):
        of(executions)
    assert executions.asked.count("machine") == 1
    assert executions.asked.count("events") == 5


# --- The layout -------------------------------------------------------------------------------------------------------


# Each entry contains the name, kind, position and next states of a state. Brackets mark the next states after a
# failure.
CHOICE = "CanRetryLater choice 1,2 ExplainFailure WaitBeforeRetry |"
AFTER_FAILURE = """
    ExplainFailure pass 2,2 NotifyFailure | NotifyFailure task 3,2 Failed (Unannounced)
    Failed fail 4,2 | Unannounced fail 4,3"""
DRAWN = {
    "inventory": f"""
    ReadInventory task 0,0 RenderAndPresign (CanRetryLater)
    RenderAndPresign parallel 1,0 NotifyReport (CanRetryLater)
    RenderReport task 1,0 in RenderAndPresign | PresignReport task 1,1 in RenderAndPresign
    NotifyReport task 2,0 (CanRetryLater) | {CHOICE} WaitBeforeRetry wait 2,3 ReadInventory""",
    "storage": f"""
    MeasureBuckets task 0,0 IsAnythingLeft (CanRetryLater) | IsAnythingLeft choice 1,0 NotifyStorage MeasureShares
    MeasureShares map 2,1 AddUpShares (CanRetryLater) | MeasureShare task 2,1 in MeasureShares
    AddUpShares task 3,1 IsAnythingLeft (CanRetryLater) | NotifyStorage task 2,0 (CanRetryLater) | {CHOICE}
    WaitBeforeRetry wait 2,3 IsMeasured | IsMeasured choice 3,3 MeasureBuckets NotifyStorage""",
}


@pytest.mark.parametrize("kind", DRAWN)
def test_each_state_of_a_report_has_its_kind_its_place_and_its_transitions(kind: str) -> None:
    drawn = []
    for name, state in picture(json.loads(definition(kind)), until(1)).items():
        place = f"{state['column']},{state['row']}" + (f" in {state['parent']}" if state["parent"] else "")
        drawn.append(" ".join([name, state["kind"], place, *state["next"], *(f"({each})" for each in state["catch"])]))
    assert drawn == listed(DRAWN[kind] + AFTER_FAILURE)


def test_a_container_encloses_its_states_and_the_longest_path_to_a_state_decides_its_column() -> None:
    branch = {"StartAt": "A", "States": {"A": {"Type": "Pass", "Next": "B"}, "B": PASS}}
    machine = one(
        {"Type": "Parallel", "Branches": [branch, one_named("C", PASS)], "Next": "After"},
        After={"Type": "Choice", "Choices": [{"Next": "X"}, {"Next": "Z"}], "Default": "Y"},
        X={"Type": "Pass", "Next": "Y"},
        **{"Y": PASS, "Z": PASS},
    )
    places = {name: (state["column"], state["row"]) for name, state in picture(machine, until(1)).items()}
    last = {"After": (2, 0), "X": (3, 0), "Y": (4, 0), "Z": (3, 1)}
    assert places == {"One": (0, 0), "A": (0, 0), "B": (1, 0), "C": (0, 1), **last}
