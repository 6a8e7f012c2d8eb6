"""Shows the logs of the functions and the API as one stream of lines, or only the lines about one id.

Each line shows the time, the function, the id of the order, report or upload, the message and the invocation's
duration.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TextIO

from infra.trace import COMMON, SUBJECT_IDS, Line, report, source
from local.processes import StackError

if TYPE_CHECKING:
    from pathlib import Path

    from local.cloud import Cloud
    from local.stack import Stack

POLL_SECONDS = 1
# A log line may arrive up to this many milliseconds after newer lines.
LATE_MILLISECONDS = 10_000
# `make logs` first prints this many existing lines.
LAST_LINES = 20
NO_PAUSE = nullcontext()
# This period covers all logs of the local cloud, because the logs are lost when the local cloud stops.
WHOLE_TIME = timedelta(days=365)
# These patterns match the log lines that Lambda, the local API server and botocore add.
FRAME = re.compile(r"(START|END) RequestId: ")
REPORT = re.compile(r"REPORT RequestId: .*?\tDuration: ([0-9.]+) ms")
NOISE = re.compile(r"127[.]0[.]0[.]1 - - \[|Found (endpoint|credentials) |Serving on |Restarting local dev server")
IDS = (*SUBJECT_IDS, "key", "notificationID", "correlationId")
# A printed line does not show these fields as name=value.
HIDDEN = (*COMMON, *IDS, "milliseconds")

# An event consists of a time in milliseconds, a log stream and a text.
Event = tuple[int, str, str]


@dataclass(frozen=True)
class Filter:
    """Selects log lines by function (or ``api``), by id and by maximum age."""

    function: str | None = None
    identifier: str | None = None
    since: timedelta | None = None

    def __call__(self, entry: Entry) -> bool:
        if self.function and entry.line.source.lower() != self.function.lower():
            return False
        return not self.identifier or bool(
            re.search(rf"(?<![\w-]){re.escape(self.identifier)}(?![\w-])", entry.line.text)
        )


@dataclass(frozen=True, order=True)
class Entry:
    """A log record. The last log record of an invocation also contains its duration."""

    line: Line
    milliseconds: float | None = None

    def shown(self) -> Iterator[str]:
        """Yields a line for the record, followed by the lines of its traceback."""
        record = self.line.record
        message, *more = str(record.get("message", "")).splitlines() or [""]
        # A traceback may be part of the message or a separate field.
        traceback = [*more, *str(record.get("exc_info") or "").splitlines()]
        identifier = next((str(record[name]) for name in IDS if record.get(name)), "-")
        level = record.get("level", "INFO")
        parts = [f"{self.line.time[11:]}  {self.line.source:<20}  {identifier}"]
        parts.append(f"{'' if level == 'INFO' else f'{level} '}{message}")
        parts += [f"{key}={value}" for key, value in record.items() if key not in HIDDEN and value is not None]
        if self.milliseconds is not None:
            parts.append(f"{self.milliseconds:,.0f} ms")
        yield "  ".join(parts)
        yield from (f"    {each}" for each in traceback)


def follow(
    stack: Stack,
    shown: Filter = Filter(),
    *,
    once: bool = False,
    last: int = LAST_LINES,
    pause: AbstractContextManager[Any] = NO_PAUSE,
) -> None:
    """Prints the ``last`` newest lines. Unless ``once`` is set, also prints every new line until Ctrl-C is pressed.

    Prints nothing while another thread holds ``pause``.
    """
    from botocore.exceptions import EndpointConnectionError

    client, prefix = _client(stack), f"/aws/lambda/cafe-{stack.stage}"
    recent: dict[str, Counter[Event]] = {}
    first = True
    with stack.api.log.open(errors="replace") as api:
        while True:
            try:
                functions = invocations(new_events(client, prefix, recent), stack.stage)
            except EndpointConnectionError:
                raise StackError("the local stack has been stopped: run `make run`") from None
            entries = sorted(filter(shown, [*functions, *_api_entries(stack, api)]))
            if first and shown.since:
                oldest = f"{datetime.now(UTC) - shown.since:%Y-%m-%d %H:%M:%S}"
                entries = [each for each in entries if each.line.time >= oldest]
            elif first:
                entries = entries[len(entries) - last :] if last < len(entries) else entries
            with pause:
                for entry in entries:
                    print("\n".join(entry.shown()), flush=True)
            if once:
                return
            first = False
            time.sleep(POLL_SECONDS)


def _api_entries(stack: Stack, api: TextIO) -> Iterator[Entry]:
    """Yields the API's new log entries. Consecutive lines that are not JSON form one entry."""
    if stack.api.log.stat().st_size < api.tell():
        api.seek(0)  # The API was restarted with an empty log.
    lines = [line for line in api.read().splitlines() if line.strip() and not NOISE.match(line)]
    for line in joined("API", lines, f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}"):
        yield Entry(line, line.record.get("milliseconds"))


