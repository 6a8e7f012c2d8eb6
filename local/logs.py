"""The functions' logs and the API's, as one stream."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from local.cloud import CREDENTIALS, REGION
from local.processes import StackError

if TYPE_CHECKING:
    from local.stack import Stack

EVERY_SECONDS = 1


def follow(stack: Stack, *, once: bool) -> None:
    """Print each line with the name of the function before it, oldest first; for ever, or what is there ``once``."""
    import boto3

    if not stack.cloud.process.pid():
        raise StackError("nothing is up here: run `make run`")
    client = boto3.client(
        "logs",
        endpoint_url=stack.cloud.endpoint,
        region_name=REGION,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )
    prefix = f"/aws/lambda/cafe-{stack.stage}"
    seen: set[str] = set()
    with stack.api.log.open(errors="replace") as api:
        while True:
            for name, message in sorted_events(client, prefix, seen):
                _print(name, message)
            for line in api:
                _print("chalice local", line)
            if once:
                return
            time.sleep(EVERY_SECONDS)


def sorted_events(client: Any, prefix: str, seen: set[str]) -> list[tuple[str, str]]:
    """The events of all functions that are not in ``seen`` yet, as (function, message) by their time."""
    events = []
    for groups in client.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix):
        for group in groups["logGroups"]:
            name = group["logGroupName"].removeprefix("/aws/lambda/")
            for page in client.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"]):
                for event in page["events"]:
                    if event["eventId"] not in seen:
                        seen.add(event["eventId"])
                        events.append((event["timestamp"], name, event["message"]))
    return [(name, message) for _, name, message in sorted(events, key=lambda event: event[0])]


def _print(name: str, message: str) -> None:
    for line in message.splitlines():
        if line.strip():
            print(f"{name:<28} {line}")
    sys.stdout.flush()
