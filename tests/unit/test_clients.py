"""Tests that clients are created once, that calls end in time, and that MySQL errors are translated."""

import hashlib
import inspect
import json
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import pymysql
import pytest
from botocore.errorfactory import ClientExceptionsFactory
from cryptography.x509 import load_pem_x509_certificates

from chalicelib import clients
from chalicelib.errors import DatabaseRefused, DatabaseUnavailable, PasswordRefused, Unavailable
from chalicelib.settings import VERSION, Database
from tests.unit.cloud import Aws, refusing

DATABASE = Database("db.example", 3307, "cafe", "reader", "secret")
SERVICES = ["sqs", "dynamodb", "stepfunctions", "s3", "sns", "cloudwatch", "secretsmanager"]


def test_a_client_is_made_once_for_each_service_and_region() -> None:
    assert clients.aws("sqs") is clients.aws("sqs")
    assert clients.aws("sqs", "eu-central-1") is not clients.aws("sqs")
    assert clients.aws("sqs", "eu-central-1").meta.region_name == "eu-central-1"


@pytest.mark.parametrize(
    ("endpoint", "bucket", "url"),
    [
        (None, "beans", "https://beans.s3.eu-central-1.amazonaws.com/k"),
        (None, "my.beans", "https://s3.eu-central-1.amazonaws.com/my.beans/k"),
        *(("http://localhost:4566", name, f"http://localhost:4566/{name}/k") for name in ("beans", "my.beans")),
    ],
)
def test_a_bucket_with_dots_has_an_address_that_exists(
    new_clients: None, monkeypatch: pytest.MonkeyPatch, endpoint: str | None, bucket: str, url: str
) -> None:
    """HTTPS certificates and the local cloud's host name have no subdomains of subdomains."""
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    link = clients.aws("s3", "eu-central-1").generate_presigned_url("get_object", {"Bucket": bucket, "Key": "k"})
    assert link.partition("?")[0] == url
    listing = clients.aws("s3", "eu-central-1").generate_presigned_url("list_objects_v2", {"Bucket": bucket})
    assert listing.partition("?")[0].removesuffix("/") == url.removesuffix("/k")


@pytest.fixture
def new_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives one test new AWS clients and a new boto3 session."""
    for name in ("aws", "_session"):
        monkeypatch.setattr(clients, name, cache(getattr(clients, name).__wrapped__))


def test_concurrent_first_calls_create_each_client_once_and_in_turn(
    new_clients: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Storing or listing orders makes up to eight AWS calls concurrently."""
    making: list[str] = []
    made: list[str] = []

    def make(service: str, region: str | None) -> SimpleNamespace:
        making.append(service)
        time.sleep(0.01)
        made.extend(making)
        making.clear()
        return SimpleNamespace(name=service)

    monkeypatch.setattr(clients, "_make", make)
    given = [clients.aws(service) for service in SERVICES]
    assert made == []
    with ThreadPoolExecutor(4 * len(SERVICES)) as pool:
        assert list(pool.map(lambda client: client.name, 4 * given)) == 4 * SERVICES
    assert sorted(made) == sorted(SERVICES)


def test_threads_that_get_a_clients_first_error_at_once_all_catch_it(
    new_clients: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = ClientExceptionsFactory._create_client_exceptions

    def create_slowly(*arguments: Any) -> Any:
        time.sleep(0.01)
        return create(*arguments)

    monkeypatch.setattr(ClientExceptionsFactory, "_create_client_exceptions", create_slowly)
    client = clients.aws("sqs")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: client.exceptions.QueueDoesNotExist, range(8)))
    assert set(found) == {client._client.exceptions.QueueDoesNotExist}


def test_a_call_is_signed_with_version_4_and_all_its_tries_end_before_the_api_times_out() -> None:
    """A request to API Gateway times out after 29 seconds."""
    for service in SERVICES:
        config = clients.aws(service).meta.config
        assert config.signature_version in ("v4", "s3v4")
        assert config.user_agent == f"cafe/{VERSION}"
        assert config.retries == {"mode": "standard", "total_max_attempts": clients.ATTEMPTS}
        assert clients.ATTEMPTS > 1
        waited = clients.ATTEMPTS * (config.connect_timeout + config.read_timeout) + clients.BACKOFF_SECONDS
        assert waited == clients.longest_call(service) < 29


