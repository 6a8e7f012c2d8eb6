"""Compares the API in ``chalice local`` with minimal Chalice routes that have its authorizer and make its AWS calls.

Also compares sending orders in lists of 100 with sending orders one by one. Each measurement ends when all orders are
in the orders table.
"""

from __future__ import annotations

import cProfile
import http.client
import json
import logging
import os
import pstats
import secrets
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.cloud import client, whole_stack
from benchmarks.compare import ROUNDS, in_turns
from benchmarks.events import ORDER, request
from benchmarks.results import Result
from chalicelib.orders.order import Item, Order
from chalicelib.orders.store import stored_item
from local import chalice_local
from local.api import Api
from local.processes import Process, answers, basic_environment, fingerprint, free_ports
from local.stack import Stack

HERE = Path(__file__).parent
PEER = "smallest Chalice route"
# This is the lowest accepted ratio of a minimal route's time to the time of our route.
GOAL = 0.95
# Number of requests to each route of each server in one round.
REQUESTS = 150
PROFILED_REQUESTS = 200
ORDERS = 300
ORDER_ID = "bench"
# Maps each route to its method, path, body and name in app.py.
ROUTES = {
    "GET /orders/{orderID}": ("GET", f"/orders/{ORDER_ID}", None, "/orders/{order_id}"),
    "POST /orders": ("POST", "/orders", ORDER, "/orders"),
    "POST /create_report": ("POST", "/create_report", {}, "/create_report"),
}


def run() -> Iterator[Result]:
    with whole_stack() as (stack, env), TemporaryDirectory() as folder:
        dynamodb = client(env, "dynamodb")
        order = Order(
            ORDER_ID, "ana", (Item("flat white", 2), Item("croissant", 1)), None, "2026-11-21T03:14:15.123456Z"
        )
        dynamodb.put_item(TableName=env["ORDERS_TABLE"], Item=stored_item(order))
        variables = _without_consumers(stack, env)
        with _our_api(stack, Path(folder), variables) as ours, _minimal_api(Path(folder), variables) as minimal:
            for route in ROUTES:
                share = float(_run_python("-m", "benchmarks.api", route, env=variables))
                yield _latency(route, share, ours, minimal, stack.users.token())
        yield in_turns(
            f"{ORDERS} orders from the API to the table, in lists of 100",
            partial(_place_orders, stack, env, 100),
            "one by one",
            partial(_place_orders, stack, env, 1),
            1.0,
            rounds=3,
        )


