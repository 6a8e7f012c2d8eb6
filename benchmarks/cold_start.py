"""Compares the cold starts of the functions with those of the minimal functions in ``minimal.py``.

For a cold start, a new process imports the code and handles its first event. All code runs from the deployment package
with its bytecode, as on Lambda. The measured time excludes the start of Python, which is the same for all functions.

The benchmark also compares the processor time of each function's imports with and without bytecode in the package.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import minimal
from benchmarks.cloud import client, whole_stack
from benchmarks.compare import in_turns
from benchmarks.events import MOMENT, failures, notification, queued_orders, request, stored_orders
from benchmarks.results import Result
from infra.deploy.package import compile_all
from infra.functions import NAMES
from local.processes import basic_environment
from local.stack import Stack

PEER = "minimal function"
# Bytecode must shorten the imports of each function to 65 %.
PLAIN, BYTECODE_GOAL = "package without bytecode", 1 / 0.65
# These are the lowest accepted ratios of the peer's time to ours. The peers are the minimal function and the import of
# boto3.
GOAL = 0.95
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
files = {name: getattr(each, "__file__", None) or "" for name, each in list(sys.modules.items())}
print(json.dumps([name for name, file in files.items() if file.startswith(sys.argv[4])]))
denied = answer.get("principalId") == "nobody" if isinstance(answer, dict) else False
if isinstance(answer, dict) and (
    denied or answer.get("statusCode", 200) != 200 or answer.get("batchItemFailures")
):
    sys.exit(f"the function answered {answer}")
"""
IMPORTED = """
import sys, time

began = time.process_time()
for module in sys.argv[1:]:
    __import__(module)
print(time.process_time() - began)
"""
KEY = "inventory/cold.csv"
CSV = b"supplier_name,type,product_name,price,description,quantity\nAltura,arabica,Lima,12.50,nutty,7\n"


@dataclass(frozen=True)
class Functions:
    """Runs each of a stack's functions in a new process. ``env`` contains the stack's environment variables."""

    stack: Stack
    env: dict[str, str]
    package: Path

    def seconds(self, module: str, function: str = "", event: Any = None) -> float:
        """Returns the total seconds for importing ``module`` and handling ``event``."""
        return float(self._run(module, function, event)[0])

    def variables(self, function: str) -> dict[str, str]:
        """Returns the environment variables of a function."""
        stage = stage_configuration(self.stack)
        own = stage["lambda_functions"].get(function, {}).get("environment_variables", {})
        aws = {name: value for name, value in self.env.items() if name.startswith("AWS_")}
        # The topic has no subscribers, because their work is not part of a function's cold start.
        return {**stage["environment_variables"], **own, **aws, "TOPIC_ARN": self.env["NOBODY"]}

    def modules(self, function: str, event: Any) -> list[str]:
        """Returns the modules in the package that a function imports, in the order of their imports."""
        modules: list[str] = json.loads(self._run("app", function, event)[1])
        return modules

    def _run(self, module: str, function: str, event: Any) -> list[str]:
        # Python must not write compiled files, because the folder with the code is read-only on Lambda.
        python = {"PYTHONPATH": str(self.package), "PYTHONDONTWRITEBYTECODE": "1"}
        handler = "app" if (module, function) == ("app", "api_handler") else function
        done = subprocess.run(
            [sys.executable, "-c", TIMED, module, handler, json.dumps(event), str(self.package)],
            env=basic_environment() | self.variables(function) | python,
            cwd=self.package,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"{module}.{function} failed:\n{done.stderr}")
        return done.stdout.splitlines()[-2:]


def imports(package: Path, variables: Mapping[str, str], modules: Sequence[str]) -> float:
    """Returns the processor time for importing these modules in a new process."""
    environment = {**basic_environment(), **variables, "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", IMPORTED, *modules]
    return float(subprocess.check_output(command, env=environment, cwd=package))


def stage_configuration(stack: Stack) -> dict[str, Any]:
    configuration = json.loads((stack.project / ".chalice" / "config.json").read_text())
    stage: dict[str, Any] = configuration["stages"][stack.stage]
    return stage


