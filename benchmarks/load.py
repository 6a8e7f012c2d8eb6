"""What reaches each part of the system at so many orders a second, and which quota of AWS bends first.

It is computed, from the constants of the code, the functions' measured durations and AWS's default quotas, and so the
same at each run. ``python -m benchmarks.load`` writes the tables into ``docs/architecture.md``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import money, page
from benchmarks.money import ANNOUNCED_BYTES, BATCH, NOTIFICATION_BYTES, ORDER, SAMPLED, SQS_BATCH, Bill
from chalicelib.orders.placing import ORDERS_IN_LIST
from chalicelib.orders.store import stored_item
from chalicelib.timeline import SHARDS

PAGE = page.ROOT / "docs" / "architecture.md"
HERE = Path(__file__).parent

RATES = (10, 1_000, 100_000)
# How many orders a request brings: the most, and the least.
LISTS = (ORDERS_IN_LIST, 1)
# Of `store_orders` run so many at once: `maximum_concurrency` in app.py.
STORING_AT_ONCE = 10
# The API answers so many requests a second: `ApiRateLimit` in infra/resources.yaml.
ANSWERED_REQUESTS = 100
# An id of API Gateway's, as an item of a notification has it.
ID_BYTES = 39
MONTH_SECONDS = 30 * 24 * 3_600

# AWS's default quotas, each from the page that docs/architecture.md names.
API_REQUESTS = 10_000
FUNCTIONS_AT_ONCE = 1_000
NEW_TABLE_WRITES = 4_000
TABLE_UNITS = 40_000
PARTITION_WRITES = 1_000
EMAILS = 10
PUBLISHED = {30_000: "in N. Virginia", 1_500: "in Frankfurt, Tokyo and six more", 300: "in the smaller regions"}
# Calls of Step Functions a second, once its bucket is empty: in N. Virginia, Oregon and Ireland, and elsewhere.
REFILLED = {"ListExecutions": (5, 2), "DescribeExecution": (15, 10)}
# What the console shows, and asks for again and again: how many calls each time, and where its pause is.
CONSOLE = page.ROOT / "chalicelib" / "console"
WATCHED = (
    ("tab Today", "ListExecutions", 2, "today.js", "SECONDS"),
    ("tab Reports", "ListExecutions", 2, "reports.js", "SECONDS"),
    ("a running report", "DescribeExecution", 1, "reports.js", "SECONDS_WATCHED"),
)


@dataclass(frozen=True)
class Load:
    """Of so many ``orders`` a second, so many ``in_list``; each field and property is of one second."""

    orders: int
    in_list: int

    @property
    def requests(self) -> float:
        return self.orders / self.in_list

    @property
    def batches(self) -> float:
        """Of the queue and of the stream, and so notifications: full ones."""
        return self.orders / BATCH

    @property
    def sends(self) -> float:
        return self.requests * math.ceil(self.in_list / SQS_BATCH)

    @property
    def handed_over(self) -> float:
        """Calls of Lambda's poller: messages received by tens, and deleted by tens."""
        return 2 * self.orders / SQS_BATCH

    def at_once(self, function: str) -> float:
        """How many of a function run at the same moment."""
        if function == "api_handler":
            return self.requests * seconds(function, self.in_list)
        return self.batches * seconds(function, BATCH)

    @property
    def functions(self) -> float:
        names = ("api_handler", "store_orders", "announce_orders", "record_notification")
        return sum(self.at_once(each) for each in names)

    @property
    def writes(self) -> float:
        """To the orders table, and as many to each of its two indexes."""
        return self.orders * math.ceil(len(json.dumps(stored_item(ORDER))) / 1_024)

    @property
    def reads(self) -> float:
        """Of the orders table: each order is looked up before it is queued."""
        return self.orders

    @property
    def inbox_writes(self) -> float:
        """To the notifications table, and as many to its index."""
        ids = math.ceil(BATCH / self.in_list) * ID_BYTES
        return self.batches * math.ceil((BATCH * ANNOUNCED_BYTES + 20 + NOTIFICATION_BYTES + ids) / 1_024)

    @property
    def partitions(self) -> int:
        """Of the orders table, and so shards of its stream: the least that such a load needs, or a new table has."""
        return max(NEW_TABLE_WRITES, math.ceil(self.writes)) // PARTITION_WRITES

    @property
    def most_notifications(self) -> float:
        """If each shard's batches follow each other, each as small as it happens to be."""
        return min(self.orders, self.partitions / seconds("announce_orders", 1))

    @property
    def bill(self) -> Bill:
        priced = json.loads((HERE / "prices.json").read_text())
        bill = Bill(priced["prices"], _durations())
        money.orders(bill, self.orders, self.in_list, BATCH, looked_up=True)
        return bill

    @property
    def logged(self) -> float:
        """Bytes."""
        price: float = json.loads((HERE / "prices.json").read_text())["prices"]["cloudwatch.logs.gb"]
        return self.bill.lines["Logs"] / price * 1024**3


def _durations() -> dict[str, list[float]]:
    found: dict[str, list[float]] = json.loads((HERE / "durations.json").read_text())["seconds"]
    return found


def seconds(function: str, size: int) -> float:
    """Of one event of so many orders, on a local stack with the function's memory."""
    return money.duration(function, _durations()[f"{function} {size}"])


# --- the tables -------------------------------------------------------------------------------------------------------

