"""Stores each order from the queue exactly once. Messages that cannot be stored become dead letters."""

from __future__ import annotations

import hashlib
import re
import time
from collections import defaultdict
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from chalicelib import correlation, metrics, queues, retries
from chalicelib.errors import InvalidRequest, Unavailable, aws_errors, is_final
from chalicelib.logs import logger
from chalicelib.notifications import Notification, Publish, counted, one_line
from chalicelib.orders.listing import stored_digests
from chalicelib.orders.order import NO_TEXT, PLACED, Order, stored_items, stored_note
from chalicelib.timeline import index_keys

# Maximum number of statements that DynamoDB accepts in one call.
STATEMENTS = 25
# Maximum number of simultaneous calls to DynamoDB. Sequential calls for a full batch could take over 30 seconds. The
# AWS client has enough connections for all threads.
WRITERS = 8
# Maximum length of the reason for a failure, in the log and in a dead letter.
REASON_CHARACTERS = 300
# A redrive gives a message these attributes of its dead letter, so that the next dead letter continues its history.
HISTORY = {"tries": "[0-9]{1,9}", "sent": "[0-9]{1,15}", "letter": queues.MESSAGE_ID.pattern}

log = logger("orders")

Message = dict[str, Any]
# A message and the order that it contains.
Received = tuple[Message, Order]


class Failed(NamedTuple):
    """A message that could not be stored. If ``is_final`` is true, a retry cannot help."""

    message: Message
    reason: str
    is_final: bool = False


def store_orders(
    event: dict[str, Any],
    *,
    dynamodb: Any,
    table: str,
    sqs: Any,
    queue_url: str,
    dead_letter_url: str,
    publish: Publish,
    clock: Callable[[], float] = time.time,
) -> dict[str, Any]:
    """Stores the orders in an SQS event. Returns ``{"batchItemFailures": [{"itemIdentifier": message id}]}``.

    An order that could not be written is retried after growing pauses for 24 hours, and then goes to the dead-letter
    queue with the reason. Even a missing permission is retried, because a deploy restores it. A message that is not an
    order, or that the code cannot handle, goes to the dead-letter queue at once. Other messages are not affected.

    If a different order with the same id is already stored, the message is not retried. The conflict is reported to the
    SNS topic.
    """
    now = clock()
    store = partial(_store, dynamodb=dynamodb, table=table, publish=publish, uncounted=set())
    failed = _store_halves(event["Records"], store)
    given_up = [
        each if each.is_final else each._replace(reason=f"retried for 24 hours; the last error: {each.reason}")
        for each in failed
        if each.is_final or _age(each.message, now) >= retries.GIVE_UP_SECONDS
    ]
    dead = _send_to_dead_letters(given_up, sqs, dead_letter_url)
    retried = [each.message for each in failed if each.message["messageId"] not in dead]
    # SQS's own metric of a message's age ignores messages that were delivered more than three times.
    metrics.emit({"WaitSeconds": max((_age(message, now) for message in retried), default=0)}, what="orders")
    _delay(retried, sqs, queue_url)
    return {"batchItemFailures": [{"itemIdentifier": message["messageId"]} for message in retried]}


def _store_halves(messages: list[Message], store: Callable[[list[Message]], list[Failed]]) -> list[Failed]:
    """Stores the orders in ``messages``. If that raises an error, stores each half separately.

    Only the messages that cause the error are therefore affected. An order that is stored twice is recognised.
    """
    try:
        return store(messages)
    except Exception as error:
        if len(messages) > 1:
            half = len(messages) // 2
            return [*_store_halves(messages[:half], store), *_store_halves(messages[half:], store)]
        facts = {"messageId": messages[0]["messageId"], correlation.NAME: correlation.of_sqs(messages[0])}
        log.exception("message not handled", extra=facts)
        advice = "a retry cannot help: fix the code, then put the message back"
        return [Failed(messages[0], f"{advice}; the error: {type(error).__name__}: {error}", is_final=True)]


def _store(messages: list[Message], dynamodb: Any, table: str, publish: Publish, uncounted: set[str]) -> list[Failed]:
    """Stores the orders. ``uncounted`` contains the ids of orders that an earlier try of this invocation has stored."""
    received, failed = _read(messages)
    # If several messages have the same order id, the first order is written and later orders are compared with it.
    first = {order_id: group[0][1] for order_id, group in received.items()}
    inserted, existing, reasons = _insert(list(first.values()), dynamodb, table, uncounted)
    digests: dict[str, str] = {}
    try:
        digests = stored_digests(existing, dynamodb, table)
    except (ClientError, Unavailable) as error:
        log.warning("stored orders not read", extra={"orderIDs": existing, "reason": str(error)})
        reasons |= dict.fromkeys(existing, _reason_to_retry(error))
    conflicts: list[Received] = []
    repeated = 0
    for order_id, group in received.items():
        if order_id in inserted:
            conflicting = [(message, order) for message, order in group if order != first[order_id]]
            repeated += len(group) - len(conflicting)
            times = {"writeMilliseconds": inserted[order_id], "tries": _deliveries(group[0][0])}
            log.info("order stored", extra={**_about(first[order_id]), **times})
        elif order_id in digests:
            conflicting = [(message, order) for message, order in group if not order.is_stored_as(digests[order_id])]
            repeated += len(group) - len(conflicting)
            for _, order in group:
                log.info("order stored already", extra=_about(order))
        else:
            reason = reasons.get(order_id, "the stored order with the same id could not be found")
            failed += [Failed(message, reason) for message, _ in group]
            continue
        conflicts += conflicting
    failed += _report_conflicts(conflicts, publish)
    stored = uncounted & (inserted.keys() | digests.keys())
    uncounted -= stored
    metrics.emit({"OrdersStored": len(stored), "OrdersDoubled": repeated - len(stored)})
    return failed


