"""Imports an inventory's rows into MySQL. The table ``uploads`` ensures that each S3 event is imported only once.

Rows are inserted into a temporary table in batches of 1,000, so memory use does not grow with the file. Three SQL
statements then merge the temporary table into the inventory. All functions in this module use the caller's transaction.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chalicelib.errors import DatabaseRefused
from chalicelib.names import quoted
from chalicelib.uploads import undoing
from chalicelib.uploads.matching import BAD_ROWS_NAMED, match_beans, match_suppliers
from chalicelib.uploads.rows import ROWS, BadRow, Row

if TYPE_CHECKING:
    from pymysql.cursors import Cursor

ReportBad = Callable[[BadRow], None]

ROWS_AT_ONCE = 1_000

CREATE_STAGING = """
    CREATE TEMPORARY TABLE upload_rows (
        line INT NOT NULL,
        supplier_name VARCHAR(255) NOT NULL,
        type VARCHAR(255) NOT NULL,
        product_name VARCHAR(255) NOT NULL,
        price VARCHAR(255),
        description VARCHAR(255),
        quantity INT NOT NULL,
        earlier_line INT,
        PRIMARY KEY (supplier_name, type, product_name)
    ) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin
"""
STAGE_ROWS = """
    INSERT INTO upload_rows (line, supplier_name, type, product_name, price, description, quantity)
    VALUES (%s, %s, %s, %s, %s, %s, %s)
    ON DUPLICATE KEY UPDATE earlier_line = line, line = VALUES(line), price = VALUES(price),
        description = VALUES(description), quantity = VALUES(quantity)
"""
REPEATED_ROWS = (
    "SELECT earlier_line, line FROM upload_rows WHERE earlier_line IS NOT NULL ORDER BY earlier_line LIMIT %s"
)
# Creates missing suppliers and locks all suppliers in the file, in the order of their names. Two imports that share
# suppliers therefore run one after the other, without a deadlock.
LOCK_SUPPLIERS = """
    INSERT INTO suppliers (name) SELECT DISTINCT supplier_name FROM upload_rows ORDER BY supplier_name
    ON DUPLICATE KEY UPDATE suppliers.name = suppliers.name
"""
# Finds a supplier that could not be created, because an older table's collation treats two spellings as the same name.
MISSING_SUPPLIER = """
    SELECT incoming.supplier_name FROM (SELECT DISTINCT supplier_name FROM upload_rows) AS incoming
    LEFT JOIN suppliers FORCE INDEX (suppliers_name) ON suppliers.name = incoming.supplier_name
    WHERE suppliers.id IS NULL LIMIT 1
"""
# UPDATE_BEANS and INSERT_BEANS fix the join order and keys, because MySQL has no statistics for a new temporary table.
# A different query plan might lock all suppliers, or read all beans for each row.
UPDATE_BEANS = """
    UPDATE upload_rows AS incoming
    STRAIGHT_JOIN suppliers FORCE INDEX (suppliers_name) ON suppliers.name = incoming.supplier_name
    STRAIGHT_JOIN beans FORCE INDEX (beans_identity) ON beans.supplier_id = suppliers.id
        AND beans.type = incoming.type AND beans.product_name = incoming.product_name
    SET beans.price = incoming.price, beans.description = incoming.description, beans.quantity = incoming.quantity
    WHERE NOT (beans.price <=> incoming.price AND beans.description <=> incoming.description
        AND beans.quantity <=> incoming.quantity)
"""
# A single INSERT … ON DUPLICATE KEY UPDATE could update and insert beans, but would use up an id for every imported
# row.
INSERT_BEANS = """
    INSERT INTO beans (supplier_id, type, product_name, price, description, quantity)
    SELECT suppliers.id, incoming.type, incoming.product_name, incoming.price, incoming.description, incoming.quantity
    FROM upload_rows AS incoming
    STRAIGHT_JOIN suppliers FORCE INDEX (suppliers_name) ON suppliers.name = incoming.supplier_name
    LEFT JOIN beans AS existing FORCE INDEX (beans_identity) ON existing.supplier_id = suppliers.id
        AND existing.type = incoming.type AND existing.product_name = incoming.product_name
    WHERE existing.id IS NULL
