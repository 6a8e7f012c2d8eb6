"""The clients: how they are made, how long their calls take, and what errors of MySQL become."""

import hashlib
import inspect
import json
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import boto3
import pymysql
import pytest
from botocore.errorfactory import ClientExceptionsFactory
from botocore.exceptions import ClientError
from cryptography.x509 import load_pem_x509_certificates

from chalicelib import clients
from chalicelib.clients import PASSING
from chalicelib.errors import DatabaseRefused, DatabaseUnavailable, PasswordRefused, Unavailable
from chalicelib.settings import Database
from tests.unit.cloud import Aws, refusing

DATABASE = Database("db.example", 3307, "cafe", "reader", "secret")
SERVICES = ["sqs", "dynamodb", "stepfunctions", "s3", "sns", "cloudwatch", "secretsmanager"]


# --- AWS --------------------------------------------------------------------------------------------------------------


def test_a_client_is_made_once_for_each_service_and_region() -> None:
    assert clients.aws("sqs") is clients.aws("sqs")
    assert clients.aws("sqs", "eu-central-1") is not clients.aws("sqs")
    assert clients.aws("sqs", "eu-central-1").meta.region_name == "eu-central-1"


@pytest.fixture
def new_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets one test make clients of its own, in a session of its own."""
    for name in ("aws", "_session"):
        monkeypatch.setattr(clients, name, cache(getattr(clients, name).__wrapped__))


def test_first_calls_at_once_make_each_client_once_one_after_the_other(
    new_clients: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of orders makes eight calls at once."""
    making: list[str] = []
    made: list[str] = []

    def make(service: str, region: str | None) -> SimpleNamespace:
        making.append(service)
        time.sleep(0.01)
        assert making == [service]
        making.clear()
        made.append(service)
        return SimpleNamespace(name=service)

    monkeypatch.setattr(clients, "_make", make)
    given = [clients.aws(service) for service in SERVICES]
    assert made == []
    with ThreadPoolExecutor(4 * len(SERVICES)) as pool:
        assert list(pool.map(lambda client: client.name, 4 * given)) == 4 * SERVICES
    assert sorted(made) == sorted(SERVICES)


