"""Who may do what, and who is who: by a token of the user pool, whose signature is verified here.

API Gateway asks before each call of a route that is not open, and keeps the answer for a minute for the same token. So
does ``chalice local``, at each call. Whatever is wrong with a token, or here, is a 403; a request without one is a 401
before it comes here.
"""

from __future__ import annotations

import json
import re
import threading
import time
import traceback
from collections.abc import Callable
from functools import cache
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

from chalice.app import AuthRequest, AuthResponse, AuthRoute

from chalicelib.errors import TokenRefused, Unavailable
from chalicelib.logs import logger

if TYPE_CHECKING:
    from jwt import PyJWK

log = logger("sign_in")

# Who may call each route: everyone, the group `staff` and the managers, or the managers alone.
OPEN, STAFF, MANAGERS = "open", "staff", "managers"
ROUTES = {
    ("POST", "/create_report"): MANAGERS,
    ("GET", "/reports"): MANAGERS,
    ("GET", "/reports/{report_id}"): MANAGERS,
    ("GET", "/reports/{report_id}/history"): MANAGERS,
    ("POST", "/orders"): STAFF,
    ("GET", "/orders"): STAFF,
    ("GET", "/orders/{order_id}"): STAFF,
    ("POST", "/uploads"): MANAGERS,
    ("GET", "/notifications"): STAFF,
    ("GET", "/today"): STAFF,
    ("GET", "/dead-letters"): MANAGERS,
    ("POST", "/dead-letters/redrive"): MANAGERS,
    ("GET", "/health"): OPEN,
    ("GET", "/openapi.json"): OPEN,
    ("GET", "/"): OPEN,
    ("GET", "/console/{file}"): OPEN,
}

FETCH_SECONDS = 3
KEYS_BYTES = 100_000
# How long unknown key ids are refused without asking the pool again: after its answer, and after none.
AGAIN_SECONDS = 10
AGAIN_AFTER_FAILURE_SECONDS = 1


def fetch(url: str) -> bytes:
    """The user pool's own address is all that is asked for, and it is no user's text."""
    with urlopen(url, timeout=FETCH_SECONDS) as answer:  # noqa: S310  # nosec B310
        content: bytes = answer.read(KEYS_BYTES)
        return content


class Keys:
    """The public keys of a user pool by their id, fetched when one is asked for that is not known.

    Safe to be asked by several threads. ``clock`` gives seconds.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url, self._clock = url, clock
        self._known: dict[str, PyJWK] = {}
        self._again = float("-inf")
        self._one_at_a_time = threading.Lock()

    def get(self, key_id: str) -> PyJWK:
        """Raises ``TokenRefused`` where the pool has no such key, ``Unavailable`` where it cannot be asked."""
        if key_id in self._known:
            return self._known[key_id]
        with self._one_at_a_time:
            if key_id not in self._known and self._clock() >= self._again:
                self._again = self._clock() + AGAIN_AFTER_FAILURE_SECONDS
                self._known = self._fetched()
                self._again = self._clock() + AGAIN_SECONDS
            if not self._known:
                raise Unavailable("the user pool did not give its keys a moment ago")
            if key_id not in self._known:
                raise TokenRefused("its key is none of the user pool's")
            return self._known[key_id]

    def _fetched(self) -> dict[str, PyJWK]:
        from jwt import PyJWKSet, PyJWTError

        try:
            return {str(key.key_id): key for key in PyJWKSet.from_dict(json.loads(fetch(self._url))).keys}
        except (OSError, HTTPException, PyJWTError, ValueError, AttributeError) as error:
            raise Unavailable(f"the user pool does not give its keys: {error}") from error


@cache
def keys_of(url: str) -> Keys:
    """Those at ``url``, kept as long as the process lives."""
    return Keys(url)


def authorize(request: AuthRequest, *, endpoint: str, issuer: str, client_id: str) -> AuthResponse:
    """The routes that the token's bearer may call, and for the views the bearer's name and groups.

    ``endpoint`` is where the user pool is asked for its keys. Raises nothing: on AWS it would be a 500, and under
    ``chalice local`` a connection that breaks.
    """
    try:
        keys = keys_of(f"{endpoint}/{issuer.rpartition('/')[2]}/.well-known/jwks.json")
        name, groups = bearer(request.token, keys=keys, issuer=issuer, client_id=client_id)
        return AuthResponse(allowed(groups), principal_id=name, context={"groups": ",".join(groups)})
    except TokenRefused as error:
        log.info("token refused", extra={"reason": str(error)})
    except Unavailable as error:
        log.error("token refused", extra={"reason": str(error)})
    except Exception as error:  # noqa: BLE001 - whatever it is, nobody is let in
        # Without its text, for that could have a part of the token in it.
        where = "".join(traceback.format_tb(error.__traceback__))
        log.error("token refused", extra={"reason": f"a fault of the authorizer, {type(error).__name__}:\n{where}"})
    return AuthResponse(routes=[], principal_id="nobody")


def bearer(token: str, *, keys: Keys, issuer: str, client_id: str) -> tuple[str, list[str]]:
    """The name and the groups, of those that are known here, in an id token of the user pool, bare or after ``Bearer``.

    Raises ``TokenRefused`` with the reason, which has nothing of the token.
    """
    import jwt

    token = re.sub(r"^Bearer +", "", token.strip(), flags=re.IGNORECASE)
    try:
        header = jwt.get_unverified_header(token)
        claims: dict[str, Any] = jwt.decode(
            token,
            keys.get(header.get("kid", "")),
            algorithms=["RS256"],
            issuer=issuer,
            audience=client_id,
            options={
                "require": ["exp", "iss", "aud", "token_use", "cognito:username"],
                "strict_aud": True,
                # It was just made where the pool's clock is ahead of this one.
                "verify_iat": False,
            },
        )
    except jwt.PyJWTError as error:
        raise TokenRefused(type(error).__name__) from None
    use = claims["token_use"]
    if use != "id":
        raise TokenRefused("it is no id token")
    groups = claims.get("cognito:groups", [])
    return str(claims["cognito:username"]), [group for group in (STAFF, MANAGERS) if group in groups]


def allowed(groups: list[str]) -> list[str | AuthRoute]:
    """The routes that are not open and that one of ``groups`` may call, as patterns of their paths."""
    routes: list[str | AuthRoute] = []
    for (method, path), group in ROUTES.items():
        if group in groups or (group == STAFF and MANAGERS in groups):
            pattern = re.sub(r"{\w+}", "*", path)
            # A slash at the end leads to the same route.
            routes += [AuthRoute(pattern, [method]), AuthRoute(f"{pattern}/", [method])]
    return routes
