"""Starts the deployed system from a snapshot, with one proxy in front of AWS and one in front of MySQL.

Use ``with running(folder) as system:``. ``system.wire`` injects faults into AWS calls from the functions, the API and
the state machines. ``system.gate`` injects faults into MySQL connections. Calls from the tests themselves bypass both
proxies.

A deploy is slow, so ``snapshot`` deploys only once and keeps the stopped stack in a folder. The folder's name is a
digest of the sources. Each stack is a copy of the snapshot folder with different ports.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import psutil
import pymysql

from chalicelib import facts
from chalicelib.settings import Database as Settings
from infra.deploy import project
from local.cloud import Cloud
from local.database import Database
from local.processes import exclusive_lock, fingerprint, free_ports
from local.stack import Stack
from local.steps import run_in_parallel
from tests.system.calls import Call
from tests.system.gate import Gate
from tests.system.system import ROOT, System
from tests.system.waiting import changed, wait_for
from tests.system.wire import Wire

PATCHES = Path(__file__).parent / "ministack_patches.py"
SNAPSHOTS = ROOT / ".local" / "snapshots"
# A change to any of these sources requires a new snapshot.
SOURCES = (
    *(ROOT / name for name in ("app.py", "chalicelib", "infra", "local", "requirements.txt", ".chalice/config.json")),
    *(PATCHES, Path(__file__)),
)
PORTS = ("api_port", "aws_port", "db_port", "wire_port", "gate_port")
# These files belong to processes that have ended, so a snapshot omits them.
LEFT_OUT = shutil.ignore_patterns(
    "*.log", "*.pid", "*.sock", "lock", "tmp", "api.json", "ministack.json", "mariadb.json"
)


@dataclass(frozen=True)
class WiredCloud(Cloud):
    """A MiniStack process whose clients connect through the AWS proxy. MiniStack saves its state when it stops."""

    wire_port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.wire_port}"

    @property
    def _variables(self) -> dict[str, str]:
        return {
            **super()._variables,
            # The functions use this address as their AWS endpoint.
            "AWS_ENDPOINT_URL": self.endpoint,
            # State machines wait for only a tenth of each retry interval.
            "SFN_WAIT_SCALE": "0.1",
            # A failed message is retried at once a few times, and then every second.
            "FIRST_RETRY_SECONDS": "0.1",
            "LONGEST_RETRY_SECONDS": "1",
            "STATE_DIR": str(self.folder / "state"),
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(self.folder / "s3"),
        }

    def start(self, key: str = "") -> None:
        for kept in ("state", "s3"):
            shutil.rmtree(self.folder / kept, ignore_errors=True)
        super().start(key)

    def save(self, key: str) -> None:
        """Does nothing, because the snapshot already contains the state of the whole stack."""


@dataclass(frozen=True)
class WiredDatabase(Database):
    """A MariaDB server whose clients connect through the MySQL proxy."""

    gate_port: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.gate_port}"

    @property
    def _command(self) -> list[str]:
        # These options make commits survive a killed server and keep the log small enough to copy quickly.
        return [*super()._command, "--innodb-flush-log-at-trx-commit=2", "--innodb-log-file-size=8M"]


@dataclass(frozen=True)
class WiredStack(Stack):
    wire_port: int = 0
    gate_port: int = 0

    @cached_property
    def cloud(self) -> WiredCloud:
        return WiredCloud(self.folder / "cloud", self.aws_port, (PATCHES,), wire_port=self.wire_port)

    @cached_property
    def database(self) -> WiredDatabase:
        return WiredDatabase(self.folder / "database", self.db_port, gate_port=self.gate_port)

    def resume(self) -> dict[str, str]:
        """Starts all processes of the stack with the state in its folder. Returns the variables in ``<folder>/env``."""
        run_in_parallel(self.cloud.start_process, self.database.start_process)
        return self._finish_start(_quiet)

    def suspend(self) -> None:
        """Stops all processes, and keeps their state in the folder."""
        self.api.stop()
        self.cloud.process.stop(seconds=60)
        with pymysql.connect(**self.database.administrator) as connection, connection.cursor() as cursor:
            # A complete shutdown makes the next start fast, because MariaDB has nothing to recover.
            cursor.execute("SET GLOBAL innodb_fast_shutdown = 1")
        self.database.process.stop(seconds=60)


def snapshot() -> Path:
    """Returns the folder of a stack that was deployed and stopped. Creates the folder if the sources have changed."""
    folder = SNAPSHOTS / fingerprint(sys.version, *SOURCES)
    with exclusive_lock(SNAPSHOTS / "lock"):
        if not folder.exists():
            # Snapshots of older sources are no longer needed.
            for other in SNAPSHOTS.iterdir():
                if other.is_dir():
                    shutil.rmtree(other, ignore_errors=True)
            with tempfile.TemporaryDirectory() as temporary:
                stack = _stack(Path(temporary) / "stack")
                with _proxies(stack):
                    try:
                        stack.start(_quiet)
                        stack.suspend()
                    except BaseException:
                        stack.stop(_quiet)
                        raise
                (stack.folder / "ports.json").write_text(json.dumps({name: getattr(stack, name) for name in PORTS}))
                shutil.copytree(stack.folder, folder.with_suffix(".part"), symlinks=True, ignore=LEFT_OUT)
            # MiniStack's state contains passwords but is readable by all users, so this loop restricts the permissions.
            for path in folder.with_suffix(".part").joinpath("cloud").rglob("*"):
                path.chmod(0o700 if path.is_dir() else 0o600)
            folder.with_suffix(".part").rename(folder)
    return folder


def _quiet(_line: str) -> None:
    """Ignores progress messages, because only failures matter in the tests."""


def _stack(folder: Path, *, wired: bool = True) -> WiredStack:
    # ``copied`` replaces the port numbers everywhere in the saved state. Odd numbers that do not end in 5 occur in the
    # state only as ports.
    chosen: list[int] = []
    while len(chosen) < len(PORTS):
        chosen += [port for port in free_ports(len(PORTS)) if port % 2 and port % 5 and port not in chosen]
    ports = dict(zip(PORTS, chosen, strict=False))
    if not wired:
        ports |= {"wire_port": ports["aws_port"], "gate_port": ports["db_port"]}
    return WiredStack(folder, **ports)


@contextmanager
def _proxies(stack: WiredStack) -> Iterator[tuple[Wire, Gate]]:
    wire, gate = Wire(stack.wire_port, stack.aws_port), Gate(stack.gate_port, stack.db_port)
    try:
        yield wire, gate
    finally:
        wire.close()
        gate.close()


def copied(folder: Path, *, wired: bool = True) -> WiredStack:
    """Copies the snapshot to ``folder`` and replaces its ports. The method ``resume`` starts the copy.

    If ``wired`` is false, the stack has no proxies, so ``python -m local`` can start, repair and stop it.
    """
    shutil.copytree(snapshot(), folder, symlinks=True, dirs_exist_ok=True)
    stack = _stack(folder, wired=wired)
    old = json.loads((folder / "ports.json").read_text())
    _replace(folder, {str(old[name]): str(getattr(stack, name)) for name in PORTS})
    # The build id changes with the ports, because it is a digest of the configuration.
    configured = json.loads((stack.project / ".chalice" / "config.json").read_text())["stages"][stack.stage]
    build = configured["environment_variables"].pop("CAFE_BUILD")
    _replace(folder, {build: project.digest(configured)})
    return stack


def _replace(folder: Path, words: dict[str, str]) -> None:
    """Replaces whole words in the names and the contents of all text files."""
    new = {old.encode(): word.encode() for old, word in words.items()}
    pattern = re.compile(rb"(?<![0-9a-f])(?:" + b"|".join(new) + rb")(?![0-9a-f])")
    for path in (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
        text = path.read_bytes()
        if _is_text(path, text) and pattern.search(text):
            path.write_bytes(pattern.sub(lambda match: new[match[0]], text))
            _forget_checksums(path)
        renamed = pattern.sub(lambda match: new[match[0]], path.name.encode()).decode()
        if renamed != path.name:
            path.rename(path.with_name(renamed))


def _is_text(path: Path, content: bytes) -> bool:
    """Returns whether to treat the file as text. Database files and deployment packages never count as text."""
    return path.parent.parent.name != "database" and path.suffix != ".zip" and b"\0" not in content


def _forget_checksums(path: Path) -> None:
    """Removes the stored checksums of a changed S3 object, because they no longer match its content."""
    beside = path.with_name(path.name + ".meta.json")
    if beside.exists():
        beside.write_text(json.dumps({**json.loads(beside.read_text()), "checksums": {}}))


class Faulty(System):
    """The deployed system, with faults that tests can inject."""

    def __init__(self, stack: WiredStack, env: dict[str, str], wire: Wire, gate: Gate) -> None:
        super().__init__(stack, env)
        # Calls from the tests themselves bypass the proxy, so no fault applies to them.
        self.endpoint = f"http://127.0.0.1:{stack.aws_port}"
        self.wire = wire
        self.gate = gate

    @cached_property
    def subscriber(self) -> Subscriber:
        return Subscriber(self)

    @cached_property
    def database(self) -> Settings:
        return replace(super().database, port=self.stack.db_port)

    def learn_callers(self) -> None:
        """Computes the access keys of the functions as MiniStack does, which lets the proxy identify callers."""
        for page in self.aws("lambda").get_paginator("list_functions").paginate():
            for function in page["Functions"]:
                digest = hashlib.sha256(f"{function['FunctionArn']}:{function['Role']}".encode()).hexdigest()
                name = function["FunctionName"].removeprefix("cafe-dev").removeprefix("-")
                self.wire.callers[f"ASIA{digest[:16].upper()}"] = name or "api"

    def kill(self, call: Call) -> None:
        """Kills the worker that makes this call, as Lambda does when a function runs out of memory."""
        for worker in self._children():
            with suppress(psutil.NoSuchProcess):
                if any(each.laddr.port == call.port for each in worker.net_connections("tcp")):
                    worker.kill()
                    worker.wait(10)
                    return
        # On a busy machine, the worker may have stopped waiting for the response.
        assert self.workers(call.caller), f"no worker found for {call.name}"
        self.kill_all(call.caller)

    def kill_all(self, function: str) -> None:
        """Kills all worker processes of ``function``."""
        for worker in self.workers(function):
            with suppress(psutil.NoSuchProcess):
                worker.kill()
                # A worker that is still running could get the next invocation.
                wait_for(lambda worker=worker: worker.status() == psutil.STATUS_ZOMBIE, "the worker's end")

    def workers(self, function: str) -> list[psutil.Process]:
        """Returns the processes that run ``function``, including idle ones."""
        found = []
        for worker in self._children():
            with suppress(psutil.NoSuchProcess):
                # Linux shortens the name of a process.
                if worker.name() == function[:15]:
                    found.append(worker)
        return found

    def _children(self) -> list[psutil.Process]:
        return psutil.Process(self.stack.cloud.process.pid()).children(recursive=True)

    def restart_mysql(self) -> None:
        """Kills the MySQL server and starts it again. Committed data survives."""
        self.stack.database.process.stop(seconds=0)
        self.stack.database.start_process()

    def timeout(self, function: str, seconds: int) -> AbstractContextManager[None]:
        """Changes the timeout of ``function`` while the ``with`` block runs."""
        lambda_, name = self.aws("lambda"), f"cafe-dev-{function}"
        usual = lambda_.get_function_configuration(FunctionName=name)["Timeout"]
        change = partial(lambda_.update_function_configuration, FunctionName=name)
        return changed(lambda value: change(Timeout=value), usual, seconds)

    def concurrency(self, function: str, limit: int) -> AbstractContextManager[None]:
        """Limits the simultaneous invocations of ``function`` while the ``with`` block runs."""
        lambda_, name = self.aws("lambda"), f"cafe-dev-{function}"

        def change(limit: int | None) -> None:
            if limit is None:
                lambda_.delete_function_concurrency(FunctionName=name)
            else:
                lambda_.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=limit)

        return changed(change, None, limit)

    def visibility(self, seconds: int, queue: str = "ORDERS_QUEUE_URL") -> AbstractContextManager[None]:
        """Changes the visibility timeout of a queue while the ``with`` block runs."""
        sqs, url, name = self.aws("sqs"), self.env[queue], "VisibilityTimeout"
        usual = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"]
        change = partial(sqs.set_queue_attributes, QueueUrl=url)
        return changed(lambda value: change(Attributes=value), usual, {name: str(seconds)})

    def patience(self, kind: str, state: str | None, seconds: int) -> AbstractContextManager[None]:
        """Changes the timeout of a state, or of the whole state machine, while the ``with`` block runs."""
        sfn, arn = self.aws("stepfunctions"), self.env[f"{kind.upper()}_REPORT_ARN"]
        usual = sfn.describe_state_machine(stateMachineArn=arn)["definition"]
        shorter = json.loads(usual)
        (shorter["States"][state] if state else shorter)["TimeoutSeconds"] = seconds
        change = partial(sfn.update_state_machine, stateMachineArn=arn)
        return changed(lambda value: change(definition=value), usual, json.dumps(shorter))


@dataclass(frozen=True)
class Message:
    key: str
    subject: str
    text: str
    facts: dict[str, Any]


class Subscriber:
    """A subscriber to all notifications and alarms. The subscriber also keeps duplicate messages."""

    def __init__(self, system: Faulty) -> None:
        self._sqs = system.aws("sqs")
        arn = system.env["ORDERS_QUEUE_ARN"].rpartition(":")[0] + ":cafe-dev-somebody"
        allowed = {"Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage"}
        policy = {"Version": "2012-10-17", "Statement": [{**allowed, "Resource": arn}]}
        self._url = self._sqs.create_queue(
            QueueName="cafe-dev-somebody", Attributes={"Policy": json.dumps(policy), "VisibilityTimeout": "600"}
        )["QueueUrl"]
        for topic in (system.env["TOPIC_ARN"], system.env["ALARMS_TOPIC_ARN"]):
            system.aws("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        self._got: list[Message] = []
        self._reading = threading.Lock()

    def messages(self) -> list[Message]:
        with self._reading:
            while found := self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10).get("Messages"):
                for each in found:
                    sent = json.loads(each["Body"])
                    attributes = {name: value["Value"] for name, value in sent.get("MessageAttributes", {}).items()}
                    known = facts.read(attributes.get(facts.NAME))
                    self._got.append(
                        Message(attributes.get("key", ""), sent.get("Subject") or "", sent["Message"], known)
                    )
                entries = [{"Id": str(n), "ReceiptHandle": each["ReceiptHandle"]} for n, each in enumerate(found)]
                self._sqs.delete_message_batch(QueueUrl=self._url, Entries=entries)
            return list(self._got)

    def about(self, text: str) -> Counter[str]:
        """Counts the received notifications that contain ``text``, grouped by key."""
        return Counter(each.key for each in self.messages() if text in each.key + each.subject + each.text)


@contextmanager
def running(folder: Path) -> Iterator[Faulty]:
    """Starts a deployed system in ``folder``, and stops it at the end."""
    stack = copied(folder)
    with _proxies(stack) as (wire, gate):
        try:
            system = Faulty(stack, stack.resume(), wire, gate)
            system.learn_callers()
            yield system
        finally:
            stack.stop(_quiet)


if __name__ == "__main__":
    snapshot()
