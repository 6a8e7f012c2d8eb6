"""Announces new orders from the orders table's stream. Sends an order that fails alone to the retries queue."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

from chalicelib import correlation, queues
from chalicelib.errors import Unavailable, is_final
from chalicelib.logs import logger
from chalicelib.notifications import Notification, Publish, counted, one_line
from chalicelib.orders.replay import FindAnnounced
from chalicelib.timeline import timestamp

# A temporary error is blamed on SNS, and not on a single order, until the first order of the batch is this old.
PATIENCE_SECONDS = 120
# Maximum number of failed calls in a row during an outage. It is enough to find two bad orders among 100.
FAILED_CALLS = 10
# Time in seconds for one call to SNS and one call to SQS, including retries.
ANNOUNCEMENT_SECONDS = 30

log = logger("orders")

Record = dict[str, Any]
# A function of this type moves records to the retries queue, and returns the records that it could not move.
SetAside = Callable[[Sequence[Record], Exception], list[Record]]


def announce_orders(
    event: dict[str, Any],
    *,
    publish: Publish,
    set_aside: SetAside,
    find_announced: FindAnnounced,
    now: datetime,
    seconds_left: Callable[[], float],
) -> dict[str, Any]:
    """Publishes one notification for all new orders in a batch from the stream. Ignores changed or deleted orders.

    Returns ``{"batchItemFailures": [{"itemIdentifier": sequence number}]}`` with the first unfinished record. The
    stream then redelivers this record and all later records, whose orders have not been announced.

    While SNS is unavailable or refuses access, orders wait in the stream. An order that cannot be announced while
    others can is set aside (moved to the retries queue), and so is an order whose content SNS refuses or the code
    cannot handle. Splitting the batch repeatedly isolates such an order.

    A redrive sends an event with ``"redriven": true`` and ignores the result. If a redriven order cannot be announced
    or set aside, this function raises ``Unavailable``. Lambda then retries the event twice and finally sends it to the
    retries queue.
    """
    is_redriven = event.get("redriven") is True
    new = [record for record in event["Records"] if record.get("eventName") == "INSERT"]
    # A redriven order was set aside, so it is announced without a look at the inbox.
    written = {} if is_redriven else {_order_id(record): _written_at(record) for record in new}
    announced = find_announced(written, lambda: seconds_left() > ANNOUNCEMENT_SECONDS)
    if announced:
        log.info("orders announced already", extra={"orderIDs": sorted(announced)})
    new = [record for record in new if _order_id(record) not in announced]
    left, reason = _announce(new, publish, set_aside, now.timestamp() - PATIENCE_SECONDS, seconds_left)
    if left and is_redriven:
        raise Unavailable(f"{counted(len(left), 'order')} could not be announced: {reason}")
    return {"batchItemFailures": [{"itemIdentifier": left[0]["dynamodb"]["SequenceNumber"]}] if left else []}


def _announce(
    new: list[Record],
    publish: Publish,
    set_aside: SetAside,
    patience_end: float,
    seconds_left: Callable[[], float],
) -> tuple[list[Record], str]:
    """Announces the orders in ``new``. Returns the records to redeliver and the last error.

    For temporary errors, only a batch that begins with a record from before ``patience_end`` is split.
    """
    groups = [new] if new else []
    suspects: list[tuple[Record, Exception]] = []
    is_first, failures, reason = True, 0, "there was no time left"
    while groups and (is_first or seconds_left() > ANNOUNCEMENT_SECONDS):
        is_first, group = False, groups[0]
        try:
            publish(_announcement(group))
        except Exception as error:
            failures, reason = failures + 1, str(error)
            log.warning("orders not announced", exc_info=is_final(error), extra={**_about_all(group), "reason": reason})
            is_everywhere = _written_at(group[0]) > patience_end or failures > FAILED_CALLS
            if is_everywhere and not is_final(error):
                break
            if len(group) > 1:
                groups[:1] = [group[: len(group) // 2], group[len(group) // 2 :]]
                continue
            suspects.append((group[0], error))
        else:
            failures = 0
            for record in group:
                log.info("order announced", extra=_about(record))
        del groups[0]
        # Now that another order was announced, the cause is not an outage.
        while suspects and (not failures or is_final(suspects[0][1])):
            if set_aside([suspects[0][0]], suspects[0][1]):
                # The stream redelivers all orders behind this one, so they must not be announced yet.
                return [*(record for record, _ in suspects), *chain(*groups)], reason
            del suspects[0]
    return [*(record for record, _ in suspects), *chain(*groups)], reason


def _announcement(records: list[Record]) -> Notification:
    new_orders = counted(len(records), "new order")
    event_ids = " ".join(record["eventID"] for record in records)
    return Notification(
        kind="order",
        key=f"orders/{hashlib.sha256(event_ids.encode()).hexdigest()[:32]}",
        subject=new_orders,
        message=f"{new_orders}:\n" + "\n".join(map(_line, records)),
        sms=new_orders,
        # Duplicates are removed, because orders from one request have the same correlation id.
        correlation_ids=tuple(dict.fromkeys(filter(None, map(correlation.of_order, records)))),
        facts={"outcome": "placed", "orderIDs": list(map(_order_id, records))},
    )


def _line(record: Record) -> str:
    return f"- order {one_line(record['dynamodb']['Keys']['orderID']['S'])} of customer {one_line(customer(record))}"


def customer(record: Record) -> str:
    """Returns the customer's id from a stream record, or ``unknown``."""
    name: str = record["dynamodb"].get("NewImage", {}).get("customerID", {}).get("S", "unknown")
    return name


