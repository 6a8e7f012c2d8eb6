"""The clients: how they are made, and what MySQL's refusals become."""

import hashlib
import inspect
import json
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import boto3
import pymysql
import pytest
from botocore.errorfactory import ClientExceptionsFactory
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from cryptography.x509 import load_pem_x509_certificates

from chalicelib import clients
from chalicelib.clients import PASSING
from chalicelib.errors import DatabaseRefused, DatabaseUnavailable, PasswordRefused, Unavailable
from chalicelib.settings import Database
from tests.unit.cloud import Aws

DATABASE = Database("db.example", 3307, "cafe", "reader", "secret")
SERVICES = ["sqs", "dynamodb", "stepfunctions", "s3", "sns", "cloudwatch", "secretsmanager"]


# --- AWS --------------------------------------------------------------------------------------------------------------


def test_a_client_is_made_once_for_each_service_and_region() -> None:
    assert clients.aws("sqs") is clients.aws("sqs")
    assert clients.aws("sqs", "eu-central-1") is not clients.aws("sqs")
    assert clients.aws("sqs", "eu-central-1").meta.region_name == "eu-central-1"


def test_first_calls_at_the_same_moment_make_their_clients_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """And each of them once, when it is first used: a list of orders asks for eight of its parts at once."""
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
    clients.aws.cache_clear()
    try:
        given = [clients.aws(service) for service in SERVICES]
        assert made == []
        with ThreadPoolExecutor(4 * len(SERVICES)) as pool:
            assert list(pool.map(lambda client: client.name, 4 * given)) == 4 * SERVICES
        assert sorted(made) == sorted(SERVICES)
    finally:
        clients.aws.cache_clear()


def test_threads_that_meet_a_clients_first_error_at_once_all_catch_it(monkeypatch: pytest.MonkeyPatch) -> None:
    create = ClientExceptionsFactory._create_client_exceptions

    def create_slowly(*arguments: Any) -> Any:
        time.sleep(0.01)
        return create(*arguments)

    monkeypatch.setattr(ClientExceptionsFactory, "_create_client_exceptions", create_slowly)
    # The session keeps the errors of each service.
    clients._session.cache_clear()
    clients.aws.cache_clear()
    try:
        client = clients.aws("sqs")
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: client.exceptions.QueueDoesNotExist, range(8)))
        assert set(found) == {client._client.exceptions.QueueDoesNotExist}
    finally:
        clients.aws.cache_clear()


def test_a_client_is_that_of_boto3_for_all_who_use_it() -> None:
    """Where it is sent to, and as whom; only how it was found is another matter."""
    ours, theirs = clients.aws("dynamodb"), boto3.client("dynamodb")
    assert ours.meta.endpoint_url == theirs.meta.endpoint_url
    assert ours.meta.region_name == theirs.meta.region_name
    assert ours.meta.method_to_api_mapping == theirs.meta.method_to_api_mapping


@pytest.mark.parametrize("service", SERVICES)
def test_every_client_signs_with_version_4(service: str) -> None:
    assert clients.aws(service).meta.config.signature_version in ("v4", "s3v4")


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_links_are_signed_with_version_4_in_every_region(region: str) -> None:
    url = clients.aws("s3", region).generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url


@pytest.mark.parametrize("service", SERVICES)
def test_no_call_takes_longer_than_the_api_may_with_all_its_tries(service: str) -> None:
    """API Gateway gives up after 29 seconds."""
    config = clients.aws(service).meta.config
    attempts = config.retries["total_max_attempts"]
    assert attempts > 1
    assert config.retries["mode"] == "standard"
    waited = attempts * (config.connect_timeout + config.read_timeout) + clients.BACKOFF_SECONDS
    assert waited == clients.longest_call(service) < 29


