"""Tests that each error has the right HTTP status and that temporary AWS errors are recognised."""

import re
from typing import Any

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    IncompleteReadError,
    NoCredentialsError,
    ReadTimeoutError,
)
from chalice.app import ChaliceViewError

from chalicelib import errors
from chalicelib.errors import CafeError, Conflict, FieldError, InvalidRequest, Problem, Unavailable, aws_errors


def all_errors(root: type[CafeError] = CafeError) -> set[type[CafeError]]:
    return {root}.union(*(all_errors(each) for each in root.__subclasses__() if each.__module__ == errors.__name__))


def aws_says(code: str, status: int = 400) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": "..."}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "SendMessageBatch")


def test_all_errors_have_one_root_that_chalice_shows_and_the_statuses_of_the_drawing() -> None:
    classes = {each for each in vars(errors).values() if isinstance(each, type) and each.__module__ == errors.__name__}
    assert {each for each in classes if issubclass(each, Exception)} == all_errors()
    assert issubclass(CafeError, ChaliceViewError)
    drawn = re.findall(r"(?:── |^)(\w+)(?:  (\d+))?$", errors.__doc__ or "", re.MULTILINE)
    assert sorted(name for name, _ in drawn) == sorted(each.__name__ for each in all_errors())
    statuses = {name: int(status) for name, status in drawn if status} | {"DatabaseUnavailable": 503}
    assert {name: getattr(errors, name).STATUS_CODE for name in statuses} == statuses


@pytest.mark.parametrize("error", [InvalidRequest, Conflict])
def test_an_error_about_fields_has_each_problem_in_its_message_and_as_a_field_of_the_answer(
    error: type[FieldError],
) -> None:
    problems = [Problem("items[0].item", "is missing"), Problem("a: b\n", "is not a field")]
    message = 'items[0].item: is missing; "a: b\\n": is not a field'
    assert error(problems).answer() == {
        "Code": error.__name__,
        "Message": message,
        "Problems": [
            {"field": "items[0].item", "message": "is missing"},
            {"field": "a: b\n", "message": "is not a field"},
        ],
    }


def test_an_error_names_up_to_20_problems_and_counts_the_others() -> None:
    problems = [Problem("x", "is missing")] * 21
    assert str(InvalidRequest(problems[:20])) == "; ".join(["x: is missing"] * 20)
    assert str(InvalidRequest(problems)) == "; ".join(["x: is missing"] * 20) + "; and 1 more"
    assert len(InvalidRequest(problems).answer()["Problems"]) == 20


def test_any_other_error_has_a_code_and_a_message() -> None:
    assert errors.NotFound("order", "o-1").answer() == {"Code": "NotFound", "Message": "there is no order o-1"}
    assert str(errors.NotFound("order", "a\nb")) == 'there is no order "a\\nb"'


def test_throttling_and_aws_failures_are_temporary() -> None:
    codes = [(code, 400) for code in errors.TRANSIENT]
    for code, status in (*codes, *(("New", status) for status in (429, 500, 503))):
        cause = aws_says(code, status)
        with (
            pytest.raises(
                Unavailable, match=r"^SendMessageBatch is temporarily unavailable: try again in a moment$"
            ) as e,
            aws_errors(),
        ):
            raise cause
        assert e.value.__cause__ is cause


INCOMPLETE = IncompleteReadError(actual_bytes=1, expected_bytes=2)


@pytest.mark.parametrize(
    "error",
    [EndpointConnectionError(endpoint_url="x"), ReadTimeoutError(endpoint_url="x"), INCOMPLETE],
    ids=lambda error: type(error).__name__,
)
def test_a_lost_connection_is_temporary(error: BotoCoreError) -> None:
    with pytest.raises(Unavailable, match=r"^AWS cannot be reached: try again in a moment$"), aws_errors():
        raise error


@pytest.mark.parametrize(
    "error",
    [aws_says("AccessDenied", 403), aws_says("ValidationException"), NoCredentialsError(), KeyError("x")],
    ids=repr,
)
def test_any_other_error_is_not_changed(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, aws_errors():
        raise error
    assert caught.value is error
