"""The one place that makes clients: of AWS and of MySQL, each on first use and with explicit time-outs.

botocore and PyMySQL are imported here, inside the functions, because importing them costs more than most calls do:
a function that never talks to MySQL never loads it. It is botocore and not boto3, which adds nothing to a client but
uploads of files, and that takes 40 ms to load.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from chalicelib.errors import DatabaseRefused, DatabaseUnavailable, PasswordRefused, Unavailable, aws_errors
from chalicelib.settings import Database

if TYPE_CHECKING:
    from ssl import SSLContext

    from botocore.session import Session
    from pymysql.connections import Connection

# At most two tries of each call, and less than a second between them. S3 and CloudWatch move and add up much data.
ATTEMPTS = 2
BACKOFF_SECONDS = 1
CONNECT_SECONDS = 2
READ_SECONDS = 5
READ_SECONDS_OF = {"s3": 10, "cloudwatch": 10}
# A database that has paused takes half a minute to come back, and lets whoever connects wait for it.
MYSQL_CONNECT_SECONDS = 40
# To one service at once; no function has more threads than half of this.
CONNECTIONS = 32

# What MySQL and PyMySQL say of things that may be well a moment later: no connection (0, 2002 to 2014), too many
# (1040), a shutdown (1053, 1152, 1927), a lock held too long (1205), a deadlock (1213), a statement cut off (1317).
PASSING = (0, 1040, 1053, 1152, 1205, 1213, 1317, 1927, 2002, 2003, 2006, 2013, 2014)
# A user who does not exist, or another password.
ACCESS_DENIED = 1045
# An address of RDS, and its region. Amazon signs those certificates itself, with authorities that no system knows: one
# set for each region, all of them in the file that it gives out. A proxy has a certificate that every system knows.
RDS = re.compile(r"\.([a-z0-9-]+)\.rds\.amazonaws\.com(\.cn)?$")
RDS_PROXY = re.compile(r"\.proxy-[a-z0-9]+\.")
AUTHORITIES = Path(__file__).parent / "database" / "rds-global-bundle.pem"


# When the invocation under way will be cut off, by time.monotonic().
_end: ContextVar[float | None] = ContextVar("end", default=None)


def longest_call(service: str) -> float:
    """The seconds that one call may take in all, with its retries."""
    return ATTEMPTS * (CONNECT_SECONDS + READ_SECONDS_OF.get(service, READ_SECONDS)) + BACKOFF_SECONDS


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Within it no call to AWS begins that could take longer than what is left of ``seconds``.

    Such a call raises ``Unavailable`` instead, so a function of several calls ends by itself and says what it did not
    do, where Lambda would cut it off without a word. A thread that it starts is watched in a copy of its context only.
    """
    # Where not even one call fits, as into the three seconds of Chalice's test client, none would ever be made.
    fits = seconds > max(map(longest_call, READ_SECONDS_OF))
    token = _end.set(time.monotonic() + seconds if fits else None)
    try:
        yield
    finally:
        _end.reset(token)


# `chalice local` has threads, and a session is not made for two that ask it for credentials at once.
_making = Lock()


class _OnFirstUse:
    """Stands for a client, which is made when something of it is first asked for: not every call needs all of them."""

    def __init__(self, service: str, region: str | None) -> None:
        self._wanted = service, region
        self._client: Any = None

    def __getattr__(self, name: str) -> Any:
        with _making:
            self._client = self._client or _make(*self._wanted)
        value = getattr(self._client, name)
        # Kept, so that this is not asked again.
        setattr(self, name, value)
        return value


@cache
def aws(service: str, region: str | None = None) -> Any:
    """The client of ``service``, one for each process and region, as boto3 would make it.

    Links are signed with Signature Version 4, which is not botocore's default in us-east-1.
    """
    return _OnFirstUse(service, region)


@cache
def _session() -> Session:
    from botocore.loaders import Loader
    from botocore.session import get_session

    class OneFolder(Loader):
        """Knows which services there are by their folders' names; botocore looks into all four hundred of them."""

        def list_available_services(self, type_name: str) -> list[str]:  # noqa: ARG002 - botocore's own signature
            return [folder.name for folder in Path(self.BUILTIN_DATA_PATH).iterdir()]

    session = get_session()
    session.register_component("data_loader", OneFolder())
    return session


