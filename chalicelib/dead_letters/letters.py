"""Parses SQS messages into dead letters, each with a description for people and a destination for a redrive.

Each message in the dead-letter queue for orders contains one order. A message in the failures queue has one of four
formats. Lambda sends an event that a function could not process, or the position of a failed batch in the orders
table's stream. SNS sends a notification that it could not deliver. EventBridge Scheduler sends a scheduled report that
it could not start. This module does not call AWS.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus

from chalicelib import correlation, facts
from chalicelib.dead_letters.destinations import Destination, Execution, Invocation, Publication, StreamPart
from chalicelib.errors import InvalidRequest
from chalicelib.fields import whole_number
from chalicelib.notifications import Notification, counted
from chalicelib.orders import announce
from chalicelib.orders.order import Order
from chalicelib.settings import Settings
from chalicelib.timeline import timestamp

TEXT_CHARACTERS = 300
NAMES_SHOWN = 3
# EventBridge Scheduler replaces this placeholder with the execution id.
EXECUTION_ID = "<aws.scheduler.execution-id>"
LINK = re.compile(r"\b[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)

# This dictionary maps each asynchronously invoked function to a kind of dead letter.
FUNCTIONS = {
    "announce_orders": "announcement",
    "receive_upload": "upload",
    "record_notification": "notification",
    "record_alarm": "alarm",
}
KINDS = ("order", *FUNCTIONS.values(), "stream", "report", "unknown")

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

    ``since`` is the time of the failure or, for an order, the time at which the order was sent. ``tries`` is the number
    of attempts, or None if the number is unknown. ``destination`` is None if the origin of the dead letter is unknown.
    ``destination`` is also None for an order, because a redrive sends orders back to their queue in batches.
    """

    id: str
    kind: str
    what: str
    since: str
    why: str
    tries: int | None
    body: str = field(repr=False)
    destination: Destination | None = field(default=None, repr=False)
    correlation_ids: tuple[str, ...] = ()

    def shown(self) -> dict[str, Any]:
        """Returns the fields of the dead letter for the API response."""
        names = ("id", "kind", "what", "since", "why", "tries")
        return {name: getattr(self, name) for name in names}


# --- Parsing of messages into letters ---------------------------------------------------------------------------------


def read_order(message: Message) -> Letter:
    """Parses a message from the dead-letter queue for orders."""
    given = message.get("MessageAttributes", {})
    try:
        order = Order.from_json(message["Body"])
    except InvalidRequest as error:
        what, why = "a message that is not an order", str(error)
    else:
        what = f"order {order.order_id} of customer {order.customer_id}"
        why = "the function store_orders failed on the whole batch: see its log"
    tries = given.get("tries", {}).get("StringValue", "")
    return Letter(
        id=message["MessageId"],
        kind="order",
        what=_text(what),
        since=_moment(given.get("sent", {}).get("StringValue")) or _sent(message),
        why=_text(given.get("reason", {}).get("StringValue") or why),
        # SQS adds no attribute to the messages that it moves itself. The receive count from SQS is not used, because
        # listing dead letters also increases that count.
        tries=int(tries) if re.fullmatch("[0-9]{1,9}", tries) else None,
        body=message["Body"],
        correlation_ids=_without_none(correlation.of_sqs(message)),
    )


def read_failure(message: Message, origins: Origins) -> Letter:
    """Parses a message from the failures queue. A message in an unknown format gets the kind ``unknown``."""
    try:
        content = json.loads(message["Body"])
    except (ValueError, RecursionError):
        content = None
    match content:
        case {"DDBStreamBatchInfo": {"streamArn": origins.stream}, "requestContext": dict()}:
            letter = _read_position(message, content, origins)
        case {"requestPayload": dict(), "requestContext": {"functionArn": str()}}:
            letter = _read_invocation(message, content, origins)
        case {"Type": "Notification", "TopicArn": str(), "MessageId": str(), "Message": str()}:
            letter = _read_publication(message, content, origins)
        case {"StateMachineArn": str(arn), "Name": str(), "Input": str()} if arn in origins.machines:
            letter = _read_execution(message, content, origins)
        case _:
            letter = None
    return letter or Letter(
        id=message["MessageId"],
        kind="unknown",
        what="a message in an unknown format",
        since=_sent(message),
        why="this deployment stage does not send messages in this format",
        tries=None,
        body=message["Body"],
    )


def _read_invocation(message: Message, content: dict[str, Any], origins: Origins) -> Letter | None:
    """https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html"""
    payload, context = content["requestPayload"], content["requestContext"]
    # The function's ARN may end in a version.
    function = context["functionArn"].split(":function:")[-1].split(":")[0]
    if function not in origins.functions:
        return None
    kind = origins.functions[function]
    error = content.get("responsePayload")
    given = [error.get("errorType"), error.get("errorMessage")] if isinstance(error, dict) else []
    why = ": ".join(str(each) for each in given if each)
    if context.get("condition") == "EventAgeExceeded":
        why = "the event expired before the function could run" + (f"; {why}" if why else "")
    # A redrive invokes the function asynchronously. Lambda then ignores the list of failed records that the function
    # returns.
    event = {**payload, "redriven": True} if kind == "announcement" else payload
    return Letter(
        id=message["MessageId"],
        kind=kind,
        what=_text(_describe_event(kind, payload, function)),
        since=_moment(content.get("timestamp")) or _sent(message),
        why=_text(why or "the function failed without reporting an error: see its log"),
        tries=whole_number(context.get("approximateInvokeCount")),
        body=message["Body"],
        destination=Invocation(function, event),
        correlation_ids=_correlation_ids(kind, payload),
    )


