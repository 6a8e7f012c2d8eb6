"""The functions' logs and the API's, as one stream."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from local.cloud import CREDENTIALS, REGION
from local.processes import StackError

if TYPE_CHECKING:
    from local.stack import Stack

EVERY_SECONDS = 1


def follow(stack: Stack, *, once: bool) -> None:
    """Print each line with the name of the function before it, oldest first; for ever, or what is there ``once``."""
    import boto3
    from botocore.exceptions import EndpointConnectionError

    if not stack.cloud.process.pid():
        raise StackError("nothing is up here: run `make run`")
    client = boto3.client(
        "logs",
        # Where it runs, whatever port the shell asks for by now.
        endpoint_url=f"http://127.0.0.1:{stack.cloud.process.port()}",
        region_name=REGION,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )
    prefix = f"/aws/lambda/cafe-{stack.stage}"
    printed: Counter[str] = Counter()
    with stack.api.log.open(errors="replace") as api:
        while True:
            try:
                for name, message in news(client, prefix, printed):
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


def news(client: Any, prefix: str, printed: Counter[str]) -> list[tuple[str, str]]:
    """What the functions wrote since the last call, as (function, message) by time.

    A stream only grows at its end, so ``printed`` counts the events of each that have been returned already.
    """
    events = []
    for groups in client.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix):
        for group in groups["logGroups"]:
            name = group["logGroupName"]
            counted: Counter[str] = Counter()
            for page in client.get_paginator("filter_log_events").paginate(logGroupName=name):
                for event in page["events"]:
                    stream = f"{name} {event['logStreamName']}"
                    counted[stream] += 1
                    if counted[stream] > printed[stream]:
                        printed[stream] += 1
                        events.append((event["timestamp"], name.removeprefix("/aws/lambda/"), event["message"]))
    return [(name, message) for _, name, message in sorted(events, key=lambda event: event[0])]


def _print(name: str, message: str) -> None:
    for line in message.splitlines():
        if line.strip():
            print(f"{name:<28} {line}")
    sys.stdout.flush()
