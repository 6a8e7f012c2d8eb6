"""The rows of MySQL's answer to a query, cell by cell as bytes: the way for many of them.

PyMySQL makes six calls for each cell of a row, so that of a long answer nearly all the time is its own. It still
connects, asks, and reads what the columns are; only the rows that follow are read here. They come in packets of MySQL's
text protocol: three bytes of length, one that numbers it, and then for each cell its length and its text, which the
server has written in the connection's character set. MySQL 8, Aurora and MariaDB do all of that alike.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from chalicelib.errors import DatabaseRefused

if TYPE_CHECKING:
    from pymysql.connections import Connection

# What is read from the connection at once, if as much is there.
BLOCK_BYTES = 256 * 1024
# A longer row continues in the next packet.
LONGEST_PACKET = 0xFFFFFF
# The first byte of a cell is its length up to 250, or says that it is NULL, or that the length is in the next 2 or 3
# bytes. The first byte of a packet can also say that it is no row, but the end or an error.
NULL, IN_TWO_BYTES, END, ERROR = 0xFB, 0xFC, 0xFE, 0xFF


def read_cells(connection: Connection[Any], query: str, at_once: int) -> Generator[list[bytes], None, None]:
    """The cells of the answer row after row, in lists of whole rows and at least ``at_once`` cells, the last shorter.

    NULL is ``b""``. Close the generator: what it has not taken is never read, so after that, as after an error, the
    connection is of no use. Raises PyMySQL's own errors, ``OSError``, and ``DatabaseRefused`` for a row of 16 MB.
    """
    from pymysql.cursors import SSCursor

    cursor = connection.cursor(SSCursor)
    cursor.execute(query)
    result = cursor._result  # type: ignore[attr-defined]
    # From here on nothing is left for PyMySQL, which would read the whole answer before it lets go of the cursor.
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
        # One loop without a call but for the cell itself: this is where a report's time goes.
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
