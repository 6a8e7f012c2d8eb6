"""Defines the fixtures of the unit tests: the app, a mocked AWS account, the log, and a blocked network."""

import io
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import hypothesis
import pytest
from chalice.test import Client
from moto import mock_aws

from chalicelib import clients, sign_in
from tests.unit.api import Api, app
from tests.unit.buckets import Account
from tests.unit.cloud import ROOT, Aws
from tests.unit.logged import log_handler
from tests.unit.signing import REGION, Pool

# The ``short`` profile tests the same few examples in every run. The profiles have no deadline because some machines
# are slow.
hypothesis.settings.register_profile("short", derandomize=True, deadline=None, max_examples=30, database=None)
hypothesis.settings.register_profile("long", deadline=None, max_examples=300)
hypothesis.settings.load_profile("long" if os.environ.get("CAFE_FUZZ") == "long" else "short")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: socket.socket, address: Any) -> None:
        raise RuntimeError(f"a unit test tries to connect to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the developer's AWS settings from the tests, including a sourced ``.local/env``."""
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")


@pytest.fixture(scope="package", autouse=True)
def own_clients() -> Iterator[None]:
    """Clears the shared AWS clients before and after the unit tests, because other tests use other endpoints."""
    clients.aws.cache_clear()
    yield
    clients.aws.cache_clear()


@pytest.fixture
def aws() -> Iterator[Aws]:
    with mock_aws(), ExitStack() as hooks:
        yield Aws(hooks)


@pytest.fixture
def account() -> Iterator[Account]:
    """Yields a mocked AWS account that starts without buckets."""
    with mock_aws():
        yield Account()


@pytest.fixture
def s3(account: Account) -> Any:
    """Returns a new S3 client for one test, and creates a bucket for reports."""
    account.bucket("cafe-test-reports")
    return account.s3


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """Yields a fake user pool whose keys the app has not fetched yet."""
    pool = Pool()
    monkeypatch.setattr(sign_in, "fetch", pool.fetch)
    sign_in.keys_of.cache_clear()
    yield pool
    sign_in.keys_of.cache_clear()


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(app.app, project_dir=str(ROOT)) as client:
        yield client


@pytest.fixture
def api(client: Client, pool: Pool) -> Api:
    return Api(client, pool)


@pytest.fixture
def log_lines(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Collects what the functions log during the test."""
    lines = io.StringIO()
    monkeypatch.setattr(log_handler(), "stream", lines)
    return lines
