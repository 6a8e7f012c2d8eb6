"""Parses SQS messages into dead letters, each with a description for people and a destination for a redrive.

Each message in the dead-letter queue for orders contains one order. A message in the failures queue has one of four
formats. Lambda sends an event that a function could not process, or the position of a failed batch in the orders
table's stream. SNS sends a notification that it could not deliver. EventBridge Scheduler sends a scheduled report that
it could not start. Only ``Letter.send`` calls AWS.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from chalicelib import correlation, facts, queues
from chalicelib.dead_letters import descriptions, reasons
from chalicelib.dead_letters.descriptions import one_line, without_none
from chalicelib.dead_letters.destinations import (
    Aws,
    CannotRedrive,
    Destination,
    Execution,
    Invocation,
    Publication,
    Result,
    StreamPart,
    reason,
)
from chalicelib.errors import InvalidRequest
from chalicelib.fields import whole_number
from chalicelib.logs import logger
from chalicelib.notifications import Notification, counted
from chalicelib.orders.order import Order
from chalicelib.settings import Settings
from chalicelib.timeline import timestamp

# EventBridge Scheduler replaces this placeholder with the execution id.
EXECUTION_ID = "<aws.scheduler.execution-id>"

# SNS letters with this attribute come from the subscription of one of our own functions.
SUBSCRIBER = "subscriber"
# This module reads these attributes of failures, so a message that moves to another queue must keep them.
ATTRIBUTES = (
    *(SUBSCRIBER, "ErrorMessage", "SCHEDULED_TIME", "EXECUTION_ID"),
    *("RETRY_ATTEMPTS", "EXHAUSTED_RETRY_CONDITION", "ERROR_CODE", "ERROR_MESSAGE"),
)
# This dictionary maps each asynchronously invoked function to a kind of dead letter.
FUNCTIONS = {
    "announce_orders": "announcement",
    "receive_upload": "upload",
    "record_notification": "notification",
    "record_alarm": "alarm",
}
KINDS = ("order", *FUNCTIONS.values(), "stream", "report", "unknown")

log = logger("dead_letters")

Message = dict[str, Any]


@dataclass(frozen=True)
class Origins:
    """Identifies the resources of a deployment stage. A dead letter about any other resource has the kind ``unknown``.

    ``announce`` is the name of the Lambda function that reads the orders table's stream. ``topics`` maps the ARNs of
    SNS topics to kinds of dead letter. ``functions`` maps the names of Lambda functions to kinds of dead letter.
    ``machines`` maps the ARNs of state machines to kinds of report.
    """

    stream: str
    announce: str
    topics: Mapping[str, str]
    functions: Mapping[str, str]
    machines: Mapping[str, str]

    @classmethod
    def from_settings(cls, settings: Settings) -> Origins:
        prefix = f"cafe-{settings.cafe_stage}-"
        return cls(
            stream=settings.orders_stream_arn,
            announce=f"{prefix}announce_orders",
            topics={settings.topic_arn: "notification", settings.alarms_topic_arn: "alarm"},
            functions={prefix + name: kind for name, kind in FUNCTIONS.items()},
            machines={settings.inventory_report_arn: "inventory", settings.storage_report_arn: "storage"},
        )


@dataclass(frozen=True)
class Letter:
    """A message that failed permanently.

    ``letter`` is the id of the first dead letter about the same work. ``since`` is the time of its failure or, for an
    order, the time at which the order was sent. ``tries`` is the number of all attempts since then, or None if the
    number is unknown. ``destination`` is None if the origin of the dead letter is unknown. ``destination`` is also None
    for an order, because a redrive sends orders back to their queue in batches.

    ``retries`` counts the automatic retries since ``retried_since``. A redrive by a person resets both.
    """

    id: str
    kind: str
    what: str
    since: str
    why: str
    body: str = field(repr=False)
    tries: int | None = None
    destination: Destination | None = field(default=None, repr=False)
    correlation_ids: tuple[str, ...] = ()
    letter: str = ""
    may_pass: bool = False
    retries: int = 0
    retried_since: str = ""

    def results(self) -> list[Result]:
        """Returns what a successful redrive creates, or an empty list if that is unknown."""
        if self.kind == "order":
            try:
                return [("orders_table", Order.from_json(self.body).order_id)]
            except InvalidRequest:
                return []
        return self.destination.results() if self.destination else []

    def way_back(self) -> Destination:
        """Returns the destination. Raises ``CannotRedrive`` if it is unknown."""
        if self.destination is None:
            raise CannotRedrive("its origin is unknown")
        return self.destination

    def send(self, aws: Aws, **automatic: Any) -> None:
        """Sends the work back to where it came from. Only an automatic retry adds its count and start time."""
        self.way_back().send(aws, {"letter": self.letter, "since": self.since, "tries": self.tries, **automatic})

    def shown(self) -> dict[str, Any]:
        """Returns the fields of the dead letter for the API response."""
        names = ("id", "letter", "kind", "what", "since", "why", "tries")
        return {name: getattr(self, name) for name in names}


# --- Parsing of messages into letters ---------------------------------------------------------------------------------


def read_order(message: Message) -> Letter:
    """Parses a message from the dead-letter queue for orders."""
    given = _attributes(message)
    try:
        order = Order.from_json(message["Body"])
    except InvalidRequest as error:
        what, why = "a message that is not an order", str(error)
    else:
        what = f"order {order.order_id} of customer {order.customer_id}"
        why = "the function store_orders failed on the whole batch: see its log"
    tries = given.get("tries", "")
    return _letter(
        message,
        kind="order",
        letter=_first_id(given.get("letter")),
        what=what,
        why=why,
        since=_moment(given.get("sent")),
        # SQS adds no attribute to the messages that it moves itself. The receive count from SQS is not used, because
        # listing dead letters also increases that count.
        tries=int(tries) if re.fullmatch("[0-9]{1,9}", tries) else None,
        correlation_ids=without_none(correlation.of_sqs(message)),
    )


def read_failure(message: Message, origins: Origins) -> Letter:
    """Parses a message from the retries queue or the failures queue.

    A message in an unknown format, or that the code cannot handle, gets the kind ``unknown``.
    """
    why = "this deployment stage does not send messages in this format"
    try:
        if letter := _read(message, origins):
            return letter
    except Exception as error:
        log.exception("dead letter not read", extra={"messageId": message["MessageId"]})
        why = reason(error)
    return _letter(message, kind="unknown", what="a message in an unknown format", why=why)


def _letter(
    message: Message, *, what: str, why: str, since: str = "", letter: str = "", retried_since: str = "", **others: Any
) -> Letter:
    sent = _moment(message["Attributes"]["SentTimestamp"])
    return Letter(
        id=message["MessageId"],
        letter=letter or message["MessageId"],
        what=one_line(what),
        why=one_line(_attributes(message).get("reason") or why),
        since=since or sent,
        body=message["Body"],
        retried_since=retried_since or sent,
        **others,
    )


def _read(message: Message, origins: Origins) -> Letter | None:
    try:
        content = json.loads(message["Body"])
    except (ValueError, RecursionError):
        return None
    match content:
        case {"DDBStreamBatchInfo": {"streamArn": origins.stream}, "requestContext": dict()}:
            return _read_position(message, content, origins)
        case {"requestPayload": dict(), "requestContext": {"functionArn": str()}}:
            return _read_invocation(message, content, origins)
        case {"Type": "Notification", "TopicArn": str(), "MessageId": str(), "Message": str()}:
            return _read_publication(message, content, origins)
        case {"StateMachineArn": str(arn), "Name": str(), "Input": str()} if arn in origins.machines:
            return _read_execution(message, content, origins)
    return None


def _read_invocation(message: Message, content: dict[str, Any], origins: Origins) -> Letter | None:
    """https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html"""
    payload, context = content["requestPayload"], content["requestContext"]
    # The function's ARN may end in a version.
    function = context["functionArn"].split(":function:")[-1].split(":")[0]
    if function not in origins.functions:
        return None
    kind, name = origins.functions[function], function.rpartition("-")[2]
    earlier = payload.get("history") if isinstance(payload.get("history"), dict) else {}
    tries = whole_number(context.get("approximateInvokeCount"))
    # A redrive invokes the function asynchronously. Lambda then ignores the list of failed records that the function
    # returns.
    event = {**payload, "redriven": True} if kind == "announcement" else payload
    return _letter(
        message,
        kind=kind,
        letter=_first_id(earlier.get("letter")),
        what=descriptions.event(kind, payload, function),
        since=_moment(earlier.get("since")) or _moment(content.get("timestamp")),
        tries=tries if tries is None else tries + (whole_number(earlier.get("tries")) or 0),
        destination=Invocation(function, event),
        correlation_ids=descriptions.correlation_ids(kind, payload),
        retries=whole_number(earlier.get("retries")) or 0,
        retried_since=_moment(earlier.get("retriedSince")),
        **reasons.of_invocation(name, context, content.get("responsePayload"))._asdict(),
    )


def _read_publication(message: Message, content: dict[str, Any], origins: Origins) -> Letter | None:
    """https://docs.aws.amazon.com/sns/latest/dg/sns-dead-letter-queues.html"""
    topic = content["TopicArn"]
    if topic not in origins.topics:
        return None
    kind = origins.topics[topic]
    attributes = {}
    for name in ("kind", "key", facts.NAME):
        match content:
            case {"MessageAttributes": dict(given)} if isinstance(given.get(name), dict):
                attributes[name] = str(given[name].get("Value") or "")
    subject = str(content.get("Subject") or "")
    notification = Notification(
        kind=attributes.get("kind") or ("alarm" if kind == "alarm" else "other"),
        # If a notification has no key, the SNS message id becomes the key, as in the inbox.
        key=attributes.get("key") or content["MessageId"],
        subject=subject,
        message=content["Message"],
        # The SMS contains only the subject, because the message text may contain a secret link to a report.
        sms=subject or "Cafe",
        correlation_ids=correlation.of_sns(content),
        facts=facts.read(attributes.get(facts.NAME)),
    )
    given = _attributes(message)
    destination: Destination = Publication(topic, notification)
    if SUBSCRIBER in given:
        # Publishing again would repeat the message to all other subscribers.
        [function] = [name for name, each in origins.functions.items() if each == kind]
        record = {"EventSource": "aws:sns", "Sns": {"Subject": None, "MessageAttributes": {}, **content}}
        destination = Invocation(function, {"Records": [record]})
    return _letter(
        message,
        kind=kind,
        what=f"{kind} {descriptions.notification(content)}",
        since=_moment(content.get("Timestamp")),
        destination=destination,
        correlation_ids=notification.correlation_ids,
        **reasons.of_delivery(given)._asdict(),
    )


