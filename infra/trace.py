"""Follows one thing through the logs, from the request to the notification: ``make trace ID=o-1 STAGE=prod``.

    python -m infra.trace ID STAGE [SINCE]

It runs the stage's saved query of CloudWatch Logs Insights: first for the id itself, then for what it is part of.
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

# The saved query's text, with the place for an id. The same on AWS and on the local cloud, which knows a part of the
# language only; and it saves no queries.
PLACE = "(ID)"
QUERY = f"""\
fields @timestamp, @log, @message
| filter @message like /[^A-Za-z0-9_-]{PLACE}[^A-Za-z0-9_-]/
| sort @timestamp asc
| limit 1000
"""
LINES = 1000
# Of a list of orders each one has its own line, and one thing is part of few others.
RELATED = 20
SINCE = "1d"
UNITS = {"m": "minutes", "h": "hours", "d": "days"}
POLL_SECONDS = 0.5
# How long CloudWatch may take with a query; it gives up after an hour by itself.
QUERY_SECONDS = 300
# What a record may be about: by these another one's records are told from it.
OWN = ("orderID", "reportId")
# What is not shown of each record.
COMMON = {"timestamp", "level", "logger", "message", "correlationId", "correlationIds", "exc_info"}


@dataclass(frozen=True, order=True)
class Line:
    """One line of a log: ``time`` in UTC as ISO 8601, ``source`` is who wrote it."""

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
        # The record's own time: the local cloud gives all lines of an invocation that of its end.
        return cls(_utc(str(record.get("timestamp") or moment)), source, text, record)


# Takes a regular expression of ids; gives the lines that name one of them, and nothing where there is none.
Ask = Callable[[str], list[Line]]


def _utc(moment: str) -> str:
    """``2026-11-21 03:14:15.123`` of any of the forms that logs have."""
    found = re.match(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(\.\d{1,3})?", moment)
    return f"{found[1]} {found[2]}{(found[3] or '.').ljust(4, '0')}" if found else moment


def pattern(ids: list[str]) -> str:
    """A regular expression of exactly these, as they are in a log's JSON."""
    # No letter is escaped, for that would give it another meaning.
    return "|".join(re.sub(r"([^A-Za-z0-9_-])", r"\\\1", json.dumps(each)[1:-1]) for each in ids)


def follow(ask: Ask, identifier: str) -> list[Line]:
    """All lines about the thing, oldest first: those that name it, and those of the request that it came with."""
    found = ask(pattern([identifier]))
    related: dict[str, None] = {}
    for line in found:
        values = {name: line.record.get(name) for name in (*OWN, "correlationId", "requestId", "key")}
        if identifier in values.values():
            related |= {value: None for name, value in values.items() if name != "key" and isinstance(value, str)}
    related.pop(identifier, None)
    if related:
        found += ask(pattern(list(related)[:RELATED]))
    # The access log knows a request by the gateway's id alone, which is another one where the client has sent its own.
    gateways = {str(line.record["requestId"]) for line in found if line.record.get("requestId")}
    if left := sorted(gateways - related.keys() - {identifier}):
        found += ask(pattern(left[:RELATED]))
    # A request may have brought others beside it.
    own = [name for name in OWN if any(line.record.get(name) == identifier for line in found)]
    lines = {line for line in found if all(line.record.get(name, identifier) == identifier for name in own)}
    # Figures for CloudWatch tell nothing of one thing.
    return sorted(line for line in lines if "_aws" not in line.record)


def asker(logs: Any, stage: str, groups: list[str], query: str, since: timedelta) -> Ask:
    """Asks CloudWatch Logs Insights. Raises ``DeployError`` where it does not do it."""

    def ask(ids: str) -> list[Line]:
        # Its times are whole seconds.
        end = int(time.time()) + 1
        text = query.replace(PLACE, f"({ids})")
        started = logs.start_query(
            logGroupNames=groups, queryString=text, startTime=end - int(since.total_seconds()), endTime=end
        )
        until = time.monotonic() + QUERY_SECONDS
        while (answer := logs.get_query_results(queryId=started["queryId"]))["status"] in ("Scheduled", "Running"):
            if time.monotonic() > until:
                raise DeployError(f"the query has not ended after {QUERY_SECONDS} s: a shorter SINCE asks for less")
            time.sleep(POLL_SECONDS)
        if answer["status"] != "Complete":
            raise DeployError(f"the query ended as {answer['status']}")
        rows = [{each["field"]: each["value"] for each in row} for row in answer["results"]]
        return [Line.of(source(row["@log"], stage), row["@message"], row["@timestamp"]) for row in rows]

    return ask


