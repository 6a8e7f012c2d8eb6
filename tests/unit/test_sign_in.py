"""Who is let in, and where: every kind of token that is not, on the API as Chalice's test client has it."""

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
from tests.unit.signing import CLIENT_ID, ISSUER, KEYS_URL, POOL_ID, REGION, Pool, private_key, published

UNAUTHORIZED = {"message": "Unauthorized"}
FORBIDDEN = {"Message": "User is not authorized to access this resource"}


def answer(api: Api) -> tuple[int, Any]:
    """Of a route that staff may call too."""
    response = api.get("/notifications")
    return response.status_code, response.json_body


def reasons(lines: io.StringIO) -> list[tuple[str, str]]:
    records = [json.loads(line) for line in lines.getvalue().splitlines()]
    return [(each["level"], each["reason"]) for each in records if each["message"] == "token refused"]


# --- Who may do what --------------------------------------------------------------------------------------------------

PEOPLE: dict[str, tuple[str, ...] | None] = {
    "nobody at all": None,
    "someone without a group": (),
    "staff": (STAFF,),
    "a manager": (MANAGERS,),
    "both": (STAFF, MANAGERS),
}
MAY = {
    OPEN: set(PEOPLE),
    STAFF: {"staff", "a manager", "both"},
    MANAGERS: {"a manager", "both"},
}


@pytest.mark.parametrize("person", PEOPLE)
@pytest.mark.parametrize(("method", "path"), ROUTES, ids=lambda value: value)
def test_each_group_gets_its_routes_and_no_other(api: Api, aws: Aws, method: str, path: str, person: str) -> None:
    groups = PEOPLE[person]
    sender = api.with_token(None) if groups is None else api.sent_by("ana", *groups)
    for place in {path, path.rstrip("/") + "/"}:
        address = place.replace("{order_id}", "reports").replace("{report_id}", "inventory-1")
        response = sender.client.http.request(method, address, headers=sender.headers)
        if person in MAY[ROUTES[method, path]]:
            assert response.status_code not in (401, 403)
        elif groups is None:
            assert (response.status_code, response.json_body) == (401, UNAUTHORIZED)
        else:
            assert (response.status_code, response.json_body) == (403, FORBIDDEN)


def test_the_routes_of_the_interface_are_each_for_whom_it_says() -> None:
    assert {route for route, group in ROUTES.items() if group == OPEN} == {
        ("GET", "/"),
        ("GET", "/console/{file}"),
        ("GET", "/health"),
        ("GET", "/openapi.json"),
    }
    assert {route for route, group in ROUTES.items() if group == STAFF} == {
        ("POST", "/orders"),
        ("GET", "/orders"),
        ("GET", "/orders/{order_id}"),
        ("GET", "/notifications"),
        ("GET", "/today"),
    }


def test_a_group_of_another_name_opens_nothing(api: Api, aws: Aws) -> None:
    assert answer(api.sent_by("ana", "Managers", "administrators", "staff,managers", "*")) == (403, FORBIDDEN)


def test_a_group_that_is_taken_away_is_gone_with_the_next_token(api: Api, aws: Aws) -> None:
    assert api.sent_by("ana", STAFF, MANAGERS).get("/reports").status_code == 200
    assert api.sent_by("ana", STAFF).get("/reports").status_code == 403
    assert api.sent_by("ana", STAFF).get("/orders").status_code == 200


# --- The token --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{}", "Bearer {}", "bearer {}", "BEARER   {}", " {} "])
def test_the_token_comes_bare_or_after_bearer(api: Api, aws: Aws, pool: Pool, form: str) -> None:
    assert answer(api.with_token(form.format(pool.token("ana", STAFF))))[0] == 200


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def unsigned(token: str, **header: Any) -> str:
    """The same claims under another header, and no signature."""
    return f"{part({'alg': 'none', 'typ': 'JWT', 'kid': 'first', **header})}.{token.split('.')[1]}."


