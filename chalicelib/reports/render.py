"""Renders the inventory report as an HTML page from the CSV file in the reports bucket.

The page embeds its styles, script and pictures, and its content security policy forbids loading anything else. Jinja2
escapes all values from MySQL.
"""

from __future__ import annotations

import csv
import heapq
import math
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache, cached_property, lru_cache
from itertools import islice
from operator import itemgetter, mul
from typing import TYPE_CHECKING, Any, NamedTuple

from chalicelib.logs import logger
from chalicelib.reports import LINK_SECONDS, earlier, files, report_key
from chalicelib.reports.comparison import KINDS, Comparison
from chalicelib.reports.embedding import TEMPLATES, embedded
from chalicelib.reports.inventory import restore
from chalicelib.reports.prices import parse_price
from chalicelib.reports.texts import bean_name, plain, supplier_name, visible
from chalicelib.settings import DOLLAR

if TYPE_CHECKING:
    from jinja2 import Environment

LOW_STOCK_SHOWN = 12
# The state machine, the API and the console show this many of the beans that are low in stock.
LOW_STOCK_NAMED = 5
# If the inventory has more beans than this, the page shows only the beans with the lowest stock. Browsers would take
# too long to sort a larger table.
WHOLE_INVENTORY = 5_000
NEEDIEST_SHOWN = 500
# Rows are counted in batches of this size. With batches of 2,000 rows, counting took a third longer per row.
BATCH_ROWS = 500
# The chart shows a bar for this many suppliers. All other suppliers share one line without a bar.
BARS = 9
# Matches email addresses that need no escaping in a mailto link.
EMAIL = re.compile(r"[A-Za-z0-9._+-]+@[A-Za-z0-9.-]+")
MILLION = 1_000_000
# Whole numbers are added faster than decimal numbers. A price has at most four decimals.
PRICE_UNITS = 10_000
# The key for beans without a supplier is an empty id and an empty name, joined with a comma.
NO_SUPPLIER = ","

log = logger("render")


class Row(NamedTuple):
    """One row of the CSV file, in the order of ``inventory.COLUMNS``. NULL in MySQL becomes an empty cell."""

    supplier_id: str
    supplier: str
    city: str
    state: str
    email: str
    phone: str
    bean_id: str
    type: str
    product_name: str
    price: str
    quantity: str
    description: str


COUNTED = itemgetter(*map(Row._fields.index, ("supplier_id", "supplier", "price", "quantity")))


class Bean(NamedTuple):
    """One bean on the page. ``amount`` is the price as a number, or None if the price is missing or not a number."""

    row: Row
    amount: Decimal | None
    quantity: int | None

    @property
    def value(self) -> Decimal | None:
        return None if self.amount is None or self.quantity is None else self.amount * self.quantity


class Bar(NamedTuple):
    """One line of the bar chart. ``percent`` is the length of the bar, relative to the longest bar.

    The line for all other suppliers has no bar, because their total could be much larger than any supplier's quantity.
    """

    label: str
    quantity: int
    percent: float | None


@dataclass
class Summary:
    """The contents of an inventory report. All totals cover the whole inventory.

    A bean with at most the quantity ``low_stock`` is low in stock. ``neediest`` contains the beans with the lowest
    stock. ``groups`` contains the beans on the page, grouped by supplier.
    """

    low_stock: int
    beans: int = 0
    suppliers: int = 0
    quantity: int = 0
    value: Decimal = Decimal(0)
    unpriced: int = 0
    uncounted: int = 0
    low: int = 0
    bars: list[Bar] = field(default_factory=list)
    neediest: list[Bean] = field(default_factory=list)
    groups: list[list[Bean]] = field(default_factory=list)

    @cached_property
    def shown(self) -> int:
        return sum(len(group) for group in self.groups)

    @property
    def is_whole(self) -> bool:
        return self.shown == self.beans

    def is_low(self, quantity: int | None) -> bool:
        return quantity is not None and quantity <= self.low_stock

    def lowest(self) -> dict[str, Any]:
        """Returns the beans that are low in stock as ``{"count", "limit", "beans"}``, with a few of them by name."""
        beans = []
        for row, _, quantity in self.neediest[:LOW_STOCK_NAMED]:
            supplier = supplier_name(row.supplier_id, row.supplier)
            beans.append({"name": bean_name(row.product_name), "supplier": supplier, "quantity": quantity})
        return {"count": self.low, "limit": self.low_stock, "beans": beans}


