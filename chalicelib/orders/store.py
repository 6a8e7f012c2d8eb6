"""Orders from the queue into the table, each once, and the messages that cannot be stored among the dead."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from typing import Any

from botocore.exceptions import ClientError

from chalicelib import correlation, metrics
from chalicelib.errors import InvalidRequest, Unavailable, aws_errors
from chalicelib.notifications import Notification, Publish, counted, one_line
from chalicelib.orders import NO_TEXT, SQS_ENTRIES, Order, log, stored_digests
from chalicelib.settings import first_retry_seconds
from chalicelib.timeline import index_keys

# As many as one call of DynamoDB takes.
STATEMENTS = 25
# So many calls are under way at once. One after the other, the 400 of the largest batch that Lambda hands over might
# not fit into the function's 30 seconds. Each has a connection of the client's own.
WRITERS = 8
# How often the queue delivers a message: its redrive policy's maxReceiveCount.
TRIES = 5
# A dead message has this much of the reason.
REASON_CHARACTERS = 300


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

    A message that is no order, or whose write fails, comes back after 1, 2, 4 and 8 seconds, and its neighbours are
    stored all the same. After its last try it is put on the dead-letter queue together with the reason. An order that
    contradicts the stored one is reported to the topic and not retried.
    """
    failed: list[tuple[dict[str, Any], str]] = []
    sent: dict[str, list[tuple[dict[str, Any], Order]]] = defaultdict(list)
    for message in event["Records"]:
        try:
            order = Order.from_json(message["body"])
        except InvalidRequest as error:
            facts = {"messageId": message["messageId"], "reason": str(error)}
            log.error("message refused", extra={**facts, correlation.NAME: correlation.of_sqs(message)})
            failed.append((message, str(error)))
        else:
            sent[order.order_id].append((message, replace(order, correlation_id=correlation.of_sqs(message))))

    # Of several messages with one id the first is written, and the others are compared with what is stored.
    first = {order_id: same[0][1] for order_id, same in sent.items()}
    inserted, known = _insert(list(first.values()), dynamodb, table)
    digests: dict[str, str] = {}
    if known:
        with suppress(Unavailable):
            digests = stored_digests(known, dynamodb, table)
    conflicts = []
    doubled = 0
    for order_id, same in sent.items():
        if order_id in inserted:
            conflicts += [(message, order) for message, order in same if order != first[order_id]]
            doubled += sum(order == first[order_id] for _, order in same) - 1
            log.info("order stored", extra=_about(first[order_id]))
        elif order_id in digests:
            conflicts += [(message, order) for message, order in same if order.digest() != digests[order_id]]
            doubled += sum(order.digest() == digests[order_id] for _, order in same)
            for _, order in same:
                log.info("order stored already", extra=_about(order))
        else:
            failed += [(message, "the orders table did not take it, for a reason that may pass") for message, _ in same]
    metrics.emit({"OrdersStored": len(inserted), "OrdersDoubled": doubled})
    if conflicts:
        try:
            publish(_conflict([order for _, order in conflicts]))
            # Only now: those that could not be reported come again.
            metrics.emit({"OrdersRejected": len(conflicts)})
        except Unavailable as error:
            # Their neighbours are stored, and need not come again.
            reason = f"its id is stored with other content, and that could not be reported: {error}"
            failed += [(message, reason) for message, _ in conflicts]
            orders = [order for _, order in conflicts]
            log.warning("conflicts not reported yet", extra={**_about_all(orders), "reason": str(error)})
    buried = _bury([(message, reason) for message, reason in failed if _tries(message) >= TRIES], sqs, dead_letter_url)
    again = [message for message, _ in failed if message["messageId"] not in buried]
    if again:
        _delay(again, sqs, queue_url)
    return {"batchItemFailures": [{"itemIdentifier": message["messageId"]} for message in again]}


def _insert(orders: list[Order], dynamodb: Any, table: str) -> tuple[set[str], list[str]]:
    """Writes each order unless its id is there; returns the ids new and known. The others failed."""
    inserted: set[str] = set()
    known: list[str] = []

    def write(chunk: list[Order]) -> None:
        # PartiQL's INSERT is conditional for each item, where BatchWriteItem overwrites and a transaction costs double.
        try:
            with aws_errors():
                answer = dynamodb.batch_execute_statement(Statements=[_insertion(order, table) for order in chunk])
        except Unavailable as error:
            log.warning("orders not written", extra={**_about_all(chunk), "reason": str(error)})
            return
        for order, response in zip(chunk, answer["Responses"], strict=True):
            problem = response.get("Error")
            if problem is None:
                inserted.add(order.order_id)
            elif problem["Code"] == "DuplicateItem":
                known.append(order.order_id)
            else:
                log.warning("order not written", extra={**_about(order), "reason": problem["Code"]})

    chunks = [orders[start : start + STATEMENTS] for start in range(0, len(orders), STATEMENTS)]
    if len(chunks) > 1:
        # Imported here: at most times a batch is one call.
        from concurrent.futures import ThreadPoolExecutor

        # Each in a copy of this context, for the time limit is part of it. An error ends those that have not begun.
        contexts = [copy_context() for _ in chunks]
        with ThreadPoolExecutor(WRITERS, thread_name_prefix="store") as pool:
            list(pool.map(lambda context, chunk: context.run(write, chunk), contexts, chunks))
    else:
        for chunk in chunks:
            write(chunk)
    return inserted, known


