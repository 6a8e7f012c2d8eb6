"""Dead letters: what failed for good, shown to a person, and put back to where it came from.

They wait in two queues. ``orders-dead`` has the orders' messages that ``store_orders`` failed on five times. In
``failures`` is what failed behind it, in one of four shapes: an event together with a function's error, as Lambda
hands it over and ``announce_orders`` writes it; a message that SNS could not hand over to a subscriber; the position of
a batch on the orders' stream; and the start of a report that EventBridge Scheduler could not make.

A letter is deleted only after it was put back, so a call that is cut off leaves it in its queue, or has it put back
twice. Nothing comes of the second time: an order is known by its ``orderID``, a notification by its key, an upload by
its sequencer, a report by its execution's name. Two calls at the same moment share the letters: who takes one hides it
from the other.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import unquote_plus

from botocore.exceptions import ClientError, ParamValidationError

from chalicelib import correlation, facts, queues
from chalicelib.errors import CafeError, InvalidRequest, Unavailable, aws_errors
from chalicelib.fields import Fields, whole_number
from chalicelib.logs import logger
from chalicelib.notifications import Notification, counted, publisher
from chalicelib.orders import announce, store
from chalicelib.orders.order import Order
from chalicelib.settings import Settings
from chalicelib.timeline import timestamp

IDS = 100
MESSAGE_ID = re.compile(r"[A-Za-z0-9-]{1,100}")
# A redrive tells of this many that it kept, and counts the others.
KEPT_SHOWN = 100
# A list is of the oldest among so many: SQS has no order, so all have to be read to know the oldest.
LETTERS_READ = 1_000

# No call to AWS begins in the last half of the 29 seconds that API Gateway waits, and what is under way has to end.
# Nobody else sees a letter while a call may be at work on it.
LIST_SECONDS = 8
LIST_HIDDEN_SECONDS = 30
REDRIVE_SECONDS = 10
REDRIVE_HIDDEN_SECONDS = 90
# Without waiting only some of SQS's servers are asked, which may find nothing where there is something.
WAIT_SECONDS = 1

RECORDS_AT_ONCE = 100
STREAM_PAGES = 20
TEXT_CHARACTERS = 300
NAMES_SHOWN = 3
# What EventBridge Scheduler puts its own id into the place of.
EXECUTION_ID = "<aws.scheduler.execution-id>"
LINK = re.compile(r"\b[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)

# The functions that are invoked without anyone waiting, and what each of their events is called.
FUNCTIONS = {
    "announce_orders": "announcement",
    "receive_upload": "upload",
    "record_notification": "notification",
    "record_alarm": "alarm",
}
KINDS = ("order", *FUNCTIONS.values(), "stream", "report", "unknown")

log = logger("dead_letters")

Aws = Callable[[str], Any]
Message = dict[str, Any]


class Kept(CafeError):
    """A letter that cannot be put back; the message says why."""


@dataclass(frozen=True)
class Places:
    """Where dead letters wait, and where each goes back to: URLs of queues, ARNs, and names of functions.

    ``topics`` and ``functions`` have the kind of what goes back there, ``machines`` the kind of report.
    """

    orders_dead: str
    failures: str
    orders: str
    stream: str
    announce: str
    topics: Mapping[str, str]
    functions: Mapping[str, str]
    machines: Mapping[str, str]

    @classmethod
    def of(cls, settings: Settings) -> Places:
        prefix = f"cafe-{settings.cafe_stage}-"
        return cls(
            orders_dead=settings.orders_dead_letter_url,
            failures=settings.failures_queue_url,
            orders=settings.orders_queue_url,
            stream=settings.orders_stream_arn,
            announce=f"{prefix}announce_orders",
            topics={settings.topic_arn: "notification", settings.alarms_topic_arn: "alarm"},
            functions={prefix + name: kind for name, kind in FUNCTIONS.items()},
            machines={settings.inventory_report_arn: "inventory", settings.storage_report_arn: "storage"},
        )


@dataclass(frozen=True)
class Letter:
    """``since`` is the timestamp of when it failed or, for an order, was sent; ``tries`` is None where nobody counted.

    ``put_back`` takes it to where it came from, or raises. An order goes back with others, by its ``body``.
    ``correlation_ids`` are those of what it is about, and stay so when it goes back.
    """

    id: str
    kind: str
    what: str
    since: str
    why: str
    tries: int | None
    body: str = field(repr=False)
    correlation_ids: tuple[str, ...] = ()
    put_back: Callable[[Aws], None] | None = field(default=None, repr=False)

    def shown(self) -> dict[str, Any]:
        names = ("id", "kind", "what", "since", "why", "tries")
        return {name: getattr(self, name) for name in names}


# --- From a message to a letter ---------------------------------------------------------------------------------------


def read(message: Message, queue_url: str, places: Places) -> Letter:
    """The letter in a message of SQS. Whatever the message is, there is one."""
    if queue_url == places.orders_dead:
        return _order(message)
    try:
        content = json.loads(message["Body"])
    except (ValueError, RecursionError):
        content = None
    match content:
        case {"DDBStreamBatchInfo": {"streamArn": places.stream}, "requestContext": dict()}:
            letter = _position(message, content, places)
        case {"requestPayload": dict(), "requestContext": {"functionArn": str()}}:
            letter = _invocation(message, content, places)
        case {"Type": "Notification", "TopicArn": str(), "MessageId": str(), "Message": str()}:
            letter = _envelope(message, content, places)
        case {"StateMachineArn": str(arn), "Name": str(), "Input": str()} if arn in places.machines:
            letter = _start(message, content, places)
        case _:
            letter = None
    return letter or Letter(
        id=message["MessageId"],
        kind="unknown",
        what="a message of no known shape",
        since=_sent(message),
        why="nothing of this stage is known to have put it there",
        tries=None,
        body=message["Body"],
    )


def _order(message: Message) -> Letter:
    given = message.get("MessageAttributes", {})
    try:
        order = Order.from_json(message["Body"])
    except InvalidRequest as error:
        what, why = "a message that is no order", str(error)
    else:
        what = f"order {order.order_id} of customer {order.customer_id}"
        why = "store_orders failed on it as a whole: its log says why"
    tries = given.get("tries", {}).get("StringValue", "")
    return Letter(
        id=message["MessageId"],
        kind="order",
        what=_text(what),
        since=_moment(given.get("sent", {}).get("StringValue")) or _sent(message),
        why=_text(given.get("reason", {}).get("StringValue") or why),
        # What SQS moved by itself has had all its tries. How often it was looked at since then is no try.
        tries=int(tries) if re.fullmatch("[0-9]{1,9}", tries) else store.TRIES,
        body=message["Body"],
        correlation_ids=_known(correlation.of_sqs(message)),
    )


def _invocation(message: Message, content: dict[str, Any], places: Places) -> Letter | None:
    """https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html"""
    payload, context = content["requestPayload"], content["requestContext"]
    # Its ARN may end in a version.
    function = context["functionArn"].split(":function:")[-1].split(":")[0]
    if function not in places.functions:
        return None
    kind = places.functions[function]
    error = content.get("responsePayload")
    given = [error.get("errorType"), error.get("errorMessage")] if isinstance(error, dict) else []
    why = ": ".join(str(each) for each in given if each)
    if context.get("condition") == "EventAgeExceeded":
        why = "it was too old before the function could be run on it" + (f"; {why}" if why else "")
    # A batch that comes back is not the stream's: nobody would read the answer.
    event = {**payload, "redriven": True} if kind == "announcement" else payload
    return Letter(
        id=message["MessageId"],
        kind=kind,
        what=_text(_event(kind, payload, function)),
        since=_moment(content.get("timestamp")) or _sent(message),
        why=_text(why or "the function gave no reason: its log may"),
        tries=whole_number(context.get("approximateInvokeCount")),
        body=message["Body"],
        correlation_ids=_correlation_ids(kind, payload),
        put_back=partial(_invoke, function, event),
    )


def _correlation_ids(kind: str, payload: dict[str, Any]) -> tuple[str, ...]:
    """Those of all that an event is about."""
    records = payload["Records"] if isinstance(payload.get("Records"), list) else []
    if kind == "announcement":
        return _known(*map(correlation.of_order, records))
    if kind == "upload":
        return _known(*map(correlation.of_upload, records))
    return _known(
        *(found for each in records if isinstance(each, dict) for found in correlation.of_sns(each.get("Sns")))
    )


def _known(*given: str | None) -> tuple[str, ...]:
    return tuple(filter(None, given))


def _event(kind: str, payload: dict[str, Any], function: str) -> str:
    """What the event is about."""
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
            names = [_subject(each["Sns"]) for each in records]
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        about = ", ".join(names[:NAMES_SHOWN]) + more
    except (KeyError, TypeError, AttributeError):
        about = ""
    if not about:
        return f"an event of {function.rpartition('-')[2]} that cannot be read"
    return f"announcement of {about}" if kind == "announcement" else f"{kind} {about}"


def _subject(sns: dict[str, Any]) -> str:
    return f"'{sns['Subject']}'" if sns.get("Subject") else f"{sns['MessageId']}, which has no subject"


def _envelope(message: Message, content: dict[str, Any], places: Places) -> Letter | None:
    """What SNS sends to a subscriber, and to the subscription's queue of failures.

    https://docs.aws.amazon.com/sns/latest/dg/sns-dead-letter-queues.html
    """
    arn = content["TopicArn"]
    if arn not in places.topics:
        return None
    kind = places.topics[arn]
    attributes = {}
    for name in ("kind", "key", facts.NAME):
        match content:
            case {"MessageAttributes": dict(given)} if isinstance(given.get(name), dict):
                attributes[name] = str(given[name].get("Value") or "")
    subject = str(content.get("Subject") or "")
    again = Notification(
        kind=attributes.get("kind") or ("alarm" if kind == "alarm" else "other"),
        # The inbox keeps what has no key by the message's id, so this is the same there.
        key=attributes.get("key") or content["MessageId"],
        subject=subject,
        message=content["Message"],
        # Never more: a report's message has a link, and no SMS has one.
        sms=subject or "Cafe",
        correlation_ids=correlation.of_sns(content),
        facts=facts.read(attributes.get(facts.NAME)),
    )
    reason = message.get("MessageAttributes", {}).get("ErrorMessage", {}).get("StringValue")
    return Letter(
        id=message["MessageId"],
        kind=kind,
        what=_text(f"{kind} {_subject(content)}"),
        since=_moment(content.get("Timestamp")) or _sent(message),
        why=_text("SNS could not hand it over to a subscriber" + (f": {reason}" if reason else "")),
        tries=None,
        body=message["Body"],
        correlation_ids=again.correlation_ids,
        put_back=lambda aws: publisher(aws("sns"), arn)(again),
    )


def _position(message: Message, content: dict[str, Any], places: Places) -> Letter | None:
    """https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html"""
    info, context = content["DDBStreamBatchInfo"], content["requestContext"]
    shard, start, end = (str(info.get(name)) for name in ("shardId", "startSequenceNumber", "endSequenceNumber"))
    if not (re.fullmatch("[0-9]{1,40}", start) and re.fullmatch("[0-9]{1,40}", end)):
        return None
    size, came = whole_number(info.get("batchSize")), _moment(info.get("approximateArrivalOfFirstRecord"))
    return Letter(
        id=message["MessageId"],
        kind="stream",
        what=_text(f"{counted(size or 1, 'change')} of the orders table" + (f", the first at {came}" if came else "")),
        since=_moment(content.get("timestamp")) or _sent(message),
        why=_text(f"announce_orders failed on it as a whole ({context.get('condition')}): its log says why"),
        tries=whole_number(context.get("approximateInvokeCount")),
        body=message["Body"],
        put_back=partial(_replay, places, shard, start, end),
    )


def _start(message: Message, content: dict[str, Any], places: Places) -> Letter:
    """What EventBridge Scheduler would have asked Step Functions for, with the reason in the message's attributes.

    https://docs.aws.amazon.com/scheduler/latest/UserGuide/configuring-schedule-dlq.html
    """
    attributes = message.get("MessageAttributes", {})
    given = {name: str(attribute.get("StringValue") or "") for name, attribute in attributes.items()}
    name = content["Name"].replace(EXECUTION_ID, given.get("EXECUTION_ID", ""))
    why = ": ".join(filter(None, (given.get("ERROR_CODE"), given.get("ERROR_MESSAGE"))))
    retries = given.get("RETRY_ATTEMPTS", "")
    return Letter(
        id=message["MessageId"],
        kind="report",
        what=_text(f"the scheduled {places.machines[content['StateMachineArn']]} report {name}"),
        since=_moment(given.get("SCHEDULED_TIME")) or _sent(message),
        why=_text(f"it could not be started: {why}" if why else "it could not be started"),
        tries=int(retries) + 1 if re.fullmatch("[0-9]{1,9}", retries) else None,
        body=message["Body"],
        # An execution that no request has started goes by its own name.
        correlation_ids=_known(name),
        put_back=partial(_start_execution, content["StateMachineArn"], name, content["Input"]),
    )


def _text(text: str) -> str:
    """``text`` for a person: one line of at most 300 printable characters, and no link, for a link is a secret."""
    line = LINK.sub("(a link)", text[: 10 * TEXT_CHARACTERS])
    line = "".join(character if character.isprintable() else "?" for character in " ".join(line.split()))
    return (line if len(line) <= TEXT_CHARACTERS else line[: TEXT_CHARACTERS - 1] + "…") or "no word"


def _moment(given: Any) -> str:
    """A time in ISO 8601, or in milliseconds since 1970, as a timestamp; empty if it is neither."""
    try:
        if re.fullmatch("[0-9]{1,15}", given):
            return timestamp(datetime.fromtimestamp(int(given) / 1000, UTC))
        moment = datetime.fromisoformat(given)
        return timestamp(moment) if moment.tzinfo else ""
    except (TypeError, ValueError, OverflowError):
        return ""


def _sent(message: Message) -> str:
    return _moment(message["Attributes"]["SentTimestamp"])


# --- Back to where it came from ---------------------------------------------------------------------------------------


def _invoke(function: str, event: dict[str, Any], aws: Aws) -> None:
    aws("lambda").invoke(FunctionName=function, InvocationType="Event", Payload=json.dumps(event))


def _start_execution(machine: str, name: str, given: str, aws: Aws) -> None:
    sfn = aws("stepfunctions")
    # EventBridge Scheduler may have asked twice, and have had it started once.
    with suppress(sfn.exceptions.ExecutionAlreadyExists):
        sfn.start_execution(stateMachineArn=machine, name=name, input=given)


def _replay(places: Places, shard: str, start: str, end: str, aws: Aws) -> None:
    """Reads a part of the stream, which still has it for 24 hours, and has its orders announced."""
    try:
        records = _records(aws("dynamodbstreams"), places.stream, shard, start, int(end))
    except ClientError as error:
        if error.response["Error"]["Code"] in ("TrimmedDataAccessException", "ResourceNotFoundException"):
            raise Kept("the stream keeps a change for 24 hours, and these are over; the orders are stored") from error
        raise
    new = [each for each in records if each["eventName"] == "INSERT"]
    for first in range(0, len(new), RECORDS_AT_ONCE):
        _invoke(places.announce, {"Records": new[first : first + RECORDS_AT_ONCE], "redriven": True}, aws)


def _records(streams: Any, stream: str, shard: str, start: str, end: int) -> list[dict[str, Any]]:
    iterator = streams.get_shard_iterator(
        StreamArn=stream, ShardId=shard, ShardIteratorType="AT_SEQUENCE_NUMBER", SequenceNumber=start
    )["ShardIterator"]
    found: list[dict[str, Any]] = []
    for _ in range(STREAM_PAGES):
        answer = streams.get_records(ShardIterator=iterator)
        for record in answer["Records"]:
            if int(record["dynamodb"]["SequenceNumber"]) <= end:
                moment = record["dynamodb"]["ApproximateCreationDateTime"].timestamp()
                change = {**record["dynamodb"], "ApproximateCreationDateTime": moment}
                found.append(announce.announced_part({**record, "eventSourceARN": stream, "dynamodb": change}))
            if int(record["dynamodb"]["SequenceNumber"]) >= end:
                return found
        iterator = answer.get("NextShardIterator")
        if iterator is None:
            break
    raise Kept("the stream did not show all of these changes")


def _put_back(letters: list[Letter], places: Places, aws: Aws, in_time: Callable[[], bool]) -> dict[str, str]:
    """Why each letter stays that was not put back, by its id."""
    why: dict[str, str] = {}
    queued = [letter for letter in letters if letter.kind == "order"]
    if queued:
        why |= _enqueue(queued, places.orders, aws("sqs"))
    for letter in letters:
        if letter.kind == "order":
            continue
        if letter.put_back is None:
            why[letter.id] = "nobody knows where it came from"
        elif not in_time():
            why[letter.id] = "there was no time left for it: try again"
        else:
            try:
                with aws_errors():
                    letter.put_back(aws)
            except (ClientError, Unavailable, Kept) as error:
                why[letter.id] = _refusal(error)
            except (ParamValidationError, UnicodeError):
                # It was written by hand, or changed: one of these shall not keep the others from going back.
                why[letter.id] = "it has the shape of a dead letter, and no content that AWS takes"
    return why


def _enqueue(letters: list[Letter], url: str, sqs: Any) -> dict[str, str]:
    """Why each letter was not sent, by its id."""
    messages = [
        (letter.body, correlation.sqs_attribute(next(iter(letter.correlation_ids), None))) for letter in letters
    ]
    failures = queues.send(sqs, url, messages)
    return {letters[index].id: _refusal(error) for index, error in failures.items()}


def _refusal(error: Exception) -> str:
    if isinstance(error, ClientError):
        return f"{error.operation_name} was refused: {error.response['Error']['Code']}"
    return str(error)


# --- The two queues ---------------------------------------------------------------------------------------------------


class _Queue:
    """One of them. What was taken is hidden from others for a while, and seen by all again once it is released."""

    def __init__(self, url: str, sqs: Any, hidden_seconds: int) -> None:
        self.url = url
        self._sqs = sqs
        self._hidden = hidden_seconds
        # By the message's id the receipt handle of when it was last taken.
        self.held: dict[str, str] = {}

    def take(self, in_time: Callable[[], bool]) -> Iterator[list[Message]]:
        """All that can be seen, up to ten at once."""
        while in_time():
            messages = self._receive(0)
            if not messages and self._depth()[0]:
                messages = self._receive(WAIT_SECONDS)
            if not messages:
                return
            self.held |= {each["MessageId"]: each["ReceiptHandle"] for each in messages}
            yield messages

    @aws_errors()
    def _receive(self, seconds: int) -> list[Message]:
        answer = self._sqs.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=queues.ENTRIES,
            VisibilityTimeout=self._hidden,
            WaitTimeSeconds=seconds,
            MessageSystemAttributeNames=["SentTimestamp"],
            MessageAttributeNames=["All"],
        )
        messages: list[Message] = answer.get("Messages", [])
        return messages

    def delete(self, ids: Collection[str]) -> set[str]:
        """Deletes these; returns the ids of those that are still there, after a second try."""
        left = set(ids)
        for _ in range(2):
            batch = sorted(left)
            failures = queues.delete(self._sqs, self.url, [self.held[each] for each in batch])
            for index, error in failures.items():
                log.warning("dead letter not deleted", extra={"messageId": batch[index], "reason": str(error)})
            left = {batch[index] for index in failures}
        for each in set(ids) - left:
            del self.held[each]
        return left

    def release(self) -> None:
        """Lets others see at once what is held and was not deleted."""
        failures = queues.delay(self._sqs, self.url, [(handle, 0) for handle in self.held.values()])
        for error in failures.values():
            # Then it is seen again a little later, by itself.
            log.warning("dead letter not released", extra={"reason": str(error)})

    def count(self) -> int:
        """About how many there are, those that somebody holds included."""
        return sum(self._depth())

    @aws_errors()
    def _depth(self) -> tuple[int, int]:
        return queues.depth(self._sqs, self.url)


def waiting(limit: int, *, places: Places, aws: Aws, clock: Callable[[], float] = time.monotonic) -> dict[str, Any]:
    """``{"deadLetters": [{"id", "kind", "what", "since", "why", "tries"}], "total"}``, oldest first.

    SQS shows a message only to who takes it, so all are taken and at once given back. Meanwhile another call sees
    fewer. ``total`` is a count where all could be read, and SQS's estimate where there are too many.
    """
    end = clock() + LIST_SECONDS
    queues = [_Queue(url, aws("sqs"), LIST_HIDDEN_SECONDS) for url in (places.orders_dead, places.failures)]
    found: dict[str, dict[str, Any]] = {}

    def in_time() -> bool:
        return clock() < end and len(found) < LETTERS_READ

    try:
        for queue in queues:
            for messages in queue.take(in_time):
                found |= {each["MessageId"]: read(each, queue.url, places).shown() for each in messages}
        total = len(found) if in_time() else max(len(found), sum(queue.count() for queue in queues))
    finally:
        for queue in queues:
            queue.release()
    letters = sorted(found.values(), key=lambda letter: (letter["since"], letter["id"]))
    return {"deadLetters": letters[:limit], "total": total}


def parse(body: Any) -> frozenset[str] | None:
    """The ids in a request's JSON body, or None for all. Raises ``InvalidRequest``."""
    fields = Fields.of_body(body, ("ids",), of="a redrive", expected="an object, or nothing")
    ids = fields.get("ids", [])
    if "ids" in fields and (not isinstance(ids, list) or not 1 <= len(ids) <= IDS):
        fields.refuse("ids", f"must be a list of 1 to {IDS} ids, or be left out for all")
    elif any(not isinstance(each, str) or not MESSAGE_ID.fullmatch(each) for each in ids):
        fields.refuse("ids", "each must be the id of a dead letter, 1 to 100 characters of A-Z, a-z, 0-9 and -")
    fields.check()
    return frozenset(ids) if "ids" in fields else None


