"""The queues: sends, delays and deletes any number of messages in as few calls as SQS allows.

A call that succeeds can still refuse some of its entries. So each function returns the entries that failed, with the
error of each, and the others are done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from chalicelib.errors import CafeError, Unavailable, aws_errors

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

ENTRIES = 10
# SQS accepts 1 MiB per call. The rest is for the attributes.
BYTES = 1_000_000


# The body of a message, and its attributes.
Message = tuple[str, dict[str, Any]]


class EntryRefused(CafeError):
    """SQS accepted the call and refused this entry of it."""

    def __init__(self, operation: str, code: str) -> None:
        super().__init__(f"{operation} was refused: {code}")


# The index of each entry that failed, in order, and its error. A ``ClientError`` is one that does not pass by itself.
Failures = dict[int, "ClientError | Unavailable | EntryRefused"]


def send(sqs: Any, url: str, messages: Sequence[Message]) -> Failures:
    """Sends the messages. One that failed with ``Unavailable`` may be on the queue all the same."""
    entries = [
        {"MessageBody": body, **({"MessageAttributes": attributes} if attributes else {})}
        for body, attributes in messages
    ]
    sizes = [len(body.encode()) for body, _ in messages]
    return _call(sqs.send_message_batch, "SendMessage", url, entries, sizes)


def delay(sqs: Any, url: str, receipts: Sequence[tuple[str, int]]) -> Failures:
    """Hides each received message for a number of seconds from now. ``receipts`` has receipt handles and seconds."""
    entries = [{"ReceiptHandle": handle, "VisibilityTimeout": seconds} for handle, seconds in receipts]
    return _call(sqs.change_message_visibility_batch, "ChangeMessageVisibility", url, entries)


def delete(sqs: Any, url: str, receipts: Sequence[str]) -> Failures:
    """Deletes received messages by their receipt handles."""
    entries = [{"ReceiptHandle": handle} for handle in receipts]
    return _call(sqs.delete_message_batch, "DeleteMessage", url, entries)


def depth(sqs: Any, url: str) -> tuple[int, int]:
    """Returns SQS's estimates of how many messages can be received, and how many are hidden for now."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    visible, hidden = (int(attributes[name]) for name in names)
    return visible, hidden


def raise_permanent(failures: Failures) -> None:
    """Raises the first error that does not pass by itself, such as a missing permission."""
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
    """Yields the indexes of the entries of each call. An entry that is too large has a call of its own."""
    first = total = 0
    for index, size in enumerate(sizes):
        if index > first and (index - first == ENTRIES or total + size > BYTES):
            yield range(first, index)
            first, total = index, 0
        total += size
    if first < len(sizes):
        yield range(first, len(sizes))
