"""``python -m benchmarks.limits`` measures sizes and times, and compares them with the promised limits.

The command deploys a separate stack, as ``make run`` does. With ``--clone``, the command also measures ``make run`` in
a fresh clone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pymysql

from benchmarks.cloud import client, whole_stack
from infra.deploy.package import package_file, package_sizes
from infra.functions import NAMES
from local import chromium
from local.api import Api
from local.processes import free_ports
from local.stack import ROOT, Stack

ROWS = 1_000_000
ORDERS = 500
PAINTS = 5
MB = 1_000_000
# Linux shortens a process's name to 15 characters.
NAMES_OF_PROCESSES = {name[:15]: name for name in NAMES}
# In Chromium, these scripts return the milliseconds until the first paint, and the number of bytes loaded.
FIRST_PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
LOADED = "() => performance.getEntries().reduce((sum, { decodedBodySize = 0 }) => sum + decodedBodySize, 0)"
HEAD = """\
| promise | measured | limit |
| --- | --- | --- |"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits", description=__doc__)
    parser.add_argument("--clone", action="store_true", help="also measure `make run` in a fresh clone")
    options = parser.parse_args(arguments)
    print(HEAD)
    kept = [*_clone()] if options.clone else []
    with whole_stack() as (stack, env):
        api = Api(env["CAFE_API_URL"], stack.users.token)
        kept += [*_package(stack), *_console(stack.api_url), *_orders(api), *_inventory(stack, env, api)]
    return 0 if all(kept) else 1


def row(promise: str, measured: float, limit: float, unit: str, note: str = "") -> bool:
    """Prints a row of the results table, and returns whether the measured value is within its limit."""
    kept = measured <= limit
    print(
        f"| {promise} | {measured:,.1f} {unit}{note}{'' if kept else ' **over**'} | {limit:,.0f} {unit} |", flush=True
    )
    return kept


