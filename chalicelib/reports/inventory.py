"""Exports the inventory from MySQL to a CSV file in the reports bucket.

The module ``render`` creates the report's page from the CSV file. Users can also open the CSV file in a spreadsheet.
The file starts with a byte order mark, because otherwise Excel reads "Café" as "CafÃ©". Cells are escaped so that no
spreadsheet runs them as formulas.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib import parse

from chalicelib.logs import logger
from chalicelib.reports import files, folder, mysql
from chalicelib.timeline import timestamp

if TYPE_CHECKING:
    from pymysql.connections import Connection

# Maps the columns of the CSV file, in order, to columns of the database. If a bean's supplier does not exist in the
# database, the bean's ``supplier_id`` is empty in the CSV file.
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
# A supplier usually has many beans. The query selects its columns last, and ``to_csv`` escapes them once for all beans.
SELECTED_COLUMNS = sorted(COLUMNS, key=lambda name: COLUMNS[name].startswith("suppliers."))
BEAN_COLUMNS = SELECTED_COLUMNS[: SELECTED_COLUMNS.index("supplier_id")]
SUPPLIER_CACHE_SIZE = 4_000
# A single SQL statement reads a consistent snapshot. Rows that are imported during the query appear in the next report.
QUERY = (
    f"SELECT {', '.join(COLUMNS[name] for name in SELECTED_COLUMNS)}"  # noqa: S608 - only constants  # nosec
    " FROM beans LEFT JOIN suppliers ON suppliers.id = beans.supplier_id ORDER BY beans.id"
)
# Each chunk of the CSV file except the last has at least this many rows. Larger chunks would need more memory without
# saving time.
BATCH_ROWS = 200
# These columns contain numbers. All other columns contain text.
NUMBERS = frozenset({"supplier_id", "bean_id", "quantity"})
# Spreadsheets read a cell that starts with one of these characters as a formula. Some spreadsheets also accept the
# full-width characters ＝＋－＠. The pattern contains these characters in UTF-8. A leading apostrophe marks a cell as
# text.
FORMULA = re.compile(rb"[=+\-@\t\r\n']|\xef\xbc[\x9d\x8b\x8d\xa0]")
NEUTRALISED = re.compile("'[=+\\-@\t\r\n'＝＋－＠]")
# RFC 4180 requires quotation marks around a cell that contains one of these characters.
QUOTED = re.compile(rb'[",\r\n]')
# This pattern finds formulas in the joined cells of a column. A zero byte precedes each cell. A zero byte inside a cell
# can cause a false match, but a false match only costs time.
ANY_FORMULA = re.compile(rb"\0(?:" + FORMULA.pattern + rb")")

log = logger("inventory")


def read_inventory(connection: Connection[Any], s3: Any, bucket: str, report_id: str, now: datetime) -> dict[str, Any]:
    """Writes the inventory to ``inventory/<report_id>/inventory.csv`` in S3, using constant memory.

    Returns ``reportId``, ``csvKey``, ``rows`` and ``generatedAt``. Raises ``Unavailable`` if S3 fails, and a PyMySQL
    error if MySQL fails. After an error, the connection to MySQL cannot be reused.
    """
    key = f"{folder('inventory', report_id)}/inventory.csv"
    rows = 0

    def counted(batches: Iterable[mysql.Batch]) -> Iterator[mysql.Batch]:
        nonlocal rows
        for cells, rests in batches:
            rows += len(rests)
            yield cells, rests

    with closing(mysql.read_rows(connection, QUERY, len(BEAN_COLUMNS), BATCH_ROWS)) as batches:
        files.write(
            s3,
            bucket,
            key,
            to_csv(counted(batches)),
            ContentType="text/csv; charset=utf-8",
            # A header contains only ASCII, but an execution's name may contain any letter.
            ContentDisposition=f'attachment; filename="inventory-{parse.quote(report_id)}.csv"',
        )
    log.info("inventory read", extra={"reportId": report_id, "key": key, "rows": rows})
    return {"reportId": report_id, "csvKey": key, "rows": rows, "generatedAt": timestamp(now)}


def to_csv(batches: Iterable[mysql.Batch]) -> Iterator[bytes]:
    """Yields the header of the CSV file, and then a chunk for each batch from ``mysql.read_rows``.

    Each row has the cells of ``BEAN_COLUMNS``, and its rest is the supplier. Python's csv module would write the same
    file, but processing whole columns is faster.
    """
    yield ("\ufeff" + ",".join(COLUMNS) + "\r\n").encode()
    supplier = lru_cache(SUPPLIER_CACHE_SIZE)(_escape_supplier)
    for cells, rests in batches:
        columns = [
            _escape_column(cells[place :: len(BEAN_COLUMNS)], name not in NUMBERS)
            for place, name in enumerate(BEAN_COLUMNS)
        ]
        yield b"\r\n".join(map(b",".join, zip(map(supplier, rests), *columns, strict=True))) + b"\r\n"


def _escape_supplier(rest: bytes) -> bytes:
    supplier_id, *texts = mysql.split_cells(rest)
    return b",".join([supplier_id, *(quote(neutralise(text)) for text in texts)])


def _escape_column(column: list[bytes], is_text: bool) -> list[bytes]:
    """Escapes the cells of one column for CSV, unless a search shows that no cell needs escaping."""
    if not is_text:
        return column
    joined = b"\0" + b"\0".join(column)
    if ANY_FORMULA.search(joined):
        column = [neutralise(cell) for cell in column]
    # For a whole column, these searches are faster than ``QUOTED``. Commas are common in descriptions.
    if b'"' in joined or b"\r" in joined or b"\n" in joined:
        return [quote(cell) for cell in column]
    return [b'"' + cell + b'"' if b"," in cell else cell for cell in column] if b"," in joined else column


def quote(cell: bytes) -> bytes:
    """Returns ``cell`` as CSV, in quotation marks if necessary."""
    return b'"' + cell.replace(b'"', b'""') + b'"' if QUOTED.search(cell) else cell


def neutralise(cell: bytes) -> bytes:
    """Adds an apostrophe before ``cell`` if a spreadsheet could run the cell as a formula."""
    return b"'" + cell if FORMULA.match(cell) else cell


def restore(cell: str) -> str:
    """Undoes ``neutralise``. Keeps an apostrophe that ``neutralise`` did not add."""
    return cell[1:] if NEUTRALISED.match(cell) else cell