def _without_consumers(stack: Stack, env: Mapping[str, str]) -> dict[str, str]:
    """Returns the API's environment variables, but with a queue that nothing reads and a state machine that does
    nothing.
    """
    configuration = json.loads((stack.project / ".chalice" / "config.json").read_text())
    definition = {"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}
    machine = client(env, "stepfunctions").create_state_machine(
        name="nothing", definition=json.dumps(definition), roleArn=env["API_ROLE_ARN"]
    )
    return {
        **configuration["stages"][stack.stage]["environment_variables"],
        **{name: value for name, value in env.items() if name.startswith("AWS_")},
        "ORDERS_QUEUE_URL": client(env, "sqs").create_queue(QueueName="nobody")["QueueUrl"],
        "INVENTORY_REPORT_ARN": machine["stateMachineArn"],
    }


@contextmanager
def _our_api(stack: Stack, folder: Path, variables: dict[str, str]) -> Iterator[int]:
    project = folder / "ours"
    shutil.copytree(stack.project, project, symlinks=True, ignore=shutil.ignore_patterns("deployments", "deployed"))
    path = project / ".chalice" / "config.json"
    configuration = json.loads(path.read_text())
    configuration["stages"][stack.stage]["environment_variables"] = variables
    path.write_text(json.dumps(configuration))
    with _served(project, stack.stage, variables) as port:
        yield port


@contextmanager
def _minimal_api(folder: Path, variables: dict[str, str]) -> Iterator[int]:
    project = folder / "minimal"
    (project / ".chalice").mkdir(parents=True)
    (project / ".chalice" / "config.json").write_text('{"version": "2.0", "app_name": "minimal"}')
    shutil.copy(HERE / "minimal_api.py", project / "app.py")
    (project / "chalicelib").symlink_to(HERE.parent / "chalicelib")
    with _served(project, "dev", variables) as port:
        yield port


@contextmanager
def _served(project: Path, stage: str, variables: dict[str, str]) -> Iterator[int]:
    """Runs ``chalice local`` for the folder ``project``, and yields the server's port."""
    [port] = free_ports(1)
    command = chalice_local.command(project, port, stage)
    process = Process("api", project / "process")
    environment = {**basic_environment(), **variables, "PYTHONPATH": str(HERE.parent)}
    process.start(command, environment, fingerprint(command), port)
    try:
        process.wait(lambda: answers(f"http://127.0.0.1:{port}/health"))
        yield port
    finally:
        process.stop()


def _latency(route: str, own_share: float, ours: int, peers: int, token: str) -> Result:
    """Compares the latencies of the servers on the ports ``ours`` and ``peers``.

    ``own_share`` is the fraction of the request time spent in the project's own code. The rest of the time is spent in
    Chalice and boto3.
    """
    times: dict[int, list[list[float]]] = {ours: [], peers: []}
    for port in times:
        # The first request is not measured, because it creates the AWS clients.
        _request(port, route, token)
    for number in range(ROUNDS):
        seconds: dict[int, list[float]] = {ours: [], peers: []}
        for _ in range(REQUESTS):
            for port in (ours, peers)[:: 1 if number % 2 else -1]:
                seconds[port].append(_request(port, route, token))
        for port, each in seconds.items():
            times[port].append(each)
    ratios = [
        statistics.median(theirs) / statistics.median(own)
        for own, theirs in zip(times[ours], times[peers], strict=True)
    ]
    return Result(
        route,
        f"{_figures(times[ours])}, {own_share:.0%} of it our own code",
        PEER,
        _figures(times[peers]),
        statistics.median(ratios),
        GOAL,
        (min(ratios), max(ratios)),
    )


def _figures(rounds: list[list[float]]) -> str:
    seconds = [each for times in rounds for each in times]
    p99 = statistics.quantiles(seconds, n=100)[98]
    return (
        f"p50 {statistics.median(seconds) * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, "
        f"{1 / statistics.mean(seconds):.0f} requests/s"
    )


def _request(port: int, route: str, token: str) -> float:
    method, path, body, _ = ROUTES[route]
    content = None if body is None else json.dumps(body)
    # Each request uses a new connection, because `chalice local` is 40 ms slower on persistent connections.
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    began = time.perf_counter()
    headers = {"Content-Type": "application/json", "Connection": "close", "Authorization": token}
    connection.request(method, path, content, headers)
    answer = connection.getresponse()
    text = answer.read()
    seconds = time.perf_counter() - began
    connection.close()
    if answer.status not in (200, 202):
        raise AssertionError(f"{route} answered {answer.status}: {text.decode()}")
    return seconds


def _place_orders(stack: Stack, env: Mapping[str, str], at_once: int) -> float:
    api, customer = Api(env["CAFE_API_URL"], stack.users.token), secrets.token_hex(8)
    orders = [{**ORDER, "customerID": customer} for _ in range(ORDERS)]
    began = time.perf_counter()
    for start in range(0, ORDERS, at_once):
        api.post("/orders", orders[start : start + at_once] if at_once > 1 else orders[start])
    query = {
        "TableName": env["ORDERS_TABLE"],
        "IndexName": "byCustomer",
        "Select": "COUNT",
        "KeyConditionExpression": "customerID = :customer",
        "ExpressionAttributeValues": {":customer": {"S": customer}},
    }
    dynamodb, end = client(env, "dynamodb"), began + 120
    while dynamodb.query(**query)["Count"] < ORDERS:
        if time.perf_counter() > end:
            raise TimeoutError(f"{ORDERS} orders were not stored within 120 s")
        time.sleep(0.02)
    return time.perf_counter() - began


# --- The share of our own code ----------------------------------------------------------------------------------------


def _run_python(*arguments: str, env: Mapping[str, str]) -> str:
    environment = basic_environment() | dict(env)
    done = subprocess.run([sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()[-1]


def _own_share(route: str) -> float:
    """Profiles ``PROFILED_REQUESTS`` requests, and returns the fraction of the time spent in the project's own code.

    The fraction includes calls to Python's standard library, but not calls to Chalice and botocore.
    """
    import app

    method, path, body, resource = ROUTES[route]
    event = request(method, resource, path, body, order_id=ORDER_ID)
    # The app writes its logs as usual, but the log output is discarded.
    for handler in logging.getLogger("cafe").handlers:
        handler.setStream(open(os.devnull, "w"))  # type: ignore[attr-defined]  # noqa: SIM115, PTH123
    app.app(event, None)
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(PROFILED_REQUESTS):
        app.app(event, None)
    profile.disable()
    stats = pstats.Stats(profile)
    own = 0.0
    # Each entry contains a function's own time in seconds and, for each caller, the time with nested calls.
    for (file, *_), (_, _, seconds, _, callers) in stats.stats.items():  # type: ignore[attr-defined]
        if _is_ours(file):
            own += seconds
        elif not any(name in file for name in ("chalice", "botocore")):
            own += sum(each[3] for (caller, *_), each in callers.items() if _is_ours(caller))
    return own / stats.total_tt  # type: ignore[attr-defined, no-any-return]


def _is_ours(file: str) -> bool:
    """Returns whether the file belongs to the project.

    The module contextlib counts too, because it runs the project's decorators.
    """
    return "/chalicelib/" in file or (file.endswith(("/app.py", "/contextlib.py")) and "/chalice/" not in file)


if __name__ == "__main__":
    print(_own_share(sys.argv[1]))
