"""Receives, deletes and releases the messages in the two dead-letter queues.

SQS can show a message only by delivering it. Each API request therefore receives all dead letters, and releases the
undeleted dead letters at the end. If two requests run at the same time, each request sees only some of the dead
letters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

from chalicelib import queues
from chalicelib.dead_letters.letters import Letter, Message, Origins, read_failure, read_order
from chalicelib.errors import aws_errors
from chalicelib.logs import logger
from chalicelib.settings import Settings

# Without a wait time, SQS queries only some of its servers and may miss messages on the other servers.
WAIT_SECONDS = 1

log = logger("dead_letters")


class DeadLetterQueue:
    """A dead-letter queue. ``take`` hides messages from other requests, and ``release`` makes them visible again."""

    def __init__(self, url: str, sqs: Any, hidden_seconds: int, read: Callable[[Message], Letter]) -> None:
        self._url = url
        self._sqs = sqs
        self._hidden_seconds = hidden_seconds
        self._read = read
        # This dictionary maps the id of each held message to the message's latest receipt handle.
        self._held: dict[str, str] = {}

    def take(self, in_time: Callable[[], bool]) -> Iterator[list[Letter]]:
        """Yields all visible dead letters in lists of up to ten, while ``in_time`` returns True."""
        while in_time():
            messages = self._receive(0)
            if not messages and self._depth()[0]:
                messages = self._receive(WAIT_SECONDS)
            if not messages:
                return
            self._held |= {each["MessageId"]: each["ReceiptHandle"] for each in messages}
            yield [self._read(each) for each in messages]

    @aws_errors()
    def _receive(self, wait_seconds: int) -> list[Message]:
        answer = self._sqs.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=queues.ENTRIES,
            VisibilityTimeout=self._hidden_seconds,
            WaitTimeSeconds=wait_seconds,
            MessageSystemAttributeNames=["SentTimestamp"],
            MessageAttributeNames=["All"],
        )
        messages: list[Message] = answer.get("Messages", [])
        return messages

    def delete(self, ids: Collection[str]) -> set[str]:
        """Deletes dead letters, with one retry. Returns the ids of dead letters that could not be deleted."""
        remaining = set(ids)
        for _ in range(2):
            batch = sorted(remaining)
            failures = queues.delete(self._sqs, self._url, [self._held[each] for each in batch])
            for index, error in failures.items():
                log.warning("dead letter not deleted", extra={"messageId": batch[index], "reason": str(error)})
            remaining = {batch[index] for index in failures}
        for each in set(ids) - remaining:
            del self._held[each]
        return remaining

    def release(self) -> None:
        """Makes all held dead letters visible to other requests."""
        failures = queues.delay(self._sqs, self._url, [(handle, 0) for handle in self._held.values()])
        for error in failures.values():
            # Even if the release fails, the dead letter becomes visible when the visibility timeout ends.
            log.warning("dead letter not released", extra={"reason": str(error)})

    @property
    def held(self) -> int:
        """The number of dead letters that were received but not deleted."""
        return len(self._held)

    def count(self) -> int:
        """Returns the number of dead letters that SQS estimates, including dead letters that other requests hold."""
        return sum(self._depth())

    @aws_errors()
    def _depth(self) -> tuple[int, int]:
        return queues.depth(self._sqs, self._url)


def open_queues(settings: Settings, sqs: Any, hidden_seconds: int) -> list[DeadLetterQueue]:
    """Returns the dead-letter queue for orders and the queue for all other failures."""
    read = partial(read_failure, origins=Origins.from_settings(settings))
    return [
        DeadLetterQueue(settings.orders_dead_letter_url, sqs, hidden_seconds, read_order),
        DeadLetterQueue(settings.failures_queue_url, sqs, hidden_seconds, read),
    ]