def test_a_call_that_could_outlast_its_function_does_not_begin(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 100.0
    monkeypatch.setattr(clients.time, "monotonic", lambda: moment)
    with clients.time_limit(29):
        moment += 29 - clients.longest_call("sqs")
        aws.sqs.list_queues()
        moment += 0.1
        with pytest.raises(Unavailable, match=r"^ListQueues: not enough time is left to start the call; try again$"):
            aws.sqs.list_queues()
    # The three seconds that Chalice's test client allows are too short for any AWS call, so that limit is ignored.
    for seconds in (0, 3, clients.longest_call("s3"), None):
        with clients.time_limit(seconds) if seconds is not None else nullcontext():
            aws.sqs.list_queues()


class Connection:
    """Fakes a PyMySQL connection. The system tests use a real MySQL server."""

    def __init__(self, **options: Any) -> None:
        inspect.signature(pymysql.Connection.__init__).bind(None, **options)
        self.options = options
        self.closed = 0

    def _force_close(self) -> None:
        self.closed += 1


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """Returns a list to which every new PyMySQL connection is added."""
    made: list[Connection] = []

    def connect(**options: Any) -> Connection:
        made.append(Connection(**options))
        return made[-1]

    monkeypatch.setattr(pymysql, "connect", connect)
    return made


def use(error: Exception | None = None) -> None:
    """Opens a MySQL connection, and raises ``error`` while the connection is open."""
    with clients.mysql(DATABASE):
        if error:
            raise error


def test_a_connection_has_utf8_utc_strict_mode_and_time_outs(connections: list[Connection]) -> None:
    use()
    options = connections[0].options
    place = [options[name] for name in ("host", "port", "database", "user", "password", "charset", "autocommit")]
    assert place == ["db.example", 3307, "cafe", "reader", "secret", "utf8mb4", False]
    assert options["init_command"] == "SET time_zone = '+00:00', sql_mode = 'STRICT_TRANS_TABLES'"
    # A database that has been paused for a day takes half a minute to resume.
    assert 30 < options["connect_timeout"] <= 60
    assert options["read_timeout"] == options["write_timeout"] == 60


def test_each_use_has_a_fresh_connection_that_is_closed_at_its_end(connections: list[Connection]) -> None:
    use()
    for error in (KeyError("x"), pymysql.err.OperationalError(2013, "lost"), TimeoutError()):
        with pytest.raises((KeyError, DatabaseUnavailable)):
            use(error)
    assert [each.closed for each in connections] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "error",
    [
        # The error codes mean too many connections, a shutdown, a lock timeout, a deadlock, an interrupt or no
        # response.
        *(pymysql.err.OperationalError(code, "said the server") for code in (1040, 1053, 1152, 1205, 1213, 1317, 1927)),
        *(pymysql.err.OperationalError(code, "said PyMySQL") for code in (0, 2002, 2003, 2006, 2013, 2014)),
        *(TimeoutError("timed out"), ConnectionResetError(104, "reset"), BrokenPipeError()),
        # PyMySQL raises an InterfaceError for a connection that is already lost.
        pymysql.err.InterfaceError(0, ""),
    ],
    ids=repr,
)
def test_a_temporary_error_is_unavailable(connections: list[Connection], error: Exception) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"^MySQL at db\.example:3307 is temporarily unavailable: ") as caught:
        use(error)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        pymysql.err.OperationalError(1045, "Access denied for user 'reader'"),
        pymysql.err.ProgrammingError(1146, "Table 'cafe.beans' doesn't exist"),
        pymysql.err.DataError(1264, "Out of range value"),
    ],
    ids=lambda error: str(error.args[0]),
)
def test_a_permanent_error_is_refused(connections: list[Connection], error: Exception) -> None:
    with pytest.raises(DatabaseRefused) as caught:
        use(error)
    assert str(caught.value) == f"MySQL at db.example:3307 refuses: {error.args[1]}"
    assert caught.value.__cause__ is error


def context_for(connections: list[Connection], host: str) -> Any:
    """Returns the TLS settings for a connection to ``host``."""
    with clients.mysql(replace(DATABASE, host=host)):
        pass
    return connections[-1].options["ssl"]


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("cafe-prod.cluster-abc123.eu-central-1.rds.amazonaws.com", "eu-central-1"),
        ("one.abc123.us-east-1.rds.amazonaws.com", "us-east-1"),
        ("cafe.proxy-abc123.eu-central-1.rds.amazonaws.com", None),
    ],
)
def test_an_rds_server_needs_its_regions_certificate_and_a_proxy_a_public_one(
    connections: list[Connection], host: str, region: str | None
) -> None:
    context = context_for(connections, host)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    names = {dict(pair[0] for pair in each["subject"]).get("commonName", "") for each in context.get_ca_certs()}
    own = {f"Amazon RDS {region} Root CA {key} G1" for key in ("RSA2048", "RSA4096", "ECC384")}
    assert names == own if region else not any("Amazon RDS" in name for name in names)
    # The certificates of servers outside RDS are not checked.
    for other in ("127.0.0.1", "db.example", f"{host}.example", "xrds.amazonaws.com"):
        assert context_for(connections, other) is None


