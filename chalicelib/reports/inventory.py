"""The inventory, from MySQL to a CSV file in the reports bucket.

The file serves two readers: ``render`` makes the report from it, and people open it in a spreadsheet. For them it
starts with a byte order mark, without which Excel reads "Café" as "CafÃ©", and no cell of it runs as a formula.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any

from chalicelib.logs import logger
from chalicelib.reports import files
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
BATCH_ROWS = 2_000
# Spreadsheets take a cell that begins with one of these for a formula, some of them the wide forms too; the apostrophe
# is how they write "this is text".
FORMULA_STARTS = frozenset("=+-@＝＋－＠\t\r\n'")

log = logger("inventory")


def read_inventory(connection: Connection[Any], s3: Any, bucket: str, report_id: str, now: datetime) -> dict[str, Any]:
    """Writes the inventory to ``inventory/<report_id>/inventory.csv``, in constant memory however long it is.

    Returns ``reportId``, ``csvKey``, ``rows`` and ``generatedAt``. The connection is of no use afterwards if this
    raises: ``Unavailable`` for S3, PyMySQL's own errors for MySQL.
    """
    key = f"inventory/{report_id}/inventory.csv"
    rows = 0

    def counted(batches: Iterable[list[Row]]) -> Iterator[list[Row]]:
        nonlocal rows
        for batch in batches:
            rows += len(batch)
            yield batch

    with closing(_select(connection)) as batches:
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


Row = tuple[str | int | None, ...]


def _select(connection: Connection[Any]) -> Generator[list[Row], None, None]:
    from pymysql.cursors import SSCursor

    cursor = connection.cursor(SSCursor)
    try:
        cursor.execute(QUERY)
        while batch := cursor.fetchmany(BATCH_ROWS):
            yield list(batch)
    finally:
        # After a failure PyMySQL would read the rest of the answer, a million rows perhaps, before it lets go of it.
        result = cursor._result  # type: ignore[attr-defined]
        if result is not None:
            result.unbuffered_active = False


def to_csv(batches: Iterable[list[Row]]) -> Iterator[bytes]:
    """The file for ``batches`` of rows in the order of ``COLUMNS``, a chunk for each batch."""
    text = io.StringIO()
    # RFC 4180's line end. It also makes the csv module put quotes around a cell that has a line break of either kind.
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    yield ("\ufeff" + text.getvalue()).encode()
    for batch in batches:
        text.seek(0)
        text.truncate()
        writer.writerows([[neutralise(cell) if isinstance(cell, str) else cell for cell in row] for row in batch])
        yield text.getvalue().encode()


def neutralise(cell: str) -> str:
    """``cell`` as no spreadsheet runs it: with an apostrophe in front if it could be a formula."""
    return "'" + cell if cell and cell[0] in FORMULA_STARTS else cell


def restore(cell: str) -> str:
    """What ``neutralise`` was given."""
    return cell.removeprefix("'")
