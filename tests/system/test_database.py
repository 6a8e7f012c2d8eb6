"""MySQL in trouble, as the functions' own connection sees it: each trouble has its error, and none lasts for ever."""

import json
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import trustme

from chalicelib import clients
from chalicelib.database import let_in
from chalicelib.errors import DatabaseRefused, DatabaseUnavailable
from chalicelib.settings import Database
from infra.deploy.place import FUNCTIONS
from local import database as local
from local.processes import free_ports
from tests.system.system import System

HEADER = "supplier_name,type,product_name,price,description,quantity\n"
INVENTORY = "inventory/none.csv"


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


@contextmanager
def rotated(system: System, told: bool = True) -> Iterator[None]:
    """For a while the functions' user has another password, and the secret tells it, or does not."""
    manager, arn = system.aws("secretsmanager"), system.env["DB_SECRET_ARN"]
    before = manager.get_secret_value(SecretId=arn)["SecretString"]
    known = json.loads(before)
    # No worker knows it from another time.
    new = secrets.token_hex(8)

    def set_password(password: str) -> None:
        [(host,)] = system.sql("SELECT Host FROM mysql.user WHERE User = %s", known["username"])
        system.sql("ALTER USER %s@%s IDENTIFIED BY %s", known["username"], host, password)

    set_password(new)
    if told:
        manager.put_secret_value(SecretId=arn, SecretString=json.dumps({**known, "password": new}))
    try:
        yield
    finally:
        set_password(known["password"])
        manager.put_secret_value(SecretId=arn, SecretString=before)


def read_inventory(system: System) -> tuple[bool, Any]:
    return system.invoke("read_inventory", {"reportId": "rotated"})


def test_a_deployed_function_follows_a_password_that_is_rotated(system: System) -> None:
    ok, before = read_inventory(system)
    assert ok, before
    with rotated(system):
        ok, during = read_inventory(system)
        assert ok, during
        key = system.upload(f"inventory/{secrets.token_hex(4)}.csv", HEADER)
        assert "0 rows imported" in system.notification(key, "upload")["message"]
    ok, after = read_inventory(system)
    assert ok, after


def test_a_password_that_the_secret_does_not_tell_fails_the_report_with_the_servers_words(system: System) -> None:
    with rotated(system, told=False):
        report = system.report()
    assert report["status"] == "FAILED"
    assert "refuses: Access denied for user 'cafe_functions'" in report["error"]


def test_a_function_may_read_its_own_secret_and_no_other(system: System) -> None:
    ok, before = read_inventory(system)
    assert ok, before
    # A password that is refused is what makes it look again.
    for function, event in (("read_inventory", {}), ("receive_upload", system.s3_event(INVENTORY, etag='"0"'))):
        with rotated(system), system.without(function, "secretsmanager:GetSecretValue"):
            ok, error = system.invoke(function, event)
        assert not ok, (function, error)
        assert "AccessDenied" in error["errorMessage"]
        assert "GetSecretValue" in error["errorMessage"]


def test_the_password_is_in_no_functions_environment(system: System) -> None:
    functions = system.aws("lambda").list_functions()["Functions"]
    known = {each["FunctionName"].removeprefix("cafe-dev-"): each["Environment"]["Variables"] for each in functions}
    assert {name for name, variables in known.items() if "DB_SECRET_ARN" in variables} == set(FUNCTIONS)
    assert system.env["DB_PASSWORD"] not in json.dumps(known)


def new_authority() -> trustme.CA:
    """One that calls itself as RDS's in a region ``0``."""
    return trustme.CA(organization_name="Amazon RDS 0 Root CA")


@dataclass(frozen=True)
class TlsServer(local.Database):
    """A private server that has a certificate for ``shown``, and takes connections with TLS only."""

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
    server.prepare()
    server.start()
    try:
        server.empty()
        functions, admin = server.secrets.values()
        database = Database.of_secret(functions)
        with clients.mysql(database.logged_in(admin)) as connection:
            let_in(connection, database)
        yield database
    finally:
        server.stop()


def cipher(place: Database) -> str:
    with clients.mysql(place) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW STATUS LIKE 'Ssl_cipher'")
        return str((cursor.fetchone() or ("", ""))[1])


@pytest.fixture
def as_rds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[trustme.CA], None]]:
    """From then on the servers here are taken for RDS's, in a region ``0`` with this authority."""

    def as_rds(authority: trustme.CA) -> None:
        authority.cert_pem.write_to_path(tmp_path / "authorities.pem")
        monkeypatch.setattr(clients, "AUTHORITIES", tmp_path / "authorities.pem")
        monkeypatch.setattr(clients, "RDS", re.compile(r"^127\.0\.(0)\.1$"))
        clients._tls.cache_clear()

    yield as_rds
    clients._tls.cache_clear()


def test_a_server_of_rds_that_shows_who_it_is_is_talked_to_by_tls(
    tmp_path: Path, as_rds: Callable[[trustme.CA], None]
) -> None:
    authority = new_authority()
    with tls_server(tmp_path / "server", authority=authority) as place:
        as_rds(authority)
        assert cipher(place).startswith("TLS_")


@pytest.mark.parametrize("shown", ["127.0.0.1", "db.example"], ids=["another authority", "another name"])
def test_a_server_that_shows_another_authority_or_name_is_refused(
    tmp_path: Path, as_rds: Callable[[trustme.CA], None], shown: str
) -> None:
    authority = new_authority()
    with tls_server(tmp_path / "server", authority=authority, shown=shown) as place:
        as_rds(authority if shown == "db.example" else new_authority())
        with pytest.raises(DatabaseRefused, match=r"does not show that it is the one: .*certificate verify failed"):
            cipher(place)


def test_a_server_of_rds_without_tls_is_refused(database: Database, as_rds: Callable[[trustme.CA], None]) -> None:
    as_rds(new_authority())
    with pytest.raises(DatabaseRefused, match="SSL"):
        cipher(database)


def test_a_connection_is_encrypted_where_the_server_offers_it(tmp_path: Path, database: Database) -> None:
    # The stack's own server has no certificate, and is reached all the same.
    assert cipher(database) == ""
    with tls_server(tmp_path) as encrypted:
        assert cipher(encrypted).startswith("TLS_")
