"""How an execution goes, as a picture: its state machine's states, where each is drawn, and how far it has come.

Step Functions tells an execution as a list of events. Of the events of a state only the first and the last have its
name; each of the others names the event that led to it. What is read from that here was held against histories of AWS
itself: https://docs.aws.amazon.com/step-functions/latest/apireference/API_HistoryEvent.html has the words only.
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
from chalicelib.timeline import timestamp

# An execution has at most 25,000 events, of which Step Functions gives 1,000 a call.
PAGE_EVENTS = 1000
NEWEST_PAGES = 9
ERROR_CHARACTERS = 1000
STOPPED = "it was stopped, because another step had failed"

Event = dict[str, Any]
Machine = dict[str, Any]
Place = tuple[int, int]


@dataclass(eq=False)
class Stay:
    """One stay of the execution in a state, ``within`` the stay in the Parallel or Map around it.

    ``failed`` says that the latest try of its work did.
    """

    state: State
    within: Stay | None
    failed: bool = False
    error: str | None = None


@dataclass
class State:
    """A state of the machine, and what became of all the stays in it: ``stays`` has those that go on."""

    name: str
    kind: str
    parent: str | None
    next: list[str]
    catch: list[str]
    place: Place
    error: str | None
    stays: list[Stay] = field(default_factory=list)
    ends: set[str] = field(default_factory=set)
    entered: int = 0
    begun: int = 0
    started: datetime | None = None
    finished: datetime | None = None

    def enter(self, within: Stay | None, moment: datetime) -> Stay:
        stay = Stay(self, within, failed=self.kind == "fail", error=self.error)
        self.stays.append(stay)
        self.entered += 1
        self.started = self.started or moment
        return stay

    def leave(self, stay: Stay, end: str, moment: datetime) -> None:
        if stay in self.stays:
            self.stays.remove(stay)
        self.ends.add(end)
        self.error = stay.error or self.error
        self.finished = moment

    def shown(self, running: bool) -> dict[str, Any]:
        """``running`` says whether the execution is, so that what was not entered may be so later."""
        # Of a Map's items, or the rounds of a loop, the worst end counts.
        ended = next((end for end in ("failed", "caught", "succeeded") if end in self.ends), None)
        status = "running" if self.stays else ended or ("waiting" if running else "skipped")
        error = next((stay.error for stay in self.stays if stay.error), None) if self.stays else self.error
        return {
            "name": self.name,
            "kind": self.kind,
            "parent": self.parent,
            "column": self.place[0],
            "row": self.place[1],
            "next": self.next,
            "catch": self.catch,
            "status": status,
            "startedAt": timestamp(self.started) if self.started else None,
            "finishedAt": timestamp(self.finished) if self.finished and not self.stays else None,
            "tries": max(self.entered, self.begun),
            "error": error if status in ("running", "failed", "caught") else None,
        }


@aws_errors()
def of(report_id: str, *, sfn: Any, machines: reports.Machines) -> dict[str, Any]:
    """``{"reportId", "kind", "status", "startedAt", "finishedAt", "states", "partial"}``. Raises ``NotFound``.

    ``chalicelib/openapi.json`` tells what a state has. ``partial`` says that the execution has too many events to read
    all: those in its middle are left out.
    """
    kind, execution = reports.find(report_id, sfn, machines)
    events, partial = _events(execution["executionArn"], sfn)
    states = _states(_machine(execution["executionArn"], sfn))
    _follow(states, events)
    running = execution["status"] == "RUNNING"
    if not running:
        _end(states, execution)
    shown = [state.shown(running) for state in states.values()]
    return {**reports.line(kind, execution), "states": shown, "partial": partial}


# --- what Step Functions tells ----------------------------------------------------------------------------------------


# A page that shows an execution asks again and again, and Step Functions takes few calls of this kind.
@lru_cache(maxsize=64)
def _machine(arn: str, sfn: Any) -> Machine:
    """The execution's state machine, as it was when the execution began."""
    machine: Machine = json.loads(sfn.describe_state_machine_for_execution(executionArn=arn)["definition"])
    return machine


def _events(arn: str, sfn: Any) -> tuple[list[Event], bool]:
    """The execution's events, and whether some were left out."""
    # Without what goes into the states and comes out, which has the report's link.
    asked = {"executionArn": arn, "maxResults": PAGE_EVENTS, "includeExecutionData": False}
    newest: list[Event] = []
    more: dict[str, str] = {}
    for _ in range(NEWEST_PAGES):
        answer = sfn.get_execution_history(**asked, **more, reverseOrder=True)
        newest += answer["events"]
        if "nextToken" not in answer:
            return newest[::-1], False
        more = {"nextToken": answer["nextToken"]}
    # Its beginning too: there the Map was entered whose items are so many.
    oldest: list[Event] = sfn.get_execution_history(**asked)["events"]
    left_out = oldest[-1]["id"] < newest[-1]["id"] - 1
    return [event for event in oldest if event["id"] < newest[-1]["id"]] + newest[::-1], left_out


