"""The records of a table's stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def records(streams: Any, stream: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each record of the stream, with the id of its shard."""
    for shard in streams.describe_stream(StreamArn=stream)["StreamDescription"]["Shards"]:
        position = {"StreamArn": stream, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        iterator = streams.get_shard_iterator(**position)["ShardIterator"]
        while iterator and (answer := streams.get_records(ShardIterator=iterator))["Records"]:
            yield from ((shard["ShardId"], each) for each in answer["Records"])
            iterator = answer.get("NextShardIterator")


def failed_batch(stream: str, shard: str, start: str, end: str) -> dict[str, Any]:
    """Returns Lambda's dead letter of a batch of the stream, which has only the batch's position."""
    return {
        "requestContext": {"condition": "RetryAttemptsExhausted"},
        "DDBStreamBatchInfo": {
            **{"streamArn": stream, "shardId": shard, "batchSize": 1},
            **{"startSequenceNumber": start, "endSequenceNumber": end},
        },
    }
