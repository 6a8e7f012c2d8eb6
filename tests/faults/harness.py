"""The whole system with a proxy on each of its wires: to AWS, and to MySQL.

``with faulty(folder) as system:`` gives it. ``system.wire`` has the faults between the functions, the API and the
state machines on one side and AWS on the other, ``system.gate`` those before MySQL. The tests' own look at the system
goes past both.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import psutil

from chalicelib.settings import Database as Settings
from local.cloud import Cloud
from local.database import Database
from local.processes import free_ports
from local.stack import Stack
from tests.faults.gate import Gate
from tests.faults.wire import Call, Wire
from tests.system.system import System

LAUNCHER = Path(__file__).parent / "launcher.py"


@dataclass(frozen=True)
class FaultyCloud(Cloud):
    """A MiniStack that everybody reaches by the wire on another port."""

    wire_port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.wire_port}"

    @property
    def _variables(self) -> dict[str, str]:
        return {
            **super()._variables,
            # This one is for the functions: MiniStack hands it on to them.
            "AWS_ENDPOINT_URL": self.endpoint,
            # A state machine waits a tenth of what it says between its retries.
            "SFN_WAIT_SCALE": "0.1",
        }


@dataclass(frozen=True)
class FaultyDatabase(Database):
    """A MariaDB that everybody reaches by the gate on another port."""

    gate_port: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.gate_port}"

    @property
    def _command(self) -> list[str]:
        # Quick, and all the same a commit has to survive the server's sudden end.
        return [*super()._command, "--innodb-flush-log-at-trx-commit=2"]


@dataclass(frozen=True)
class FaultyStack(Stack):
    wire_port: int = 0
    gate_port: int = 0

    @cached_property
    def cloud(self) -> FaultyCloud:
        return FaultyCloud(self.folder / "cloud", self.aws_port, LAUNCHER, wire_port=self.wire_port)

    @cached_property
    def database(self) -> FaultyDatabase:
        return FaultyDatabase(self.folder / "database", self.db_port, gate_port=self.gate_port)


class Faulty(System):
    """The deployed system, and what may happen to it."""

    def __init__(self, stack: FaultyStack, env: dict[str, str], wire: Wire, gate: Gate) -> None:
        # The tests' own calls, those for set-up and for counting, meet no fault.
        super().__init__(stack, {**env, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{stack.aws_port}"})
        self.wire = wire
        self.gate = gate
        self.subscriber = Subscriber(self)

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
        self.stack.database.launch()

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
def faulty(folder: Path) -> Iterator[Faulty]:
    """The system in ``folder``, deployed, with no fault yet; stopped at the end."""
    api_port, aws_port, db_port, wire_port, gate_port = free_ports(5)
    stack = FaultyStack(
        folder, api_port=api_port, aws_port=aws_port, db_port=db_port, wire_port=wire_port, gate_port=gate_port
    )
    wire, gate = Wire(wire_port, aws_port), Gate(gate_port, db_port)
    try:
        system = Faulty(stack, stack.start(), wire, gate)
        system.learn_callers()
        yield system
    finally:
        stack.stop()
        wire.close()
        gate.close()
