"""Starts the AWS emulator MiniStack without the deployed system.

The checks of MiniStack's patches create their own resources in this emulator.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from local.cloud import CREDENTIALS, PYTHON, REGION, Cloud
from local.processes import free_ports
from tests.system.system import wait_for

ACCOUNT = "000000000000"
TRUST = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}


class UnpatchedCloud(Cloud):
    """A MiniStack process that runs without the project's patches."""

    @property
    def _command(self) -> list[str]:
        return [str(PYTHON), "-c", "from ministack.app import main; main()"]


class Emulator:
    """A running MiniStack whose functions and state machines all have the role ``admin_role``."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.endpoint = cloud.endpoint
        self.admin_role = self.role("everything", "*")

    def client(self, service: str, **credentials: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            config=Config(connect_timeout=5, read_timeout=60, retries={"total_max_attempts": 1}),
            **(credentials or {name.lower(): value for name, value in CREDENTIALS.items()}),
        )

    def role(self, name: str, action: str, resource: str = "*", condition: Any = None) -> str:
        """Creates a role that allows one action and that any principal can assume. Returns its ARN."""
        iam = self.client("iam")
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": [TRUST]}))["Role"]["Arn"]
        right = {"Effect": "Allow", "Action": action, "Resource": resource, "Condition": condition or {}}
        iam.put_role_policy(RoleName=name, PolicyName="one", PolicyDocument=json.dumps({"Statement": [right]}))
        return str(arn)

    def restricted_client(self, service: str, action: str, resource: str = "*", condition: Any = None) -> Any:
        """Returns a client whose role allows only one action."""
        arn = self.role(action.replace(":", "-"), action, resource, condition)
        keys = self.client("sts").assume_role(RoleArn=arn, RoleSessionName="one")["Credentials"]
        return self.client(
            service,
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys["SessionToken"],
        )

    def function(self, name: str, code: str, files: Mapping[str, str] | None = None) -> str:
        """Creates a Lambda function from source code that defines ``handler(event, context)``. Returns its ARN.

        ``files`` contains the text of further files in the function's package, keyed by path.
        """
        lambda_ = self.client("lambda")
        arn = lambda_.create_function(**self.function_parameters(name, code, files))["FunctionArn"]
        wait_for(lambda: lambda_.get_function_configuration(FunctionName=name)["State"] == "Active", name)
        return str(arn)

    def function_parameters(self, name: str, code: str, files: Mapping[str, str] | None = None) -> dict[str, Any]:
        package = io.BytesIO()
        with zipfile.ZipFile(package, "w") as archive:
            for file, content in {"app.py": code, **(files or {})}.items():
                # Otherwise, the current time would make two packages differ.
                archive.writestr(zipfile.ZipInfo(file), content)
        runtime = {"Runtime": "python3.11", "Handler": "app.handler", "Timeout": 30, "Role": self.admin_role}
        return {"FunctionName": name, **runtime, "Code": {"ZipFile": package.getvalue()}}

    def invoke(self, name: str) -> Any:
        return json.loads(self.client("lambda").invoke(FunctionName=name)["Payload"].read())

    def printed(self, name: str) -> list[Any]:
        """Returns the parsed JSON from the function's log lines that start with ``event``."""
        try:
            events = self.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
        except ClientError:
            return []  # The log group does not exist until the function has run.
        lines = [each["message"] for each in events]
        return [json.loads(line.removeprefix("event ")) for line in lines if line.startswith("event ")]

    def machine(self, name: str, state: dict[str, Any], **fields: Any) -> str:
        """Creates a state machine with one state. Returns its ARN."""
        end = {} if state["Type"] == "Fail" else {"End": True}
        definition = {"StartAt": "Only", "States": {"Only": {**end, **state}}, **fields}
        arn = self.client("stepfunctions").create_state_machine(
            name=name, definition=json.dumps(definition), roleArn=self.admin_role
        )["stateMachineArn"]
        return str(arn)

    def execute(self, machine_arn: str, machine_input: str = "{}") -> dict[str, Any]:
        """Starts an execution, waits until it ends, and returns its description."""
        machines = self.client("stepfunctions")
        arn = machines.start_execution(stateMachineArn=machine_arn, input=machine_input)["executionArn"]
        wait_for(lambda: machines.describe_execution(executionArn=arn)["status"] != "RUNNING", "the execution's end")
        return dict(machines.describe_execution(executionArn=arn))

    def table(self, name: str) -> str:
        """Creates a DynamoDB table with a stream. Returns the stream's ARN."""
        description = self.client("dynamodb").create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
        )["TableDescription"]
        return str(description["LatestStreamArn"])

    def queue(self, name: str) -> tuple[str, str]:
        """Creates a queue to which anyone can send messages. Returns the queue's URL and ARN."""
        sqs, arn = self.client("sqs"), f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"
        anybody = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": arn}
        policy = json.dumps({"Statement": [anybody]})
        return sqs.create_queue(QueueName=name, Attributes={"Policy": policy})["QueueUrl"], arn

    def received(self, url: str) -> list[dict[str, Any]]:
        messages = self.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        return [json.loads(each["Body"]) for each in messages]


@contextmanager
def running(kind: type[Cloud], folder: Path) -> Iterator[Emulator]:
    [port] = free_ports(1)
    cloud = kind(folder, port)
    try:
        cloud.start()
        yield Emulator(cloud)
    finally:
        cloud.stop()


def is_allowed(call: Callable[[], Any], refusal: str = "AccessDenied") -> bool:
    """Returns True if the call succeeds, and False if it fails with the error ``refusal``. Raises other errors."""
    try:
        call()
    except ClientError as error:
        if not error.response["Error"]["Code"].startswith(refusal):
            raise
        return False
    return True
