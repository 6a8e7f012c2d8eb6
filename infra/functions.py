"""Lists the functions in ``app.py`` and their settings.

The roles, log groups and alarms of the functions are generated from this list. After a change, run ``python -m
infra.functions`` to update ``.chalice/config.json``. ``infra/template.py`` generates each function's CloudFormation
resources, and ``infra/deploy/`` applies the settings that Chalice does not support. The deployment package does not
contain this module, so ``chalicelib`` must not import it. ``tests/wiring/test_functions.py`` compares this list with
``app.py``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

CONFIG = Path(__file__).parents[1] / ".chalice" / "config.json"


class Trigger(Enum):
    """The services and events that can invoke a function."""

    API = "the API's routes"
    AUTHORIZER = "API Gateway, before a route"
    QUEUE = "an SQS queue"
    STREAM = "a DynamoDB stream"
    BUCKET = "S3, for each new object"
    TOPIC = "an SNS topic"
    MACHINE = "a state machine"
    DEPLOY = "the deploy"
    ROTATION = "Secrets Manager"


class Mysql(Enum):
    """The MySQL secrets that a function can read."""

    NONE = "none"
    USER = "the functions' secret"
    ADMINISTRATOR = "the functions' secret and the administrator's secret"


@dataclass(frozen=True)
class Function:
    """A Lambda function. ``name`` is the function's name in ``app.py``.

    All API routes share the name ``api_handler``.

    ``source`` is the name of the stack output that contains the ARN or name of the trigger. ``timeout`` is in seconds.
    Callers do not wait for the result of an ``asynchronous`` function. ``dead_letter`` is the kind of dead letter that
    results from a failed event. The template parameter MysqlConcurrency sets the reserved concurrency of each
    ``limited`` function.
    """

    name: str
    trigger: Trigger
    source: str = ""
    timeout: int = 30
    memory: int = 256
    mysql: Mysql = Mysql.NONE
    limited: bool = False
    asynchronous: bool = False
    dead_letter: str = ""
    # Calls that take longer than this many seconds count as slow. The default is 80 % of the timeout.
    slow_from: float = 0

    @property
    def suffix(self) -> str:
        """The part of the function's name on AWS that follows ``cafe-<stage>``."""
        return "" if self.name == "api_handler" else f"-{self.name}"

    @property
    def logical_id(self) -> str:
        """The prefix of the logical ids of the function's resources in CloudFormation."""
        return "Api" if self.name == "api_handler" else self.name.title().replace("_", "")

    @property
    def slow_seconds(self) -> float:
        return self.slow_from or self.timeout * 0.8

    @property
    def works_daily(self) -> bool:
        return self.trigger not in (Trigger.DEPLOY, Trigger.ROTATION)


FUNCTIONS = (
    # API Gateway waits at most 29 seconds for a response.
    Function("api_handler", Trigger.API, timeout=29),
    Function("authorize", Trigger.AUTHORIZER, timeout=10, memory=512),
    Function("store_orders", Trigger.QUEUE, "ORDERS_QUEUE_ARN", dead_letter="order"),
    # The DynamoDB stream invokes `announce_orders` synchronously, but a redrive of dead letters invokes it
    # asynchronously.
    Function(
        "announce_orders",
        Trigger.STREAM,
        "ORDERS_STREAM_ARN",
        timeout=60,
        asynchronous=True,
        dead_letter="announcement",
    ),
    Function(
        "receive_upload",
        Trigger.BUCKET,
        "UPLOADS_BUCKET",
        timeout=300,
        memory=512,
        mysql=Mysql.USER,
        limited=True,
        asynchronous=True,
        dead_letter="upload",
    ),
    Function("record_notification", Trigger.TOPIC, "TOPIC_ARN", asynchronous=True, dead_letter="notification"),
    Function("record_alarm", Trigger.TOPIC, "ALARMS_TOPIC_ARN", asynchronous=True, dead_letter="alarm"),
    Function("retry_failures", Trigger.QUEUE, "RETRIES_QUEUE_ARN", timeout=60),
    Function(
        "read_inventory",
        Trigger.MACHINE,
        "INVENTORY_REPORT_ARN",
        timeout=300,
        memory=512,
        mysql=Mysql.USER,
        limited=True,
    ),
    Function("render_report", Trigger.MACHINE, "INVENTORY_REPORT_ARN", timeout=300, memory=512),
    Function("presign_report", Trigger.MACHINE, "INVENTORY_REPORT_ARN"),
    # `measure_buckets` stops measuring 30 seconds before its timeout.
    Function("measure_buckets", Trigger.MACHINE, "STORAGE_REPORT_ARN", timeout=900, memory=1769, slow_from=890),
    Function("migrate", Trigger.DEPLOY, timeout=900, mysql=Mysql.ADMINISTRATOR),
    Function("rotate_password", Trigger.ROTATION, timeout=120, mysql=Mysql.ADMINISTRATOR),
)

BY_NAME = {function.name: function for function in FUNCTIONS}
NAMES = tuple(BY_NAME)
MYSQL_USERS = tuple(function.name for function in FUNCTIONS if function.mysql is not Mysql.NONE)
MYSQL_ADMINISTRATORS = tuple(function.name for function in FUNCTIONS if function.mysql is Mysql.ADMINISTRATOR)
LIMITED = tuple(function.name for function in FUNCTIONS if function.limited)
ASYNCHRONOUS = tuple(function.name for function in FUNCTIONS if function.asynchronous)


def sources(*triggers: Trigger) -> dict[str, str]:
    """Returns the ``source`` of each function that has one of these triggers, keyed by function name."""
    return {function.name: function.source for function in FUNCTIONS if function.trigger in triggers}


def chalice_settings() -> dict[str, Any]:
    """Returns the settings of the functions for Chalice's configuration.

    Chalice applies the app-wide settings to the API.
    """
    api = BY_NAME["api_handler"]
    functions: dict[str, dict[str, int]] = {}
    for function in FUNCTIONS:
        if function is not api:
            memory = {} if function.memory == api.memory else {"lambda_memory_size": function.memory}
            functions[function.name] = {**memory, "lambda_timeout": function.timeout}
    return {"lambda_memory_size": api.memory, "lambda_timeout": api.timeout, "lambda_functions": functions}


def config_text() -> str:
    """Returns the updated text of ``.chalice/config.json``, with one line for each function."""
    config = {**json.loads(CONFIG.read_text()), **chalice_settings()}
    functions = config.pop("lambda_functions")
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in config.items()]
    rows = ",\n".join(f"    {json.dumps(name)}: {json.dumps(settings)}" for name, settings in functions.items())
    return "\n".join(["{", *lines, '  "lambda_functions": {', rows, "  }", "}"]) + "\n"


if __name__ == "__main__":
    CONFIG.write_text(config_text())
