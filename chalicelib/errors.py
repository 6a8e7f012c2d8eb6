"""Every error that the café raises on purpose, and the HTTP status that each becomes.

Chalice turns a ``ChaliceViewError`` that leaves a view into ``{"Code": <class name>, "Message": <text>}`` with the
class's ``STATUS_CODE``, so the names of these classes are part of the REST interface. In a function that is not a
view the class's name is what a state machine's Retry and Catch see.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from chalice.app import BadRequestError, ChaliceViewError, ConflictError, NotFoundError

if TYPE_CHECKING:
    from botocore.exceptions import ClientError


# An error lists this many problems and counts the others; a text of the client's own is cut to this many characters.
PROBLEMS_SHOWN = 20
NAME_CHARACTERS = 40


class CafeError(ChaliceViewError):
    """The root: whatever the café raises on purpose is one of these."""


class InvalidRequest(BadRequestError, CafeError):
    """The client sent something wrong. ``problems`` names each field and what is wrong with it, up to 20 of them."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = listed(problems)
        super().__init__("; ".join(self.problems))


class BodyTooLarge(CafeError):
    STATUS_CODE = 413

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"the body has {size:,} bytes, and at most {limit:,} are taken: send it in smaller parts")


class NotFound(NotFoundError, CafeError):
    def __init__(self, what: str, identifier: str) -> None:
        super().__init__(f"there is no {what} {identifier!r}")


class TokenRefused(CafeError):
    """The bearer of a token is not let in. Its text says why, and has nothing of the token."""

    STATUS_CODE = 403


class Conflict(ConflictError, CafeError):
    """What the client asks for contradicts what is stored already."""


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


def listed(problems: list[str]) -> list[str]:
    """As many of ``problems`` as a message has, and how many more there are."""
    more = len(problems) - PROBLEMS_SHOWN
    return problems[:PROBLEMS_SHOWN] + ([f"and {more:,} more"] if more > 0 else [])


def shown(name: str) -> str:
    """A client's own name of a field or a parameter in quotes, made fit for a message."""
    return json.dumps(name[:NAME_CHARACTERS])


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