def _about(order: Order) -> dict[str, Any]:
    """For a log record."""
    return {"orderID": order.order_id, correlation.NAME: order.correlation_id}


def _about_all(orders: list[Order]) -> dict[str, Any]:
    return {
        "orderIDs": [order.order_id for order in orders],
        correlation.NAMES: [order.correlation_id for order in orders],
    }


def _insertion(order: Order, table: str) -> dict[str, Any]:
    item = stored_item(order)
    fields = ", ".join(f"'{name}': ?" for name in item)
    return {"Statement": f'INSERT INTO "{table}" VALUE {{{fields}}}', "Parameters": list(item.values())}


def stored_item(order: Order) -> dict[str, Any]:
    """The order as it is in the table."""
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
        # Here the stream has it too.
        **({correlation.NAME: {"S": order.correlation_id}} if order.correlation_id else {}),
        "digest": {"S": order.digest()},
        **{name: {"S": value} for name, value in index_keys(order.placed_at, order.order_id).items()},
    }


def _conflict(orders: list[Order]) -> Notification:
    contents = " ".join(sorted(f"{order.order_id} {order.digest()}" for order in orders))
    lines = [f"- order {order.order_id} of customer {one_line(order.customer_id)}" for order in orders]
    return Notification(
        kind="order",
        key=f"order-conflict/{hashlib.sha256(contents.encode()).hexdigest()[:32]}",
        subject=counted(len(orders), "order") + " refused: the id is taken",
        message="These orders came under an id that is stored with other content. The stored one stays:\n"
        + "\n".join(lines),
        sms=counted(len(orders), "order") + " refused: the id is taken",
        correlation_ids=tuple(order.correlation_id for order in orders if order.correlation_id),
    )


def _delay(messages: list[dict[str, Any]], sqs: Any, queue_url: str) -> None:
    """Lets each failed message come back after 1, 2, 4 and 8 seconds, and not after the queue's whole time-out."""
    for start in range(0, len(messages), SQS_ENTRIES):
        chunk = messages[start : start + SQS_ENTRIES]
        entries = [
            {
                "Id": str(index),
                "ReceiptHandle": message["receiptHandle"],
                "VisibilityTimeout": first_retry_seconds() * 2 ** min(_tries(message) - 1, 3),
            }
            for index, message in enumerate(chunk)
        ]
        try:
            with aws_errors():
                sqs.change_message_visibility_batch(QueueUrl=queue_url, Entries=entries)
        except Unavailable as error:
            # Then they come back after the queue's own time-out: later, and just as surely.
            ids = [message["messageId"] for message in chunk]
            of = [correlation.of_sqs(message) for message in chunk]
            log.warning("messages not hastened", extra={"messageIds": ids, correlation.NAMES: of, "reason": str(error)})


def _tries(message: dict[str, Any]) -> int:
    return int(message["attributes"]["ApproximateReceiveCount"])


def _bury(failed: list[tuple[dict[str, Any], str]], sqs: Any, url: str) -> set[str]:
    """Puts messages on the dead-letter queue, each with the reason; returns the ids of those that are there now.

    SQS moves the others there by itself, without a reason.
    """
    buried = set()
    for message, reason in failed:
        attributes = {
            "reason": {"DataType": "String", "StringValue": _plain(reason)},
            "tries": {"DataType": "Number", "StringValue": str(_tries(message))},
        }
        if sent := message["attributes"].get("SentTimestamp"):
            attributes["sent"] = {"DataType": "Number", "StringValue": sent}
        correlation_id = correlation.of_sqs(message)
        attributes |= correlation.sqs_attribute(correlation_id)
        facts = {"messageId": message["messageId"], "reason": reason, correlation.NAME: correlation_id}
        # One by one, for a body may be as large as a whole batch.
        try:
            with aws_errors():
                sqs.send_message(QueueUrl=url, MessageBody=message["body"], MessageAttributes=attributes)
        except (ClientError, Unavailable) as error:
            log.error("dead message left to the queue", extra={**facts, "error": str(error)})
        else:
            buried.add(message["messageId"])
            log.error("message dead", extra=facts)
    return buried


def _plain(text: str) -> str:
    """``text`` as an attribute of SQS takes it: not empty, not long, and without what is no text."""
    return NO_TEXT.sub("?", text[:REASON_CHARACTERS]) or "unknown"
