"""Creates clients for AWS and MySQL on first use, with explicit timeouts.

Botocore and PyMySQL are imported inside functions because their imports are slow. A Lambda function that does not use
MySQL never loads PyMySQL. The project does not use boto3, because importing boto3 takes another 40 ms.
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
from chalicelib.settings import VERSION, Database, has_own_endpoint

if TYPE_CHECKING:
    from ssl import SSLContext

    from botocore.session import Session
    from pymysql.connections import Connection

# Each AWS call is attempted at most twice, with less than a second between the attempts. S3 and CloudWatch transfer
# more data, so their read timeout is longer.
ATTEMPTS = 2
BACKOFF_SECONDS = 1
CONNECT_SECONDS = 2
READ_SECONDS = 5
READ_SECONDS_BY_SERVICE = {"s3": 10, "cloudwatch": 10}
# A paused database needs about half a minute to resume before it accepts a connection.
MYSQL_CONNECT_SECONDS = 40
# Maximum number of connections per client. No function makes more calls at the same time.
CONNECTIONS = 64

# After one of these MySQL or PyMySQL errors, a retry may succeed: a lost connection (0, 2002 to 2014), too many
# connections (1040), a shutdown (1053, 1152, 1927), a lock timeout (1205), a deadlock (1213), or an interrupt (1317).
TRANSIENT = (0, 1040, 1053, 1152, 1205, 1213, 1317, 1927, 2002, 2003, 2006, 2013, 2014)
# MySQL returns error code 1045 for an unknown user or a wrong password.
ACCESS_DENIED = 1045
# This pattern matches the host name of an RDS server and captures the region. RDS server certificates are signed by
# Amazon's own certificate authorities. Operating systems do not trust these authorities by default. RDS proxy
# certificates are signed by a public certificate authority.
RDS = re.compile(r"\.([a-z0-9-]+)\.rds\.amazonaws\.com(\.cn)?$")
RDS_PROXY = re.compile(r"\.proxy-[a-z0-9]+\.")
AUTHORITIES = Path(__file__).parent / "database" / "rds-global-bundle.pem"


# The value of time.monotonic() at which the current invocation must end.
_end: ContextVar[float | None] = ContextVar("end", default=None)


def longest_call(service: str) -> float:
    """Returns the maximum time in seconds that a call to ``service`` can take, including a retry."""
    return ATTEMPTS * (CONNECT_SECONDS + READ_SECONDS_BY_SERVICE.get(service, READ_SECONDS)) + BACKOFF_SECONDS


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Refuses to start AWS calls that might not finish within ``seconds``.

    A refused call raises ``Unavailable``. A function that makes several calls can then report which calls it skipped.
    Without a limit, the Lambda timeout would end the function before it could report anything. A new thread obeys the
    limit only if it runs in a copy of the current context.
    """
    # A limit that is too short for any call is ignored, such as the three-second limit of Chalice's test client.
    fits = seconds > max(map(longest_call, READ_SECONDS_BY_SERVICE))
    token = _end.set(time.monotonic() + seconds if fits else None)
    try:
        yield
    finally:
        _end.reset(token)


# A lock is needed because `chalice local` handles requests in threads and botocore's session is not thread-safe.
_client_lock = Lock()


class _LazyClient:
    """Creates an AWS client when one of its attributes is first used."""

    def __init__(self, service: str, region: str | None) -> None:
        self._arguments = service, region
        self._client: Any = None

    def __getattr__(self, name: str) -> Any:
        with _client_lock:
            self._client = self._client or _make(*self._arguments)
        value = getattr(self._client, name)
        # Once the attribute is set, Python finds it without calling ``__getattr__``.
        setattr(self, name, value)
        return value


@cache
def aws(service: str, region: str | None = None) -> Any:
    """Returns the cached client for ``service`` in ``region``.

    The client signs links with Signature Version 4. In us-east-1, botocore would use Version 2 by default.
    """
    return _LazyClient(service, region)


@cache
def _session() -> Session:
    from botocore.loaders import Loader
    from botocore.session import get_session

    class OneFolder(Loader):
        """Lists AWS services without opening their folders. Botocore's default loader opens all 400 folders."""

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
        # If this is not set, botocore builds a long user agent for each call. That takes a tenth of the processor time.
        user_agent=f"cafe/{VERSION}",
        # The virtual style uses the bucket's regional host name. A new bucket's global host name redirects for hours,
        # which breaks signed links. Botocore itself puts a name with dots in the path, but only if the endpoint uses
        # HTTPS. The local endpoint uses HTTP, and its host name has no subdomains.
        s3={"addressing_style": "path" if has_own_endpoint() else "virtual"},
    )
    client: Any = _session().create_client(service, region_name=region, config=config)
    # The exception classes are created here, because two threads could otherwise create duplicates.
    _ = client.exceptions

    def in_time(model: Any, **_: Any) -> None:
        end = _end.get()
        if end is not None and end - time.monotonic() < longest_call(service):
            raise Unavailable(f"{model.name}: not enough time is left to start the call; try again")

    client.meta.events.register("before-call", in_time)
    return client


@contextmanager
def mysql(database: Database, *, read_seconds: int = 60) -> Iterator[Connection[Any]]:
    """Opens a connection to ``database``, and closes the connection at the end of the ``with`` block.

    The connection uses UTC, and autocommit is off. Raises ``DatabaseUnavailable`` if a retry may succeed, for example
    after a lost connection or a lock timeout. Raises ``PasswordRefused`` for a wrong password. Raises
    ``DatabaseRefused`` for any other permanent error, such as a missing table or privilege.

    A connection to an RDS server requires a valid certificate. A connection to any other server uses TLS if the server
    supports TLS, but does not check the certificate.
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
            # A normal close() would first send a command to the server, but the server may no longer respond.
            connection._force_close()  # type: ignore[attr-defined]


@cache
def _tls(host: str) -> SSLContext | None:
    """Returns TLS settings that verify the certificate of an RDS server, or None for any other server."""
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
    """Returns the RDS certificates for ``region``. Loading the certificates for all regions would take 15 ms."""
    import ssl

    certificates = re.findall(r"-----BEGIN.+?END CERTIFICATE-----\n", AUTHORITIES.read_text(), flags=re.DOTALL)
    own = [each for each in certificates if f"Amazon RDS {region} Root".encode() in ssl.PEM_cert_to_DER_cert(each)]
    if not own:
        raise DatabaseRefused(f"the RDS certificate bundle does not include {region}: download a newer bundle")
    return "".join(own)


@contextmanager
def mysql_of_secret(arn: str) -> Iterator[Connection[Any]]:
    """Opens a connection to the database whose address and login are in a Secrets Manager secret.

    The secret is cached. If MySQL refuses the password, the secret is read again, because a rotation may have changed
    it. Raises the same errors as ``mysql``, and ``Unavailable`` if Secrets Manager is unavailable.
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
    """Reads the database address and login from a secret, and caches the result."""
    return Database.of_secret(read_secret(arn))


def read_secret(arn: str) -> str:
    with aws_errors():
        text: str = aws("secretsmanager").get_secret_value(SecretId=arn)["SecretString"]
    return text
