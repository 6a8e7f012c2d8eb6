"""A fast reader for large query results that returns the cells as bytes.

PyMySQL makes six calls per cell, and for a large result these calls take nearly all the time. In this module, PyMySQL
only connects, sends the query and reads the columns. The module itself reads the rows, which are packets of MySQL's
text protocol: three bytes for the length, one byte for a sequence number, and then each cell's length and text in the
connection's character set. MySQL 8, Aurora and MariaDB use the same protocol.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from chalicelib.errors import DatabaseRefused

if TYPE_CHECKING:
    from pymysql.connections import Connection

# Maximum size of one read from the connection.
BLOCK_BYTES = 256 * 1024
# Maximum length of a packet. A longer row continues in the next packet.
LONGEST_PACKET = 0xFFFFFF
# A cell's first byte is a length of up to 250, or a code: NULL, or a longer length in the next 2 or 3 bytes. A
# packet's first byte may also be a code that marks the end of the result or an error.
NULL, IN_TWO_BYTES, END, ERROR = 0xFB, 0xFC, 0xFE, 0xFF


def read_cells(connection: Connection[Any], query: str, at_once: int) -> Generator[list[bytes], None, None]:
    """Yields lists of cells, always in whole rows. All lists except the last contain at least ``at_once`` cells.

    NULL becomes ``b""``. Close the generator after use. After closing it or after an error, the connection cannot be
    used. Raises PyMySQL's errors, ``OSError``, and ``DatabaseRefused`` for a row of 16 MB.
    """
    from pymysql.cursors import SSCursor

    cursor = connection.cursor(SSCursor)
    cursor.execute(query)
    result = cursor._result  # type: ignore[attr-defined]
    # Without this, PyMySQL would read the whole result before closing the cursor.
    result.unbuffered_active = False
    yield from _cells(connection._rfile, at_once)  # type: ignore[attr-defined]


def _cells(stream: Any, at_once: int) -> Generator[list[bytes], None, None]:
    from pymysql.err import OperationalError, raise_mysql_exception

    cells: list[bytes] = []
    rest = b""
    while True:
        block = stream.read1(BLOCK_BYTES)
        if not block:
            raise OperationalError(2013, "Lost connection to MySQL server during query")
        data = rest + block
        size = len(data)
        packet = 0
        # This loop takes most of a report's time, so it makes as few calls as possible.
        add = cells.append
        while packet + 4 < size:
            length = data[packet] | data[packet + 1] << 8 | data[packet + 2] << 16
            at = packet + 4
            end = at + length
            if end > size:
                if length == LONGEST_PACKET:
                    raise DatabaseRefused("a row of 16 MB is too long for a report")
                break
            if data[at] == ERROR:
                raise_mysql_exception(data[at:end])
            if data[at] == END:
                if cells:
                    yield cells
                return
            while at < end:
                length = data[at]
                at += 1
                if length >= NULL:
                    if length == NULL:
                        add(b"")
                        continue
                    begin = at + (2 if length == IN_TWO_BYTES else 3)
                    length = int.from_bytes(data[at:begin], "little")
                    at = begin
                next_cell = at + length
                add(data[at:next_cell])
                at = next_cell
            packet = end
        rest = data[packet:]
        if len(cells) >= at_once:
            yield cells
            cells = []
