"""Builds AWS events and dead letters, and reads the records of a DynamoDB stream."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_plus

MOMENT = "2026-11-21T08:00:00.000Z"
Event = dict[str, Any]


def s3_event(bucket: str, key: str, etag: str, sequencer: str = "0A", size: int = 1) -> Event:
    stored = {"key": quote_plus(key, safe="/"), "size": size, "eTag": etag, "sequencer": sequencer}
    record = {"eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "eventTime": MOMENT}
    return {"Records": [{**record, "s3": {"bucket": {"name": bucket}, "object": stored}}]}


def sqs_event(*bodies: str, tries: int = 1) -> Event:
    """Returns an SQS event with these messages. Unlike AWS, MiniStack sends at most ten messages per event."""
    message: Event = {
        "attributes": {"ApproximateReceiveCount": str(tries), "SentTimestamp": f"{time.time() * 1000:.0f}"}
    }
    message |= {"receiptHandle": "none", "messageAttributes": {}, "eventSource": "aws:sqs"}
    return {"Records": [{**message, "messageId": secrets.token_hex(8), "body": body} for body in bodies]}


def sns_event(*texts: str) -> Event:
    """Returns an SNS event with one record for each text.

    Each text is both the message and the key of a notification.
    """
    message = {"Subject": "For the inbox", "Timestamp": MOMENT}
    messages = [
        {
            **{**message, "MessageId": secrets.token_hex(8), "Message": text},
            "MessageAttributes": {"key": {"Type": "String", "Value": text}},
        }
        for text in texts
    ]
    return {"Records": [{"EventSource": "aws:sns", "EventVersion": "1.0", "Sns": each} for each in messages]}


def records(streams: Any, stream: str) -> Iterator[tuple[str, Event]]:
    """Yields pairs of a shard id and a stream record."""
    for shard in streams.describe_stream(StreamArn=stream)["StreamDescription"]["Shards"]:
        position = {"StreamArn": stream, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        iterator = streams.get_shard_iterator(**position)["ShardIterator"]
        while iterator and (answer := streams.get_records(ShardIterator=iterator))["Records"]:
            yield from ((shard["ShardId"], each) for each in answer["Records"])
            iterator = answer.get("NextShardIterator")


def failed_event(function_arn: str, event: Event) -> Event:
    """Returns the dead letter that Lambda sends after the last retry of an event."""
    return {"requestContext": {"functionArn": function_arn}, "requestPayload": event}


def undelivered(topic: str, subject: str, message: str, **attributes: str) -> Event:
    """Returns the dead letter that SNS sends for an undelivered message. MiniStack's SNS never sends dead letters."""
    values = {name: {"Type": "String", "Value": value} for name, value in attributes.items()}
    letter = {"Type": "Notification", "MessageId": secrets.token_hex(8), "TopicArn": topic, "Timestamp": MOMENT}
    return {**letter, "Subject": subject, "Message": message, "MessageAttributes": values}


def failed_batch(stream: str, shard: str, start: str, end: str) -> Event:
    """Returns the dead letter that Lambda sends after the last retry of a stream batch.

    The dead letter contains only the batch's position in the stream.
    """
    info = {"streamArn": stream, "shardId": shard, "batchSize": 1, "startSequenceNumber": start}
    return {
        "requestContext": {"condition": "RetryAttemptsExhausted"},
        "DDBStreamBatchInfo": {**info, "endSequenceNumber": end},
    }
