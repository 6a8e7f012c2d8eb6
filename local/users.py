"""Provides the local stack's users and their tokens to all programs that call the API.

The command ``cafe-token`` from ``.local/env`` prints a token. This module has few imports so that ``cafe-token`` starts
fast.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.files import write_private
from local.processes import StackError

# Maps each user name to the user's group.
GROUPS = {"manager": "managers", "staff": "staff"}
# Tokens are renewed this many seconds before they expire.
EARLY_SECONDS = 300


class Users:
    """Reads and writes a stack's users. ``file`` contains the password of each user and the sign-in address."""

    def __init__(self, file: Path) -> None:
        self.file = file
        # Maps a user pool client and a user to a token and the monotonic time at which the token must be renewed.
        self._tokens: dict[tuple[str, str], tuple[str, float]] = {}

    def write(self, endpoint: str, client_id: str, passwords: Mapping[str, str]) -> None:
        content = {"endpoint": endpoint, "clientId": client_id, "passwords": dict(passwords)}
        write_private(self.file, json.dumps(content, indent=2) + "\n")

    @property
    def passwords(self) -> dict[str, str]:
        """Returns the password of each user, keyed by user name.

        The mapping is empty before the stack's first start.
        """
        return dict(self._read()["passwords"]) if self.file.exists() else {}

    def token(self, name: str = "manager") -> str:
        """Returns an ID token valid for at least five minutes. Raises ``StackError`` if the user cannot sign in."""
        content = self._read()
        if name not in content["passwords"]:
            raise StackError(f"{name} is not a user of the local stack: use {' or '.join(content['passwords'])}")
        owner = content["clientId"], name
        if owner not in self._tokens or self._tokens[owner][1] < time.monotonic():
            self._tokens[owner] = _sign_in(content["endpoint"], content["clientId"], name, content["passwords"][name])
        return self._tokens[owner][0]

    def _read(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(self.file.read_text())
        except FileNotFoundError:
            raise StackError("there are no users yet: run `make run`") from None
        return content


def _sign_in(endpoint: str, client_id: str, name: str, password: str) -> tuple[str, float]:
    """Returns an ID token, and the monotonic time at which the token must be renewed."""
    body = {
        "AuthFlow": "USER_PASSWORD_AUTH",
        "ClientId": client_id,
        "AuthParameters": {"USERNAME": name, "PASSWORD": password},
    }
    headers = {
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": "AWSCognitoIdentityProviderService.InitiateAuth",
    }
    request = urllib.request.Request(endpoint, json.dumps(body).encode(), headers)  # noqa: S310
    # Requests to this machine must bypass the shell's proxies.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            result = json.load(answer)["AuthenticationResult"]
    except OSError as error:
        raise StackError(f"cannot sign in at {endpoint} ({error}): start the stack with `make run`") from None
    return result["IdToken"], time.monotonic() + result["ExpiresIn"] - EARLY_SECONDS


def main() -> None:
    """Runs ``cafe-token [NAME]``. NAME defaults to ``manager``.

    The wrapper script passes the path of the users file before NAME.
    """
    file, *names = sys.argv[1:]
    try:
        print(Users(Path(file)).token(*names[:1]))
    except StackError as error:
        sys.exit(f"cafe-token: {error}")


if __name__ == "__main__":
    main()
