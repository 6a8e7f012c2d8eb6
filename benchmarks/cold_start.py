"""Cold starts: a fresh process, the import of ``app.py``, and its first event done, against ``minimal.py``.

Ours is the deployment package as it is on Lambda, where its own files are not compiled. The minimal one is, as boto3
and Python are there. The time is the process's own, without Python's start, which is the same for both.
"""

from __future__ import annotations

import json
import py_compile
import secrets
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import minimal
from benchmarks.cloud import client, whole_stack
from benchmarks.compare import Row, in_turns
from local.processes import basic_environment
from local.stack import Stack

PEER = "minimal function"
# At most a quarter longer than the minimal function; 80 ms where boto3's import takes 150.
GOAL = 1 / 1.25
IMPORT_GOAL = 150 / 80
TIMED = """
import json, sys, time

class Context:
    aws_request_id, invoked_function_arn = "1", "arn"

    def get_remaining_time_in_millis(self):
        return 900_000

module, handler, event = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
began = time.perf_counter()
imported = __import__(module)
answer = getattr(imported, handler)(event, Context()) if handler else None
print(time.perf_counter() - began)
refused = answer.get("principalId") == "nobody" if isinstance(answer, dict) else False
if isinstance(answer, dict) and (
    refused or answer.get("statusCode", 200) != 200 or answer.get("batchItemFailures")
):
    sys.exit(f"it answers {answer}")
"""
MOMENT = "2026-11-21T03:14:15.123456Z"
KEY = "inventory/cold.csv"
CSV = b"supplier_name,type,product_name,price,description,quantity\nAltura,arabica,Lima,12.50,nutty,7\n"


@dataclass(frozen=True)
class Functions:
    """The functions of a stack, each to be started in a process of its own; ``env`` is that of the stack."""

    stack: Stack
    env: dict[str, str]
    package: Path

    def seconds(self, module: str, function: str = "", event: Any = None) -> float:
        """From the import of ``module``, which is ours or ``minimal``, to the end of the event."""
        configuration = json.loads((self.stack.project / ".chalice" / "config.json").read_text())
        stage = configuration["stages"][self.stack.stage]
        own = stage["lambda_functions"].get(function, {}).get("environment_variables", {})
        aws = {name: value for name, value in self.env.items() if name.startswith("AWS_")}
        # Nothing is compiled but what is compiled already: Lambda's code is in a folder that cannot be written to.
        python = {"PYTHONPATH": str(self.package), "PYTHONDONTWRITEBYTECODE": "1"}
        # What the subscribers do with a message is no part of the function's start.
        variables = {**stage["environment_variables"], **own, **aws, **python, "TOPIC_ARN": self.env["NOBODY"]}
        handler = "app" if (module, function) == ("app", "api_handler") else function
        done = subprocess.run(
            [sys.executable, "-c", TIMED, module, handler, json.dumps(event)],
            env=basic_environment() | variables,
            cwd=self.package,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"{module}.{function} failed:\n{done.stderr}")
        return float(done.stdout.splitlines()[-1])


def run() -> Iterator[Row]:
    with whole_stack() as (stack, env), TemporaryDirectory() as folder:
        env["NOBODY"] = client(env, "sns").create_topic(Name="nobody")["TopicArn"]
        s3 = client(env, "s3")
        s3.put_object(Bucket=env["UPLOADS_BUCKET"], Key=KEY, Body=CSV)
        etag = s3.head_object(Bucket=env["UPLOADS_BUCKET"], Key=KEY)["ETag"].strip('"')
        start = Functions(stack, env, _package(stack, Path(folder))).seconds
        yield in_turns(
            "import of app.py", partial(start, "app"), "import of boto3", partial(start, "boto3"), IMPORT_GOAL
        )
        # What is read by those that come later.
        start("app", "store_orders", _orders("cold"))
        start("app", "read_inventory", {"reportId": "cold"})
        report = {"reportId": "cold", "csvKey": "inventory/cold/inventory.csv", "generatedAt": MOMENT}
        events: dict[str, Callable[[], Any]] = {
            "api_handler": _get_order,
            "authorize": partial(_bearer, stack.users.token()),
            "store_orders": lambda: _orders(secrets.token_hex(8)),
            "announce_orders": _stream,
            "receive_upload": partial(_upload, etag),
            "record_notification": _message,
            "record_alarm": _message,
            "read_inventory": lambda: report,
            "render_report": lambda: report,
            "presign_report": lambda: report,
            "measure_buckets": dict,
        }
        for function, event in events.items():
            ours, peers = (partial(_start, start, module, function, event) for module in ("app", "minimal"))
            # A round that does not count.
            ours(), peers()
            yield in_turns(f"cold start of {function}", ours, PEER, peers, GOAL)


def _start(start: Callable[..., float], module: str, function: str, event: Callable[[], Any]) -> float:
    return start(module, function, event())


def _package(stack: Stack, folder: Path) -> Path:
    """The deployment package in a folder, as Lambda has it, with the minimal functions beside it."""
    [package] = (stack.project / ".chalice" / "deployments").glob("*.zip")
    with zipfile.ZipFile(package) as opened:
        opened.extractall(folder)
    py_compile.compile(str(shutil.copy(minimal.__file__, folder)))
    return folder


# --- One event of each kind, as AWS sends it --------------------------------------------------------------------------


def _get_order() -> dict[str, Any]:
    return {
        "resource": "/orders/{order_id}",
        "path": "/orders/cold",
        "pathParameters": {"order_id": "cold"},
        "requestContext": {"httpMethod": "GET", "resourcePath": "/orders/{order_id}", "path": "/api/orders/cold"},
        "headers": {"host": "cafe.example", "accept": "*/*"},
        "multiValueQueryStringParameters": None,
        "stageVariables": None,
        "isBase64Encoded": False,
        "body": None,
    }


def _bearer(token: str) -> dict[str, Any]:
    arn = "arn:aws:execute-api:us-east-1:000000000000:a1b2c3/api/GET/orders"
    return {"type": "TOKEN", "authorizationToken": token, "methodArn": arn}


def _orders(order_id: str) -> dict[str, Any]:
    order = {
        "orderID": order_id,
        "customerID": "ana",
        "items": [{"item": "Lima", "quantity": 2}],
        "note": None,
        "placedAt": MOMENT,
    }
    return {
        "Records": [
            {
                "messageId": order_id,
                "receiptHandle": order_id,
                "body": json.dumps(order),
                "attributes": {"ApproximateReceiveCount": "1"},
                "eventSource": "aws:sqs",
            }
        ]
    }


def _stream() -> dict[str, Any]:
    change = {
        "ApproximateCreationDateTime": time.time(),
        "Keys": {"orderID": {"S": "cold"}},
        "NewImage": {"orderID": {"S": "cold"}, "customerID": {"S": "ana"}},
        "SequenceNumber": "1",
    }
    return {"Records": [{"eventID": secrets.token_hex(16), "eventName": "INSERT", "dynamodb": change}]}


def _upload(etag: str) -> dict[str, Any]:
    # Each is newer than the one before, and none changes a row.
    stored = {"key": KEY, "size": len(CSV), "eTag": etag, "sequencer": f"{time.time_ns():X}"}
    record = {"eventName": "ObjectCreated:Put", "eventTime": MOMENT, "s3": {"object": stored}}
    return {"Records": [record]}


def _message() -> dict[str, Any]:
    sns = {"MessageId": secrets.token_hex(16), "Timestamp": MOMENT, "Subject": "1 new order", "Message": "1 new order"}
    return {"Records": [{"Sns": sns}]}
