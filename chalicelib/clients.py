"""Clients for AWS and MySQL, created on first use with explicit time-outs.

Botocore and PyMySQL are imported inside functions, because importing them takes longer than most calls. A Lambda
function that does not use MySQL never loads PyMySQL. boto3 is not used, because importing it would take another 40 ms.
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

# Each call is attempted twice, less than a second apart. S3 and CloudWatch move more data, so they get more time.
ATTEMPTS = 2
BACKOFF_SECONDS = 1
CONNECT_SECONDS = 2
READ_SECONDS = 5
READ_SECONDS_BY_SERVICE = {"s3": 10, "cloudwatch": 10}
# Connecting to a paused database takes half a minute, because the database must first resume.
MYSQL_CONNECT_SECONDS = 40
# Size of each client's connection pool. No function uses more than half this number of threads.
CONNECTIONS = 32

# Error codes of MySQL and PyMySQL after which a retry may succeed: no connection (0, 2002 to 2014), too many
# connections (1040), a shutdown (1053, 1152, 1927), a lock time-out (1205), a deadlock (1213), an interrupt (1317).
TRANSIENT = (0, 1040, 1053, 1152, 1205, 1213, 1317, 1927, 2002, 2003, 2006, 2013, 2014)
# MySQL's error code for an unknown user or a wrong password.
ACCESS_DENIED = 1045
# Matches an RDS server's host name and captures its region. Amazon's own authorities for that region, which no
# operating system includes, sign the server's certificate. A public authority signs an RDS proxy's certificate.
RDS = re.compile(r"\.([a-z0-9-]+)\.rds\.amazonaws\.com(\.cn)?$")
RDS_PROXY = re.compile(r"\.proxy-[a-z0-9]+\.")
AUTHORITIES = Path(__file__).parent / "database" / "rds-global-bundle.pem"


# The value of time.monotonic() at which the current invocation must end.
_end: ContextVar[float | None] = ContextVar("end", default=None)


def longest_call(service: str) -> float:
    """Returns how many seconds a call to ``service`` may take, including its retry."""
    return ATTEMPTS * (CONNECT_SECONDS + READ_SECONDS_BY_SERVICE.get(service, READ_SECONDS)) + BACKOFF_SECONDS


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Refuses AWS calls that might not finish within ``seconds`` from now.

    A refused call raises ``Unavailable``, so a function that makes several calls can report the calls it skipped.
    Lambda's time-out would end the function without a report. A thread obeys the limit only in a copy of this context.
    """
    # A limit that is too short for any call, such as the three seconds in Chalice's test client, is ignored.
    fits = seconds > max(map(longest_call, READ_SECONDS_BY_SERVICE))
    token = _end.set(time.monotonic() + seconds if fits else None)
    try:
        yield
    finally:
        _end.reset(token)


# `chalice local` handles requests in threads, and botocore's session is not thread-safe.
_client_lock = Lock()


class _LazyClient:
    """A client that is created when one of its attributes is first used."""

    def __init__(self, service: str, region: str | None) -> None:
        self._arguments = service, region
        self._client: Any = None

    def __getattr__(self, name: str) -> Any:
        with _client_lock:
            self._client = self._client or _make(*self._arguments)
        value = getattr(self._client, name)
        # From now on, Python finds this attribute without calling ``__getattr__``.
        setattr(self, name, value)
        return value


@cache
def aws(service: str, region: str | None = None) -> Any:
    """Returns the cached client for ``service`` in ``region``.

    The client signs links with Signature Version 4, which is not botocore's default in us-east-1.
    """
    return _LazyClient(service, region)


@cache
def _session() -> Session:
    from botocore.loaders import Loader
    from botocore.session import get_session

    class OneFolder(Loader):
        """Lists services by the names of their folders. Botocore's own loader opens all 400 folders."""

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
        # Uses the bucket's regional host name: for hours, a new bucket's global name redirects and breaks signed links.
        # If the endpoint is an IP address, as in the local cloud, botocore still puts the bucket in the path.
        s3={"addressing_style": "virtual"},
    )
    client: Any = _session().create_client(service, region_name=region, config=config)
    # Creates the exception classes now. Two threads might otherwise create them twice, and `except` miss one of them.
    _ = client.exceptions

    def in_time(model: Any, **_: Any) -> None:
        end = _end.get()
        if end is not None and end - time.monotonic() < longest_call(service):
            raise Unavailable(f"too little time is left for {model.name}: try again in a moment")

    client.meta.events.register("before-call", in_time)
    return client


@contextmanager
def mysql(database: Database, *, read_seconds: int = 60) -> Iterator[Connection[Any]]:
    """Opens a connection to ``database``, and closes it at the end, even after an error.

    The connection uses UTC and does not autocommit. Raises ``DatabaseUnavailable`` if a retry may succeed: the server
    cannot be reached, the connection breaks, or a lock is held for too long. Raises ``DatabaseRefused`` for other
    errors, such as a missing table or privilege, and ``PasswordRefused`` for a wrong password.

    An RDS server must have a valid certificate. Connections to other servers use TLS if the server offers it, but do
    not check the certificate.
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
        # PyMySQL raises RuntimeError if the server's authentication needs TLS or a library that is missing.
        raise DatabaseRefused(f"{place} refuses: {error}") from error
    except (pymysql.err.Error, OSError) as error:
        if isinstance(getattr(error, "original_exception", None), ssl.SSLCertVerificationError):
            raise DatabaseRefused(f"{place} has no valid certificate: {error.args[-1]}") from error
        if isinstance(error, pymysql.err.MySQLError) and error.args and error.args[0] not in TRANSIENT:
            refused = PasswordRefused if error.args[0] == ACCESS_DENIED else DatabaseRefused
            raise refused(f"{place} refuses: {error.args[-1]}") from error
        raise DatabaseUnavailable(f"{place} is temporarily unavailable: {error}") from error
    finally:
        if connection:
            # close() would send a command and wait for the server, which may be gone.
            connection._force_close()  # type: ignore[attr-defined]


@cache
def _tls(host: str) -> SSLContext | None:
    """Returns TLS settings that verify an RDS server, or None for any other server."""
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
    """Returns the certificates of the RDS authorities in ``region``. Loading every region's would take 15 ms."""
    import ssl

    certificates = re.findall(r"-----BEGIN.+?END CERTIFICATE-----\n", AUTHORITIES.read_text(), flags=re.DOTALL)
    own = [each for each in certificates if f"Amazon RDS {region} Root".encode() in ssl.PEM_cert_to_DER_cert(each)]
    if not own:
        raise DatabaseRefused(f"the RDS bundle has no authority for {region}: download a newer one")
    return "".join(own)


@contextmanager
def mysql_of_secret(arn: str) -> Iterator[Connection[Any]]:
    """Opens a connection to the database that a secret in Secrets Manager describes.

    The secret is cached, and read again if MySQL refuses its password, because a rotation may have changed it. Raises
    the same errors as ``mysql``, and ``Unavailable`` if Secrets Manager is unavailable.
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
    """Returns the database that a secret describes. The result is cached."""
    return Database.of_secret(read_secret(arn))


def read_secret(arn: str) -> str:
    with aws_errors():
        text: str = aws("secretsmanager").get_secret_value(SecretId=arn)["SecretString"]
    return text
