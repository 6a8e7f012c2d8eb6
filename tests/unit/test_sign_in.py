"""Tests which routes each group may call, which tokens are refused, and how the keys of the user pool are read."""

import base64
import hashlib
import hmac
import io
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import IncompleteRead
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import jwt
import pytest
from chalice.app import AuthRequest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chalicelib import rest, sign_in
from chalicelib.errors import TokenRefused, Unavailable
from chalicelib.rest import Caller
from chalicelib.sign_in import MANAGERS, OPEN, ROUTES, STAFF, Keys
from tests.unit.api import Api
from tests.unit.cloud import Aws
from tests.unit.logged import records
from tests.unit.signing import CLIENT_ID, ISSUER, KEYS_URL, POOL_ID, REGION, Pool, private_key, published

UNAUTHORIZED = {"message": "Unauthorized"}
FORBIDDEN = {"Message": "User is not authorized to access this resource"}


def answer(api: Api) -> tuple[int, Any]:
    """Calls a route that staff may use, and returns the response."""
    response = api.get("/notifications")
    return response.status_code, response.json_body


def reasons(lines: io.StringIO) -> list[tuple[str, str]]:
    return [(each["level"], each["reason"]) for each in records(lines, "token refused")]


EVERYBODY = {OPEN, STAFF, MANAGERS}
PEOPLE: dict[str, tuple[tuple[str, ...] | None, set[str]]] = {
    "without a token": (None, {OPEN}),
    "without a group": ((), {OPEN}),
    "staff": ((STAFF,), {OPEN, STAFF}),
    "a manager": ((MANAGERS,), EVERYBODY),
    "both": ((STAFF, MANAGERS), EVERYBODY),
    "groups with other names": (("Managers", "administrators", "staff,managers", "*"), {OPEN}),
}


@pytest.mark.parametrize("person", PEOPLE)
def test_each_group_may_call_its_routes_and_no_other(api: Api, aws: Aws, person: str) -> None:
    groups, allowed = PEOPLE[person]
    sender = api.with_token(None) if groups is None else api.sent_by("ana", *groups)
    refusal = (401, UNAUTHORIZED) if groups is None else (403, FORBIDDEN)
    for method, path in ROUTES:
        address = path.replace("{order_id}", "reports").replace("{report_id}", "inventory-1")
        for place in {address, address.rstrip("/") + "/"}:
            response = sender.client.http.request(method, place, headers=sender.headers)
            if ROUTES[method, path] in allowed:
                assert response.status_code not in (401, 403), (method, place)
            else:
                assert (response.status_code, response.json_body) == refusal, (method, place)


def test_the_routes_have_the_groups_of_the_interface() -> None:
    found = {group: {" ".join(route) for route in ROUTES if ROUTES[route] == group} for group in (OPEN, STAFF)}
    assert found == {
        OPEN: {"GET /", "GET /console/{file}", "GET /health", "HEAD /health", "GET /openapi.json"},
        STAFF: {
            *("POST /orders", "GET /orders", "GET /orders.csv", "GET /orders/{order_id}", "PATCH /orders/{order_id}"),
            *("GET /notifications", "GET /today"),
        },
    }


def test_a_token_comes_bare_or_after_bearer_and_its_clock_may_be_ahead(
    api: Api, aws: Aws, pool: Pool, log_lines: io.StringIO
) -> None:
    ahead = pool.token("ana", STAFF, iat=int(time.time()) + 5)
    for form in ("{}", "Bearer {}", "bearer {}", "BEARER   {}", " {} "):
        assert answer(api.with_token(form.format(ahead)))[0] == 200
    # The requests fetch the user pool's keys only once.
    assert pool.asked == [KEYS_URL]
    assert not [piece for piece in ahead.split(".") if piece in log_lines.getvalue()]


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def unsigned(token: str, **header: Any) -> str:
    """Returns a token with the same claims, a different header and no signature."""
    head = json.dumps({"alg": "none", "typ": "JWT", "kid": "first", **header})
    return f"{encoded(head.encode())}.{token.split('.')[1]}."


def signed_with_the_public_key(pool: Pool) -> str:
    """Returns an HS256 token that passes only if a verifier wrongly uses the public key as the secret."""
    secret = private_key("first").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    content = unsigned(pool.token("eve", MANAGERS), alg="HS256").rstrip(".")
    return f"{content}.{encoded(hmac.new(secret, content.encode(), hashlib.sha256).digest())}"


def with_a_key_of_its_own(pool: Pool) -> str:
    claims = jwt.decode(pool.token("eve", MANAGERS), options={"verify_signature": False})
    header = {"kid": "first", "jwk": published("eve's"), "jku": "https://example.org/keys"}
    return jwt.encode(claims, private_key("eve's"), "RS256", header)


