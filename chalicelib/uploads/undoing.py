"""Records what an import changes, and undoes an import. All functions work in the caller's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from chalicelib.uploads import records
from chalicelib.uploads.rows import IDENTITY

if TYPE_CHECKING:
    from pymysql.cursors import Cursor

# An import that changes more beans cannot be undone.
UNDOABLE_CHANGES = 100_000
# Each import deletes at most this many expired records.
EXPIRED_AT_ONCE = 10_000
KEPT_NAMED = 20

LAST_ID = "SELECT COALESCE(MAX(id), 0) FROM {}"
RECORD_SUPPLIERS = """
    INSERT IGNORE INTO upload_suppliers (upload_id, supplier_id)
    SELECT %s, suppliers.id FROM (SELECT DISTINCT supplier_name FROM upload_rows) AS incoming
    STRAIGHT_JOIN suppliers FORCE INDEX (suppliers_name) ON suppliers.name = incoming.supplier_name
    WHERE suppliers.id > %s
"""
# FOR UPDATE locks the beans until the import has changed them. If one link was used for two imports, the values from
# before the first import are kept.
_STAGED = """
    SELECT %s, beans.id, incoming.supplier_name, incoming.type, incoming.product_name, {is_new},
        beans.price, beans.description, beans.quantity, incoming.price, incoming.description, incoming.quantity
    FROM upload_rows AS incoming
    STRAIGHT_JOIN suppliers FORCE INDEX (suppliers_name) ON suppliers.name = incoming.supplier_name
    STRAIGHT_JOIN beans FORCE INDEX (beans_identity) ON beans.supplier_id = suppliers.id
        AND beans.type = incoming.type AND beans.product_name = incoming.product_name
    WHERE {condition} LIMIT %s {lock}
    ON DUPLICATE KEY UPDATE price_after = VALUES(price_after), description_after = VALUES(description_after),
        quantity_after = VALUES(quantity_after)
"""
_INSERT = """
    INSERT INTO upload_changes (upload_id, bean_id, supplier_name, type, product_name, is_new, price_before,
        description_before, quantity_before, price_after, description_after, quantity_after)
"""
RECORD_UPDATES = _INSERT + _STAGED.format(
    is_new="FALSE",
    lock="FOR UPDATE",
    condition="NOT (beans.price <=> incoming.price AND beans.description <=> incoming.description "
    "AND beans.quantity <=> incoming.quantity)",
)
RECORD_INSERTS = _INSERT + _STAGED.format(is_new="TRUE", lock="", condition="beans.id > %s")
FORGET = ("DELETE FROM upload_changes WHERE upload_id = %s", "DELETE FROM upload_suppliers WHERE upload_id = %s")
# This reads without locks. A search by age in the DELETE itself could lock the records of other imports.
EXPIRED = "SELECT upload_id FROM {} WHERE imported_at < NOW() - INTERVAL %s DAY ORDER BY imported_at LIMIT 1"
EXPIRE = "DELETE FROM {} WHERE upload_id = %s LIMIT %s"

# Imports lock suppliers in the order of their names, so an undo and an import cannot deadlock.
LOCK_SUPPLIERS = """
    SELECT suppliers.id FROM suppliers FORCE INDEX (suppliers_name)
    STRAIGHT_JOIN (SELECT DISTINCT supplier_name FROM upload_changes WHERE upload_id = %s) AS changed
        ON suppliers.name = changed.supplier_name
    ORDER BY suppliers.name FOR UPDATE
"""
_AS_IMPORTED = """beans.price <=> changed.price_after AND beans.description <=> changed.description_after
    AND beans.quantity <=> changed.quantity_after"""
KEPT = f"""
    SELECT changed.supplier_name, changed.type, changed.product_name FROM upload_changes AS changed
    LEFT JOIN beans ON beans.id = changed.bean_id
    WHERE changed.upload_id = %s AND (beans.id IS NULL OR NOT ({_AS_IMPORTED}))
    ORDER BY changed.supplier_name, changed.type, changed.product_name FOR UPDATE
"""  # noqa: S608 - only constants  # nosec
RESTORE = f"""
    UPDATE upload_changes AS changed STRAIGHT_JOIN beans ON beans.id = changed.bean_id
    SET beans.price = changed.price_before, beans.description = changed.description_before,
        beans.quantity = changed.quantity_before
    WHERE changed.upload_id = %s AND NOT changed.is_new AND {_AS_IMPORTED}
"""  # noqa: S608 - only constants  # nosec
REMOVE = f"""
    DELETE beans FROM upload_changes AS changed STRAIGHT_JOIN beans ON beans.id = changed.bean_id
    WHERE changed.upload_id = %s AND changed.is_new AND {_AS_IMPORTED}
"""
REMOVE_SUPPLIERS = """
    DELETE suppliers FROM upload_suppliers AS added STRAIGHT_JOIN suppliers ON suppliers.id = added.supplier_id
    LEFT JOIN beans FORCE INDEX (beans_identity) ON beans.supplier_id = suppliers.id
    WHERE added.upload_id = %s AND beans.id IS NULL
        AND COALESCE(suppliers.address, suppliers.city, suppliers.state, suppliers.email, suppliers.phone) IS NULL
"""


class Undone(NamedTuple):
    """The result of an undo: the number of restored beans, and the names of beans that someone changed since."""

    restored: int
    kept: int
    kept_beans: list[dict[str, str]]


def last_id(cursor: Cursor, table: str) -> int:
    """Returns the highest id in a table. Every row that is added after this call gets a higher id."""
    cursor.execute(LAST_ID.format(table))
    return int((cursor.fetchone() or (0,))[0])


def record_updates(cursor: Cursor, upload_id: str) -> int:
    """Records the beans that the staged rows will change. Returns their number, or one more than can be undone."""
    return cursor.execute(RECORD_UPDATES, (upload_id, UNDOABLE_CHANGES + 1))


def record_inserts(cursor: Cursor, upload_id: str, last_supplier: int, last_bean: int) -> None:
    """Records the suppliers and beans that the import added, whose ids are higher than the given ids."""
    cursor.execute(RECORD_INSERTS, (upload_id, last_bean, UNDOABLE_CHANGES + 1))
    cursor.execute(RECORD_SUPPLIERS, (upload_id, last_supplier))


def forget(cursor: Cursor, upload_id: str) -> None:
    """Deletes the records of an import that cannot be undone or that was undone."""
    for statement in FORGET:
        cursor.execute(statement, (upload_id,))


def expire(cursor: Cursor) -> None:
    """Deletes some records of the oldest import, if they have expired."""
    for table in ("upload_changes", "upload_suppliers"):
        if cursor.execute(EXPIRED.format(table), (records.KEPT.days,)):
            (upload_id,) = cursor.fetchone() or ("",)
            cursor.execute(EXPIRE.format(table), (upload_id, EXPIRED_AT_ONCE))


def undo(cursor: Cursor, upload_id: str) -> Undone:
    """Restores every bean that still is as the import left it. Other beans are kept, and the result names them."""
    cursor.execute(LOCK_SUPPLIERS, (upload_id,))
    kept = cursor.execute(KEPT, (upload_id,))
    kept_beans = [dict(zip(IDENTITY, each, strict=True)) for each in cursor.fetchmany(KEPT_NAMED)]
    restored = cursor.execute(RESTORE, (upload_id,)) + cursor.execute(REMOVE, (upload_id,))
    cursor.execute(REMOVE_SUPPLIERS, (upload_id,))
    forget(cursor, upload_id)
    return Undone(restored, kept, kept_beans)
