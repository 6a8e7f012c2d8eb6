"""One id for all that comes of a request, from its answer to the notification: the field ``correlationId``.

It begins as the request's id at API Gateway, or as the client's own header ``X-Request-Id``. What does not begin with
a request has another one: an upload that of its event at S3, a report started by hand that of its execution. It goes
along as an attribute of messages and orders, and is no part of what they are.
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
# The name of an attribute of SQS's messages, of orders and of executions' inputs; and of SNS's messages, with a list,
# since one notification may tell of many orders.
NAME, NAMES = "correlationId", "correlationIds"
ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
# As many as orders in a batch of the queue or the stream.
IDS = 100

# That of what is being done, for the log.
_current: ContextVar[str | None] = ContextVar("correlation_id", default=None)


def current() -> str | None:
    return _current.get()


@contextmanager
def about(correlation_id: str | None) -> Iterator[None]:
    """Within it every log record has this id, unless it names another one."""
    token = _current.set(correlation_id)
    try:
        yield
    finally:
        _current.reset(token)


def valid(given: Any) -> str | None:
    """``given`` if it is an id, else None."""
    return given if isinstance(given, str) and ID.fullmatch(given) else None


def of_request(request: Request) -> str:
    """The client's own id or, where there is none or it is malformed, the gateway's. ``chalice local`` gives none."""
    if given := valid(request.headers.get(HEADER)) or valid(request.context.get("requestId")):
        return given
    from uuid import uuid4

    return str(uuid4())


def sqs_attribute(correlation_id: str | None) -> dict[str, Any]:
    """Of a message to be sent, beside its other attributes."""
    return {NAME: {"DataType": "String", "StringValue": correlation_id}} if correlation_id else {}


def of_sqs(message: dict[str, Any]) -> str | None:
    """Of a message that was received: by Lambda or, with its other spelling of the same, by a call."""
    match message:
        case {"messageAttributes": {"correlationId": {"stringValue": given}}}:
            return valid(given)
        case {"MessageAttributes": {"correlationId": {"StringValue": given}}}:
            return valid(given)
    return None


def of_execution(payload: Any) -> str | None:
    """The id of the request that started a state machine, from what the machine hands its functions.

    Without a request it is the name of the execution.
    """
    match payload:
        case {"request": {"correlationId": str(given)}} if ID.fullmatch(given):
            return given
        case {"reportId": name}:
            return valid(name)
    return None


def of_order(record: Any) -> str | None:
    """Of the order that a record of the orders table's stream brings."""
    match record:
        case {"dynamodb": {"NewImage": {"correlationId": {"S": given}}}}:
            return valid(given)
    return None


def of_upload(record: Any) -> str | None:
    """Of a record of an S3 event: the id of the request that put the object there."""
    match record:
        case {"responseElements": {"x-amz-request-id": given}}:
            return valid(given)
    return None


def sns_attribute(correlation_ids: tuple[str, ...]) -> dict[str, Any]:
    """Of a message to be published, a hundred of them. SNS takes no empty list, and counts it into its limit."""
    ids = json.dumps(list(dict.fromkeys(correlation_ids))[:IDS])
    return {NAMES: {"DataType": "String.Array", "StringValue": ids}} if correlation_ids else {}


def of_sns(sns: Any) -> tuple[str, ...]:
    """Of a message that SNS hands over. Another publisher's attribute of the same name may be anything."""
    match sns:
        case {"MessageAttributes": {"correlationIds": {"Value": str(text)}}}:
            try:
                given = json.loads(text)
            except (ValueError, RecursionError):
                return ()
            return tuple(filter(valid, given)) if isinstance(given, list) else ()
    return ()