@dataclass(frozen=True)
class Page:
    """A report's details for its page. ``csv_url`` is a link to the whole inventory that works for ``link_seconds``."""

    report_id: str
    generated_at: str
    csv_url: str
    csv_bytes: int
    comparison: Comparison
    link_seconds: int = LINK_SECONDS


def render_report(
    event: dict[str, Any],
    *,
    s3: Any,
    bucket: str,
    low_stock: int,
    currency: str = DOLLAR,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Renders the CSV file at ``csvKey`` as ``inventory/<reportId>/report.html``. The CSV file can have any size.

    ``event`` is the result of ``read_inventory``. Prices may have the sign ``currency``. Returns ``reportKey``,
    ``rows``, ``suppliers``, ``quantity``, ``generatedAt``, ``low`` as ``Summary.lowest`` describes, and ``changes`` as
    ``{"since", "text"}``. Raises ``Unavailable`` if S3 is unavailable, but only for this report's own files.
    """
    report_id, csv_key, generated_at = event["reportId"], event["csvKey"], event["generatedAt"]
    before = earlier.find(s3, bucket, event)
    comparison = Comparison(s3, bucket, before, low_stock)
    with files.open_text(s3, bucket, csv_key) as (text, csv_bytes):
        rows = comparison.follow(islice(csv.reader(text), 1, None))
        summary = summarise(rows, currency, low_stock=low_stock)
    csv_url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": csv_key}, ExpiresIn=LINK_SECONDS)
    page = Page(report_id, generated_at, csv_url, csv_bytes, comparison)
    key = report_key("inventory", report_id)
    files.write(
        s3,
        bucket,
        key,
        (part.encode() for part in render(summary, page)),
        ContentType="text/html; charset=utf-8",
    )
    # Only a rendered report can be compared with later reports.
    earlier.record(s3, bucket, event, before, sleep)
    log.info("inventory report rendered", extra={"reportId": report_id, "key": key, "rows": summary.beans})
    return {
        "reportKey": key,
        "rows": summary.beans,
        "suppliers": summary.suppliers,
        "quantity": summary.quantity,
        "generatedAt": generated_at,
        "low": summary.lowest(),
        "changes": {"since": comparison.since, "text": comparison.text()},
    }


def summarise(rows: Iterable[Sequence[str]], currency: str = DOLLAR, *, low_stock: int) -> Summary:
    """Calculates the totals of the CSV file in one pass, and keeps only the rows that the page shows."""
    summary = Summary(low_stock)
    # Each key joins a supplier's id and name. As keys, a million strings take 150 MB, but a million tuples would take
    # 250 MB.
    stock: dict[str, int] = defaultdict(int)
    kept: list[tuple[float, Sequence[str]]] = []
    most = math.inf
    lines = iter(rows)

    @lru_cache(maxsize=10_000)
    def price(cell: str) -> int | None:
        amount = parse_price(restore(cell), currency)
        return None if amount is None else int(amount * PRICE_UNITS)

    while batch := list(islice(lines, BATCH_ROWS)):
        # Beans are sorted by quantity, lowest first, and beans with an unknown quantity come last.
        needs = _count(batch, summary, stock, price)
        kept += [bean for bean in zip(needs, batch, strict=True) if bean[0] <= most]
        # The sort is stable, so beans with the same quantity keep their order.
        kept.sort(key=itemgetter(0))
        if summary.beans > WHOLE_INVENTORY:
            del kept[NEEDIEST_SHOWN:]
            most = kept[-1][0]
    beans = [_bean(row, currency) for _, row in kept]
    summary.suppliers = len(stock) - (NO_SUPPLIER in stock)
    summary.bars = _bars(stock)
    summary.neediest = [bean for bean in beans[:LOW_STOCK_SHOWN] if summary.is_low(bean.quantity)]
    groups: dict[str, list[Bean]] = {}
    for bean in beans:
        groups.setdefault(bean.row.supplier_id, []).append(bean)
    summary.groups = sorted(groups.values(), key=lambda group: _by_name(group[0].row))
    return summary


def _count(
    batch: list[Sequence[str]], summary: Summary, stock: dict[str, int], price: Callable[[str], int | None]
) -> list[float]:
    """Adds the rows in ``batch`` to the totals. Whole columns are faster than single cells.

    Returns the quantity in each row, or infinity if the quantity is unknown.
    """
    ids, names, texts, cells = zip(*map(COUNTED, batch), strict=True)
    quantities = [int(cell or 0) for cell in cells]
    needs: list[float] = [*quantities]
    if "" in cells:
        needs = [quantity if cell else math.inf for cell, quantity in zip(cells, quantities, strict=True)]
        summary.uncounted += cells.count("")
    summary.beans += len(batch)
    summary.quantity += sum(quantities)
    low_stock = summary.low_stock
    summary.low += len([need for need in needs if need <= low_stock])
    for supplier, quantity in zip(map(",".join, zip(ids, names, strict=True)), quantities, strict=True):
        stock[supplier] += quantity
    prices = list(map(price, texts))
    summary.unpriced += prices.count(None)
    amounts = [each or 0 for each in prices] if None in prices else prices
    summary.value += Decimal(sum(map(mul, amounts, quantities))) / PRICE_UNITS
    return needs


def _bean(cells: Sequence[str], currency: str) -> Bean:
    row = Row._make(plain(restore(cell)) for cell in cells)
    return Bean(row, parse_price(row.price, currency), int(row.quantity) if row.quantity else None)


def _by_name(row: Row) -> tuple[bool, str, int]:
    return (not row.supplier_id, supplier_name(row.supplier_id, row.supplier).casefold(), int(row.supplier_id or 0))


def _bars(stock: dict[str, int]) -> list[Bar]:
    largest = heapq.nlargest(BARS, stock.items(), key=itemgetter(1))
    longest = largest[0][1] if largest else 0
    if longest <= 0:
        return []
    bars = []
    for supplier, quantity in largest:
        supplier_id, _, name = supplier.partition(",")
        label = supplier_name(supplier_id, plain(restore(name)))
        bars.append(Bar(label, quantity, max(0, round(100 * quantity / longest, 2))))
    if others := len(stock) - len(largest):
        rest = sum(stock.values()) - sum(bar.quantity for bar in bars)
        bars.append(Bar(f"{others:,} other{'s' if others > 1 else ''}", rest, None))
    return bars


def render(summary: Summary, page: Page) -> Iterable[str]:
    """Yields the HTML page in parts."""
    stream = _environment().get_template("inventory.html").stream(summary=summary, page=page)
    # Without buffering, Jinja2 yields many small parts per row.
    stream.enable_buffering(1_000)
    return stream


@cache
def _environment() -> Environment:
    import humanize
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        **embedded("inventory"),
        bean_name=bean_name,
        supplier_name=supplier_name,
        visible=visible,
        kinds=KINDS,
        after=lambda moment, seconds: (datetime.fromisoformat(moment) + timedelta(seconds=seconds)).isoformat(),
    )
    environment.filters.update(
        number=_number,
        big=lambda number: _words(number) if abs(number) >= MILLION else _number(number),
        big_money=lambda amount: _words(amount) if abs(amount) >= MILLION else _money(amount),
        money=_money,
        price=_price,
        moment=lambda text: f"{datetime.fromisoformat(text):%-d %B %Y, %H:%M} UTC",
        size=humanize.naturalsize,
        duration=lambda seconds: humanize.precisedelta(timedelta(seconds=seconds)),
    )
    environment.tests["email"] = EMAIL.fullmatch
    return environment


def _number(number: int) -> str:
    return f"{number:,}".replace("-", "−")


def _words(number: int | Decimal) -> str:
    import humanize

    return humanize.intword(int(number)).replace("-", "−")


def _money(amount: Decimal) -> str:
    return f"{amount:,.2f}".replace("-", "−")


def _price(amount: Decimal) -> str:
    """Formats ``amount`` with at least two decimals."""
    decimals = -int(amount.normalize().as_tuple().exponent)
    return f"{amount:,.{max(2, decimals)}f}"
