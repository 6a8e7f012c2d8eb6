"""Reads what the page of a trace needs besides log lines: the invocations, the execution, and the stored items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from chalicelib import reports
from chalicelib.errors import NotFound
from infra.trace import Line

# The longest run of a function. All lines of an invocation are at most this far apart.
FUNCTION_SECONDS = 15 * 60
# The local cloud rounds the times of an invocation to milliseconds.
ROUNDING_SECONDS = 0.005
# Limits on what one page reads.
EVENTS, STREAMS, NOTIFICATIONS = 10_000, 100, 20

# A type of the parameter ``client``: returns an AWS client for a service's name.
Client = Callable[[str], Any]


@dataclass(frozen=True)
class Invocation:
    """One run of a function, from ``start`` to ``end`` in Unix time. ``init`` is the length of a cold start.

    ``problem`` is Lambda's status for a failed run, or says that the run's REPORT line is missing.
    """

    origin: tuple[str, str]
    start: float
    end: float
    init: float = 0
    problem: str = ""

    def has(self, line: Line) -> bool:
        is_within = self.start - ROUNDING_SECONDS <= at(line) <= self.end + ROUNDING_SECONDS
        return line.origin == self.origin and is_within


@dataclass(frozen=True)
class Facts:
    """``sent`` maps the id of a notification to the Unix time at which SNS accepted it.

    ``stored`` contains the ids of the stored orders, and ``executions`` has the events of each report.
    """

    invocations: list[Invocation] = field(default_factory=list)
    sent: dict[str, float] = field(default_factory=dict)
    stored: set[str] = field(default_factory=set)
    executions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def at(line: Line) -> float:
    """Returns the Unix time of a line, or 0 if a program wrote the line without a readable time."""
    try:
        return seconds(line.time)
    except ValueError:
        return 0


def seconds(time: str) -> float:
    return datetime.fromisoformat(time.replace("Z", "+00:00").replace(" ", "T")).replace(tzinfo=UTC).timestamp()


def read(lines: list[Line], subjects: Iterable[tuple[str, str]], client: Client, outputs: Mapping[str, str]) -> Facts:
    """Reads the facts about the orders and reports in ``subjects``. ``outputs`` names the tables and state machines."""
    dynamodb, subjects = client("dynamodb"), list(subjects)
    kept = dict.fromkeys(
        str(line.record["notificationID"]) for line in lines if line.record.get("message") == "notification kept"
    )
    facts = Facts(_read_invocations(lines, client("logs")))
    for identifier in list(kept)[:NOTIFICATIONS]:
        key = {"notificationID": {"S": identifier}}
        if item := dynamodb.get_item(TableName=outputs["NOTIFICATIONS_TABLE"], Key=key).get("Item"):
            facts.sent[identifier] = seconds(item["sentAt"]["S"])
    for kind, identifier in subjects:
        if kind == "order":
            key = {"orderID": {"S": identifier}}
            if "Item" in dynamodb.get_item(TableName=outputs["ORDERS_TABLE"], Key=key, ConsistentRead=True):
                facts.stored.add(identifier)
        if kind == "report":
            facts.executions[identifier] = _events(identifier, client("stepfunctions"), outputs)
    return facts


def _events(report_id: str, sfn: Any, outputs: Mapping[str, str]) -> list[dict[str, Any]]:
    """Returns the events of a report's execution, without input and output, which contain the link to the report."""
    machines = {kind: outputs[f"{kind.upper()}_REPORT_ARN"] for kind in reports.KINDS}
    try:
        _, execution = reports.find(report_id, sfn, machines)
    except NotFound:
        return []
    pages = sfn.get_paginator("get_execution_history").paginate(
        executionArn=execution["executionArn"], includeExecutionData=False, PaginationConfig={"MaxItems": EVENTS}
    )
    return [event for page in pages for event in page["events"]]


def _read_invocations(lines: list[Line], logs: Any) -> list[Invocation]:
    """Reads the invocations from the lines that Lambda adds to the log streams of ``lines``."""
    streams: dict[str, dict[str, None]] = {}
    for line in lines:
        if line.origin[1] and line.origin[0].startswith("/aws/lambda/"):
            streams.setdefault(line.origin[0], {})[line.origin[1]] = None
    if not streams or not any(map(at, lines)):
        return []
    moments = [moment for moment in map(at, lines) if moment]
    first, last = min(moments) - FUNCTION_SECONDS, max(moments) + FUNCTION_SECONDS
    entries: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for group, names in streams.items():
        pages = logs.get_paginator("filter_log_events").paginate(
            logGroupName=group,
            logStreamNames=list(names)[:STREAMS],
            startTime=int(first * 1000),
            endTime=int(last * 1000),
            filterPattern='"RequestId:"',
            PaginationConfig={"MaxItems": EVENTS},
        )
        for each in (event for page in pages for event in page["events"]):
            entries.setdefault((group, each["logStreamName"]), []).append((each["timestamp"] / 1000, each["message"]))
    return [each for origin, events in entries.items() for each in invocations(origin, events)]


def invocations(origin: tuple[str, str], events: list[tuple[float, str]]) -> list[Invocation]:
    """Returns the invocations that the START and REPORT lines of one log stream describe."""
    starts: dict[str, float] = {}
    done = []
    for moment, text in events:
        fields = dict(part.split(": ", 1) for part in text.strip().split("\t") if ": " in part)
        if text.startswith("START RequestId: "):
            starts[text.split()[2]] = moment
        elif text.startswith("REPORT RequestId: "):
            duration, init = (float(fields.get(f"{name}Duration", "0").split()[0]) / 1000 for name in ("", "Init "))
            # The local cloud gives every line of an invocation the time of its end.
            start = starts.get(fields.get("REPORT RequestId", ""), moment)
            start = start if start < moment else moment - duration
            problem = " ".join(filter(None, (fields.get("Status"), fields.get("Error Type"))))
            done.append(Invocation(origin, start - init, start + duration, init, problem))
    return done
