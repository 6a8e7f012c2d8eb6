"""Every error that the café raises on purpose, and the HTTP status of each.

In a view an error becomes the answer ``{"Code": <class name>, "Message": <text>}`` with the status ``STATUS_CODE``, so
the names of these classes are part of the REST interface. An error about fields adds
``"Problems": [{"field", "message"}]``. In any other function a state machine's Retry and Catch see the class name.
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
PLAIN_NAME = re.compile(r"[\w.\[\]-]+")


class Problem(NamedTuple):
    """What is wrong with one field of a request, a parameter or a header."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{_safe_name(self.field)}: {self.message}"


def _safe_name(name: str) -> str:
    return name if PLAIN_NAME.fullmatch(name) else json.dumps(name)


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
    """What the client asks for contradicts something that is stored."""


class BodyTooLarge(CafeError):
    STATUS_CODE = 413

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"the body has {size:,} bytes, and at most {limit:,} are taken: send it in smaller parts")


class NotFound(CafeError, NotFoundError):
    def __init__(self, what: str, identifier: str) -> None:
        super().__init__(f"there is no {what} {_safe_name(identifier)}")


class TokenRefused(CafeError):
    """The bearer of a token is not let in. Its text says why, and has nothing of the token."""

    STATUS_CODE = 403


class Unavailable(CafeError):
    """A service that the café stands on refuses for now; later it may not. State machines retry this by its name."""

    STATUS_CODE = 503


class DatabaseUnavailable(Unavailable):
    """MySQL cannot be reached, or went away in the middle. State machines retry this one by its name."""


class DatabaseRefused(CafeError):
    """MySQL answers, and does not do it: a wrong password, a missing table or right. Trying again does not help."""


class PasswordRefused(DatabaseRefused):
    """MySQL does not let this user in with this password, which may have been another one a moment ago."""


class StorageRefused(CafeError):
    """S3 does not let the storage report do what it must; the function's role lacks a permission. Not worth a retry."""


class MissingSettings(CafeError):
    """An environment variable that the code needs is not set. ``names`` has all of them."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        super().__init__(
            f"not set: {', '.join(names)}. Run `make run` once and then `source .local/env`, or deploy a stage."
        )


# AWS says with these, in one service or another, that the same call may go through a moment later.
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


def may_pass(error: ClientError) -> bool:
    """Whether the same call may go through a moment later: AWS throttles, or fails by itself."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return error.response.get("Error", {}).get("Code") in TRANSIENT or status == 429 or status >= 500


@contextmanager
def aws_errors() -> Iterator[None]:
    """Turns what may pass (throttling, a server's failure, a lost connection) into ``Unavailable``.

    What will not pass by itself, such as a missing permission, stays what it is. Also a decorator: ``@aws_errors()``.
    """
    from botocore.exceptions import ClientError, ConnectionError, HTTPClientError, IncompleteReadError

    try:
        yield
    except ClientError as error:
        if may_pass(error):
            raise Unavailable(f"{error.operation_name} does not answer for now: try again in a moment") from error
        raise
    except (ConnectionError, HTTPClientError, IncompleteReadError) as error:
        raise Unavailable("AWS cannot be reached for now: try again in a moment") from error
