"""Creates, finds and deletes dead letters in tests.

Each test finds its own dead letters by id, and deletes them at the end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.system.events import failed_event, s3_event
from tests.system.system import System, new_id, wait_for

QUEUES = ("ORDERS_DEAD_LETTER_URL", "FAILURES_QUEUE_URL")


class Letters:
    """The dead letters of one test, found by an id from ``ids`` in their message id or body."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.ids: set[str] = set()

    def new_id(self, prefix: str = "d") -> str:
        """Returns an id for an item that may become a dead letter."""
        self.ids.add(new := new_id(prefix))
        return new

    def put(self, queue: str, body: Any) -> str:
        """Sends a message to a queue. Returns the message id."""
        text = body if isinstance(body, str) else json.dumps(body)
        sent = self.system.aws("sqs").send_message(QueueUrl=self.system.env[queue], MessageBody=text)
        self.ids.add(sent["MessageId"])
        return str(sent["MessageId"])

    def listed(self, about: str) -> list[dict[str, Any]]:
        """Lists dead letters through the API, and returns those whose id, description or error contains ``about``."""
        found = self.system.get("/dead-letters?limit=100")["deadLetters"]
        return [each for each in found if about in each["id"] + each["what"] + each["why"]]

    def one(self, about: str) -> dict[str, Any]:
        return wait_for(lambda: self.listed(about), f"a dead letter about {about}")[0]

    def redrive(self, *ids: str) -> dict[str, Any]:
        """Redrives the dead letters with these ids. Returns the API response."""
        answer = self.system.request("POST", "/dead-letters/redrive", {"ids": list(ids)})
        assert answer.status == 200, answer.text
        return dict(answer.json)

    def take_away(self) -> None:
        for queue in QUEUES:
            found = messages(self.system, queue)
            for message in found:
                if any(each in message["MessageId"] + message["Body"] for each in self.ids):
                    self.system.aws("sqs").delete_message(
                        QueueUrl=self.system.env[queue], ReceiptHandle=message["ReceiptHandle"]
                    )


@contextmanager
def own_letters(system: System) -> Iterator[Letters]:
    """Tracks one test's dead letters, and deletes them at the end, even if the test fails."""
    letters = Letters(system)
    try:
        yield letters
    finally:
        letters.take_away()


def messages(system: System, queue: str) -> list[dict[str, Any]]:
    """Returns all messages of a queue without removing them. Before reading, waits until all messages are visible."""
    sqs, url = system.aws("sqs"), system.env[queue]

    def all_visible() -> bool:
        name = "ApproximateNumberOfMessagesNotVisible"
        return sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name] == "0"

    wait_for(all_visible, f"all messages in {queue} to become visible")
    found: list[dict[str, Any]] = []
    options = {"MaxNumberOfMessages": 10, "VisibilityTimeout": 30}
    while got := sqs.receive_message(QueueUrl=url, **options).get("Messages"):
        found += got
    for each in found:
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=each["ReceiptHandle"], VisibilityTimeout=0)
    return found


def order_message(order_id: str, **fields: Any) -> dict[str, Any]:
    """Returns an order's queue message, in the format that the API sends."""
    order = {"orderID": order_id, "customerID": "Zoë", "items": [{"item": "Mocha", "quantity": 1}], "note": "a secret"}
    return {**order, "placedAt": "2026-11-21T08:00:00.000000Z", **fields}


def failed_upload(system: System, key: str) -> dict[str, Any]:
    account = system.env["ORDERS_QUEUE_ARN"].split(":")[4]
    arn = f"arn:aws:lambda:us-east-1:{account}:function:cafe-dev-receive_upload"
    return failed_event(arn, s3_event(system.env["UPLOADS_BUCKET"], key, "0"))


def take_all(system: System) -> list[str]:
    """Deletes all dead letters, because a shared stack must have none between tests. Returns the bodies."""
    sqs, bodies = system.aws("sqs"), []
    for queue in QUEUES:
        url = system.env[queue]
        while got := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            for each in got:
                bodies.append(each["Body"])
                sqs.delete_message(QueueUrl=url, ReceiptHandle=each["ReceiptHandle"])
    return bodies
