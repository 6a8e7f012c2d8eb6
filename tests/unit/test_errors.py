"""The errors: which status each has, and which errors of AWS can pass by themselves."""

from typing import Any

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)
from chalice.app import ChaliceViewError

from chalicelib import errors
from chalicelib.errors import CafeError, Unavailable, aws_errors


def all_errors(root: type[CafeError] = CafeError) -> set[type[CafeError]]:
    return {root}.union(*(all_errors(each) for each in root.__subclasses__() if each.__module__ == errors.__name__))


def aws_says(code: str, status: int = 400) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": "..."}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "SendMessageBatch")


def test_all_errors_have_one_root_that_chalice_shows() -> None:
    mine = {each for each in vars(errors).values() if isinstance(each, type) and each.__module__ == errors.__name__}
    assert mine == all_errors()
    assert issubclass(CafeError, ChaliceViewError)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidRequest([]), 400),
        (errors.NotFound("order", "o-1"), 404),
        (errors.Conflict(""), 409),
        (errors.BodyTooLarge(2, 1), 413),
        (errors.Unavailable(""), 503),
        (errors.DatabaseUnavailable(""), 503),
        (errors.DatabaseRefused(""), 500),
        (errors.StorageRefused(""), 500),
        (errors.MissingSettings([]), 500),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_each_error_has_its_status(error: CafeError, status: int) -> None:
    assert status == error.STATUS_CODE


def test_an_invalid_request_has_all_problems_in_its_message() -> None:
    assert str(errors.InvalidRequest(["a: is missing", "b: must be a text"])) == "a: is missing; b: must be a text"


def test_a_message_has_up_to_20_problems_and_names_of_up_to_40_characters() -> None:
    assert str(errors.InvalidRequest(["x"] * 20)) == "; ".join(["x"] * 20)
    assert str(errors.InvalidRequest(["x"] * 21)) == "; ".join(["x"] * 20) + "; and 1 more"
    assert errors.shown("x" * 40) == errors.shown("x" * 40 + "y") == '"' + "x" * 40 + '"'
    assert str(errors.NotFound("order", "a\nb")) == "there is no order 'a\\nb'"


@pytest.mark.parametrize(
    ("code", "status"),
    [*((code, 400) for code in sorted(errors.TRANSIENT)), *(("New", status) for status in (429, 500, 502, 503, 504))],
)
def test_throttling_and_failures_of_aws_can_pass(code: str, status: int) -> None:
    cause = aws_says(code, status)
    with (
        pytest.raises(
            Unavailable, match=r"^SendMessageBatch does not answer for now: try again in a moment$"
        ) as caught,
        aws_errors(),
    ):
        raise cause
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="https://sqs"),
        ConnectTimeoutError(endpoint_url="https://sqs"),
        ReadTimeoutError(endpoint_url="https://sqs"),
        IncompleteReadError(actual_bytes=1, expected_bytes=2),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_lost_connection_can_pass(error: BotoCoreError) -> None:
    with pytest.raises(Unavailable, match=r"^AWS cannot be reached for now: try again in a moment$"), aws_errors():
        raise error


@pytest.mark.parametrize(
    "error",
    [
        aws_says("AccessDenied", 403),
        aws_says("ResourceNotFoundException"),
        aws_says("ValidationException"),
        NoCredentialsError(),
        ParamValidationError(report="..."),
        KeyError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_other_error_is_not_changed(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, aws_errors():
        raise error
    assert caught.value is error


def test_the_context_manager_is_also_a_decorator_that_can_be_used_twice() -> None:
    @aws_errors()
    def call() -> None:
        raise aws_says("SlowDown", 503)

    for _ in range(2):
        with pytest.raises(Unavailable):
            call()
