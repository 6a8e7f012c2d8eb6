"""Builds the events that AWS sends to the functions, with any number of orders."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

MOMENT = "2026-11-21T03:14:15.123456Z"
ORDER = {"customerID": "ana", "items": [{"item": "flat white", "quantity": 2}, {"item": "croissant", "quantity": 1}]}


class Context:
    """Contains the parts of Lambda's context object that the functions use."""

    aws_request_id, invoked_function_arn = "1", "arn"

    def get_remaining_time_in_millis(self) -> int:
        return 900_000


def request(method: str, route: str, path: str, body: object = None, **parameters: str) -> dict[str, Any]:
    """Returns the event for a manager's request to the API."""
    return {
        "resource": route,
        "path": path,
        "pathParameters": parameters or None,
        "requestContext": {
            "httpMethod": method,
            "resourcePath": route,
            "path": f"/api{path}",
            "authorizer": {"principalId": "manager", "groups": "managers"},
        },
        "headers": {"content-type": "application/json", "host": "cafe.example"},
        "multiValueQueryStringParameters": None,
        "stageVariables": None,
        "isBase64Encoded": False,
        "body": None if body is None else json.dumps(body),
    }


def queued_orders(*order_ids: str) -> dict[str, Any]:
    """Returns a batch from the orders queue."""
    return {
        "Records": [
            {
                "messageId": order_id,
                "receiptHandle": order_id,
                "body": json.dumps({**ORDER, "orderID": order_id, "note": None, "placedAt": MOMENT}),
                "attributes": {"ApproximateReceiveCount": "1"},
                "eventSource": "aws:sqs",
            }
            for order_id in order_ids
        ]
    }


def new_ids(count: int) -> list[str]:
    return [secrets.token_urlsafe(16) for _ in range(count)]


def stored_orders(count: int = 1) -> dict[str, Any]:
    """Returns a batch from the orders table's stream."""
    changes = [
        {
            "ApproximateCreationDateTime": time.time(),
            "Keys": {"orderID": {"S": order_id}},
            "NewImage": {"orderID": {"S": order_id}, "customerID": {"S": "ana"}},
            "SequenceNumber": str(number),
        }
        for number, order_id in enumerate(new_ids(count))
    ]
    return {
        "Records": [{"eventID": secrets.token_hex(16), "eventName": "INSERT", "dynamodb": each} for each in changes]
    }


def notification(orders: int = 1) -> dict[str, Any]:
    """Returns an SNS message that announces ``orders`` orders."""
    text = "\n".join(f"- order {order_id} of customer ana" for order_id in new_ids(orders))
    sns = {"MessageId": secrets.token_hex(16), "Timestamp": MOMENT, "Subject": "new orders", "Message": text}
    return {"Records": [{"Sns": sns}]}


def failures() -> dict[str, Any]:
    """Returns a batch from the retries queue, with one failure that no retry can help."""
    function = "arn:aws:lambda:us-east-1:000000000000:function:cafe-dev-record_notification"
    error = {"errorType": "KeyError", "errorMessage": "'Message'"}
    body = {"requestContext": {"functionArn": function}, "requestPayload": notification(), "responsePayload": error}
    message = {"messageId": secrets.token_hex(16), "receiptHandle": "1", "body": json.dumps(body)}
    return {"Records": [{**message, "attributes": {"SentTimestamp": "1795230855123"}, "eventSource": "aws:sqs"}]}
