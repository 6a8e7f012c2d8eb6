"""The correlation id: one id for everything that follows from a request, in the field ``correlationId``.

The id is the client's header ``X-Request-Id``, or else API Gateway's request id. An upload has the id of its request to
S3, and a report without a request has the name of its execution. Messages and orders carry the id as an attribute.
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
# The attribute of SQS messages, orders and executions' inputs. SNS messages have a list, because one notification can
# report many orders.
NAME, NAMES = "correlationId", "correlationIds"
ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
# A batch of the queue or the stream has at most this many orders.
IDS = 100

# The id of the current work, for the log.
_current: ContextVar[str | None] = ContextVar("correlation_id", default=None)


def current() -> str | None:
    return _current.get()


@contextmanager
def about(correlation_id: str | None) -> Iterator[None]:
    """Gives all log records inside it this id, unless a record names another one."""
    token = _current.set(correlation_id)
    try:
        yield
    finally:
        _current.reset(token)


def valid(given: Any) -> str | None:
    """Returns ``given`` if it is a valid id, or else None."""
    return given if isinstance(given, str) and ID.fullmatch(given) else None


def of_request(request: Request) -> str:
    """Returns the client's id if it is valid, or else the gateway's, or a new one under ``chalice local``."""
    if given := valid(request.headers.get(HEADER)) or valid(request.context.get("requestId")):
        return given
    from uuid import uuid4

    return str(uuid4())


def sqs_attribute(correlation_id: str | None) -> dict[str, Any]:
    """Returns the attribute for a message to SQS."""
    return {NAME: {"DataType": "String", "StringValue": correlation_id}} if correlation_id else {}


def of_sqs(message: dict[str, Any]) -> str | None:
    """Returns the id in a message that Lambda or a call has received. Both spell the attributes differently."""
    match message:
        case {"messageAttributes": {"correlationId": {"stringValue": given}}}:
            return valid(given)
        case {"MessageAttributes": {"correlationId": {"StringValue": given}}}:
            return valid(given)
    return None


def of_execution(payload: Any) -> str | None:
    """Returns the id of the request that started a state machine, from an event of the machine's functions.

    Without a request it is the name of the execution.
    """
    match payload:
        case {"request": {"correlationId": str(given)}} if ID.fullmatch(given):
            return given
        case {"reportId": name}:
            return valid(name)
    return None


def of_order(record: Any) -> str | None:
    """Returns the id of the order in a record of the orders' stream."""
    match record:
        case {"dynamodb": {"NewImage": {"correlationId": {"S": given}}}}:
            return valid(given)
    return None


def of_upload(record: Any) -> str | None:
    """Returns the id of the request that stored an object, from a record of an S3 event."""
    match record:
        case {"responseElements": {"x-amz-request-id": given}}:
            return valid(given)
    return None


def sns_attribute(correlation_ids: tuple[str, ...]) -> dict[str, Any]:
    """Returns the attribute for a message to SNS, with at most 100 ids. SNS refuses an empty list."""
    ids = json.dumps(list(dict.fromkeys(correlation_ids))[:IDS])
    return {NAMES: {"DataType": "String.Array", "StringValue": ids}} if correlation_ids else {}


def of_sns(sns: Any) -> tuple[str, ...]:
    """Returns the ids in a message from SNS. The attribute of another publisher can have any text."""
    match sns:
        case {"MessageAttributes": {"correlationIds": {"Value": str(text)}}}:
            try:
                given = json.loads(text)
            except (ValueError, RecursionError):
                return ()
            return tuple(filter(valid, given)) if isinstance(given, list) else ()
    return ()