def invocations(events: Iterable[tuple[str, Event]], stage: str) -> Iterator[Entry]:
    """Yields the log entries of the functions. ``events`` contains pairs of a log group and an event."""
    streams: dict[tuple[str, str], list[Event]] = {}
    for group, event in events:
        streams.setdefault((group, event[1]), []).append(event)
    # MiniStack creates a log stream for each invocation.
    for (group, _), found in streams.items():
        texts = [text for _, _, text in found]
        durations = [float(report[1]) for text in texts if (report := REPORT.match(text))]
        kept = [text for text in texts if text.strip() and not FRAME.match(text) and not REPORT.match(text)]
        moment = f"{datetime.fromtimestamp(found[-1][0] / 1000, UTC):%Y-%m-%d %H:%M:%S.%f}"
        lines = list(joined(source(group, stage), kept, moment))
        lines = lines or [Line.of(source(group, stage), "ended", moment)] if durations else lines
        yield from (Entry(line) for line in lines[:-1])
        yield from (Entry(line, durations[-1] if durations else None) for line in lines[-1:])


def joined(name: str, texts: list[str], moment: str) -> Iterator[Line]:
    """Yields a line for each JSON record.

    Consecutive lines that are not JSON become one line with the time of the previous record.
    """
    other: list[str] = []
    for text in [*texts, ""]:
        line = Line.of(name, text, moment)
        if "_aws" in line.record:  # metrics
            continue
        if text and line.record == {"message": text.strip()}:
            other.append(text.rstrip())
            continue
        if other:
            # The last line of a traceback contains the error's message.
            yield Line(Line.of(name, "", moment).time, name, "\n".join(other), _failure(other))
            other = []
        if text:
            moment = line.time
            yield line


def _failure(lines: list[str]) -> dict[str, Any]:
    if lines[0].startswith("Traceback "):
        return {"level": "ERROR", "message": lines[-1], "exc_info": "\n".join(lines)}
    return {"message": "\n".join(lines)}


def trace(stack: Stack, identifier: str, since: timedelta | None = None, html: Path | None = None) -> bool:
    """Prints the log lines about one id, or writes them to the file ``html`` as a page.

    For a stage on AWS, ``infra/trace.py`` does the same. Returns whether any lines exist.
    """
    lines = lines_about(stack, identifier, since)
    if html and lines:
        from infra.deploy.target import DeployError
        from infra.waterfall import page

        try:
            page.write(html, page_about(stack, identifier, lines))
        except DeployError as error:
            raise StackError(str(error)) from None
        return True
    for line in described(identifier, lines):
        print(line)
    return bool(lines)


def described(identifier: str, lines: list[Line]) -> Iterator[str]:
    """Yields the lines about one id for the terminal, or hints if there are none."""
    hints = ["`make stop` deletes the local cloud's logs.", "For a stage on AWS, run: make trace ID=x STAGE=y"]
    return report(lines, identifier, "the logs of this stack", hints)


def page_about(stack: Stack, identifier: str, lines: list[Line]) -> str:
    """Returns the page about one id, whose log lines are in ``lines``."""
    from infra.waterfall import page

    return page.make(lines, identifier, "this machine", _cloud(stack).client, stack.variables())


def lines_about(stack: Stack, identifier: str, since: timedelta | None = None) -> list[Line]:
    """Returns the lines about one id."""
    from infra import trace

    client, prefix = _client(stack), f"/aws/lambda/cafe-{stack.stage}"
    pages = client.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix)
    groups = [each["logGroupName"] for page in pages for each in page["logGroups"]]
    ask_functions = trace.asker(client, stack.stage, groups, trace.QUERY, since or WHOLE_TIME)

    def ask(ids: str) -> list[trace.Line]:
        pattern = re.compile(f"[^A-Za-z0-9_-]({ids})[^A-Za-z0-9_-]")
        # The log also contains the request lines of `chalice local`. These lines are not log records.
        records = (line for line in stack.api.log.read_text(errors="replace").splitlines() if line.startswith("{"))
        return ask_functions(ids) + [trace.Line.of("API", line) for line in records if pattern.search(line)]

    return trace.follow(ask, identifier)


def _client(stack: Stack) -> Any:
    return _cloud(stack).client("logs")


def _cloud(stack: Stack) -> Cloud:
    # CAFE_AWS_PORT may have changed since the stack was started, so the stack may use a different port.
    port = stack.cloud.process.port()
    if port is None:
        raise StackError("the local stack is not running: run `make run`")
    return replace(stack.cloud, port=port)


def new_events(client: Any, prefix: str, recent: dict[str, Counter[Event]]) -> list[tuple[str, Event]]:
    """Returns the new log events of the functions in chronological order, as pairs of a log group and an event.

    ``recent`` maps each log group to the latest events that were already returned. Each call of the function updates
    ``recent``.
    """
    events = []
    for page_of_groups in client.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix):
        for group in page_of_groups["logGroups"]:
            name = group["logGroupName"]
            before, counts = recent.get(name, Counter()), Counter[Event]()
            since = {"startTime": max(each[0] for each in before) - LATE_MILLISECONDS} if before else {}
            for page in client.get_paginator("filter_log_events").paginate(logGroupName=name, **since):
                for each in page["events"]:
                    event = (each["timestamp"], each["logStreamName"], each["message"])
                    counts[event] += 1
                    if counts[event] > before[event]:
                        events.append((name, event))
            recent[name] = counts or before
    return sorted(events, key=lambda each: each[1][0])
