"""Encodes the MySQL response to a query as packets of the wire protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any, cast

from chalicelib.reports import inventory, mysql

Cell = str | bytes | int | None
Row = tuple[Cell, ...]

END = b"\xfe\0\0\2\0"
BLOCK_BYTES = 16_000


def in_utf8(cell: Cell) -> bytes:
    return b"" if cell is None else cell if isinstance(cell, bytes) else str(cell).encode()


def _with_length(cell: Cell) -> bytes:
    if cell is None:
        return b"\xfb"
    text = in_utf8(cell)
    size = len(text)
    if size < 251:
        return bytes([size]) + text
    return (b"\xfc" + size.to_bytes(2, "little") if size < 65_536 else b"\xfd" + size.to_bytes(3, "little")) + text


def packet(body: bytes, number: int = 0) -> bytes:
    return len(body).to_bytes(3, "little") + bytes([number % 256]) + body


def packets(rows: Iterable[Row], last: bytes | None = END) -> Iterator[bytes]:
    """Yields one packet per row, then ``last``. If ``last`` is None, the connection is lost after the rows."""
    number = 0
    for number, row in enumerate(rows, 1):
        yield packet(b"".join(map(_with_length, row)), number)
    if last is not None:
        yield packet(last, number + 1)


class Connection:
    """Fakes a PyMySQL connection with one unread response.

    ``rest`` is an iterator over the rows that have not been sent yet. The response ends with ``last``, or with a lost
    connection if ``last`` is None.
    """

    def __init__(self, rows: Iterable[Row], last: bytes | None = END, block_bytes: int = BLOCK_BYTES) -> None:
        self.answer = SimpleNamespace(unbuffered_active=True)
        self.rest = iter(rows)
        self._packets = packets(self.rest, last)
        self._waiting = bytearray()
        self._block_bytes = block_bytes
        self._rfile = self

    def cursor(self, kind: type) -> Connection:
        self.kind = kind
        return self

    def execute(self, query: str) -> None:
        self.query = query
        self._result = self.answer

    def read1(self, size: int) -> bytes:
        size = min(size, self._block_bytes)
        while len(self._waiting) < size and (more := next(self._packets, b"")):
            self._waiting += more
        taken = bytes(self._waiting[:size])
        del self._waiting[:size]
        return taken


def selected(rows: Iterable[Row]) -> Iterator[Row]:
    """Returns rows of the CSV file with the cells in the order in which the inventory's query selects them."""
    places = [list(inventory.COLUMNS).index(name) for name in inventory.SELECTED_COLUMNS]
    return (tuple(row[place] for place in places) for row in rows)


def as_csv(rows: Iterable[Row]) -> bytes:
    """Returns the CSV file of an inventory report."""
    connection = cast("Any", Connection(selected(rows)))
    return b"".join(inventory.to_csv(mysql.read_rows(connection, "", len(inventory.BEAN_COLUMNS), 1)))
