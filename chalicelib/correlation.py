"""All log records, messages and orders that result from one request have the same ``correlationId``.

The correlation id comes from the client's ``X-Request-Id`` header. If the header is missing or invalid, the correlation
id is API Gateway's request id. For an uploaded file, the correlation id is the id of the S3 request that stored the
file. For a scheduled report, the correlation id is the name of the Step Functions execution. Messages and orders
contain the correlation id as an attribute.
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
# SQS messages, orders and execution inputs contain a single correlation id in the field ``NAME``. An SNS message
# contains a list of correlation ids, because one notification can report many orders.
NAME, NAMES = "correlationId", "correlationIds"
ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
# Maximum number of correlation ids in an SNS message. A request can contain the same maximum number of orders.
IDS = 100

# The current correlation id, which the log formatter adds to log records.
_current: ContextVar[str | None] = ContextVar("correlation_id", default=None)


def current() -> str | None:
    return _current.get()


@contextmanager
def about(correlation_id: str | None) -> Iterator[None]:
    """Adds ``correlation_id`` to all log records within the ``with`` block, except records that set their own id."""
    token = _current.set(correlation_id)
    try:
        yield
    finally:
        _current.reset(token)


def valid(given: Any) -> str | None:
    """Returns ``given`` if it is a valid correlation id, and None otherwise."""
    return given if isinstance(given, str) and ID.fullmatch(given) else None


def of_request(request: Request) -> str:
    """Returns the client's correlation id if it is valid, otherwise API Gateway's request id, otherwise a new id."""
    if given := valid(request.headers.get(HEADER)) or valid(request.context.get("requestId")):
        return given
    from uuid import uuid4

    return str(uuid4())


def sqs_attribute(correlation_id: str | None) -> dict[str, Any]:
    """Returns SQS message attributes that contain the correlation id."""
    return {NAME: {"DataType": "String", "StringValue": correlation_id}} if correlation_id else {}


def of_sqs(message: dict[str, Any]) -> str | None:
    """Returns the correlation id of an SQS message.

    Lambda events and the SQS API capitalize attribute names differently.
    """
    match message:
        case {"messageAttributes": {"correlationId": {"stringValue": given}}}:
            return valid(given)
        case {"MessageAttributes": {"correlationId": {"StringValue": given}}}:
            return valid(given)
    return None


def of_execution(payload: Any) -> str | None:
    """Returns the correlation id from an event that a state machine passes to a function.

    If no request started the state machine, the correlation id is the name of the execution.
    """
    match payload:
        case {"request": {"correlationId": str(given)}} if ID.fullmatch(given):
            return given
        case {"reportId": name}:
            return valid(name)
    return None


def of_order(record: Any) -> str | None:
    """Returns the correlation id from a record in the DynamoDB stream of the orders table."""
    match record:
        case {"dynamodb": {"NewImage": {"correlationId": {"S": given}}}}:
            return valid(given)
    return None


def of_upload(record: Any) -> str | None:
    """Returns the id of the S3 request that stored an object. ``record`` comes from an S3 event."""
    match record:
        case {"responseElements": {"x-amz-request-id": given}}:
            return valid(given)
    return None


def sns_attribute(correlation_ids: tuple[str, ...]) -> dict[str, Any]:
    """Returns SNS message attributes with the first 100 correlation ids.

    Returns no attributes if there are no ids, because SNS refuses an empty list.
    """
    ids = json.dumps(list(dict.fromkeys(correlation_ids))[:IDS])
    return {NAMES: {"DataType": "String.Array", "StringValue": ids}} if correlation_ids else {}


def of_sns(sns: Any) -> tuple[str, ...]:
    """Returns the valid correlation ids in an SNS message.

    If another program published the message, its attributes may contain any string.
    """
    match sns:
        case {"MessageAttributes": {"correlationIds": {"Value": str(text)}}}:
            try:
                given = json.loads(text)
            except (ValueError, RecursionError):
                return ()
            return tuple(filter(valid, given)) if isinstance(given, list) else ()
    return ()