ROWS: dict[str, Callable[[Load], float]] = {
    "API Gateway: requests": lambda load: load.requests,
    "`api_handler`: concurrent": lambda load: load.at_once("api_handler"),
    "SQS: send calls": lambda load: load.sends,
    "SQS: receive and delete calls": lambda load: load.handed_over,
    "`store_orders`: full batches": lambda load: load.batches,
    "`store_orders`: concurrent": lambda load: load.at_once("store_orders"),
    "orders table: read units": lambda load: load.reads,
    "orders table, and each index: write units": lambda load: load.writes,
    "a key of the orders' `byPeriod`: write units": lambda load: load.writes / SHARDS,
    "requests table: write units": lambda load: load.requests,
    "stream: shards, at least": lambda load: load.partitions,
    "`announce_orders`: concurrent": lambda load: load.at_once("announce_orders"),
    "SNS: notifications of full batches": lambda load: load.batches,
    "SNS: notifications, at most": lambda load: load.most_notifications,
    "`record_notification`: concurrent": lambda load: load.at_once("record_notification"),
    "inbox, and its index: write units": lambda load: load.inbox_writes,
    "a key of the inbox's `byPeriod`: write units": lambda load: load.inbox_writes / SHARDS,
    "CloudWatch Logs: kB": lambda load: load.logged / 1_000,
    "X-Ray: sampled traces": lambda load: load.requests * SAMPLED,
    "dollars a month": lambda load: load.bill.total * MONTH_SECONDS,
}


def loads() -> str:
    """What reaches each part, as Markdown."""
    lines = [f"| each second | {' | '.join(f'{rate:,} orders' for rate in RATES)} |", "| --- |" + " --- |" * len(RATES)]
    for name, figure in ROWS.items():
        cells = [_either(*(_shown(figure(Load(rate, in_list))) for in_list in LISTS)) for rate in RATES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def bends() -> list[tuple[str, str, float, float]]:
    """Each part's quota, and the orders a second that reach it, in lists and one by one; that of the least first."""
    lists, single = (Load(1, in_list) for in_list in LISTS)

    def reached(part: str, quota: str, limit: float, used: Callable[[Load], float]) -> tuple[str, str, float, float]:
        return part, quota, limit / used(lists), limit / used(single)

    found = [
        reached("SNS", f"{EMAILS} e-mails a second to an address", EMAILS, lambda load: load.orders),
        reached(
            "`store_orders`",
            f"{STORING_AT_ONCE} concurrent (ours)",
            STORING_AT_ONCE,
            lambda load: load.at_once("store_orders"),
        ),
        reached(
            "orders table",
            f"{NEW_TABLE_WRITES:,} writes a second while new",
            NEW_TABLE_WRITES,
            lambda load: load.writes,
        ),
        reached(
            "orders table",
            f"{PARTITION_WRITES:,} writes a second to a key of `byPeriod`, of {SHARDS}",
            PARTITION_WRITES,
            lambda load: load.writes / SHARDS,
        ),
        reached(
            "API Gateway",
            f"{ANSWERED_REQUESTS} requests a second (ours)",
            ANSWERED_REQUESTS,
            lambda load: load.requests,
        ),
        reached("API Gateway", f"{API_REQUESTS:,} requests a second", API_REQUESTS, lambda load: load.requests),
        reached(
            "Lambda", f"{FUNCTIONS_AT_ONCE:,} concurrent functions", FUNCTIONS_AT_ONCE, lambda load: load.functions
        ),
        reached("orders table", f"{TABLE_UNITS:,} units a second", TABLE_UNITS, lambda load: load.writes),
        reached(
            "inbox",
            f"{PARTITION_WRITES:,} writes a second to a key of `byPeriod`, of {SHARDS}",
            PARTITION_WRITES,
            lambda load: load.inbox_writes / SHARDS,
        ),
    ]
    for published, where in PUBLISHED.items():
        found.append(reached("SNS", f"{published:,} messages a second {where}", published, lambda load: load.batches))
    return sorted(found, key=lambda each: min(each[2:]))


def order_of_bending() -> str:
    """The same as Markdown."""
    lines = ["| orders a second | part | quota |", "| --- | --- | --- |"]
    for part, quota, lists, single in bends():
        lines.append(f"| {_either(_shown(lists), _shown(single))} | {part} | {quota} |")
    return "\n".join(lines)


def _either(lists: str, single: str) -> str:
    return lists if lists == single else f"{lists}; {single}"


def _shown(figure: float) -> str:
    """With the two digits that count."""
    two = round(figure, 1 - math.floor(math.log10(figure)))
    return f"{two:,.0f}" if two == int(two) else f"{two:g}"


def people() -> str:
    """What grows with those who have the console open, and not with orders."""
    lines = [
        "| open in browsers | calls of each | quota, in smaller regions | reached by |",
        "| --- | --- | --- | --- |",
    ]
    for what, call, calls, script, name in WATCHED:
        [pause] = re.findall(rf"^const {name} = (\d+);", (CONSOLE / script).read_text(), re.MULTILINE)
        quota, elsewhere = REFILLED[call]
        rate = calls / int(pause)
        lines.append(
            f"| {what} | {calls} `{call}` every {'second' if pause == '1' else f'{pause} seconds'} "
            f"| {quota} a second, {elsewhere} | {quota / rate:.0f}, {elsewhere / rate:.0f} |"
        )
    return "\n".join(lines)


def page_with_tables(text: str) -> str:
    for name, table in (("load", loads()), ("bends", order_of_bending()), ("people", people())):
        text = page.with_part(text, name, table)
    return text


if __name__ == "__main__":
    PAGE.write_text(page_with_tables(PAGE.read_text()))
