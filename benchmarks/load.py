"""Computes the load on each part of the system at several order rates, and the order rates that reach AWS quotas.

Its inputs are constants in the code: recorded durations and AWS's default quotas. Every run therefore computes the same
figures. ``python -m benchmarks.load`` writes the tables into ``docs/architecture.md``.
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
# A request contains 100 orders, or only one.
LISTS = (ORDERS_IN_LIST, 1)
# `maximum_concurrency` in app.py limits the concurrent invocations of `store_orders` to this number.
STORE_CONCURRENCY = 10
# `ApiRateLimit` in infra/resources.yaml limits the API's requests per second to this number.
ACCEPTED_REQUESTS = 100
# A correlation id takes this many bytes in a notification's DynamoDB item.
ID_BYTES = 39
MONTH_SECONDS = 30 * 24 * 3_600

# These are AWS's default quotas, from the pages listed in docs/architecture.md.
API_REQUESTS = 10_000
FUNCTIONS_AT_ONCE = 1_000
NEW_TABLE_WRITES = 4_000
TABLE_UNITS = 40_000
PARTITION_WRITES = 1_000
EMAILS = 10
PUBLISHED = {30_000: "in N. Virginia", 1_500: "in Frankfurt, Tokyo and six more", 300: "in the smaller regions"}
# Step Functions accepts this many calls per second: the first number in Virginia, Oregon and Ireland, the second
# elsewhere.
REFILLED = {"ListExecutions": (5, 2), "DescribeExecution": (15, 10)}
# Each tuple describes a part of the console that polls the API. The tuple contains the name of the part, the AWS call,
# the calls per request, the script, and the constant for the pause.
CONSOLE = page.ROOT / "chalicelib" / "console"
WATCHED = (
    ("tab Today", "ListExecutions", 2, "today.js", "SECONDS"),
    ("tab Reports", "ListExecutions", 2, "reports.js", "SECONDS"),
    ("a running report", "DescribeExecution", 1, "reports.js", "SECONDS_WATCHED"),
)


@dataclass(frozen=True)
class Load:
    """The load of ``orders`` orders per second, in requests of ``in_list`` orders each.

    All rates are per second.
    """

    orders: int
    in_list: int

    @property
    def requests(self) -> float:
        return self.orders / self.in_list

    @property
    def batches(self) -> float:
        """Returns the number of full batches from the queue or the stream. Each batch causes one notification."""
        return self.orders / BATCH

    @property
    def sends(self) -> float:
        return self.requests * math.ceil(self.in_list / SQS_BATCH)

    @property
    def receives_and_deletes(self) -> float:
        """Returns the number of calls from Lambda's poller to SQS. A call receives or deletes up to ten messages."""
        return 2 * self.orders / SQS_BATCH

    def concurrency(self, function: str) -> float:
        """Returns the number of concurrent invocations of a function."""
        if function == "api_handler":
            return self.requests * seconds(function, self.in_list)
        return self.batches * seconds(function, BATCH)

    @property
    def all_functions(self) -> float:
        """Returns the number of concurrent invocations of all functions together."""
        names = ("api_handler", "store_orders", "announce_orders", "record_notification")
        return sum(self.concurrency(each) for each in names)

    @property
    def writes(self) -> float:
        """Returns the write units that the orders table and each of its two indexes consume."""
        return self.orders * math.ceil(len(json.dumps(stored_item(ORDER))) / 1_024)

    @property
    def reads(self) -> float:
        """Returns the orders table's read units. The API looks up every order before sending the order to the queue."""
        return self.orders

    @property
    def inbox_writes(self) -> float:
        """Returns the write units that the notifications table and its index each consume."""
        ids = math.ceil(BATCH / self.in_list) * ID_BYTES
        return self.batches * math.ceil((BATCH * ANNOUNCED_BYTES + 20 + NOTIFICATION_BYTES + ids) / 1_024)

    @property
    def partitions(self) -> int:
        """Returns the number of partitions of the orders table, which is at least four.

        The stream has the same number of shards.
        """
        return max(NEW_TABLE_WRITES, math.ceil(self.writes)) // PARTITION_WRITES

    @property
    def most_notifications(self) -> float:
        """Returns the number of notifications, assuming that the batches of every shard are as small as possible."""
        return min(self.orders, self.partitions / seconds("announce_orders", 1))

    @property
    def bill(self) -> Bill:
        priced = json.loads((HERE / "prices.json").read_text())
        bill = Bill(priced["prices"], _durations())
        money.orders(bill, self.orders, self.in_list, BATCH, looked_up=True)
        return bill

    @property
    def logged(self) -> float:
        """The bytes logged."""
        price: float = json.loads((HERE / "prices.json").read_text())["prices"]["cloudwatch.logs.gb"]
        return self.bill.lines["Logs"] / price * 1024**3


def _durations() -> dict[str, list[float]]:
    found: dict[str, list[float]] = json.loads((HERE / "durations.json").read_text())["seconds"]
    return found


def seconds(function: str, size: int) -> float:
    """Returns how long a function takes for ``size`` orders, based on local durations and the function's memory."""
    return money.duration(function, _durations()[f"{function} {size}"])


# --- the tables -------------------------------------------------------------------------------------------------------

