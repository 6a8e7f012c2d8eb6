"""Follows an order, report, upload or request through a stage's logs.

The command ``make trace ID=o-1 STAGE=prod`` runs ``python -m infra.trace ID STAGE [SINCE]``. This module runs the
stage's saved CloudWatch Logs Insights query for the id, and then for related ids. With ``--html FILE``, the package
``infra/waterfall`` writes the result as a page.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra import arguments as types
from infra.deploy.target import DeployError, client

# The stack `cafe-<stage>-resources` saves this query on AWS. The local cloud cannot save queries.
PLACEHOLDER = "(ID)"
BOUNDARY = "[^A-Za-z0-9_-]"
LINES = 1000
QUERY = "\n".join(
    (
        "fields @timestamp, @log, @logStream, @message",
        f"| filter @message like /{BOUNDARY}{PLACEHOLDER}{BOUNDARY}/",
        "| sort @timestamp asc",
        f"| limit {LINES}",
        "",
    )
)
# A query contains at most this number of related ids.
RELATED = 20
SINCE = "1d"
HTML_HELP = "write a page with a waterfall of the hops into this file, instead of printing the lines"
POLL_SECONDS = 0.5
# CloudWatch would stop a query only after one hour.
QUERY_SECONDS = 300
# These fields identify the order or report that a log record is about.
SUBJECT_IDS = ("orderID", "reportId")
# These fields are not printed as name=value after a log message.
COMMON = {"timestamp", "level", "logger", "message", "correlationId", "correlationIds", "exc_info"}


@dataclass(frozen=True, order=True)
class Line:
    """A log line. ``time`` is in UTC, and ``source`` is the function or service that wrote the line.

    ``origin`` contains the names of the log group and the log stream, if the line comes from CloudWatch.
    """

    time: str
    source: str
    text: str
    record: dict[str, Any] = field(compare=False, repr=False)
    origin: tuple[str, str] = field(default=("", ""), compare=False, repr=False)

    @classmethod
    def of(cls, source: str, text: str, moment: str = "", origin: tuple[str, str] = ("", "")) -> Line:
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            content = None
        record = content if isinstance(content, dict) else {"message": text.strip()}
        # The record's timestamp comes first, because the local cloud gives all lines of an invocation the same time.
        return cls(_utc(str(record.get("timestamp") or moment)), source, text, record, origin)


# Returns the log lines with an id that matches the given regular expression.
Ask = Callable[[str], list[Line]]


def _utc(moment: str) -> str:
    """Converts a time from any log to the form ``2026-11-21 03:14:15.123``."""
    found = re.match(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(\.\d{1,3})?", moment)
    return f"{found[1]} {found[2]}{(found[3] or '.').ljust(4, '0')}" if found else moment


def pattern(ids: list[str]) -> str:
    """Returns a regular expression that matches any of these ids in JSON logs."""
    # Letters are not escaped, because a backslash gives some letters a special meaning.
    return "|".join(re.sub(r"([^A-Za-z0-9_-])", r"\\\1", json.dumps(each)[1:-1]) for each in ids)


def follow(ask: Ask, identifier: str) -> list[Line]:
    """Returns the log lines that contain the id, and the other lines of the same request, oldest first."""
    found = ask(pattern([identifier]))
    related: dict[str, None] = {}
    for line in found:
        values = {name: line.record.get(name) for name in (*SUBJECT_IDS, "correlationId", "requestId", "key")}
        if identifier in values.values():
            related |= {value: None for name, value in values.items() if name != "key" and isinstance(value, str)}
    related.pop(identifier, None)
    if related:
        found += ask(pattern(list(related)[:RELATED]))
    # The access log contains only the request id from API Gateway, not the X-Request-Id that a client sends.
    gateways = {str(line.record["requestId"]) for line in found if line.record.get("requestId")}
    if left := sorted(gateways - related.keys() - {identifier}):
        found += ask(pattern(left[:RELATED]))
    # A request can contain several orders or reports, so lines about other orders or reports are removed.
    own = [name for name in SUBJECT_IDS if any(line.record.get(name) == identifier for line in found)]
    lines = {line for line in found if all(line.record.get(name, identifier) == identifier for name in own)}
    # Lines that contain CloudWatch metrics are removed.
    return sorted(line for line in lines if "_aws" not in line.record)


def asker(logs: Any, stage: str, groups: list[str], query: str, since: timedelta) -> Ask:
    """Returns a function that queries CloudWatch Logs Insights.

    The function raises ``DeployError`` if the query fails.
    """

    def ask(ids: str) -> list[Line]:
        # CloudWatch Logs accepts only whole seconds.
        end = int(time.time()) + 1
        text = query.replace(PLACEHOLDER, f"({ids})")
        started = logs.start_query(
            logGroupNames=groups, queryString=text, startTime=end - int(since.total_seconds()), endTime=end
        )
        until = time.monotonic() + QUERY_SECONDS
        while (answer := logs.get_query_results(queryId=started["queryId"]))["status"] in ("Scheduled", "Running"):
            if time.monotonic() > until:
                raise DeployError(f"the query did not finish within {QUERY_SECONDS} s: use a shorter SINCE")
            time.sleep(POLL_SECONDS)
        if answer["status"] != "Complete":
            raise DeployError(f"the query ended as {answer['status']}")
        rows = [{each["field"]: each["value"] for each in row} for row in answer["results"]]
        return [Line.of(source(row["@log"], stage), row["@message"], row["@timestamp"], _origin(row)) for row in rows]

    return ask


def _origin(row: dict[str, str]) -> tuple[str, str]:
    # The account's number precedes the name of the log group.
    return row["@log"].rpartition(":")[2], row.get("@logStream", "")


def source(group: str, stage: str) -> str:
    """Returns the name of the function or service that writes to a log group."""
    return group.rpartition("/")[2].removeprefix(f"cafe-{stage}").removeprefix("-") or "API"


def saved_query(logs: Any, stage: str) -> tuple[list[str], str]:
    """Returns the log groups and the text of the stage's saved query.

    Raises ``DeployError`` if the query does not exist.
    """
    name = f"cafe-{stage}/trace"
    found = logs.describe_query_definitions(queryDefinitionNamePrefix=name)["queryDefinitions"]
    for each in found:
        if each["name"] == name:
            return each["logGroupNames"], each["queryString"]
    raise DeployError(
        f"the saved query {name} does not exist in {logs.meta.region_name}: check the stage and the region"
    )


def shown(lines: list[Line]) -> Iterator[str]:
    """Formats log lines for the terminal."""
    width = max(len(line.source) for line in lines)
    for line in lines:
        record = line.record
        if "execution_arn" in record:
            # Step Functions wrote this record.
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
    """Yields the log lines and their number for the terminal, or ``hints`` if there are no log lines."""
    if not lines:
        yield f"No record in {where} contains {json.dumps(identifier)}."
        yield "- ID must be an order id, a report id, the key of an upload, or the X-Request-Id header of a response."
        yield "- ID must be complete. For example, o-1 does not match o-12."
        yield from (f"- {each}" for each in hints)
        return
    yield from shown(lines)
    ids = correlation_ids(lines)
    sources = dict.fromkeys(line.source for line in lines)
    yield f"{len(lines)} records from {', '.join(sources)}; correlationId {', '.join(ids) or 'unknown'}"
    if len(lines) >= LINES:
        yield f"More records may exist, because a query returns at most {LINES:,}."


def correlation_ids(lines: list[Line]) -> list[str]:
    """Returns the ids of the requests that ``lines`` are about."""
    return list(dict.fromkeys(str(line.record["correlationId"]) for line in lines if line.record.get("correlationId")))


def main(arguments: list[str] | None = None) -> int:
    purpose = "Shows the log lines for an order, report, upload or request."
    parser = types.Parser(prog="python -m infra.trace", description=purpose)
    parser.add_argument("id", help="the id of an order, report or request, or the key of an upload")
    parser.add_argument("stage", metavar="STAGE", type=types.stage)
    parser.add_argument("--html", metavar="FILE", type=Path, help=HTML_HELP)
    about = "how far to look back, such as 90m, 12h or 7d"
    parser.add_argument("since", metavar="SINCE", type=types.since, nargs="?", default=SINCE, help=about)
    given = parser.parse_args(arguments)
    try:
        logs = client("logs")
        lines = follow(asker(logs, given.stage, *saved_query(logs, given.stage), given.since), given.id)
        if given.html and lines:
            from infra.deploy.stacks import outputs_of
            from infra.waterfall import page

            outputs = outputs_of(given.stage, client("cloudformation"))
            page.write(given.html, page.make(lines, given.id, f"stage {given.stage}", client, outputs))
            return 0
    except (DeployError, BotoCoreError, ClientError) as error:
        print(f"trace: {error}", file=sys.stderr)
        return 1
    hints = [
        "Use SINCE=30d to search the last 30 days. The parameter LogRetentionDays limits how long logs are kept.",
        "Log lines appear in CloudWatch after a few seconds.",
    ]
    for line in report(lines, given.id, f"the logs of {given.stage}", hints):
        print(line)
    return 0 if lines else 1


if __name__ == "__main__":
    sys.exit(main())