def _correlation_ids(kind: str, payload: dict[str, Any]) -> tuple[str, ...]:
    """Returns the correlation ids of all records in an event."""
    records = payload["Records"] if isinstance(payload.get("Records"), list) else []
    if kind == "announcement":
        return _without_none(*map(correlation.of_order, records))
    if kind == "upload":
        return _without_none(*map(correlation.of_upload, records))
    messages = [each.get("Sns") for each in records if isinstance(each, dict)]
    return tuple(each for sns in messages for each in correlation.of_sns(sns))


def _without_none(*ids: str | None) -> tuple[str, ...]:
    return tuple(filter(None, ids))


def _describe_event(kind: str, payload: dict[str, Any], function: str) -> str:
    try:
        records = payload["Records"]
        if kind == "announcement":
            names = [
                f"order {each['dynamodb']['Keys']['orderID']['S']} of customer {announce.customer(each)}"
                for each in records
            ]
        elif kind == "upload":
            names = [unquote_plus(each["s3"]["object"]["key"]) for each in records]
        else:
            names = [_describe_notification(each["Sns"]) for each in records]
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        about = ", ".join(names[:NAMES_SHOWN]) + more
    except (KeyError, TypeError, AttributeError):
        about = ""
    if not about:
        return f"an unreadable event for {function.rpartition('-')[2]}"
    return f"announcement of {about}" if kind == "announcement" else f"{kind} {about}"


def _describe_notification(sns: dict[str, Any]) -> str:
    return f"'{sns['Subject']}'" if sns.get("Subject") else f"{sns['MessageId']}, which has no subject"


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
    reason = message.get("MessageAttributes", {}).get("ErrorMessage", {}).get("StringValue")
    return Letter(
        id=message["MessageId"],
        kind=kind,
        what=_text(f"{kind} {_describe_notification(content)}"),
        since=_moment(content.get("Timestamp")) or _sent(message),
        why=_text("SNS could not deliver the message to a subscriber" + (f": {reason}" if reason else "")),
        tries=None,
        body=message["Body"],
        destination=Publication(topic, notification),
        correlation_ids=notification.correlation_ids,
    )


def _read_position(message: Message, content: dict[str, Any], origins: Origins) -> Letter | None:
    """https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html"""
    info, context = content["DDBStreamBatchInfo"], content["requestContext"]
    shard, start, end = (str(info.get(name)) for name in ("shardId", "startSequenceNumber", "endSequenceNumber"))
    if not (re.fullmatch("[0-9]{1,40}", start) and re.fullmatch("[0-9]{1,40}", end)):
        return None
    size = whole_number(info.get("batchSize")) or 1
    first = _moment(info.get("approximateArrivalOfFirstRecord"))
    return Letter(
        id=message["MessageId"],
        kind="stream",
        what=_text(f"{counted(size, 'change')} of the orders table" + (f", the first at {first}" if first else "")),
        since=_moment(content.get("timestamp")) or _sent(message),
        why=_text(f"{context.get('condition')}: the function announce_orders failed on the whole batch: see its log"),
        tries=whole_number(context.get("approximateInvokeCount")),
        body=message["Body"],
        destination=StreamPart(origins.stream, shard, start, end, origins.announce),
    )


def _read_execution(message: Message, content: dict[str, Any], origins: Origins) -> Letter:
    """https://docs.aws.amazon.com/scheduler/latest/UserGuide/configuring-schedule-dlq.html"""
    attributes = message.get("MessageAttributes", {})
    given = {name: str(attribute.get("StringValue") or "") for name, attribute in attributes.items()}
    name = content["Name"].replace(EXECUTION_ID, given.get("EXECUTION_ID", ""))
    why = ": ".join(filter(None, (given.get("ERROR_CODE"), given.get("ERROR_MESSAGE"))))
    retries = given.get("RETRY_ATTEMPTS", "")
    return Letter(
        id=message["MessageId"],
        kind="report",
        what=_text(f"the scheduled {origins.machines[content['StateMachineArn']]} report {name}"),
        since=_moment(given.get("SCHEDULED_TIME")) or _sent(message),
        why=_text(f"the report could not be started: {why}" if why else "the report could not be started"),
        tries=int(retries) + 1 if re.fullmatch("[0-9]{1,9}", retries) else None,
        body=message["Body"],
        destination=Execution(content["StateMachineArn"], name, content["Input"]),
        # No request started a scheduled execution, so the correlation id is the name of the execution.
        correlation_ids=_without_none(name),
    )


# --- Formatting of strings and times ----------------------------------------------------------------------------------


def _text(text: str) -> str:
    """Converts ``text`` to one line of at most 300 printable characters. Removes links, because they are secret."""
    line = LINK.sub("(a link)", text[: 10 * TEXT_CHARACTERS])
    line = "".join(character if character.isprintable() else "?" for character in " ".join(line.split()))
    return (line if len(line) <= TEXT_CHARACTERS else line[: TEXT_CHARACTERS - 1] + "…") or "no text"


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


def _sent(message: Message) -> str:
    return _moment(message["Attributes"]["SentTimestamp"])
