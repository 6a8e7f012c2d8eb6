"""Imports the app with the settings for unit tests, and provides an API client and API Gateway events."""

from __future__ import annotations

import json
import os
from typing import Any
from unittest.mock import patch

from chalice.app import Request
from chalice.test import Client, HTTPResponse

from tests.unit.cloud import ENVIRONMENT
from tests.unit.signing import Pool

# Importing the app reads its settings, so the unit tests' settings must be in the environment during the import.
with patch.dict(os.environ, ENVIRONMENT):
    import app  # noqa: F401


class Api:
    """Wraps Chalice's test client, and sends JSON bodies and a manager's token."""

    def __init__(self, client: Client, pool: Pool) -> None:
        self.client = client
        self.pool = pool
        self.headers = {"authorization": pool.token("mia", "managers")}

    def sent_by(self, name: str, *groups: str) -> Api:
        """Returns a client for the same API that sends another person's token."""
        return self.with_token(self.pool.token(name, *groups))

    def with_token(self, token: str | None) -> Api:
        """Returns a client for the same API that sends this Authorization header, or none."""
        other = Api(self.client, self.pool)
        other.headers = {"authorization": token} if token is not None else {}
        return other

    def get(self, path: str, **headers: str) -> HTTPResponse:
        return self.client.http.get(path, headers={**self.headers, **headers})

    def post(self, path: str, body: Any = b"", **headers: str) -> HTTPResponse:
        """Posts ``body`` as JSON, or unchanged if it is bytes."""
        return self._send("POST", path, body, headers)

    def patch(self, path: str, body: Any, **headers: str) -> HTTPResponse:
        return self._send("PATCH", path, body, headers)

    def _send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> HTTPResponse:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"content-type": "application/json", **self.headers, **headers}
        return self.client.http.request(method, path, headers=sent, body=raw)

    def invoke(self, function: str, event: Any) -> Any:
        """Runs one of the app's functions on an event, and returns its result."""
        return self.client.lambda_.invoke(function, event).payload


def refused(response: HTTPResponse, status: int, code: str) -> str:
    """Checks an error response, and returns its message."""
    assert response.status_code == status, response.body
    assert list(response.json_body)[:2] == ["Code", "Message"]
    for problem in response.json_body.get("Problems", []):
        assert list(problem) == ["field", "message"]
        assert problem["message"] in response.json_body["Message"]
    assert response.json_body["Code"] == code
    message: str = response.json_body["Message"]
    assert message
    assert "Traceback" not in message
    return message


def gateway_event(method: str = "GET", resource: str = "/", **fields: Any) -> dict[str, Any]:
    """Returns an API Gateway event, with ``context`` added to its requestContext."""
    return {
        "requestContext": {"httpMethod": method, "resourcePath": resource, **fields.pop("context", {})},
        "headers": {},
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "body": None,
        "isBase64Encoded": False,
        **fields,
    }


def request(path: str = "/", **fields: Any) -> Request:
    """Returns the Chalice request that a view function receives for this path."""
    return Request(gateway_event("POST", "/orders", context={"path": path}, **fields), None)
