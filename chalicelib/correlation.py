"""The correlation id. Everything that results from one request carries the same id in the field ``correlationId``.

The id is the client's ``X-Request-Id`` header, or else API Gateway's request id. An upload uses the id of its S3
request, and a scheduled report uses its execution's name. Messages and orders carry the id as an attribute.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chalice.app import Request

HEADER = "X-Request-Id"
# The id's field name in SQS messages, orders and execution inputs. An SNS message carries a list of ids, because one
# notification can report many orders.
NAME, NAMES = "correlationId", "correlationIds"
ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
# Maximum number of ids in an SNS message. A batch from the queue or the stream contains at most this many orders.
IDS = 100

# The current correlation id, for log records.
_current: ContextVar[str | None] = ContextVar("correlation_id", default=None)


def current() -> str | None:
    return _current.get()


@contextmanager
def about(correlation_id: str | None) -> Iterator[None]:
    """Adds ``correlation_id`` to all log records within the block, except records that set their own id."""
    token = _current.set(correlation_id)
    try:
        yield
    finally:
        _current.reset(token)


def valid(given: Any) -> str | None:
    """Returns ``given`` if it is a valid correlation id, and None otherwise."""
    return given if isinstance(given, str) and ID.fullmatch(given) else None


def of_request(request: Request) -> str:
    """Returns the client's id if it is valid, or else API Gateway's or, under ``chalice local``, a new id."""
    if given := valid(request.headers.get(HEADER)) or valid(request.context.get("requestId")):
        return given
    from uuid import uuid4

    return str(uuid4())


def sqs_attribute(correlation_id: str | None) -> dict[str, Any]:
    """Returns the attributes that add the correlation id to an SQS message."""
    return {NAME: {"DataType": "String", "StringValue": correlation_id}} if correlation_id else {}


def of_sqs(message: dict[str, Any]) -> str | None:
    """Returns an SQS message's correlation id. Lambda events and the SQS API spell attribute names differently."""
    match message:
        case {"messageAttributes": {"correlationId": {"stringValue": given}}}:
            return valid(given)
        case {"MessageAttributes": {"correlationId": {"StringValue": given}}}:
            return valid(given)
    return None


def of_execution(payload: Any) -> str | None:
    """Returns the correlation id from an event that a state machine passes to a function.

    If no request started the state machine, the id is the execution's name.
    """
    match payload:
        case {"request": {"correlationId": str(given)}} if ID.fullmatch(given):
            return given
        case {"reportId": name}:
            return valid(name)
    return None


def of_order(record: Any) -> str | None:
    """Returns the correlation id from a record of the orders stream."""
    match record:
        case {"dynamodb": {"NewImage": {"correlationId": {"S": given}}}}:
            return valid(given)
    return None


def of_upload(record: Any) -> str | None:
    """Returns, from a record in an S3 event, the id of the request that stored the object."""
    match record:
        case {"responseElements": {"x-amz-request-id": given}}:
            return valid(given)
    return None


def sns_attribute(correlation_ids: tuple[str, ...]) -> dict[str, Any]:
    """Returns the attributes that add up to 100 ids to an SNS message. SNS refuses an empty list."""
    ids = json.dumps(list(dict.fromkeys(correlation_ids))[:IDS])
    return {NAMES: {"DataType": "String.Array", "StringValue": ids}} if correlation_ids else {}


def of_sns(sns: Any) -> tuple[str, ...]:
    """Returns an SNS message's correlation ids. An attribute from another publisher may contain any string."""
    match sns:
        case {"MessageAttributes": {"correlationIds": {"Value": str(text)}}}:
            try:
                given = json.loads(text)
            except (ValueError, RecursionError):
                return ()
            return tuple(filter(valid, given)) if isinstance(given, list) else ()
    return ()
