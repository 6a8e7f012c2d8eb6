"""Orders from the table's stream to the subscribers, and those that cannot be announced onto the failures queue."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import chain, takewhile
from typing import Any

from botocore.exceptions import ClientError, ParamValidationError

from chalicelib import correlation
from chalicelib.errors import Unavailable, aws_errors
from chalicelib.notifications import Notification, Publish, counted, one_line
from chalicelib.orders import SQS_ENTRIES, log
from chalicelib.timeline import timestamp

# For so long an order that SNS does not take for now stays on the stream and holds up those behind it.
PATIENCE_SECONDS = 120
# A call of SNS, and one to put on the failures queue what was not announced, each with its retries.
ANNOUNCEMENT_SECONDS = 30
# By these SNS refuses a message for what is in it, and no other one.
REFUSED_CONTENT = ("InvalidParameter", "InvalidParameterValue", "ParameterValueInvalid", "ValidationException")

Record = dict[str, Any]
# Takes records that cannot be announced and the error; returns those that it could not put by.
PutBy = Callable[[Sequence[Record], Exception], list[Record]]


def announce_orders(
    event: dict[str, Any],
    *,
    publish: Publish,
    put_by: PutBy,
    now: datetime,
    seconds_left: Callable[[], float],
) -> dict[str, Any]:
    """One notification for all the orders that a batch of the table's stream brings; changes and deletions are none.

    Returns ``{"batchItemFailures": [{"itemIdentifier": sequence number}]}`` with the first record that is not done:
    the stream brings that one and those behind it again, and none that was announced before it.

    - What may pass brings an order again until it is two minutes old; then it is put by.
    - Where SNS refuses the message itself, the batch is halved until the order that it refuses is alone. That one
      is put by, and its neighbours are announced.
    - Any other refusal will not pass by trying, so all that is left is put by at once.

    An event with ``"redriven": true`` does not come from the stream, and nobody reads its answer. So what is left then
    raises ``Unavailable``: Lambda tries twice more, and hands the event over to the failures queue.
    """
    redriven = event.get("redriven") is True
    new = [record for record in event["Records"] if record.get("eventName") == "INSERT"]
    left = _announce(new, publish, put_by, 0 if redriven else now.timestamp() - PATIENCE_SECONDS, seconds_left)
    if left and redriven:
        raise Unavailable(f"{counted(len(left), 'order')} could be neither announced nor put by for now")
    return {"batchItemFailures": [{"itemIdentifier": left[0]["dynamodb"]["SequenceNumber"]}] if left else []}


def _announce(
    new: list[Record], publish: Publish, put_by: PutBy, late: float, seconds_left: Callable[[], float]
) -> list[Record]:
    """Announces the orders; returns those that are not done. ``late`` is the time before which none has to wait."""
    left: list[Record] = []
    for record in new:
        try:
            _line(record), record["eventID"]
        except (KeyError, TypeError, AttributeError) as error:
            if left := put_by([record], ValueError(f"a record without {error}")):
                # Nothing behind it may be announced, or the stream would bring it to be announced again.
                left = new[new.index(record) :]
                break
            new = [each for each in new if each is not record]
    groups = [group] if (group := new[: len(new) - len(left)]) else []
    first = True
    while groups and (first or seconds_left() > ANNOUNCEMENT_SECONDS):
        first, group = False, groups[0]
        waiting = list(chain(*groups))
        try:
            publish(_announcement(group))
        except Unavailable as error:
            given_up = list(takewhile(lambda record: _written(record) < late, waiting))
            log.warning("orders not announced", extra={**_about_all(waiting), "reason": str(error)})
            stuck = put_by(given_up, error) if given_up else []
            return [*stuck, *waiting[len(given_up) :], *left]
        except (ClientError, ParamValidationError, UnicodeError) as error:
            content = not isinstance(error, ClientError) or error.response["Error"]["Code"] in REFUSED_CONTENT
            if content and len(group) > 1:
                groups[:1] = [group[: len(group) // 2], group[len(group) // 2 :]]
                continue
            given_up = group if content else waiting
            log.error("orders refused", extra={**_about_all(given_up), "reason": str(error)})
            if stuck := put_by(given_up, error):
                return [*stuck, *waiting[len(given_up) :], *left]
            groups = groups[1:] if content else []
        else:
            for record in group:
                log.info(
                    "order announced", extra={"orderID": _id(record), correlation.NAME: correlation.of_order(record)}
                )
            groups = groups[1:]
    return [*chain(*groups), *left]


def _announcement(records: list[Record]) -> Notification:
    new_orders = counted(len(records), "new order")
    ids = " ".join(record["eventID"] for record in records)
    return Notification(
        kind="order",
        key=f"orders/{hashlib.sha256(ids.encode()).hexdigest()[:32]}",
        subject=new_orders,
        message=f"{new_orders}:\n" + "\n".join(map(_line, records)),
        sms=new_orders,
        # One request may have brought many of them.
        correlation_ids=tuple(dict.fromkeys(filter(None, map(correlation.of_order, records)))),
    )


def _line(record: Record) -> str:
    return f"- order {one_line(_id(record))} of customer {one_line(customer(record))}"


def customer(record: Record) -> str:
    """The customer of the order that a record of the stream brings, as far as it has one."""
    name: str = record["dynamodb"].get("NewImage", {}).get("customerID", {}).get("S", "unknown")
    return name


def _id(record: Record) -> str:
    order_id: str = record["dynamodb"]["Keys"]["orderID"]["S"]
    return order_id


def _about_all(records: Iterable[Record]) -> dict[str, Any]:
    """For a log record."""
    records = list(records)
    return {"orderIDs": [*map(_id, records)], correlation.NAMES: [*map(correlation.of_order, records)]}


def _written(record: Record) -> float:
    """When it came onto the stream, in seconds since 1970."""
    return float(record["dynamodb"].get("ApproximateCreationDateTime", 0))


def announced_part(record: Record) -> Record:
    """As much of a record of the stream as it takes to announce the order: its ids, its customer, and when it came."""
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


def putter_by(sqs: Any, url: str, context: Any, now: datetime) -> PutBy:
    """A function that puts orders on the failures queue, each by its id as a message of its own.

    A message has the shape in which Lambda itself hands an event over that a function failed on. So all that waits
    there is read, and put back, in one way. ``context`` is that of the function.
    """

    def put_by(records: Sequence[Record], error: Exception) -> list[Record]:
        stuck: list[Record] = []
        for start in range(0, len(records), SQS_ENTRIES):
            chunk = records[start : start + SQS_ENTRIES]
            entries = [
                {"Id": str(index), "MessageBody": json.dumps(_failure(record, error, context, now))}
                for index, record in enumerate(chunk)
            ]
            try:
                with aws_errors():
                    answer = sqs.send_message_batch(QueueUrl=url, Entries=entries)
            except (ClientError, Unavailable) as refusal:
                about = {"orders": len(chunk), correlation.NAMES: [*map(correlation.of_order, chunk)]}
                log.error("failures queue refuses", extra={**about, "reason": str(refusal)})
                stuck += chunk
            else:
                refused = {int(failed["Id"]) for failed in answer.get("Failed", [])}
                stuck += [record for index, record in enumerate(chunk) if index in refused]
                for index, record in enumerate(chunk):
                    if index not in refused:
                        facts = {"eventID": record.get("eventID"), correlation.NAME: correlation.of_order(record)}
                        log.error("order put by", extra={**facts, "reason": str(error)})
        return stuck

    return put_by


def _failure(record: Record, error: Exception, context: Any, now: datetime) -> dict[str, Any]:
    """https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html, without a count of tries:
    the stream does not tell."""
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