def test_threads_that_get_the_first_error_of_a_client_at_once_all_catch_it(
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


def test_a_client_calls_what_the_client_of_boto3_calls() -> None:
    """Only the way in which it is found differs."""
    ours, theirs = clients.aws("dynamodb"), boto3.client("dynamodb")
    assert ours.meta.endpoint_url == theirs.meta.endpoint_url
    assert ours.meta.region_name == theirs.meta.region_name
    assert ours.meta.method_to_api_mapping == theirs.meta.method_to_api_mapping


@pytest.mark.parametrize("service", SERVICES)
def test_a_call_is_signed_with_version_4_and_ends_with_all_its_tries_before_the_api_does(service: str) -> None:
    """API Gateway gives up after 29 seconds."""
    config = clients.aws(service).meta.config
    assert config.signature_version in ("v4", "s3v4")
    attempts = config.retries["total_max_attempts"]
    assert attempts > 1
    assert config.retries["mode"] == "standard"
    waited = attempts * (config.connect_timeout + config.read_timeout) + clients.BACKOFF_SECONDS
    assert waited == clients.longest_call(service) < 29


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_links_are_signed_with_version_4_in_every_region(region: str) -> None:
    url = clients.aws("s3", region).generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url


def test_a_call_that_could_outlast_its_function_does_not_begin(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 100.0
    monkeypatch.setattr(clients.time, "monotonic", lambda: moment)
    with clients.time_limit(29):
        moment += 29 - clients.longest_call("sqs")
        aws.sqs.list_queues()
        moment += 0.1
        with pytest.raises(Unavailable, match=r"^too little time is left for ListQueues: try again in a moment$"):
            aws.sqs.list_queues()
    aws.sqs.list_queues()


def test_a_time_that_is_too_short_for_any_call_is_not_a_limit(aws: Aws) -> None:
    """Chalice's test client gives each function three seconds."""
    for seconds in (0, 3, clients.longest_call("s3")):
        with clients.time_limit(seconds):
            aws.sqs.list_queues()


# --- MySQL ------------------------------------------------------------------------------------------------------------


class Connection:
    """Stands for the connection of PyMySQL. The system tests have a real server."""

    def __init__(self, **options: Any) -> None:
        inspect.signature(pymysql.Connection.__init__).bind(None, **options)
        self.options = options
        self.closed = 0

    def _force_close(self) -> None:
        self.closed += 1


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """Returns a list that fills with the connections that PyMySQL makes."""
    made: list[Connection] = []

    def connect(**options: Any) -> Connection:
        made.append(Connection(**options))
        return made[-1]

    monkeypatch.setattr(pymysql, "connect", connect)
    return made


def use(error: Exception | None = None) -> None:
    """Opens a connection, on which something fails with ``error``."""
    with clients.mysql(DATABASE):
        if error:
            raise error


def test_a_connection_has_utf8_utc_strict_mode_and_time_outs(connections: list[Connection]) -> None:
    use()
    options = connections[0].options
    assert options["charset"] == "utf8mb4"
    assert options["autocommit"] is False
    assert "time_zone = '+00:00'" in options["init_command"]
    assert "STRICT_TRANS_TABLES" in options["init_command"]
    assert all(0 < options[f"{name}_timeout"] <= 60 for name in ("connect", "read", "write"))
    # A database that has paused for a day takes half a minute to resume.
    assert options["connect_timeout"] > 30
    place = [options[name] for name in ("host", "port", "database", "user", "password")]
    assert place == ["db.example", 3307, "cafe", "reader", "secret"]


def test_each_use_has_a_fresh_connection_that_is_closed_at_its_end(connections: list[Connection]) -> None:
    use()
    for error in (KeyError("x"), pymysql.err.OperationalError(2013, "lost"), TimeoutError()):
        with pytest.raises((KeyError, DatabaseUnavailable)):
            use(error)
    assert [each.closed for each in connections] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "error",
    [
        *(pymysql.err.OperationalError(code, "said the server") for code in PASSING),
        *(TimeoutError("timed out"), ConnectionResetError(104, "reset"), BrokenPipeError()),
        # PyMySQL raises this on a connection that went away before.
        pymysql.err.InterfaceError(0, ""),
    ],
    ids=repr,
)
def test_an_error_that_can_pass_is_unavailable(connections: list[Connection], error: Exception) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"^MySQL at db\.example:3307 does not answer for now: ") as caught:
        use(error)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        pymysql.err.OperationalError(1045, "Access denied for user 'reader'"),
        pymysql.err.OperationalError(1044, "Access denied to database"),
        pymysql.err.OperationalError(1049, "Unknown database 'cafe'"),
        pymysql.err.ProgrammingError(1146, "Table 'cafe.beans' doesn't exist"),
        pymysql.err.OperationalError(1142, "SELECT command denied"),
        pymysql.err.OperationalError(1054, "Unknown column 'price'"),
        pymysql.err.DataError(1264, "Out of range value"),
        pymysql.err.IntegrityError(1062, "Duplicate entry"),
    ],
    ids=lambda error: str(error.args[0]),
)
def test_an_error_that_cannot_pass_is_refused(connections: list[Connection], error: Exception) -> None:
    with pytest.raises(DatabaseRefused) as caught:
        use(error)
    assert str(caught.value) == f"MySQL at db.example:3307 refuses: {error.args[1]}"
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("code", "expected"),
    [(2003, DatabaseUnavailable), (1040, DatabaseUnavailable), (1045, DatabaseRefused)],
    ids=["down", "full", "wrong password"],
)
def test_a_refused_connection_has_its_own_error(
    monkeypatch: pytest.MonkeyPatch, code: int, expected: type[Exception]
) -> None:
    refuse_connections(monkeypatch, pymysql.err.OperationalError(code, "no"))
    with pytest.raises(expected), clients.mysql(DATABASE):
        pytest.fail("there is no connection")


