"""What the unit tests share: the app with settings of its own, the mocked AWS that these name, and no network."""

import io
import json
import logging
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import hypothesis
import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from chalice.test import Client, HTTPResponse
from moto import mock_aws
from moto.backends import get_backend
from pythonjsonlogger.json import JsonFormatter

from chalicelib import clients, sign_in
from tests.unit.signing import CLIENT_ID, POOL_ID, REGION, Pool
from tests.wiring.template import load

# The same examples at each run, so that a failure repeats; and a machine under load is no failure.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")

ROOT = Path(__file__).parents[2]
ACCOUNT = "123456789012"
MACHINE = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:cafe-test-"
ENVIRONMENT = {
    "CAFE_STAGE": "test",
    "ORDERS_QUEUE_URL": f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/cafe-test-orders",
    "ORDERS_QUEUE_ARN": f"arn:aws:sqs:{REGION}:{ACCOUNT}:cafe-test-orders",
    "ORDERS_DEAD_LETTER_URL": f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/cafe-test-orders-dead",
    "FAILURES_QUEUE_URL": f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/cafe-test-failures",
    "ORDERS_TABLE": "cafe-test-orders",
    "ORDERS_STREAM_ARN": f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/cafe-test-orders/stream/2026-01-01T00:00:00.000",
    "ORDERS_SINCE": "2026-01-01",
    "NOTIFICATIONS_TABLE": "cafe-test-notifications",
    "REQUESTS_TABLE": "cafe-test-requests",
    "TOPIC_ARN": f"arn:aws:sns:{REGION}:{ACCOUNT}:cafe-test-notifications",
    "ALARMS_TOPIC_ARN": f"arn:aws:sns:{REGION}:{ACCOUNT}:cafe-test-alarms",
    "REPORTS_BUCKET": f"cafe-test-reports-{ACCOUNT}",
    "UPLOADS_BUCKET": f"cafe-test-uploads-{ACCOUNT}",
    "INVENTORY_REPORT_ARN": f"{MACHINE}inventory-report",
    "STORAGE_REPORT_ARN": f"{MACHINE}storage-report",
    "USER_POOL_ID": POOL_ID,
    "USER_POOL_CLIENT_ID": CLIENT_ID,
}

