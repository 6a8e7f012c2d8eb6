"""Tests that ``make dev`` runs the edited code for every trigger and lets a debugger pause a function."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from local.processes import free_ports
from tests.system.dev import Debugger, Terminal, terminal
from tests.system.system import System, new_id, stored

[DEBUG_PORT] = free_ports(1)
READ = "    received, failed = _read(messages)\n"


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    with terminal(tmp_path_factory.mktemp("dev"), "store_orders", DEBUG_PORT) as dev:
        yield dev


def order(system: System) -> str:
    return str(system.post("/orders", {"customerID": new_id("customer"), "item": "Tea"})["orderID"])


def upload(system: System) -> None:
    system.aws("s3").put_object(Bucket=system.env["UPLOADS_BUCKET"], Key=f"{new_id()}.txt", Body=b"hello")


TRIGGERS: dict[str, Callable[[System], object]] = {
    "API": lambda system: system.get("/health"),
    "store_orders": order,
    "announce_orders": order,
    "receive_upload": upload,
    "record_notification": upload,
    "render_report": lambda system: system.post("/create_report"),
    "measure_buckets": lambda system: system.post("/create_report", {"kind": "storage"}),
}


def test_a_saved_edit_runs_on_every_trigger(dev: Terminal) -> None:
    dev.edit("chalicelib/logs.py", "timestamp=True,", 'timestamp=True, static_fields={"edit": "first"},')
    start = dev.length
    for trigger in TRIGGERS.values():
        trigger(dev.system)
    for function in TRIGGERS:
        dev.shows(rf"  {function} .*  edit=first\b", start)


def test_code_that_cannot_be_imported_is_shown_and_the_earlier_code_runs(dev: Terminal) -> None:
    shown = dev.edit(
        "chalicelib/orders/store.py", "import hashlib\n", "import hashlibb\n", "No module named .hashlibb."
    )
    assert "the code cannot be imported, so the previous code keeps running" in shown
    assert re.search(r'^  File "chalicelib/orders/store.py", line \d+, in <module>$', shown, re.M)
    assert stored(dev.system, order(dev.system))
    dev.edit("chalicelib/orders/store.py", "import hashlibb\n", "import hashlib\n")


@pytest.mark.long
def test_an_edit_of_a_decorator_is_deployed(dev: Terminal) -> None:
    shown = dev.edit("app.py", '@app.route("/health"', '@app.route("/healthy"')
    assert "app.py changes a trigger and needs a deploy: deploying" in shown
    assert "check: every setting is correct" in shown
    assert dev.system.get("/healthy")["status"] == "ok"
    dev.edit("app.py", '@app.route("/healthy"', '@app.route("/health"')


@pytest.mark.long
def test_a_breakpoint_holds_a_message_beyond_the_time_outs(dev: Terminal) -> None:
    system, function, queue = dev.system, "cafe-dev-store_orders", dev.system.env["ORDERS_QUEUE_URL"]
    system.aws("lambda").update_function_configuration(FunctionName=function, Timeout=5)
    system.aws("sqs").set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "5"})
    dev.edit("chalicelib/orders/store.py", READ, f"{READ}    breakpoint()\n")
    start = dev.length
    order_id = order(system)
    dev.shows(r"\(Pdb\) ", start)
    dev.type("p sorted(received)")
    dev.shows(re.escape(f"['{order_id}']"), start)
    time.sleep(7)
    dev.type("c")
    assert stored(system, order_id)
    shown = dev.shows(f"{order_id}  order announced", start)
    # A second delivery would log that the order is already stored, and a timeout would log an error.
    assert "already" not in shown
    assert "ERROR" not in shown
    dev.edit("chalicelib/orders/store.py", f"{READ}    breakpoint()\n", READ)


@pytest.mark.long
def test_a_debugger_stops_the_function_at_a_line_of_the_edited_file(dev: Terminal) -> None:
    # The first message starts the function's process, to which the debugger connects.
    assert stored(dev.system, order(dev.system))
    file = dev.code / "chalicelib/orders/store.py"
    line = file.read_text().partition(READ)[0].count("\n") + 1
    with closing(Debugger(DEBUG_PORT, file, line)) as debugger:
        order_id = order(dev.system)
        debugger.stopped()
        assert dev.system.request("GET", f"/orders/{order_id}").status == 404
        debugger.go_on()
        assert stored(dev.system, order_id)


@pytest.mark.long
def test_the_end_leaves_the_stack_as_make_run_does(dev: Terminal) -> None:
    assert dev.end() == 0
    assert "stopping, and deploying the edits" in dev.shows("")
    assert dev.system.get("/health")["status"] == "ok"
    assert not dev.system.stack.cloud.live.exists()
