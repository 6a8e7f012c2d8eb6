"""MySQL's tables, and the user of the functions: the deploy brings both up to this code before anybody needs it.

The tables come from the numbered files in ``migrations/``. Each is run once, in their order, and only adds, so that the
functions of before go on while it runs and after it. A statement ends with a semicolon at the end of a line. MySQL
commits each by itself, so the table ``cafe_migrations`` counts them, and a file that failed or was cut off in the
middle goes on behind what is done.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chalicelib import clients
from chalicelib.errors import CafeError, DatabaseUnavailable
from chalicelib.logs import logger
from chalicelib.settings import Database

if TYPE_CHECKING:
    from pymysql.connections import Connection
    from pymysql.cursors import Cursor

MIGRATIONS = Path(__file__).parent / "migrations"
# A large table may take minutes to be changed, and nobody should wait longer for one that is in use.
STATEMENT_SECONDS = 840
TABLE_LOCK_SECONDS = 60
# No more than the functions do. A temporary table is how an upload comes in.
RIGHTS = "SELECT, INSERT, UPDATE, CREATE TEMPORARY TABLES"
# How long one of two deploys at once waits for the other.
LOCK_SECONDS = 60
LOCK = "CONCAT('cafe_migrations.', MD5(DATABASE()))"
# A table, a column or a key that is there already.
THERE = (1050, 1060, 1061)
WHAT_RAN = """
    CREATE TABLE IF NOT EXISTS cafe_migrations (
        name VARCHAR(100) NOT NULL PRIMARY KEY,
        statements INT NOT NULL,
        digest CHAR(64) NOT NULL,
        ran_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP
    ) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin
"""
# What the import knows suppliers and beans by. Tables that were there before these files have no such keys.
KEYS = {
    "suppliers": ("suppliers_name", ("name",)),
    "beans": ("beans_identity", ("supplier_id", "type", "product_name")),
}

log = logger("database")


class MigrationFailed(CafeError):
    """A file of ``migrations/`` could not be run to its end. The next time goes on where it failed."""


def bring_up_to_date(secret: str, admin_secret: str | None) -> dict[str, list[str]]:
    """Runs what ``migrate`` has to, as the administrator whose login the second secret has, and lets the user of the
    first one in. Without a second one that user has to have every right already."""
    functions = Database.of_secret(clients.read_secret(secret))
    who = functions.logged_in(clients.read_secret(admin_secret)) if admin_secret else functions
    with clients.mysql(who, read_seconds=STATEMENT_SECONDS) as connection:
        result = migrate(connection)
        if admin_secret:
            let_in(connection, functions)
    return result


def migrate(connection: Connection[Any], folder: Path = MIGRATIONS) -> dict[str, list[str]]:
    """Brings the tables up to the last file. Returns the names of those that ``ran``, and ``missing``, a line each.

    What is missing is for uploads only: keys that the rows of tables from elsewhere do not allow. Raises
    ``MigrationFailed``, and ``DatabaseUnavailable`` where somebody else is at it for longer than a minute.
    """
    with connection.cursor() as cursor, _alone(cursor):
        cursor.execute("SET SESSION lock_wait_timeout = %s", (TABLE_LOCK_SECONDS,))
        cursor.execute(WHAT_RAN)
        cursor.execute("SELECT name, statements, digest FROM cafe_migrations")
        done = {name: (statements, digest) for name, statements, digest in cursor.fetchall()}
        ran = [file.stem for file in sorted(folder.glob("*.sql")) if _run(connection, cursor, file, done)]
        missing = [line for table in KEYS for line in _key(cursor, table)]
    log.info("tables are up to date", extra={"ran": ran, "missing": missing})
    return {"ran": ran, "missing": missing}


def let_in(connection: Connection[Any], database: Database) -> None:
    """Makes ``database.user`` with its password and the functions' rights, or gives both to a user who is there."""
    who = (database.user, database.password)
    # In a grant the name of a database is a pattern.
    pattern = database.name.replace("_", r"\_")
    with connection.cursor() as cursor:
        cursor.execute("CREATE USER IF NOT EXISTS %s@'%%' IDENTIFIED BY %s", who)
        cursor.execute("ALTER USER %s@'%%' IDENTIFIED BY %s", who)
        cursor.execute(f"GRANT {RIGHTS} ON `{pattern}`.* TO %s@'%%'", (database.user,))


@contextmanager
def _alone(cursor: Cursor) -> Iterator[None]:
    """One at a time for each database. The lock goes with the connection, if that is cut off."""
    cursor.execute(f"SELECT GET_LOCK({LOCK}, %s)", (LOCK_SECONDS,))
    if cursor.fetchone() != (1,):
        raise DatabaseUnavailable("another deploy is at work on this database: try again in a moment")
    yield
    cursor.execute(f"DO RELEASE_LOCK({LOCK})")


def _run(connection: Connection[Any], cursor: Cursor, file: Path, done: dict[str, tuple[int, str]]) -> bool:
    """Runs what is left of ``file``; whether anything was."""
    statements = split(file.read_text(encoding="utf-8"))
    before, digest = done.get(file.stem, (0, _digest([])))
    if _digest(statements[:before]) != digest:
        raise MigrationFailed(f"{file.name} has run, and is another one now: what it shall be needs a file of its own")
    if file.stem not in done:
        cursor.execute("INSERT INTO cafe_migrations VALUES (%s, 0, %s, DEFAULT)", (file.stem, digest))
        connection.commit()
    for number, statement in enumerate(statements[before:], before + 1):
        _execute(cursor, statement, f"{file.name}, statement {number} of {len(statements)}", number == before + 1)
        cursor.execute(
            "UPDATE cafe_migrations SET statements = %s, digest = %s WHERE name = %s",
            (number, _digest(statements[:number]), file.stem),
        )
        connection.commit()
    return before < len(statements)


def _execute(cursor: Cursor, statement: str, where: str, first: bool) -> None:
    from pymysql.err import MySQLError

    try:
        cursor.execute(statement)
    except MySQLError as error:
        if error.args[0] in clients.PASSING:
            raise
        # The last time may have been cut off between the statement and its count.
        if not (first and error.args[0] in THERE):
            raise MigrationFailed(f"{where}: {error.args[-1]}") from error


def _key(cursor: Cursor, table: str) -> Iterator[str]:
    from pymysql.err import MySQLError

    key, columns = KEYS[table]
    cursor.execute(f"SHOW INDEX FROM {table} WHERE Key_name = %s", (key,))
    if cursor.fetchone():
        return
    try:
        cursor.execute(f"ALTER TABLE {table} ADD UNIQUE KEY {key} ({', '.join(columns)})")
    except MySQLError as error:
        if error.args[0] in clients.PASSING:
            raise
        yield f"{table} cannot have a unique key on {', '.join(columns)}, so no upload is imported: {error.args[-1]}"


def split(text: str) -> list[str]:
    """The statements of a file, without the lines that are comments."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    return [statement.strip() for statement in re.split(r";[ \t]*(?:\n|$)", "\n".join(lines)) if statement.strip()]


def _digest(statements: list[str]) -> str:
    return hashlib.sha256("\0".join(statements).encode()).hexdigest()
