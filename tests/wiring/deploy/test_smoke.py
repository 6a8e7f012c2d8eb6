"""Tests the smoke test against a local API that sends prepared responses."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, call

import pytest

from infra.deploy import smoke
from infra.deploy.target import Target
from tests.wiring.fakes import Conflict

DESCRIPTION = {"openapi": "3.1.0", "paths": {}}
WIRING = {"mappings": {"store_orders": {}}, "subscriptions": {"record_alarm": ""}, "notified": {"receive_upload": ""}}
LISTS = ("/orders", "/reports", "/notifications", "/dead-letters")


class Api(BaseHTTPRequestHandler):
    """Sends the responses in ``answers``, keyed by path, or by path and token if the request has a token."""

    answers: dict[str, tuple[int, Any]]

    def do_GET(self) -> None:
        token = self.headers.get("Authorization")
        status, body = self.answers[self.path.partition("?")[0] + (f" {token}" if token else "")]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def answers() -> dict[str, tuple[int, Any]]:
    return {
        "/health": (200, {"status": "ok", "stage": "test"}),
        "/openapi.json": (200, DESCRIPTION),
        "/orders": (401, {"message": "Unauthorized"}),
        **{f"{path} token": (200, {}) for path in LISTS},
    }


@pytest.fixture
def services() -> Mock:
    """Returns a mock of Cognito and Lambda that records its calls."""
    services = Mock(exceptions=SimpleNamespace(UsernameExistsException=Conflict))
    services.initiate_auth.return_value = {"AuthenticationResult": {"IdToken": "token"}}
    services.invoke.side_effect = lambda **_: {"Payload": io.BytesIO(b"null")}
    return services


@pytest.fixture
def url(answers: dict[str, tuple[int, Any]], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(smoke, "SETTLE_SECONDS", 0)
    handler = type("Handler", (Api,), {"answers": answers})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "package.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("chalicelib/openapi.json", json.dumps(DESCRIPTION))
    return path


Run = Callable[..., list[str]]


@pytest.fixture
def run(target: Target, url: str, package: Path, services: Mock) -> Run:
    """Returns a function that runs the smoke test against the API at ``url``, or at another URL."""

    def test(url: str = url) -> list[str]:
        outputs = {"REST_API_URL": url, "USER_POOL_ID": "pool", "USER_POOL_CLIENT_ID": "console"}
        return smoke.test(target, outputs, WIRING, package, lambda _: services)

    return test


def test_a_deploy_that_responds_has_no_problem(run: Run, services: Mock) -> None:
    assert run() == []
    who = {"UserPoolId": "pool", "Username": smoke.USER}
    assert services.admin_set_user_password.call_args.kwargs.items() >= {**who, "Permanent": True}.items()
    services.admin_add_user_to_group.assert_called_once_with(**who, GroupName="managers")
    services.admin_delete_user.assert_called_once_with(**who)
    functions = ("store_orders", "record_alarm", "receive_upload")
    wanted = [call(FunctionName=f"cafe-test-{name}", Payload=b'{"Records": []}') for name in functions]
    services.invoke.assert_has_calls(wanted, any_order=True)


@pytest.mark.parametrize(
    ("path", "answer", "problem"),
    [
        ("/health", (502, {"message": "Internal server error"}), "GET /health: 502, "),
        ("/health", (200, {"status": "ok", "stage": "other"}), "GET /health: 200, "),
        ("/health", (200, b"<html>"), "GET /health: 200, <html>"),
        ("/openapi.json", (200, {"openapi": "3.0.0"}), "GET /openapi.json: 200, and the body is not the deployed"),
        ("/orders", (200, {"orders": []}), "GET /orders without a token: 200, not 401"),
        ("/reports token", (500, {"message": "no"}), 'GET /reports: 500, {"message": "no"}'),
        ("/dead-letters token", (403, {"message": "no"}), "GET /dead-letters: 403, "),
    ],
)
def test_each_wrong_response_is_named(
    path: str, answer: tuple[int, Any], problem: str, run: Run, answers: dict[str, tuple[int, Any]]
) -> None:
    answers[path] = answer
    [line] = run()
    assert line.startswith(problem)


def test_an_api_that_does_not_respond_is_named(run: Run) -> None:
    [line] = run("http://127.0.0.1:1")
    assert line.startswith("GET /health: 0, ")


def test_a_new_address_may_take_some_seconds_to_respond(
    run: Run, answers: dict[str, tuple[int, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smoke, "SETTLE_SECONDS", 60)
    healthy, answers["/health"] = answers["/health"], (403, {"message": "Forbidden"})
    monkeypatch.setattr("time.sleep", lambda _: answers.update({"/health": healthy}))
    assert run() == []


def test_a_function_that_fails_is_named_with_its_reason(run: Run, services: Mock) -> None:
    body = json.dumps({"errorMessage": "No module named 'nothing_like_it'", "errorType": "ImportError"}).encode()
    failed = {"Payload": io.BytesIO(body), "FunctionError": "Unhandled"}
    good = services.invoke.side_effect
    services.invoke.side_effect = lambda **given: failed if "store_orders" in given["FunctionName"] else good()
    [line] = run()
    assert line.startswith("store_orders: fails on an empty event: ")
    assert "nothing_like_it" in line


def test_the_user_is_deleted_even_after_a_failure_and_an_existing_one_is_used(run: Run, services: Mock) -> None:
    services.admin_create_user.side_effect = Conflict
    assert run() == []
    services.initiate_auth.side_effect = RuntimeError("no sign-in")
    with pytest.raises(RuntimeError, match="no sign-in"):
        run()
    assert services.admin_delete_user.call_count == 2
