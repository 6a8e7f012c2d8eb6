"""The inventory, from MySQL to a CSV file in the reports bucket.

The file serves two readers: ``render`` makes the report from it, and people open it in a spreadsheet. For them it
starts with a byte order mark, without which Excel reads "Café" as "CafÃ©", and no cell of it runs as a formula.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any

from chalicelib.logs import logger
from chalicelib.reports import files, mysql
from chalicelib.timeline import timestamp

if TYPE_CHECKING:
    from pymysql.connections import Connection

# The file's columns in their order, each with where it comes from. A bean whose supplier is not there has none of the
# supplier's cells: its ``supplier_id`` is empty too, so an id in the file always names a supplier that exists.
COLUMNS = {
    "supplier_id": "suppliers.id",
    "supplier": "suppliers.name",
    "city": "suppliers.city",
    "state": "suppliers.state",
    "email": "suppliers.email",
    "phone": "suppliers.phone",
    "bean_id": "beans.id",
    "type": "beans.type",
    "product_name": "beans.product_name",
    "price": "beans.price",
    "quantity": "beans.quantity",
    "description": "beans.description",
}
# One statement, so one moment: what is imported while it runs is in the next report.
QUERY = (
    f"SELECT {', '.join(COLUMNS.values())}"  # noqa: S608 - only constants  # nosec
    " FROM beans LEFT JOIN suppliers ON suppliers.id = beans.supplier_id ORDER BY beans.id"
)
# Rows that become one piece of the file.
BATCH_ROWS = 500
# All others are text.
NUMBERS = frozenset({"supplier_id", "bean_id", "quantity"})
# Spreadsheets take a cell that begins with one of these for a formula, some of them the wide forms too (＝＋－＠,
# here in UTF-8); the apostrophe is how they write "this is text".
FORMULA = re.compile(rb"[=+\-@\t\r\n']|\xef\xbc[\x9d\x8b\x8d\xa0]")
# What needs quotes around it, by RFC 4180.
QUOTED = re.compile(rb'[",\r\n]')
# The same two in many cells at once, each after a zero byte. A zero byte within a cell may find too many.
ANY_FORMULA = re.compile(rb"\0(?:" + FORMULA.pattern + rb")")

log = logger("inventory")


def read_inventory(connection: Connection[Any], s3: Any, bucket: str, report_id: str, now: datetime) -> dict[str, Any]:
    """Writes the inventory to ``inventory/<report_id>/inventory.csv``, in constant memory however long it is.

    Returns ``reportId``, ``csvKey``, ``rows`` and ``generatedAt``. The connection is of no use afterwards if this
    raises: ``Unavailable`` for S3, PyMySQL's own errors for MySQL.
    """
    key = f"inventory/{report_id}/inventory.csv"
    rows = 0

    def counted(batches: Iterable[list[bytes]]) -> Iterator[list[bytes]]:
        nonlocal rows
        for batch in batches:
            rows += len(batch) // len(COLUMNS)
            yield batch

    with closing(mysql.read_cells(connection, QUERY, BATCH_ROWS * len(COLUMNS))) as batches:
        files.write(
            s3,
            bucket,
            key,
            to_csv(counted(batches)),
            ContentType="text/csv; charset=utf-8",
            ContentDisposition=f'attachment; filename="inventory-{report_id}.csv"',
        )
    log.info("inventory read", extra={"reportId": report_id, "key": key, "rows": rows})
    return {"reportId": report_id, "csvKey": key, "rows": rows, "generatedAt": timestamp(now)}


def to_csv(batches: Iterable[list[bytes]]) -> Iterator[bytes]:
    """The file for ``batches`` of cells in UTF-8, row after row in the order of ``COLUMNS``: a chunk for each batch.

    It is what the csv module writes with RFC 4180's line ends, made of whole columns in a quarter of the time.
    """
    yield ("\ufeff" + ",".join(COLUMNS) + "\r\n").encode()
    for batch in batches:
        columns = [_written(batch[place :: len(COLUMNS)], name not in NUMBERS) for place, name in enumerate(COLUMNS)]
        yield b"\r\n".join(map(b",".join, zip(*columns, strict=True))) + b"\r\n"


def _written(column: list[bytes], text: bool) -> list[bytes]:
    """The cells of a column as they are in the file. Most columns have none that differs, and one search tells."""
    if not text:
        return column
    together = b"\0" + b"\0".join(column)
    if ANY_FORMULA.search(together):
        column = [neutralise(cell) for cell in column]
    if QUOTED.search(together):
        column = [quote(cell) for cell in column]
    return column


def quote(cell: bytes) -> bytes:
    """``cell`` as CSV has it: in quotes if it could not do without them."""
    return b'"' + cell.replace(b'"', b'""') + b'"' if QUOTED.search(cell) else cell


def neutralise(cell: bytes) -> bytes:
    """``cell`` as no spreadsheet runs it: with an apostrophe in front if it could be a formula."""
    return b"'" + cell if FORMULA.match(cell) else cell


def restore(cell: str) -> str:
    """What ``neutralise`` was given."""
    return cell.removeprefix("'")
