"""Fixtures that create a separate database for each test on the stack's MySQL server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace

import pytest

from chalicelib.database import migrate
from chalicelib.settings import Database
from tests.system.system import System, connect


@pytest.fixture
def empty_database(system: System) -> Iterator[Database]:
    """Creates a database without tables. Yields an administrator's connection settings for the database."""
    name = f"test_{secrets.token_hex(4)}"
    system.sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    try:
        yield replace(system.database, name=name)
    finally:
        system.sql(f"DROP DATABASE {name}")


@pytest.fixture
def database(empty_database: Database) -> Database:
    """Creates a database that contains the project's tables without rows."""
    with connect(empty_database) as connection:
        migrate(connection)
    return empty_database