def _read_position(message: Message, content: dict[str, Any], origins: Origins) -> Letter | None:
    """https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html"""
    info, context = content["DDBStreamBatchInfo"], content["requestContext"]
    shard, start, end = (str(info.get(name)) for name in ("shardId", "startSequenceNumber", "endSequenceNumber"))
    if not (re.fullmatch("[0-9]{1,40}", start) and re.fullmatch("[0-9]{1,40}", end)):
        return None
    size = whole_number(info.get("batchSize")) or 1
    first = _moment(info.get("approximateArrivalOfFirstRecord"))
    return _letter(
        message,
        kind="stream",
        what=f"{counted(size, 'change')} of the orders table" + (f", the first at {first}" if first else ""),
        since=_moment(content.get("timestamp")),
        why="the function announce_orders failed on the whole batch, until Lambda gave up: see its log",
        tries=whole_number(context.get("approximateInvokeCount")),
        # The stream keeps the changes for only an hour longer, so they are read as soon as possible.
        may_pass=True,
        destination=StreamPart(origins.stream, shard, start, end, origins.announce),
    )


def _read_execution(message: Message, content: dict[str, Any], origins: Origins) -> Letter:
    """https://docs.aws.amazon.com/scheduler/latest/UserGuide/configuring-schedule-dlq.html"""
    given = _attributes(message)
    name = content["Name"].replace(EXECUTION_ID, given.get("EXECUTION_ID", ""))
    retries = given.get("RETRY_ATTEMPTS", "")
    return _letter(
        message,
        kind="report",
        what=f"the scheduled {origins.machines[content['StateMachineArn']]} report {name}",
        since=_moment(given.get("SCHEDULED_TIME")),
        tries=int(retries) + 1 if re.fullmatch("[0-9]{1,9}", retries) else None,
        destination=Execution(content["StateMachineArn"], name, content["Input"]),
        # No request started a scheduled execution, so the correlation id is the name of the execution.
        correlation_ids=without_none(name),
        **reasons.of_schedule(given)._asdict(),
    )


# --- Attributes and times ---------------------------------------------------------------------------------------------


def _moment(given: Any) -> str:
    """Converts an ISO 8601 time or a Unix time in milliseconds to a timestamp.

    Returns an empty string for any other value.
    """
    try:
        if re.fullmatch("[0-9]{1,15}", given):
            return timestamp(datetime.fromtimestamp(int(given) / 1000, UTC))
        moment = datetime.fromisoformat(given)
        return timestamp(moment) if moment.tzinfo else ""
    except (TypeError, ValueError, OverflowError):
        return ""


def _attributes(message: Message) -> dict[str, str]:
    return {name: str(each.get("StringValue") or "") for name, each in message.get("MessageAttributes", {}).items()}


def _first_id(given: Any) -> str:
    """Returns the id of the first dead letter, which a redrive adds to the message, or an empty string."""
    return given if isinstance(given, str) and queues.MESSAGE_ID.fullmatch(given) else ""