def _clone() -> Iterator[bool]:
    """Measures ``make run`` in a clone of the last commit, with nothing installed."""
    with TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), folder], check=True)
        ports = dict(zip(("CAFE_API_PORT", "CAFE_AWS_PORT", "CAFE_DB_PORT"), map(str, free_ports(3)), strict=True))
        environment = {**os.environ, **ports}

        def make(target: str) -> float:
            began = time.monotonic()
            done = subprocess.run(
                ["make", target], cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise AssertionError(f"make {target} failed:\n{done.stdout}{done.stderr}")
            return time.monotonic() - began

        try:
            yield row("`make run` from a fresh clone, with downloads", make("run"), 150, "s")
        finally:
            make("stop")


def _package(stack: Stack) -> Iterator[bool]:
    config = json.loads((stack.project / ".chalice" / "config.json").read_text())
    parts = package_sizes(package_file(stack.project, config))
    shown = ", ".join(f"{name} {size / 1000:,.0f} kB" for name, size in parts)
    yield row("deployment package", sum(size for _, size in parts) / MB, 20, "MB", f" ({shown})")


def _console(url: str) -> Iterator[bool]:
    """Measures the console in a browser with an empty cache: how many bytes it loads, and when it first paints."""
    paints, loaded = [], 0
    with chromium.running(chromium.find() or chromium.install()) as browser:
        for _ in range(PAINTS):
            page = browser.new_page()
            page.goto(f"{url}/", wait_until="networkidle")
            paints.append(page.wait_for_function(FIRST_PAINT).json_value() / 1000)
            loaded = page.evaluate(LOADED)
            page.close()
    yield row("everything that the console loads, uncompressed", loaded / 1000, 200, "kB")
    yield row(f"the console's first paint without a cache, slowest of {PAINTS}", max(paints), 1, "s")


def _orders(api: Api) -> Iterator[bool]:
    began = time.monotonic()
    sent: set[str] = set()
    for start in range(0, ORDERS, 100):
        orders = [{"customerID": "limits", "item": f"bean {start + number}"} for number in range(100)]
        sent |= {each["orderID"] for each in api.post("/orders", orders)["orders"]}

    def announced() -> list[str]:
        pages = _pages(api, "/notifications", "notifications")
        return [order_id for each in pages for order_id in each["facts"].get("orderIDs", [])]

    _wait("all orders announced", lambda: sent <= set(announced()))
    seconds = time.monotonic() - began
    stored = [each["orderID"] for each in _pages(api, "/orders?customerID=limits", "orders")]
    if sorted(stored) != sorted(sent) or sorted(announced()) != sorted(sent):
        raise AssertionError("an order was lost, stored twice or announced twice")
    yield row(f"{ORDERS} orders in lists of 100, each stored and announced exactly once", seconds, 30, "s")


def _inventory(stack: Stack, env: Mapping[str, str], api: Api) -> Iterator[bool]:
    _fill(env)
    memory = Memory(stack.folder / "cloud")
    began = time.monotonic()
    report_id = api.post("/create_report", {})["reportId"]
    report = _wait("the report", lambda: _ended(api.get(f"/reports/{report_id}")), 600)
    seconds = time.monotonic() - began
    peaks = memory.stop()
    if report["status"] != "SUCCEEDED" or report["summary"]["rows"] != ROWS:
        raise AssertionError(f"the report with {ROWS:,} rows has the status {report['status']}: {report['error']}")
    for function in ("read_inventory", "render_report"):
        yield row(f"peak memory of {function} for a report with {ROWS:,} rows", peaks[function] / MB, 256, "MB")
    sfn = client(env, "stepfunctions")
    arn = env["INVENTORY_REPORT_ARN"].replace(":stateMachine:", ":execution:") + f":{report_id}"
    pages = sfn.get_paginator("get_execution_history").paginate(executionArn=arn)
    details = [
        value for page in pages for event in page["events"] for value in event.values() if isinstance(value, dict)
    ]
    states = [len(value.get(name, "").encode()) for value in details for name in ("input", "output")]
    yield row(f"largest state of a report with {ROWS:,} rows", max(states) / 1000, 10, "kB", f" (in {seconds:.1f} s)")


def _fill(env: Mapping[str, str]) -> None:
    """Fills the table with a million beans, by repeatedly copying the existing beans."""
    connection = pymysql.connect(
        host=env["DB_HOST"],
        port=int(env["DB_PORT"]),
        user=env["DB_ADMIN_USER"],
        password=env["DB_ADMIN_PASSWORD"],
        database=env["DB_NAME"],
        autocommit=True,
    )
    with connection, connection.cursor() as cursor:
        copy = (
            "INSERT INTO beans (supplier_id, type, product_name, price, description, quantity) "
            "SELECT supplier_id, type, CONCAT(LEFT(product_name, 40), ' ', id + %s), price, description, quantity "
            "FROM beans ORDER BY id LIMIT %s"
        )
        cursor.execute("DELETE FROM beans WHERE product_name IS NULL OR type IS NULL OR supplier_id IS NULL")
        while (count := _count(cursor)) < ROWS:
            cursor.execute(copy, (count * 1000, ROWS - count))


def _count(cursor: Any) -> int:
    cursor.execute("SELECT COUNT(*) FROM beans")
    return int(cursor.fetchone()[0])


class Memory:
    """Watches the worker processes of the functions, and records the peak memory of each function."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder.resolve())
        self._peaks: dict[str, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            self._look()

    def _look(self) -> None:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                name, folder = (process / "comm").read_text().strip(), str((process / "cwd").readlink())
                peak = re.search(r"VmHWM:\s+(\d+) kB", (process / "status").read_text())
            except OSError:
                # The process has ended or belongs to another user.
                continue
            if name in NAMES_OF_PROCESSES and peak and self._folder in folder:
                function = NAMES_OF_PROCESSES[name]
                self._peaks[function] = max(self._peaks.get(function, 0), int(peak[1]) * 1024)

    def stop(self) -> dict[str, int]:
        """Stops watching the processes, and returns each function's peak resident memory in bytes."""
        self._look()
        self._ended.set()
        self._thread.join()
        return self._peaks


def _pages(api: Api, path: str, name: str) -> list[Any]:
    separator = "&" if "?" in path else "?"
    page = api.get(f"{path}{separator}limit=100")
    found = list(page[name])
    while page["next"]:
        page = api.get(f"{path}{separator}limit=100&next={page['next']}")
        found += page[name]
    return found


def _ended(report: dict[str, Any]) -> dict[str, Any] | None:
    return None if report["status"] == "RUNNING" else report


def _wait(label: str, look: Callable[[], Any], seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > end:
            raise TimeoutError(f"{label}: not done within {seconds:g} s")
        time.sleep(0.1)
    return found


if __name__ == "__main__":
    sys.exit(main())