@pytest.mark.parametrize("host", ["x.abc.moon-1.rds.amazonaws.com", "x.abc.cn-north-1.rds.amazonaws.com.cn"])
def test_a_region_without_a_known_authority_is_refused(connections: list[Connection], host: str) -> None:
    with pytest.raises(DatabaseRefused, match=f"^the RDS certificate bundle does not include {host.split('.')[2]}: "):
        context_for(connections, host)
    assert connections == []


def test_the_authorities_are_those_of_amazons_file_and_do_not_expire_soon() -> None:
    """The expected digest is that of https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem in 2026."""
    content = clients.AUTHORITIES.read_bytes()
    assert hashlib.sha256(content).hexdigest() == "e5bb2084ccf45087bda1c9bffdea0eb15ee67f0b91646106e466714f9de3c7e3"
    certificates = load_pem_x509_certificates(content)
    assert len(certificates) == 108
    assert min(each.not_valid_after_utc.year for each in certificates) > 2060


def test_a_server_with_another_certificate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    error = pymysql.err.OperationalError(2003, "Can't connect to MySQL server on 'db' (certificate verify failed)")
    error.original_exception = ssl.SSLCertVerificationError("certificate verify failed")

    def connect(**_: Any) -> None:
        raise error

    monkeypatch.setattr(pymysql, "connect", connect)
    with pytest.raises(DatabaseRefused, match=r"^MySQL at \S+:3307 has no valid certificate: .*verify failed"):
        use()


class Server:
    """Fakes a MySQL server whose only password is stored in a secret."""

    def __init__(self, aws: Aws, connections: list[Connection]) -> None:
        self.connections = connections
        self.secrets = clients.aws("secretsmanager")
        self.reads = aws.calls(self.secrets, "GetSecretValue")
        self.arn = self.secrets.create_secret(Name="cafe-test-database", SecretString="-")["ARN"]
        self.rotate("first")

    def rotate(self, password: str) -> None:
        """Sets a new password on the server and in the secret."""
        self.password = password
        given = {"host": "db.example", "port": 3307, "dbname": "cafe", "username": "reader", "password": password}
        self.secrets.put_secret_value(SecretId=self.arn, SecretString=json.dumps(given))
        self.reads.clear()

    def use(self, error: Exception | None = None) -> None:
        with clients.mysql_of_secret(self.arn):
            if error:
                raise error

    @property
    def tried(self) -> list[str]:
        return [each.options["password"] for each in self.connections]


@pytest.fixture
def server(aws: Aws, connections: list[Connection], monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server(aws, connections)

    def connect(**options: Any) -> Connection:
        connections.append(Connection(**options))
        if options["password"] != server.password:
            raise pymysql.err.OperationalError(1045, "Access denied for user 'reader'@'10.0.0.7'")
        return connections[-1]

    monkeypatch.setattr(pymysql, "connect", connect)
    clients.database.cache_clear()
    yield server
    clients.database.cache_clear()


def test_the_secret_is_read_when_it_is_needed_and_once_for_all_connections(server: Server) -> None:
    context = clients.mysql_of_secret(server.arn)
    assert server.reads == []
    with context:
        pass
    server.use()
    assert server.reads == [{"SecretId": server.arn}]
    assert server.connections[0].options["host"] == "db.example"
    assert [each.closed for each in server.connections] == [1, 1]


def test_a_rotated_password_is_read_once_and_then_cached(server: Server) -> None:
    server.use()
    server.rotate("second")
    server.use()
    server.use()
    assert server.tried == ["first", "first", "second", "second"]
    assert len(server.reads) == 1


def test_a_password_that_stays_wrong_is_refused_after_the_secret_was_read_once_more(server: Server) -> None:
    server.password = "of somebody else"
    with pytest.raises(PasswordRefused, match=r"^MySQL at db\.example:3307 refuses: Access denied for user 'reader'"):
        server.use()
    assert server.tried == ["first", "first"]
    assert len(server.reads) == 2
    # The next connection tries the password again, because it may be correct by then.
    server.password = "first"
    server.use()


def test_a_refusal_after_the_connection_is_not_retried(server: Server) -> None:
    with pytest.raises(DatabaseRefused):
        server.use(pymysql.err.OperationalError(1045, "denied"))
    assert server.tried == ["first"]
    assert len(server.reads) == 1


def test_without_secrets_manager_the_database_is_unavailable(server: Server) -> None:
    with (
        refusing(server.secrets, "get_secret_value", "ThrottlingException"),
        pytest.raises(Unavailable, match=r"^GetSecretValue is temporarily unavailable"),
    ):
        server.use()
    server.use()
