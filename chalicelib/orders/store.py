"""Stores each order from the queue exactly once. Messages that cannot be stored become dead letters."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from typing import Any

from chalicelib import correlation, metrics, queues, retries
from chalicelib.errors import InvalidRequest, Unavailable, aws_errors
from chalicelib.logs import logger
from chalicelib.notifications import Notification, Publish, counted, one_line
from chalicelib.orders.listing import stored_digests
from chalicelib.orders.order import NO_TEXT, Order
from chalicelib.timeline import index_keys

# Maximum number of statements that DynamoDB accepts in one call.
STATEMENTS = 25
# Maximum number of simultaneous calls to DynamoDB. Sequential calls for a full batch could take over 30 seconds. The
# AWS client has enough connections for all threads.
WRITERS = 8
# Maximum number of times that the queue delivers a message (maxReceiveCount in the queue's redrive policy).
TRIES = 5
# Maximum length of the reason for a failure, in the log and in a dead letter.
REASON_CHARACTERS = 300

log = logger("orders")

Message = dict[str, Any]
# A message and the order that it contains.
Received = tuple[Message, Order]
# A message that could not be stored, and the reason for the failure.
Failed = tuple[Message, str]


def store_orders(
    event: dict[str, Any],
    *,
    dynamodb: Any,
    table: str,
    sqs: Any,
    queue_url: str,
    dead_letter_url: str,
    publish: Publish,
) -> dict[str, Any]:
    """Stores the orders in an SQS event. Returns ``{"batchItemFailures": [{"itemIdentifier": message id}]}``.

    If a message contains no valid order or the order cannot be written, the message is retried after 1, 2, 4 and 8
    seconds. The other messages in the event are not affected. After the last attempt, the message goes to the
    dead-letter queue with the reason.

    If a different order with the same id is already stored, the message is not retried. The conflict is reported to the
    SNS topic.
    """
    received, failed = _read(event["Records"])
    # If several messages have the same order id, the first order is written and later orders are compared with it.
    first = {order_id: group[0][1] for order_id, group in received.items()}
    inserted, existing = _insert(list(first.values()), dynamodb, table)
    digests: dict[str, str] = {}
    if existing:
        with suppress(Unavailable):
            digests = stored_digests(existing, dynamodb, table)
    conflicts: list[Received] = []
    repeated = 0
    for order_id, group in received.items():
        if order_id in inserted:
            conflicting = [(message, order) for message, order in group if order != first[order_id]]
            repeated += len(group) - len(conflicting) - 1
            log.info("order stored", extra=_about(first[order_id]))
        elif order_id in digests:
            conflicting = [(message, order) for message, order in group if not order.is_stored_as(digests[order_id])]
            repeated += len(group) - len(conflicting)
            for _, order in group:
                log.info("order stored already", extra=_about(order))
        else:
            reason = "the orders table could not store the order because of a temporary error"
            failed += [(message, reason) for message, _ in group]
            continue
        conflicts += conflicting
    metrics.emit({"OrdersStored": len(inserted), "OrdersDoubled": repeated})
    failed += _report_conflicts(conflicts, publish)
    dead = _send_to_dead_letters(
        [(message, reason) for message, reason in failed if _tries(message) >= TRIES], sqs, dead_letter_url
    )
    retried = [message for message, _ in failed if message["messageId"] not in dead]
    _delay(retried, sqs, queue_url)
    return {"batchItemFailures": [{"itemIdentifier": message["messageId"]} for message in retried]}


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
            failed.append((message, reason))
        else:
            received[order.order_id].append((message, replace(order, correlation_id=correlation_id)))
    return received, failed


def _insert(orders: list[Order], dynamodb: Any, table: str) -> tuple[set[str], list[str]]:
    """Writes each order unless its id is already stored.

    Returns the ids that were written and the ids that already existed.
    """
    inserted: set[str] = set()
    existing: list[str] = []

    def write(batch: list[Order]) -> None:
        # PartiQL's INSERT never overwrites an item. BatchWriteItem would overwrite items, and a transaction would cost
        # twice as much.
        try:
            with aws_errors():
                answer = dynamodb.batch_execute_statement(Statements=[_insertion(order, table) for order in batch])
        except Unavailable as error:
            log.warning("orders not written", extra={**_about_all(batch), "reason": str(error)})
            return
        for order, response in zip(batch, answer["Responses"], strict=True):
            code = response.get("Error", {}).get("Code")
            if code is None:
                inserted.add(order.order_id)
            elif code == "DuplicateItem":
                existing.append(order.order_id)
            else:
                log.warning("order not written", extra={**_about(order), "reason": code})

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
    return inserted, existing


def _insertion(order: Order, table: str) -> dict[str, Any]:
    item = stored_item(order)
    fields = ", ".join(f"'{name}': ?" for name in item)
    return {"Statement": f'INSERT INTO "{table}" VALUE {{{fields}}}', "Parameters": list(item.values())}


def stored_item(order: Order) -> dict[str, Any]:
    """Converts the order to a DynamoDB item."""
    return {
        "orderID": {"S": order.order_id},
        "customerID": {"S": order.customer_id},
        "items": {
            "L": [{"M": {"item": {"S": each.item}, "quantity": {"N": str(each.quantity)}}} for each in order.items]
        },
        "note": {"NULL": True} if order.note is None else {"S": order.note},
        "status": {"S": "PLACED"},
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
    except Unavailable as error:
        log.warning("conflicts not reported yet", extra={**_about_all(orders), "reason": str(error)})
        reason = f"a different order with this id is already stored, and SNS could not report the conflict: {error}"
        return [(message, reason) for message, _ in conflicts]
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
    """Retries each message after 1, 2, 4 or 8 seconds instead of after the visibility timeout of the queue."""
    receipts = [(message["receiptHandle"], retries.pause(_tries(message))) for message in messages]
    failures = queues.delay(sqs, queue_url, receipts)
    queues.raise_permanent(failures)
    for index, error in failures.items():
        # A message with an unchanged delay is retried after the visibility timeout of the queue.
        facts = {"messageId": messages[index]["messageId"], correlation.NAME: correlation.of_sqs(messages[index])}
        log.warning("could not shorten the retry delay", extra={**facts, "reason": str(error)})


def _tries(message: Message) -> int:
    return int(message["attributes"]["ApproximateReceiveCount"])


def _send_to_dead_letters(failed: list[Failed], sqs: Any, url: str) -> set[str]:
    """Sends failed messages to the dead-letter queue with the reason for each failure.

    Returns the ids of messages that SQS accepted. The redrive policy of the queue later moves all other messages to the
    dead-letter queue without a reason.
    """
    failures = queues.send(sqs, url, [_dead_letter(message, reason) for message, reason in failed])
    dead = set()
    for index, (message, reason) in enumerate(failed):
        facts = {"messageId": message["messageId"], "reason": reason, correlation.NAME: correlation.of_sqs(message)}
        if index in failures:
            log.error("message left to the redrive policy", extra={**facts, "error": str(failures[index])})
        else:
            dead.add(message["messageId"])
            log.error("message sent to the dead-letter queue", extra=facts)
    return dead


def _dead_letter(message: Message, reason: str) -> queues.Message:
    attributes = {
        "reason": {"DataType": "String", "StringValue": _attribute_text(reason)},
        "tries": {"DataType": "Number", "StringValue": str(_tries(message))},
        **correlation.sqs_attribute(correlation.of_sqs(message)),
    }
    if sent := message["attributes"].get("SentTimestamp"):
        attributes["sent"] = {"DataType": "Number", "StringValue": sent}
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