def refuse_connections(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def connect(**_: Any) -> None:
        raise error

    monkeypatch.setattr(pymysql, "connect", connect)


def test_an_error_of_the_code_inside_is_not_changed(connections: list[Connection]) -> None:
    with pytest.raises(KeyError):
        use(KeyError("x"))


# --- The certificate of MySQL -----------------------------------------------------------------------------------------

CLUSTER = "cafe-prod.cluster-abc123.eu-central-1.rds.amazonaws.com"


def context_for(connections: list[Connection], host: str) -> Any:
    """Returns the TLS settings of a connection to ``host``."""
    with clients.mysql(replace(DATABASE, host=host)):
        pass
    return connections[-1].options["ssl"]


@pytest.mark.parametrize("host", [CLUSTER, "one.abc123.us-east-1.rds.amazonaws.com"])
def test_a_server_of_rds_must_have_a_certificate_of_its_region(connections: list[Connection], host: str) -> None:
    context = context_for(connections, host)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    region = host.split(".")[2]
    names = {dict(pair[0] for pair in each["subject"])["commonName"] for each in context.get_ca_certs()}
    assert names == {f"Amazon RDS {region} Root CA {key} G1" for key in ("RSA2048", "RSA4096", "ECC384")}


def test_a_proxy_of_rds_must_have_a_certificate_of_a_public_authority(connections: list[Connection]) -> None:
    context = context_for(connections, "cafe.proxy-abc123.eu-central-1.rds.amazonaws.com")
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert not any("Amazon RDS" in str(each["subject"]) for each in context.get_ca_certs())


@pytest.mark.parametrize("host", ["127.0.0.1", "db.example", "rds.amazonaws.com.example", "xrds.amazonaws.com"])
def test_another_server_is_not_checked(connections: list[Connection], host: str) -> None:
    assert context_for(connections, host) is None


@pytest.mark.parametrize("host", ["x.abc.moon-1.rds.amazonaws.com", "x.abc.cn-north-1.rds.amazonaws.com.cn"])
def test_a_region_without_a_known_authority_is_refused(connections: list[Connection], host: str) -> None:
    with pytest.raises(DatabaseRefused, match=f"^no authority is known that signs for RDS in {host.split('.')[2]}$"):
        context_for(connections, host)
    assert connections == []


def test_the_authorities_are_those_of_amazons_file_and_do_not_expire_soon() -> None:
    """The digest is that of https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem in 2026."""
    content = clients.AUTHORITIES.read_bytes()
    assert hashlib.sha256(content).hexdigest() == "e5bb2084ccf45087bda1c9bffdea0eb15ee67f0b91646106e466714f9de3c7e3"
    certificates = load_pem_x509_certificates(content)
    assert len(certificates) == 108
    assert min(each.not_valid_after_utc.year for each in certificates) > 2060


def test_a_server_with_another_certificate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    error = pymysql.err.OperationalError(2003, "Can't connect to MySQL server on 'db' (certificate verify failed)")
    error.original_exception = ssl.SSLCertVerificationError("certificate verify failed")
    refuse_connections(monkeypatch, error)
    with pytest.raises(DatabaseRefused, match=r"^MySQL at \S+:3307 does not show that it is the one: .*verify failed"):
        use()


# --- MySQL by its secret ----------------------------------------------------------------------------------------------


class Server:
    """A MySQL with one password, and the secret that has the password."""

    def __init__(self, aws: Aws, connections: list[Connection]) -> None:
        self.connections = connections
        self.secrets = clients.aws("secretsmanager")
        self.reads = aws.calls(self.secrets, "GetSecretValue")
        self.password = "first"
        given = {"host": "db.example", "port": 3307, "dbname": "cafe", "username": "reader", "password": self.password}
        self.arn = self.secrets.create_secret(Name="cafe-test-database", SecretString=json.dumps(given))["ARN"]

    def put_secret(self, text: str) -> None:
        self.secrets.put_secret_value(SecretId=self.arn, SecretString=text)

    def rotate(self, password: str) -> None:
        """Gives the server and the secret another password."""
        self.password = password
        secret = json.loads(self.secrets.get_secret_value(SecretId=self.arn)["SecretString"])
        self.reads.clear()
        self.put_secret(json.dumps({**secret, "password": password}))

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


def test_a_rotated_password_is_read_once_and_then_known(server: Server) -> None:
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
    # The password can be right the next time.
    server.password = "first"
    server.use()


@pytest.mark.parametrize("code", [1045, 1142])
def test_a_refusal_after_the_connection_is_not_retried(server: Server, code: int) -> None:
    with pytest.raises(DatabaseRefused):
        server.use(pymysql.err.OperationalError(code, "denied"))
    assert server.tried == ["first"]
    assert len(server.reads) == 1


@pytest.mark.parametrize(("code", "status"), [("ThrottlingException", 400), ("InternalServiceError", 500)])
def test_without_secrets_manager_the_database_is_unavailable(server: Server, code: str, status: int) -> None:
    with (
        refusing(server.secrets, "get_secret_value", code, status),
        pytest.raises(Unavailable, match=r"^GetSecretValue does not answer for now"),
    ):
        server.use()
    server.use()


def test_a_missing_permission_is_not_changed(server: Server) -> None:
    with (
        refusing(server.secrets, "get_secret_value", "AccessDeniedException"),
        pytest.raises(ClientError, match="AccessDeniedException"),
    ):
        server.use()


def test_a_secret_of_something_else_is_refused(server: Server) -> None:
    server.put_secret('{"key": "value"}')
    with pytest.raises(DatabaseRefused, match=r"^MySQL's secret has no host, port, dbname, username, password$"):
        server.use()


# --- The tests themselves ---------------------------------------------------------------------------------------------


def test_a_unit_test_that_reaches_for_the_network_fails() -> None:
    with socket.socket() as one, pytest.raises(RuntimeError, match="a unit test tries to connect"):
        one.connect(("192.0.2.1", 443))
