"""MySQL for the local stack: a private MariaDB server, or the server that CAFE_DB_HOST names."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.files import write_private
from local import packages
from local.packages import program
from local.processes import Process, StackError, basic_environment, fingerprint, run_quietly

if TYPE_CHECKING:
    from pymysql.connections import Connection

HERE = Path(__file__).parent
SEED = HERE / "seed.sql"

NAME = "cafe"
FUNCTIONS_USER = "cafe_functions"
PRIVATE_ADMIN = "cafe_admin"

PACKAGES = ("mariadb-server-core", "mariadb-client-core")
# Quick rather than safe: nothing waits for the disk, for what a crash leaves behind is not used again.
QUICK = ("--debug-no-sync", "--innodb-flush-log-at-trx-commit=0")

OTHER_SERVER = (
    "To use a MySQL server that is there already, set CAFE_DB_HOST, CAFE_DB_PORT, CAFE_DB_ADMIN_USER and "
    "CAFE_DB_ADMIN_PASSWORD."
)


@dataclass(frozen=True)
class Server:
    """A MySQL server that somebody else runs, from CAFE_DB_HOST and its fellows."""

    host: str
    port: int
    user: str
    password: str

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Server | None:
        if not environment.get("CAFE_DB_HOST"):
            return None
        try:
            return cls(
                environment["CAFE_DB_HOST"],
                int(environment.get("CAFE_DB_PORT") or 3306),
                environment["CAFE_DB_ADMIN_USER"],
                environment["CAFE_DB_ADMIN_PASSWORD"],
            )
        except KeyError as error:
            raise StackError(f"CAFE_DB_HOST is set, and {error.args[0]} is not") from None


@dataclass(frozen=True)
class Database:
    """The database ``cafe`` and its two users. ``folder`` holds the private server's data, and the passwords."""

    folder: Path
    port: int
    other: Server | None = None

    @cached_property
    def process(self) -> Process:
        return Process("mariadb", self.folder)

    @property
    def variables(self) -> dict[str, str]:
        """How the functions reach it at first, and how an administrator does."""
        passwords = json.loads(self._passwords.read_text())
        host, _, port = self.address.rpartition(":")
        return {
            "DB_HOST": host,
            "DB_PORT": port,
            "DB_NAME": NAME,
            "DB_USER": FUNCTIONS_USER,
            "DB_PASSWORD": passwords["functions"],
            "DB_ADMIN_USER": self.other.user if self.other else PRIVATE_ADMIN,
            "DB_ADMIN_PASSWORD": self.other.password if self.other else passwords["admin"],
        }

    @property
    def secrets(self) -> dict[str, str]:
        """What Secrets Manager is to tell: how the functions reach it, and who its administrator is; by the variables
        that a deploy takes for them."""
        variables = self.variables
        names = {"host": "DB_HOST", "port": "DB_PORT", "dbname": "DB_NAME"}
        known = {name: variables[variable] for name, variable in names.items()}
        functions = {"username": variables["DB_USER"], "password": variables["DB_PASSWORD"]}
        admin = {"username": variables["DB_ADMIN_USER"], "password": variables["DB_ADMIN_PASSWORD"]}
        return {"DB_SECRET_ARN": json.dumps({**known, **functions}), "DB_ADMIN_SECRET_ARN": json.dumps(admin)}

    @property
    def address(self) -> str:
        return f"{self.other.host}:{self.other.port}" if self.other else f"127.0.0.1:{self.port}"

    @property
    def installed(self) -> bool:
        return self.other is not None or bool(program("mariadbd") and program("mariadb-install-db"))

    def install(self) -> None:
        """Install MariaDB with the system's package manager. Raises ``StackError`` where that cannot be done."""
        # Only the programs: the package mariadb-server would start a server for the whole machine.
        packages.install("MariaDB", apt=PACKAGES, brew=["mariadb"], otherwise=OTHER_SERVER)

    def prepare(self) -> None:
        """Make the passwords, once. On somebody's server, refuse to drop a database that this stack has not made."""
        import pymysql

        passwords = {"admin": secrets.token_urlsafe(24), "functions": secrets.token_urlsafe(24)}
        if not self._passwords.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_private(self._passwords, json.dumps(passwords))
        if not self.other:
            return
        try:
            with self._connect() as connection, connection.cursor() as cursor:
                there = cursor.execute("SHOW DATABASES LIKE %s", (NAME,))
        except pymysql.err.OperationalError as error:
            raise StackError(f"CAFE_DB_HOST and its fellows: {error.args[-1]}") from None
        if there and not (self._made.exists() and self._made.read_text() == self.address):
            raise StackError(
                f"the server at {self.address} has a database {NAME!r} that `make run` has not made, and would drop: "
                "rename it, or use another server"
            )

    def runs(self) -> bool:
        return self.other is not None or (self.process.runs(self._fingerprint) and self._answers())

    def start(self) -> None:
        """Start the private server, with nothing in it."""
        self.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        run_quietly(
            # Not the folder that all share: a server that starts removes other servers' temporary tables from it.
            *("env", f"TMPDIR={self.folder}"),
            *(str(program("mariadb-install-db")), "--no-defaults", f"--datadir={self._data}"),
            *("--auth-root-authentication-method=normal", "--skip-test-db", *QUICK, *_as_root()),
        )
        self.launch()

    def launch(self) -> None:
        """Start the private server on the data that it has."""
        self._write_first_statements()
        environment = {**basic_environment(), "TMPDIR": str(self._data)}
        self.process.start(self._command, environment, self._fingerprint, self.port)
        self.process.wait(self._answers)

    def stop(self) -> None:
        self.process.stop()
        shutil.rmtree(self._data, ignore_errors=True)

    def empty(self) -> None:
        """Make the database from nothing; its tables and the functions' user are the deploy's."""
        self._run(
            f"DROP DATABASE IF EXISTS {NAME}; CREATE DATABASE {NAME} CHARACTER SET utf8mb4;"
            f"DROP USER IF EXISTS '{FUNCTIONS_USER}'@'%'"
        )
        self._made.write_text(self.address)

    def seed(self) -> None:
        """Fill the tables with an inventory to try things with."""
        self._run(f"USE {NAME}; {SEED.read_text()}")

    def _run(self, statements: str) -> None:
        import pymysql

        with self._connect() as connection, connection.cursor() as cursor:
            try:
                cursor.execute(statements)
                while cursor.nextset():
                    pass
            except pymysql.err.MySQLError as error:
                raise StackError(f"MySQL at {self.address}: {error.args[-1]}") from None
            connection.commit()

    @property
    def _made(self) -> Path:
        """Names the server on which this stack has made its database."""
        return self.folder / "made"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _command(self) -> list[str]:
        return [
            str(program("mariadbd")),
            "--no-defaults",
            f"--datadir={self._data}",
            # Relative to the data folder: a socket's whole path may have only 107 characters.
            "--socket=mariadb.sock",
            "--pid-file=mariadb.pid",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            f"--init-file={self.folder / 'first.sql'}",
            "--character-set-server=utf8mb4",
            "--performance-schema=off",
            "--innodb-fast-shutdown=2",
            *QUICK,
            *_as_root(),
        ]

    @property
    def _fingerprint(self) -> str:
        return fingerprint(self._command)

    @property
    def _passwords(self) -> Path:
        return self.folder / "passwords.json"

    def _write_first_statements(self) -> None:
        """What the server runs before it lets anybody in: one administrator, and no account without a password."""
        admin = f"'{PRIVATE_ADMIN}'@'127.0.0.1'"
        # The password is base64, which has no quote.
        statements = (
            "DELETE FROM mysql.global_priv WHERE User IN ('', 'root')",
            "FLUSH PRIVILEGES",
            f"CREATE OR REPLACE USER {admin} IDENTIFIED BY '{self.variables['DB_ADMIN_PASSWORD']}'",
            f"GRANT ALL PRIVILEGES ON *.* TO {admin} WITH GRANT OPTION",
        )
        write_private(
            self.folder / "first.sql",
            "".join(f"{statement};\n" for statement in statements),
        )

    def _answers(self) -> bool:
        import pymysql

        try:
            with self._connect():
                return True
        except pymysql.err.OperationalError:
            return False

    @property
    def administrator(self) -> dict[str, Any]:
        """The arguments by which PyMySQL connects as the administrator."""
        variables = self.variables
        return {
            "host": variables["DB_HOST"],
            "port": int(variables["DB_PORT"]),
            "user": variables["DB_ADMIN_USER"],
            "password": variables["DB_ADMIN_PASSWORD"],
            "charset": "utf8mb4",
            "connect_timeout": 5,
        }

    @contextmanager
    def _connect(self) -> Iterator[Connection[Any]]:
        import pymysql
        from pymysql.constants import CLIENT

        with pymysql.connect(**self.administrator, client_flag=CLIENT.MULTI_STATEMENTS) as connection:
            yield connection


def _as_root() -> list[str]:
    """MariaDB refuses to run as root unless it is told to."""
    # Not by --user=root: with that, its installer breaks a path that has a space.
    return ["-uroot"] if os.geteuid() == 0 else []