def test_no_call_begins_that_could_outlast_its_function(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 100.0
    monkeypatch.setattr(clients.time, "monotonic", lambda: moment)
    with clients.time_limit(29):
        moment += 29 - clients.longest_call("sqs")
        aws.sqs.list_queues()
        moment += 0.1
        with pytest.raises(Unavailable, match=r"^too little time is left for ListQueues: try again in a moment$"):
            aws.sqs.list_queues()
    aws.sqs.list_queues()


def test_a_time_that_no_call_fits_into_is_no_limit(aws: Aws) -> None:
    """The functions of Chalice's test client have three seconds, whatever is configured."""
    for seconds in (0, 3, clients.longest_call("s3")):
        with clients.time_limit(seconds):
            aws.sqs.list_queues()


# --- MySQL ------------------------------------------------------------------------------------------------------------


class Connection:
    """Stands for PyMySQL's; the real server's part is in the system tests."""

    def __init__(self, **options: Any) -> None:
        inspect.signature(pymysql.Connection.__init__).bind(None, **options)
        self.options = options
        self.closed = 0

    def _force_close(self) -> None:
        self.closed += 1


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """Those that were made with PyMySQL."""
    made: list[Connection] = []

    def connect(**options: Any) -> Connection:
        made.append(Connection(**options))
        return made[-1]

    monkeypatch.setattr(pymysql, "connect", connect)
    return made


def use(error: Exception | None = None) -> None:
    """A connection, on which something fails with ``error``."""
    with clients.mysql(DATABASE):
        if error:
            raise error


def test_mysql_is_asked_for_utf8_utc_strict_rows_and_time_outs(connections: list[Connection]) -> None:
    use()
    asked = connections[0].options
    assert asked["charset"] == "utf8mb4"
    assert asked["autocommit"] is False
    assert "time_zone = '+00:00'" in asked["init_command"]
    assert "STRICT_TRANS_TABLES" in asked["init_command"]
    assert all(0 < asked[f"{name}_timeout"] <= 60 for name in ("connect", "read", "write"))
    # A database that has paused for a day takes half a minute to resume.
    assert asked["connect_timeout"] > 30
    place = {name: asked[name] for name in ("host", "port", "database", "user", "password")}
    assert place == {
        "host": "db.example",
        "port": 3307,
        "database": "cafe",
        "user": "reader",
        "password": "secret",
    }


def test_each_use_has_a_fresh_connection_that_is_closed_at_its_end(connections: list[Connection]) -> None:
    use()
    use()
    assert [each.closed for each in connections] == [1, 1]


@pytest.mark.parametrize("error", [KeyError("x"), pymysql.err.OperationalError(2013, "lost"), TimeoutError()])
def test_a_connection_is_closed_if_its_use_fails(connections: list[Connection], error: Exception) -> None:
    with pytest.raises((KeyError, DatabaseUnavailable)):
        use(error)
    assert [each.closed for each in connections] == [1]


@pytest.mark.parametrize("code", PASSING)
def test_what_may_pass_is_unavailable(connections: list[Connection], code: int) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"^MySQL at db\.example:3307 does not answer for now: "):
        use(pymysql.err.OperationalError(code, "said the server"))


@pytest.mark.parametrize("error", [TimeoutError("timed out"), ConnectionResetError(104, "reset"), BrokenPipeError()])
def test_a_lost_socket_is_unavailable(connections: list[Connection], error: OSError) -> None:
    with pytest.raises(DatabaseUnavailable):
        use(error)


def test_an_error_of_pymysql_without_a_code_is_unavailable(connections: list[Connection]) -> None:
    """PyMySQL raises this on a connection that went away before."""
    with pytest.raises(DatabaseUnavailable):
        use(pymysql.err.InterfaceError(0, ""))


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
def test_what_will_not_pass_is_refused_in_the_servers_words(connections: list[Connection], error: Exception) -> None:
    with pytest.raises(DatabaseRefused) as caught:
        use(error)
    assert str(caught.value) == f"MySQL at db.example:3307 refuses: {error.args[1]}"
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (pymysql.err.OperationalError(2003, "Can't connect to MySQL server"), DatabaseUnavailable),
        (pymysql.err.OperationalError(1040, "Too many connections"), DatabaseUnavailable),
        (pymysql.err.OperationalError(1045, "Access denied"), DatabaseRefused),
    ],
    ids=["down", "full", "wrong password"],
)
def test_a_server_that_does_not_let_in_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, error: Exception, expected: type[Exception]
) -> None:
    def connect(**_: Any) -> None:
        raise error

    monkeypatch.setattr(pymysql, "connect", connect)
    with pytest.raises(expected), clients.mysql(DATABASE):
        pytest.fail("there is no connection")


def test_an_error_of_the_code_inside_stays_what_it_is(connections: list[Connection]) -> None:
    with pytest.raises(KeyError):
        use(KeyError("x"))


def test_no_message_has_the_password(connections: list[Connection]) -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        use(pymysql.err.OperationalError(2013, "lost"))
    assert "secret" not in str(caught.value)


# --- MySQL's certificate ----------------------------------------------------------------------------------------------

CLUSTER = "cafe-prod.cluster-abc123.eu-central-1.rds.amazonaws.com"


def context_for(connections: list[Connection], host: str) -> Any:
    """How the server at ``host`` is checked."""
    with clients.mysql(replace(DATABASE, host=host)):
        pass
    return connections[-1].options["ssl"]


@pytest.mark.parametrize("host", [CLUSTER, "one.abc123.us-east-1.rds.amazonaws.com"])
def test_a_server_of_rds_must_show_by_its_regions_authorities_that_it_is_the_one(
    connections: list[Connection], host: str
) -> None:
    context = context_for(connections, host)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    region = host.split(".")[2]
    names = {dict(pair[0] for pair in each["subject"])["commonName"] for each in context.get_ca_certs()}
    assert names == {f"Amazon RDS {region} Root CA {key} G1" for key in ("RSA2048", "RSA4096", "ECC384")}


