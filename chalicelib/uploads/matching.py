"""Finds stored suppliers and beans whose names differ from an upload's names only in spaces or invisible characters.

The upload's rows have folded names, but names that another program or an older version stored may not be folded. If
one stored name folds to an uploaded name, the uploaded row takes the stored name, so that the import finds it. If two
stored names fold to one uploaded name, the uploaded row is removed. The functions only read the inventory, and change
only the temporary table ``upload_rows``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from chalicelib.names import MAYBE_UNFOLDED, fold, quoted
from chalicelib.uploads.rows import IDENTITY, TEXT_CHARACTERS, BadRow

if TYPE_CHECKING:
    from pymysql.cursors import Cursor

BAD_ROWS_NAMED = 20

# The temporary table ``stored`` contains names that are not folded, by their folded names. ``twin`` is the text of
# another stored name with the same folded name.
CREATE_STORED = """
    CREATE TEMPORARY TABLE {stored} (
        supplier_name VARCHAR(255), type VARCHAR(255), product_name VARCHAR(255),
        stored_supplier_name VARCHAR(255), stored_type VARCHAR(255), stored_product_name VARCHAR(255),
        text VARCHAR(600), id INT, twin VARCHAR(600), twin_id INT,
        PRIMARY KEY (supplier_name, type, product_name)
    ) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin
"""
INSERT_STORED = """
    INSERT INTO {stored}
        (supplier_name, type, product_name, stored_supplier_name, stored_type, stored_product_name, text, id)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
    ON DUPLICATE KEY UPDATE twin = VALUES(text), twin_id = VALUES(id)
"""
UNFOLDED_SUPPLIERS = "SELECT id, name FROM suppliers WHERE CONVERT(name USING utf8mb4) REGEXP %s"
FOLDED_SUPPLIERS = """
    UPDATE {stored} AS stored STRAIGHT_JOIN suppliers FORCE INDEX (suppliers_name)
        ON suppliers.name = stored.supplier_name
    SET twin = stored.supplier_name, twin_id = suppliers.id WHERE suppliers.id <> stored.id
"""
# Reads only the keys of the beans of the upload's suppliers.
UNFOLDED_BEANS = """
    SELECT beans.id, suppliers.name, beans.type, beans.product_name
    FROM (SELECT DISTINCT supplier_name FROM upload_rows) AS incoming
    STRAIGHT_JOIN suppliers FORCE INDEX (suppliers_name) ON suppliers.name = incoming.supplier_name
    STRAIGHT_JOIN beans FORCE INDEX (beans_identity) ON beans.supplier_id = suppliers.id
    WHERE CONVERT(CONCAT(beans.type, '|', beans.product_name) USING utf8mb4) REGEXP %s
"""
FOLDED_BEANS = """
    UPDATE {stored} AS stored STRAIGHT_JOIN suppliers FORCE INDEX (suppliers_name)
        ON suppliers.name = stored.stored_supplier_name
    STRAIGHT_JOIN beans FORCE INDEX (beans_identity) ON beans.supplier_id = suppliers.id
        AND beans.type = stored.type AND beans.product_name = stored.product_name
    SET twin = CONCAT(stored.type, ' ', stored.product_name), twin_id = beans.id
    WHERE beans.id <> stored.id
"""
ROWS_WITH_TWINS = """
    SELECT line, text, id, twin, twin_id
    FROM {stored} AS stored STRAIGHT_JOIN upload_rows ON {same} WHERE twin_id IS NOT NULL ORDER BY line LIMIT {named}
"""
REMOVE_ROWS_WITH_TWINS = """
    DELETE upload_rows FROM {stored} AS stored STRAIGHT_JOIN upload_rows ON {same} WHERE twin_id IS NOT NULL
"""
TAKE_STORED_NAMES = "UPDATE {stored} AS stored STRAIGHT_JOIN upload_rows ON {same} SET {take}"


def match_suppliers(cursor: Cursor) -> tuple[int, list[BadRow]]:
    """Replaces names of suppliers by stored names. Returns how many rows were removed, and the first of them."""
    names = ((fold(name), "", "", name, "", "", name, id_) for id_, name in _stream(cursor, UNFOLDED_SUPPLIERS))
    return _match(cursor, "supplier", IDENTITY[:1], names, FOLDED_SUPPLIERS)


def match_beans(cursor: Cursor) -> tuple[int, list[BadRow]]:
    """Replaces types and product names by stored names, after ``match_suppliers``. Returns the same."""
    names = (
        (supplier, fold(type_), fold(product), supplier, type_, product, f"{type_} {product}", id_)
        for id_, supplier, type_, product in _stream(cursor, UNFOLDED_BEANS)
    )
    return _match(cursor, "bean", IDENTITY, names, FOLDED_BEANS)


def _stream(cursor: Cursor, query: str) -> Iterator[tuple[Any, ...]]:
    """Yields the rows one by one, because in some scripts ``MAYBE_UNFOLDED`` finds every name."""
    from pymysql.cursors import SSCursor

    with SSCursor(cursor.connection) as rows:
        rows.execute(query, (MAYBE_UNFOLDED,))
        yield from rows


def _match(
    cursor: Cursor, thing: str, columns: tuple[str, ...], names: Iterator[tuple[Any, ...]], find_folded: str
) -> tuple[int, list[BadRow]]:
    unfolded = [name for name in names if name[:3] != name[3:6] and max(map(len, name[:3])) <= TEXT_CHARACTERS]
    if not unfolded:
        return 0, []

    def execute(statement: str) -> int:
        same = " AND ".join(f"upload_rows.{column} = stored.{column}" for column in columns)
        take = ", ".join(f"upload_rows.{column} = stored.stored_{column}" for column in columns)
        return cursor.execute(statement.format(stored=f"stored_{thing}s", same=same, take=take, named=BAD_ROWS_NAMED))

    execute(CREATE_STORED)
    cursor.executemany(INSERT_STORED.format(stored=f"stored_{thing}s"), unfolded)
    execute(find_folded)
    execute(ROWS_WITH_TWINS)
    bad = [
        BadRow(line, f"the stock has two such {thing}s, {quoted(text)} ({id_}) and {quoted(twin)} ({twin_id})")
        for line, text, id_, twin, twin_id in cursor.fetchall()
    ]
    removed = execute(REMOVE_ROWS_WITH_TWINS)
    execute(TAKE_STORED_NAMES)
    return removed, bad
