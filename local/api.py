"""Provides a client for the REST API to the local commands and the benchmarks."""

from __future__ import annotations

import json
import textwrap
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from local.processes import StackError

# This limit is ten times what a request takes on a busy machine with two processors.
SECONDS = 60

# Returns a token that is valid for at least a few minutes.
Token = Callable[[], str]


class NotFound(StackError):
    pass


class Api:
    """Calls the REST API with a user's token. Every error response raises ``StackError``."""

    def __init__(self, url: str, token: Token) -> None:
        self._url, self._token = url, token

    def get(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(fetch(self._url + path, token=self._token()))
        return answer

    def post(self, path: str, body: object) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(fetch(self._url + path, json.dumps(body).encode(), self._token()))
        return answer

    def find(self, path: str) -> dict[str, Any] | None:
        """Sends a GET request and returns the response. Returns None if the status is 404."""
        try:
            return self.get(path)
        except NotFound:
            return None

    def notifications(self) -> list[dict[str, Any]]:
        """Returns the 100 newest notifications."""
        page: list[dict[str, Any]] = self.get("/notifications?limit=100")["notifications"]
        return page


def fetch(url: str, body: bytes | None = None, token: str | None = None) -> bytes:
    """Sends a GET request, or a POST request with ``body``, and returns the response body."""
    headers = {"Content-Type": "application/json"} if body else {}
    headers |= {"Authorization": token} if token else {}
    request = urllib.request.Request(url, body, headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310 - the stack's URL  # nosec B310
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:
        problem = NotFound if error.code == 404 else StackError
        raise problem(
            f"{url.split('?')[0]} returned status {error.code}: {textwrap.shorten(error.read().decode(), 300)}"
        ) from None
    except OSError as error:
        raise StackError(f"{url.split('?')[0]} did not respond ({error}): see `make status`") from None