def changed(pool: Pool) -> str:
    head, _, signature = pool.token("eve", STAFF).split(".")
    return f"{head}.{pool.token('eve', MANAGERS).split('.')[1]}.{signature}"


def claims(**given: Any) -> Callable[[Pool], str]:
    return lambda pool: pool.token("eve", MANAGERS, **given)


def header(**given: Any) -> Callable[[Pool], str]:
    return lambda pool: unsigned(pool.token("eve", MANAGERS), **given)


NESTED = encoded(b"[" * 9000)
NO_KEY = "the user pool has no key with the token's key id"
ACCESS = {"token_use": "access", "aud": None, "client_id": CLIENT_ID, "key_id": "access"}
BAD: dict[str, tuple[Callable[[Pool], str], str]] = {
    **{text: (lambda _, text=text: text, "DecodeError") for text in ("garbage", "a.b.c", "Bearer ☕", "Bearer ")},
    "another scheme": (lambda pool: f"Basic {pool.token('eve', MANAGERS)}", "DecodeError"),
    "brackets nested deeply": (lambda _: f"{NESTED}.e30.e30", "DecodeError"),
    "expired": (claims(exp=int(time.time()) - 1), "ExpiredSignatureError"),
    "without an end": (claims(exp=None), "MissingRequiredClaimError"),
    "not yet valid": (lambda pool: claims(nbf=int(time.time()) + 600)(pool), "ImmatureSignatureError"),
    "another issuer": (claims(iss=f"{ISSUER}2"), "InvalidIssuerError"),
    "no issuer": (claims(iss=None), "MissingRequiredClaimError"),
    "another client": (claims(aud="another"), "InvalidAudienceError"),
    "several clients": (claims(aud=[CLIENT_ID, "another"]), "InvalidAudienceError"),
    "an access token": (claims(**ACCESS), "MissingRequiredClaimError"),
    "an access token for this client": (claims(token_use="access"), "the token is not an id token"),
    "no name": (claims(**{"cognito:username": None}), "MissingRequiredClaimError"),
    "alg none": (header(), "InvalidAlgorithmError"),
    "no signature": (header(alg="RS256"), "InvalidSignatureError"),
    "HS256 with the public key": (signed_with_the_public_key, "InvalidAlgorithmError"),
    "a key of its own": (with_a_key_of_its_own, "InvalidSignatureError"),
    "other claims": (changed, "InvalidSignatureError"),
    "an unknown key": (claims(key_id="unknown"), NO_KEY),
    "no key": (header(kid=""), NO_KEY),
    "a key that is not a text": (header(kid=1), "InvalidTokenError"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_token_is_a_403_and_never_in_a_log(api: Api, pool: Pool, log_lines: io.StringIO, kind: str) -> None:
    make, reason = BAD[kind]
    token = make(pool)
    assert answer(api.with_token(token)) == (403, FORBIDDEN)
    [(_, logged)] = reasons(log_lines)
    assert reason in logged
    assert not [piece for piece in token.split(".") if len(piece) > 8 and piece in log_lines.getvalue()]


def test_the_local_cloud_has_keys_of_its_own(api: Api, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    event = {"type": "TOKEN", "authorizationToken": pool.token("ana", STAFF), "methodArn": f"{ARN}/GET/orders"}
    assert api.invoke("authorize", event)["principalId"] == "ana"
    assert pool.asked == [f"http://127.0.0.1:4566/{POOL_ID}/.well-known/jwks.json"]


@pytest.fixture
def clock() -> SimpleNamespace:
    return SimpleNamespace(now=0.0)


@pytest.fixture
def keys(pool: Pool, clock: SimpleNamespace) -> Keys:
    return Keys(KEYS_URL, lambda: clock.now)


def test_a_newly_rotated_key_is_found(keys: Keys, pool: Pool, clock: SimpleNamespace) -> None:
    assert keys.get("first")
    pool.key_ids = ["second"]
    clock.now += 3600
    assert keys.get("second").key_id == "second"
    # The key from before the rotation is no longer accepted.
    with pytest.raises(TokenRefused):
        keys.get("first")


def test_many_unknown_keys_do_not_cause_many_requests(keys: Keys, pool: Pool, clock: SimpleNamespace) -> None:
    for requests in (1, 2):
        for number in range(100):
            with pytest.raises(TokenRefused):
                keys.get(f"unknown-{number}")
            clock.now += sign_in.REFETCH_SECONDS / 101
        assert len(pool.asked) == requests
        assert keys.get("first")
        clock.now += sign_in.REFETCH_SECONDS


def test_many_concurrent_first_calls_cause_one_request(keys: Keys, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    second = threading.Barrier(2)

    def fetch(url: str) -> bytes:
        # The fetch waits briefly to show whether a second fetch runs concurrently.
        with suppress(threading.BrokenBarrierError):
            second.wait(0.1)
        return pool.fetch(url)

    monkeypatch.setattr(sign_in, "fetch", fetch)
    with ThreadPoolExecutor(8) as executor:
        assert {key.key_id for key in executor.map(keys.get, ["first"] * 8)} == {"first"}
    assert len(pool.asked) == 1


@pytest.mark.parametrize("failure", [URLError("x"), IncompleteRead(b"")])
def test_without_keys_nobody_is_let_in(api: Api, pool: Pool, log_lines: io.StringIO, failure: Exception) -> None:
    pool.failure = failure
    for _ in range(2):
        assert answer(api) == (403, FORBIDDEN)
    assert len(pool.asked) == 1
    assert [level for level, _ in reasons(log_lines)] == ["ERROR", "ERROR"]
    assert "the user pool's keys cannot be fetched" in reasons(log_lines)[0][1]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"keys": []}', b'{"keys": [{"kty": "RSA"}]}'])
def test_a_response_without_keys_lets_nobody_in(keys: Keys, monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    monkeypatch.setattr(sign_in, "fetch", lambda _: body)
    with pytest.raises(Unavailable):
        keys.get("first")


def test_an_outage_ends_a_second_after_the_user_pool_is_back(keys: Keys, pool: Pool, clock: SimpleNamespace) -> None:
    pool.failure = TimeoutError()
    for _ in range(10):
        with pytest.raises(Unavailable):
            keys.get("first")
    assert len(pool.asked) == 1
    pool.failure = None
    clock.now += sign_in.REFETCH_AFTER_FAILURE_SECONDS
    assert keys.get("first")
    # The cached keys stay valid during a later outage of the user pool.
    pool.failure = TimeoutError()
    clock.now += 3600
    with pytest.raises(Unavailable):
        keys.get("second")
    assert keys.get("first")


def test_an_error_in_the_authorizer_lets_nobody_in(
    api: Api, monkeypatch: pytest.MonkeyPatch, log_lines: io.StringIO
) -> None:
    def fail(token: str, **_: Any) -> None:
        raise KeyError(token)

    monkeypatch.setattr(sign_in, "bearer", fail)
    assert answer(api) == (403, FORBIDDEN)
    [(level, reason)] = reasons(log_lines)
    assert level == "ERROR"
    assert "KeyError" in reason
    assert "in fail" in reason
    assert api.headers["authorization"] not in log_lines.getvalue()


ARN = f"arn:aws:execute-api:{REGION}:123456789012:a1b2c3/api"


def authorized(pool: Pool, *groups: str) -> dict[str, Any]:
    request = AuthRequest("TOKEN", pool.token("ana", *groups), f"{ARN}/GET/orders/o-1")
    endpoint = ISSUER.rpartition("/")[0]
    answer = sign_in.authorize(request, endpoint=endpoint, issuer=ISSUER, client_id=CLIENT_ID)
    result: dict[str, Any] = answer.to_dict(request)
    return result


def test_the_response_names_every_route_because_api_gateway_caches_it_per_token(pool: Pool) -> None:
    [statement] = authorized(pool, STAFF)["policyDocument"]["Statement"]
    assert (statement["Effect"], statement["Action"]) == ("Allow", "execute-api:Invoke")
    orders = ("POST/orders", "GET/orders", "GET/orders.csv", "GET/orders/*", "PATCH/orders/*")
    routes = (*orders, "GET/notifications", "GET/today")
    assert set(statement["Resource"]) == {f"{ARN}/{route}{end}" for route in routes for end in ("", "/")}
    [statement] = authorized(pool)["policyDocument"]["Statement"]
    assert statement["Resource"] == []


def test_the_views_know_their_caller(api: Api, aws: Aws, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    result = authorized(pool, MANAGERS, "others", STAFF)
    assert (result["principalId"], result["context"]) == ("ana", {"groups": "staff,managers"})
    callers = []
    page = rest.page

    def noting(request: Any, *filters: str) -> Any:
        callers.append(rest.caller(request))
        return page(request, *filters)

    monkeypatch.setattr(rest, "page", noting)
    for sender in (api, api.sent_by("ana", STAFF), api.sent_by("ben", STAFF, MANAGERS)):
        answer(sender)
    assert callers == [Caller("mia", (MANAGERS,)), Caller("ana", (STAFF,)), Caller("ben", (STAFF, MANAGERS))]
    assert [each.is_manager for each in callers] == [True, False, True]
