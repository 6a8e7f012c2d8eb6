"""Every error that the café raises on purpose, and the HTTP status of each.

In a view an error becomes the answer ``{"Code": <class name>, "Message": <text>}`` with the status ``STATUS_CODE``, so
the names of these classes are part of the REST interface. An error about fields adds
``"Problems": [{"field", "message"}]``. In any other function a state machine's Retry and Catch see the class name.

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


# An error lists this many problems and counts the others. An unknown name is cut to this many characters.
PROBLEMS_SHOWN = 20
NAME_CHARACTERS = 40
# The path of a field, the name of a header, an id. Any other name from a client is quoted in a message.
PLAIN_NAME = r"[\w.\[\]-]+"


class Problem(NamedTuple):
    """A problem of one field of a request, of a parameter or of a header."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{_safe_name(self.field)}: {self.message}"


def _safe_name(name: str) -> str:
    return name if re.fullmatch(PLAIN_NAME, name) else json.dumps(name)


class CafeError(ChaliceUnhandledError, ChaliceViewError):
    """The root of all errors of the café.

    Chalice hands a ``ChaliceUnhandledError`` to the middleware, which answers with ``answer``.
    """

    def answer(self) -> dict[str, Any]:
        """Returns the body of the answer."""
        return {"Code": type(self).__name__, "Message": str(self)}


class FieldError(CafeError):
    """An error about fields. ``problems`` has the first 20."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems[:PROBLEMS_SHOWN])
        more = len(problems) - len(self.problems)
        super().__init__("; ".join([*map(str, self.problems), *([f"and {more:,} more"] if more else [])]))

    def answer(self) -> dict[str, Any]:
        return {**super().answer(), "Problems": [each._asdict() for each in self.problems]}


class InvalidRequest(FieldError, BadRequestError):
    """The client sent something wrong."""


class Conflict(FieldError, ConflictError):
    """The request contradicts something that is stored."""


class BodyTooLarge(CafeError):
    STATUS_CODE = 413

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"the body has {size:,} bytes, and at most {limit:,} are allowed: send it in smaller parts")


class NotFound(CafeError, NotFoundError):
    def __init__(self, what: str, identifier: str) -> None:
        super().__init__(f"there is no {what} {_safe_name(identifier)}")


class TokenRefused(CafeError):
    """A token does not admit its bearer. The message says why, and has no part of the token."""

    STATUS_CODE = 403


class Unavailable(CafeError):
    """A service that the café needs fails for now. State machines retry this error by its name."""

    STATUS_CODE = 503


class DatabaseUnavailable(Unavailable):
    """MySQL cannot be reached, or the connection broke. State machines retry this error by its name."""


class DatabaseRefused(CafeError):
    """MySQL refuses: the password is wrong, or a table or a right is missing. A retry does not help."""


class PasswordRefused(DatabaseRefused):
    """MySQL refuses the password, which a rotation can have changed a moment ago."""


class StorageRefused(CafeError):
    """S3 refuses the storage report, because the function's role lacks a permission. A retry does not help."""


class MissingSettings(CafeError):
    """Environment variables that the code needs are not set. ``names`` has all of them."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        super().__init__(
            f"not set: {', '.join(names)}. Run `make run` once and then `source .local/env`, or deploy a stage."
        )


# With these codes, each in some service, AWS says that the same call can succeed a moment later.
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
    """Whether the same call can succeed a moment later, because AWS throttled it or failed."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return error.response.get("Error", {}).get("Code") in TRANSIENT or status == 429 or status >= 500


@contextmanager
def aws_errors() -> Iterator[None]:
    """Turns errors that can pass (throttling, a server's failure, a lost connection) into ``Unavailable``.

    Other errors, such as a missing permission, are not changed. Also a decorator: ``@aws_errors()``.
    """
    from botocore.exceptions import ClientError, ConnectionError, HTTPClientError, IncompleteReadError

    try:
        yield
    except ClientError as error:
        if is_transient(error):
            raise Unavailable(f"{error.operation_name} does not answer for now: try again in a moment") from error
        raise
    except (ConnectionError, HTTPClientError, IncompleteReadError) as error:
        raise Unavailable("AWS cannot be reached for now: try again in a moment") from error
