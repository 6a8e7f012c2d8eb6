"""Announces new, corrected and cancelled orders from the orders table's stream.

Sends an order that fails alone to the retries queue.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import chain
from typing import Any

from chalicelib import correlation, queues
from chalicelib.errors import Unavailable, is_final
from chalicelib.logs import logger
from chalicelib.notifications import Notification, Publish, counted, one_line
from chalicelib.orders.order import CORRECTED, PLACED
from chalicelib.orders.replay import FindAnnounced, name_of_change
from chalicelib.timeline import timestamp

# A temporary error is blamed on SNS, and not on a single order, until the first order of the batch is this old.
PATIENCE_SECONDS = 120
# Maximum number of failed calls in a row during an outage. It is enough to find two bad orders among 100.
FAILED_CALLS = 10
# Time in seconds for one call to SNS and one call to SQS, including retries.
ANNOUNCEMENT_SECONDS = 30
# The other changes, READY and SERVED, are not announced.
ANNOUNCED_CHANGES = (CORRECTED, "CANCELLED")
# Maximum number of characters of a corrected order's items, and of its note. 100 such orders fit into one notification
# and into one event of a redrive.
SUMMARY_CHARACTERS = 200
# The attributes of an order that an announcement needs, and their types in DynamoDB.
IMAGE = {"customerID": "S", correlation.NAME: "S", "lastChange": "S", "version": "N", "changedBy": "S"}

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
    """Publishes one notification for all new, corrected and cancelled orders in a batch from the stream.

    Ignores all other records, such as those of deleted orders.

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
    new = [record for record in event["Records"] if announced_change(record)]
    # A redriven order was set aside, so it is announced without a look at the inbox.
    written = {} if is_redriven else {identity(record): _written_at(record) for record in new}
    announced = find_announced(written, lambda: seconds_left() > ANNOUNCEMENT_SECONDS)
    if announced:
        log.info("orders announced already", extra={"orderIDs": sorted(announced)})
    new = [record for record in new if identity(record) not in announced]
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


def announced_change(record: Any) -> str:
    """Returns PLACED, CORRECTED or CANCELLED, or an empty string for a record that is not announced."""
    match record:
        case {"eventName": "INSERT"}:
            return PLACED
        case {"eventName": "MODIFY", "dynamodb": {"NewImage": {"lastChange": {"S": change}}}}:
            return change if change in ANNOUNCED_CHANGES else ""
    return ""


def identity(record: Record) -> str:
    """Returns the name by which an announced order or change is found in the inbox, or an empty string."""
    order_id, change = _order_id(record), announced_change(record)
    if change == PLACED or not order_id:
        return order_id
    return name_of_change(order_id, _of_image(record, "version", "N"), change)


def _announcement(records: list[Record]) -> Notification:
    counts = _counts(records)
    event_ids = " ".join(record["eventID"] for record in records)
    placed = [_order_id(record) for record in records if announced_change(record) == PLACED]
    changes = [_fact(record) for record in records if announced_change(record) != PLACED]
    return Notification(
        kind="order",
        key=f"orders/{hashlib.sha256(event_ids.encode()).hexdigest()[:32]}",
        subject=counts,
        message=f"{counts}:\n" + "\n".join(map(_line, records)),
        sms=counts,
        # Duplicates are removed, because orders from one request have the same correlation id.
        correlation_ids=tuple(dict.fromkeys(filter(None, map(correlation.of_order, records)))),
        facts={
            "outcome": "placed" if placed else "changed",
            "orderIDs": placed,
            **({"changes": changes} if changes else {}),
        },
    )


def _counts(records: list[Record]) -> str:
    """Returns the number of orders of each kind, such as ``2 new orders, 1 cancelled`` or ``1 order corrected``."""
    numbers = Counter(map(announced_change, records))
    parts = [counted(numbers[PLACED], "new order")] if numbers[PLACED] else []
    for change in filter(numbers.get, ANNOUNCED_CHANGES):
        number = numbers[change]
        parts.append(f"{number if parts else counted(number, 'order')} {change.lower()}")
    return ", ".join(parts)


def _fact(record: Record) -> list[Any]:
    return [_order_id(record), int(_of_image(record, "version", "N")), announced_change(record)]


def _line(record: Record) -> str:
    change = announced_change(record)
    line = f"- order {one_line(record['dynamodb']['Keys']['orderID']['S'])} of customer {one_line(customer(record))}"
    if change == PLACED:
        return line
    line += f" was {change.lower()} by {one_line(_of_image(record, 'changedBy') or 'unknown')}"
    return line if change != CORRECTED else f"{line}: {one_line(_summary(record['dynamodb']['NewImage']))}"


def _summary(image: dict[str, Any]) -> str:
    """Returns what an order is after a correction, such as ``2 × Latte, 1 × Mocha; note: no sugar``, on one line."""
    if "summary" in image:
        return str(image["summary"]["S"])
    items = ", ".join(f"{each['M']['quantity']['N']} × {each['M']['item']['S']}" for each in image["items"]["L"])
    note = _shortened(image["note"].get("S", ""))
    return _shortened(items) + (f"; note: {note}" if note else "")


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SUMMARY_CHARACTERS else line[: SUMMARY_CHARACTERS - 1] + "…"


def customer(record: Record) -> str:
    """Returns the customer's id from a stream record, or ``unknown``."""
    return _of_image(record, "customerID") or "unknown"


def _of_image(record: Record, name: str, kind: str = "S") -> str:
    """Returns an attribute of the order that has the DynamoDB type ``kind``, or an empty string."""
    image = record["dynamodb"].get("NewImage")
    attribute = image.get(name) if isinstance(image, dict) else None
    value = attribute.get(kind) if isinstance(attribute, dict) else None
    return value if isinstance(value, str) else ""


def _order_id(record: Record) -> str:
    """Returns the id of the order, or an empty string if the record has none."""
    match record:
        case {"dynamodb": {"Keys": {"orderID": {"S": str(order_id)}}}}:
            return order_id
    return ""


def _about(record: Record) -> dict[str, Any]:
    """Returns the log fields that identify an order and its change. A new order has no version."""
    version = _of_image(record, "version", "N")
    change = {"orderID": _order_id(record), "change": announced_change(record)}
    return {**change, **({"version": int(version)} if version else {}), correlation.NAME: correlation.of_order(record)}


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
    image = {name: {kind: text} for name, kind in IMAGE.items() if change and (text := _of_image(record, name, kind))}
    if announced_change(record) == CORRECTED:
        # If the order cannot be summarised, the record is set aside without a summary.
        with suppress(KeyError, TypeError, AttributeError):
            image["summary"] = {"S": _summary(change["NewImage"])}
    if image:
        part["NewImage"] = image
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
