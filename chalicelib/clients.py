"""All clients of AWS and of MySQL, each made on first use and with explicit time-outs.

The functions import botocore and PyMySQL themselves, because an import takes longer than most calls. A Lambda
function that does not use MySQL never loads PyMySQL. boto3 is not used: it adds only file transfers to a client, and
takes 40 ms to load.
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

# Each call has two attempts with less than a second between them. S3 and CloudWatch handle more data per call.
ATTEMPTS = 2
BACKOFF_SECONDS = 1
CONNECT_SECONDS = 2
READ_SECONDS = 5
READ_SECONDS_BY_SERVICE = {"s3": 10, "cloudwatch": 10}
# A paused database takes half a minute to resume, and the connection waits for it.
MYSQL_CONNECT_SECONDS = 40
# The connection pool of each client. No function has more than half as many threads.
CONNECTIONS = 32

# Error codes of MySQL and PyMySQL after which a retry can succeed: no connection (0, 2002 to 2014), too many
# connections (1040), a shutdown (1053, 1152, 1927), a lock time-out (1205), a deadlock (1213), an interrupt (1317).
TRANSIENT = (0, 1040, 1053, 1152, 1205, 1213, 1317, 1927, 2002, 2003, 2006, 2013, 2014)
# The user does not exist, or the password is wrong.
ACCESS_DENIED = 1045
# The address of an RDS server, with its region. Amazon signs its certificates with authorities of its own, one set per
# region, which no operating system includes. The certificate of an RDS proxy is signed by a public authority.
RDS = re.compile(r"\.([a-z0-9-]+)\.rds\.amazonaws\.com(\.cn)?$")
RDS_PROXY = re.compile(r"\.proxy-[a-z0-9]+\.")
AUTHORITIES = Path(__file__).parent / "database" / "rds-global-bundle.pem"


# The end of the current invocation on the clock of time.monotonic().
_end: ContextVar[float | None] = ContextVar("end", default=None)


def longest_call(service: str) -> float:
    """Returns how many seconds one call can take, with its retry."""
    return ATTEMPTS * (CONNECT_SECONDS + READ_SECONDS_BY_SERVICE.get(service, READ_SECONDS)) + BACKOFF_SECONDS


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Refuses calls to AWS that could take longer than what is left of ``seconds``.

    Such a call raises ``Unavailable``, so that a function with several calls ends by itself and reports what it did not
    do. Lambda would end it without a report. The limit applies to a thread only if it runs in a copy of the context.
    """
    # Without this, the three seconds of Chalice's test client would allow no call at all.
    fits = seconds > max(map(longest_call, READ_SECONDS_BY_SERVICE))
    token = _end.set(time.monotonic() + seconds if fits else None)
    try:
        yield
    finally:
        _end.reset(token)


# `chalice local` has threads, and botocore's session is not safe for two threads at the same time.
_client_lock = Lock()


class _LazyClient:
    """A client that is made when one of its attributes is first used."""

    def __init__(self, service: str, region: str | None) -> None:
        self._arguments = service, region
        self._client: Any = None

    def __getattr__(self, name: str) -> Any:
        with _client_lock:
            self._client = self._client or _make(*self._arguments)
        value = getattr(self._client, name)
        # Python finds the attribute itself from now on.
        setattr(self, name, value)
        return value


@cache
def aws(service: str, region: str | None = None) -> Any:
    """Returns the client of ``service``, the same one each time for a region.

    It signs links with Signature Version 4, which is not botocore's default in us-east-1.
    """
    return _LazyClient(service, region)


@cache
def _session() -> Session:
    from botocore.loaders import Loader
    from botocore.session import get_session

    class OneFolder(Loader):
        """A loader that lists the services by the names of their folders. Botocore opens all 400 folders."""

        def list_available_services(self, type_name: str) -> list[str]:  # noqa: ARG002 - botocore's signature
            return [folder.name for folder in Path(self.BUILTIN_DATA_PATH).iterdir()]

    session = get_session()
    session.register_component("data_loader", OneFolder())
    return session


def _make(service: str, region: str | None) -> Any:
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS_BY_SERVICE.get(service, READ_SECONDS),
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        signature_version="v4" if service != "s3" else "s3v4",
        max_pool_connections=CONNECTIONS,
        # This uses the bucket's regional name. The global name of a new bucket redirects for hours, and a redirect
        # breaks signed links. An endpoint that is an IP address, such as the local cloud, still uses paths.
        s3={"addressing_style": "virtual"},
    )
    client: Any = _session().create_client(service, region_name=region, config=config)
    # Creates the exception classes now. Two threads could create them twice, and `except` would then miss one.
    _ = client.exceptions

    def in_time(model: Any, **_: Any) -> None:
        end = _end.get()
        if end is not None and end - time.monotonic() < longest_call(service):
            raise Unavailable(f"too little time is left for {model.name}: try again in a moment")

    client.meta.events.register("before-call", in_time)
    return client


@contextmanager
def mysql(database: Database, *, read_seconds: int = 60) -> Iterator[Connection[Any]]:
    """Opens a connection to ``database``, and always closes it at the end.

    The connection uses UTC and does not commit by itself. Raises ``DatabaseUnavailable`` if a retry can succeed: the
    server cannot be reached, the connection breaks, or a lock is held for too long. Raises ``DatabaseRefused`` for
    other errors, such as a missing table or right, and ``PasswordRefused`` for a wrong password.

    RDS servers must have a valid certificate. Other servers are reached with TLS if they offer it, without a check.
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
        # PyMySQL raises this if the server's authentication needs TLS or a library that is missing.
        raise DatabaseRefused(f"{place} refuses: {error}") from error
    except (pymysql.err.Error, OSError) as error:
        if isinstance(getattr(error, "original_exception", None), ssl.SSLCertVerificationError):
            raise DatabaseRefused(f"{place} has no valid certificate: {error.args[-1]}") from error
        if isinstance(error, pymysql.err.MySQLError) and error.args and error.args[0] not in TRANSIENT:
            refused = PasswordRefused if error.args[0] == ACCESS_DENIED else DatabaseRefused
            raise refused(f"{place} refuses: {error.args[-1]}") from error
        raise DatabaseUnavailable(f"{place} does not answer for now: {error}") from error
    finally:
        if connection:
            # close() would send a command, and wait for a server that can be gone.
            connection._force_close()  # type: ignore[attr-defined]


@cache
def _tls(host: str) -> SSLContext | None:
    """Returns the TLS settings that check a server of RDS, or None for any other server."""
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
    """Returns the certificates of RDS's authorities for ``region``. Loading those of all regions takes 15 ms."""
    import ssl

    certificates = re.findall(r"-----BEGIN.+?END CERTIFICATE-----\n", AUTHORITIES.read_text(), flags=re.DOTALL)
    own = [each for each in certificates if f"Amazon RDS {region} Root".encode() in ssl.PEM_cert_to_DER_cert(each)]
    if not own:
        raise DatabaseRefused(f"the file of RDS authorities has none for {region}: download a newer one")
    return "".join(own)


@contextmanager
def mysql_of_secret(arn: str) -> Iterator[Connection[Any]]:
    """Opens a connection to the database that a secret of Secrets Manager describes.

    The secret is read once per process, and again if its password is refused, because a rotation can have changed it.
    Raises the errors of ``mysql``, and ``Unavailable`` if Secrets Manager does not answer for now.
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
    """Returns the database that a secret describes, from a cache."""
    return Database.of_secret(read_secret(arn))


def read_secret(arn: str) -> str:
    with aws_errors():
        text: str = aws("secretsmanager").get_secret_value(SecretId=arn)["SecretString"]
    return text
