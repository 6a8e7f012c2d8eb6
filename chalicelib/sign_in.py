"""The Lambda authorizer verifies a token from the user pool, and returns the routes that the user may call.

API Gateway calls the authorizer for all routes that are not open, and caches the result for each token for a minute.
``chalice local`` calls the authorizer for every request. An invalid token or an error in the authorizer causes a 403
response. API Gateway itself returns a 401 response if a request has no token.
"""

from __future__ import annotations

import json
import re
import sys
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

# A route may be called by everyone, by staff and managers, or only by managers.
OPEN, STAFF, MANAGERS = "open", "staff", "managers"
ROUTES = {
    ("POST", "/create_report"): MANAGERS,
    ("GET", "/reports"): MANAGERS,
    ("GET", "/reports/{report_id}"): MANAGERS,
    ("GET", "/reports/{report_id}/history"): MANAGERS,
    ("POST", "/orders"): STAFF,
    ("GET", "/orders"): STAFF,
    ("GET", "/orders.csv"): STAFF,
    ("GET", "/orders/{order_id}"): STAFF,
    ("PATCH", "/orders/{order_id}"): STAFF,
    ("POST", "/uploads"): MANAGERS,
    ("GET", "/uploads"): MANAGERS,
    ("GET", "/uploads/{upload_id}"): MANAGERS,
    ("POST", "/uploads/{upload_id}/preview"): MANAGERS,
    ("POST", "/uploads/{upload_id}/apply"): MANAGERS,
    ("POST", "/uploads/{upload_id}/undo"): MANAGERS,
    ("GET", "/notifications"): STAFF,
    ("GET", "/today"): STAFF,
    ("GET", "/dead-letters"): MANAGERS,
    ("POST", "/dead-letters/redrive"): MANAGERS,
    ("POST", "/dead-letters/discard"): MANAGERS,
    ("GET", "/health"): OPEN,
    ("HEAD", "/health"): OPEN,
    ("GET", "/openapi.json"): OPEN,
    ("GET", "/"): OPEN,
    ("GET", "/console/{file}"): OPEN,
}

FETCH_SECONDS = 3
KEYS_BYTES = 100_000
# After a successful fetch of the public keys, the keys are not fetched again for this many seconds.
REFETCH_SECONDS = 10
# After a failed fetch of the public keys, the next fetch waits for this many seconds.
REFETCH_AFTER_FAILURE_SECONDS = 1


def fetch(url: str) -> bytes:
    """Returns the content at ``url``. The URL comes from the settings and not from a user."""
    with urlopen(url, timeout=FETCH_SECONDS) as answer:  # noqa: S310  # nosec B310
        content: bytes = answer.read(KEYS_BYTES)
        return content


class Keys:
    """Caches the public keys of a user pool. If a key id is unknown, the keys are fetched again.

    Instances are thread-safe. ``clock`` returns a time in seconds.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url, self._clock = url, clock
        self._keys: dict[str, PyJWK] = {}
        self._next_fetch = float("-inf")
        self._lock = threading.Lock()

    def get(self, key_id: str) -> PyJWK:
        """Returns a key. Raises ``TokenRefused`` for an unknown key id, and ``Unavailable`` if the fetch fails."""
        if key_id in self._keys:
            return self._keys[key_id]
        with self._lock:
            if key_id not in self._keys and self._clock() >= self._next_fetch:
                self._next_fetch = self._clock() + REFETCH_AFTER_FAILURE_SECONDS
                self._keys = self._fetch()
                self._next_fetch = self._clock() + REFETCH_SECONDS
            if not self._keys:
                raise Unavailable("the last attempt to fetch the user pool's keys failed")
            if key_id not in self._keys:
                raise TokenRefused("the user pool has no key with the token's key id")
            return self._keys[key_id]

    def _fetch(self) -> dict[str, PyJWK]:
        from jwt import PyJWKSet, PyJWTError

        try:
            return {str(key.key_id): key for key in PyJWKSet.from_dict(json.loads(fetch(self._url))).keys}
        except (OSError, HTTPException, PyJWTError, ValueError, AttributeError) as error:
            raise Unavailable(f"the user pool's keys cannot be fetched: {error}") from error


@cache
def keys_of(url: str) -> Keys:
    """Returns the cached ``Keys`` for ``url``."""
    return Keys(url)


def authorize(request: AuthRequest, *, endpoint: str, issuer: str, client_id: str) -> AuthResponse:
    """Returns the routes that the user may call, and the name and groups of the user for the view functions.

    ``endpoint`` is Cognito's URL. This function never raises an error. An error would cause a 500 response on AWS and a
    broken connection under ``chalice local``.
    """
    try:
        keys = keys_of(f"{endpoint}/{issuer.rpartition('/')[2]}/.well-known/jwks.json")
        name, groups = bearer(request.token, keys=keys, issuer=issuer, client_id=client_id)
        return AuthResponse(allowed(groups), principal_id=name, context={"groups": ",".join(groups)})
    except TokenRefused as error:
        log.info("token refused", extra={"reason": str(error)})
    except Unavailable as error:
        log.error("token refused", extra={"reason": str(error)})
    except Exception as error:  # noqa: BLE001 - no error may grant access
        # The error message is not logged, because it could contain part of the token.
        where = "".join(traceback.format_tb(error.__traceback__))
        log.error("token refused", extra={"reason": f"the authorizer raised {type(error).__name__}:\n{where}"})
    return AuthResponse(routes=[], principal_id="nobody")


def bearer(token: str, *, keys: Keys, issuer: str, client_id: str) -> tuple[str, list[str]]:
    """Returns the name and groups of the user from an id token of the user pool.

    The token's prefix ``Bearer`` is optional.

    Raises ``TokenRefused`` with a reason that contains no part of the token.
    """
    _postpone_certificates()
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
                # If Cognito's clock is ahead of this machine's clock, a new token seems to be from the future.
                "verify_iat": False,
            },
        )
    except jwt.PyJWTError as error:
        raise TokenRefused(type(error).__name__) from None
    use = claims["token_use"]
    if use != "id":
        raise TokenRefused("the token is not an id token")
    groups = claims.get("cognito:groups", [])
    return str(claims["cognito:username"]), [group for group in (STAFF, MANAGERS) if group in groups]


@cache
def _postpone_certificates() -> None:
    """Makes Python load ``cryptography.x509`` when it is first used, and not when PyJWT is imported.

    PyJWT uses this module only for certificates, and the keys of a user pool are not certificates. Loading the module
    takes a third of the time of importing PyJWT.
    """
    from importlib.util import LazyLoader, find_spec, module_from_spec

    import cryptography

    spec = find_spec("cryptography.x509")
    if spec and spec.loader and spec.name not in sys.modules:
        spec.loader = LazyLoader(spec.loader)
        # Without the attribute, ``from cryptography import x509`` would load the module at once.
        sys.modules[spec.name] = cryptography.x509 = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[spec.name])


def allowed(groups: list[str]) -> list[str | AuthRoute]:
    """Returns path patterns for the routes that members of ``groups`` may call, except the open routes."""
    routes: list[str | AuthRoute] = []
    for (method, path), group in ROUTES.items():
        if group in groups or (group == STAFF and MANAGERS in groups):
            pattern = re.sub(r"{\w+}", "*", path)
            # API Gateway also accepts a path with a trailing slash.
            routes += [AuthRoute(pattern, [method]), AuthRoute(f"{pattern}/", [method])]
    return routes
