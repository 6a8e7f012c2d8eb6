"""Tests how request bodies, parameters and addresses are read from API Gateway events."""

import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import rest
from chalicelib.errors import BodyTooLarge, InvalidRequest
from chalicelib.rest import Page
from tests.unit.api import request


def with_query(**query: list[str]) -> Any:
    return request(multiValueQueryStringParameters=query)


def body(content: str | bytes | None, **options: Any) -> Any:
    return rest.body(request(body=content), **options)


def problems(call: Any, *arguments: Any) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        call(*arguments)
    return [str(each) for each in caught.value.problems]


def test_a_body_comes_as_text_as_bytes_or_as_base64_and_can_be_empty() -> None:
    text = '{"note": "☕"}'
    encoded = base64.b64encode(text.encode()).decode()
    assert body(text) == body(text.encode()) == {"note": "☕"}
    assert rest.body(request(body=encoded, isBase64Encoded=True)) == {"note": "☕"}
    # The body may contain a lone surrogate, because a later error can name the field.
    assert body(b'"ab\\ud800"') == body(b'"ab\xed\xa0\x80"') == "ab\ud800"
    for nothing in (None, "", b"", " \r\n\t "):
        assert (body(nothing), body(nothing, nothing={})) == (None, {})


def test_1_mb_is_counted_in_bytes() -> None:
    with pytest.raises(BodyTooLarge) as caught:
        body("é" * 500_001)
    assert str(caught.value) == "the body has 1,000,002 bytes (maximum 1,000,000): send several smaller requests"
    assert body(json.dumps("x" * 999_998)) == "x" * 999_998


TOO_DEEP = "body: is nested too deeply"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "body: is not JSON: Expecting property name enclosed in double quotes at line 1, column 2"),
        (b'{"a": 1,\n"b"}', "at line 2, column 4"),
        (b"{'a': 1}", "body: is not JSON"),
        (b'{"a": 1} {}', "body: is not JSON: Extra data at line 1, column 10"),
        (b'{"quantity": NaN}', "body: is not JSON: NaN is not a JSON number"),
        (b'{"quantity": -Infinity}', "body: is not JSON: -Infinity is not a JSON number"),
        (b'{"quantity": %s}' % (b"9" * 5000), "body: contains a number with too many digits"),
        (b'{"note": "a\nb"}', "body: is not JSON: Invalid control character"),
        (b'{"note": "\xff"}', "body: is not UTF-8 (byte 10)"),
        (b"\x00", "body: is not"),
        # The body is invalid and too deep, and the Python version decides which problem the error names.
        (b"[" * 5000, "body: i"),
        *((b"[" * depth + b"1" + b"]" * depth, TOO_DEEP) for depth in (101, 1_000, 5_000, 100_000)),
        *((b'{"a":' * depth + b"1" + b"}" * depth, TOO_DEEP) for depth in (101, 1_000, 5_000, 100_000)),
        (b"customerID=c&item=x", "body: is not JSON"),
    ],
    ids=lambda value: value[:24] if isinstance(value, bytes) else "",
)
def test_a_body_that_is_not_json_is_refused_saying_where(content: bytes, problem: str) -> None:
    [found] = problems(body, content)
    assert problem in found


@given(st.binary() | st.text())
def test_any_body_is_json_or_refused(content: str | bytes) -> None:
    with suppress(InvalidRequest):
        json.dumps(body(content), allow_nan=False)


def test_100_nested_brackets_are_read_on_every_python() -> None:
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        text = opening * 100 + "1" + closing * 100
        assert body(text) == json.loads(text)


def test_a_list_accepts_only_its_own_filters_and_has_50_items_per_page() -> None:
    assert rest.page(request()) == Page(50, None, {})
    asked = with_query(limit=["7"], next=["t"], kind=["storage"])
    assert rest.page(asked, "kind") == Page(7, "t", {"kind": "storage"})
    assert problems(rest.page, asked) == ["kind: is not one of the parameters of this route: limit, next"]


def test_all_wrong_parameters_are_named_at_once() -> None:
    asked = with_query(limit=["0"], next=["a", "b"], page=["2"], sort=[""])
    assert problems(rest.page, asked, "kind") == [
        "page: is not one of the parameters of this route: limit, next, kind",
        "sort: is not one of the parameters of this route: limit, next, kind",
        "next: is given 2 times",
        "limit: must be a whole number from 1 to 100",
    ]
    found = problems(rest.parameters, with_query(limit=["5"]), "since")
    assert found == ["limit: is not one of the parameters of this route: since"]


def test_parameters_of_any_number_and_length_make_a_short_message() -> None:
    with pytest.raises(InvalidRequest, match=r"; and 80 more$") as caught:
        rest.page(with_query(**{f"{number:02}" + "x" * 5_000: ["", ""] for number in range(50)}))
    assert len(caught.value.problems) == 20
    assert caught.value.problems[0] == (f"00{'x' * 38}", "is not one of the parameters of this route: limit, next")


@pytest.mark.parametrize("limit", ["0", "101", "-1", "1.5", "ten", "", " ", "1e1", "٣", "²", "9" * 5000])
def test_a_limit_that_is_not_1_to_100_is_refused(limit: str) -> None:
    assert [rest.page(with_query(limit=[each])).limit for each in ("1", "100", "007")] == [1, 100, 7]
    assert problems(rest.page, with_query(limit=[limit])) == ["limit: must be a whole number from 1 to 100"]


@pytest.mark.parametrize(
    ("headers", "path", "expected"),
    [
        ({"host": "127.0.0.1:8000"}, "/orders", "http://127.0.0.1:8000"),
        ({"Host": "x.example", "X-Forwarded-Proto": "https"}, "/api/orders", "https://x.example/api"),
        ({"Host": "cafe.example", "X-Forwarded-Proto": "https"}, "/orders", "https://cafe.example"),
        ({}, "/orders", "http://localhost"),
    ],
    ids=["chalice local", "a stage", "a domain", "no host"],
)
def test_the_address_of_the_api_is_the_one_that_was_called(headers: dict[str, str], path: str, expected: str) -> None:
    assert rest.base_url(request(path, headers=headers)) == expected
