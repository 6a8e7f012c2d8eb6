"""Finds the hops of a report: the states of its state machine, from the history of the execution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from infra.trace import Line
from infra.waterfall.hops import NOTE_CHARACTERS, Builder, Evidence, Hop, Journey, Run, about

# A shorter pause between two states is due to the rounding of times.
PAUSE_SECONDS = 0.005


@dataclass
class _Visit:
    """One visit to a state. ``tries`` contains the start, the end and the error of each attempt."""

    name: str
    start: float
    parent: _Visit | None
    end: float | None = None
    tries: list[list[Any]] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    @property
    def level(self) -> int:
        return self.parent.level + 1 if self.parent else 0


def _visits(events: list[dict[str, Any]], lines: list[Line], report_id: str) -> list[_Visit]:
    """Replays the events of an execution. Each event names the event before it, but only some name their state."""
    visits: list[_Visit] = []
    of_event: dict[int, _Visit | None] = {}
    for event in events:
        kind, moment = str(event["type"]), event["timestamp"].timestamp()
        details: dict[str, Any] = next((event[name] for name in event if name.endswith("EventDetails")), {})
        visit = of_event.get(event.get("previousEventId", 0))
        if kind.endswith("StateEntered"):
            while visit and visit.end is not None:
                visit = visit.parent
            visit = _Visit(details["name"], moment, visit)
            visits.append(visit)
        elif kind.endswith("StateExited"):
            while visit and visit.name != details["name"]:
                visit = visit.parent
            if visit:
                visit.end = moment
        elif visit and kind.endswith("Scheduled"):
            visit.tries.append([moment, None, ""])
        elif visit and visit.tries and kind.endswith(("Succeeded", "Failed", "TimedOut")) and "Execution" not in kind:
            error = "" if kind.endswith("Succeeded") else f"{details.get('error', kind)} {details.get('cause') or ''}"
            visit.tries[-1][1:] = [moment, error.strip()[:NOTE_CHARACTERS]]
        of_event[event["id"]] = visit
    for line in lines:
        # Only lines of this execution have an event's number in `id`.
        is_event = str(line.record.get("execution_arn")).endswith(f":{report_id}")
        if is_event and (visit := of_event.get(int(line.record["id"]))):
            visit.lines.append(line)
    return visits


def report(report_id: str, evidence: Evidence) -> Iterator[Journey]:
    """Yields the journey of a report, from the request or the start of the execution to the inbox."""
    builder, events = Builder("Report", report_id, evidence), evidence.facts.executions.get(report_id) or []
    if not events:
        builder.journey.missing["state machine"] = "Step Functions has no execution with this name."
        yield builder.journey
        return
    began, last = (events[place]["timestamp"].timestamp() for place in (0, -1))
    for line in evidence.find("API", "report started", reportId=report_id)[:1]:
        builder.request(line, began)
    builder.moment = began if builder.moment is None else builder.moment
    visits = _visits(events, evidence.lines, report_id)
    sources = {line.source for line in evidence.lines if line.origin[0].startswith("/aws/lambda/")}
    runs = [run for name in sorted(sources - {"API", "record_notification"}) for run in evidence.runs(name)]
    notified = next((visit for visit in visits[::-1] if visit.name.startswith("Notify") and visit.tries), None)
    is_after = False
    for visit in visits:
        hop = _hop(visit, last)
        if visit.level or is_after:
            hop.kind = "part"
            builder.journey.hops.append(hop)
        else:
            hop.handover = visit.tries[-1][1] if visit is notified else None
            pause = "between two states" if visit.start - builder.moment > PAUSE_SECONDS else ""
            builder.add(hop, "start of the state machine" if visit is visits[0] else pause)
        for number, (start, stop, error) in enumerate(visit.tries if len(visit.tries) > 1 else [], 1):
            builder.part(f"attempt {number}", start, stop or hop.end, visit.level + 1, notes=[error] if error else [])
        for run, lines in (each for each in runs if _state_of(each, visits, last) is visit):
            builder.part(lines[0].source, run.start, run.end, visit.level + 1, **about(run, lines))
            builder.cold_start(run, visit.level + 2)
        is_after = is_after or visit is notified
    kept = evidence.find("record_notification", "notification kept")
    ids = [str(line.record["notificationID"]) for line in kept]
    if about_report := [each for each in ids if report_id in each.split("/")[1:2]]:
        builder.deliver(about_report[0])
    else:
        is_running = not str(events[-1]["type"]).startswith("Execution")
        reason = "The report is still running." if is_running else "No notification about the report was kept."
        builder.journey.missing["SNS and inbox"] = reason
    yield builder.journey


def _hop(visit: _Visit, last: float) -> Hop:
    errors = [error for _, _, error in visit.tries if error]
    notes = [*([f"{len(visit.tries)} attempts"] if len(visit.tries) > 1 else []), *errors]
    notes += [] if visit.end else ["not finished"]
    end = visit.end or last
    return Hop(visit.name, visit.start, end, level=visit.level, notes=notes, is_bad=bool(errors), lines=visit.lines)


def _state_of(run: Run, visits: list[_Visit], last: float) -> _Visit | None:
    """Returns the visit during which an invocation began, preferably one whose state has the function's name."""
    begun = run[0].start + run[0].init
    during = [each for each in visits if each.tries and each.start - 0.01 <= begun <= (each.end or last) + 0.01]
    name = run[1][0].source.replace("_", "")
    return next((each for each in during if each.name.lower() == name), during[-1] if during else None)
