"""Updates the MySQL tables and the database user of the Lambda functions.

Each deploy runs the migrations before the new code goes live. The numbered files in ``migrations/`` define the tables.
Each migration file runs once, in numerical order. Migrations only add to the database, so the functions of the previous
deploy keep working. Each SQL statement must end with a semicolon at the end of a line. MySQL commits each change to a
table immediately, so a failed migration cannot be rolled back. The table ``cafe_migrations`` counts completed
statements, so a failed migration resumes where it stopped.
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
# A statement that changes a large table may run for 14 minutes. If the table is in use, the statement waits at most one
# minute.
STATEMENT_SECONDS = 840
TABLE_LOCK_SECONDS = 60
# The database user for the Lambda functions has these privileges. Importing an uploaded file requires a temporary
# table.
RIGHTS = "SELECT, INSERT, UPDATE, CREATE TEMPORARY TABLES"
# A deploy waits at most this long for another deploy's migration to finish.
LOCK_SECONDS = 60
LOCK = "CONCAT('cafe_migrations.', MD5(DATABASE()))"
# MySQL returns these error codes if a table, column or key already exists.
EXISTS_ALREADY = (1050, 1060, 1061)
CREATE_HISTORY = """
    CREATE TABLE IF NOT EXISTS cafe_migrations (
        name VARCHAR(100) NOT NULL PRIMARY KEY,
        statements INT NOT NULL,
        digest CHAR(64) NOT NULL,
        ran_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP
    ) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin
"""
# When a file is imported, these unique keys identify existing suppliers and beans. An older database may not have the
# unique keys yet.
UNIQUE_KEYS = {
    "suppliers": ("suppliers_name", ("name",)),
    "beans": ("beans_identity", ("supplier_id", "type", "product_name")),
}

log = logger("database")


class MigrationFailed(CafeError):
    """A migration failed. The next deploy resumes the migration at the failed statement."""


def bring_up_to_date(secret: str, admin_secret: str | None) -> dict[str, list[str]]:
    """Migrates the database. The secret ``secret`` contains the database address and login.

    The secret ``admin_secret`` contains the administrator's login. The administrator also sets the password and
    privileges of the database user for the Lambda functions. Without ``admin_secret``, that database user runs the
    migrations and must already have all privileges.
    """
    functions = Database.of_secret(clients.read_secret(secret))
    administrator = functions.logged_in(clients.read_secret(admin_secret)) if admin_secret else functions
    with clients.mysql(administrator, read_seconds=STATEMENT_SECONDS) as connection:
        result = migrate(connection)
        if admin_secret:
            grant_access(connection, functions)
    return result


def migrate(connection: Connection[Any], folder: Path = MIGRATIONS) -> dict[str, list[str]]:
    """Runs the migrations that have not run yet, and creates missing unique keys.

    In the result, ``ran`` lists the migrations that ran. ``missing`` contains a message for each unique key that could
    not be created. A unique key usually cannot be created because existing rows violate it. The unique keys are needed
    only to import uploaded files. Raises ``MigrationFailed`` if a statement fails, or ``DatabaseUnavailable`` if
    another deploy's migration takes longer than a minute.
    """
    with connection.cursor() as cursor, _migration_lock(cursor):
        cursor.execute("SET SESSION lock_wait_timeout = %s", (TABLE_LOCK_SECONDS,))
        cursor.execute(CREATE_HISTORY)
        cursor.execute("SELECT name, statements, digest FROM cafe_migrations")
        done = {name: (statements, digest) for name, statements, digest in cursor.fetchall()}
        ran = [file.stem for file in sorted(folder.glob("*.sql")) if _run(connection, cursor, file, done)]
        missing = [line for table in UNIQUE_KEYS for line in _add_unique_key(cursor, table)]
    log.info("tables are up to date", extra={"ran": ran, "missing": missing})
    return {"ran": ran, "missing": missing}


def grant_access(connection: Connection[Any], database: Database) -> None:
    """Creates or updates the MySQL user ``database.user``, including the password and privileges."""
    login = (database.user, database.password)
    # GRANT treats the database name as a pattern, in which an unescaped "_" matches any character.
    pattern = database.name.replace("_", r"\_")
    with connection.cursor() as cursor:
        cursor.execute("CREATE USER IF NOT EXISTS %s@'%%' IDENTIFIED BY %s", login)
        cursor.execute("ALTER USER %s@'%%' IDENTIFIED BY %s", login)
        cursor.execute(f"GRANT {RIGHTS} ON `{pattern}`.* TO %s@'%%'", (database.user,))


@contextmanager
def _migration_lock(cursor: Cursor) -> Iterator[None]:
    """Prevents two deploys from migrating a database at the same time.

    If the migration fails, closing the database connection releases the lock.
    """
    cursor.execute(f"SELECT GET_LOCK({LOCK}, %s)", (LOCK_SECONDS,))
    if cursor.fetchone() != (1,):
        raise DatabaseUnavailable("another deploy is migrating this database: try again in a moment")
    yield
    cursor.execute(f"DO RELEASE_LOCK({LOCK})")


def _run(connection: Connection[Any], cursor: Cursor, file: Path, done: dict[str, tuple[int, str]]) -> bool:
    """Runs the SQL statements in ``file`` that have not run yet. Returns True if any statement ran."""
    statements = split(file.read_text(encoding="utf-8"))
    before, digest = done.get(file.stem, (0, _digest([])))
    if _digest(statements[:before]) != digest:
        raise MigrationFailed(f"{file.name} was changed after it ran; add a new migration instead")
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
        if error.args[0] in clients.TRANSIENT:
            raise
        # An "already exists" error is ignored if the previous run stopped before it counted this statement.
        if not (first and error.args[0] in EXISTS_ALREADY):
            raise MigrationFailed(f"{where}: {error.args[-1]}") from error


def _add_unique_key(cursor: Cursor, table: str) -> Iterator[str]:
    from pymysql.err import MySQLError

    key, columns = UNIQUE_KEYS[table]
    cursor.execute(f"SHOW INDEX FROM {table} WHERE Key_name = %s", (key,))
    if cursor.fetchone():
        return
    try:
        cursor.execute(f"ALTER TABLE {table} ADD UNIQUE KEY {key} ({', '.join(columns)})")
    except MySQLError as error:
        if error.args[0] in clients.TRANSIENT:
            raise
        fields = ", ".join(columns)
        yield f"{table} cannot have a unique key on {fields}, so uploads cannot be imported: {error.args[-1]}"


def split(text: str) -> list[str]:
    """Splits the text of an SQL file into statements and removes comments."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    return [statement.strip() for statement in re.split(r";[ \t]*(?:\n|$)", "\n".join(lines)) if statement.strip()]


def _digest(statements: list[str]) -> str:
    return hashlib.sha256("\0".join(statements).encode()).hexdigest()
