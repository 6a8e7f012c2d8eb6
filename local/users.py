"""Who may sign in to the local stack, and their tokens, for all that calls its API.

``cafe-token``, a command of ``.local/env``, prints one. So this imports little, to be quick.
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

# One of each group, by name.
GROUPS = {"manager": "managers", "staff": "staff"}
# A token is taken anew so long before it ends.
EARLY_SECONDS = 300


class Users:
    """The people of one stack, kept in ``file``: their passwords, and where they sign in."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._tokens: dict[tuple[str, str], tuple[str, float]] = {}

    def write(self, endpoint: str, client_id: str, passwords: Mapping[str, str]) -> None:
        kept = {"endpoint": endpoint, "clientId": client_id, "passwords": dict(passwords)}
        write_private(self.file, json.dumps(kept, indent=2) + "\n")

    @property
    def passwords(self) -> dict[str, str]:
        """By name; none before the stack's first start."""
        return dict(self._read()["passwords"]) if self.file.exists() else {}

    def token(self, name: str = "manager") -> str:
        """An id token that lasts for some minutes at least. Raises ``StackError`` where there is none to be had."""
        kept = self._read()
        if name not in kept["passwords"]:
            raise StackError(f"there is no {name!r}: {' and '.join(kept['passwords'])} are there")
        known = kept["clientId"], name
        if known not in self._tokens or self._tokens[known][1] < time.monotonic():
            self._tokens[known] = _signed_in(kept["endpoint"], kept["clientId"], name, kept["passwords"][name])
        return self._tokens[known][0]

    def _read(self) -> dict[str, Any]:
        try:
            kept: dict[str, Any] = json.loads(self.file.read_text())
        except FileNotFoundError:
            raise StackError("nobody can sign in here yet: run `make run`") from None
        return kept


def _signed_in(endpoint: str, client_id: str, name: str, password: str) -> tuple[str, float]:
    """The id token, and until when it may be used, on the monotonic clock."""
    asked = {
        "AuthFlow": "USER_PASSWORD_AUTH",
        "ClientId": client_id,
        "AuthParameters": {"USERNAME": name, "PASSWORD": password},
    }
    headers = {
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": "AWSCognitoIdentityProviderService.InitiateAuth",
    }
    request = urllib.request.Request(endpoint, json.dumps(asked).encode(), headers)  # noqa: S310
    # Whatever proxy the shell has, it is not for this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            result = json.load(answer)["AuthenticationResult"]
    except OSError as error:
        raise StackError(f"{endpoint} lets nobody sign in ({error}): `make run` brings the stack up") from None
    return result["IdToken"], time.monotonic() + result["ExpiresIn"] - EARLY_SECONDS


def main() -> None:
    """``cafe-token [NAME]``, a manager's by default; its first argument is the file, which the wrapper gives."""
    file, *names = sys.argv[1:]
    try:
        print(Users(Path(file)).token(*names[:1]))
    except StackError as error:
        sys.exit(f"cafe: no token: {error}")


if __name__ == "__main__":
    main()