"""


@dataclass
class Imported:
    """The result of an import: row counts and the first bad rows. ``undoable`` is false for very large imports."""

    new: int = 0
    updated: int = 0
    unchanged: int = 0
    bad: int = 0
    bad_rows: list[BadRow] = field(default_factory=list)
    undoable: bool = False

    @property
    def good(self) -> int:
        return self.new + self.updated + self.unchanged

    @property
    def counts(self) -> dict[str, int]:
        return {"new": self.new, "updated": self.updated, "unchanged": self.unchanged, "bad": self.bad}


@dataclass
class Staged:
    """The rows of a file in the temporary table: their number, the number of bad rows, and the first bad rows.

    The ids are the highest ids before the import, by which the rows that it adds are recognised.
    """

    rows: int = 0
    bad: int = 0
    bad_rows: list[BadRow] = field(default_factory=list)
    last_supplier: int = 0
    last_bean: int = 0

    def refuse(self, count: int, rows: Iterable[BadRow], report: ReportBad | None) -> None:
        """Counts bad rows, of which ``rows`` are the first."""
        self.bad += count
        for row in rows:
            insort(self.bad_rows, row)
            del self.bad_rows[BAD_ROWS_NAMED:]
            if report:
                report(row)

    def leave_out(self, removed: tuple[int, list[BadRow]], report: ReportBad | None) -> None:
        """Counts staged rows that are bad and were removed."""
        self.rows -= removed[0]
        self.refuse(*removed, report)


def stage(cursor: Cursor, parsed: Iterable[Row | BadRow], *, lock: bool, report_bad: ReportBad | None = None) -> Staged:
    """Inserts the good rows into the new temporary table ``upload_rows``, with the names of the stored beans.

    If several rows describe the same bean, only the last row counts. ``lock`` creates missing suppliers and locks all
    suppliers of the file. ``report_bad`` is called with each bad row.
    """
    staged = _stage_rows(cursor, parsed, report_bad)
    staged.leave_out(match_suppliers(cursor), report_bad)
    if lock:
        staged.last_supplier = undoing.last_id(cursor, "suppliers")
        cursor.execute(LOCK_SUPPLIERS)
        cursor.execute(MISSING_SUPPLIER)
        if missing := cursor.fetchone():
            name = quoted(missing[0])
            raise DatabaseRefused(f"the suppliers table treats {name} as another spelling of a stored name")
        # The locks keep other imports from adding beans of these suppliers, so higher ids belong to this import.
        staged.last_bean = undoing.last_id(cursor, "beans")
    staged.leave_out(match_beans(cursor), report_bad)
    return staged


def _stage_rows(cursor: Cursor, parsed: Iterable[Row | BadRow], report_bad: ReportBad | None) -> Staged:
    staged = Staged()
    batch: list[Row] = []
    good = 0
    cursor.execute(CREATE_STAGING)
    for row in parsed:
        if isinstance(row, BadRow):
            staged.refuse(1, [row], report_bad)
            continue
        good += 1
        batch.append(row)
        if len(batch) == ROWS_AT_ONCE:
            cursor.executemany(STAGE_ROWS, batch)
            batch.clear()
    cursor.executemany(STAGE_ROWS, batch)

    cursor.execute("SELECT COUNT(*) FROM upload_rows")
    (staged.rows,) = cursor.fetchone() or (0,)
    cursor.execute(REPEATED_ROWS, (ROWS if report_bad else BAD_ROWS_NAMED,))
    reason = "line {:,} has the same bean and replaces this row".format
    staged.refuse(good - staged.rows, (BadRow(line, reason(later)) for line, later in cursor), report_bad)
    return staged


def import_staged(cursor: Cursor, staged: Staged, upload_id: str) -> Imported:
    """Merges the staged rows into the inventory, and records the changes for an undo."""
    imported = Imported(bad=staged.bad, bad_rows=staged.bad_rows)
    recorded = undoing.record_updates(cursor, upload_id)
    imported.updated = cursor.execute(UPDATE_BEANS)
    imported.new = cursor.execute(INSERT_BEANS)
    imported.unchanged = staged.rows - imported.new - imported.updated
    imported.undoable = recorded + imported.new <= undoing.UNDOABLE_CHANGES
    if imported.undoable:
        undoing.record_inserts(cursor, upload_id, staged.last_supplier, staged.last_bean)
    else:
        undoing.forget(cursor, upload_id)
    undoing.expire(cursor)
    return imported
