"""Gives tests access to the deployed system through API requests, AWS calls and SQL."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Mapping
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import pymysql
import urllib3
from botocore.config import Config

from chalicelib.settings import Database
from local.stack import Stack
from tests.system.waiting import changed, wait_for

ROOT = Path(__file__).parents[2]
# These inventory tables have no constraints, like the tables in some existing databases.
LOOSE_TABLES = """
    CREATE TABLE suppliers (id int auto_increment primary key, name varchar(255), address varchar(255),
        city varchar(255), state varchar(255), email varchar(255), phone varchar(100)) CHARSET {charset};
    CREATE TABLE beans (id int auto_increment primary key, supplier_id int, type varchar(255),
        product_name varchar(255), price varchar(255), description varchar(255), quantity int) CHARSET {charset};
"""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class System:
    """The deployed system. API requests carry a manager's token, unless ``sent_by`` names another user."""

    def __init__(self, stack: Stack, env: dict[str, str]) -> None:
        self.stack = stack
        self.env = env
        # AWS calls from the tests themselves use this address.
        self.endpoint = env["AWS_ENDPOINT_URL"]
        self._sender: str | None = "manager"
        self._http = urllib3.PoolManager(timeout=30, retries=False)

    def aws(self, service: str) -> Any:
        """Returns an AWS client with an administrator's permissions."""
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=self.env["AWS_DEFAULT_REGION"],
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
            config=Config(
                connect_timeout=5, read_timeout=120, retries={"total_max_attempts": 1}, signature_version="v4"
            )
            if service != "s3"
            else Config(connect_timeout=5, read_timeout=60, signature_version="s3v4"),
        )

    # --- the API

    def sent_by(self, name: str | None) -> System:
        """Returns a client for the same system that sends another user's token, or no token."""
        other = copy(self)
        other._sender = name
        return other

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Sends a request to a URL or to a path of the API. ``body`` is bytes, or a value to encode as JSON."""
        url = path if "://" in path else self.env["CAFE_API_URL"] + path
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} if data is not None else {}
        # The token is sent only to the API, because a presigned link needs no token.
        if self._sender and url.startswith((self.env["CAFE_API_URL"], self.env["REST_API_URL"])):
            sent["Authorization"] = self.stack.users.token(self._sender)
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self._http.request(method, url, body=data, headers=sent)
        return Answer(answer.status, answer.headers, answer.data.decode())

    def get(self, path: str) -> Any:
        answer = self.request("GET", path)
        assert answer.status == 200, answer.text
        return answer.json

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        answer = self.request("POST", path, body, **headers)
        assert answer.status == 202, answer.text
        return answer.json

    def all(self, path: str, name: str) -> list[dict[str, Any]]:
        """Returns the items on all pages of a list."""
        separator = "&" if "?" in path else "?"
        page = self.get(f"{path}{separator}limit=100")
        found = list(page[name])
        while page["next"]:
            page = self.get(f"{path}{separator}limit=100&next={page['next']}")
            found += page[name]
        return found

    def notifications(self, about: str, kind: str | None = None) -> list[dict[str, Any]]:
        """Returns the notifications whose message or subject contains ``about``."""
        found = self.all("/notifications", "notifications")
        return [n for n in found if about in n["message"] + n["subject"] and kind in (None, n["kind"])]

    def notification(self, about: str, kind: str | None = None) -> dict[str, Any]:
        """Waits for a notification that contains ``about``.

        Most polls read only the newest page, because the inbox is long.
        """
        looks = 0

        def look() -> bool:
            nonlocal looks
            looks += 1
            newest = self.get("/notifications?limit=20")["notifications"]
            return any(about in each["message"] + each["subject"] for each in newest) or looks % 20 == 0

        def found() -> list[dict[str, Any]]:
            return wait_for(look, f"a notification about {about}") and self.notifications(about, kind)

        return wait_for(found, f"a notification of kind {kind} about {about}")[0]

    def report(self, body: Any = None, **headers: str) -> dict[str, Any]:
        """Requests a report and waits until it ends."""
        return self.ended(self.post("/create_report", body, **headers)["reportId"])

    def ended(self, report_id: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            answer = self.request("GET", f"/reports/{report_id}")
            # On a busy machine, the API may run out of time, and asks its clients to try again.
            if answer.status == 503:
                return None
            assert answer.status == 200, answer.text
            report: dict[str, Any] = answer.json
            return report if report["status"] != "RUNNING" else None

        report = wait_for(look, f"the end of report {report_id}")
        assert report is not None
        return report

    # --- AWS

    def invoke(self, function: str, event: Any) -> tuple[bool, Any]:
        """Invokes a deployed function. Returns whether the function succeeded, and its result or error."""
        answer = self.aws("lambda").invoke(FunctionName=f"cafe-dev-{function}", Payload=json.dumps(event))
        return "FunctionError" not in answer, json.loads(answer["Payload"].read() or "null")

    def call(self, function: str, event: Any) -> Any:
        """Invokes a deployed function that must succeed. Returns its result."""
        ok, result = self.invoke(function, event)
        assert ok, result
        return result

    def publish(self, subject: str, message: str, **attributes: str) -> None:
        """Publishes a notification directly to the SNS topic."""
        values = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
        where = {"TopicArn": self.env["TOPIC_ARN"], "MessageAttributes": values}
        self.aws("sns").publish(**where, Subject=subject, Message=message)

    def upload(self, key: str, body: bytes | str) -> str:
        data = body.encode() if isinstance(body, str) else body
        self.aws("s3").put_object(Bucket=self.env["UPLOADS_BUCKET"], Key=key, Body=data)
        return key

    def role(self, function: str) -> str:
        name = "API" if function == "api" else function.upper()
        return self.env[f"{name}_ROLE_ARN"].rsplit("/", 1)[1]

    def without(self, function: str, action: str) -> AbstractContextManager[None]:
        """Removes ``action`` from the role of the function while the ``with`` block runs."""
        iam = self.aws("iam")
        role = self.role(function)
        policy = iam.list_role_policies(RoleName=role)["PolicyNames"][0]
        document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
        statements = []
        for statement in document["Statement"]:
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            left = [each for each in actions if each != action]
            if left:
                statements.append({**statement, "Action": left})
        reduced = {**document, "Statement": statements}
        assert reduced != document, f"the role of {function} does not have {action}"

        def put(content: Any) -> None:
            iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(content))

        return changed(put, document, reduced)

    # --- MySQL

    @cached_property
    def database(self) -> Database:
        """Returns the database administrator's connection settings. No Lambda function has these permissions."""
        return Database(
            self.env["DB_HOST"],
            int(self.env["DB_PORT"]),
            self.env["DB_NAME"],
            self.env["DB_ADMIN_USER"],
            self.env["DB_ADMIN_PASSWORD"],
        )

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Runs one statement and commits."""
        with connect(self.database) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            connection.commit()
            return list(cursor.fetchall())

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in a shell after ``source .local/env``."""
        line = 'source "$0"; "$@"'
        return subprocess.run(
            ["bash", "-c", line, str(self.stack.folder / "env"), *command],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(Path.home()), **more},
        )


