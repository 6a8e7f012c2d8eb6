"""The migrations on a real server: each file once, whatever fails or is cut off; and on tables of another system."""

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
from chalicelib.reports.mysql import read_cells
from chalicelib.settings import Database
from tests.system.system import LOOSE_TABLES, System
from tests.system.waiting import at_once

FIRST = "CREATE TABLE one (id INT);\n-- Its price; in cents.\nALTER TABLE one ADD COLUMN price INT;\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Migrations that begin with the project's own."""
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


def test_each_file_runs_once_and_in_its_order(run: Run, folder: Path, sql: Sql) -> None:
    assert run() == {"ran": [*OWN, "0901_one"], "missing": []}
    assert columns(sql, "one") == ["id", "price"]
    assert run() == {"ran": [], "missing": []}
    assert sql("SELECT name, statements FROM cafe_migrations WHERE name > '09';") == [("0901_one", 2)]
    (folder / "0902_two.sql").write_text("CREATE TABLE two (id INT);")
    assert run() == {"ran": ["0902_two"], "missing": []}


def test_a_statement_that_fails_is_named_and_the_next_run_goes_on_after_what_is_done(
    run: Run, folder: Path, sql: Sql
) -> None:
    broken = FIRST + "ALTER TABLE one ADD COLUMN weight GRAMS;\nCREATE TABLE two (id INT);\n"
    (folder / "0901_one.sql").write_text(broken)
    with pytest.raises(MigrationFailed, match=r"^0901_one\.sql, statement 3 of 4: Unknown data type"):
        run()
    (folder / "0901_one.sql").write_text(broken.replace("GRAMS", "INT"))
    assert run() == {"ran": ["0901_one"], "missing": []}
    assert columns(sql, "one") == ["id", "price", "weight"]
    assert columns(sql, "two") == ["id"]


def test_a_file_that_was_changed_after_it_ran_is_refused_but_not_for_a_comment(run: Run, folder: Path) -> None:
    run()
    (folder / "0901_one.sql").write_text("-- About prices.\n" + FIRST)
    assert run() == {"ran": [], "missing": []}
    (folder / "0901_one.sql").write_text(FIRST.replace("INT", "BIGINT"))
    with pytest.raises(MigrationFailed, match=r"^0901_one\.sql"):
        run()
    # A file that only a later release has is left alone.
    (folder / "0901_one.sql").unlink()
    assert run() == {"ran": [], "missing": []}


class Cut(Exception):
    pass


@pytest.mark.parametrize("word", ["INSERT INTO cafe_migrations", "CREATE TABLE one", "ADD COLUMN price", "UPDATE cafe"])
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_cut_off_anywhere_the_next_time_ends_with_the_same_tables(
    empty_database: Database, folder: Path, run: Run, sql: Sql, word: str, done: bool
) -> None:
    with pytest.raises(Cut), clients.mysql(empty_database) as connection, cut(connection, word, done):
        migrate(connection, folder)
    assert run()["missing"] == []
    assert columns(sql, "one") == ["id", "price"]
    assert run() == {"ran": [], "missing": []}


@contextmanager
def cut(connection: Any, word: str, done: bool) -> Iterator[None]:
    """The connection ends before the first statement with ``word`` of the file 0901, or when that is ``done``."""
    query = connection.query

    def until(statement: str, *more: Any) -> Any:
        meant = word in statement and ("cafe_migrations" not in statement or "0901" in statement)
        result = None if meant and not done else query(statement, *more)
        if meant:
            raise Cut
        return result

    connection.query = until
    yield


def test_two_at_once_run_each_file_once(run: Run, folder: Path, sql: Sql) -> None:
    (folder / "0902_rows.sql").write_text("CREATE TABLE two (id INT);\nINSERT INTO two SELECT SLEEP(0.2);\n")
    results = at_once(run, times=4)
    assert sorted(result["ran"] for result in results) == [[], [], [], [*OWN, "0901_one", "0902_rows"]]
    assert sql("SELECT COUNT(*) FROM two;") == [(1,)]


def test_a_deploy_that_waits_too_long_for_another_one_fails(
    empty_database: Database, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chalicelib.database.LOCK_SECONDS", 0)
    with clients.mysql(empty_database) as holder, holder.cursor() as cursor:
        cursor.execute("SELECT GET_LOCK(CONCAT('cafe_migrations.', MD5(DATABASE())), 0)")
        with pytest.raises(DatabaseUnavailable, match="another deploy"):
            run()
    assert run()["ran"]


def test_a_table_that_is_in_use_for_too_long_is_not_available_for_now(
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


def test_rows_whose_count_was_not_stored_are_not_stored_either(
    empty_database: Database, folder: Path, run: Run, sql: Sql
) -> None:
    """Rows and their count are one transaction."""
    (folder / "0901_one.sql").write_text("CREATE TABLE one (id INT);\nINSERT INTO one VALUES (7);\n")
    with pytest.raises(Cut), clients.mysql(empty_database) as connection, cut(connection, "statements = 2", False):
        migrate(connection, folder)
    run()
    assert sql("SELECT * FROM one;") == [(7,)]


# --- tables of another system -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("charset", ["utf8mb4", "latin1"])
def test_tables_of_elsewhere_keep_what_they_have_and_get_what_the_import_needs(
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


def test_rows_that_allow_no_key_stay_readable_and_are_reported_at_each_deploy_until_they_do(
    empty_database: Database, run: Run, sql: Sql
) -> None:
    sql(LOOSE_TABLES.format(charset="utf8mb4"))
    sql("INSERT INTO suppliers (name) VALUES ('Hill'), ('hill');\nINSERT INTO beans (supplier_id) VALUES (1);")
    result = run()
    assert result["ran"] == [*OWN, "0901_one"]
    [line] = result["missing"]
    assert re.match(
        "suppliers cannot have a unique key on name, so no upload is imported: Duplicate entry '[Hh]ill'", line
    )
    with clients.mysql(empty_database) as connection:
        assert list(read_cells(connection, "SELECT name FROM suppliers ORDER BY id", 10)) == [[b"Hill", b"hill"]]
    assert run() == {"ran": [], "missing": [line]}
    sql("UPDATE suppliers SET name = 'Dale' WHERE id = 2;")
    assert run() == {"ran": [], "missing": []}


# --- who may ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def functions(system: System, empty_database: Database) -> Iterator[Database]:
    """A user of the functions for this database."""
    user = replace(empty_database, user=empty_database.name, password="it's a \\ p%ssword")
    with clients.mysql(empty_database) as connection:
        grant_access(connection, user)
    yield user
    system.sql(f"DROP USER '{user.user}'@'%%'")


def test_the_functions_user_has_its_rights_on_its_own_database_alone(system: System, functions: Database) -> None:
    grants = " ".join(row[0] for row in system.sql(f"SHOW GRANTS FOR '{functions.user}'@'%%'"))
    name = functions.name.replace("_", "\\_")
    assert f"GRANT SELECT, INSERT, UPDATE, CREATE TEMPORARY TABLES ON `{name}`.*" in grants
    assert grants.count("GRANT") == 2
    assert "GRANT USAGE ON *.*" in grants


def test_an_existing_user_gets_the_password_of_the_secret(empty_database: Database, functions: Database) -> None:
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
