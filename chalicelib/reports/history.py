"""Collects the data for the diagram of a report's execution.

The diagram shows the states of a Step Functions state machine, with their positions and progress.

Step Functions returns the history of an execution as a list of events. The first and last events of a state contain the
state's name. Most other events contain only the previous event's id. AWS documents the fields of an event but not the
order of events, so this module was checked against real histories. The fields are documented at
https://docs.aws.amazon.com/step-functions/latest/apireference/API_HistoryEvent.html
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from chalicelib import reports
from chalicelib.errors import aws_errors
from chalicelib.reports.layout import Machine, Position, branches_of, lay_out, next_states
from chalicelib.timeline import timestamp

# An execution has at most 25,000 events, and Step Functions returns up to 1,000 events per request.
PAGE_EVENTS = 1000
NEWEST_PAGES = 9
ERROR_CHARACTERS = 1000
STOPPED = "it was stopped because another step failed"

Event = dict[str, Any]


@dataclass(eq=False)
class Visit:
    """One visit to a state during an execution. ``within`` is the visit to the enclosing Parallel or Map state.

    ``failed`` is true if the latest attempt of the visit failed.
    """

    state: State
    within: Visit | None
    failed: bool = False
    error: str | None = None


@dataclass
class State:
    """A state in a state machine, with the results of all visits to the state.

    ``visits`` contains the unfinished visits.
    """

    name: str
    kind: str
    parent: str | None
    next: list[str]
    catch: list[str]
    position: Position
    error: str | None
    visits: list[Visit] = field(default_factory=list)
    ends: set[str] = field(default_factory=set)
    entered: int = 0
    begun: int = 0
    started: datetime | None = None
    finished: datetime | None = None

    def enter(self, within: Visit | None, moment: datetime) -> Visit:
        visit = Visit(self, within, failed=self.kind == "fail", error=self.error)
        self.visits.append(visit)
        self.entered += 1
        self.started = self.started or moment
        return visit

    def leave(self, visit: Visit, end: str, moment: datetime) -> None:
        if visit in self.visits:
            self.visits.remove(visit)
        self.ends.add(end)
        self.error = visit.error or self.error
        self.finished = moment

    def shown(self, running: bool) -> dict[str, Any]:
        """Returns the state for the REST API. In a ``running`` execution, unvisited states are shown as waiting."""
        # If a Map or a loop visits a state many times, the worst result is shown.
        ended = next((end for end in ("failed", "caught", "succeeded") if end in self.ends), None)
        status = "running" if self.visits else ended or ("waiting" if running else "skipped")
        error = next((visit.error for visit in self.visits if visit.error), None) if self.visits else self.error
        return {
            "name": self.name,
            "kind": self.kind,
            "parent": self.parent,
            "column": self.position[0],
            "row": self.position[1],
            "next": self.next,
            "catch": self.catch,
            "status": status,
            "startedAt": timestamp(self.started) if self.started else None,
            "finishedAt": timestamp(self.finished) if self.finished and not self.visits else None,
            "tries": max(self.entered, self.begun),
            "error": error if status in ("running", "failed", "caught") else None,
        }


@aws_errors()
def report_history(report_id: str, *, sfn: Any, machines: reports.Machines) -> dict[str, Any]:
    """Returns the states and the progress of a report's execution.

    The result is ``{"reportId", "kind", "status", "startedAt", "finishedAt", "states", "partial"}``. The fields of a
    state are documented in ``chalicelib/openapi.json``. ``partial`` is true if the execution has too many events. The
    events in the middle are then missing. Raises ``NotFound`` if no report has this id.
    """
    kind, execution = reports.find(report_id, sfn, machines)
    events, partial = _events(execution["executionArn"], sfn)
    states = _states(_machine(execution["executionArn"], sfn))
    _replay(states, events)
    running = execution["status"] == "RUNNING"
    if not running:
        _close(states, execution)
    shown = [state.shown(running) for state in states.values()]
    return {**reports.line(kind, execution), "states": shown, "partial": partial}


# --- Calls to Step Functions ------------------------------------------------------------------------------------------


# The definition is cached, because the console polls executions and Step Functions has a low quota for this operation.
@lru_cache(maxsize=64)
def _machine(arn: str, sfn: Any) -> Machine:
    """Returns the state machine's definition at the time when the execution started."""
    machine: Machine = json.loads(sfn.describe_state_machine_for_execution(executionArn=arn)["definition"])
    return machine


def _events(arn: str, sfn: Any) -> tuple[list[Event], bool]:
    """Returns the events of the execution, and True if some events were left out."""
    # The inputs and outputs of states are excluded, because they contain the link to the report.
    request = {"executionArn": arn, "maxResults": PAGE_EVENTS, "includeExecutionData": False}
    newest: list[Event] = []
    more: dict[str, str] = {}
    for _ in range(NEWEST_PAGES):
        answer = sfn.get_execution_history(**request, **more, reverseOrder=True)
        newest += answer["events"]
        if "nextToken" not in answer:
            return newest[::-1], False
        more = {"nextToken": answer["nextToken"]}
    # If a Map with many items fills the history, only the oldest events show when the execution entered the Map.
    oldest: list[Event] = sfn.get_execution_history(**request)["events"]
    left_out = oldest[-1]["id"] < newest[-1]["id"] - 1
    return [event for event in oldest if event["id"] < newest[-1]["id"]] + newest[::-1], left_out


# --- The states of the machine ----------------------------------------------------------------------------------------


