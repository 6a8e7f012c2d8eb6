"""Defines the faults that the AWS proxy can inject.

Each fault takes a call in progress and returns the response for the client.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.system.calls import Call
from tests.system.wire import Cut, Exchange, Fault, Reply

# Each service defines its own HTTP status and error code for throttling.
THROTTLED = {
    "dynamodb": (400, "ThrottlingException"),
    "sqs": (400, "RequestThrottled"),
    "sns": (429, "Throttled"),
    "states": (400, "ThrottlingException"),
    "cloudwatch": (400, "ThrottlingException"),
    "lambda": (429, "TooManyRequestsException"),
    "s3": (503, "SlowDown"),
    "secretsmanager": (400, "ThrottlingException"),
}
FAILED = {
    "dynamodb": "InternalServerError",
    "lambda": "ServiceException",
    "sqs": "InternalFailure",
    "states": "InternalFailure",
}


def throttled(exchange: Exchange) -> Reply:
    status, code = THROTTLED[exchange.call.service]
    return error(exchange.call, status, code, "Rate exceeded")


def failed(exchange: Exchange) -> Reply:
    """Returns status 500 without forwarding the call to AWS."""
    code = FAILED.get(exchange.call.service, "InternalError")
    return error(exchange.call, 500, code, "We encountered an internal error")


def unavailable(exchange: Exchange) -> Reply:
    return error(exchange.call, 503, "ServiceUnavailable", "Service is temporarily unavailable")


def denied(exchange: Exchange) -> Reply:
    """Returns status 403, an error that only a deploy fixes."""
    return error(exchange.call, 403, "AccessDenied", "Access Denied")


def invalid(exchange: Exchange) -> Reply:
    """Returns status 400, as AWS does for an invalid request."""
    return error(exchange.call, 400, "InvalidParameter", "Invalid parameter: Message")


def cut_before(exchange: Exchange) -> Reply:
    """Cuts the connection before AWS receives the call."""
    raise Cut


def cut_after(exchange: Exchange) -> Reply:
    """Cuts the connection after the call took effect but before the client gets the response."""
    exchange.forward_whole()
    raise Cut


def failed_after(exchange: Exchange) -> Reply:
    """Returns status 500 although the call took effect."""
    exchange.forward_whole()
    return failed(exchange)


def truncated(exchange: Exchange) -> Reply:
    """Cuts the connection after the first half of the response."""
    reply, body = exchange.forward_whole()

    def half() -> Iterator[bytes]:
        yield body[: len(body) // 2]
        raise Cut

    return Reply(reply.status, reply.headers, half())


def slow(seconds: float) -> Fault:
    """Returns a fault that delays the call."""

    def fault(exchange: Exchange) -> Reply:
        time.sleep(seconds)
        return exchange.forward()

    return fault


def late(seconds: float) -> Fault:
    """Returns a fault that forwards the call to AWS, waits ``seconds``, and cuts the connection without a response."""

    def fault(exchange: Exchange) -> Reply:
        exchange.forward_whole()
        time.sleep(seconds)
        raise Cut

    return fault


def before_call(work: Callable[[Call], None], then: Fault = Exchange.forward) -> Fault:
    """Returns a fault that calls ``work``, for example to kill a process, and then applies the fault ``then``."""

    def fault(exchange: Exchange) -> Reply:
        work(exchange.call)
        return then(exchange)

    return fault


def after_call(work: Callable[[Call], None]) -> Fault:
    """Returns a fault that forwards the call to AWS, calls ``work``, and cuts the connection without a response."""

    def fault(exchange: Exchange) -> Reply:
        exchange.forward_whole()
        work(exchange.call)
        raise Cut

    return fault


# A ``Refused`` function gets the index and the content of a batch item. The function returns whether the fault refuses
# that item.
Refused = Callable[[int, Any], bool]


def refusing(refused: Refused = lambda index, _item: index % 2 == 0) -> Fault:
    """Returns a fault that refuses some items of a batch. The response has status 200 and lists the refused items."""

    def fault(exchange: Exchange) -> Reply:
        return PARTIAL[exchange.call.name](exchange, refused)

    return fault


def _refuse_statements(exchange: Exchange, refused: Refused) -> Reply:
    statements = exchange.call.json["Statements"]
    responses = iter(_forward_others(exchange, "Statements", refused, {"Responses": []})["Responses"])
    failure = {"Error": {"Code": "ThrottlingError", "Message": "Throughput exceeds the current capacity"}}
    return _json({"Responses": [failure if refused(*each) else next(responses) for each in enumerate(statements)]})


def _refuse_keys(exchange: Exchange, refused: Refused) -> Reply:
    [(table, request)] = exchange.call.json["RequestItems"].items()
    kept = [key for index, key in enumerate(request["Keys"]) if refused(index, key)]
    others = [key for index, key in enumerate(request["Keys"]) if not refused(index, key)]
    answer: dict[str, Any] = {"Responses": {table: []}}
    if others:
        answer = json.loads(exchange.forward_changed({"RequestItems": {table: {**request, "Keys": others}}}))
    return _json({**answer, "UnprocessedKeys": {table: {**request, "Keys": kept}} if kept else {}})


def _refuse_entries(exchange: Exchange, refused: Refused) -> Reply:
    answer = _forward_others(exchange, "Entries", refused, {"Successful": []})
    failures = [
        {"Id": entry["Id"], "SenderFault": False, "Code": "InternalError", "Message": "try again"}
        for index, entry in enumerate(exchange.call.json["Entries"])
        if refused(index, entry)
    ]
    return _json({**answer, "Failed": answer.get("Failed", []) + failures})


def _forward_others(exchange: Exchange, name: str, refused: Refused, empty_answer: dict[str, Any]) -> dict[str, Any]:
    """Removes the refused items from the batch, sends the other items to AWS, and returns the response."""
    others = [item for index, item in enumerate(exchange.call.json[name]) if not refused(index, item)]
    return json.loads(exchange.forward_changed({**exchange.call.json, name: others})) if others else empty_answer


PARTIAL = {
    "dynamodb:BatchExecuteStatement": _refuse_statements,
    "dynamodb:BatchGetItem": _refuse_keys,
    "sqs:SendMessageBatch": _refuse_entries,
    "sqs:ChangeMessageVisibilityBatch": _refuse_entries,
}


def error(call: Call, status: int, code: str, message: str) -> Reply:
    """Returns an error response in the protocol of the call's service."""
    if "/operation/" in call.path:
        body = _cbor({"__type": code, "message": message})
        headers = [("Content-Type", "application/cbor"), ("smithy-protocol", "rpc-v2-cbor")]
    elif call.service in ("s3", "sns", "sts", "iam"):
        inner = f"<Code>{code}</Code><Message>{message}</Message>"
        if call.service == "s3":
            body = f"<Error>{inner}<RequestId>1</RequestId></Error>".encode()
        else:
            inner = f"<Error><Type>Sender</Type>{inner}</Error><RequestId>1</RequestId>"
            body = f"<ErrorResponse>{inner}</ErrorResponse>".encode()
        headers = [("Content-Type", "application/xml")]
    else:
        body = json.dumps({"__type": code, "message": message}).encode()
        headers = [("Content-Type", "application/x-amz-json-1.0"), ("x-amzn-ErrorType", code)]
    return Reply(status, [*headers, ("Content-Length", str(len(body)))], [body])


def _json(content: Any) -> Reply:
    body = json.dumps(content).encode()
    return Reply(200, [("Content-Type", "application/x-amz-json-1.0"), ("Content-Length", str(len(body)))], [body])


def _cbor(texts: dict[str, str]) -> bytes:
    """Returns ``texts`` encoded as a CBOR map. Each string can have at most 255 bytes in UTF-8."""

    def text(value: str) -> bytes:
        encoded = value.encode()
        return bytes([0x78, len(encoded)]) + encoded

    return bytes([0xA0 | len(texts)]) + b"".join(text(name) + text(value) for name, value in texts.items())
