"""Follows an order, report, upload or request through the logs: ``make trace ID=o-1 STAGE=prod``.

    python -m infra.trace ID STAGE [SINCE]

It runs the stage's saved query of CloudWatch Logs Insights for the id, and then for related ids.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.deploy.target import STAGE, DeployError, client

# The text of the saved query. The local cloud saves no queries, and knows only a part of their language.
PLACEHOLDER = "(ID)"
QUERY = f"""\
fields @timestamp, @log, @message
| filter @message like /[^A-Za-z0-9_-]{PLACEHOLDER}[^A-Za-z0-9_-]/
| sort @timestamp asc
| limit 1000
"""
LINES = 1000
# Few ids are related to one id. Each order of a list has its own line.
RELATED = 20
SINCE = "1d"
UNITS = {"m": "minutes", "h": "hours", "d": "days"}
POLL_SECONDS = 0.5
# CloudWatch itself gives up after an hour.
QUERY_SECONDS = 300
# The ids of a record's subject. They separate the records of different subjects in one request.
SUBJECT_IDS = ("orderID", "reportId")
# The fields that are not shown.
COMMON = {"timestamp", "level", "logger", "message", "correlationId", "correlationIds", "exc_info"}


@dataclass(frozen=True, order=True)
class Line:
    """A line of a log. ``time`` is UTC as in ISO 8601, and ``source`` is the function or service that wrote it."""

    time: str
    source: str
    text: str
    record: dict[str, Any] = field(compare=False, repr=False)

    @classmethod
    def of(cls, source: str, text: str, moment: str = "") -> Line:
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            content = None
        record = content if isinstance(content, dict) else {"message": text.strip()}
        # The record's own time comes first, because the local cloud gives all lines of an invocation the same one.
        return cls(_utc(str(record.get("timestamp") or moment)), source, text, record)


# Takes a regular expression of ids, and returns the lines that name one of them.
Ask = Callable[[str], list[Line]]


def _utc(moment: str) -> str:
    """Returns a time of any log as ``2026-11-21 03:14:15.123``."""
    found = re.match(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(\.\d{1,3})?", moment)
    return f"{found[1]} {found[2]}{(found[3] or '.').ljust(4, '0')}" if found else moment


def pattern(ids: list[str]) -> str:
    """Returns a regular expression that matches exactly these ids in a log's JSON."""
    # An escaped letter would have another meaning.
    return "|".join(re.sub(r"([^A-Za-z0-9_-])", r"\\\1", json.dumps(each)[1:-1]) for each in ids)


def follow(ask: Ask, identifier: str) -> list[Line]:
    """Returns the lines that name the id, and those of its request, oldest first."""
    found = ask(pattern([identifier]))
    related: dict[str, None] = {}
    for line in found:
        values = {name: line.record.get(name) for name in (*SUBJECT_IDS, "correlationId", "requestId", "key")}
        if identifier in values.values():
            related |= {value: None for name, value in values.items() if name != "key" and isinstance(value, str)}
    related.pop(identifier, None)
    if related:
        found += ask(pattern(list(related)[:RELATED]))
    # The access log has only the gateway's id of a request. It differs from the X-Request-Id that a client sends.
    gateways = {str(line.record["requestId"]) for line in found if line.record.get("requestId")}
    if left := sorted(gateways - related.keys() - {identifier}):
        found += ask(pattern(left[:RELATED]))
    # A request can have several subjects.
    own = [name for name in SUBJECT_IDS if any(line.record.get(name) == identifier for line in found)]
    lines = {line for line in found if all(line.record.get(name, identifier) == identifier for name in own)}
    # Metrics for CloudWatch have no subject.
    return sorted(line for line in lines if "_aws" not in line.record)


def asker(logs: Any, stage: str, groups: list[str], query: str, since: timedelta) -> Ask:
    """Returns a function that queries CloudWatch Logs Insights, and raises ``DeployError`` if that fails."""

    def ask(ids: str) -> list[Line]:
        # CloudWatch takes whole seconds.
        end = int(time.time()) + 1
        text = query.replace(PLACEHOLDER, f"({ids})")
        started = logs.start_query(
            logGroupNames=groups, queryString=text, startTime=end - int(since.total_seconds()), endTime=end
        )
        until = time.monotonic() + QUERY_SECONDS
        while (answer := logs.get_query_results(queryId=started["queryId"]))["status"] in ("Scheduled", "Running"):
            if time.monotonic() > until:
                raise DeployError(f"the query has not ended after {QUERY_SECONDS} s: use a shorter SINCE")
            time.sleep(POLL_SECONDS)
        if answer["status"] != "Complete":
            raise DeployError(f"the query ended as {answer['status']}")
        rows = [{each["field"]: each["value"] for each in row} for row in answer["results"]]
        return [Line.of(source(row["@log"], stage), row["@message"], row["@timestamp"]) for row in rows]

    return ask


