"""Tests database migrations on a real MySQL server.

Each migration runs once despite failures, and adapts tables that another system created.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chalicelib import clients
from chalicelib.database import MIGRATIONS, MigrationFailed, grant_access, migrate, split
from chalicelib.errors import DatabaseRefused, DatabaseUnavailable
from chalicelib.reports.mysql import read_rows
from chalicelib.settings import Database
from tests.system.system import LOOSE_TABLES, System
from tests.system.waiting import at_once

FIRST = "CREATE TABLE one (id INT);\n-- Its price; in cents.\nALTER TABLE one ADD COLUMN price INT;\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns a folder that contains the project's migrations and one additional migration."""
    for file in MIGRATIONS.glob("*.sql"):
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "0901_one.sql").write_text(FIRST)
    return tmp_path


@pytest.fixture
def run(empty_database: Database, folder: Path) -> Callable[[], dict[str, list[str]]]:
    def run() -> dict[str, list[str]]:
        with clients.mysql(empty_database) as connection:
            return migrate(connection, folder)

    return run


@pytest.fixture
def sql(empty_database: Database) -> Callable[[str], list[Any]]:
    def sql(statements: str) -> list[Any]:
        with clients.mysql(empty_database) as connection, connection.cursor() as cursor:
            for statement in split(statements):
                cursor.execute(statement)
            connection.commit()
            return list(cursor.fetchall())

    return sql


Run, Sql = Callable[[], dict[str, list[str]]], Callable[[str], list[Any]]
OWN = [file.stem for file in sorted(MIGRATIONS.glob("*.sql"))]


def columns(sql: Sql, table: str) -> list[str]:
    return [row[0] for row in sql(f"SHOW COLUMNS FROM {table};")]


def test_each_file_runs_once_and_in_order(run: Run, folder: Path, sql: Sql) -> None:
    assert run() == {"ran": [*OWN, "0901_one"], "missing": []}
    assert columns(sql, "one") == ["id", "price"]
    assert run() == {"ran": [], "missing": []}
    assert sql("SELECT name, statements FROM cafe_migrations WHERE name > '09';") == [("0901_one", 2)]
    (folder / "0902_two.sql").write_text("CREATE TABLE two (id INT);")
    assert run() == {"ran": ["0902_two"], "missing": []}


def test_a_failed_statement_is_named_and_the_next_run_continues_there(run: Run, folder: Path, sql: Sql) -> None:
    broken = FIRST + "ALTER TABLE one ADD COLUMN weight GRAMS;\nCREATE TABLE two (id INT);\n"
    (folder / "0901_one.sql").write_text(broken)
    with pytest.raises(MigrationFailed, match=r"^0901_one\.sql, statement 3 of 4: Unknown data type"):
        run()
    (folder / "0901_one.sql").write_text(broken.replace("GRAMS", "INT"))
    assert run() == {"ran": ["0901_one"], "missing": []}
    assert columns(sql, "one") == ["id", "price", "weight"]
    assert columns(sql, "two") == ["id"]


def test_a_file_that_was_changed_after_it_ran_is_refused_unless_only_a_comment_changed(run: Run, folder: Path) -> None:
    run()
    (folder / "0901_one.sql").write_text("-- About prices.\n" + FIRST)
    assert run() == {"ran": [], "missing": []}
    (folder / "0901_one.sql").write_text(FIRST.replace("INT", "BIGINT"))
    with pytest.raises(MigrationFailed, match=r"^0901_one\.sql"):
        run()
    # A migration that ran earlier is ignored if its file no longer exists, as after a rollback.
    (folder / "0901_one.sql").unlink()
    assert run() == {"ran": [], "missing": []}


class Cut(Exception):
    pass


@pytest.mark.parametrize("word", ["INSERT INTO cafe_migrations", "CREATE TABLE one", "ADD COLUMN price", "UPDATE cafe"])
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_migration_that_was_cut_off_anywhere_is_finished_by_the_next_run(
    empty_database: Database, folder: Path, run: Run, sql: Sql, word: str, done: bool
) -> None:
    with pytest.raises(Cut), clients.mysql(empty_database) as connection, cut(connection, word, done):
        migrate(connection, folder)
    assert run()["missing"] == []
    assert columns(sql, "one") == ["id", "price"]
    assert run() == {"ran": [], "missing": []}


@contextmanager
def cut(connection: Any, word: str, done: bool) -> Iterator[None]:
    """Raises ``Cut`` before the statement of migration 0901 that contains ``word``.

    If ``done`` is true, the function raises ``Cut`` after that statement.
    """
    query = connection.query

    def until(statement: str, *more: Any) -> Any:
        meant = word in statement and ("cafe_migrations" not in statement or "0901" in statement)
        result = None if meant and not done else query(statement, *more)
        if meant:
            raise Cut
        return result

    connection.query = until
    yield


def test_simultaneous_migrations_run_each_file_once(run: Run, folder: Path, sql: Sql) -> None:
    (folder / "0902_rows.sql").write_text("CREATE TABLE two (id INT);\nINSERT INTO two SELECT SLEEP(0.2);\n")
    results = at_once(run, times=4)
    assert sorted(result["ran"] for result in results) == [[], [], [], [*OWN, "0901_one", "0902_rows"]]
    assert sql("SELECT COUNT(*) FROM two;") == [(1,)]