def _reason_to_retry(error: ClientError | Unavailable, problem: str = "the order could not be stored") -> str:
    """Returns the reason for a retry. Raises the error again if a retry cannot help."""
    if is_final(error):
        raise error
    return f"{problem}: {error}"


def _read(messages: list[Message]) -> tuple[dict[str, list[Received]], list[Failed]]:
    """Returns the messages with valid orders, keyed by order id, and a list of the messages without a valid order."""
    received: dict[str, list[Received]] = defaultdict(list)
    failed = []
    for message in messages:
        correlation_id = correlation.of_sqs(message)
        try:
            order = Order.from_json(message["body"])
        except InvalidRequest as error:
            reason = str(error)[:REASON_CHARACTERS]
            facts = {"messageId": message["messageId"], "reason": reason, correlation.NAME: correlation_id}
            log.error("message refused", extra=facts)
            failed.append(Failed(message, reason, is_final=True))
        else:
            received[order.order_id].append((message, replace(order, correlation_id=correlation_id)))
    return received, failed


def _insert(
    orders: list[Order], dynamodb: Any, table: str, uncounted: set[str]
) -> tuple[dict[str, int], list[str], dict[str, str]]:
    """Writes each order unless its id is already stored.

    Returns the milliseconds that the write took for each id that was written, the ids that already existed, and the
    reason for each other id. The ids that were written are in ``uncounted`` even if this raises an error.
    """
    inserted: dict[str, int] = {}
    existing: list[str] = []
    reasons: dict[str, str] = {}

    def write(batch: list[Order]) -> None:
        # PartiQL's INSERT never overwrites an item. BatchWriteItem would overwrite items, and a transaction would cost
        # twice as much.
        began = time.perf_counter()
        try:
            with aws_errors():
                answer = dynamodb.batch_execute_statement(Statements=[_insertion(order, table) for order in batch])
        except (ClientError, Unavailable) as error:
            log.warning("orders not written", extra={**_about_all(batch), "reason": str(error)})
            reasons.update(dict.fromkeys((order.order_id for order in batch), _reason_to_retry(error)))
            return
        for order, response in zip(batch, answer["Responses"], strict=True):
            if "Error" not in response:
                inserted[order.order_id] = round((time.perf_counter() - began) * 1000)
                uncounted.add(order.order_id)
            elif response["Error"]["Code"] == "DuplicateItem":
                existing.append(order.order_id)
            else:
                failure = ClientError(response, "BatchExecuteStatement")
                log.warning("order not written", extra={**_about(order), "reason": str(failure)})
                reasons[order.order_id] = _reason_to_retry(failure)

    batches = [orders[start : start + STATEMENTS] for start in range(0, len(orders), STATEMENTS)]
    if len(batches) > 1:
        # The import is inside the function because most events fit into one batch.
        from concurrent.futures import ThreadPoolExecutor

        # Copying the context passes the time limit to the threads. An error cancels the batches that have not started.
        contexts = [copy_context() for _ in batches]
        with ThreadPoolExecutor(WRITERS, thread_name_prefix="store") as pool:
            list(pool.map(lambda context, batch: context.run(write, batch), contexts, batches))
    else:
        for batch in batches:
            write(batch)
    return inserted, existing, reasons


def _insertion(order: Order, table: str) -> dict[str, Any]:
    item = stored_item(order)
    fields = ", ".join(f"'{name}': ?" for name in item)
    return {"Statement": f'INSERT INTO "{table}" VALUE {{{fields}}}', "Parameters": list(item.values())}


def stored_item(order: Order) -> dict[str, Any]:
    """Converts the order to a DynamoDB item."""
    return {
        "orderID": {"S": order.order_id},
        "customerID": {"S": order.customer_id},
        "items": stored_items(order.items),
        "note": stored_note(order.note),
        "status": {"S": PLACED},
        "placedAt": {"S": order.placed_at},
        "requestedBy": {"NULL": True} if order.requested_by is None else {"S": order.requested_by},
        # The function that announces the order reads the correlation id from the stream.
        **({correlation.NAME: {"S": order.correlation_id}} if order.correlation_id else {}),
        "digest": {"S": order.digest()},
        **{name: {"S": value} for name, value in index_keys(order.placed_at, order.order_id).items()},
    }