ROWS: dict[str, Callable[[Load], float]] = {
    "API Gateway: requests": lambda load: load.requests,
    "`api_handler`: concurrent": lambda load: load.concurrency("api_handler"),
    "SQS: send calls": lambda load: load.sends,
    "SQS: receive and delete calls": lambda load: load.receives_and_deletes,
    "`store_orders`: full batches": lambda load: load.batches,
    "`store_orders`: concurrent": lambda load: load.concurrency("store_orders"),
    "orders table: read units": lambda load: load.reads,
    "orders table, and each index: write units": lambda load: load.writes,
    "each of the orders' `byPeriod` keys: write units": lambda load: load.writes / SHARDS,
    "requests table: write units": lambda load: load.requests,
    "stream: shards, at least": lambda load: load.partitions,
    "`announce_orders`: concurrent": lambda load: load.concurrency("announce_orders"),
    "SNS: notifications, if batches are full": lambda load: load.batches,
    "SNS: notifications, at most": lambda load: load.most_notifications,
    "`record_notification`: concurrent": lambda load: load.concurrency("record_notification"),
    "inbox, and its index: write units": lambda load: load.inbox_writes,
    "each of the inbox's `byPeriod` keys: write units": lambda load: load.inbox_writes / SHARDS,
    "CloudWatch Logs: kB": lambda load: load.logged / 1_000,
    "X-Ray: sampled traces": lambda load: load.requests * SAMPLED,
    "dollars a month": lambda load: load.bill.total * MONTH_SECONDS,
}


def loads() -> str:
    """Returns a Markdown table of the load on each part of the system."""
    lines = [f"| each second | {' | '.join(f'{rate:,} orders' for rate in RATES)} |", "| --- |" + " --- |" * len(RATES)]
    for name, figure in ROWS.items():
        cells = [_either(*(_shown(figure(Load(rate, in_list))) for in_list in LISTS)) for rate in RATES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def limits() -> list[tuple[str, str, float, float]]:
    """Returns each quota with the order rates that reach it, for lists and for single orders.

    The quotas are sorted by their lower order rate.
    """
    lists, single = (Load(1, in_list) for in_list in LISTS)

    def reached(part: str, quota: str, limit: float, used: Callable[[Load], float]) -> tuple[str, str, float, float]:
        return part, quota, limit / used(lists), limit / used(single)

    found = [
        reached("SNS", f"{EMAILS} e-mails a second to an address", EMAILS, lambda load: load.orders),
        reached(
            "`store_orders`",
            f"{STORE_CONCURRENCY} concurrent (ours)",
            STORE_CONCURRENCY,
            lambda load: load.concurrency("store_orders"),
        ),
        reached(
            "orders table",
            f"{NEW_TABLE_WRITES:,} writes a second while new",
            NEW_TABLE_WRITES,
            lambda load: load.writes,
        ),
        reached(
            "orders table",
            f"{PARTITION_WRITES:,} writes a second to each of {SHARDS} `byPeriod` keys",
            PARTITION_WRITES,
            lambda load: load.writes / SHARDS,
        ),
        reached(
            "API Gateway",
            f"{ACCEPTED_REQUESTS} requests a second to each method (ours)",
            ACCEPTED_REQUESTS,
            lambda load: load.requests,
        ),
        reached("API Gateway", f"{API_REQUESTS:,} requests a second", API_REQUESTS, lambda load: load.requests),
        reached(
            "Lambda", f"{FUNCTIONS_AT_ONCE:,} concurrent functions", FUNCTIONS_AT_ONCE, lambda load: load.all_functions
        ),
        reached("orders table", f"{TABLE_UNITS:,} units a second", TABLE_UNITS, lambda load: load.writes),
        reached(
            "inbox",
            f"{PARTITION_WRITES:,} writes a second to each of {SHARDS} `byPeriod` keys",
            PARTITION_WRITES,
            lambda load: load.inbox_writes / SHARDS,
        ),
    ]
    for published, where in PUBLISHED.items():
        found.append(reached("SNS", f"{published:,} messages a second {where}", published, lambda load: load.batches))
    return sorted(found, key=lambda each: min(each[2:]))


def limits_table() -> str:
    """Returns the result of ``limits`` as a Markdown table."""
    lines = ["| orders a second | part | quota |", "| --- | --- | --- |"]
    for part, quota, lists, single in limits():
        lines.append(f"| {_either(_shown(lists), _shown(single))} | {part} | {quota} |")
    return "\n".join(lines)


def _either(lists: str, single: str) -> str:
    return lists if lists == single else f"{lists}; {single}"


def _shown(figure: float) -> str:
    """Formats a figure with two significant digits."""
    two = round(figure, 1 - math.floor(math.log10(figure)))
    return f"{two:,.0f}" if two == int(two) else f"{two:g}"


def people() -> str:
    """Returns a Markdown table of how many browsers can show the console at once, at any rate of orders."""
    lines = [
        "| console page | calls per browser | quota; in smaller regions | browsers |",
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
    for name, table in (("load", loads()), ("bends", limits_table()), ("people", people())):
        text = page.with_part(text, name, table)
    return text


if __name__ == "__main__":
    PAGE.write_text(page_with_tables(PAGE.read_text()))
