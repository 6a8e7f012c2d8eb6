"""Sends, delays and deletes any number of SQS messages in as few calls as possible.

A successful batch call may still refuse some of its entries. Each function therefore returns the failed entries with
their errors. If an entry is not in the result, SQS accepted it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from chalicelib.errors import CafeError, Unavailable, aws_errors

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

ENTRIES = 10
MESSAGE_ID = re.compile("[A-Za-z0-9-]{1,100}")
# Maximum total size of the message bodies in one call. SQS accepts 1 MiB, including the attributes.
BYTES = 1_000_000


# A message consists of a body and attributes.
Message = tuple[str, dict[str, Any]]


class EntryRefused(CafeError):
    """SQS accepted a batch call but refused one of its entries."""

    def __init__(self, operation: str, code: str) -> None:
        super().__init__(f"{operation} was refused: {code}")


# Maps the index of each failed entry to an error, sorted by index. A ``ClientError`` is a permanent error.
Failures = dict[int, "ClientError | Unavailable | EntryRefused"]


def send(sqs: Any, url: str, messages: Sequence[Message]) -> Failures:
    """Sends the messages. A message that failed with ``Unavailable`` may still have reached the queue."""
    entries = [
        {"MessageBody": body, **({"MessageAttributes": attributes} if attributes else {})}
        for body, attributes in messages
    ]
    sizes = [len(body.encode()) for body, _ in messages]
    return _call(sqs.send_message_batch, "SendMessage", url, entries, sizes)


def delay(sqs: Any, url: str, receipts: Sequence[tuple[str, int]]) -> Failures:
    """Hides received messages.

    ``receipts`` contains the receipt handle of each message and the number of seconds to hide the message.
    """
    entries = [{"ReceiptHandle": handle, "VisibilityTimeout": seconds} for handle, seconds in receipts]
    return _call(sqs.change_message_visibility_batch, "ChangeMessageVisibility", url, entries)


def delete(sqs: Any, url: str, receipts: Sequence[str]) -> Failures:
    """Deletes received messages by their receipt handles."""
    entries = [{"ReceiptHandle": handle} for handle in receipts]
    return _call(sqs.delete_message_batch, "DeleteMessage", url, entries)


def depth(sqs: Any, url: str) -> tuple[int, int]:
    """Returns the numbers of visible and hidden messages that SQS estimates."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    visible, hidden = (int(attributes[name]) for name in names)
    return visible, hidden


def raise_permanent(failures: Failures) -> None:
    """Raises the first permanent error in ``failures``, such as a missing permission."""
    from botocore.exceptions import ClientError

    for error in failures.values():
        if isinstance(error, ClientError):
            raise error


def _call(
    call: Callable[..., Any], operation: str, url: str, entries: list[dict[str, Any]], sizes: Sequence[int] = ()
) -> Failures:
    from botocore.exceptions import ClientError

    failures: Failures = {}
    for batch in _batches(sizes or [0] * len(entries)):
        numbered = [{"Id": str(index), **entries[index]} for index in batch]
        try:
            with aws_errors():
                answer = call(QueueUrl=url, Entries=numbered)
        except (ClientError, Unavailable) as error:
            failures |= dict.fromkeys(batch, error)
        else:
            failures |= {int(each["Id"]): EntryRefused(operation, each["Code"]) for each in answer.get("Failed", [])}
    return dict(sorted(failures.items()))


def _batches(sizes: Sequence[int]) -> Iterator[range]:
    """Yields the range of entry indexes for each call. An oversized entry is sent in a separate call."""
    first = total = 0
    for index, size in enumerate(sizes):
        if index > first and (index - first == ENTRIES or total + size > BYTES):
            yield range(first, index)
            first, total = index, 0
        total += size
    if first < len(sizes):
        yield range(first, len(sizes))