def _report_conflicts(conflicts: list[Received], publish: Publish) -> list[Failed]:
    """Publishes one notification for all conflicts. If SNS is unavailable, returns the conflicts as failed messages."""
    if not conflicts:
        return []
    orders = [order for _, order in conflicts]
    try:
        publish(_conflict_notification(orders))
    except (ClientError, Unavailable) as error:
        log.warning("conflicts not reported yet", extra={**_about_all(orders), "reason": str(error)})
        problem = "a different order with this id is already stored, and SNS could not report the conflict"
        reason = _reason_to_retry(error, problem)
        return [Failed(message, reason) for message, _ in conflicts]
    # Only reported conflicts are counted, because unreported conflicts are retried and counted later.
    metrics.emit({"OrdersRejected": len(conflicts)})
    return []


def _conflict_notification(orders: list[Order]) -> Notification:
    contents = " ".join(sorted(f"{order.order_id} {order.digest()}" for order in orders))
    subject = counted(len(orders), "order") + " refused: the id is taken"
    lines = [f"- order {order.order_id} of customer {one_line(order.customer_id)}" for order in orders]
    return Notification(
        kind="order",
        key=f"order-conflict/{hashlib.sha256(contents.encode()).hexdigest()[:32]}",
        subject=subject,
        message="Orders with the following ids are already stored with different content, and were not changed:\n"
        + "\n".join(lines),
        sms=subject,
        correlation_ids=tuple(order.correlation_id for order in orders if order.correlation_id),
        facts={"outcome": "conflict", "orderIDs": list(dict.fromkeys(order.order_id for order in orders))},
    )


def _delay(messages: list[Message], sqs: Any, queue_url: str) -> None:
    """Hides each message for a growing pause, which replaces the visibility timeout of the queue."""
    receipts = [(message["receiptHandle"], retries.pause(_deliveries(message))) for message in messages]
    failures = queues.delay(sqs, queue_url, receipts)
    for index, error in failures.items():
        # A message with an unchanged delay is retried after the visibility timeout of the queue.
        facts = {"messageId": messages[index]["messageId"], correlation.NAME: correlation.of_sqs(messages[index])}
        log.warning("could not set the retry delay", extra={**facts, "reason": str(error)})


def _deliveries(message: Message) -> int:
    return int(message["attributes"]["ApproximateReceiveCount"])


def _age(message: Message, now: float) -> int:
    """Returns the seconds since the message was sent. A redrive sends a new message."""
    return int(now - int(message["attributes"]["SentTimestamp"]) / 1000)


def _history(message: Message) -> dict[str, str]:
    """Returns the history that a redrive added to the message. ``letter`` is the id of the first dead letter."""
    given = {name: message["messageAttributes"].get(name, {}).get("stringValue", "") for name in HISTORY}
    return {name: text for name, text in given.items() if re.fullmatch(HISTORY[name], text)}


def _send_to_dead_letters(failed: list[Failed], sqs: Any, url: str) -> set[str]:
    """Sends failed messages to the dead-letter queue with the reason for each failure.

    Returns the ids of messages that SQS accepted. The next delivery of each other message tries again.
    """
    failures = queues.send(sqs, url, [_dead_letter(each.message, each.reason) for each in failed])
    dead = set()
    for index, (message, reason, _) in enumerate(failed):
        facts = {"messageId": message["messageId"], "reason": reason, correlation.NAME: correlation.of_sqs(message)}
        if index in failures:
            log.error("message not sent to the dead-letter queue yet", extra={**facts, "error": str(failures[index])})
        else:
            dead.add(message["messageId"])
            log.error("message sent to the dead-letter queue", extra=facts)
    return dead


def _dead_letter(message: Message, reason: str) -> queues.Message:
    """Returns a dead letter with the reason. Its ``tries`` and ``sent`` include the time before a redrive."""
    history = {"sent": message["attributes"]["SentTimestamp"], "tries": "0", **_history(message)}
    history["tries"] = str(int(history["tries"]) + _deliveries(message))
    attributes = {
        "reason": {"DataType": "String", "StringValue": _attribute_text(reason)},
        **{name: {"DataType": "String", "StringValue": text} for name, text in history.items()},
        **correlation.sqs_attribute(correlation.of_sqs(message)),
    }
    return message["body"], attributes


def _attribute_text(text: str) -> str:
    """Makes ``text`` short, nonempty and free of control characters, as SQS requires for an attribute."""
    return NO_TEXT.sub("?", text[:REASON_CHARACTERS]) or "unknown"


def _about(order: Order) -> dict[str, Any]:
    """Returns the log fields that identify an order."""
    return {"orderID": order.order_id, correlation.NAME: order.correlation_id}


def _about_all(orders: list[Order]) -> dict[str, Any]:
    return {
        "orderIDs": [order.order_id for order in orders],
        correlation.NAMES: [order.correlation_id for order in orders],
    }
