"""Storing orders: from the queue into the table, each once. Messages that cannot be stored become dead letters."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from typing import Any

from chalicelib import correlation, metrics, queues
from chalicelib.errors import InvalidRequest, Unavailable, aws_errors
from chalicelib.logs import logger
from chalicelib.notifications import Notification, Publish, counted, one_line
from chalicelib.orders.listing import stored_digests
from chalicelib.orders.order import NO_TEXT, Order
from chalicelib.settings import first_retry_seconds
from chalicelib.timeline import index_keys

# DynamoDB accepts this many statements in one call.
STATEMENTS = 25
# Calls at the same time. The largest batch has 400 messages, and one call after the other could take over 30 seconds.
# Each thread has a connection of the client's own.
WRITERS = 8
# How often the queue delivers a message: the maxReceiveCount of its redrive policy.
TRIES = 5
# Maximum length of the reason in the log and in a dead letter.
REASON_CHARACTERS = 300

log = logger("orders")

Message = dict[str, Any]
# A message and its order.
Received = tuple[Message, Order]
# A message that could not be stored, and the reason.
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
    """Stores the orders of an SQS event and returns ``{"batchItemFailures": [{"itemIdentifier": message id}]}``.

    - A message without a valid order, or whose write fails, comes back after 1, 2, 4 and 8 seconds. Its neighbours are
      stored all the same. After its last try it goes to the dead-letter queue, with the reason.
    - An order whose id is stored with other content is a conflict. It is reported to the topic and not retried.
    """
    received, failed = _read(event["Records"])
    # If several messages have one id, the first is written, and the others are compared with it.
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
            conflicting = [(message, order) for message, order in group if order.digest() != digests[order_id]]
            repeated += len(group) - len(conflicting)
            for _, order in group:
                log.info("order stored already", extra=_about(order))
        else:
            reason = "the orders table did not accept it, for a reason that can pass"
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
    """Returns the messages that have an order, by its id, and those that have none."""
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
    """Writes each order unless its id is stored. Returns the new ids and the stored ones; the other writes failed."""
    inserted: set[str] = set()
    existing: list[str] = []

    def write(batch: list[Order]) -> None:
        # PartiQL's INSERT has a condition for each item. BatchWriteItem overwrites, and a transaction costs double.
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
        # Imported here, because most events fit into one batch.
        from concurrent.futures import ThreadPoolExecutor

        # A copy of the context has the time limit. An error cancels the batches that have not begun.
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
    """Returns the order as the table has it."""
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
        # The stream reads it from here.
        **({correlation.NAME: {"S": order.correlation_id}} if order.correlation_id else {}),
        "digest": {"S": order.digest()},
        **{name: {"S": value} for name, value in index_keys(order.placed_at, order.order_id).items()},
    }


def _report_conflicts(conflicts: list[Received], publish: Publish) -> list[Failed]:
    """Publishes one notification for all conflicts. Returns them as failed if that is not possible for now."""
    if not conflicts:
        return []
    orders = [order for _, order in conflicts]
    try:
        publish(_conflict_notification(orders))
    except Unavailable as error:
        log.warning("conflicts not reported yet", extra={**_about_all(orders), "reason": str(error)})
        reason = f"its id is stored with other content, and that could not be reported: {error}"
        return [(message, reason) for message, _ in conflicts]
    # Conflicts that were not reported come again, and are counted then.
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
        message="These orders have an id that is stored with other content. The stored order stays:\n"
        + "\n".join(lines),
        sms=subject,
        correlation_ids=tuple(order.correlation_id for order in orders if order.correlation_id),
        facts={"outcome": "conflict", "orderIDs": list(dict.fromkeys(order.order_id for order in orders))},
    )


def _delay(messages: list[Message], sqs: Any, queue_url: str) -> None:
    """Lets each message come back after 1, 2, 4 and 8 seconds, and not after the visibility timeout of the queue."""
    receipts = [
        (message["receiptHandle"], first_retry_seconds() * 2 ** min(_tries(message) - 1, 3)) for message in messages
    ]
    failures = queues.delay(sqs, queue_url, receipts)
    queues.raise_permanent(failures)
    for index, error in failures.items():
        # The message comes back after the visibility timeout.
        facts = {"messageId": messages[index]["messageId"], correlation.NAME: correlation.of_sqs(messages[index])}
        log.warning("could not shorten the retry delay", extra={**facts, "reason": str(error)})


def _tries(message: Message) -> int:
    return int(message["attributes"]["ApproximateReceiveCount"])


def _send_to_dead_letters(failed: list[Failed], sqs: Any, url: str) -> set[str]:
    """Sends messages to the dead-letter queue, each with its reason. Returns the ids of those that were accepted.

    SQS moves the others there by itself, without a reason.
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
    """Returns ``text`` as an SQS attribute can have it: short, not empty and without control characters."""
    return NO_TEXT.sub("?", text[:REASON_CHARACTERS]) or "unknown"


def _about(order: Order) -> dict[str, Any]:
    """Returns the fields of a log record."""
    return {"orderID": order.order_id, correlation.NAME: order.correlation_id}


def _about_all(orders: list[Order]) -> dict[str, Any]:
    return {
        "orderIDs": [order.order_id for order in orders],
        correlation.NAMES: [order.correlation_id for order in orders],
    }
