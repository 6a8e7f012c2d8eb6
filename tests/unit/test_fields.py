"""Tests that invalid values in JSON fields are refused with an error that names the field."""

from typing import Any

import pytest

from chalicelib.errors import InvalidRequest, Problem
from chalicelib.fields import Fields, whole_number

NAMES = ("kind", "size")


def test_all_problems_of_nested_objects_are_collected_with_their_places() -> None:
    problems: list[Problem] = []
    outer = Fields.of({"x" * 50: 1}, NAMES, problems, of="a thing", expected="an object")
    inner = Fields.of({"size": 0}, NAMES, problems, "things[1]", of="a thing", expected="an object")
    assert Fields.of([], NAMES, problems, "things[2]", of="a thing", expected="an object") is None
    assert outer is not None
    assert inner is not None
    assert inner.whole_number("size", 1, 9, default=1) == 1
    outer.refuse("kind", "is missing")
    assert problems == [
        ("x" * 40, "is not a field of a thing"),
        ("things[2]", "must be an object"),
        ("things[1].size", "must be a whole number from 1 to 9"),
        ("kind", "is missing"),
    ]
    with pytest.raises(InvalidRequest):
        outer.check()


@pytest.mark.parametrize(("value", "number"), [(2, 2), (-0.0, 0), (2.0, 2), (1e300, int(1e300))])
def test_a_whole_number_may_have_a_decimal_point(value: Any, number: int) -> None:
    assert whole_number(value) == number


@pytest.mark.parametrize("value", [1.5, True, False, "1", None, [], float("inf"), float("nan")])
def test_any_other_value_is_not_a_whole_number(value: Any) -> None:
    assert whole_number(value) is None