# --- where each state is drawn ----------------------------------------------------------------------------------------


def _states(machine: Machine) -> dict[str, State]:
    """By their names, which are unique in all of a machine."""
    places, _, _ = _lay_out(machine)

    def read(machine: Machine, parent: str | None) -> Iterator[State]:
        for name, state in machine["States"].items():
            kind = state["Type"].lower()
            catch = list(dict.fromkeys(each["Next"] for each in state.get("Catch", [])))
            error = state.get("Cause") or state.get("Error")
            yield State(name, kind, parent, _next(state), catch, places[name], error)
            for branch in _branches(state):
                yield from read(branch, name)

    return {state.name: state for state in read(machine, None)}


def _next(state: Machine) -> list[str]:
    """Where it may go on. A choice's default comes first: it is the way straight on."""
    ways = [state.get("Default"), *(choice["Next"] for choice in state.get("Choices", [])), state.get("Next")]
    return list(dict.fromkeys(way for way in ways if way))


def _branches(state: Machine) -> list[Machine]:
    if state["Type"] == "Map":
        # Iterator is what the other was called in earlier days, and is still taken.
        return [state.get("ItemProcessor") or state["Iterator"]]
    branches: list[Machine] = state.get("Branches", [])
    return branches


def _lay_out(machine: Machine) -> tuple[dict[str, Place], int, int]:
    """``{name: (column, row)}``, and how many columns and rows these are.

    A column is the depth from the start, on the longest way that is no loop; a row is the first one free. What is
    reached by a failure only is below all beside it. A Parallel or a Map lies under the states within it, and has the
    place of the first of them.
    """
    states: dict[str, Machine] = machine["States"]
    within: dict[str, dict[str, Place]] = {}
    widths: dict[str, int] = {}
    heights: dict[str, int] = {}
    for name, state in states.items():
        within[name], widths[name], heights[name] = {}, 1, 0
        for branch in _branches(state):
            places, width, height = _lay_out(branch)
            within[name] |= {each: (column, row + heights[name]) for each, (column, row) in places.items()}
            widths[name], heights[name] = max(widths[name], width), heights[name] + height
        heights[name] = max(heights[name], 1)

    columns: dict[str, int] = {}
    rows: dict[str, int] = {}
    taken: set[Place] = set()

    def put(name: str, row: int) -> None:
        """Into ``row`` or the first below it that is free, and all that follows from there."""

        def cells() -> set[Place]:
            right, down = range(widths[name]), range(heights[name])
            return {(columns[name] + x, row + y) for x in right for y in down}

        while cells() & taken:
            row += 1
        taken.update(cells())
        rows[name] = row
        for following in _next(states[name]):
            if following not in rows:
                put(following, row)

    column, start = 0, machine["StartAt"]
    while start:
        columns |= _columns(states, widths, start, column, columns)
        put(start, max((row + 1 for x, row in taken if x >= column), default=0))
        catchers = (
            (columns[name] + widths[name], catcher["Next"])
            for name in columns
            for catcher in states[name].get("Catch", [])
            if catcher["Next"] not in columns
        )
        column, start = min(catchers, default=(0, ""))

    places = {}
    for name in rows:
        places[name] = columns[name], rows[name]
        places |= {each: (columns[name] + x, rows[name] + y) for each, (x, y) in within[name].items()}
    return places, max(column + 1 for column, _ in taken), max(row + 1 for _, row in taken)


def _columns(
    states: dict[str, Machine], widths: dict[str, int], start: str, column: int, known: dict[str, int]
) -> dict[str, int]:
    """The columns of ``start``, which has ``column``, and of all that follows it and is not in ``known``."""
    order: list[str] = []
    path: list[str] = []
    loops: set[tuple[str, str]] = set()

    def walk(name: str) -> None:
        path.append(name)
        for following in _next(states[name]):
            if following in path:
                loops.add((name, following))
            elif following not in order and following not in known:
                walk(following)
        order.append(path.pop())

    walk(start)
    columns = {start: column}
    # In this direction each state comes after all that lead to it.
    for name in reversed(order):
        for following in _next(states[name]):
            if following in order and (name, following) not in loops:
                columns[following] = max(columns.get(following, 0), columns[name] + widths[name])
    return columns


