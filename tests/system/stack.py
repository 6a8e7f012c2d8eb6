"""The deployed system for the tests, with a proxy on each of its wires, started from a snapshot.

``with running(folder) as system:`` gives one. ``system.wire`` injects faults between AWS and those who call it: the
functions, the API and the state machines. ``system.gate`` injects those before MySQL. The tests' own calls bypass both.

A deploy takes most of a start, so it happens once: ``snapshot`` deploys, stops everything and keeps the folder, under a
digest of all that was deployed. Each stack is a copy of that folder in which the ports are replaced.
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import psutil
import pymysql

from chalicelib.settings import Database as Settings
from infra.deploy import project
from local.cloud import Cloud
from local.database import Database
from local.processes import exclusive_lock, fingerprint, free_ports
from local.stack import Stack, run_in_parallel
from tests.system.calls import Call
from tests.system.gate import Gate
from tests.system.system import ROOT, System
from tests.system.wire import Wire

PATCHES = Path(__file__).parent / "ministack_patches.py"
SNAPSHOTS = ROOT / ".local" / "snapshots"
# All that decides what a deployed stack is.
SOURCES = (
    *(ROOT / name for name in ("app.py", "chalicelib", "infra", "local", "requirements.txt", ".chalice/config.json")),
    *(PATCHES, Path(__file__)),
)
PORTS = ("api_port", "aws_port", "db_port", "wire_port", "gate_port")
# Records of processes that have ended, and what they said.
LEFT_OUT = shutil.ignore_patterns(
    "*.log", "*.pid", "*.sock", "lock", "tmp", "api.json", "ministack.json", "mariadb.json"
)


@dataclass(frozen=True)
class WiredCloud(Cloud):
    """A MiniStack that everybody reaches by the wire on another port. It keeps its state when it is asked to end."""

    wire_port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.wire_port}"

    @property
    def _variables(self) -> dict[str, str]:
        return {
            **super()._variables,
            # MiniStack passes this on to the functions.
            "AWS_ENDPOINT_URL": self.endpoint,
            # A state machine waits a tenth of what it says between its retries.
            "SFN_WAIT_SCALE": "0.1",
            # An order that failed comes back at once.
            "ORDERS_RETRY_SECONDS": "0",
            "PERSIST_STATE": "1",
            "STATE_DIR": str(self.folder / "state"),
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(self.folder / "s3"),
            "CODE_DIR": str(self.folder / "code"),
        }

    def start(self) -> None:
        for kept in ("state", "s3"):
            shutil.rmtree(self.folder / kept, ignore_errors=True)
        super().start()


@dataclass(frozen=True)
class WiredDatabase(Database):
    """A MariaDB that everybody reaches by the gate on another port."""

    gate_port: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.gate_port}"

    @property
    def _command(self) -> list[str]:
        # A commit must survive a killed server. A small log is quick to copy.
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
        """Starts all processes on the state that is in the folder, and returns the variables of ``<folder>/env``."""
        run_in_parallel(self.cloud.start_process, self.database.start_process)
        return self._finish_start(_quiet)

    def suspend(self) -> None:
        """Ends all processes, and leaves their state in the folder."""
        self.api.stop()
        self.cloud.process.stop(seconds=60)
        with pymysql.connect(**self.database.administrator) as connection, connection.cursor() as cursor:
            # Nothing is left to repair at the next start.
            cursor.execute("SET GLOBAL innodb_fast_shutdown = 1")
        self.database.process.stop(seconds=60)


def snapshot() -> Path:
    """The folder of a stack that was deployed and stopped. It is made once for each state of the sources."""
    folder = SNAPSHOTS / fingerprint(sys.version, *SOURCES)
    with exclusive_lock(SNAPSHOTS / "lock"):
        if not folder.exists():
            # Snapshots of other states of the sources.
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
            # MiniStack writes its state, which has passwords, for everybody to read.
            for path in folder.with_suffix(".part").joinpath("cloud").rglob("*"):
                path.chmod(0o700 if path.is_dir() else 0o600)
            folder.with_suffix(".part").rename(folder)
    return folder


def _quiet(_line: str) -> None:
    """The tests show what failed, and not each step of a start."""


def _stack(folder: Path, *, wired: bool = True) -> WiredStack:
    # Uneven numbers that do not end in 5, because these stand for nothing else in a stack's state.
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
    """A stack in ``folder`` with the state of the snapshot and with ports of its own: ``resume`` starts it.

    One that is not wired needs no proxies, and can be started, healed and stopped like that of a person.
    """
    shutil.copytree(snapshot(), folder, symlinks=True, dirs_exist_ok=True)
    stack = _stack(folder, wired=wired)
    old = json.loads((folder / "ports.json").read_text())
    _replace(folder, {str(old[name]): str(getattr(stack, name)) for name in PORTS})
    # The build is a digest of the configuration, which has the ports.
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
    """Whether the file is none of MariaDB's, and no package."""
    return path.parent.parent.name != "database" and path.suffix != ".zip" and b"\0" not in content