def _states(machine: Machine) -> dict[str, State]:
    """Returns all states by name, including states inside a Parallel or Map state.

    State names are unique within a state machine.
    """
    positions, _, _ = lay_out(machine)

    def read(machine: Machine, parent: str | None) -> Iterator[State]:
        for name, state in machine["States"].items():
            kind = state["Type"].lower()
            catch = list(dict.fromkeys(each["Next"] for each in state.get("Catch", [])))
            error = _constant(state.get("Cause")) or _constant(state.get("Error"))
            yield State(name, kind, parent, next_states(state), catch, positions[name], error)
            for branch in branches_of(state):
                yield from read(branch, name)

    return {state.name: state for state in read(machine, None)}


def _constant(text: str | None) -> str | None:
    """Returns ``text``, or None if ``text`` is a JSONata expression.

    The failure event contains the result of the expression.
    """
    return None if text and text.startswith("{%") else text


# --- The progress of the execution ------------------------------------------------------------------------------------


def _replay(states: dict[str, State], events: list[Event]) -> None:
    """Replays the events of an execution, and records the visits to its states in ``states``."""
    # This dictionary maps the id of each event to the visit that the event belongs to.
    visits: dict[int, Visit] = {}
    for event in events:
        kind: str = event["type"]
        # Events for aborted states are skipped, because these events do not contain the name of the state. Visits to
        # aborted states end when the enclosing state or the execution ends.
        if kind.endswith("Aborted") or (kind.startswith("Execution") and kind != "ExecutionFailed"):
            continue
        visit = _visit_of(states, event, visits.get(event.get("previousEventId", 0)))
        if visit is None:
            continue
        visits[event["id"]] = visit
        moment: datetime = event["timestamp"]
        if kind.endswith("StateExited"):
            visit.state.leave(visit, "caught" if visit.failed else "succeeded", moment)
        elif kind.startswith("MapIteration"):
            continue
        elif kind.endswith(("Scheduled", "StateStarted")):
            visit.state.begun += 1
            visit.failed = False
            # If a visit inside this visit is still open, it belongs to an earlier attempt.
            _stop_inside(states, visit, moment)
        elif kind.endswith("Succeeded"):
            visit.failed, visit.error = False, None
        elif kind.endswith(("Failed", "TimedOut")):
            inner = [each.error for each in _inside(states, visit) if each.failed and each.error]
            visit.failed, visit.error = True, _reason(_details(event)) or (inner[-1] if inner else visit.error)
            _stop_inside(states, visit, moment)


def _visit_of(states: dict[str, State], event: Event, before: Visit | None) -> Visit | None:
    """Returns the visit that an event belongs to. ``before`` is the visit of the previous event, or None."""
    kind: str = event["type"]
    details = _details(event)
    state = states.get(details.get("name") or details.get("state") or "")
    if state is None:
        if not kind.startswith(("MapState", "MapRun", "ParallelState")):
            return before
        container = "map" if kind.startswith("Map") else "parallel"
        again = kind.endswith("StateStarted")
        return _nearest(before, lambda visit: visit.state.kind == container and (again or not visit.failed))
    if kind.endswith("StateEntered"):
        parent = states.get(state.parent or "")
        within = _nearest(before, lambda visit: visit.state is parent) or (
            parent.visits[0] if parent and parent.visits else None
        )
        if not _nearest(within, lambda visit: visit.state.kind == "map"):
            # A scheduled report repeats its states after an outage, and then only their latest results count.
            for each in states.values():
                if each is state or each.parent == state.name:
                    each.ends.clear()
        return state.enter(within, event["timestamp"])
    visit = _nearest(before, lambda visit: visit.state is state) or (state.visits[0] if state.visits else None)
    # The event for entering the state can be missing if the history is too long.
    return visit or (Visit(state, None) if kind.endswith("StateExited") else None)


def _nearest(visit: Visit | None, matches: Callable[[Visit], bool]) -> Visit | None:
    """Starts at ``visit``, moves outward, and returns the first visit that matches, or None if no visit matches."""
    while visit and not matches(visit):
        visit = visit.within
    return visit


def _inside(states: dict[str, State], visit: Visit) -> list[Visit]:
    """Returns the unfinished visits inside ``visit``."""
    if visit.state.kind not in ("map", "parallel"):
        return []
    others = [each for state in states.values() for each in state.visits if each is not visit]
    return [each for each in others if _nearest(each, lambda around: around is visit)]


def _stop_inside(states: dict[str, State], visit: Visit, moment: datetime) -> None:
    """Ends the unfinished visits inside ``visit``, and marks them as failed."""
    for each in _inside(states, visit):
        each.error = each.error if each.failed else STOPPED
        each.state.leave(each, "failed", moment)


def _close(states: dict[str, State], execution: dict[str, Any]) -> None:
    """Ends all visits that are still open when the execution has ended."""
    status = execution["status"]
    for state in states.values():
        for visit in list(state.visits):
            if status == "SUCCEEDED":
                # Step Functions updates an execution's status shortly before it adds the last events to the history.
                state.leave(visit, "succeeded", execution["stopDate"])
                continue
            if not visit.failed:
                visit.error = STOPPED if status == "FAILED" else reports.reason(execution)
            state.leave(visit, "failed", execution["stopDate"])


def _details(event: Event) -> dict[str, Any]:
    return next((event[name] for name in event if name.endswith("EventDetails")), {})


def _reason(details: dict[str, Any]) -> str | None:
    """Returns the reason for a failure as plain text, without the stack trace of a Lambda function."""
    error, cause = details.get("error"), details.get("cause")
    if not cause:
        return "it timed out" if error == "States.Timeout" else error
    # If a Lambda function failed, the cause is JSON that contains an error message. All other causes are plain text.
    with suppress(ValueError, TypeError, KeyError):
        cause = json.loads(cause)["errorMessage"]
    return str(cause)[:ERROR_CHARACTERS]