def run() -> Iterator[Result]:
    with whole_stack() as (stack, env), TemporaryDirectory() as plain, TemporaryDirectory() as folder:
        env["NOBODY"] = client(env, "sns").create_topic(Name="nobody")["TopicArn"]
        s3 = client(env, "s3")
        s3.put_object(Bucket=env["UPLOADS_BUCKET"], Key=KEY, Body=CSV)
        etag = s3.head_object(Bucket=env["UPLOADS_BUCKET"], Key=KEY)["ETag"].strip('"')
        for each in (plain, folder):
            _unpack(stack, Path(each))
        compile_all(Path(folder))
        functions = Functions(stack, env, Path(folder))
        start = functions.seconds
        yield in_turns(
            "import of app.py", partial(start, "app"), "import of boto3", partial(start, "boto3"), IMPORT_GOAL
        )
        # The next two calls create an order and a CSV file for the functions measured below.
        start("app", "store_orders", queued_orders("cold"))
        start("app", "read_inventory", {"reportId": "cold"})
        report = {"reportId": "cold", "csvKey": "inventory/cold/inventory.csv", "generatedAt": MOMENT}
        events: dict[str, Callable[[], Any]] = {
            "api_handler": lambda: request("GET", "/orders/{order_id}", "/orders/cold", order_id="cold"),
            "authorize": partial(_bearer, stack.users.token()),
            "store_orders": lambda: queued_orders(secrets.token_hex(8)),
            "announce_orders": stored_orders,
            "receive_upload": partial(_upload, etag),
            "record_notification": notification,
            "record_alarm": notification,
            "retry_failures": failures,
            "read_inventory": lambda: report,
            "render_report": lambda: report,
            "presign_report": lambda: report,
            "measure_buckets": dict,
            "migrate": dict,
            "rotate_password": partial(_rotation, stack, client(env, "secretsmanager")),
        }
        assert events.keys() == set(NAMES)
        variables = functions.variables("api_handler")
        for function, event in events.items():
            modules = functions.modules(function, event())
            times = [partial(imports, Path(each), variables, modules) for each in (folder, plain)]
            yield in_turns(f"imports of {function}", times[0], PLAIN, times[1], BYTECODE_GOAL)
        for function, event in events.items():
            ours, peers = (partial(_start, start, module, function, event) for module in ("app", "minimal"))
            # The first round is not measured, because it warms up the machine.
            ours(), peers()
            yield in_turns(f"cold start of {function}", ours, PEER, peers, GOAL)


def _start(start: Callable[..., float], module: str, function: str, event: Callable[[], Any]) -> float:
    return start(module, function, event())


def _unpack(stack: Stack, folder: Path) -> None:
    """Unpacks the deployment package, as Lambda does, and adds the minimal functions to the same folder."""
    [package] = (stack.project / ".chalice" / "deployments").glob("*.zip")
    with zipfile.ZipFile(package) as opened:
        opened.extractall(folder)
    shutil.copy(minimal.__file__, folder)


# --- Further events ---------------------------------------------------------------------------------------------------


def _bearer(token: str) -> dict[str, Any]:
    arn = "arn:aws:execute-api:us-east-1:000000000000:a1b2c3/api/GET/orders"
    return {"type": "TOKEN", "authorizationToken": token, "methodArn": arn}


def _rotation(stack: Stack, secrets_manager: Any) -> dict[str, Any]:
    """Returns the event of the rotation step that tests the new password, which here is the current password."""
    environment = stage_configuration(stack)["lambda_functions"]["rotate_password"]["environment_variables"]
    secret, version = environment["DB_SECRET_ARN"], "0" * 32
    current = secrets_manager.get_secret_value(SecretId=secret)["SecretString"]
    stages = {"ClientRequestToken": version, "VersionStages": ["AWSPENDING"]}
    secrets_manager.put_secret_value(SecretId=secret, SecretString=current, **stages)
    return {"SecretId": secret, "ClientRequestToken": version, "Step": "testSecret"}


def _upload(etag: str) -> dict[str, Any]:
    # Every event describes a newer upload than the previous event, but no upload changes a row.
    stored = {"key": KEY, "size": len(CSV), "eTag": etag, "sequencer": f"{time.time_ns():X}"}
    record = {"eventName": "ObjectCreated:Put", "eventTime": MOMENT, "s3": {"object": stored}}
    return {"Records": [record]}
