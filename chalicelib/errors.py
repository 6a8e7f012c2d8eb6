"""All errors that the café's code raises on purpose, with their HTTP statuses.

A view turns an error into the response ``{"Code": <class name>, "Message": <text>}`` with the status ``STATUS_CODE``,
so the class names are part of the REST interface. A ``FieldError`` adds ``"Problems": [{"field", "message"}]``. A
state machine's Retry and Catch match the class name.

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


# Maximum number of problems that an error lists, and maximum length of an unknown name.
PROBLEMS_SHOWN = 20
NAME_CHARACTERS = 40
# Matches a field's path, a header's name or an id. Error messages quote any other name that a client sends.
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
    """The base class of all the café's errors.

    Chalice passes a ``ChaliceUnhandledError`` to the middleware, which responds with ``answer``.
    """

    def answer(self) -> dict[str, Any]:
        """Returns the response body."""
        return {"Code": type(self).__name__, "Message": str(self)}


class FieldError(CafeError):
    """An error about the fields of a request. ``problems`` contains the first 20 problems."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems[:PROBLEMS_SHOWN])
        more = len(problems) - len(self.problems)
        super().__init__("; ".join([*map(str, self.problems), *([f"and {more:,} more"] if more else [])]))

    def answer(self) -> dict[str, Any]:
        return {**super().answer(), "Problems": [each._asdict() for each in self.problems]}


class InvalidRequest(FieldError, BadRequestError):
    """The request is not valid."""


class Conflict(FieldError, ConflictError):
    """The request conflicts with stored data."""


class BodyTooLarge(CafeError):
    STATUS_CODE = 413

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"the body has {size:,} bytes, but at most {limit:,} are allowed: send it in smaller parts")


class NotFound(CafeError, NotFoundError):
    def __init__(self, what: str, identifier: str) -> None:
        super().__init__(f"there is no {what} {_safe_name(identifier)}")


class TokenRefused(CafeError):
    """A token does not grant access. The error's message says why, and contains no part of the token."""

    STATUS_CODE = 403


class Unavailable(CafeError):
    """A service that the café needs is temporarily unavailable. State machines match this error by name and retry."""

    STATUS_CODE = 503


class DatabaseUnavailable(Unavailable):
    """MySQL cannot be reached, or the connection broke. State machines match this error by name and retry."""


class DatabaseRefused(CafeError):
    """MySQL refused a login or a statement, for example because a privilege is missing. A retry does not help."""


class PasswordRefused(DatabaseRefused):
    """MySQL refused the password, which a rotation may have just changed."""


class StorageRefused(CafeError):
    """S3 refused a call for the storage report, because the role lacks a permission. A retry does not help."""


class MissingSettings(CafeError):
    """Required environment variables are not set. ``names`` lists the missing variables."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        super().__init__(
            f"not set: {', '.join(names)}. Run `make run` once and then `source .local/env`, or deploy a stage."
        )


# AWS error codes which mean that the same call may succeed a moment later.
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
    "ServiceUnavailable",
    "SlowDown",
    "Throttled",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}


def is_transient(error: ClientError) -> bool:
    """Returns whether the same call may succeed a moment later, because AWS throttled it or failed."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return error.response.get("Error", {}).get("Code") in TRANSIENT or status == 429 or status >= 500


@contextmanager
def aws_errors() -> Iterator[None]:
    """Turns temporary errors (throttling, a server failure, a lost connection) into ``Unavailable``.

    Other errors, such as a missing permission, are not changed. Can also be used as a decorator: ``@aws_errors()``.
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
