"""Parses an inventory's CSV file into good rows and bad rows."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from chalicelib.errors import CafeError

COLUMNS = ("supplier_name", "type", "product_name", "price", "description", "quantity")
IDENTITY = ("supplier_name", "type", "product_name")
# MySQL's columns can store at most these values.
TEXT_CHARACTERS = 255
QUANTITY = 2**31 - 1

ROWS = 500_000
LINE_BYTES = 65_536
# The longest valid record has about 3,000 characters, so a record longer than this must lack a quotation mark.
RECORD_CHARACTERS = 8_192
# Lines are read again after each broken quotation mark, so without this limit a single file could take hours.
BROKEN_QUOTES = 1_000
VALUE_CHARACTERS = 100


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


class NotImported(CafeError):
    """The uploaded file cannot be imported. The error's message contains the reason and, if possible, the line."""


def read_rows(chunks: Iterable[bytes]) -> Iterator[Row | BadRow]:
    """Yields the rows of an inventory in the file's order. Raises ``NotImported`` if the file is not an inventory.

    White space around cells is removed, and empty rows are skipped.
    """
    records = (
        (line, cells) for line, cells in _read_records(_lines(chunks)) if not isinstance(cells, list) or any(cells)
    )
    header = next(records, None)
    if header is None:
        raise NotImported("the file is empty")
    order = _column_order(*header)
    for count, (line, cells) in enumerate(records, 1):
        if count > ROWS:
            raise NotImported(f"the file has more than {ROWS:,} rows; split it into smaller files")
        yield BadRow(line, cells) if isinstance(cells, str) else _parse_row(line, cells, order)


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Yields the lines of a UTF-8 file with their line endings, but without a byte order mark."""
    for number, line in enumerate(_split(chunks), 1):
        if len(line) > LINE_BYTES:
            raise NotImported(f"line {number:,} is longer than {LINE_BYTES:,} bytes, so this is not an inventory")
        if b"\0" in line:
            raise NotImported(f"line {number:,} contains a NUL byte, so this is not a CSV file in UTF-8")
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            bad = line[error.start]
            raise NotImported(
                f"line {number:,} is not in UTF-8 (byte {error.start + 1:,} of the line is 0x{bad:02X}); "
                "save the file as CSV UTF-8"
            ) from error


def _split(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        lines = (rest + chunk).splitlines(keepends=True)
        # The last line may continue in the next chunk, even if it ends with CR, because an LF may follow.
        rest = lines.pop() if lines else b""
        yield from lines
        if len(rest) > LINE_BYTES:
            break
    if rest:
        yield rest


def _read_records(lines: Iterator[str]) -> Iterator[tuple[int, list[str] | str]]:
    """Yields the first line's number and the cells of each CSV record.

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

    number = 1
    broken = 0
    while True:
        try:
            for cells in csv.reader(feed(), strict=True, skipinitialspace=True):
                yield number, [clean(cell) for cell in cells]
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


def clean(cell: str) -> str:
    """Removes white space around ``cell``, and converts the text to Unicode's composed form."""
    # Depending on the keyboard, "é" is one code point or two, but both forms must match the same bean.
    return unicodedata.normalize("NFC", cell.strip())


def _column_order(line: int, cells: list[str] | str) -> list[int]:
    """Returns the position of each column of ``COLUMNS`` in the header."""
    names = [cell.lower() for cell in cells] if isinstance(cells, list) else []
    unknown = ", ".join(name for name in names if name not in COLUMNS)
    problems = {
        "missing": ", ".join(name for name in COLUMNS if name not in names),
        "unknown": quoted(unknown) if unknown else "",
        "repeated": ", ".join(name for name in COLUMNS if names.count(name) > 1),
    }
    if any(problems.values()):
        text = "; ".join(f"{problem}: {names}" for problem, names in problems.items() if names)
        raise NotImported(
            f"line {line:,} must name the columns {', '.join(COLUMNS)}, in any order and separated by commas ({text})"
        )
    return [names.index(name) for name in COLUMNS]


def _parse_row(line: int, cells: list[str], order: list[int]) -> Row | BadRow:
    if len(cells) != len(order):
        return BadRow(line, f"it has {len(cells)} cells instead of {len(order)}")
    supplier_name, type_, product_name, price, description, quantity = (cells[index] for index in order)
    texts = (supplier_name, type_, product_name, price, description)
    problems = [f"{name} is empty" for name, text in zip(IDENTITY, texts, strict=False) if not text]
    problems += [
        f"{name} is longer than {TEXT_CHARACTERS} characters"
        for name, text in zip(COLUMNS, texts, strict=False)
        if len(text) > TEXT_CHARACTERS
    ]
    if not re.fullmatch("[0-9]{1,10}", quantity) or int(quantity) > QUANTITY:
        problems.append(f"quantity is {quoted(quantity)} but must be a whole number from 0 to {QUANTITY:,}")
    if problems:
        return BadRow(line, "; ".join(problems))
    return Row(line, supplier_name, type_, product_name, price or None, description or None, int(quantity))


def quoted(text: str) -> str:
    """Returns ``text`` in quotation marks, on one line and shortened to 100 characters."""
    cut = text if len(text) <= VALUE_CHARACTERS else text[: VALUE_CHARACTERS - 1] + "…"
    shown = (each if each.isprintable() else f"\\u{ord(each):04x}" for each in cut)
    return f"'{''.join(shown)}'"