def connect(database: Database) -> Any:
    return pymysql.connect(
        host=database.host,
        port=database.port,
        user=database.user,
        password=database.password,
        database=database.name,
        charset="utf8mb4",
        connect_timeout=5,
        client_flag=pymysql.constants.CLIENT.MULTI_STATEMENTS,
    )


def new_id(prefix: str = "o") -> str:
    """Returns a unique id. Tests share a stack, so a test looks only for its own ids."""
    return f"{prefix}-{secrets.token_hex(5)}"


def logged(system: System, function: str, text: str) -> list[dict[str, Any]]:
    """Returns a function's log records that contain ``text``."""
    pages = (
        system.aws("logs")
        .get_paginator("filter_log_events")
        .paginate(logGroupName=f"/aws/lambda/cafe-dev-{function}", filterPattern=json.dumps(text))
    )
    lines = [line for page in pages for event in page["events"] for line in event["message"].splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{") and text in line]


def stored(system: System, order_id: str) -> dict[str, Any]:
    """Waits until the order is stored and announced, because otherwise it could affect the next test."""

    def look() -> dict[str, Any] | None:
        answer = system.request("GET", f"/orders/{order_id}")
        return answer.json if answer.status == 200 else None

    order = wait_for(look, f"order {order_id}")
    assert order
    system.notification(order_id, "order")
    return order
