"""Parses an uploaded inventory into good rows and bad rows."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from operator import itemgetter
from typing import Any, NamedTuple

from chalicelib.names import clean, fold, quoted, shortened
from chalicelib.reports.inventory import restore
from chalicelib.uploads.detection import COLUMNS, HEAD_BYTES, REPORT_COLUMNS, SAVE, Column, NotImported, detect
from chalicelib.uploads.lines import Lines

IDENTITY = COLUMNS[:3]
# MySQL's columns can store at most these values.
TEXT_CHARACTERS = 255
QUANTITY = 2**31 - 1
# A decimal part must be zero. Three zeros could also belong to a number with separators between thousands, but spaces
# between thousands are unambiguous.
WHOLE_NUMBER = re.compile(r"([0-9]{1,10}|[0-9]{1,3}(?: [0-9]{3})+)(?:[.,](?:0{1,2}|0{4,9}))?")

ROWS = 500_000
# A valid record has at most about 5,000 characters. In a longer one, a quotation mark is missing.
RECORD_CHARACTERS = 8_192
# Lines are read again after each broken quotation mark, so without this limit a single file could take hours.
BROKEN_QUOTES = 1_000
CELLS_SHOWN = 20
COLUMNS_SHOWN = 20


class Row(NamedTuple):
    """A row that describes one bean. ``line`` is the number of the row's first line, counted from 1."""

    line: int
    supplier_name: str
    type: str
    product_name: str
    price: str | None
    description: str | None
    quantity: int


class BadRow(NamedTuple):
    """A row that cannot be imported. ``line`` is the number of the row's first line, counted from 1."""

    line: int
    reason: str


class Reading:
    """The rows of an uploaded inventory, in the file's order, which can be read once. Empty rows are skipped.

    ``format`` is known at once. ``unused_columns`` is complete after the last row. Creating or reading a ``Reading``
    raises ``NotImported`` if the file is not an inventory.
    """

    def __init__(self, chunks: Iterable[bytes], encoding: str | None = None) -> None:
        rest = iter(chunks)
        head = b""
        while len(head) < HEAD_BYTES and (chunk := next(rest, b"")):
            head += chunk
        self.format = detect(head, encoding)
        mark = self.format.mark
        # A byte order mark says that the file is not in Windows-1252.
        self._lines = Lines(chain([head[len(mark) :]], rest), self.format.encoding, looks_like_1252=not mark)
        columns = self.format.columns
        self._named = [column for column in columns if column.name and column.position - 1 not in self.format.order]
        self._nameless = [column for column in columns if not column.name]
        self._filled: set[Column] = set()
        # A row may lack the cells of nameless columns at its end, which some spreadsheets leave out.
        self._width = max(column.position for column in columns if column.name)
        self._pick = itemgetter(*self.format.order)
        self._labels = REPORT_COLUMNS if self.format.is_report else COLUMNS

    @property
    def unused_columns(self) -> list[Column]:
        """The columns that are not imported, except nameless columns that were empty in all rows so far."""
        return sorted([*self._named, *self._filled])

    @property
    def facts(self) -> dict[str, Any]:
        """The facts for a notification: the encoding, the delimiter and the first unused columns."""
        unused = [{"position": place, "name": shortened(name)} for place, name in self.unused_columns[:COLUMNS_SHOWN]]
        return {"encoding": self.format.encoding, "delimiter": self.format.delimiter, "unusedColumns": unused}

    def __iter__(self) -> Iterator[Row | BadRow]:
        lines = iter(self._lines)
        for _ in islice(lines, self.format.lines):
            pass
        rows = 0
        changed: dict[str, None] = {}
        for line, cells in _read_records(lines, self.format.delimiter, self.format.lines + 1):
            row = BadRow(line, cells) if isinstance(cells, str) else self._parse(line, cells)
            if row is None:
                continue
            rows += 1
            if rows > ROWS:
                raise NotImported(f"the file has more than {ROWS:,} rows; split it into smaller files")
            if not self._lines.problem:
                yield row
            elif len(changed) < CELLS_SHOWN and not isinstance(cells, str):
                used = [cells[place] for place in self.format.order if place < len(cells)]
                changed.update(dict.fromkeys(shortened(fold(cell)) for cell in used if not cell.isascii()))
        if self._lines.problem:
            raise self._not_in_utf8([*changed][:CELLS_SHOWN])

    def _not_in_utf8(self, cells: list[str]) -> NotImported:
        problem = self._lines.problem
        if not self._lines.looks_like_1252:
            return NotImported(f"{problem}; {SAVE}")
        example = f", in which it reads {quoted(cells[0])}" if cells else ""
        return NotImported(
            f"{problem}: the file looks like Windows-1252{example}; {SAVE}, or preview it as Windows-1252",
            "cp1252",
            cells,
        )

    def _parse(self, line: int, cells: list[str]) -> Row | BadRow | None:
        """Returns the row, or None if all its cells are empty."""
        size, most = len(cells), len(self.format.columns)
        if size < self._width or (size > most and any(map(fold, cells[most:]))):
            reason = f"it has {size:,} cells instead of {self._width if size < self._width else most:,}"
            return BadRow(line, reason) if any(map(fold, cells)) else None
        for column in self._nameless:
            if size >= column.position and column not in self._filled and fold(cells[column.position - 1]):
                self._filled.add(column)
        texts = self._pick(cells)
        if self.format.is_report:
            texts = map(restore, texts)
        supplier_name, type_, product_name, price, description, amount = texts
        names = fold(supplier_name), fold(type_), fold(product_name)
        price, description, quantity = clean(price), clean(description), _quantity(amount)
        longest = max(map(len, (*names, price, description)))
        if not all(names) or longest > TEXT_CHARACTERS or quantity is None:
            problems = self._problems((*names, price, description), amount)
            return BadRow(line, "; ".join(problems)) if any(map(fold, cells)) else None
        return Row(line, *names, price or None, description or None, quantity)

    def _problems(self, texts: tuple[str, ...], amount: str) -> Iterator[str]:
        for label, text in zip(self._labels[: len(IDENTITY)], texts, strict=False):
            if not text:
                yield f"{label} is empty"
        for label, text in zip(self._labels, texts, strict=False):
            if len(text) > TEXT_CHARACTERS:
                yield f"{label} is longer than {TEXT_CHARACTERS} characters"
        if not fold(amount):
            yield "quantity is empty"
        elif _quantity(amount) is None:
            yield f"quantity is {quoted(clean(amount))} but must be a whole number from 0 to {QUANTITY:,}"