def redrive(
    wanted: frozenset[str] | None, *, places: Places, aws: Aws, clock: Callable[[], float] = time.monotonic
) -> dict[str, Any]:
    """Puts the letters ``wanted``, or all, back: ``{"redriven", "kept": [{"id", "what", "why"}], "left"}``.

    What could not be put back is kept, and stays in its queue; ``kept`` has at most 100 of these. ``left`` says how
    many there are in the queues afterwards: those that were kept, were not asked for, or came too late for this call.
    """
    end = clock() + REDRIVE_SECONDS
    queues = [_Queue(url, aws("sqs"), REDRIVE_HIDDEN_SECONDS) for url in (places.orders_dead, places.failures)]
    done: set[str] = set()
    kept: dict[str, dict[str, str]] = {}

    def in_time() -> bool:
        return clock() < end

    def wanting() -> bool:
        return in_time() and not (wanted is not None and wanted <= done | kept.keys())

    whole = wanted is None
    try:
        try:
            for queue in queues:
                for messages in queue.take(wanting):
                    _redrive(messages, wanted, queue, places, aws, in_time, done, kept)
        except Unavailable:
            # What was done is worth an answer.
            if not done and not kept:
                raise
            whole = False
        held = sum(len(queue.held) for queue in queues)
        left = held if whole and in_time() else max(held, sum(queue.count() for queue in queues))
    finally:
        for queue in queues:
            queue.release()
    return {"redriven": len(done), "kept": list(kept.values())[:KEPT_SHOWN], "left": left}


