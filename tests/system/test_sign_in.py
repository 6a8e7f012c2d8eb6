"""Tests sign-in through `chalice local` and through MiniStack's API Gateway."""

from __future__ import annotations

from typing import Any, NamedTuple

import jwt
import pytest

from chalicelib.sign_in import MANAGERS, OPEN, ROUTES, STAFF
from tests.system import people
from tests.system.system import Answer, System, new_id, stored

FRONTS = ("CAFE_API_URL", "REST_API_URL")
UNAUTHORIZED = (401, {"message": "Unauthorized"})
FORBIDDEN = (403, {"Message": "User is not authorized to access this resource"})


class Person(NamedTuple):
    name: str
    id_token: str
    access_token: str


def new_person(system: System, *groups: str) -> Person:
    """Adds a person to the stack's user pool, and signs in as that person."""
    name, cognito = new_id("ana"), system.aws("cognito-idp")
    password = people.add(cognito, system.env["USER_POOL_ID"], name, *groups)
    tokens = people.sign_in(cognito, system.env["USER_POOL_CLIENT_ID"], name, password)["AuthenticationResult"]
    claims = jwt.decode(tokens["IdToken"], options={"verify_signature": False})
    # The local stack sets IdTokenMinutes to an hour.
    assert tokens["ExpiresIn"] == claims["exp"] - claims["iat"] == 3600
    return Person(name, tokens["IdToken"], tokens["AccessToken"])


@pytest.fixture(params=FRONTS)
def front(request: pytest.FixtureRequest, system: System) -> str:
    """Returns the address of `chalice local` or of API Gateway."""
    return system.env[request.param]


def ask(system: System, url: str, token: str | None = None, method: str = "GET", body: Any = None) -> Answer:
    headers = {"Authorization": token} if token is not None else {}
    return system.sent_by(None).request(method, url, body, **headers)


def content(answer: Answer) -> tuple[int, Any]:
    return answer.status, answer.json


def test_each_group_may_use_only_its_routes(system: System, front: str) -> None:
    tokens = {group: new_person(system, group).id_token for group in (STAFF, MANAGERS)}
    nobody = new_person(system).id_token
    for (method, path), group in ROUTES.items():
        # The ids do not exist and the body is not an order, so the requests have no effect.
        url = front + path.replace("{order_id}", "none").replace("{report_id}", "none")
        body = {"ids": ["none"], "kind": "none"} if method == "POST" else None
        allowed = {OPEN: {None, nobody, *tokens.values()}, STAFF: set(tokens.values()), MANAGERS: {tokens[MANAGERS]}}
        for token in (None, nobody, *tokens.values()):
            answer = ask(system, url, token, method, body)
            if token in allowed[group]:
                assert (answer.headers.get("Cache-Control") == "no-store") == (group != OPEN), (method, path)
                assert answer.status in (200, 400, 404), (method, path, answer.text)
            else:
                assert content(answer) == (FORBIDDEN if token else UNAUTHORIZED), (method, path)


def test_a_string_that_is_not_an_id_token_of_this_pool_is_refused(system: System, front: str) -> None:
    person = new_person(system, MANAGERS)
    head, claims, signature = person.id_token.split(".")
    for token in (
        "garbage",
        person.access_token,
        f"{head}.{claims}.{signature[:-8]}AAAAAAAA",
        f"{head}.{claims}.",
        f"Basic {person.id_token}",
    ):
        assert content(ask(system, f"{front}/orders", token)) == FORBIDDEN
    for prefix in ("", "Bearer ", "bearer "):
        assert ask(system, f"{front}/orders?limit=1", prefix + person.id_token).status == 200


def test_a_response_that_api_gateway_caches_opens_no_other_route(system: System, front: str) -> None:
    """API Gateway caches the authorizer's response for a token, and checks each route against the cached response."""
    token = new_person(system, STAFF).id_token
    found = [ask(system, front + path, token).status for path in ("/orders", "/reports") * 3]
    assert found == [200, 403] * 3


def test_orders_and_reports_record_the_callers_name(system: System, front: str) -> None:
    person = new_person(system, STAFF, MANAGERS)
    order = {"customerID": "c", "item": "x"}
    order_id = ask(system, f"{front}/orders", person.id_token, "POST", order).json["orderID"]
    assert stored(system, order_id)["requestedBy"] == person.name
    answer = ask(system, f"{front}/create_report", person.id_token, "POST", {"kind": "storage"})
    assert system.ended(answer.json["reportId"])["requestedBy"] == person.name
