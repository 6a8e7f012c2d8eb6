"""How long the functions that cost money take when they are warm: processor and waiting, on a stack of its own."""

from __future__ import annotations

import json
import logging
import os
import secrets
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.api import ORDER
from benchmarks.cloud import client, whole_stack
from benchmarks.inventory import _fill
from chalicelib import settings

ROUNDS = 15
MOMENT = "2026-11-21T03:14:15.123456Z"


class Context:
    """Lambda's own, as far as the functions ask for it."""

    aws_request_id, invoked_function_arn = "1", "arn"

    def get_remaining_time_in_millis(self) -> int:
        return 900_000


def measure(path: Path) -> None:
    """Writes ``[processor, waiting]`` seconds of each function and event, and the size of the reports' CSV."""
    with whole_stack() as (stack, env):
        stage = json.loads((stack.project / ".chalice" / "config.json").read_text())["stages"][stack.stage]
        own = stage["lambda_functions"]["read_inventory"].get("environment_variables", {})
        # What follows of a message or of an order would be measured with it.
        nobody = {
            "TOPIC_ARN": client(env, "sns").create_topic(Name="nobody")["TopicArn"],
            "ORDERS_QUEUE_URL": client(env, "sqs").create_queue(QueueName="nobody")["QueueUrl"],
        }
        aws = {name: value for name, value in env.items() if name.startswith("AWS_")}
        os.environ |= {**stage["environment_variables"], **own, **aws, **nobody}
        import app

        # Written as always, and read by nobody.
        for handler in logging.getLogger("cafe").handlers:
            handler.setStream(open(os.devnull, "w"))  # type: ignore[attr-defined]  # noqa: SIM115, PTH123
        seconds: dict[str, list[float]] = {}
        for size in (1, 100):
            seconds[f"api_handler {size}"] = _median(app.app, partial(_request, size))
            seconds[f"store_orders {size}"] = _median(app.store_orders, partial(_messages, size))
            seconds[f"announce_orders {size}"] = _median(app.announce_orders, partial(_stream, size))
            seconds[f"record_notification {size}"] = _median(app.record_notification, partial(_message, size))
        database = settings.Database(
            env["DB_HOST"], int(env["DB_PORT"]), env["DB_NAME"], env["DB_ADMIN_USER"], env["DB_ADMIN_PASSWORD"]
        )
        report = {"reportId": "money", "csvKey": "inventory/money/inventory.csv", "generatedAt": MOMENT}
        csv_bytes = {}
        for rows in (1_000, 100_000):
            _fill(database, rows)
            seconds[f"read_inventory {rows}"] = _median(app.read_inventory, lambda: report, 5)
            seconds[f"render_report {rows}"] = _median(app.render_report, lambda: report, 5)
            head = client(env, "s3").head_object(Bucket=env["REPORTS_BUCKET"], Key=report["csvKey"])
            csv_bytes[str(rows)] = head["ContentLength"]
        seconds["presign_report"] = _median(app.presign_report, lambda: report)
    found = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "seconds": seconds, "csv_bytes": csv_bytes}
    path.write_text(json.dumps(found, indent=2) + "\n")


def _median(function: Callable[..., Any], event: Callable[[], Any], rounds: int = ROUNDS) -> list[float]:
    """After a first call that makes the clients, and that does not count."""
    found = []
    for _ in range(rounds + 1):
        given = event()
        began, used = time.perf_counter(), time.process_time()
        answer = function(given, Context())
        used, seconds = time.process_time() - used, time.perf_counter() - began
        if isinstance(answer, dict) and (answer.get("statusCode", 200) > 202 or answer.get("batchItemFailures")):
            raise AssertionError(answer)
        # The threads of a function may use more than one processor.
        found.append((used, max(0.0, seconds - used)))
    return [round(statistics.median(each), 6) for each in zip(*found[1:], strict=True)]


def _request(size: int) -> dict[str, Any]:
    return {
        "resource": "/orders",
        "path": "/orders",
        "pathParameters": None,
        "requestContext": {"httpMethod": "POST", "resourcePath": "/orders", "path": "/api/orders"},
        "headers": {"content-type": "application/json", "host": "cafe.example"},
        "multiValueQueryStringParameters": None,
        "stageVariables": None,
        "isBase64Encoded": False,
        "body": json.dumps(ORDER if size == 1 else [ORDER] * size),
    }


def _messages(size: int) -> dict[str, Any]:
    ids = [secrets.token_urlsafe(16) for _ in range(size)]
    return {
        "Records": [
            {
                "messageId": order_id,
                "receiptHandle": order_id,
                "body": json.dumps({**ORDER, "orderID": order_id, "note": None, "placedAt": MOMENT}),
                "attributes": {"ApproximateReceiveCount": "1"},
                "eventSource": "aws:sqs",
            }
            for order_id in ids
        ]
    }


def _stream(size: int) -> dict[str, Any]:
    changes = [
        {
            "ApproximateCreationDateTime": time.time(),
            "Keys": {"orderID": {"S": secrets.token_urlsafe(16)}},
            "NewImage": {"customerID": {"S": "ana"}},
            "SequenceNumber": str(number),
        }
        for number in range(size)
    ]
    return {
        "Records": [{"eventID": secrets.token_hex(16), "eventName": "INSERT", "dynamodb": each} for each in changes]
    }


def _message(size: int) -> dict[str, Any]:
    text = "\n".join(f"- order {secrets.token_urlsafe(16)} of customer ana" for _ in range(size))
    sns = {"MessageId": secrets.token_hex(16), "Timestamp": MOMENT, "Subject": "new orders", "Message": text}
    return {"Records": [{"Sns": sns}]}