def _make(service: str, region: str | None) -> Any:
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS_OF.get(service, READ_SECONDS),
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        signature_version="v4" if service != "s3" else "s3v4",
        max_pool_connections=CONNECTIONS,
        # A new bucket's global name redirects to its region for hours, and no signed link survives a redirect; this
        # takes the regional name. An endpoint that is an address, such as the local cloud's, has paths all the same.
        s3={"addressing_style": "virtual"},
    )
    client: Any = _session().create_client(service, region_name=region, config=config)
    # Made by two threads at once they would be different classes, and an `except` of the one lets the other's pass.
    _ = client.exceptions

    def in_time(model: Any, **_: Any) -> None:
        end = _end.get()
        if end is not None and end - time.monotonic() < longest_call(service):
            raise Unavailable(f"too little time is left for {model.name}: try again in a moment")

    client.meta.events.register("before-call", in_time)
    return client


@contextmanager
def mysql(database: Database, *, read_seconds: int = 60) -> Iterator[Connection[Any]]:
    """A fresh connection to ``database``, closed at the end, whatever happens.

    It reads in UTC and does not commit by itself. Raises ``DatabaseUnavailable`` where the server cannot be reached,
    goes away in the middle, or holds a lock for too long: all that may be well a moment later. Raises
    ``DatabaseRefused`` for what will not: a missing table or right, or ``PasswordRefused``.

    A server of RDS has to show that it is the one. Others are talked to by TLS if they offer it, whoever they are.
    """
    import ssl

    import pymysql

    place = f"MySQL at {database.host}:{database.port}"
    connection = None
    try:
        connection = pymysql.connect(
            host=database.host,
            port=database.port,
            user=database.user,
            password=database.password,
            database=database.name,
            charset="utf8mb4",
            connect_timeout=MYSQL_CONNECT_SECONDS,
            read_timeout=read_seconds,
            write_timeout=read_seconds,
            autocommit=False,
            ssl=_tls(database.host),
            init_command="SET time_zone = '+00:00', sql_mode = 'STRICT_TRANS_TABLES'",
        )
        yield connection
    except RuntimeError as error:
        if connection:
            raise
        # PyMySQL's way to say that it lacks what the server's authentication wants of a connection without TLS.
        raise DatabaseRefused(f"{place} refuses: {error}") from error
    except (pymysql.err.Error, OSError) as error:
        if isinstance(getattr(error, "original_exception", None), ssl.SSLCertVerificationError):
            raise DatabaseRefused(f"{place} does not show that it is the one: {error.args[-1]}") from error
        if isinstance(error, pymysql.err.MySQLError) and error.args and error.args[0] not in PASSING:
            refused = PasswordRefused if error.args[0] == ACCESS_DENIED else DatabaseRefused
            raise refused(f"{place} refuses: {error.args[-1]}") from error
        raise DatabaseUnavailable(f"{place} does not answer for now: {error}") from error
    finally:
        if connection:
            # Not close(): that sends a last word to a server that may be gone, and then waits for it.
            connection._force_close()  # type: ignore[attr-defined]


@cache
def _tls(host: str) -> SSLContext | None:
    """What checks a server of RDS; None for another."""
    import ssl

    rds = RDS.search(host)
    if not rds:
        return None
    if RDS_PROXY.search(host):
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authorities(rds[1]))
    return context


def authorities(region: str) -> str:
    """The certificates of RDS's authorities for ``region``. All of them together would take 15 ms to load."""
    import ssl

    every = re.findall(r"-----BEGIN.+?END CERTIFICATE-----\n", AUTHORITIES.read_text(), flags=re.DOTALL)
    own = [each for each in every if f"Amazon RDS {region} Root".encode() in ssl.PEM_cert_to_DER_cert(each)]
    if not own:
        raise DatabaseRefused(f"no authority is known that signs for RDS in {region}")
    return "".join(own)


@contextmanager
def mysql_of_secret(arn: str) -> Iterator[Connection[Any]]:
    """The same, to the database that a secret of Secrets Manager tells of.

    The secret is read once for each process, and once more where its password is refused: it may have been rotated.
    Raises ``Unavailable`` too, where Secrets Manager does not answer for now.
    """
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(mysql(database(arn)))
        except PasswordRefused:
            database.cache_clear()
            connection = stack.enter_context(mysql(database(arn)))
        yield connection


@cache
def database(arn: str) -> Database:
    """What the secret says of MySQL; kept until somebody clears it."""
    return Database.of_secret(read_secret(arn))


def read_secret(arn: str) -> str:
    with aws_errors():
        text: str = aws("secretsmanager").get_secret_value(SecretId=arn)["SecretString"]
    return text