def _forget_checksums(path: Path) -> None:
    """An object of S3 that was changed has no checksum by which a client would refuse it."""
    beside = path.with_name(path.name + ".meta.json")
    if beside.exists():
        beside.write_text(json.dumps({**json.loads(beside.read_text()), "checksums": {}}))


class Faulty(System):
    """The deployed system, and what may happen to it."""

    def __init__(self, stack: WiredStack, env: dict[str, str], wire: Wire, gate: Gate) -> None:
        super().__init__(stack, env)
        # No fault meets the tests' own calls, by which they prepare and count.
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
        """MiniStack makes a function's access key from its name and role, so that a call tells who makes it."""
        for page in self.aws("lambda").get_paginator("list_functions").paginate():
            for function in page["Functions"]:
                digest = hashlib.sha256(f"{function['FunctionArn']}:{function['Role']}".encode()).hexdigest()
                name = function["FunctionName"].removeprefix("cafe-dev").removeprefix("-")
                self.wire.callers[f"ASIA{digest[:16].upper()}"] = name or "api"

    def kill(self, call: Call) -> None:
        """End the function's worker that makes this call, at once, as Lambda does when it has used all its memory."""
        for worker in self._children():
            with suppress(psutil.NoSuchProcess):
                if any(each.laddr.port == call.port for each in worker.net_connections("tcp")):
                    worker.kill()
                    worker.wait(10)
                    return
        raise AssertionError(f"nobody to kill for {call.name}")

    def kill_all(self, function: str) -> None:
        """The same for every worker of ``function``."""
        for worker in self.workers(function):
            with suppress(psutil.NoSuchProcess):
                worker.kill()

    def workers(self, function: str) -> list[psutil.Process]:
        """The processes that run ``function``, or wait to."""
        found = []
        for worker in self._children():
            with suppress(psutil.NoSuchProcess):
                if worker.environ().get("AWS_LAMBDA_FUNCTION_NAME") == f"cafe-dev-{function}":
                    found.append(worker)
        return found

    def _children(self) -> list[psutil.Process]:
        return psutil.Process(self.stack.cloud.process.pid()).children(recursive=True)

    def restart_mysql(self) -> None:
        """The server ends without a word, and comes back with what it had committed."""
        self.stack.database.process.stop(seconds=0)
        self.stack.database.start_process()

    @contextmanager
    def timeout(self, function: str, seconds: int) -> Iterator[None]:
        """For a while ``function`` is cut off after so many seconds."""
        lambda_, name = self.aws("lambda"), f"cafe-dev-{function}"
        usual = lambda_.get_function_configuration(FunctionName=name)["Timeout"]
        lambda_.update_function_configuration(FunctionName=name, Timeout=seconds)
        try:
            yield
        finally:
            lambda_.update_function_configuration(FunctionName=name, Timeout=usual)

    @contextmanager
    def visibility(self, seconds: int) -> Iterator[None]:
        """For a while a message of the orders queue that nobody answers for comes back after so many seconds."""
        sqs, url = self.aws("sqs"), self.env["ORDERS_QUEUE_URL"]
        usual = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"]
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": str(seconds)})
        try:
            yield
        finally:
            sqs.set_queue_attributes(QueueUrl=url, Attributes=usual)

    @contextmanager
    def patience(self, kind: str, state: str | None, seconds: int) -> Iterator[None]:
        """For a while a state of the reports' machine, or all of it, may take no longer than so many seconds."""
        sfn, arn = self.aws("stepfunctions"), self.env[f"{kind.upper()}_REPORT_ARN"]
        usual = sfn.describe_state_machine(stateMachineArn=arn)["definition"]
        hasty = json.loads(usual)
        (hasty["States"][state] if state else hasty)["TimeoutSeconds"] = seconds
        sfn.update_state_machine(stateMachineArn=arn, definition=json.dumps(hasty))
        try:
            yield
        finally:
            sfn.update_state_machine(stateMachineArn=arn, definition=usual)


@dataclass(frozen=True)
class Message:
    key: str
    subject: str
    text: str


class Subscriber:
    """Somebody who gets every notification and every alarm, and keeps all of them, the repeated ones too."""

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
                    key = sent.get("MessageAttributes", {}).get("key", {}).get("Value", "")
                    self._got.append(Message(key, sent.get("Subject") or "", sent["Message"]))
                entries = [{"Id": str(n), "ReceiptHandle": each["ReceiptHandle"]} for n, each in enumerate(found)]
                self._sqs.delete_message_batch(QueueUrl=self._url, Entries=entries)
            return list(self._got)

    def about(self, text: str) -> Counter[str]:
        """How often each notification about ``text`` came, by its key."""
        return Counter(each.key for each in self.messages() if text in each.key + each.subject + each.text)


@contextmanager
def running(folder: Path) -> Iterator[Faulty]:
    """A deployed system of its own in ``folder``; stopped at the end."""
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