# --- how far it has come ----------------------------------------------------------------------------------------------


def _follow(states: dict[str, State], events: list[Event]) -> None:
    """Lets the execution go through ``states`` once more."""
    # The stay that each event is a part of.
    stays: dict[int, Stay] = {}
    for event in events:
        kind: str = event["type"]
        # An aborted state's event does not tell which one: all that is open ends together with what is around it.
        if kind.endswith("Aborted") or (kind.startswith("Execution") and kind != "ExecutionFailed"):
            continue
        stay = _part_of(states, event, stays.get(event.get("previousEventId", 0)))
        if stay is None:
            continue
        stays[event["id"]] = stay
        moment: datetime = event["timestamp"]
        if kind.endswith("StateExited"):
            stay.state.leave(stay, "caught" if stay.failed else "succeeded", moment)
        elif kind.startswith("MapIteration"):
            continue
        elif kind.endswith(("Scheduled", "StateStarted")):
            stay.state.begun += 1
            stay.failed = False
            # What is left in it is of a try before.
            _stop(states, stay, moment)
        elif kind.endswith("Succeeded"):
            stay.failed, stay.error = False, None
        elif kind.endswith(("Failed", "TimedOut")):
            inner = [each.error for each in _inside(states, stay) if each.failed and each.error]
            stay.failed, stay.error = True, _reason(_details(event)) or (inner[-1] if inner else stay.error)
            _stop(states, stay, moment)


def _part_of(states: dict[str, State], event: Event, before: Stay | None) -> Stay | None:
    """The stay that an event is a part of. ``before`` is that of the event that led to it, None if it was left out."""
    kind: str = event["type"]
    details = _details(event)
    state = states.get(details.get("name") or details.get("state") or "")
    if state is None:
        if not kind.startswith(("MapState", "MapRun", "ParallelState")):
            return before
        container = "map" if kind.startswith("Map") else "parallel"
        again = kind.endswith("StateStarted")
        return _around(before, lambda stay: stay.state.kind == container and (again or not stay.failed))
    if kind.endswith("StateEntered"):
        parent = states.get(state.parent or "")
        within = _around(before, lambda stay: stay.state is parent) or (
            parent.stays[0] if parent and parent.stays else None
        )
        return state.enter(within, event["timestamp"])
    stay = _around(before, lambda stay: stay.state is state) or (state.stays[0] if state.stays else None)
    # It may have been entered among the events that were left out.
    return stay or (Stay(state, None) if kind.endswith("StateExited") else None)


def _around(stay: Stay | None, wanted: Callable[[Stay], bool]) -> Stay | None:
    """``stay`` itself, or the nearest one around it, that is ``wanted``."""
    while stay and not wanted(stay):
        stay = stay.within
    return stay


def _inside(states: dict[str, State], stay: Stay) -> list[Stay]:
    """The stays within ``stay`` that go on."""
    if stay.state.kind not in ("map", "parallel"):
        return []
    going_on = [each for state in states.values() for each in state.stays if each is not stay]
    return [each for each in going_on if _around(each, lambda around: around is stay)]


def _stop(states: dict[str, State], stay: Stay, moment: datetime) -> None:
    for each in _inside(states, stay):
        each.error = each.error if each.failed else STOPPED
        each.state.leave(each, "failed", moment)


def _end(states: dict[str, State], execution: dict[str, Any]) -> None:
    """Ends what is open when the execution has ended."""
    status = execution["status"]
    for state in states.values():
        for stay in list(state.stays):
            if status == "SUCCEEDED":
                # Its last events are not there yet: they come a moment later than the execution's status.
                state.leave(stay, "succeeded", execution["stopDate"])
                continue
            if not stay.failed:
                stay.error = STOPPED if status == "FAILED" else reports.reason(execution)
            state.leave(stay, "failed", execution["stopDate"])


def _details(event: Event) -> dict[str, Any]:
    return next((event[name] for name in event if name.endswith("EventDetails")), {})


def _reason(details: dict[str, Any]) -> str | None:
    """Of a failure, in words for people: a function's failure is JSON with a message in it, and a trace."""
    error, cause = details.get("error"), details.get("cause")
    if not cause:
        return "it took too long and was given up" if error == "States.Timeout" else error
    # Any other's is a sentence already.
    with suppress(ValueError, TypeError, KeyError):
        cause = json.loads(cause)["errorMessage"]
    return str(cause)[:ERROR_CHARACTERS]