# The app reads its settings when it is imported, and other tests in this process have an environment of their own.
with patch.dict(os.environ, ENVIRONMENT):
    import app


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: socket.socket, address: Any) -> None:
        raise RuntimeError(f"a unit test wants to connect to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a sourced ``.local/env`` nor the developer's own AWS account is used."""
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")


RESOURCES = load((ROOT / "infra" / "resources.yaml").read_text())["Resources"]


class Aws:
    """The mocked AWS, with the resources that ``ENVIRONMENT`` names. The clients are those that the app uses."""

    def __init__(self, hooks: ExitStack) -> None:
        self._hooks = hooks
        self.dynamodb, self.sqs, self.s3, self.sns, self.sfn = map(
            clients.aws, ("dynamodb", "sqs", "s3", "sns", "stepfunctions")
        )
        self.hook(self.dynamodb, "before-call.dynamodb.BatchExecuteStatement", self._insert)
        for table in ("Orders", "Notifications", "Requests"):
            given = RESOURCES[f"{table}Table"]["Properties"]
            taken = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")
            self.dynamodb.create_table(
                TableName=ENVIRONMENT[f"{table.upper()}_TABLE"],
                **{name: given[name] for name in taken if name in given},
            )
        for queue in ("orders", "orders-dead", "failures"):
            self.sqs.create_queue(QueueName=f"cafe-test-{queue}")
        self.s3.create_bucket(Bucket=ENVIRONMENT["REPORTS_BUCKET"])
        for kind in ("inventory", "storage"):
            role = f"arn:aws:iam::{ACCOUNT}:role/machine"
            definition = (ROOT / "infra" / f"{kind}_report.asl.json").read_text()
            self.sfn.create_state_machine(name=f"cafe-test-{kind}-report", definition=definition, roleArn=role)
        # A subscriber, to see what was published.
        self.sns.create_topic(Name="cafe-test-notifications")
        self._inbox = self.sqs.create_queue(QueueName="inbox")["QueueUrl"]
        self.sns.subscribe(
            TopicArn=ENVIRONMENT["TOPIC_ARN"], Protocol="sqs", Endpoint=f"arn:aws:sqs:{REGION}:{ACCOUNT}:inbox"
        )

    def queued(self) -> list[dict[str, Any]]:
        """Takes all orders off the queue."""
        return self._drain(ENVIRONMENT["ORDERS_QUEUE_URL"])

    def published(self) -> list[dict[str, Any]]:
        """Takes what was published since the last time: each with Subject, Message and MessageAttributes."""
        return self._drain(self._inbox)

    def _drain(self, url: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while messages := self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            found += [json.loads(message["Body"]) for message in messages]
        return found

    def stored(self) -> dict[str, dict[str, Any]]:
        """The items of the orders table by their id."""
        return {item["orderID"]["S"]: item for item in self._items("ORDERS_TABLE")}

    def kept(self) -> list[dict[str, Any]]:
        """The items of the notifications table."""
        return self._items("NOTIFICATIONS_TABLE")

    def _items(self, variable: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.dynamodb.scan(TableName=ENVIRONMENT[variable])["Items"]
        return items

    def execution(self, report_id: str) -> Any:
        """moto's own execution, which it starts and never runs: a test sets how it went."""
        machines = get_backend("stepfunctions")[ACCOUNT][REGION].state_machines
        return next(each for machine in machines for each in machine.executions if each.name == report_id)

    def finish(self, report_id: str, status: str = "SUCCEEDED", **fields: Any) -> None:
        """Ends an execution with ``output``, or ``error`` and ``cause``."""
        execution = self.execution(report_id)
        execution.stop(stop_date=execution.start_date, error=None, cause=None)
        execution.status = status
        for name, value in fields.items():
            setattr(execution, name, value)

    def calls(self, client: Any, operation: str) -> list[dict[str, Any]]:
        """A list that fills with the arguments of each coming call of ``operation``."""
        seen: list[dict[str, Any]] = []
        event = f"provide-client-params.{client.meta.service_model.service_id.hyphenize()}.{operation}"
        self.hook(client, event, lambda params, **_: seen.append(params))
        return seen

    def hook(self, client: Any, event: str, handler: Callable[..., Any]) -> None:
        """Until the test's end, for the clients outlive it."""
        client.meta.events.register(event, handler)
        self._hooks.callback(client.meta.events.unregister, event, handler)

    def _insert(self, params: dict[str, Any], **_: Any) -> tuple[AWSResponse, dict[str, Any]]:
        """PartiQL's INSERT with parameters, which moto lacks, in the words of PutItem."""
        responses: list[dict[str, Any]] = []
        for each in json.loads(params["body"])["Statements"]:
            statement = re.fullmatch(r'INSERT INTO "([\w-]+)" VALUE {(.+)}', each["Statement"])
            assert statement, each["Statement"]
            names = re.findall(r"'(\w+)': \?", statement[2])
            item = dict(zip(names, each["Parameters"], strict=True))
            try:
                condition = "attribute_not_exists(orderID)"
                self.dynamodb.put_item(TableName=statement[1], Item=item, ConditionExpression=condition)
            except self.dynamodb.exceptions.ConditionalCheckFailedException:
                known = "Duplicate primary key exists in table"
                responses.append({"Error": {"Code": "DuplicateItem", "Message": known}})
            else:
                responses.append({"TableName": statement[1]})
        return AWSResponse("", 200, HTTPHeaders(), io.BytesIO()), {"Responses": responses}


@pytest.fixture(scope="package", autouse=True)
def own_clients() -> Iterator[None]:
    """Clients are costly to make, so the tests share them, but not with the tests that have another AWS."""
    clients.aws.cache_clear()
    yield
    clients.aws.cache_clear()


@pytest.fixture
def aws() -> Iterator[Aws]:
    with mock_aws(), ExitStack() as hooks:
        yield Aws(hooks)


class Api:
    """Chalice's test client, with JSON bodies, and with a manager's token."""

    def __init__(self, client: Client, pool: Pool) -> None:
        self.client = client
        self.pool = pool
        self.headers = {"authorization": pool.token("mia", "managers")}

    def sent_by(self, name: str, *groups: str) -> "Api":
        """The same API as another person has it."""
        return self.with_token(self.pool.token(name, *groups))

    def with_token(self, token: str | None) -> "Api":
        """The same API with this as the header Authorization, or without it."""
        other = Api(self.client, self.pool)
        other.headers = {"authorization": token} if token is not None else {}
        return other

    def get(self, path: str, **headers: str) -> HTTPResponse:
        return self.client.http.get(path, headers={**self.headers, **headers})

    def post(self, path: str, body: Any = b"", **headers: str) -> HTTPResponse:
        """``body`` goes as it is if it is bytes, else as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"content-type": "application/json", **self.headers, **headers}
        return self.client.http.post(path, headers=sent, body=raw)


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """The user pool that the app asks for its keys, which it does not know yet."""
    pool = Pool()
    monkeypatch.setattr(sign_in, "fetch", pool.fetch)
    sign_in.keys_of.cache_clear()
    yield pool
    sign_in.keys_of.cache_clear()


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(app.app, project_dir=str(ROOT)) as client:
        yield client


@pytest.fixture
def api(client: Client, pool: Pool) -> Api:
    return Api(client, pool)


def log_handler() -> logging.Handler:
    """The functions' own; pytest adds others to look at the records."""
    (handler,) = (each for each in logging.getLogger("cafe").handlers if isinstance(each.formatter, JsonFormatter))
    return handler


@pytest.fixture
def log_lines(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the functions log from now on."""
    lines = io.StringIO()
    monkeypatch.setattr(log_handler(), "stream", lines)
    return lines