def _order_id(record: Record) -> str:
    """Returns the id of the order, or an empty string if the record has none."""
    match record:
        case {"dynamodb": {"Keys": {"orderID": {"S": str(order_id)}}}}:
            return order_id
    return ""


def _about(record: Record) -> dict[str, Any]:
    """Returns the log fields that identify an order."""
    return {"orderID": _order_id(record), correlation.NAME: correlation.of_order(record)}


def _about_all(records: Iterable[Record]) -> dict[str, Any]:
    records = list(records)
    return {"orderIDs": [*map(_order_id, records)], correlation.NAMES: [*map(correlation.of_order, records)]}


def _written_at(record: Record) -> float:
    """Returns the Unix time at which the record was written to the stream."""
    return float(record["dynamodb"].get("ApproximateCreationDateTime", 0))


def announced_part(record: Record) -> Record:
    """Returns only the fields of a stream record that an announcement needs, such as the order id."""
    change = record["dynamodb"] if isinstance(record.get("dynamodb"), dict) else {}
    names = ("ApproximateCreationDateTime", "Keys", "SequenceNumber")
    part = {name: change[name] for name in names if name in change}
    match change:
        case {"NewImage": {"customerID": {"S": str(name)}}}:
            part["NewImage"] = {"customerID": {"S": name}}
            if correlation_id := correlation.of_order(record):
                part["NewImage"][correlation.NAME] = {"S": correlation_id}
    return {
        **{name: record[name] for name in ("eventID", "eventName", "eventSourceARN") if name in record},
        "dynamodb": part,
    }


def set_aside_with(sqs: Any, url: str, context: Any, now: datetime, event: dict[str, Any]) -> SetAside:
    """Returns a function that sends each order to the retries queue in a separate message.

    The messages have Lambda's format for failed events. The same code can then read and redrive all failures.
    ``context`` is the Lambda context. The messages keep the history of a redriven ``event``. If the
    event has several orders, each order gets its own ``letter`` id, because each is handled separately from now on.
    """

    def payload(record: Record) -> dict[str, Any]:
        part = announced_part(record)
        if "history" not in event:
            return {"Records": [part]}
        own = "" if len(event["Records"]) == 1 else f"-{part['dynamodb'].get('SequenceNumber')}"
        return {"Records": [part], "history": {**event["history"], "letter": event["history"]["letter"] + own}}

    def set_aside(records: Sequence[Record], error: Exception) -> list[Record]:
        payloads = [payload(record) for record in records]
        messages: list[queues.Message] = [(json.dumps(_failure(each, error, context, now)), {}) for each in payloads]
        failures = queues.send(sqs, url, messages)
        for index, record in enumerate(records):
            facts = {"eventID": record.get("eventID"), correlation.NAME: correlation.of_order(record)}
            if index in failures:
                log.error("order not set aside", extra={**facts, "reason": str(failures[index])})
            else:
                log.error("order set aside", extra={**facts, "reason": str(error)})
        return [records[index] for index in failures]

    return set_aside


def _failure(payload: dict[str, Any], error: Exception, context: Any, now: datetime) -> dict[str, Any]:
    """Returns a message in Lambda's format for failed events. The number of attempts is unknown and is left out.

    See https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html for the format.
    """
    return {
        "version": "1.0",
        "timestamp": timestamp(now),
        "requestContext": {
            "requestId": context.aws_request_id,
            "functionArn": context.invoked_function_arn,
            "condition": "NotAnnounced",
        },
        "requestPayload": payload,
        "responsePayload": {"errorType": type(error).__name__, "errorMessage": str(error)},
    }
