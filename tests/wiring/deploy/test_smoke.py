"""The smoke test, against an API on this machine that answers as it is told."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from infra.deploy import smoke
from infra.deploy.target import Target

DESCRIPTION = {"openapi": "3.1.0", "paths": {}}
WIRING = {"mappings": {"store_orders": {}}, "subscriptions": {"record_alarm": ""}, "notified": {"receive_upload": ""}}
LISTS = ("/orders", "/reports", "/notifications", "/dead-letters")


class Api(BaseHTTPRequestHandler):
    """``answers`` by path, and by path and token where one is sent."""

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


class Services:
    """Cognito and Lambda, which remember what they were asked for."""

    class exceptions:  # noqa: N801 - botocore's name
        class UsernameExistsException(Exception):
            pass

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.there = False
        self.failing: dict[str, str] = {}

    def client(self, _service: str) -> Any:
        return self

    def admin_create_user(self, **_: Any) -> None:
        self.calls.append("create")
        if self.there:
            raise self.exceptions.UsernameExistsException

    def admin_set_user_password(self, **given: Any) -> None:
        assert given["Permanent"] is True

    def admin_add_user_to_group(self, **given: Any) -> None:
        assert given["GroupName"] == "managers"

    def initiate_auth(self, **_: Any) -> dict[str, Any]:
        return {"AuthenticationResult": {"IdToken": "token"}}

    def admin_delete_user(self, **_: Any) -> None:
        self.calls.append("delete")

    def invoke(self, **given: Any) -> dict[str, Any]:
        assert json.loads(given["Payload"]) == {"Records": []}
        name = given["FunctionName"].removeprefix("cafe-test-")
        self.calls.append(name)
        failure = self.failing.get(name)
        body = json.dumps({"errorMessage": failure, "errorType": "ImportError"} if failure else None).encode()
        return {"Payload": io.BytesIO(body), **({"FunctionError": "Unhandled"} if failure else {})}


@pytest.fixture
def services() -> Services:
    return Services()


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


def test(target: Target, url: str, package: Path, services: Services) -> list[str]:
    outputs = {"REST_API_URL": url, "USER_POOL_ID": "pool", "USER_POOL_CLIENT_ID": "console"}
    return smoke.test(target, outputs, WIRING, package, services.client)


test.__test__ = False  # type: ignore[attr-defined]


def test_where_everything_answers_there_is_no_problem(
    target: Target, url: str, package: Path, services: Services
) -> None:
    assert test(target, url, package, services) == []
    assert sorted(services.calls) == ["create", "delete", "receive_upload", "record_alarm", "store_orders"]


@pytest.mark.parametrize(
    ("path", "answer", "problem"),
    [
        ("/health", (502, {"message": "Internal server error"}), "GET /health: 502, "),
        ("/health", (200, {"status": "ok", "stage": "other"}), "GET /health: 200, "),
        ("/health", (200, b"<html>"), "GET /health: 200, <html>"),
        ("/openapi.json", (200, {"openapi": "3.0.0"}), "GET /openapi.json: 200, and not of the code"),
        ("/orders", (200, {"orders": []}), "GET /orders without a token: 200, not 401"),
        ("/reports token", (500, {"message": "no"}), 'GET /reports: 500, {"message": "no"}'),
        ("/dead-letters token", (403, {"message": "no"}), "GET /dead-letters: 403, "),
    ],
)
def test_what_does_not_answer_as_it_should_is_named(
    target: Target,
    url: str,
    package: Path,
    services: Services,
    answers: dict[str, tuple[int, Any]],
    path: str,
    answer: tuple[int, Any],
    problem: str,
) -> None:
    answers[path] = answer
    [found] = test(target, url, package, services)
    assert found.startswith(problem)


def test_an_api_that_is_not_there_is_named(
    target: Target, package: Path, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smoke, "SETTLE_SECONDS", 0)
    [found] = test(target, "http://127.0.0.1:1", package, services)
    assert found.startswith("GET /health: 0, ")


def test_a_new_address_may_take_some_seconds_to_answer(
    target: Target,
    url: str,
    package: Path,
    services: Services,
    answers: dict[str, tuple[int, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(smoke, "SETTLE_SECONDS", 60)
    healthy, answers["/health"] = answers["/health"], (403, {"message": "Forbidden"})
    monkeypatch.setattr("time.sleep", lambda _: answers.update({"/health": healthy}))
    assert test(target, url, package, services) == []


def test_a_function_that_fails_is_named_with_its_reason(
    target: Target, url: str, package: Path, services: Services
) -> None:
    services.failing["store_orders"] = "No module named 'nothing_like_it'"
    [found] = test(target, url, package, services)
    assert found.startswith("store_orders: fails on an empty event: ")
    assert "nothing_like_it" in found


def test_the_user_goes_whatever_comes_of_it_and_one_that_was_left_is_used(
    target: Target, url: str, package: Path, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.there = True
    assert test(target, url, package, services) == []

    def fail(**_: Any) -> None:
        raise RuntimeError("no sign-in")

    monkeypatch.setattr(services, "initiate_auth", fail)
    with pytest.raises(RuntimeError, match="no sign-in"):
        test(target, url, package, services)
    assert services.calls.count("delete") == 2
