"""Builds dead letters in every format that the project can receive."""

from __future__ import annotations

import json
from typing import Any

from chalicelib.dead_letters.letters import Letter, Origins, read_failure, read_order
from chalicelib.orders.order import Item, Order
from tests.unit.api import app
from tests.unit.cloud import ACCOUNT, ENVIRONMENT
from tests.unit.signing import REGION

DEAD, FAILURES = ENVIRONMENT["ORDERS_DEAD_LETTER_URL"], ENVIRONMENT["FAILURES_QUEUE_URL"]
ORIGINS = Origins.from_settings(app.settings)
SENT = "2026-11-21T03:14:15.123000Z"
LINK = "https://cafe.s3.amazonaws.com/inventory/report.html?X-Amz-Signature=secret"
ORDER = Order("o-1", "Zoë", (Item("Lima", 1),), "a secret note", "2026-11-21T03:14:15.000000Z").to_json()


def read(message: dict[str, Any], queue: str) -> Letter:
    """Parses a message from one of the two dead-letter queues."""
    return read_order(message) if queue == DEAD else read_failure(message, ORIGINS)


def message(body: Any, number: int = 1, **attributes: str) -> dict[str, Any]:
    """Returns a message as SQS delivers it."""
    return {
        "MessageId": f"m-{number}",
        "ReceiptHandle": f"r-{number}",
        "Body": body if isinstance(body, str) else json.dumps(body),
        "Attributes": {"SentTimestamp": "1795230855123", "ApproximateReceiveCount": "77"},
        "MessageAttributes": {name: {"StringValue": value} for name, value in attributes.items()},
    }


def invocation(function: str, payload: Any, error: Any = None, **context: Any) -> dict[str, Any]:
    """Returns Lambda's failure record for an event that a function could not process.

    See https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
    """
    return {
        "version": "1.0",
        "timestamp": "2026-11-21T04:00:00.500Z",
        "requestContext": {
            "requestId": "e4b46cbf-b738-4880-8a18-0acd9e1bc2a3",
            "functionArn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:cafe-test-{function}:$LATEST",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 3,
            **context,
        },
        "requestPayload": payload,
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "responsePayload": error or {"errorType": "DatabaseUnavailable", "errorMessage": "MySQL does not answer"},
    }


def s3_event(*keys: str) -> dict[str, Any]:
    return {"Records": [{"s3": {"object": {"key": key}}} for key in keys]}


def sns_event(**fields: Any) -> dict[str, Any]:
    return {"Records": [{"Sns": {"MessageId": "n-1", "Subject": "Inventory report ready", "Message": LINK, **fields}}]}


def stream_record(order_id: str = "o-1", number: int = 5, name: str = "INSERT", change: str = "") -> dict[str, Any]:
    changed = {"lastChange": {"S": change}, "version": {"N": "1"}, "changedBy": {"S": "mia"}} if change else {}
    return {
        "eventID": f"e-{order_id}",
        "eventName": name,
        "eventSourceARN": ENVIRONMENT["ORDERS_STREAM_ARN"],
        "dynamodb": {
            "ApproximateCreationDateTime": 1795230855.0,
            "Keys": {"orderID": {"S": order_id}},
            "SequenceNumber": str(number),
            "NewImage": {"customerID": {"S": "Zoë"}, **changed},
        },
    }


def envelope(**fields: Any) -> dict[str, Any]:
    """Returns the envelope that SNS sends to a subscriber or to its dead-letter queue."""
    values = {"kind": "report", "key": "report/inventory-1", "facts": '{"id": "inventory-1"}'}
    url = "https://sns.us-east-1.amazonaws.com/"
    return {
        **{"Type": "Notification", "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324"},
        **{"TopicArn": ENVIRONMENT["TOPIC_ARN"], "Subject": "Inventory report ready"},
        **{"Message": f"It opens for an hour: {LINK}", "Timestamp": "2026-11-21T03:59:59.123Z"},
        **{"SignatureVersion": "1", "Signature": "EXAMPLE", "SigningCertURL": f"{url}SimpleNotificationService.pem"},
        "UnsubscribeURL": f"{url}?Action=Unsubscribe",
        "MessageAttributes": {name: {"Type": "String", "Value": value} for name, value in values.items()},
        **fields,
    }


def position(start: str = "5", end: str = "7", **fields: Any) -> dict[str, Any]:
    """https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html"""
    record = invocation("announce_orders", None, condition="RetryAttemptsExhausted", approximateInvokeCount=101)
    record["requestContext"]["functionArn"] = record["requestContext"]["functionArn"].removesuffix(":$LATEST")
    batch = {
        **{"shardId": "shardId-00000001573689847184-864758bb", "startSequenceNumber": start, "endSequenceNumber": end},
        "approximateArrivalOfFirstRecord": "2026-11-21T03:00:00Z",
        "approximateArrivalOfLastRecord": "2026-11-21T03:00:01Z",
        **{"batchSize": 3, "streamArn": ENVIRONMENT["ORDERS_STREAM_ARN"], **fields},
    }
    kept = ("version", "timestamp", "requestContext", "responseContext")
    return {**{name: record[name] for name in kept}, "DDBStreamBatchInfo": batch}


def schedule(**fields: str) -> dict[str, str]:
    """https://docs.aws.amazon.com/scheduler/latest/UserGuide/configuring-schedule-dlq.html"""
    name = "storage-<aws.scheduler.execution-id>"
    return {"StateMachineArn": ENVIRONMENT["STORAGE_REPORT_ARN"], "Name": name, "Input": "{}", **fields}


NOT_STARTED = {
    "SCHEDULE_ARN": f"arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule/default/cafe-test-storage-report",
    "SCHEDULED_TIME": "2026-11-21T06:00:00Z",
    "EXECUTION_ID": "d32c5kddcf5bb8c3",
    "ERROR_CODE": "AccessDeniedException",
    "ERROR_MESSAGE": "The role may not start it",
    "RETRY_ATTEMPTS": "0",
}


def lost(function: str, payload: Any, **context: Any) -> dict[str, Any]:
    """Returns a dead letter that contains Lambda's failure record for an event."""
    return message(invocation(function, payload, **context))
