"""Compares the inventory with that of the previous report.

Both CSV files are sorted by bean id, so reading them side by side takes constant memory.
"""

from __future__ import annotations

import csv
import math
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple

from chalicelib.errors import CafeError
from chalicelib.logs import logger
from chalicelib.names import quoted
from chalicelib.reports import files
from chalicelib.reports.earlier import Report
from chalicelib.reports.inventory import COLUMNS, restore
from chalicelib.reports.texts import bean_name, plain, supplier_name

# Maps each kind of change to its words. ``low`` counts beans of both reports that have become low in stock.
KINDS = {
    "new": "new",
    "gone": "gone",
    "up": "with more in stock",
    "down": "with less in stock",
    "low": "now low in stock",
}
PAGE_NAMES = 5
MAIL_NAMES = 2
MAIL_CHARACTERS = 40
BATCH_ROWS = 500
FIELDS = ("bean_id", "quantity", "product_name", "supplier_id", "supplier")
FIELDS_OF = itemgetter(*map(list(COLUMNS).index, FIELDS))
NOTHING_BEFORE = "No previous report to compare with yet."
UNREADABLE = "the changes are unknown, because the earlier report cannot be read."

Fields = tuple[str, ...]

log = logger("comparison")


class Change(NamedTuple):
    """A bean that changed. A quantity is None if it is unknown, or if the bean is not in that report."""

    name: str
    supplier: str
    before: int | None
    quantity: int | None


class Comparison:
    """Counts the changes since the report ``before``, and names a few beans of each kind.

    ``since`` is the time of that report, or None if ``before`` is None or ``UNKNOWN``. ``is_readable`` turns false if
    that report's CSV file is missing, broken or not sorted by id. Beans are known by their ids, so a
    renamed bean is not new. A quantity that is unknown in one report is neither up nor down. The present
    ``low_stock`` is applied to both reports.
    """

    def __init__(self, s3: Any, bucket: str, before: Report | None, low_stock: int) -> None:
        self.since: str | None = before["generatedAt"] if before else None
        self.is_readable = bool(before)
        self._problem = NOTHING_BEFORE if before is None else UNREADABLE if before else UNREADABLE.capitalize()
        self.counts: Counter[str] = Counter()
        self._low_stock = low_stock
        self._named: dict[str, list[tuple[float, float, Change]]] = defaultdict(list)
        self._earlier = _read(s3, bucket, before["csvKey"]) if before else iter(())
        # The next bean of the earlier report, with its id as a number.
        self._ahead: tuple[float, Fields] | None = None

    def follow(self, rows: Iterable[Sequence[str]]) -> Iterator[Sequence[str]]:
        """Yields all rows of the CSV file unchanged, and compares them on the way."""
        return self._follow(iter(rows)) if self.is_readable else iter(rows)

    def _follow(self, lines: Iterator[Sequence[str]]) -> Iterator[Sequence[str]]:
        while batch := list(islice(lines, BATCH_ROWS)):
            self._compare(batch)
            yield from batch
        self._compare([], is_end=True)

    def named(self, kind: str) -> list[Change]:
        """Returns a few beans: those with the largest change or the lowest stock, or else with the lowest ids."""
        return [change for _, _, change in self._named[kind]]

    def text(self) -> str:
        """Returns all changes as one line, which does not contain the time of the previous report."""
        if not self.is_readable:
            return self._problem
        return f"{', '.join(self._words(kind) for kind in KINDS if self.counts[kind]) or 'no changes'}."

    def _words(self, kind: str) -> str:
        # A mail program or the console would turn a URL in a name into a link.
        names = [quoted(each.name[:MAIL_CHARACTERS]).replace("://", ": //") for each in self.named(kind)[:MAIL_NAMES]]
        more = self.counts[kind] - len(names)
        return f"{self.counts[kind]:,} {KINDS[kind]} ({', '.join(names)}{f' and {more:,} more' if more else ''})"

    def _compare(self, rows: list[Sequence[str]], is_end: bool = False) -> None:
        from botocore.exceptions import ClientError

        if not self.is_readable:
            return
        try:
            self._merge(map(FIELDS_OF, rows), is_end)
        except (CafeError, ClientError, csv.Error, ValueError, IndexError) as error:
            # The report itself must not fail because of an older file.
            self.is_readable = False
            log.warning("earlier report not readable", extra={"since": self.since, "reason": str(error)})

    def _merge(self, rows: Iterable[Fields], is_end: bool) -> None:
        number, earlier = self._ahead or self._advance(-math.inf)
        for row in rows:
            own = int(row[0])
            while number < own:
                self._count("gone", 0, number, earlier, _quantity(earlier), None)
                number, earlier = self._advance(number)
            if number > own:
                self._count("new", 0, own, row, None, _quantity(row))
                continue
            if row[1] != earlier[1]:
                self._count_changed(own, earlier, row)
            number, earlier = self._advance(number)
        while is_end and number < math.inf:
            self._count("gone", 0, number, earlier, _quantity(earlier), None)
            number, earlier = self._advance(number)
        self._ahead = number, earlier

    def _advance(self, last: float) -> tuple[float, Fields]:
        earlier = next(self._earlier, None)
        if earlier is None:
            return math.inf, ()
        number = int(earlier[0])
        if number <= last:
            raise ValueError(f"bean {number} is not sorted by its id")
        return number, earlier

    def _count_changed(self, number: int, earlier: Fields, row: Fields) -> None:
        before, quantity = _quantity(earlier), _quantity(row)
        if before is not None and quantity is not None:
            self._count("up" if quantity > before else "down", -abs(quantity - before), number, row, before, quantity)
        if quantity is not None and quantity <= self._low_stock and (before is None or before > self._low_stock):
            self._count("low", quantity, number, row, before, quantity)

    def _count(
        self, kind: str, rank: float, number: float, fields: Fields, before: int | None, quantity: int | None
    ) -> None:
        self.counts[kind] += 1
        named = self._named[kind]
        if len(named) < PAGE_NAMES or (rank, number) < named[-1][:2]:
            _, _, name, supplier_id, supplier = (plain(restore(cell)) for cell in fields)
            change = Change(bean_name(name), supplier_name(supplier_id, supplier), before, quantity)
            insort(named, (rank, number, change))
            del named[PAGE_NAMES:]


def _quantity(fields: Fields) -> int | None:
    return int(fields[1]) if fields[1] else None


def _read(s3: Any, bucket: str, key: str) -> Iterator[Fields]:
    """Yields the ``FIELDS`` of each bean. Raises ``ValueError`` if the CSV file lacks one of these columns."""
    with files.open_text(s3, bucket, key) as (text, _):
        lines = csv.reader(text)
        header = next(lines, [])
        yield from map(itemgetter(*map(header.index, FIELDS)), lines)
