"""Measures the processor time and the waiting time of warm functions on a separate stack."""

from __future__ import annotations

import json
import logging
import os
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cloud import client, whole_stack
from benchmarks.events import MOMENT, ORDER, Context, new_ids, notification, queued_orders, request, stored_orders
from benchmarks.inventory import fill
from chalicelib import settings

ROUNDS = 15


def measure(path: Path) -> None:
    """Writes each function's ``[processor, waiting]`` seconds per event, and the size of each report's CSV file."""
    with whole_stack() as (stack, env):
        stage = json.loads((stack.project / ".chalice" / "config.json").read_text())["stages"][stack.stage]
        own = stage["lambda_functions"]["read_inventory"].get("environment_variables", {})
        # The topic and the queue have no consumers, because the work of consumers would be measured too.
        without_consumers = {
            "TOPIC_ARN": client(env, "sns").create_topic(Name="nobody")["TopicArn"],
            "ORDERS_QUEUE_URL": client(env, "sqs").create_queue(QueueName="nobody")["QueueUrl"],
        }
        aws = {name: value for name, value in env.items() if name.startswith("AWS_")}
        os.environ |= {**stage["environment_variables"], **own, **aws, **without_consumers}
        import app

        # The app writes its logs as usual, but the log output is discarded.
        for handler in logging.getLogger("cafe").handlers:
            handler.setStream(open(os.devnull, "w"))  # type: ignore[attr-defined]  # noqa: SIM115, PTH123
        seconds: dict[str, list[float]] = {}
        for size in (1, 100):
            seconds[f"api_handler {size}"] = _median(app.app, partial(_api_request, size))
            seconds[f"store_orders {size}"] = _median(app.store_orders, partial(_new_orders, size))
            seconds[f"announce_orders {size}"] = _median(app.announce_orders, partial(stored_orders, size))
            seconds[f"record_notification {size}"] = _median(app.record_notification, partial(notification, size))
        database = settings.Database(
            env["DB_HOST"], int(env["DB_PORT"]), env["DB_NAME"], env["DB_ADMIN_USER"], env["DB_ADMIN_PASSWORD"]
        )
        report = {"reportId": "money", "csvKey": "inventory/money/inventory.csv", "generatedAt": MOMENT}
        csv_bytes = {}
        for rows in (1_000, 100_000):
            fill(database, rows)
            seconds[f"read_inventory {rows}"] = _median(app.read_inventory, lambda: report, 5)
            seconds[f"render_report {rows}"] = _median(app.render_report, lambda: report, 5)
            head = client(env, "s3").head_object(Bucket=env["REPORTS_BUCKET"], Key=report["csvKey"])
            csv_bytes[str(rows)] = head["ContentLength"]
        seconds["presign_report"] = _median(app.presign_report, lambda: report)
    content = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "seconds": seconds, "csv_bytes": csv_bytes}
    path.write_text(json.dumps(content, indent=2) + "\n")


def _median(function: Callable[..., Any], event: Callable[[], Any], rounds: int = ROUNDS) -> list[float]:
    """Returns the median ``[processor, waiting]`` seconds of a function.

    The first call is ignored, because it creates the AWS clients.
    """
    times = []
    for _ in range(rounds + 1):
        argument = event()
        began, used = time.perf_counter(), time.process_time()
        answer = function(argument, Context())
        used, seconds = time.process_time() - used, time.perf_counter() - began
        if isinstance(answer, dict) and (answer.get("statusCode", 200) > 202 or answer.get("batchItemFailures")):
            raise AssertionError(f"the function answered {answer}")
        # The processor time can exceed the elapsed time, because a function's threads may use several processors.
        times.append((used, max(0.0, seconds - used)))
    return [round(statistics.median(each), 6) for each in zip(*times[1:], strict=True)]


def _new_orders(size: int) -> dict[str, Any]:
    return queued_orders(*new_ids(size))


def _api_request(size: int) -> dict[str, Any]:
    return request("POST", "/orders", "/orders", ORDER if size == 1 else [ORDER] * size)
