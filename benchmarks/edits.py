"""``python -m benchmarks.edits`` measures how soon an edit takes effect, with ``make dev`` and with ``make run``.

The command works in a clone of the last commit, with its own ports. The measured time ends when the new code writes its
first log record. For comparison, the command also measures saving an edit and waiting for ``make run``.
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.cloud import client
from benchmarks.limits import HEAD, row
from local.api import Api
from local.processes import free_ports
from local.stack import ROOT, Stack

EDITS = 20
RUNS = 3
PAUSE_SECONDS = 0.02
GIVE_UP_SECONDS = 60
EDITED = "chalicelib/logs.py"
PORTS = ("CAFE_API_PORT", "CAFE_AWS_PORT", "CAFE_DB_PORT")
# The clone links to these folders in the checkout instead of installing anything.
INSTALLED = (".venv", ".local/ministack", ".local/requirements")


class Clone:
    """A clone of the last commit. ``edit`` changes the clone's code so that it adds a number to each log record."""

    def __init__(self, folder: Path) -> None:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        (folder / ".local").mkdir()
        for name in INSTALLED:
            (folder / name).symlink_to(ROOT / name)
        api_port, aws_port, db_port = ports = free_ports(len(PORTS))
        self.folder = folder
        self.stack = Stack(folder / ".local", api_port=api_port, aws_port=aws_port, db_port=db_port)
        self._environment = {**os.environ, **dict(zip(PORTS, map(str, ports), strict=True))}
        self._number = 0

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "local", *arguments]
        return subprocess.Popen(
            command, cwd=self.folder, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, command: str) -> float:
        """Runs a command, and returns the seconds that the command took."""
        began = time.monotonic()
        with self.command(command) as process:
            output = process.stdout.read() if process.stdout else ""
        if process.returncode:
            raise AssertionError(f"{command} failed:\n{output}")
        return time.monotonic() - began

    def edit(self) -> int:
        self._number += 1
        file = self.folder / EDITED
        new = f'timestamp=True, static_fields={{"edit": {self._number}}},'
        file.write_text(re.sub(r"timestamp=True,.*", new, file.read_text()))
        return self._number

    @contextmanager
    def dev(self) -> Iterator[None]:
        with self.command("dev") as process:
            # The command's output is read in a thread, because a full pipe would stop the command.
            ready = threading.Event()
            reading = threading.Thread(target=_read, args=(process, ready))
            reading.start()
            try:
                if not ready.wait(GIVE_UP_SECONDS):
                    raise AssertionError("`make dev` did not become ready in time")
                yield
            finally:
                process.send_signal(signal.SIGINT)
                reading.join()


def _read(process: subprocess.Popen[str], ready: threading.Event) -> None:
    for line in process.stdout or ():
        if "press Ctrl-C to stop" in line:
            ready.set()


class Triggers:
    """Sends events to the five triggers, and reads the log records of the functions that the triggers start."""

    def __init__(self, stack: Stack) -> None:
        self._env, self._log = stack.variables(), stack.api.log
        self._api = Api(stack.api_url, stack.users.token)
        self._aws = {name: client(self._env, name) for name in ("dynamodb", "s3", "sns", "sqs", "logs")}
        self._sent = 0
        self.all: dict[str, tuple[str, Callable[[str], object]]] = {
            "API": ("", lambda _: self._api.get("/health")),
            "queue": ("store_orders", self._queue),
            "stream": ("announce_orders", self._stream),
            "S3": ("receive_upload", self._upload),
            "SNS": ("record_notification", self._publish),
        }

    def runs_edit(self, trigger: str, edit: int) -> float | None:
        """Sends an event to the trigger, and waits for the event's log record.

        Returns the record's Unix time, or None if older code wrote the record.
        """
        self._sent += 1
        event, (function, send) = f"edit-{self._sent}", self.all[trigger]
        size = self._log.stat().st_size
        send(event)
        give_up = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < give_up:
            records = self._records(function, event) if function else self._log.read_text()[size:].splitlines()
            times = [(f'"edit": {edit},' in each, json.loads(each)["timestamp"]) for each in records if each[:1] == "{"]
            if times:
                return _seconds(times[0][1]) if times[0][0] else None
            time.sleep(PAUSE_SECONDS)
        raise AssertionError(f"{trigger}: no record of {event} after {GIVE_UP_SECONDS} s")

    def _records(self, function: str, event: str) -> list[str]:
        """Returns the function's log records that contain the event name, oldest first."""
        group = f"/aws/lambda/cafe-{self._env['CAFE_STAGE']}-{function}"
        since = int((time.time() - 10) * 1000)
        pages = self._aws["logs"].get_paginator("filter_log_events").paginate(logGroupName=group, startTime=since)
        return [each["message"] for page in pages for each in page["events"] if event in each["message"]]

    def _queue(self, name: str) -> None:
        self._api.post("/orders", {"orderID": name, "customerID": "benchmark", "item": "Tea"})

    def _stream(self, name: str) -> None:
        table = self._env["ORDERS_TABLE"]
        [order] = self._aws["dynamodb"].scan(TableName=table, Limit=1)["Items"]
        self._aws["dynamodb"].put_item(TableName=table, Item={**order, "orderID": {"S": name}})

    def _upload(self, name: str) -> None:
        self._aws["s3"].put_object(Bucket=self._env["UPLOADS_BUCKET"], Key=f"{name}.txt", Body=b"hello")

    def _publish(self, name: str) -> None:
        key = {"key": {"DataType": "String", "StringValue": name}}
        self._aws["sns"].publish(TopicArn=self._env["TOPIC_ARN"], Message=name, MessageAttributes=key)


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


def save_to_live(clone: Clone, triggers: Triggers, trigger: str) -> float:
    """Saves an edit, and returns the seconds until the trigger first runs the edited code."""
    saved, number = time.time(), clone.edit()
    while not (live := triggers.runs_edit(trigger, number)):
        pass
    return live - saved


def main() -> int:
    print(HEAD)
    with TemporaryDirectory() as folder:
        clone = Clone(Path(folder) / "clone")
        try:
            clone.run("run")
            with clone.dev():
                triggers = Triggers(clone.stack)
                times: dict[str, list[float]] = {name: [] for name in triggers.all}
                for number in range(EDITS):
                    name = list(times)[number % len(times)]
                    times[name].append(save_to_live(clone, triggers, name))
            each = [one for found in times.values() for one in found]
            note = ", ".join(f"{name} {statistics.median(found):.2f}" for name, found in times.items())
            promise = f"`make dev`, save to live, median of {EDITS} edits"
            kept = [row(promise, statistics.median(each), 1, "s", f" ({note})")]
            kept.append(row("the slowest edit", max(each), 2, "s"))
            after_edit = [clone.run("run") for _ in range(RUNS) if clone.edit()]
            kept.append(row("peer: save and `make run`", statistics.median(after_edit), 4, "s"))
            clone.run("stop")
            kept.append(row("`make run` from stopped", clone.run("run"), 6, "s"))
        finally:
            clone.run("stop")
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