def source(group: str, stage: str) -> str:
    """Returns the function or service of a log group, from the last part of its name."""
    return group.rpartition("/")[2].removeprefix(f"cafe-{stage}").removeprefix("-") or "API"


def saved_query(logs: Any, stage: str) -> tuple[list[str], str]:
    """Returns the log groups and the text of the stage's saved query. Raises ``DeployError`` if there is none."""
    name = f"cafe-{stage}/trace"
    found = logs.describe_query_definitions(queryDefinitionNamePrefix=name)["queryDefinitions"]
    for each in found:
        if each["name"] == name:
            return each["logGroupNames"], each["queryString"]
    raise DeployError(f"there is no saved query {name} in {logs.meta.region_name}: is the stage deployed there?")


def seconds_of(since: str) -> timedelta | None:
    """Returns ``90m``, ``12h`` or ``7d`` as a time, or None for anything else."""
    found = re.fullmatch(r"([1-9][0-9]{0,3})([mhd])", since)
    return timedelta(**{UNITS[found[2]]: int(found[1])}) if found else None


def shown(lines: list[Line]) -> Iterator[str]:
    """Yields the lines for the terminal."""
    width = max(len(line.source) for line in lines)
    for line in lines:
        record = line.record
        if "execution_arn" in record:
            # Step Functions wrote it.
            details = record.get("details") or {}
            message, facts = record.get("type", ""), {key: details[key] for key in ("name", "error") if key in details}
        else:
            message = str(record.get("message", ""))
            facts = {name: value for name, value in record.items() if name not in COMMON}
        level = record.get("level", "INFO")
        text = f"{line.time}  {line.source:<{width}}  {'' if level == 'INFO' else level + ' '}{message}"
        yield "  ".join([text, *(f"{name}={_short(value)}" for name, value in facts.items() if value is not None)])
        yield from (f"    {each}" for each in str(record.get("exc_info", "")).splitlines())


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else text[:299] + "…"


def report(lines: list[Line], identifier: str, where: str, hints: list[str]) -> Iterator[str]:
    """Yields the text for the terminal: the lines and their number, or ``hints`` if there are none."""
    if not lines:
        yield f"Nothing in {where} names {json.dumps(identifier)}."
        yield "- ID is the id of an order or a report, the key of an upload, or the header X-Request-Id of an answer."
        yield "- ID must be whole and exact: o-1 does not find o-12."
        yield from (f"- {each}" for each in hints)
        return
    yield from shown(lines)
    ids = dict.fromkeys(str(line.record["correlationId"]) for line in lines if line.record.get("correlationId"))
    sources = dict.fromkeys(line.source for line in lines)
    yield f"{len(lines)} records of {', '.join(sources)}; correlationId {', '.join(ids) or 'unknown'}"
    if len(lines) >= LINES:
        yield f"There may be more, because a query returns at most {LINES:,}."


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m infra.trace",
        description="Follows an id through the logs of a stage.",
    )
    parser.add_argument("id", help="an order's, a report's or a request's id, or an upload's key")
    parser.add_argument("stage")
    parser.add_argument("since", nargs="?", default=SINCE, help="the time to look back: 90m, 12h or 7d")
    given = parser.parse_args(arguments)
    since = seconds_of(given.since)
    if since is None:
        parser.error(f"SINCE must be minutes, hours or days such as 90m, 12h or 7d, not {json.dumps(given.since)}")
    if not STAGE.fullmatch(given.stage):
        parser.error(f"STAGE: {json.dumps(given.stage)} is not the name of a stage")
    try:
        logs = client("logs")
        lines = follow(asker(logs, given.stage, *saved_query(logs, given.stage), since), given.id)
    except (DeployError, BotoCoreError, ClientError) as error:
        print(f"trace: {error}", file=sys.stderr)
        return 1
    hints = [
        f"The search covers the last {given.since}: SINCE=30d covers more. Logs are kept for LogRetentionDays.",
        "CloudWatch shows a line some seconds after it was written.",
    ]
    for line in report(lines, given.id, f"the logs of {given.stage}", hints):
        print(line)
    return 0 if lines else 1


if __name__ == "__main__":
    sys.exit(main())