def signed_with_the_public_key(pool: Pool) -> str:
    """As HS256 has it: whoever verifies with the public key as the secret takes it for good."""
    secret = private_key("first").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    content = unsigned(pool.token("eve", MANAGERS), alg="HS256").rstrip(".")
    signature = hmac.new(secret, content.encode(), hashlib.sha256).digest()
    return f"{content}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def with_a_key_of_its_own(pool: Pool) -> str:
    claims = jwt.decode(pool.token("eve", MANAGERS), options={"verify_signature": False})
    header = {"kid": "first", "jwk": published("eve's"), "jku": "https://example.org/keys"}
    return jwt.encode(claims, private_key("eve's"), "RS256", header)


def changed(pool: Pool) -> str:
    head, _, signature = pool.token("eve", STAFF).split(".")
    return f"{head}.{pool.token('eve', MANAGERS).split('.')[1]}.{signature}"


BAD: dict[str, tuple[Callable[[Pool], str], str]] = {
    "garbage": (lambda _: "garbage", "DecodeError"),
    "three parts of garbage": (lambda _: "a.b.c", "DecodeError"),
    "no ASCII": (lambda _: "Bearer ☕", "DecodeError"),
    "a scheme alone": (lambda _: "Bearer ", "DecodeError"),
    "another scheme": (lambda pool: f"Basic {pool.token('eve', MANAGERS)}", "DecodeError"),
    "brackets nested deeply": (lambda _: f"{base64.urlsafe_b64encode(b'[' * 9000).decode()}.e30.e30", "DecodeError"),
    "expired": (lambda pool: pool.token("eve", MANAGERS, exp=int(time.time()) - 1), "ExpiredSignatureError"),
    "without an end": (lambda pool: pool.token("eve", MANAGERS, exp=None), "MissingRequiredClaimError"),
    "not yet valid": (lambda pool: pool.token("eve", MANAGERS, nbf=int(time.time()) + 60), "ImmatureSignatureError"),
    "another issuer": (lambda pool: pool.token("eve", MANAGERS, iss=f"{ISSUER}2"), "InvalidIssuerError"),
    "no issuer": (lambda pool: pool.token("eve", MANAGERS, iss=None), "MissingRequiredClaimError"),
    "another client": (lambda pool: pool.token("eve", MANAGERS, aud="another"), "InvalidAudienceError"),
    "several clients": (lambda pool: pool.token("eve", MANAGERS, aud=[CLIENT_ID, "another"]), "InvalidAudienceError"),
    "an access token": (
        lambda pool: pool.token("eve", MANAGERS, token_use="access", aud=None, client_id=CLIENT_ID, key_id="access"),
        "MissingRequiredClaimError",
    ),
    "an access token for this client": (
        lambda pool: pool.token("eve", MANAGERS, token_use="access"),
        "it is no id token",
    ),
    "no name": (lambda pool: pool.token("eve", MANAGERS, **{"cognito:username": None}), "MissingRequiredClaimError"),
    "alg none": (lambda pool: unsigned(pool.token("eve", MANAGERS)), "InvalidAlgorithmError"),
    "alg NONE": (lambda pool: unsigned(pool.token("eve", MANAGERS), alg="NONE"), "InvalidAlgorithmError"),
    "no signature": (lambda pool: unsigned(pool.token("eve", MANAGERS), alg="RS256"), "InvalidSignatureError"),
    "HS256 with the public key": (signed_with_the_public_key, "InvalidAlgorithmError"),
    "RS512": (
        lambda pool: jwt.encode({"exp": 2**40}, private_key("first"), "RS512", {"kid": "first"}),
        "InvalidAlgorithmError",
    ),
    "a key of its own": (with_a_key_of_its_own, "InvalidSignatureError"),
    "other claims": (changed, "InvalidSignatureError"),
    "an unknown key": (
        lambda pool: pool.token("eve", MANAGERS, key_id="unknown"),
        "its key is none of the user pool's",
    ),
    "no key": (lambda pool: unsigned(pool.token("eve", MANAGERS), kid=""), "its key is none of the user pool's"),
    "a key that is no text": (lambda pool: unsigned(pool.token("eve", MANAGERS), kid=1), "InvalidTokenError"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_token_is_a_403_and_never_in_a_log(
    api: Api, aws: Aws, pool: Pool, log_lines: io.StringIO, kind: str
) -> None:
    make, reason = BAD[kind]
    token = make(pool)
    assert answer(api.with_token(token)) == (403, FORBIDDEN)
    [(_, logged)] = reasons(log_lines)
    assert reason in logged
    assert not [piece for piece in token.split(".") if len(piece) > 8 and piece in log_lines.getvalue()]


def test_a_good_token_is_in_no_log_either(api: Api, aws: Aws, log_lines: io.StringIO) -> None:
    assert answer(api)[0] == 200
    assert api.post("/orders", {"customerID": "c", "item": "x"}).status_code == 202
    assert not [piece for piece in api.headers["authorization"].split(".") if piece in log_lines.getvalue()]


def test_a_token_of_a_clock_that_is_ahead_is_taken(api: Api, aws: Aws, pool: Pool) -> None:
    assert answer(api.with_token(pool.token("ana", STAFF, iat=int(time.time()) + 5)))[0] == 200


# --- The keys ---------------------------------------------------------------------------------------------------------


def test_the_keys_are_asked_for_once_and_not_at_each_call(api: Api, aws: Aws, pool: Pool) -> None:
    for name in ("ana", "ben", "eve"):
        assert answer(api.sent_by(name, STAFF))[0] == 200
    assert pool.asked == [KEYS_URL]


def test_the_keys_are_asked_for_where_all_of_aws_is(
    api: Api, aws: Aws, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    authorizer = api.client.lambda_.invoke(
        "authorize",
        {
            "type": "TOKEN",
            "authorizationToken": pool.token("ana", STAFF),
            "methodArn": "arn:aws:execute-api:eu-central-1:123456789012:abc/api/GET/orders",
        },
    ).payload
    assert pool.asked == [f"http://127.0.0.1:4566/{POOL_ID}/.well-known/jwks.json"]
    assert authorizer["principalId"] == "ana"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(pool: Pool, clock: Clock) -> Keys:
    return Keys(KEYS_URL, clock)


def test_a_key_that_was_rotated_meanwhile_is_found(keys: Keys, pool: Pool, clock: Clock) -> None:
    assert keys.get("first")
    pool.key_ids = ["second"]
    clock.now += 3600
    assert keys.get("second").key_id == "second"
    # And the old one is none any more.
    with pytest.raises(TokenRefused):
        keys.get("first")


def test_a_flood_of_unknown_keys_is_no_flood_of_questions(keys: Keys, pool: Pool, clock: Clock) -> None:
    for number in range(100):
        with pytest.raises(TokenRefused):
            keys.get(f"unknown-{number}")
    assert len(pool.asked) == 1
    assert keys.get("first")
    clock.now += sign_in.AGAIN_SECONDS
    for number in range(100):
        with pytest.raises(TokenRefused):
            keys.get(f"unknown-{number}")
    assert len(pool.asked) == 2


def test_many_first_calls_at_once_ask_once(keys: Keys, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    second = threading.Barrier(2)

    def fetch(url: str) -> bytes:
        # Waits for another one that asks meanwhile, which does not come.
        with suppress(threading.BrokenBarrierError):
            second.wait(0.2)
        return pool.fetch(url)

    monkeypatch.setattr(sign_in, "fetch", fetch)
    with ThreadPoolExecutor(8) as executor:
        found = list(executor.map(keys.get, ["first"] * 8))
    assert {key.key_id for key in found} == {"first"}
    assert len(pool.asked) == 1


FAILURES = [URLError("refused"), TimeoutError(), IncompleteRead(b""), ConnectionResetError()]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_where_the_keys_cannot_be_had_nobody_is_let_in(
    api: Api, aws: Aws, pool: Pool, log_lines: io.StringIO, failure: Exception
) -> None:
    pool.failure = failure
    assert answer(api) == (403, FORBIDDEN)
    assert answer(api) == (403, FORBIDDEN)
    assert len(pool.asked) == 1
    assert [level for level, _ in reasons(log_lines)] == ["ERROR", "ERROR"]
    assert "the user pool does not give its keys" in reasons(log_lines)[0][1]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"keys": []}', b'{"keys": [{"kty": "RSA"}]}'])
def test_what_is_no_set_of_keys_lets_nobody_in(keys: Keys, monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    monkeypatch.setattr(sign_in, "fetch", lambda _: body)
    with pytest.raises(Unavailable):
        keys.get("first")


def test_an_outage_is_over_a_second_after_it_is_over(keys: Keys, pool: Pool, clock: Clock) -> None:
    pool.failure = TimeoutError()
    for _ in range(10):
        with pytest.raises(Unavailable):
            keys.get("first")
    assert len(pool.asked) == 1
    pool.failure = None
    clock.now += sign_in.AGAIN_AFTER_FAILURE_SECONDS
    assert keys.get("first")


def test_an_outage_leaves_the_keys_that_are_known(keys: Keys, pool: Pool, clock: Clock) -> None:
    keys.get("first")
    pool.failure = TimeoutError()
    clock.now += 3600
    with pytest.raises(Unavailable):
        keys.get("second")
    assert keys.get("first")


# --- A fault inside ---------------------------------------------------------------------------------------------------


def test_a_fault_of_the_authorizer_lets_nobody_in_and_tells_nothing_of_the_token(
    api: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch, log_lines: io.StringIO
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


# --- What the authorizer says -----------------------------------------------------------------------------------------

ARN = f"arn:aws:execute-api:{REGION}:123456789012:a1b2c3/api"


def said(pool: Pool, *groups: str) -> dict[str, Any]:
    request = AuthRequest("TOKEN", pool.token("ana", *groups), f"{ARN}/GET/orders/o-1")
    endpoint = ISSUER.rpartition("/")[0]
    answer = sign_in.authorize(request, endpoint=endpoint, issuer=ISSUER, client_id=CLIENT_ID)
    result: dict[str, Any] = answer.to_dict(request)
    return result


def test_api_gateway_is_told_of_every_route_because_it_keeps_the_answer_for_the_token(pool: Pool) -> None:
    [statement] = said(pool, STAFF)["policyDocument"]["Statement"]
    assert (statement["Effect"], statement["Action"]) == ("Allow", "execute-api:Invoke")
    assert set(statement["Resource"]) == {
        *(f"{ARN}/POST/orders", f"{ARN}/POST/orders/"),
        *(f"{ARN}/GET/orders", f"{ARN}/GET/orders/", f"{ARN}/GET/orders/*", f"{ARN}/GET/orders/*/"),
        *(f"{ARN}/GET/notifications", f"{ARN}/GET/notifications/"),
        *(f"{ARN}/GET/today", f"{ARN}/GET/today/"),
    }


def test_without_a_group_there_is_no_route(pool: Pool) -> None:
    [statement] = said(pool)["policyDocument"]["Statement"]
    assert statement["Resource"] == []


def test_the_views_are_told_name_and_groups(pool: Pool) -> None:
    result = said(pool, MANAGERS, "others", STAFF)
    assert (result["principalId"], result["context"]) == ("ana", {"groups": "staff,managers"})


def test_a_view_knows_its_caller(api: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    callers = []
    page = rest.page

    def noting(request: Any, *filters: str) -> Any:
        callers.append(rest.caller(request))
        return page(request, *filters)

    monkeypatch.setattr(rest, "page", noting)
    answer(api)
    answer(api.sent_by("ana", STAFF))
    answer(api.sent_by("ben", STAFF, MANAGERS))
    assert callers == [Caller("mia", (MANAGERS,)), Caller("ana", (STAFF,)), Caller("ben", (STAFF, MANAGERS))]
    assert [each.is_manager for each in callers] == [True, False, True]
