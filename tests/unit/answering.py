"""MySQL's answer to a query, in the packets that MySQL sends, for the tests of more than one module."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from types import SimpleNamespace

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
    """A packet for each row, and ``last`` after them, unless the connection is lost there."""
    number = 0
    for number, row in enumerate(rows, 1):
        yield packet(b"".join(map(_with_length, row)), number)
    if last is not None:
        yield packet(last, number + 1)


class Connection:
    """A connection of PyMySQL with one answer, of which no row has been read; ``rest`` are those still to come.

    With ``last`` the answer ends with that instead of MySQL's word for the end: None is a lost connection.
    """

    def __init__(self, rows: Iterable[Row], last: bytes | None = END, block_bytes: int = BLOCK_BYTES) -> None:
        self.answer = SimpleNamespace(unbuffered_active=True)
        self.rest = iter(rows)
        self._bytes = chain.from_iterable(packets(self.rest, last))
        self._block_bytes = block_bytes
        self._rfile = self

    def cursor(self, kind: type) -> Connection:
        self.kind = kind
        return self

    def execute(self, query: str) -> None:
        self.query = query
        self._result = self.answer

    def read1(self, size: int) -> bytes:
        return bytes(byte for _, byte in zip(range(min(size, self._block_bytes)), self._bytes, strict=False))
