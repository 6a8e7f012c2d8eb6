"""Databases for single tests, on the stack's server."""

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
    """Creates a database without tables. Its user has all permissions on it."""
    name = f"test_{secrets.token_hex(4)}"
    system.sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    try:
        yield replace(system.database, name=name)
    finally:
        system.sql(f"DROP DATABASE {name}")


@pytest.fixture
def database(empty_database: Database) -> Database:
    """Creates a database with the project's tables, which are empty."""
    with connect(empty_database) as connection:
        migrate(connection)
    return empty_database
