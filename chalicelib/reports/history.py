"""The data for a picture of a report's execution: its machine's states, with their positions and progress.

Step Functions returns an execution as a list of events. Only a state's first and last events contain its name.
Every other event refers to the previous event. AWS documents only the fields of an event, so this module was checked
against real histories: https://docs.aws.amazon.com/step-functions/latest/apireference/API_HistoryEvent.html
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

# An execution has at most 25,000 events, and Step Functions returns up to 1,000 per request.
PAGE_EVENTS = 1000
NEWEST_PAGES = 9
ERROR_CHARACTERS = 1000
STOPPED = "it was stopped because another step failed"

Event = dict[str, Any]


@dataclass(eq=False)
class Visit:
    """One visit of the execution to a state. ``within`` is the visit to the enclosing Parallel or Map.

    ``failed`` is true if the latest attempt failed.
    """

    state: State
    within: Visit | None
    failed: bool = False
    error: str | None = None


@dataclass
class State:
    """A state machine's state, with the results of all visits to it. ``visits`` contains the open visits."""

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
        """Returns the state for the REST API. In a ``running`` execution, a state without a visit is still waiting."""
        # The worst result counts, because Map items and loops visit a state many times.
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
    """Returns ``{"reportId", "kind", "status", "startedAt", "finishedAt", "states", "partial"}``. Raises ``NotFound``.

    ``chalicelib/openapi.json`` describes a state. ``partial`` is true if the execution has too many events, and the
    events in the middle are left out.
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


# --- what Step Functions returns --------------------------------------------------------------------------------------


# The console polls executions, and Step Functions has a low quota for this operation.
@lru_cache(maxsize=64)
def _machine(arn: str, sfn: Any) -> Machine:
    """Returns the execution's state machine as it was when the execution began."""
    machine: Machine = json.loads(sfn.describe_state_machine_for_execution(executionArn=arn)["definition"])
    return machine


def _events(arn: str, sfn: Any) -> tuple[list[Event], bool]:
    """Returns the execution's events, and whether some were left out."""
    # The states' inputs and outputs are left out because they contain the report's link.
    request = {"executionArn": arn, "maxResults": PAGE_EVENTS, "includeExecutionData": False}
    newest: list[Event] = []
    more: dict[str, str] = {}
    for _ in range(NEWEST_PAGES):
        answer = sfn.get_execution_history(**request, **more, reverseOrder=True)
        newest += answer["events"]
        if "nextToken" not in answer:
            return newest[::-1], False
        more = {"nextToken": answer["nextToken"]}
    # The oldest events include the entry into the Map whose items made the history so long.
    oldest: list[Event] = sfn.get_execution_history(**request)["events"]
    left_out = oldest[-1]["id"] < newest[-1]["id"] - 1
    return [event for event in oldest if event["id"] < newest[-1]["id"]] + newest[::-1], left_out


# --- the states of the machine ----------------------------------------------------------------------------------------


def _states(machine: Machine) -> dict[str, State]:
    """Returns all states, including those inside a Parallel or a Map, keyed by name. Names are unique in a machine."""
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
    """Returns ``text``, or None for an expression, because the failure's event contains the expression's value."""
    return None if text and text.startswith("{%") else text


# --- the progress of the execution ------------------------------------------------------------------------------------


def _replay(states: dict[str, State], events: list[Event]) -> None:
    """Replays the execution's events, and records its visits in ``states``."""
    # The visit to which each event belongs, keyed by event id.
    visits: dict[int, Visit] = {}
    for event in events:
        kind: str = event["type"]
        # An aborted state's event does not name the state. A container's open visits end with the container.
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
            # An open visit inside this visit is from an earlier attempt.
            _stop_inside(states, visit, moment)
        elif kind.endswith("Succeeded"):
            visit.failed, visit.error = False, None
        elif kind.endswith(("Failed", "TimedOut")):
            inner = [each.error for each in _inside(states, visit) if each.failed and each.error]
            visit.failed, visit.error = True, _reason(_details(event)) or (inner[-1] if inner else visit.error)
            _stop_inside(states, visit, moment)


def _visit_of(states: dict[str, State], event: Event, before: Visit | None) -> Visit | None:
    """Returns an event's visit. ``before`` is the previous event's visit, or None if that event was left out."""
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
        return state.enter(within, event["timestamp"])
    visit = _nearest(before, lambda visit: visit.state is state) or (state.visits[0] if state.visits else None)
    # The entry may be among the events that were left out.
    return visit or (Visit(state, None) if kind.endswith("StateExited") else None)


def _nearest(visit: Visit | None, matches: Callable[[Visit], bool]) -> Visit | None:
    """Returns the innermost matching visit, which is ``visit`` or a visit around it, or None if there is none."""
    while visit and not matches(visit):
        visit = visit.within
    return visit


def _inside(states: dict[str, State], visit: Visit) -> list[Visit]:
    """Returns the open visits inside ``visit``."""
    if visit.state.kind not in ("map", "parallel"):
        return []
    others = [each for state in states.values() for each in state.visits if each is not visit]
    return [each for each in others if _nearest(each, lambda around: around is visit)]


def _stop_inside(states: dict[str, State], visit: Visit, moment: datetime) -> None:
    """Ends the open visits inside ``visit`` as failed."""
    for each in _inside(states, visit):
        each.error = each.error if each.failed else STOPPED
        each.state.leave(each, "failed", moment)


def _close(states: dict[str, State], execution: dict[str, Any]) -> None:
    """Ends the visits that are still open after the execution has ended."""
    status = execution["status"]
    for state in states.values():
        for visit in list(state.visits):
            if status == "SUCCEEDED":
                # Step Functions updates the status a moment before it adds the last events.
                state.leave(visit, "succeeded", execution["stopDate"])
                continue
            if not visit.failed:
                visit.error = STOPPED if status == "FAILED" else reports.reason(execution)
            state.leave(visit, "failed", execution["stopDate"])


def _details(event: Event) -> dict[str, Any]:
    return next((event[name] for name in event if name.endswith("EventDetails")), {})


def _reason(details: dict[str, Any]) -> str | None:
    """Returns a failure's reason in plain text, without a function's stack trace."""
    error, cause = details.get("error"), details.get("cause")
    if not cause:
        return "it timed out" if error == "States.Timeout" else error
    # A function's cause is JSON that contains a message. All other causes are plain text.
    with suppress(ValueError, TypeError, KeyError):
        cause = json.loads(cause)["errorMessage"]
    return str(cause)[:ERROR_CHARACTERS]