def read_rows(chunks: Iterable[bytes], encoding: str | None = None) -> Reading:
    """Returns the rows of an inventory. Raises ``NotImported`` if the file's first bytes are not an inventory.

    ``encoding`` is ``cp1252`` to read the file as Windows-1252, and otherwise the encoding is detected.
    """
    return Reading(chunks, encoding)


def _read_records(lines: Iterator[str], delimiter: str, number: int) -> Iterator[tuple[int, list[str] | str]]:
    """Yields the first line's number and the cells of each CSV record. The first record begins on line ``number``.

    If the quotation marks of a record are broken, yields a reason instead of the cells. The next line then begins a new
    record, so a missing quotation mark affects only one row.
    """
    again: deque[str] = deque()
    record: list[str] = []

    def feed() -> Iterator[str]:
        size = 0
        while (line := again.popleft() if again else next(lines, None)) is not None:
            size = size + len(line) if record else len(line)
            record.append(line)
            if len(record) > 1 and size > RECORD_CHARACTERS:
                raise csv.Error
            yield line

    broken = 0
    while True:
        try:
            for cells in csv.reader(feed(), delimiter=delimiter, strict=True, skipinitialspace=True):
                yield number, cells
                number += len(record)
                record.clear()
        except csv.Error:
            broken += 1
            if broken > BROKEN_QUOTES:
                raise NotImported(
                    f"more than {BROKEN_QUOTES:,} rows have broken quotes, the last on line {number:,}"
                ) from None
            yield number, "a quotation mark is not closed or is followed by text"
            again.extendleft(reversed(record[1:]))
            record.clear()
            number += 1
        else:
            return


def _quantity(text: str) -> int | None:
    """Returns a quantity such as ``40``, ``40.0`` or ``1 200``, or None if it is not a whole number in range."""
    if not (text.isascii() and text.isdigit()):
        match = WHOLE_NUMBER.fullmatch(fold(text))
        if not match:
            return None
        text = match[1].replace(" ", "")
    return int(text) if len(text) <= 10 and int(text) <= QUANTITY else None
