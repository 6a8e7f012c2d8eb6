"""Tests that SQS batches use as few calls as possible, and that every failed entry is reported."""

from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from chalicelib import queues
from chalicelib.errors import Unavailable
from chalicelib.queues import EntryRefused, Failures
from tests.unit.cloud import ENVIRONMENT, Aws

URL = ENVIRONMENT["ORDERS_QUEUE_URL"]


def send(aws: Aws, *bodies: str) -> Failures:
    return queues.send(aws.sqs, URL, [(body, {}) for body in bodies])


def refused(*ids: int) -> dict[str, Any]:
    failed = [{"Id": str(each), "Code": "InternalError", "SenderFault": False} for each in ids]
    return {"Successful": [], "Failed": failed}


def test_any_number_of_messages_is_sent_delayed_and_deleted(aws: Aws) -> None:
    bodies = [f"{number}" for number in range(23)]
    assert send(aws, *bodies) == {}
    received = aws.receive(URL)
    assert sorted(each["Body"] for each in received) == sorted(bodies)
    handles = [each["ReceiptHandle"] for each in received]
    assert queues.delay(aws.sqs, URL, [(handle, 0) for handle in handles]) == {}
    assert len(aws.receive(URL)) == 23
    assert queues.delete(aws.sqs, URL, handles) == {}
    assert aws.receive(URL) == []
    assert send(aws) == {}


@pytest.mark.parametrize(
    ("bodies", "sizes"),
    [
        (["x"] * 11, [10, 1]),
        (["☕" * 100_000] * 7, [3, 3, 1]),
        (["x" * 1_000_000, "y"], [1, 1]),
        (["y", "x" * 1_000_000], [1, 1]),
    ],
    ids=["ten", "bytes", "a large one first", "a large one last"],
)
def test_a_call_has_ten_messages_or_1_mb(aws: Aws, bodies: list[str], sizes: list[int]) -> None:
    calls = aws.calls(aws.sqs, "SendMessageBatch")
    assert send(aws, *bodies) == {}
    assert [len(call["Entries"]) for call in calls] == sizes


def test_the_entries_that_failed_are_returned_in_order_with_their_errors(aws: Aws) -> None:
    with Stubber(aws.sqs) as sqs:
        sqs.add_response("send_message_batch", refused(7, 3))
        sqs.add_client_error("send_message_batch", "ServiceUnavailable", http_status_code=503)
        sqs.add_client_error("send_message_batch", "AccessDenied", http_status_code=403)
        failures = send(aws, *["x"] * 21)
    assert list(failures) == [3, 7, *range(10, 21)]
    assert [type(failures[index]) for index in (3, 10, 20)] == [EntryRefused, Unavailable, ClientError]
    assert str(failures[3]) == "SendMessage was refused: InternalError"
    with pytest.raises(ClientError, match="AccessDenied"):
        queues.raise_permanent(failures)
    queues.raise_permanent({3: failures[3], 10: failures[10]})
