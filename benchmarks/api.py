"""The API under ``chalice local``, against the smallest Chalice routes that make the same calls, in ``minimal_api.py``.

And orders from end to end: sent in lists of 100, against one by one, until all of them are in the table.
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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.cloud import client, whole_stack
from benchmarks.compare import ROUNDS, Row, in_turns
from chalicelib.orders.order import Item, Order
from chalicelib.orders.store import stored_item
from local import chalice_local
from local.api import Api
from local.processes import Process, answers, basic_environment, fingerprint, free_ports
from local.stack import Stack

HERE = Path(__file__).parent
PEER = "smallest Chalice route"
# At most a quarter slower than the smallest one.
GOAL = 1 / 1.25
# Of each route in each round, one of ours and one of the peer's in turns.
REQUESTS = 50
PROFILED = 200
ORDERS = 300
ORDER_ID = "bench"
ORDER = {"customerID": "ana", "items": [{"item": "flat white", "quantity": 2}, {"item": "croissant", "quantity": 1}]}
# The method, the path, what is sent, and the route as app.py names it.
ROUTES = {
    "GET /orders/{orderID}": ("GET", f"/orders/{ORDER_ID}", None, "/orders/{order_id}"),
    "POST /orders": ("POST", "/orders", ORDER, "/orders"),
    "POST /create_report": ("POST", "/create_report", {}, "/create_report"),
}


@dataclass(frozen=True)
class Latency:
    """A line of the table for a route: ``ours`` and ``peers`` are the seconds of each request, in rounds.

    ``share`` is how much of a request's time within the app is the system's own code; the rest is Chalice and boto3.
    """

    route: str
    share: float
    ours: list[list[float]]
    peers: list[list[float]]

    def __str__(self) -> str:
        ratios = [
            statistics.median(theirs) / statistics.median(own)
            for own, theirs in zip(self.ours, self.peers, strict=True)
        ]
        return (
            f"| {self.route} | {_figures(self.ours)}, {self.share:.0%} of it our own code | {PEER} "
            f"| {_figures(self.peers)} | {statistics.median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f} "
            f"| {GOAL:.2f} |"
        )


def _figures(rounds: list[list[float]]) -> str:
    seconds = [each for times in rounds for each in times]
    p99 = statistics.quantiles(seconds, n=100)[98]
    return (
        f"p50 {statistics.median(seconds) * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, "
        f"{1 / statistics.mean(seconds):.0f} requests/s"
    )


def run() -> Iterator[Latency | Row]:
    with whole_stack() as (stack, env), TemporaryDirectory() as folder:
        dynamodb = client(env, "dynamodb")
        order = Order(
            ORDER_ID, "ana", (Item("flat white", 2), Item("croissant", 1)), None, "2026-11-21T03:14:15.123456Z"
        )
        dynamodb.put_item(TableName=env["ORDERS_TABLE"], Item=stored_item(order))
        variables = _without_consumers(stack, env)
        with _ours(stack, Path(folder), variables) as ours, _minimal(Path(folder), variables) as minimal:
            for route in ROUTES:
                share = float(_python("-m", "benchmarks.api", route, env=variables))
                yield _latency(route, share, ours, minimal, stack.users.token())
        yield in_turns(
            f"{ORDERS} orders from the API to the table, in lists of 100",
            partial(_placed, stack, env, 100),
            "one by one",
            partial(_placed, stack, env, 1),
            1.0,
            rounds=3,
        )


def _without_consumers(stack: Stack, env: Mapping[str, str]) -> dict[str, str]:
    """The environment of the API, with a queue and a state machine of which nothing follows that would disturb."""
    configuration = json.loads((stack.project / ".chalice" / "config.json").read_text())
    machine = {"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}
    made = client(env, "stepfunctions").create_state_machine(
        name="nothing", definition=json.dumps(machine), roleArn=env["API_ROLE_ARN"]
    )
    return {
        **configuration["stages"][stack.stage]["environment_variables"],
        **{name: value for name, value in env.items() if name.startswith("AWS_")},
        "ORDERS_QUEUE_URL": client(env, "sqs").create_queue(QueueName="nobody")["QueueUrl"],
        "INVENTORY_REPORT_ARN": made["stateMachineArn"],
    }


@contextmanager
def _ours(stack: Stack, folder: Path, variables: dict[str, str]) -> Iterator[int]:
    project = folder / "ours"
    shutil.copytree(stack.project, project, symlinks=True, ignore=shutil.ignore_patterns("deployments", "deployed"))
    path = project / ".chalice" / "config.json"
    configuration = json.loads(path.read_text())
    configuration["stages"][stack.stage]["environment_variables"] = variables
    path.write_text(json.dumps(configuration))
    with _served(project, stack.stage, variables) as port:
        yield port


@contextmanager
def _minimal(folder: Path, variables: dict[str, str]) -> Iterator[int]:
    project = folder / "minimal"
    (project / ".chalice").mkdir(parents=True)
    (project / ".chalice" / "config.json").write_text('{"version": "2.0", "app_name": "minimal"}')
    shutil.copy(HERE / "minimal_api.py", project / "app.py")
    with _served(project, "dev", variables) as port:
        yield port


@contextmanager
def _served(project: Path, stage: str, variables: dict[str, str]) -> Iterator[int]:
    """``chalice local`` of the project, on the port that this gives."""
    [port] = free_ports(1)
    command = chalice_local.command(project, port, stage)
    process = Process("api", project / "process")
    process.start(command, basic_environment() | variables, fingerprint(command), port)
    try:
        process.wait(lambda: answers(f"http://127.0.0.1:{port}/health"))
        yield port
    finally:
        process.stop()


def _latency(route: str, share: float, ours: int, peers: int, token: str) -> Latency:
    times: dict[int, list[list[float]]] = {ours: [], peers: []}
    for port in times:
        # The first one makes the clients.
        _request(port, route, token)
    for number in range(ROUNDS):
        found: dict[int, list[float]] = {ours: [], peers: []}
        for _ in range(REQUESTS):
            for port in (ours, peers)[:: 1 if number % 2 else -1]:
                found[port].append(_request(port, route, token))
        for port, seconds in found.items():
            times[port].append(seconds)
    return Latency(route, share, times[ours], times[peers])


def _request(port: int, route: str, token: str) -> float:
    method, path, body, _ = ROUTES[route]
    sent = None if body is None else json.dumps(body)
    # A connection for each: on a kept one `chalice local` waits 40 ms for the client's acknowledgement of the headers.
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    began = time.perf_counter()
    headers = {"Content-Type": "application/json", "Connection": "close", "Authorization": token}
    connection.request(method, path, sent, headers)
    answer = connection.getresponse()
    text = answer.read()
    seconds = time.perf_counter() - began
    connection.close()
    if answer.status not in (200, 202):
        raise AssertionError(f"{route}: {answer.status} {text!r}")
    return seconds


def _placed(stack: Stack, env: Mapping[str, str], at_once: int) -> float:
    api, customer = Api(env["CAFE_API_URL"], stack.users.token), secrets.token_hex(8)
    orders = [{**ORDER, "customerID": customer} for _ in range(ORDERS)]
    began = time.perf_counter()
    for start in range(0, ORDERS, at_once):
        api.post("/orders", orders[start : start + at_once] if at_once > 1 else orders[start])
    wanted = {
        "TableName": env["ORDERS_TABLE"],
        "IndexName": "byCustomer",
        "Select": "COUNT",
        "KeyConditionExpression": "customerID = :customer",
        "ExpressionAttributeValues": {":customer": {"S": customer}},
    }
    dynamodb, end = client(env, "dynamodb"), began + 120
    while dynamodb.query(**wanted)["Count"] < ORDERS:
        if time.perf_counter() > end:
            raise TimeoutError(f"{ORDERS} orders are not stored after 120 s")
        time.sleep(0.02)
    return time.perf_counter() - began


# --- The share of our own code ----------------------------------------------------------------------------------------


def _python(*arguments: str, env: Mapping[str, str]) -> str:
    environment = basic_environment() | dict(env)
    done = subprocess.run([sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()[-1]


def _share(route: str) -> float:
    """Of the time of ``PROFILED`` requests of the app, the part of our own code and of what it calls of Python's own.

    Not what it calls of Chalice and of botocore: what those take is theirs.
    """
    import app

    method, path, body, resource = ROUTES[route]
    event = {
        "resource": resource,
        "path": path,
        "pathParameters": {"order_id": ORDER_ID},
        "requestContext": {
            "httpMethod": method,
            "resourcePath": resource,
            "path": path,
            "authorizer": {"principalId": "manager", "groups": "managers"},
        },
        "headers": {"content-type": "application/json"},
        "multiValueQueryStringParameters": None,
        "stageVariables": None,
        "isBase64Encoded": False,
        "body": None if body is None else json.dumps(body),
    }
    # Written as always, and read by nobody.
    for handler in logging.getLogger("cafe").handlers:
        handler.setStream(open(os.devnull, "w"))  # type: ignore[attr-defined]  # noqa: SIM115, PTH123
    app.app(event, None)
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(PROFILED):
        app.app(event, None)
    profile.disable()
    return _own_part(pstats.Stats(profile))


def _own_part(stats: pstats.Stats) -> float:
    own = 0.0
    # Of each function: its calls, its own seconds, those with all that it calls, and the same by who called it.
    for (file, *_), (_, _, seconds, _, callers) in stats.stats.items():  # type: ignore[attr-defined]
        if _ours_is(file):
            own += seconds
        elif not any(name in file for name in ("chalice", "botocore")):
            own += sum(each[3] for (caller, *_), each in callers.items() if _ours_is(caller))
    return own / stats.total_tt  # type: ignore[attr-defined, no-any-return]


def _ours_is(file: str) -> bool:
    """With contextlib: a decorator made of a context manager calls what is ours."""
    return "/chalicelib/" in file or (file.endswith(("/app.py", "/contextlib.py")) and "/chalice/" not in file)


if __name__ == "__main__":
    print(_share(sys.argv[1]))
