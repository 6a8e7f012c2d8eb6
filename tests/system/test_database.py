"""Tests the errors that Lambda functions raise when MySQL fails."""

import json
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import trustme

from chalicelib import clients
from chalicelib.database import grant_access
from chalicelib.errors import DatabaseRefused, DatabaseUnavailable
from chalicelib.settings import Database
from infra.functions import MYSQL_USERS
from local import database as local
from local.processes import free_ports
from tests.system.inventory import HEADER
from tests.system.system import System, new_id
from tests.system.waiting import changed


def test_a_slow_server_is_unavailable_after_the_read_time_out(database: Database) -> None:
    with (
        pytest.raises(DatabaseUnavailable, match="is temporarily unavailable"),
        clients.mysql(database, read_seconds=1) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT SLEEP(30)")


def test_a_table_that_is_locked_too_long_is_unavailable(database: Database) -> None:
    def insert() -> None:
        with clients.mysql(database) as connection, connection.cursor() as cursor:
            cursor.execute("SET innodb_lock_wait_timeout = 1")
            cursor.execute("INSERT INTO suppliers (name) VALUES ('Hill')")

    with clients.mysql(database) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO suppliers (name) VALUES ('Hill')")
        with pytest.raises(DatabaseUnavailable, match="Lock wait timeout"):
            insert()


def rotated(system: System) -> AbstractContextManager[None]:
    """Changes the password of the Lambda functions' database user while the ``with`` block runs."""
    manager, arn = system.aws("secretsmanager"), system.env["DB_SECRET_ARN"]
    usual = manager.get_secret_value(SecretId=arn)["SecretString"]

    def change(secret: str) -> None:
        known = json.loads(secret)
        [(host,)] = system.sql("SELECT Host FROM mysql.user WHERE User = %s", known["username"])
        system.sql("ALTER USER %s@%s IDENTIFIED BY %s", known["username"], host, known["password"])
        manager.put_secret_value(SecretId=arn, SecretString=secret)

    # The password is new each time, so no worker has cached it from an earlier test.
    return changed(change, usual, json.dumps({**json.loads(usual), "password": secrets.token_hex(8)}))


def test_a_deployed_function_reads_a_rotated_password(system: System) -> None:
    report = {"reportId": new_id("rotated")}
    system.call("read_inventory", report)
    with rotated(system):
        system.call("read_inventory", report)
        key = system.upload(f"inventory/{new_id('u')}.csv", HEADER)
        assert "0 rows imported" in system.notification(key, "upload")["message"]
    system.call("read_inventory", report)


def test_no_functions_environment_contains_the_password(system: System) -> None:
    functions = system.aws("lambda").list_functions()["Functions"]
    known = {each["FunctionName"].removeprefix("cafe-dev-"): each["Environment"]["Variables"] for each in functions}
    assert {name for name, variables in known.items() if "DB_SECRET_ARN" in variables} == set(MYSQL_USERS)
    assert system.env["DB_PASSWORD"] not in json.dumps(known)


def new_authority() -> trustme.CA:
    """Returns a certificate authority with the name that RDS would use in a region called ``0``."""
    return trustme.CA(organization_name="Amazon RDS 0 Root CA")


@dataclass(frozen=True)
class TlsServer(local.Database):
    """A separate server that accepts only TLS connections. The server's certificate is for the host ``shown``."""

    authority: trustme.CA = field(default_factory=new_authority)
    shown: str = "127.0.0.1"

    @cached_property
    def _certificate(self) -> Path:
        path = self.folder / "certificate.pem"
        self.authority.issue_cert(self.shown).private_key_and_cert_chain_pem.write_to_path(path)
        return path

    @property
    def _command(self) -> list[str]:
        tls = [f"--ssl-cert={self._certificate}", f"--ssl-key={self._certificate}", "--require-secure-transport=on"]
        return [*super()._command, *tls]


@contextmanager
def tls_server(folder: Path, **how: Any) -> Iterator[Database]:
    server = TlsServer(folder, free_ports(1)[0], **how)
    server.create_passwords()
    server.start()
    try:
        server.recreate()
        functions, admin = server.secrets.values()
        database = Database.of_secret(functions)
        with clients.mysql(database.logged_in(admin)) as connection:
            grant_access(connection, database)
        yield database
    finally:
        server.stop()


def cipher(place: Database) -> str:
    with clients.mysql(place) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW STATUS LIKE 'Ssl_cipher'")
        return str((cursor.fetchone() or ("", ""))[1])


@pytest.fixture
def as_rds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[trustme.CA], None]]:
    """Returns a function that makes the clients treat local servers as RDS servers with this certificate authority."""

    def as_rds(authority: trustme.CA) -> None:
        authority.cert_pem.write_to_path(tmp_path / "authorities.pem")
        monkeypatch.setattr(clients, "AUTHORITIES", tmp_path / "authorities.pem")
        monkeypatch.setattr(clients, "RDS", re.compile(r"^127\.0\.(0)\.1$"))
        clients._tls.cache_clear()

    yield as_rds
    clients._tls.cache_clear()


@pytest.mark.parametrize("shown", ["127.0.0.1", "db.example"])
def test_an_rds_server_needs_a_certificate_from_the_right_authority_with_the_right_name(
    tmp_path: Path, as_rds: Callable[[trustme.CA], None], shown: str
) -> None:
    authority = new_authority()
    with tls_server(tmp_path / "server", authority=authority, shown=shown) as place:
        as_rds(authority)
        if shown == "127.0.0.1":
            assert cipher(place).startswith("TLS_")
            as_rds(new_authority())
        with pytest.raises(DatabaseRefused, match=r"has no valid certificate: .*certificate verify failed"):
            cipher(place)


def test_an_rds_server_without_tls_is_refused(database: Database, as_rds: Callable[[trustme.CA], None]) -> None:
    as_rds(new_authority())
    with pytest.raises(DatabaseRefused, match="SSL"):
        cipher(database)


def test_a_connection_is_encrypted_if_the_server_supports_it(tmp_path: Path, database: Database) -> None:
    # The stack's MySQL server has no certificate, but it must still accept connections.
    assert cipher(database) == ""
    with tls_server(tmp_path) as encrypted:
        assert cipher(encrypted).startswith("TLS_")
