"""Defines the errors that the application raises deliberately, with their HTTP status codes.

An error becomes the response ``{"Code": <class name>, "Message": <text>}`` with the HTTP status ``STATUS_CODE``. The
class names are therefore part of the REST interface. A ``FieldError`` adds ``"Problems": [{"field", "message"}]`` to
the response. State machines also match class names in their Retry and Catch fields.

CafeError
├── FieldError
│   ├── InvalidRequest  400
│   └── Conflict  409
├── TokenRefused  403
├── NotFound  404
├── BodyTooLarge  413
├── Unavailable  503
│   └── DatabaseUnavailable
├── DatabaseRefused  500
│   └── PasswordRefused
├── StorageRefused  500
└── MissingSettings  500
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from chalice.app import BadRequestError, ChaliceUnhandledError, ChaliceViewError, ConflictError, NotFoundError

if TYPE_CHECKING:
    from botocore.exceptions import ClientError


# Maximum number of problems in an error, and maximum length of an unknown field name.
PROBLEMS_SHOWN = 20
NAME_CHARACTERS = 40
# This pattern matches field paths, header names and ids. Names that do not match are quoted in error messages.
PLAIN_NAME = r"[\w.\[\]-]+"


class Problem(NamedTuple):
    """A problem with one field, parameter or header of a request."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{_safe_name(self.field)}: {self.message}"


def _safe_name(name: str) -> str:
    return name if re.fullmatch(PLAIN_NAME, name) else json.dumps(name)


class CafeError(ChaliceUnhandledError, ChaliceViewError):
    """The base class of all errors that the application raises.

    Chalice passes a ``ChaliceUnhandledError`` to the middleware. The middleware calls ``answer`` to get the response
    body.
    """

    def answer(self) -> dict[str, Any]:
        """Returns the body of the error response."""
        return {"Code": type(self).__name__, "Message": str(self)}


class FieldError(CafeError):
    """An error about the fields of a request. ``problems`` contains at most the first 20 problems.

    ``facts`` are added to the response.
    """

    def __init__(self, problems: Sequence[Problem], **facts: Any) -> None:
        self.problems, self.facts = list(problems[:PROBLEMS_SHOWN]), facts
        more = len(problems) - len(self.problems)
        super().__init__("; ".join([*map(str, self.problems), *([f"and {more:,} more"] if more else [])]))

    def answer(self) -> dict[str, Any]:
        return {**super().answer(), "Problems": [each._asdict() for each in self.problems], **self.facts}


class InvalidRequest(FieldError, BadRequestError):
    """The request is not valid."""


class Conflict(FieldError, ConflictError):
    """The request conflicts with stored data."""


class BodyTooLarge(CafeError):
    STATUS_CODE = 413

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"the body has {size:,} bytes (maximum {limit:,}): send several smaller requests")


class NotFound(CafeError, NotFoundError):
    def __init__(self, what: str, identifier: str) -> None:
        super().__init__(f"there is no {what} {_safe_name(identifier)}")


class TokenRefused(CafeError):
    """The token does not grant access. The error message contains the reason, but no part of the token."""

    STATUS_CODE = 403


class Unavailable(CafeError):
    """A service that the application uses is temporarily unavailable. State machines retry this error."""

    STATUS_CODE = 503


class DatabaseUnavailable(Unavailable):
    """MySQL cannot be reached, or the connection broke. A state machine retries a state that fails with this error."""


class DatabaseRefused(CafeError):
    """MySQL refused a login or a statement, for example because a privilege is missing. Retrying does not help."""


class PasswordRefused(DatabaseRefused):
    """MySQL refused the password. A rotation may have just replaced the password."""


class StorageRefused(CafeError):
    """S3 refused a call for the storage report because the IAM role lacks a permission. Retrying does not help."""


class MissingSettings(CafeError):
    """Required environment variables are not set. ``names`` lists the missing environment variables."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        super().__init__(
            f"not set: {', '.join(names)}. Run `make run` once and then `source .local/env`, or deploy a stage."
        )


# If an AWS call fails with one of these error codes, the same call may succeed a moment later.
TRANSIENT = {
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "KMSThrottling",
    "KMSThrottlingException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestTimeout",
    "RequestTimeoutException",
    # Lambda answers with this code while it connects an idle function to its network again.
    "ResourceConflictException",
    "ServiceUnavailable",
    "SlowDown",
    "Throttled",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}


# With one of these codes, AWS refuses the content of a call, so the same call never succeeds.
REFUSED_CONTENT = {
    *("InvalidExecutionInput", "InvalidName", "InvalidParameter", "InvalidParameterValue"),
    *("InvalidParameterValueException", "InvalidRequestContentException", "ItemCollectionSizeLimitExceeded"),
    *("ParameterValueInvalid", "RequestTooLargeException", "ValidationError", "ValidationException"),
}


def is_final(error: Exception) -> bool:
    """Returns True if a retry cannot help, because AWS refuses the content of a call or our code has a bug.

    Any other AWS error may pass, even a missing permission, because a deploy restores it.
    """
    from botocore.exceptions import ClientError

    if isinstance(error, ClientError):
        return error.response["Error"]["Code"] in REFUSED_CONTENT
    return not isinstance(error, Unavailable)


def is_transient(error: ClientError) -> bool:
    """Returns True if the error is temporary, which means that the same call may succeed a moment later."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return error.response.get("Error", {}).get("Code") in TRANSIENT or status == 429 or status >= 500


@contextmanager
def aws_errors() -> Iterator[None]:
    """Converts temporary AWS errors, such as throttling or a lost connection, to ``Unavailable``.

    Permanent errors, such as a missing permission, are raised unchanged. This function also works as a decorator
    (``@aws_errors()``).
    """
    from botocore.exceptions import ClientError, ConnectionError, HTTPClientError, IncompleteReadError

    try:
        yield
    except ClientError as error:
        if is_transient(error):
            raise Unavailable(f"{error.operation_name} is temporarily unavailable: try again in a moment") from error
        raise
    except (ConnectionError, HTTPClientError, IncompleteReadError) as error:
        raise Unavailable("AWS cannot be reached: try again in a moment") from error
