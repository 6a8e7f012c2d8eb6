"""Arranges the log lines and facts about an order, a report or an upload as hops, for the page of ``make trace``.

A journey is what one request or event caused. Each hop on its path begins when the previous hop handed over. The time
between two hops is a hop called a wait. Nothing is measured for the page: each moment comes from a log line, an
invocation, the execution's history or the inbox.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from chalicelib.notifications import stored_key
from infra.trace import Line
from infra.waterfall.facts import Facts, Invocation, at

AGAIN = "wait before the next attempt"
UNREPORTED = "no REPORT line"
NOTE_CHARACTERS = 300


@dataclass
class Hop:
    """A bar of the waterfall, from ``start`` to ``end`` in Unix time. ``kind`` is work, wait or part.

    At the moment ``handover``, the next hop's turn begins. A part belongs to the bar above it with a lower ``level``,
    and is not a step of the path.
    """

    name: str
    start: float
    end: float
    kind: str = "work"
    handover: float | None = None
    level: int = 0
    notes: list[str] = field(default_factory=list)
    is_bad: bool = False
    lines: list[Line] = field(default_factory=list)

    @property
    def path_end(self) -> float:
        return self.end if self.handover is None else max(self.start, self.handover)


@dataclass
class Journey:
    """The hops that one request or event caused for the order, report or upload with the id ``subject``.

    ``missing`` maps the name of each hop that is not there to the reason.
    """

    title: str
    subject: str
    hops: list[Hop] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> list[Hop]:
        return [hop for hop in self.hops if hop.kind != "part"]

    @property
    def start(self) -> float:
        return min(hop.start for hop in self.hops)

    @property
    def end_to_end(self) -> float:
        """Seconds from the start of the first hop to the end of the last one on the path."""
        return self.path[-1].path_end - self.start

    @property
    def sum(self) -> float:
        """Seconds that the hops on the path took, added up."""
        return sum(hop.path_end - hop.start for hop in self.path)


# An invocation with its lines.
Run = tuple[Invocation, list[Line]]


def message(line: Line) -> str:
    return str(line.record.get("message", ""))


class Evidence:
    """The lines and facts of a trace."""

    def __init__(self, lines: list[Line], facts: Facts) -> None:
        self.lines, self.facts = lines, facts

    def find(self, source: str, *messages: str, since: float = 0, **values: Any) -> list[Line]:
        """Returns the lines of ``source`` that have one of these messages, if any are given, and these values."""
        return [
            line
            for line in self.lines
            if line.source == source
            and (not messages or message(line) in messages)
            and at(line) >= since
            and all(line.record.get(name) == value for name, value in values.items())
        ]

    def runs(self, source: str, lines: list[Line] | None = None) -> list[Run]:
        """Returns the invocations that wrote the lines of ``source``. Without a REPORT line, the log lines bound it."""
        runs: dict[tuple[tuple[str, str], float], Run] = {}
        for line in self.find(source) if lines is None else lines:
            moment = at(line)
            run = next((each for each in self.facts.invocations if each.has(line)), None)
            key = (line.origin, run.start if run else 0)
            if not run:
                before = runs[key][0] if key in runs else Invocation(line.origin, moment, moment)
                run = Invocation(line.origin, min(before.start, moment), max(before.end, moment), 0, UNREPORTED)
            runs[key] = (run, [*(runs[key][1] if key in runs else []), line])
        return sorted(runs.values(), key=lambda run: run[0].start)


class Builder:
    """Adds hops to a journey. ``moment`` is when the last hop on the path handed over."""

    def __init__(self, title: str, subject: str, evidence: Evidence) -> None:
        self.journey, self.evidence = Journey(title, subject), evidence
        self.moment: float | None = None

    def add(self, hop: Hop, wait: str = "") -> None:
        """Adds the next hop of the path, and the wait before it if ``wait`` names one."""
        hops, moment = self.journey.path, self.moment
        if moment is not None and hop.start < moment and hops:
            # The next hop can begin before the handover is logged.
            moment = hops[-1].handover = max(hops[-1].start, hop.start)
        if moment is not None and wait:
            self.journey.hops.append(Hop(wait, moment, max(moment, hop.start), "wait"))
        self.journey.hops.append(hop)
        self.moment = hop.path_end

    def part(self, name: str, start: float, end: float, level: int = 1, **about: Any) -> None:
        self.journey.hops.append(Hop(name, start, end, "part", level=level, **about))

    def request(self, line: Line, handover: float | None) -> None:
        """Adds the request that wrote ``line``."""
        find, correlation_id = self.evidence.find, line.record.get("correlationId")
        answered = find("API", "request answered", since=at(line), correlationId=correlation_id)
        if not answered:
            self.add(Hop("API request", at(line), at(line), notes=["no answer was logged"], is_bad=True, lines=[line]))
            return
        record, end = answered[0].record, at(answered[0])
        start = end - record["milliseconds"] / 1000
        lines = [each for each in find("API", correlationId=correlation_id) if start - 0.001 <= at(each) <= end]
        access = find("access", requestId=record.get("requestId")) if record.get("requestId") else []
        runs = self.evidence.runs("API", answered[:1])
        # The latency that API Gateway logs includes the authorizer and a cold start.
        latency = max((float(each.record.get("milliseconds") or 0) / 1000 for each in access), default=0)
        first = min([start, end - latency, *(run.start for run, _ in runs if run.init)])
        notes, is_bad = [f"status {record['status']}"], record["status"] >= 400
        self.add(Hop(str(record["route"]), first, end, "work", handover, 0, notes, is_bad, [*access, *lines]))
        self.cold_start(runs[0][0])

    def cold_start(self, run: Invocation, level: int = 1) -> None:
        if run.init:
            self.part("cold start", run.start, run.start + run.init, level)

    def attempts(self, name: str, runs: list[Run], done: Line | None, wait: str, handover: float | None) -> bool:
        """Adds the invocations of a function up to the one that wrote ``done``. Returns False if it is missing."""
        for run, lines in runs:
            is_last = done in lines
            end = run.end if handover is None or not is_last else max(run.end, handover)
            hop = Hop(name, run.start, end, handover=handover if is_last else None, **about(run, lines))
            if done and not is_last:
                hop.is_bad, hop.notes = True, hop.notes or ["ended without a result"]
            self.add(hop, wait)
            self.cold_start(run)
            wait = AGAIN
            if is_last:
                return True
        return False

    def deliver(self, key: str) -> None:
        """Adds the way of a notification through SNS to the inbox."""
        kept = self.evidence.find("record_notification", "notification kept", notificationID=stored_key(key))
        if not kept:
            self.journey.missing["SNS and inbox"] = "record_notification has not logged the notification."
            return
        [(run, lines)] = self.evidence.runs("record_notification", kept[:1])
        inbox = Hop("record_notification (inbox)", run.start, run.end, handover=at(kept[0]), **about(run, lines))
        self.add(inbox, "SNS")
        self.cold_start(run)

    def accepted(self, published: Line, start: float) -> float:
        """Returns when SNS accepted a notification. The local cloud knows only the second, so the log line is used."""
        sent = self.evidence.facts.sent.get(stored_key(str(published.record["key"])), 0)
        return sent if start <= sent <= at(published) else at(published)


def about(run: Invocation, lines: list[Line]) -> dict[str, Any]:
    """Returns the notes of a hop about an invocation, whether the invocation failed, and its lines."""
    troubles = [line for line in lines if line.record.get("level") in ("WARNING", "ERROR", "CRITICAL")]
    texts = [f"{message(line)} {line.record.get('reason') or ''}".strip()[:NOTE_CHARACTERS] for line in troubles]
    failed = bool(troubles) or run.problem not in ("", UNREPORTED)
    return {"notes": [*texts, *filter(None, [run.problem])], "is_bad": failed, "lines": lines}