def source(group: str, stage: str) -> str:
    """Who writes to a log group: the last part of its name without the stage's. The API has none of its own."""
    return group.rpartition("/")[2].removeprefix(f"cafe-{stage}").removeprefix("-") or "API"


def saved_query(logs: Any, stage: str) -> tuple[list[str], str]:
    """The log groups and the text of the stage's query. Raises ``DeployError`` where it has none."""
    name = f"cafe-{stage}/trace"
    found = logs.describe_query_definitions(queryDefinitionNamePrefix=name)["queryDefinitions"]
    for each in found:
        if each["name"] == name:
            return each["logGroupNames"], each["queryString"]
    raise DeployError(f"there is no saved query {name} in {logs.meta.region_name}: is the stage deployed there?")


def seconds_of(since: str) -> timedelta | None:
    """``90m``, ``12h`` or ``7d`` as a time; None for anything else."""
    found = re.fullmatch(r"([1-9][0-9]{0,3})([mhd])", since)
    return timedelta(**{UNITS[found[2]]: int(found[1])}) if found else None


def shown(lines: list[Line]) -> Iterator[str]:
    """As a person reads them."""
    width = max(len(line.source) for line in lines)
    for line in lines:
        record = line.record
        if "execution_arn" in record:
            # What Step Functions itself logs.
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


def told(lines: list[Line], identifier: str, where: str, hints: list[str]) -> Iterator[str]:
    """What the person at the terminal is told: the lines and how many, or ``hints`` where there is none."""
    if not lines:
        yield f"Nothing in {where} names {identifier!r}."
        yield "- It may be the id of an order or a report, an upload's key, or the header X-Request-Id of an answer."
        yield "- As a whole, and as it was given: o-1 does not find o-12."
        yield from (f"- {each}" for each in hints)
        return
    yield from shown(lines)
    ids = dict.fromkeys(str(line.record["correlationId"]) for line in lines if line.record.get("correlationId"))
    sources = dict.fromkeys(line.source for line in lines)
    yield f"{len(lines)} records of {', '.join(sources)}; correlationId {', '.join(ids) or 'unknown'}"
    if len(lines) >= LINES:
        yield f"There may be more: a query gives {LINES:,}."


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m infra.trace", description="Follows one thing through the logs of a stage."
    )
    parser.add_argument("id", help="an order's, a report's or a request's id, or an upload's key")
    parser.add_argument("stage")
    parser.add_argument("since", nargs="?", default=SINCE, help="how far back: 90m, 12h or 7d")
    given = parser.parse_args(arguments)
    since = seconds_of(given.since)
    if since is None:
        parser.error(f"SINCE must be minutes, hours or days, as 90m, 12h or 7d, and not {given.since!r}")
    if not STAGE.fullmatch(given.stage):
        parser.error(f"STAGE: {given.stage!r} is no name of a stage")
    try:
        logs = client("logs")
        lines = follow(asker(logs, given.stage, *saved_query(logs, given.stage), since), given.id)
    except (DeployError, BotoCoreError, ClientError) as error:
        print(f"trace: {error}", file=sys.stderr)
        return 1
    hints = [
        f"This looks back {given.since}: SINCE=30d looks further. What is older than LogRetentionDays is gone.",
        "CloudWatch shows a line some seconds after it was written.",
    ]
    for line in told(lines, given.id, f"the logs of {given.stage}", hints):
        print(line)
    return 0 if lines else 1


if __name__ == "__main__":
    sys.exit(main())
