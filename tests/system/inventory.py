"""Helpers for inventory tests that read quantities from MySQL or make tables unavailable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.system.system import System, connect

HEADER = "supplier_name,type,product_name,price,description,quantity\n"


def stock(system: System, supplier: str) -> dict[str, int]:
    """Returns the quantity of each product from a supplier."""
    beans = "SELECT product_name, quantity FROM beans JOIN suppliers ON supplier_id = suppliers.id WHERE name = %s"
    return dict(system.sql(beans, supplier))


@contextmanager
def table_renamed(system: System, table: str) -> Iterator[None]:
    """Renames the table while the ``with`` block runs, which makes queries fail."""
    system.sql(f"RENAME TABLE {table} TO {table}_away")
    try:
        yield
    finally:
        system.sql(f"RENAME TABLE {table}_away TO {table}")


@contextmanager
def tables_locked(system: System) -> Iterator[None]:
    """Locks the inventory tables while the ``with`` block runs, which makes reads wait."""
    with connect(system.database) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLES beans WRITE, suppliers WRITE")
        try:
            yield
        finally:
            cursor.execute("UNLOCK TABLES")
