"""What the routes have in common, on requests as API Gateway sends them."""

import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from chalice.app import Request
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import rest
from chalicelib.errors import BodyTooLarge, InvalidRequest
from chalicelib.rest import Page


def request(
    body: str | bytes | None = None,
    query: dict[str, list[str]] | None = None,
    headers: dict[str, str] | None = None,
    path: str = "/api/orders",
    *,
    is_base64: bool = False,
) -> Request:
    event = {
        "requestContext": {"httpMethod": "POST", "resourcePath": "/orders", "path": path},
        "headers": headers or {},
        "multiValueQueryStringParameters": query,
        "pathParameters": None,
        "stageVariables": None,
        "body": body,
        "isBase64Encoded": is_base64,
    }
    return Request(event, None)


def problems(call: Any, *arguments: Any) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        call(*arguments)
    return caught.value.problems


# --- A body -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [None, "", b"", " \r\n\t "])
def test_no_body_is_what_the_route_takes_for_it(body: str | bytes | None) -> None:
    assert rest.body(request(body)) is None
    assert rest.body(request(body), nothing={}) == {}


def test_a_body_comes_as_text_as_bytes_or_as_base64() -> None:
    text = '{"note": "☕"}'
    encoded = base64.b64encode(text.encode()).decode()
    for each in (request(text), request(text.encode()), request(encoded, is_base64=True)):
        assert rest.body(each) == {"note": "☕"}


def test_1_mb_is_counted_in_bytes() -> None:
    with pytest.raises(BodyTooLarge) as caught:
        rest.body(request("é" * 500_001))
    assert str(caught.value) == (
        "the body has 1,000,002 bytes, and at most 1,000,000 are taken: send it in smaller parts"
    )
    assert rest.body(request(json.dumps("x" * 999_998))) == "x" * 999_998


@given(st.binary() | st.text())
def test_any_body_is_json_or_refused(body: str | bytes) -> None:
    with suppress(InvalidRequest):
        json.dumps(rest.body(request(body)), allow_nan=False)


@pytest.mark.parametrize("depth", [101, 1_000, 5_000, 100_000])
def test_nested_brackets_are_never_a_failure_of_the_server(depth: int) -> None:
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        assert problems(rest.body, request(opening * depth + "1" + closing * depth)) == [
            "body: its brackets are nested too deeply"
        ]


def test_100_brackets_within_each_other_are_read_on_every_python() -> None:
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        text = opening * 100 + "1" + closing * 100
        assert rest.body(request(text)) == json.loads(text)


# --- A list's parameters ----------------------------------------------------------------------------------------------


def test_a_list_without_parameters_has_50_a_page() -> None:
    assert rest.page(request()) == Page(50, None, {})


def test_a_list_takes_its_own_filters_only() -> None:
    asked = request(query={"limit": ["7"], "next": ["t"], "kind": ["storage"]})
    assert rest.page(asked, "kind") == Page(7, "t", {"kind": "storage"})
    assert problems(rest.page, asked) == ["kind: is not a parameter of this route, which takes limit, next"]


def test_all_wrong_parameters_are_named_at_once() -> None:
    asked = request(query={"limit": ["0"], "next": ["a", "b"], "page": ["2"], "sort": [""]})
    assert problems(rest.page, asked, "kind") == [
        "page: is not a parameter of this route, which takes limit, next, kind",
        "sort: is not a parameter of this route, which takes limit, next, kind",
        "next: is there 2 times",
        "limit: must be a whole number from 1 to 100",
    ]


def test_parameters_of_any_number_and_length_make_a_short_message() -> None:
    asked = request(query={f"{number:02}" + "x" * 5_000: ["", ""] for number in range(50)})
    found = problems(rest.page, asked)
    assert found[0] == f"00{'x' * 38}: is not a parameter of this route, which takes limit, next"
    assert found[-1] == "and 80 more"
    assert len(found) == 21


@given(st.text())
def test_any_limit_is_1_to_100_or_refused(limit: str) -> None:
    with suppress(InvalidRequest):
        assert 1 <= rest.page(request(query={"limit": [limit]})).limit <= 100


# --- The API's own address --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "path", "expected"),
    [
        ({"host": "127.0.0.1:8000"}, "/orders", "http://127.0.0.1:8000"),
        ({"Host": "x.example", "X-Forwarded-Proto": "https"}, "/api/orders", "https://x.example/api"),
        ({"Host": "cafe.example", "X-Forwarded-Proto": "https"}, "/office/orders", "https://cafe.example/office"),
        ({"Host": "cafe.example", "X-Forwarded-Proto": "https"}, "/orders", "https://cafe.example"),
        ({}, "/orders", "http://localhost"),
    ],
    ids=["chalice local", "a stage", "a base path", "a domain", "no host"],
)
def test_the_apis_address_is_what_the_client_called(headers: dict[str, str], path: str, expected: str) -> None:
    assert rest.base_url(request(headers=headers, path=path)) == expected
