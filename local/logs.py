"""The functions' logs and the API's log, as one stream, or only the lines about one id."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from local.processes import StackError

if TYPE_CHECKING:
    from local.stack import Stack

POLL_SECONDS = 1
# A line can arrive this much later than a newer one.
LATE_MILLISECONDS = 10_000
# All logs of the local cloud, which forgets them when it stops.
WHOLE_TIME = timedelta(days=365)

# The time in milliseconds, the log stream and the text.
Event = tuple[int, str, str]


def follow(stack: Stack, *, once: bool) -> None:
    """Prints each line after the name of its function, oldest first: forever, or with ``once`` only existing ones."""
    from botocore.exceptions import EndpointConnectionError

    client, prefix = _client(stack), _prefix(stack)
    recent: dict[str, Counter[Event]] = {}
    with stack.api.log.open(errors="replace") as api:
        while True:
            try:
                for name, message in new_lines(client, prefix, recent):
                    _print(name, message)
            except EndpointConnectionError:
                raise StackError("the stack was stopped: start it with `make run`") from None
            if stack.api.log.stat().st_size < api.tell():
                api.seek(0)  # the API was started again, with an empty log
            while line := api.readline():
                _print("chalice local", line)
            if once:
                return
            time.sleep(POLL_SECONDS)


def trace(stack: Stack, identifier: str) -> bool:
    """Prints the lines about one id, as ``infra/trace.py`` does for a stage on AWS, and returns whether any exist."""
    from infra import trace

    client, prefix = _client(stack), _prefix(stack)
    pages = client.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix)
    groups = [each["logGroupName"] for page in pages for each in page["logGroups"]]
    ask_functions = trace.asker(client, stack.stage, groups, trace.QUERY, WHOLE_TIME)

    def ask(ids: str) -> list[trace.Line]:
        pattern = re.compile(f"[^A-Za-z0-9_-]({ids})[^A-Za-z0-9_-]")
        # The log also has a line of `chalice local` for each request, which is no record.
        records = (line for line in stack.api.log.read_text(errors="replace").splitlines() if line.startswith("{"))
        return ask_functions(ids) + [trace.Line.of("API", line) for line in records if pattern.search(line)]

    lines = trace.follow(ask, identifier)
    hints = ["The local cloud forgets its logs at `make stop`.", "For a stage on AWS: make trace ID=x STAGE=y"]
    for line in trace.report(lines, identifier, "the logs of this stack", hints):
        print(line)
    return bool(lines)


def _client(stack: Stack) -> Any:
    # The port of the running stack, even if the shell's variable has another one now.
    port = stack.cloud.process.port()
    if port is None:
        raise StackError("the stack is not running: run `make run`")
    return replace(stack.cloud, port=port).client("logs")


def _prefix(stack: Stack) -> str:
    return f"/aws/lambda/cafe-{stack.stage}"


def new_lines(client: Any, prefix: str, recent: dict[str, Counter[Event]]) -> list[tuple[str, str]]:
    """Returns what the functions wrote since the last call, as pairs of function and message in the order of time.

    ``recent`` has the last seconds' events of each log group, which were returned already. Each call reads from there
    on, and updates it.
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
                        events.append((event[0], name.removeprefix("/aws/lambda/"), event[2]))
            recent[name] = counts or before
    return [(name, message) for _, name, message in sorted(events, key=lambda event: event[0])]


def _print(name: str, message: str) -> None:
    for line in message.splitlines():
        if line.strip():
            print(f"{name:<28} {line}")
    sys.stdout.flush()
