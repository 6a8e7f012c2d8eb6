"""``python -m benchmarks.money`` prints what the system's work costs on AWS, compared with a plain design.

The plain design has the same parts, but each request, message, PutItem, invocation and notification contains one order.
The plain design keeps the rows of a report in the state machine's data, and lists every S3 object each day. For one
order, the functions of the plain design take as long and log as much as the system's functions. The plain design has no
traces and no metrics, and compares no reports.

The costs depend only on ``prices.json``, ``durations.json`` and the configured memory, so every run prints the same
costs. ``python -m benchmarks.money measure`` measures the durations in ``durations.json`` again on a separate stack.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import results
from chalicelib.orders.order import Item, Order
from chalicelib.orders.store import stored_item
from chalicelib.reports.files import PART_BYTES

HERE = Path(__file__).parent
CONFIG = json.loads((HERE.parent / ".chalice" / "config.json").read_text())
MACHINES = HERE.parent / "infra"

# A function with this memory has one whole processor:
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
MB_OF_A_PROCESSOR = 1_769
# The queue and the stream deliver batches of 100. One SQS call contains up to ten messages.
BATCH = 100
SQS_BATCH = 10
# X-Ray samples one in twenty of the requests that arrive without a trace.
SAMPLED = 0.05
# These are the sizes in bytes of a log record, a request's records and a metrics record. Lambda writes three records
# per invocation, and a state machine writes two records per state. CloudWatch adds 26 bytes to the size of every
# record.
RECORD_BYTES = 212 + 26
REQUEST_BYTES = 219 + 26
FIGURES_BYTES = 380 + 26
LAMBDA_BYTES = 280 + 3 * 26
TRANSITION_BYTES = 2 * (300 + 26)
# These are the sizes in bytes of an order's line in a notification, and of a notification without its message.
ANNOUNCED_BYTES = 47
NOTIFICATION_BYTES = 450
# A state's data is limited to this many bytes: https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
STATE_BYTES = 262_144
# A call that lists 1,000 S3 keys, or reads 500 metrics, is assumed to take this many seconds. These calls do not
# overlap.
PAGE_SECONDS = 0.1
METRICS_SECONDS = 0.5
DAYS = 30
# With a maximum concurrency, Lambda keeps five pollers: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html
POLLERS = 5
# Lambda polls the queues `orders` and `retries`.
QUEUES = 2
# Each receive call of a poller is assumed to wait for the longest time that SQS allows.
POLL_SECONDS = 20
# This is how many processor seconds Lambda's runtime is assumed to take before it imports app.py.
RUNTIME_SECONDS = 0.1
WRITES = "DynamoDB writes"
# The tables leave out lines below this amount.
SHOWN_DOLLARS = 0.001
ORDER = Order("x" * 22, "ana", (Item("flat white", 2), Item("croissant", 1)), None, "2026-11-21T03:14:15.123456Z")


class Bill:
    """The costs of a design in US dollars. ``durations`` contains each function's ``[processor, waiting]`` seconds per
    event.

    If ``watched`` is true, the design has traces and metrics.
    """

    def __init__(self, prices: dict[str, float], durations: dict[str, list[float]], *, watched: bool = True) -> None:
        self.lines: dict[str, float] = defaultdict(float)
        self._prices = prices
        self._durations = durations
        self.watched = watched

    def add(self, line: str, price: str, units: float) -> None:
        """Adds the price of ``units`` units to a line of the bill.

        The name of a price for N units ends with ``per_N``.
        """
        per = re.search(r"\.per_(\d+)", price)
        self.lines[line] += units * self._prices[price] / (int(per[1]) if per else 1)

    def invoke(self, function: str, times: float, event: str = "", seconds: float = 0.0, records: float = 1) -> None:
        """Adds the costs of invocations that handle ``event`` or take ``seconds``.

        Each invocation logs ``records`` records.
        """
        if event:
            seconds = duration(function, self._durations[event])
        self.add("Lambda requests", "lambda.requests.per_1000000", times)
        self.add("Lambda time", "lambda.gb_second", times * seconds * memory(function) / 1_024)
        self.add("X-Ray traces", "xray.traces.per_1000000", times * SAMPLED * self.watched)
        self.log(times * (LAMBDA_BYTES + records * RECORD_BYTES))

    def log(self, size: float) -> None:
        self.add("Logs", "cloudwatch.logs.gb", size / 1024**3)

    def write(self, times: float, size: int, indexes: int) -> None:
        """Adds the costs of writing items of ``size`` bytes to DynamoDB. Every index also stores the whole item."""
        self.add(WRITES, "dynamodb.writes.per_1000000", times * math.ceil(size / 1_024) * (1 + indexes))

    def notify(self, times: float, size: int, event: str = "record_notification 1") -> None:
        """Adds the costs of notifications of ``size`` bytes, including their storage in the inbox.

        Deliveries from SNS to Lambda are free.
        """
        self.add("SNS", "sns.per_1000000", times * math.ceil(size / 65_536))
        self.invoke("record_notification", times, event)
        self.write(times, size + NOTIFICATION_BYTES, indexes=1)

    def enter(self, states: float) -> None:
        """Adds the costs of ``states`` state transitions."""
        self.add("Step Functions", "stepfunctions.transitions.per_1000", states)
        self.log(states * TRANSITION_BYTES)

    @property
    def total(self) -> float:
        return sum(self.lines.values())


def duration(function: str, measured: list[float]) -> float:
    """Returns how long a function takes with its configured memory.

    ``measured`` contains ``[processor, waiting]`` seconds.
    """
    processor, waiting = measured
    return processor * MB_OF_A_PROCESSOR / memory(function) + waiting


def memory(function: str) -> int:
    size: int = CONFIG["lambda_functions"].get(function, {}).get("lambda_memory_size", CONFIG["lambda_memory_size"])
    return size


def orders(bill: Bill, count: int, in_request: int, batch: int, *, looked_up: bool) -> None:
    """Adds the costs of ``count`` orders. ``looked_up`` says whether the API looks up every order first."""
    requests, batches = count / in_request, count / batch
    bill.add("API Gateway", "api_gateway.rest.per_1000000", requests)
    bill.invoke("api_handler", requests, f"api_handler {in_request}", records=in_request)
    if looked_up:
        bill.add("DynamoDB reads", "dynamodb.reads.per_1000000", count)
    # Each message is sent, received and deleted. Lambda receives up to ten messages in one call.
    received = count / min(batch, SQS_BATCH)
    bill.add("SQS", "sqs.per_1000000", requests * math.ceil(in_request / SQS_BATCH) + 2 * received)
    bill.invoke("store_orders", batches, f"store_orders {batch}", records=batch)
    bill.write(count, len(json.dumps(stored_item(ORDER))), indexes=2)
    # Lambda's reads of the stream are free.
    bill.invoke("announce_orders", batches, f"announce_orders {batch}", records=batch + 1)
    bill.notify(batches, batch * ANNOUNCED_BYTES + 20, f"record_notification {batch}")
    if bill.watched:
        bill.log(requests * (REQUEST_BYTES + FIGURES_BYTES) + batches * FIGURES_BYTES)


def reports(bill: Bill, count: int, rows: int, csv_bytes: int, *, in_state: bool) -> None:
    """Adds the costs of ``count`` inventory reports of ``rows`` rows. Each report is requested once and read once."""
    bill.add("API Gateway", "api_gateway.rest.per_1000000", 2 * count)
    bill.invoke("api_handler", 2 * count, "api_handler 1")
    bill.enter(count * states("inventory_report"))
    bill.invoke("read_inventory", count, f"read_inventory {rows}")
    bill.invoke("render_report", count, f"render_report {rows}")
    bill.invoke("presign_report", count, "presign_report")
    parts = math.ceil(csv_bytes / PART_BYTES)
    # The report's web page, each part of its CSV file and the list of reports need one S3 call each. A multipart upload
    # needs two more. The CSV files of this and the previous report are read, and the list is read twice.
    bill.add("S3", "s3.put.per_1000", count * (1 if in_state else 2 + (parts if parts == 1 else parts + 2)))
    bill.add("S3", "s3.get.per_1000", 0 if in_state else 4 * count)
    bill.notify(count, 900)


def storage(bill: Bill, buckets: int, objects: int, *, listed: bool) -> None:
    """Adds the costs of daily storage reports for a month.

    The reports list all objects if ``listed`` is true, and otherwise read the daily metrics from CloudWatch.
    """
    bill.enter(DAYS * states("storage_report"))
    if listed:
        pages = max(buckets, math.ceil(objects / 1_000))
        bill.add("S3", "s3.list.per_1000", DAYS * pages)
        bill.invoke("measure_buckets", DAYS, seconds=pages * PAGE_SECONDS)
    else:
        # Each bucket has one metric, and CloudWatch lists 500 metrics per page.
        bill.add("CloudWatch metrics", "cloudwatch.get_metric_data.per_1000_metrics", DAYS * buckets)
        pages = math.ceil(buckets / 500)
        bill.add("CloudWatch metrics", "cloudwatch.requests.per_1000", DAYS * pages)
        bill.invoke("measure_buckets", DAYS, seconds=PAGE_SECONDS + 2 * pages * METRICS_SECONDS)
    bill.add("S3", "s3.list.per_1000", DAYS)
    bill.add("S3", "s3.put.per_1000", DAYS)
    bill.notify(DAYS, 300)


def idle_polls() -> int:
    """Returns how many times a month Lambda asks the empty queues for messages."""
    return QUEUES * POLLERS * DAYS * 86_400 // POLL_SECONDS


def cold_starts(bill: Bill, count: int, import_seconds: float) -> None:
    """Adds the costs of the INIT phase, which Lambda bills since August 2025.

    ``import_seconds`` is how many processor seconds the import of ``app.py`` takes.
    """
    seconds = duration("api_handler", [RUNTIME_SECONDS + import_seconds, 0])
    bill.add("Lambda time", "lambda.gb_second", count * seconds * memory("api_handler") / 1_024)


def states(machine: str) -> int:
    """Returns how many states an execution of the state machine enters if nothing fails."""

    def passed(part: dict[str, Any]) -> int:
        name, count = part["StartAt"], 0
        while name:
            state = part["States"][name]
            count += 1 + sum(passed(branch) for branch in state.get("Branches", []))
            name = state.get("Next") or state.get("Default")
        return count

    return passed(json.loads((MACHINES / f"{machine}.asl.json").read_text()))


def tables() -> str:
    """Returns the costs as Markdown tables."""
    priced = json.loads((HERE / "prices.json").read_text())
    measured = json.loads((HERE / "durations.json").read_text())

    def bills() -> tuple[Bill, Bill]:
        return Bill(priced["prices"], measured["seconds"]), Bill(priced["prices"], measured["seconds"], watched=False)

    parts = [
        f"All costs are in US dollars, with the prices in {priced['region']} on {priced['date']} and the durations "
        f"measured on {measured['date']}. Lines below a tenth of a cent are left out."
    ]
    million = 1_000_000
    columns = {}
    for title, in_request in (("lists of 100", 100), ("single orders", 1)):
        columns[title], _ = bills()
        orders(columns[title], million, in_request, BATCH, looked_up=True)
    _, columns["plain design"] = bills()
    orders(columns["plain design"], million, 1, 1, looked_up=False)
    parts.append(_table("One million orders, at load", columns, apart=WRITES))
    reported = len(parts)
    parts.append("### Reports")
    for rows in (1_000, 100_000):
        ours, plain = bills()
        size = measured["csv_bytes"][str(rows)]
        reports(ours, 1_000, rows, size, in_state=False)
        line = f"- One thousand inventory reports of {rows:,} rows cost ${ours.total:.2f}, "
        if size <= STATE_BYTES:
            reports(plain, 1_000, rows, size, in_state=True)
            title = f"One thousand inventory reports of {rows:,} rows"
            parts.insert(reported, _table(title, {"ours": ours, "plain design": plain}, apart="Step Functions"))
            parts.append(f"{line}or ${plain.total:.2f} in the plain design.")
        else:
            parts.append(
                f"{line}but the plain design fails, because rows of {size:,} bytes exceed a state's limit "
                f"of {STATE_BYTES:,} bytes."
            )
    for buckets, objects in ((20, 20_000), (10_000, 1_000_000_000)):
        ours, plain = bills()
        storage(ours, buckets, objects, listed=False)
        storage(plain, buckets, objects, listed=True)
        parts.append(
            f"- Daily storage reports on {buckets:,} buckets with {objects:,} objects cost "
            f"${ours.total:.2f} a month from metrics, or ${plain.total:.2f} in the plain design."
        )
    parts.append("### Other costs")
    polling, starting = bills()
    polling.add("SQS", "sqs.per_1000000", idle_polls())
    beyond = polling.total - priced["prices"]["sqs.per_1000000"]
    [imported] = [each for each in results.read()["cold_start"].results if each.work == "import of app.py"]
    cold_starts(starting, million, float(imported.ours.removesuffix(" s")))
    rest, http = (priced["prices"][f"api_gateway.{kind}.per_1000000"] for kind in ("rest", "http"))
    parts += [
        f"- Lambda's {POLLERS} pollers ask each of the idle queues `orders` and `retries` every {POLL_SECONDS} s "
        f"(assumed). The {idle_polls():,} requests a month cost ${polling.total:.2f}, or ${beyond:.2f} beyond SQS's "
        "free tier. While idle, `retry_failures` never runs.",
        f"- One million cold starts cost ${starting.total:.2f} for the INIT phase: {imported.ours} for `app.py`, and "
        f"{RUNTIME_SECONDS} s (assumed) for the runtime.",
        f"- One million requests to an HTTP API would cost ${http:.2f} instead of ${rest:.2f}, but Chalice cannot "
        "deploy it.",
    ]
    return "\n\n".join(parts)


def _table(title: str, bills: dict[str, Bill], apart: str) -> str:
    """Returns a Markdown table of the bills.

    The table shows the lines of each bill, and the totals with and without the line ``apart``. It also compares each
    total with the total of the last bill.
    """
    rows = {name: [bill.lines.get(name, 0.0) for bill in bills.values()] for name in _lines(bills.values())}
    without = [bill.total - bill.lines[apart] for bill in bills.values()]
    total = [bill.total for bill in bills.values()]
    rows |= {
        f"**all but {apart}**": without,
        "share": _shares(without),
        "**all**": total,
        "share of all": _shares(total),
    }
    lines = [f"### {title}", "", f"| line | {' | '.join(bills)} |", "| --- |" + " --- |" * len(bills)]
    for name, figures in rows.items():
        if max(figures) >= SHOWN_DOLLARS:
            lines.append(f"| {name} | {' | '.join(f'{each:.3f}' for each in figures)} |")
    return "\n".join(lines)


def _lines(bills: Iterable[Bill]) -> list[str]:
    return sorted({name for bill in bills for name in bill.lines})


def _shares(figures: list[float]) -> list[float]:
    return [each / figures[-1] for each in figures]


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        from benchmarks import durations

        durations.measure(HERE / "durations.json")
    else:
        print(tables())