def _redrive(
    messages: list[Message],
    wanted: frozenset[str] | None,
    queue: _Queue,
    places: Places,
    aws: Aws,
    in_time: Callable[[], bool],
    done: set[str],
    kept: dict[str, dict[str, str]],
) -> None:
    """Puts back what is asked for of these, deletes it, and notes in ``done`` and ``kept`` what came of it."""
    asked = [each for each in messages if wanted is None or each["MessageId"] in wanted]
    # SQS delivers at least once: what was put back a moment ago is only deleted.
    letters = [read(each, queue.url, places) for each in asked if each["MessageId"] not in done]
    why = _put_back(letters, places, aws, in_time)
    back = [letter for letter in letters if letter.id not in why]
    stuck = queue.delete([each["MessageId"] for each in asked if each["MessageId"] not in why])
    done |= {letter.id for letter in back}
    why |= dict.fromkeys(stuck, "it was put back, and could not be deleted: it stays here too")
    for letter in letters:
        # The record's correlationId is that of the redrive.
        about: dict[str, Any] = {"kind": letter.kind, "what": letter.what, correlation.NAMES: letter.correlation_ids}
        facts = {"messageId": letter.id, **about}
        if letter.id in why:
            kept[letter.id] = {"id": letter.id, "what": letter.what, "why": why[letter.id]}
            log.warning("dead letter kept", extra={**facts, "reason": why[letter.id]})
        else:
            log.info("dead letter put back", extra=facts)
