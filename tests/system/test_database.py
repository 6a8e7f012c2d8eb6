"""MySQL in trouble, as the functions' own connection sees it: each trouble has its error, and none lasts for ever."""

from dataclasses import replace

import pytest

from chalicelib import clients
from chalicelib.errors import DatabaseRefused, DatabaseUnavailable
from chalicelib.settings import Database
from tests.system.conftest import System


def test_a_server_that_is_slow_is_given_up_after_the_read_time_out(database: Database) -> None:
    with (
        pytest.raises(DatabaseUnavailable, match="does not answer for now"),
        clients.mysql(database, read_seconds=1) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT SLEEP(30)")


def test_a_connection_that_the_server_cuts_is_unavailable(system: System, database: Database) -> None:
    def cut() -> None:
        with clients.mysql(database) as connection, connection.cursor() as cursor:
            system.sql(f"KILL {connection.thread_id()}")
            cursor.execute("SELECT 1")

    with pytest.raises(DatabaseUnavailable):
        cut()


def test_a_server_that_is_not_there_is_unavailable_and_named(database: Database) -> None:
    with (
        pytest.raises(DatabaseUnavailable, match=r"MySQL at 127\.0\.0\.1:1 "),
        clients.mysql(replace(database, port=1)),
    ):
        pass


@pytest.mark.parametrize("wrong", [{"password": "wrong"}, {"name": "nowhere"}], ids=["password", "database"])
def test_what_will_not_pass_by_itself_is_refused(system: System, database: Database, wrong: dict[str, str]) -> None:
    functions = replace(database, user=system.env["DB_USER"], password=system.env["DB_PASSWORD"])
    with pytest.raises(DatabaseRefused, match="refuses: Access denied"), clients.mysql(replace(functions, **wrong)):
        pass


def test_a_lock_that_is_held_too_long_is_unavailable(database: Database) -> None:
    def insert() -> None:
        with clients.mysql(database) as connection, connection.cursor() as cursor:
            cursor.execute("SET innodb_lock_wait_timeout = 1")
            cursor.execute("INSERT INTO suppliers (name) VALUES ('Hill')")

    with clients.mysql(database) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO suppliers (name) VALUES ('Hill')")
        with pytest.raises(DatabaseUnavailable, match="Lock wait timeout"):
            insert()
