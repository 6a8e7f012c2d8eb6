"""Announces new orders from the orders table's stream. Sends failed announcements to the failures queue."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import chain, takewhile
from typing import Any

from botocore.exceptions import ClientError, ParamValidationError

from chalicelib import correlation, queues
from chalicelib.errors import Unavailable
from chalicelib.logs import logger
from chalicelib.notifications import Notification, Publish, counted, one_line
from chalicelib.orders.replay import FindAnnounced
from chalicelib.timeline import timestamp

# Maximum time in seconds to retry an order while SNS is unavailable. Meanwhile, later orders wait in the stream.
PATIENCE_SECONDS = 120
# Time in seconds for one call to SNS and one call to SQS, including retries.
ANNOUNCEMENT_SECONDS = 30
# SNS returns one of these error codes if it refuses the content of a message. SNS may still accept other messages.
REFUSED_CONTENT = ("InvalidParameter", "InvalidParameterValue", "ParameterValueInvalid", "ValidationException")

log = logger("orders")

Record = dict[str, Any]
# A function of this type moves records to the failures queue, and returns the records that it could not move.
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

    An order that cannot be announced is set aside (moved to the failures queue). After a temporary error, an order is
    retried until it is two minutes old, and is then set aside. If SNS refuses a message's content, the batch is split
    repeatedly to isolate the rejected order. Only the rejected order is then set aside. After any other error, all
    remaining orders are set aside, because a retry would not help.

    A redrive sends an event with ``"redriven": true`` and ignores the result. If a redriven order cannot be announced
    or set aside, this function raises ``Unavailable``. Lambda then retries the event twice and finally sends it to the
    failures queue.
    """
    is_redriven = event.get("redriven") is True
    new = [record for record in event["Records"] if record.get("eventName") == "INSERT"]
    patience_end = 0 if is_redriven else now.timestamp() - PATIENCE_SECONDS
    # An order that is redriven was set aside, so it is announced without a look at the inbox.
    find = (lambda *_: set()) if is_redriven else find_announced
    left = _announce(new, publish, set_aside, find, patience_end, seconds_left)
    if left and is_redriven:
        raise Unavailable(f"{counted(len(left), 'order')} could not be announced or sent to the failures queue")
    return {"batchItemFailures": [{"itemIdentifier": left[0]["dynamodb"]["SequenceNumber"]}] if left else []}


def _announce(
    records: list[Record],
    publish: Publish,
    set_aside: SetAside,
    find_announced: FindAnnounced,
    patience_end: float,
    seconds_left: Callable[[], float],
) -> list[Record]:
    """Announces the orders in ``records`` that were not announced earlier. Returns the records to redeliver.

    If SNS is unavailable, records that were written before ``patience_end`` are set aside.
    """
    readable, left = _set_unreadable_aside(records, set_aside)
    written = {_order_id(record): _written_at(record) for record in readable}
    announced = find_announced(written, lambda: seconds_left() > ANNOUNCEMENT_SECONDS)
    if announced:
        log.info("orders announced already", extra={"orderIDs": sorted(announced)})
    new = [record for record in readable if _order_id(record) not in announced]
    groups = [new] if new else []
    is_first = True
    while groups and (is_first or seconds_left() > ANNOUNCEMENT_SECONDS):
        is_first, group = False, groups[0]
        waiting = list(chain(*groups))
        try:
            publish(_announcement(group))
        except Unavailable as error:
            given_up = list(takewhile(lambda record: _written_at(record) < patience_end, waiting))
            log.warning("orders not announced", extra={**_about_all(waiting), "reason": str(error)})
            stuck = set_aside(given_up, error) if given_up else []
            return [*stuck, *waiting[len(given_up) :], *left]
        except (ClientError, ParamValidationError, UnicodeError) as error:
            is_content = not isinstance(error, ClientError) or error.response["Error"]["Code"] in REFUSED_CONTENT
            if is_content and len(group) > 1:
                groups[:1] = [group[: len(group) // 2], group[len(group) // 2 :]]
                continue
            given_up = group if is_content else waiting
            log.error("orders refused", extra={**_about_all(given_up), "reason": str(error)})
            if stuck := set_aside(given_up, error):
                return [*stuck, *waiting[len(given_up) :], *left]
            groups = groups[1:] if is_content else []
        else:
            for record in group:
                log.info("order announced", extra=_about(record))
            groups = groups[1:]
    return [*chain(*groups), *left]


def _set_unreadable_aside(records: list[Record], set_aside: SetAside) -> tuple[list[Record], list[Record]]:
    """Moves malformed records to the failures queue. Returns the valid records and the records to redeliver.

    If a malformed record cannot be set aside, the stream redelivers all later records, so the later orders must not be
    announced yet.
    """
    readable: list[Record] = []
    for index, record in enumerate(records):
        try:
            _line(record), record["eventID"]
        except (KeyError, TypeError, AttributeError) as error:
            if set_aside([record], ValueError(f"a record without {error}")):
                return readable, records[index:]
        else:
            readable.append(record)
    return readable, []


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
    return f"- order {one_line(_order_id(record))} of customer {one_line(customer(record))}"


def customer(record: Record) -> str:
    """Returns the customer's id from a stream record, or ``unknown``."""
    name: str = record["dynamodb"].get("NewImage", {}).get("customerID", {}).get("S", "unknown")
    return name


def _order_id(record: Record) -> str:
    order_id: str = record["dynamodb"]["Keys"]["orderID"]["S"]
    return order_id


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


def set_aside_with(sqs: Any, url: str, context: Any, now: datetime) -> SetAside:
    """Returns a function that sends each order to the failures queue in a separate message.

    The messages have Lambda's format for failed events. The same code can then read and redrive all failures.
    ``context`` is the Lambda context.
    """

    def set_aside(records: Sequence[Record], error: Exception) -> list[Record]:
        messages: list[queues.Message] = [(json.dumps(_failure(record, error, context, now)), {}) for record in records]
        failures = queues.send(sqs, url, messages)
        for index, record in enumerate(records):
            facts = {"eventID": record.get("eventID"), correlation.NAME: correlation.of_order(record)}
            if index in failures:
                log.error("order not set aside", extra={**facts, "reason": str(failures[index])})
            else:
                log.error("order set aside", extra={**facts, "reason": str(error)})
        return [records[index] for index in failures]

    return set_aside


def _failure(record: Record, error: Exception, context: Any, now: datetime) -> dict[str, Any]:
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
        "requestPayload": {"Records": [announced_part(record)]},
        "responsePayload": {"errorType": type(error).__name__, "errorMessage": str(error)},
    }
