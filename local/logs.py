"""The functions' logs and the API's, as one stream."""

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

EVERY_SECONDS = 1
# A line may come by so much later than one that is newer.
LATE_MILLISECONDS = 10_000
# Of the local cloud, which forgets them at its end.
ALL = timedelta(days=365)

# The time in milliseconds, the stream and the text.
Event = tuple[int, str, str]


def follow(stack: Stack, *, once: bool) -> None:
    """Print each line with the name of the function before it, oldest first; for ever, or what is there ``once``."""
    from botocore.exceptions import EndpointConnectionError

    client, prefix = _client(stack), _prefix(stack)
    known: dict[str, Counter[Event]] = {}
    with stack.api.log.open(errors="replace") as api:
        while True:
            try:
                for name, message in news(client, prefix, known):
                    _print(name, message)
            except EndpointConnectionError:
                raise StackError("the stack has been stopped") from None
            if stack.api.log.stat().st_size < api.tell():
                api.seek(0)  # the API was started again, and its log with it
            while line := api.readline():
                _print("chalice local", line)
            if once:
                return
            time.sleep(EVERY_SECONDS)


def trace(stack: Stack, identifier: str) -> bool:
    """Print all lines about one thing, as ``infra/trace.py`` does for a stage on AWS: whether there is any."""
    from infra import trace

    client, prefix = _client(stack), _prefix(stack)
    pages = client.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix)
    groups = [each["logGroupName"] for page in pages for each in page["logGroups"]]
    functions = trace.asker(client, stack.stage, groups, trace.QUERY, ALL)

    def ask(ids: str) -> list[trace.Line]:
        named = re.compile(f"[^A-Za-z0-9_-]({ids})[^A-Za-z0-9_-]")
        # Beside the app's own records there is a line of `chalice local` for each request.
        own = (line for line in stack.api.log.read_text(errors="replace").splitlines() if line.startswith("{"))
        return functions(ids) + [trace.Line.of("API", line) for line in own if named.search(line)]

    lines = trace.follow(ask, identifier)
    hints = ["The local cloud forgets its logs at `make stop`.", "Of a stage on AWS: make trace ID=x STAGE=y"]
    for line in trace.report(lines, identifier, "the logs of this stack", hints):
        print(line)
    return bool(lines)


def _client(stack: Stack) -> Any:
    # Where it runs, whatever port the shell asks for by now.
    port = stack.cloud.process.port()
    if port is None:
        raise StackError("nothing is up here: run `make run`")
    return replace(stack.cloud, port=port).client("logs")


def _prefix(stack: Stack) -> str:
    return f"/aws/lambda/cafe-{stack.stage}"


def news(client: Any, prefix: str, known: dict[str, Counter[Event]]) -> list[tuple[str, str]]:
    """What the functions wrote since the last call, as (function, message) by time.

    ``known`` has of each log group the last seconds' events, which have been returned already. From there on it is
    read again, and no more.
    """
    events = []
    for groups in client.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix):
        for group in groups["logGroups"]:
            name = group["logGroupName"]
            before, found = known.get(name, Counter()), Counter[Event]()
            since = {"startTime": max(each[0] for each in before) - LATE_MILLISECONDS} if before else {}
            for page in client.get_paginator("filter_log_events").paginate(logGroupName=name, **since):
                for each in page["events"]:
                    event = (each["timestamp"], each["logStreamName"], each["message"])
                    found[event] += 1
                    if found[event] > before[event]:
                        events.append((event[0], name.removeprefix("/aws/lambda/"), event[2]))
            known[name] = found or before
    return [(name, message) for _, name, message in sorted(events, key=lambda event: event[0])]


def _print(name: str, message: str) -> None:
    for line in message.splitlines():
        if line.strip():
            print(f"{name:<28} {line}")
    sys.stdout.flush()
