"""Provides the MySQL server of the local stack: a private MariaDB server or the server that CAFE_DB_HOST names."""

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
from local.packages import find_program
from local.processes import Process, StackError, basic_environment, fingerprint, run_quietly

if TYPE_CHECKING:
    from pymysql.connections import Connection

HERE = Path(__file__).parent
SEED = HERE / "seed.sql"

NAME = "cafe"
FUNCTIONS_USER = "cafe_functions"
PRIVATE_ADMIN = "cafe_admin"

PACKAGES = ("mariadb-server-core", "mariadb-client-core")
# MariaDB does not sync its files to disk, because the data of a crashed server is never reused.
FAST_OPTIONS = ("--debug-no-sync", "--innodb-flush-log-at-trx-commit=0")

USE_EXTERNAL_SERVER = (
    "To use an existing MySQL server, set CAFE_DB_HOST, CAFE_DB_PORT, CAFE_DB_ADMIN_USER and CAFE_DB_ADMIN_PASSWORD."
)


@dataclass(frozen=True)
class ExternalServer:
    """An external MySQL server, which CAFE_DB_HOST and related environment variables describe."""

    host: str
    port: int
    user: str
    password: str

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> ExternalServer | None:
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
            raise StackError(f"CAFE_DB_HOST is set, but {error.args[0]} is not. {USE_EXTERNAL_SERVER}") from None