def test_a_deploy_that_waits_too_long_for_another_deploy_fails(
    empty_database: Database, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chalicelib.database.LOCK_SECONDS", 0)
    with clients.mysql(empty_database) as holder, holder.cursor() as cursor:
        cursor.execute("SELECT GET_LOCK(CONCAT('cafe_migrations.', MD5(DATABASE())), 0)")
        with pytest.raises(DatabaseUnavailable, match="another deploy"):
            run()
    assert run()["ran"]


def test_a_table_that_is_in_use_for_too_long_is_unavailable(
    empty_database: Database, run: Run, folder: Path, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    (folder / "0902_more.sql").write_text("ALTER TABLE one ADD COLUMN weight INT;")
    monkeypatch.setattr("chalicelib.database.TABLE_LOCK_SECONDS", 1)
    with clients.mysql(empty_database) as holder, holder.cursor() as cursor:
        cursor.execute("SELECT * FROM one")
        with pytest.raises(DatabaseUnavailable, match="Lock wait timeout"):
            run()
    assert run() == {"ran": ["0902_more"], "missing": []}


def test_rows_are_not_stored_if_the_number_of_statements_was_not(
    empty_database: Database, folder: Path, run: Run, sql: Sql
) -> None:
    """The rows and the number of executed statements are stored in one transaction."""
    (folder / "0901_one.sql").write_text("CREATE TABLE one (id INT);\nINSERT INTO one VALUES (7);\n")
    with pytest.raises(Cut), clients.mysql(empty_database) as connection, cut(connection, "statements = 2", False):
        migrate(connection, folder)
    run()
    assert sql("SELECT * FROM one;") == [(7,)]


# --- another system's tables ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("charset", ["utf8mb4", "latin1"])
def test_another_systems_tables_keep_their_rows_and_get_the_keys_that_the_import_needs(
    charset: str, run: Run, sql: Sql
) -> None:
    sql(LOOSE_TABLES.format(charset=charset))
    rows = "INSERT INTO suppliers (name, email) VALUES ('Café', NULL), (NULL, ''), (NULL, NULL);"
    beans = (
        "INSERT INTO beans (supplier_id, type, product_name) VALUES (1, 'a', 'b'), (99, NULL, 'b'), (99, NULL, 'b');"
    )
    sql(rows + "\n" + beans)
    before = sql("SELECT * FROM suppliers;"), sql("SELECT * FROM beans;")
    assert run() == {"ran": [*OWN, "0901_one"], "missing": []}
    assert (sql("SELECT * FROM suppliers;"), sql("SELECT * FROM beans;")) == before
    assert sql("SHOW INDEX FROM suppliers WHERE Key_name = 'suppliers_name';")
    assert sql("SHOW INDEX FROM beans WHERE Key_name = 'beans_identity';")


def test_rows_that_prevent_a_key_stay_readable_and_are_reported_at_each_deploy(
    empty_database: Database, run: Run, sql: Sql
) -> None:
    sql(LOOSE_TABLES.format(charset="utf8mb4"))
    sql("INSERT INTO suppliers (name) VALUES ('Hill'), ('hill');\nINSERT INTO beans (supplier_id) VALUES (1);")
    result = run()
    assert result["ran"] == [*OWN, "0901_one"]
    [line] = result["missing"]
    assert re.match(
        "suppliers cannot have a unique key on name, so uploads cannot be imported: Duplicate entry '[Hh]ill'", line
    )
    with clients.mysql(empty_database) as connection:
        assert list(read_rows(connection, "SELECT name FROM suppliers ORDER BY id", 1, 9)) == [
            ([b"Hill", b"hill"], [b""] * 2)
        ]
    assert run() == {"ran": [], "missing": [line]}
    sql("UPDATE suppliers SET name = 'Dale' WHERE id = 2;")
    assert run() == {"ran": [], "missing": []}


# --- permissions ------------------------------------------------------------------------------------------------------


@pytest.fixture
def functions(system: System, empty_database: Database) -> Iterator[Database]:
    """Creates a database user with the same permissions as the database user of the Lambda functions."""
    user = replace(empty_database, user=empty_database.name, password="it's a \\ p%ssword")
    with clients.mysql(empty_database) as connection:
        grant_access(connection, user)
    yield user
    system.sql(f"DROP USER '{user.user}'@'%%'")


def test_the_functions_user_has_permissions_only_on_its_own_database(system: System, functions: Database) -> None:
    grants = " ".join(row[0] for row in system.sql(f"SHOW GRANTS FOR '{functions.user}'@'%%'"))
    name = functions.name.replace("_", "\\_")
    assert f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE TEMPORARY TABLES ON `{name}`.*" in grants
    assert grants.count("GRANT") == 2
    assert "GRANT USAGE ON *.*" in grants


def test_an_existing_users_password_is_set_to_the_secrets(empty_database: Database, functions: Database) -> None:
    other = replace(functions, password="another")
    with clients.mysql(empty_database) as connection:
        grant_access(connection, other)
    with clients.mysql(other):
        pass
    with pytest.raises(DatabaseRefused, match="Access denied"), clients.mysql(functions):
        pass


# --- as deployed ------------------------------------------------------------------------------------------------------


def test_the_deploy_has_run_every_migration(system: System) -> None:
    ran = [row[0] for row in system.sql("SELECT name FROM cafe_migrations ORDER BY name")]
    assert ran == OWN
    assert system.invoke("migrate", {}) == (True, {"ran": [], "missing": []})
