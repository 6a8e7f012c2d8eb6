"""Imports an inventory's rows into MySQL. The table ``uploads`` ensures that each S3 event is imported only once.

Rows are inserted into a temporary table in batches of 1,000, so memory use does not grow with the file. Three SQL
statements then merge the temporary table into the inventory. All functions in this module use the caller's transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from chalicelib.errors import DatabaseRefused
from chalicelib.names import quoted
from chalicelib.notifications import Notification, Publish
from chalicelib.uploads.matching import BAD_ROWS_NAMED, match_beans, match_suppliers
from chalicelib.uploads.rows import BadRow, Row

if TYPE_CHECKING:
    from pymysql.cursors import Cursor

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
    """The result of an import, with row counts and the first bad rows. ``staged`` is the number of good rows."""

    staged: int = 0
    new: int = 0
    updated: int = 0
    unchanged: int = 0
    bad: int = 0
    bad_rows: list[BadRow] = field(default_factory=list)

    def name_bad(self, count: int, rows: list[BadRow]) -> None:
        """Counts further bad rows, of which ``rows`` are the first."""
        self.bad += count
        self.bad_rows = sorted([*self.bad_rows, *rows])[:BAD_ROWS_NAMED]

    def leave_out(self, count: int, rows: list[BadRow]) -> None:
        """Counts staged rows that are bad and were removed."""
        self.staged -= count
        self.name_bad(count, rows)

    @property
    def good(self) -> int:
        return self.new + self.updated + self.unchanged

    @property
    def counts(self) -> dict[str, int]:
        return {"new": self.new, "updated": self.updated, "unchanged": self.unchanged, "bad": self.bad}


def import_rows(cursor: Cursor, parsed: Iterable[Row | BadRow]) -> Imported:
    """Merges the good rows into the inventory.

    If several rows describe the same bean, only the last row is imported.
    """
    imported = stage(cursor, parsed)
    imported.leave_out(*match_suppliers(cursor))
    cursor.execute(LOCK_SUPPLIERS)
    cursor.execute(MISSING_SUPPLIER)
    if missing := cursor.fetchone():
        raise DatabaseRefused(f"the suppliers table treats {quoted(missing[0])} as another spelling of a stored name")
    imported.leave_out(*match_beans(cursor))
    imported.updated = cursor.execute(UPDATE_BEANS)
    imported.new = cursor.execute(INSERT_BEANS)
    imported.unchanged = imported.staged - imported.new - imported.updated
    return imported


def stage(cursor: Cursor, parsed: Iterable[Row | BadRow]) -> Imported:
    """Inserts the good rows into the new temporary table ``upload_rows``, and counts the others."""
    imported = Imported()
    batch: list[Row] = []
    good = 0
    cursor.execute(CREATE_STAGING)
    for row in parsed:
        if isinstance(row, BadRow):
            imported.bad += 1
            if imported.bad <= BAD_ROWS_NAMED:
                imported.bad_rows.append(row)
            continue
        good += 1
        batch.append(row)
        if len(batch) == ROWS_AT_ONCE:
            cursor.executemany(STAGE_ROWS, batch)
            batch.clear()
    cursor.executemany(STAGE_ROWS, batch)

    cursor.execute("SELECT COUNT(*) FROM upload_rows")
    (imported.staged,) = cursor.fetchone() or (0,)
    cursor.execute(REPEATED_ROWS, (BAD_ROWS_NAMED,))
    reason = "line {:,} has the same bean and replaces this row".format
    repeated = [BadRow(line, reason(later)) for line, later in cursor.fetchall()]
    imported.name_bad(good - imported.staged, repeated)
    return imported


class Ledger:
    """The row for one S3 object in the table ``uploads``.

    The row contains the object's last event and any unpublished notification.
    """

    def __init__(self, cursor: Cursor, key: str) -> None:
        self._cursor = cursor
        self._key = key.encode()

    def lock(self, publish: Publish) -> str:
        """Locks the row until the commit, publishes any pending notification, and returns the last sequencer."""
        # Unlike INSERT IGNORE, this statement locks the row exclusively, so two deliveries of an event cannot deadlock.
        self._cursor.execute(
            "INSERT INTO uploads (object_key) VALUES (%s) ON DUPLICATE KEY UPDATE object_key = object_key",
            (self._key,),
        )
        self._cursor.execute(
            "SELECT sequencer, outcome, announced FROM uploads WHERE object_key = %s FOR UPDATE", (self._key,)
        )
        sequencer, outcome, announced = self._cursor.fetchone() or ("", None, True)
        if not announced:
            publish(_read_notification(outcome))
            self._cursor.execute("UPDATE uploads SET announced = TRUE WHERE object_key = %s", (self._key,))
        return str(sequencer)

    def write(self, sequencer: str, etag: str, notification: Notification) -> None:
        """Records the event and its notification, which the next call of ``lock`` publishes."""
        self._cursor.execute(
            "UPDATE uploads SET sequencer = %s, etag = %s, outcome = %s, announced = FALSE WHERE object_key = %s",
            (sequencer, etag, json.dumps(asdict(notification)), self._key),
        )


def _read_notification(text: str) -> Notification:
    content: dict[str, Any] = json.loads(text)
    # Notifications that an older version stored have no correlation ids.
    content["correlation_ids"] = tuple(content.get("correlation_ids", ()))
    return Notification(**content)
