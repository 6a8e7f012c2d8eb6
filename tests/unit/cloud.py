"""Mocks AWS for the unit tests, with the resource names in ``ENVIRONMENT``."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.stub import Stubber
from moto.backends import get_backend

from chalicelib import clients
from tests.template import load
from tests.unit.signing import CLIENT_ID, POOL_ID, REGION

ROOT = Path(__file__).parents[2]
ACCOUNT = "123456789012"
QUEUES = f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/"
MACHINE = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:cafe-test-"
ENVIRONMENT = {
    "CAFE_STAGE": "test",
    "ORDERS_QUEUE_URL": f"{QUEUES}cafe-test-orders",
    "ORDERS_QUEUE_ARN": f"arn:aws:sqs:{REGION}:{ACCOUNT}:cafe-test-orders",
    "ORDERS_DEAD_LETTER_URL": f"{QUEUES}cafe-test-orders-dead",
    "RETRIES_QUEUE_URL": f"{QUEUES}cafe-test-retries",
    "RETRIES_QUEUE_ARN": f"arn:aws:sqs:{REGION}:{ACCOUNT}:cafe-test-retries",
    "FAILURES_QUEUE_URL": f"{QUEUES}cafe-test-failures",
    "ORDERS_TABLE": "cafe-test-orders",
    "ORDERS_STREAM_ARN": f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/cafe-test-orders/stream/2026-01-01T00:00:00.000",
    # Listing orders reads every month since this date, so an early date would slow the tests down.
    "ORDERS_SINCE": str(datetime.now(UTC).date() - timedelta(days=1)),
    "NOTIFICATIONS_TABLE": "cafe-test-notifications",
    "REQUESTS_TABLE": "cafe-test-requests",
    "UPLOADS_TABLE": "cafe-test-uploads",
    "TOPIC_ARN": f"arn:aws:sns:{REGION}:{ACCOUNT}:cafe-test-notifications",
    "ALARMS_TOPIC_ARN": f"arn:aws:sns:{REGION}:{ACCOUNT}:cafe-test-alarms",
    "REPORTS_BUCKET": f"cafe-test-reports-{ACCOUNT}",
    "UPLOADS_BUCKET": f"cafe-test-uploads-{ACCOUNT}",
    "INVENTORY_REPORT_ARN": f"{MACHINE}inventory-report",
    "STORAGE_REPORT_ARN": f"{MACHINE}storage-report",
    "USER_POOL_ID": POOL_ID,
    "USER_POOL_CLIENT_ID": CLIENT_ID,
}
MACHINES = {"inventory": ENVIRONMENT["INVENTORY_REPORT_ARN"], "storage": ENVIRONMENT["STORAGE_REPORT_ARN"]}
SERVICES = ("dynamodb", "sqs", "s3", "sns", "stepfunctions")


@cache
def _maker(service: str) -> Any:
    """Returns a separate client for creating resources, because a test may stub the client of the app."""
    return boto3.client(service, region_name=REGION, aws_access_key_id="testing", aws_secret_access_key="testing")


@cache
def definition(kind: str) -> str:
    return (ROOT / "infra" / f"{kind}_report.asl.json").read_text()


@cache
def _resources() -> dict[str, Any]:
    resources: dict[str, Any] = load((ROOT / "infra" / "resources.yaml").read_text())["Resources"]
    return resources


class Aws:
    """Gives tests the AWS clients of the app in a mocked AWS account. Each resource is created at its first use."""

    def __init__(self, hooks: ExitStack) -> None:
        self._hooks = hooks
        self._lock = threading.Lock()
        # Maps the name of each resource that does not exist yet to the function that creates it.
        self._missing: dict[str, Callable[[], Any]] = {ENVIRONMENT["TOPIC_ARN"]: self._make_topic}
        for table in ("Orders", "Notifications", "Requests", "Uploads"):
            self._missing[ENVIRONMENT[f"{table.upper()}_TABLE"]] = lambda table=table: self._make_table(table)
        for queue in ("cafe-test-orders", "cafe-test-orders-dead", "cafe-test-retries", "cafe-test-failures", "inbox"):
            self._missing[QUEUES + queue] = lambda queue=queue: _maker("sqs").create_queue(QueueName=queue)
        bucket = ENVIRONMENT["REPORTS_BUCKET"]
        self._missing[bucket] = lambda: _maker("s3").create_bucket(Bucket=bucket)
        for kind, arn in MACHINES.items():
            self._missing[arn] = lambda kind=kind: self._make_machine(kind)
        self.dynamodb, self.sqs, self.s3, self.sns, self.sfn = map(clients.aws, SERVICES)
        for client in (self.dynamodb, self.sqs, self.s3, self.sns, self.sfn):
            self.hook(client, "provide-client-params", self._make_named)
        self.hook(self.dynamodb, "before-call.dynamodb.BatchExecuteStatement", self._insert)

    def _make_named(self, params: dict[str, Any], **_: Any) -> None:
        for value in params.values():
            for name in value if isinstance(value, dict) else [value]:
                if isinstance(name, str):
                    self._make(name)

    def _make(self, name: str) -> None:
        # The lock makes calls in other threads wait until the resource exists.
        with self._lock:
            if name in self._missing:
                self._missing.pop(name)()

    def _make_table(self, table: str) -> None:
        properties = _resources()[f"{table}Table"]["Properties"]
        taken = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")
        given = {name: properties[name] for name in taken if name in properties}
        _maker("dynamodb").create_table(TableName=ENVIRONMENT[f"{table.upper()}_TABLE"], **given)

    def _make_machine(self, kind: str) -> None:
        role = f"arn:aws:iam::{ACCOUNT}:role/machine"
        _maker("stepfunctions").create_state_machine(
            name=f"cafe-test-{kind}-report", definition=definition(kind), roleArn=role
        )

    def _make_topic(self) -> None:
        """Creates the topic, and a subscribed queue that collects the published messages."""
        if make_inbox := self._missing.pop(f"{QUEUES}inbox", None):
            make_inbox()
        topic = _maker("sns").create_topic(Name="cafe-test-notifications")["TopicArn"]
        _maker("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=f"arn:aws:sqs:{REGION}:{ACCOUNT}:inbox")

    def queued(self) -> list[dict[str, Any]]:
        """Receives and returns all orders in the orders queue."""
        return self.drain(ENVIRONMENT["ORDERS_QUEUE_URL"])

    def published(self) -> list[dict[str, Any]]:
        """Returns the Subject, Message and MessageAttributes of each message published since the last call."""
        return self.drain(f"{QUEUES}inbox")

    def drain(self, url: str) -> list[dict[str, Any]]:
        """Receives all messages in a queue, and returns their bodies."""
        return [json.loads(each["Body"]) for each in self.receive(url)]

    def receive(self, url: str) -> list[dict[str, Any]]:
        """Receives all messages in a queue, with their attributes."""
        received: list[dict[str, Any]] = []
        while messages := self.sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        ).get("Messages"):
            received += messages
        return received

    def stored(self) -> dict[str, dict[str, Any]]:
        """Returns the items in the orders table, keyed by order id."""
        return {item["orderID"]["S"]: item for item in self._items("ORDERS_TABLE")}

    def kept(self) -> list[dict[str, Any]]:
        """Returns the items in the notifications table."""
        return self._items("NOTIFICATIONS_TABLE")

    def _items(self, variable: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.dynamodb.scan(TableName=ENVIRONMENT[variable])["Items"]
        return items

    def execution(self, report_id: str) -> Any:
        """Returns the execution with this name or ARN in moto, which never runs it. A test sets the outcome."""
        machines = get_backend("stepfunctions")[ACCOUNT][REGION].state_machines
        return next(
            each for machine in machines for each in machine.executions if report_id in (each.name, each.execution_arn)
        )

    def finish(self, report_id: str, status: str = "SUCCEEDED", **fields: Any) -> None:
        """Ends an execution with ``output``, or with ``error`` and ``cause``."""
        execution = self.execution(report_id)
        execution.stop(stop_date=execution.start_date, error=None, cause=None)
        execution.status = status
        for name, value in fields.items():
            setattr(execution, name, value)

    def calls(self, client: Any, operation: str) -> list[dict[str, Any]]:
        """Returns a list to which the arguments of every later call of ``operation`` are added."""
        seen: list[dict[str, Any]] = []
        event = f"provide-client-params.{client.meta.service_model.service_id.hyphenize()}.{operation}"
        self.hook(client, event, lambda params, **_: seen.append(params))
        return seen

    def hook(self, client: Any, event: str, handler: Callable[..., Any]) -> None:
        """Registers a botocore event handler until the test ends, because tests share the clients."""
        client.meta.events.register(event, handler)
        self._hooks.callback(client.meta.events.unregister, event, handler)

    def _insert(self, params: dict[str, Any], **_: Any) -> tuple[AWSResponse, dict[str, Any]]:
        """Emulates the parameterized PartiQL INSERT with PutItem, because moto does not support it."""
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


@contextmanager
def refusing(client: Any, operation: str, code: str, status: int = 400, *, times: int = 1) -> Iterator[None]:
    """Makes the client's next calls fail with this error code."""
    with Stubber(client) as stub:
        for _ in range(times):
            stub.add_client_error(operation, code, http_status_code=status)
        yield