@dataclass(frozen=True)
class Database:
    """The database ``cafe`` and its two users. ``folder`` contains the private server's data and the passwords."""

    folder: Path
    port: int
    external: ExternalServer | None = None

    @cached_property
    def process(self) -> Process:
        return Process("mariadb", self.folder)

    @property
    def variables(self) -> dict[str, str]:
        """Returns the server's address, and the initial credentials of the functions and the administrator."""
        passwords = json.loads(self._passwords.read_text())
        host, _, port = self.address.rpartition(":")
        return {
            "DB_HOST": host,
            "DB_PORT": port,
            "DB_NAME": NAME,
            "DB_USER": FUNCTIONS_USER,
            "DB_PASSWORD": passwords["functions"],
            "DB_ADMIN_USER": self.external.user if self.external else PRIVATE_ADMIN,
            "DB_ADMIN_PASSWORD": self.external.password if self.external else passwords["admin"],
        }

    @property
    def secrets(self) -> dict[str, str]:
        """Returns two secrets for Secrets Manager, keyed by the environment variable for each ARN."""
        variables = self.variables
        names = {"host": "DB_HOST", "port": "DB_PORT", "dbname": "DB_NAME"}
        address = {name: variables[variable] for name, variable in names.items()}
        functions = {"username": variables["DB_USER"], "password": variables["DB_PASSWORD"]}
        admin = {"username": variables["DB_ADMIN_USER"], "password": variables["DB_ADMIN_PASSWORD"]}
        return {"DB_SECRET_ARN": json.dumps({**address, **functions}), "DB_ADMIN_SECRET_ARN": json.dumps(admin)}

    @property
    def address(self) -> str:
        return f"{self.external.host}:{self.external.port}" if self.external else f"127.0.0.1:{self.port}"

    @property
    def installed(self) -> bool:
        return self.external is not None or bool(find_program("mariadbd") and find_program("mariadb-install-db"))

    def install(self) -> None:
        """Installs MariaDB with the system's package manager. Raises ``StackError`` if the installation fails."""
        # The package mariadb-server is not installed, because it would start a system-wide server.
        packages.install("MariaDB", apt=PACKAGES, brew=["mariadb"], alternative=USE_EXTERNAL_SERVER)

    def create_passwords(self) -> None:
        """Creates passwords for the private server's administrator and for the functions, unless passwords exist."""
        if not self._passwords.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            passwords = {user: secrets.token_urlsafe(24) for user in ("admin", "functions")}
            write_private(self._passwords, json.dumps(passwords))

    def check_external_server(self) -> None:
        """Raises ``StackError`` if the external server has a database ``cafe`` that this stack did not create."""
        import pymysql

        if not self.external:
            return
        try:
            with self._connect() as connection, connection.cursor() as cursor:
                exists = cursor.execute("SHOW DATABASES LIKE %s", (NAME,))
        except pymysql.err.OperationalError as error:
            raise StackError(
                f"cannot connect to the MySQL server {self.address}: {error.args[-1]}. {USE_EXTERNAL_SERVER}"
            ) from None
        if exists and not (self._created_on.exists() and self._created_on.read_text() == self.address):
            raise StackError(
                f"`make run` would drop the database {NAME} on {self.address}, "
                "but did not create it: rename the database, or use another MySQL server"
            )

    def runs(self) -> bool:
        return self.external is not None or (self.process.runs(self._fingerprint) and self._answers())

    def start(self) -> None:
        """Starts the private server with an empty data folder."""
        self.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        run_quietly(
            # Each server has its own temporary folder, because a starting server removes temporary tables from its
            # folder.
            *("env", f"TMPDIR={self.folder}"),
            *(str(find_program("mariadb-install-db")), "--no-defaults", f"--datadir={self._data}"),
            *("--auth-root-authentication-method=normal", "--skip-test-db", *FAST_OPTIONS, *_root_option()),
        )
        self.start_process()

    def start_process(self) -> None:
        """Starts the private server with its existing data, and waits until it accepts connections."""
        self._write_first_statements()
        environment = {**basic_environment(), "TMPDIR": str(self._data)}
        self.process.start(self._command, environment, self._fingerprint, self.port)
        self.process.wait(self._answers)

    def stop(self) -> None:
        self.process.stop()
        shutil.rmtree(self._data, ignore_errors=True)

    def recreate(self) -> None:
        """Drops the database, and creates an empty database.

        The deploy creates the tables and the database user of the functions.
        """
        self._run(
            f"DROP DATABASE IF EXISTS {NAME}; CREATE DATABASE {NAME} CHARACTER SET utf8mb4;"
            f"DROP USER IF EXISTS '{FUNCTIONS_USER}'@'%'"
        )
        self._created_on.write_text(self.address)

    def seed(self) -> None:
        """Fills the tables with a sample inventory."""
        self._run(f"USE {NAME}; {SEED.read_text()}")

    def _run(self, statements: str) -> None:
        import pymysql

        with self._connect() as connection, connection.cursor() as cursor:
            try:
                cursor.execute(statements)
                while cursor.nextset():
                    pass
            except pymysql.err.MySQLError as error:
                raise StackError(f"the MySQL server {self.address} refused a statement: {error.args[-1]}") from None
            connection.commit()

    @property
    def _created_on(self) -> Path:
        """This file records the address of the server on which this stack created its database."""
        return self.folder / "made"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _command(self) -> list[str]:
        return [
            str(find_program("mariadbd")),
            "--no-defaults",
            f"--datadir={self._data}",
            # The socket's path is relative to the data folder, because its absolute path could exceed 107 characters.
            "--socket=mariadb.sock",
            "--pid-file=mariadb.pid",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            f"--init-file={self.folder / 'first.sql'}",
            "--character-set-server=utf8mb4",
            "--performance-schema=off",
            "--innodb-fast-shutdown=2",
            *FAST_OPTIONS,
            *_root_option(),
        ]

    @property
    def _fingerprint(self) -> str:
        return fingerprint(self._command)

    @property
    def _passwords(self) -> Path:
        return self.folder / "passwords.json"

    def _write_first_statements(self) -> None:
        """Writes the SQL statements that create the administrator and delete accounts without a password."""
        admin = f"'{PRIVATE_ADMIN}'@'127.0.0.1'"
        # The password is URL-safe base64, so it contains no quotation marks.
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
        """Returns the PyMySQL arguments for connecting as the administrator."""
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


def _root_option() -> list[str]:
    """Returns the option that MariaDB requires if it runs as root."""
    # With --user=root instead of -uroot, MariaDB's installer fails on paths that contain a space.
    return ["-uroot"] if os.geteuid() == 0 else []
