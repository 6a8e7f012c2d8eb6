"""Reads large query results quickly and returns the cells as bytes.

PyMySQL makes six calls per cell, and for a large result these calls take nearly all the time. This module uses PyMySQL
only to connect, send the query and read the column definitions. The module reads the rows itself.

Each row is a packet in the MySQL text protocol. A packet begins with three bytes for its length and one byte for a
sequence number. The length and the text of each cell follow, in the connection's character set. MySQL 8, Aurora and
MariaDB use the same protocol.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from chalicelib.errors import DatabaseRefused

if TYPE_CHECKING:
    from pymysql.connections import Connection

Batch = tuple[list[bytes], list[bytes]]

# Each read from the connection returns at most this many bytes.
BLOCK_BYTES = 32 * 1024
# A packet has at most this many bytes. A longer row continues in the next packet.
LONGEST_PACKET = 0xFFFFFF
# If a cell has at most 250 bytes, its first byte contains the length. Otherwise, the first byte is a code for NULL, or
# for a length in the next two or three bytes. The first byte of a packet may also be a code for an error or for the end
# of the result.
NULL, IN_TWO_BYTES, END, ERROR = 0xFB, 0xFC, 0xFE, 0xFF


def read_rows(connection: Connection[Any], query: str, columns: int, at_once: int) -> Generator[Batch, None, None]:
    """Yields batches of whole rows. All batches except the last contain at least ``at_once`` rows.

    A batch is a pair of lists: the first ``columns`` cells of all rows, and the rest of each row as unparsed bytes. The
    function ``split_cells`` parses a rest.
    NULL becomes ``b""``. The caller must close the generator after use. The connection cannot be reused after the
    generator is closed or raises an error. Raises ``DatabaseRefused`` for a row of 16 MB. Raises a PyMySQL error or
    ``OSError`` if the connection or the query fails.
    """
    from pymysql.cursors import SSCursor

    cursor = connection.cursor(SSCursor)
    cursor.execute(query)
    result = cursor._result  # type: ignore[attr-defined]
    # Prevents PyMySQL from reading the rest of the result when the cursor is closed.
    result.unbuffered_active = False
    yield from _rows(connection._rfile, columns, at_once)  # type: ignore[attr-defined]


def split_cells(rest: bytes) -> list[bytes]:
    """Returns the cells in the rest of a row."""
    cells: list[bytes] = []
    at = 0
    while at < len(rest):
        at = _read_cell(rest, at, cells)
    return cells


def _read_cell(data: bytes, at: int, cells: list[bytes]) -> int:
    """Adds the cell at ``at`` to ``cells``, and returns where the next cell begins."""
    length = data[at]
    begin = at + 1
    if length == NULL:
        length = 0
    elif length > NULL:
        begin += 2 if length == IN_TWO_BYTES else 3
        length = int.from_bytes(data[at + 1 : begin], "little")
    cells.append(data[begin : begin + length])
    return begin + length


def _rows(stream: Any, columns: int, at_once: int) -> Generator[Batch, None, None]:
    from pymysql.err import OperationalError, raise_mysql_exception

    cells: list[bytes] = []
    rests: list[bytes] = []
    places = range(columns)
    left = b""
    while True:
        block = stream.read1(BLOCK_BYTES)
        if not block:
            raise OperationalError(2013, "Lost connection to MySQL server during query")
        data = left + block
        size = len(data)
        packet = 0
        # This loop takes most of a report's time, so it avoids function calls where possible.
        add, add_rest = cells.append, rests.append
        while packet + 4 < size:
            length = data[packet] | data[packet + 1] << 8 | data[packet + 2] << 16
            at = packet + 4
            end = at + length
            if end > size:
                if length == LONGEST_PACKET:
                    raise DatabaseRefused("a row of 16 MB is too long for a report")
                break
            if data[at] >= END:
                if data[at] == ERROR:
                    raise_mysql_exception(data[at:end])
                if rests:
                    yield cells, rests
                return
            for _ in places:
                length = data[at]
                if length < NULL:
                    next_cell = at + length + 1
                    add(data[at + 1 : next_cell])
                    at = next_cell
                else:
                    at = _read_cell(data, at, cells)
            add_rest(data[at:end])
            packet = end
        left = data[packet:]
        if len(rests) >= at_once:
            yield cells, rests
            cells, rests = [], []