def test_a_proxy_of_rds_has_a_certificate_that_every_system_knows(connections: list[Connection]) -> None:
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


def test_the_authorities_are_the_file_that_amazon_gives_out_and_last() -> None:
    """The digest is that of https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem in 2026."""
    content = clients.AUTHORITIES.read_bytes()
    assert hashlib.sha256(content).hexdigest() == "e5bb2084ccf45087bda1c9bffdea0eb15ee67f0b91646106e466714f9de3c7e3"
    certificates = load_pem_x509_certificates(content)
    assert len(certificates) == 108
    assert min(each.not_valid_after_utc.year for each in certificates) > 2060


def test_a_server_that_shows_another_certificate_is_refused_and_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def connect(**_: Any) -> None:
        error = pymysql.err.OperationalError(2003, "Can't connect to MySQL server on 'db' (certificate verify failed)")
        error.original_exception = ssl.SSLCertVerificationError("certificate verify failed")
        raise error

    monkeypatch.setattr(pymysql, "connect", connect)
    with pytest.raises(DatabaseRefused, match=r"^MySQL at \S+:3307 does not show that it is the one: .*verify failed"):
        use()


# --- MySQL by its secret ----------------------------------------------------------------------------------------------


class Server:
    """A MySQL that lets in with one password, and a secret in Secrets Manager that tells it."""

    def __init__(self, aws: Aws, connections: list[Connection]) -> None:
        self.connections = connections
        self.secrets = clients.aws("secretsmanager")
        self.reads = aws.calls(self.secrets, "GetSecretValue")
        self.password = "first"
        given = {"host": "db.example", "port": 3307, "dbname": "cafe", "username": "reader", "password": self.password}
        self.arn = self.secrets.create_secret(Name="cafe-test-database", SecretString=json.dumps(given))["ARN"]

    def tell(self, text: str) -> None:
        self.secrets.put_secret_value(SecretId=self.arn, SecretString=text)

    def rotate(self, password: str) -> None:
        """The server has another password, and the secret tells it."""
        self.password = password
        self.tell(json.dumps({**json.loads(self._told()), "password": password}))

    def _told(self) -> str:
        told: str = self.secrets.get_secret_value(SecretId=self.arn)["SecretString"]
        self.reads.clear()
        return told

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


def test_a_rotated_password_is_read_once_more_and_is_then_known(server: Server) -> None:
    server.use()
    server.rotate("second")
    server.use()
    server.use()
    assert server.tried == ["first", "first", "second", "second"]
    assert len(server.reads) == 1


def test_a_password_that_stays_wrong_is_refused_in_the_servers_words_after_one_more_look(server: Server) -> None:
    server.password = "of somebody else"
    with pytest.raises(PasswordRefused, match=r"^MySQL at db\.example:3307 refuses: Access denied for user 'reader'"):
        server.use()
    assert server.tried == ["first", "first"]
    assert len(server.reads) == 2
    # It may be right the next time.
    server.password = "first"
    server.use()


@pytest.mark.parametrize("code", [1045, 1142])
def test_what_the_server_refuses_later_on_is_not_tried_again(server: Server, code: int) -> None:
    with pytest.raises(DatabaseRefused):
        server.use(pymysql.err.OperationalError(code, "denied"))
    assert server.tried == ["first"]
    assert len(server.reads) == 1


@pytest.mark.parametrize("code", ["ThrottlingException", "InternalServiceError"])
def test_where_secrets_manager_does_not_answer_for_now_the_database_is_unavailable(server: Server, code: str) -> None:
    with Stubber(server.secrets) as stub:
        stub.add_client_error("get_secret_value", code, http_status_code=400 if code.startswith("T") else 500)
        with pytest.raises(Unavailable, match=r"^GetSecretValue does not answer for now"):
            server.use()
    server.use()


def test_a_right_that_is_missing_stays_what_it_is(server: Server) -> None:
    with Stubber(server.secrets) as stub:
        stub.add_client_error("get_secret_value", "AccessDeniedException", http_status_code=400)
        with pytest.raises(ClientError, match="AccessDeniedException"):
            server.use()


def test_a_secret_of_something_else_is_refused(server: Server) -> None:
    server.tell('{"key": "value"}')
    with pytest.raises(DatabaseRefused, match=r"^MySQL's secret has no host, port, dbname, username, password$"):
        server.use()


# --- The tests themselves ---------------------------------------------------------------------------------------------


def test_a_unit_test_that_reaches_for_the_network_fails() -> None:
    with socket.socket() as one, pytest.raises(RuntimeError, match="a unit test tries to connect"):
        one.connect(("192.0.2.1", 443))
