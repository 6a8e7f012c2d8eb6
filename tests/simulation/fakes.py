"""Fakes of the AWS clients that the handlers use, for the simulation. ``test_contracts.py`` compares them with the local
cloud.

A fake keeps everything in dictionaries, and follows AWS's documentation. It supports only the operations, arguments and
expressions that the handlers use. Every operation passes through the ``gate``, which can delay it, refuse it, or lose
its answer. What AWS would deliver is kept in lists: stream records, published messages, S3 events, invocations and
started executions. The simulation delivers it.
"""

from __future__ import annotations

import hashlib
import io
import json
import operator
import re
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, wraps
from itertools import count
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, quote_plus

from botocore.exceptions import ClientError

from chalicelib.timeline import timestamp

Clock = Callable[[], float]
Gate = Callable[[str, str, dict[str, Any], Callable[[], Any]], Any]
Item = dict[str, Any]

BODY = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
MESSAGE_BYTES = 1_048_576
LONGEST_HIDDEN = 43_200
ITEM_BYTES = 409_600
NOTIFICATION_BYTES = 262_144
STREAM_SECONDS = 86_400


class Refused(Exception):
    """An operation is refused with this error code, message and HTTP status."""

    def __init__(self, code: str, message: str = "", status: int = 400) -> None:
        super().__init__(code, message, status)


def pass_on(_service: str, _operation: str, _arguments: dict[str, Any], perform: Callable[[], Any]) -> Any:
    """A gate that performs every operation."""
    return perform()


def operation(method: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a method an operation of a client, which passes through the gate and raises botocore's errors."""
    name = method.__name__.title().replace("_", "")

    @wraps(method)
    def call(self: Client, **arguments: Any) -> Any:
        def perform() -> Any:
            try:
                return method(self, **arguments)
            except Refused as error:
                raise self.error(name, *error.args) from None

        return self.gate(self.service, name, arguments, perform)

    return call


class Client:
    """A fake client. ``clock`` returns the virtual Unix time."""

    service = ""
    exceptions = SimpleNamespace(ClientError=ClientError)

    def __init_subclass__(cls, service: str, errors: tuple[str, ...] = ()) -> None:
        cls.service = service
        classes = {name: type(name, (ClientError,), {}) for name in errors}
        cls.exceptions = SimpleNamespace(ClientError=ClientError, **classes)

    def __init__(self, clock: Clock, gate: Gate = pass_on) -> None:
        self.clock, self.gate, self.numbers = clock, gate, count(1)

    def error(self, operation: str, code: str, message: str = "", status: int = 400) -> ClientError:
        """Returns the error that the real client would raise for an answer with this code."""
        kind = getattr(self.exceptions, code, ClientError)
        answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
        error: ClientError = kind(answer, operation)
        return error

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), UTC)


# --- SQS --------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Message:
    id: str
    body: str
    attributes: dict[str, Any]
    sent_at: float
    visible_at: float
    receive_count: int = 0
    first_received_at: float = 0

    @property
    def handle(self) -> str:
        return f"{self.id}#{self.receive_count}"

    def system_attributes(self) -> dict[str, str]:
        return {
            "ApproximateReceiveCount": str(self.receive_count),
            "SentTimestamp": str(int(self.sent_at * 1000)),
            "ApproximateFirstReceiveTimestamp": str(int(self.first_received_at * 1000)),
        }

    def lambda_record(self) -> dict[str, Any]:
        """Returns the received message in the format of a record in a Lambda event."""
        given = self.attributes.items()
        attributes = {name: {k[0].lower() + k[1:]: v for k, v in value.items()} for name, value in given}
        names = {"messageId": self.id, "receiptHandle": self.handle, "body": self.body}
        return {**names, "attributes": self.system_attributes(), "messageAttributes": attributes}


@dataclass(slots=True)
class Queue:
    visibility: float = 30
    dead: Queue | None = None
    max_receives: int = 0
    messages: dict[str, Message] = field(default_factory=dict)


class Sqs(Client, service="sqs"):
    """Messages of a standard queue. ``queues`` maps URLs to queues."""

    def __init__(self, clock: Clock, gate: Gate = pass_on) -> None:
        super().__init__(clock, gate)
        self.queues: dict[str, Queue] = {}

    def put(self, url: str, body: str, attributes: dict[str, Any] | None = None, delay: float = 0) -> Message:
        """Adds a message, as AWS itself does for a failure destination."""
        now = self.clock()
        message = Message(f"message-{next(self.numbers)}", body, attributes or {}, now, now + delay)
        self._queue(url).messages[message.id] = message
        return message

    def take(self, url: str, most: int = 10, hidden: float | None = None) -> list[Message]:
        """Receives up to ``most`` messages, as Lambda does. Moves messages without remaining tries."""
        queue, now, taken = self._queue(url), self.clock(), []
        for message in [each for each in queue.messages.values() if each.visible_at <= now]:
            if len(taken) == most:
                break
            if queue.dead and message.receive_count >= queue.max_receives:
                queue.dead.messages[message.id] = queue.messages.pop(message.id)
                continue
            message.receive_count += 1
            message.first_received_at = message.first_received_at or now
            message.visible_at = now + (queue.visibility if hidden is None else hidden)
            taken.append(message)
        return taken

    def _queue(self, url: str) -> Queue:
        if url not in self.queues:
            raise Refused("AWS.SimpleQueueService.NonExistentQueue", "The specified queue does not exist.")
        return self.queues[url]

    @operation
    def send_message(self, *, QueueUrl: str, **entry: Any) -> Any:
        return {"MessageId": self._send(QueueUrl, entry)}

    @operation
    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> Any:
        if sum(len(each["MessageBody"].encode()) for each in Entries) > MESSAGE_BYTES:
            raise Refused("AWS.SimpleQueueService.BatchRequestTooLong", "Batch requests cannot be longer than 1 MiB.")
        return self._each(QueueUrl, Entries, lambda _, entry: {"MessageId": self._send(QueueUrl, entry)})

    def _send(self, url: str, entry: dict[str, Any]) -> str:
        body, attributes = entry["MessageBody"], entry.get("MessageAttributes", {})
        if not body or len(body) > MESSAGE_BYTES:
            raise Refused("InvalidParameterValue", "One or more parameters are invalid: the message's length")
        if not all(each["StringValue"] for each in attributes.values()):
            raise Refused("InvalidParameterValue", "Message (user) attribute must contain a non-empty value")
        if BODY.search(body):
            raise Refused("InvalidMessageContents", "Invalid characters found")
        return self.put(url, body, attributes, entry.get("DelaySeconds", 0)).id

    @operation
    def receive_message(
        self, *, QueueUrl: str, MaxNumberOfMessages: int = 1, VisibilityTimeout: float | None = None, **_: Any
    ) -> Any:
        shown = [
            {
                **{"MessageId": each.id, "ReceiptHandle": each.handle, "Body": each.body},
                "Attributes": each.system_attributes(),
                **({"MessageAttributes": each.attributes} if each.attributes else {}),
            }
            for each in self.take(QueueUrl, MaxNumberOfMessages, VisibilityTimeout)
        ]
        return {"Messages": shown} if shown else {}

    @operation
    def delete_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> Any:
        return self._each(QueueUrl, Entries, self._delete)

    def _delete(self, queue: Queue, entry: dict[str, Any]) -> dict[str, Any]:
        if "#" not in entry["ReceiptHandle"]:
            raise Refused("ReceiptHandleIsInvalid", "The input receipt handle is invalid.")
        # An old receipt handle is accepted, but may delete nothing.
        if message := self._held(queue, entry):
            del queue.messages[message.id]
        return {}

    @operation
    def change_message_visibility_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> Any:
        return self._each(QueueUrl, Entries, self._hide)

    def _hide(self, queue: Queue, entry: dict[str, Any]) -> dict[str, Any]:
        message, seconds, now = self._held(queue, entry), entry["VisibilityTimeout"], self.clock()
        if not message or not 0 <= seconds <= LONGEST_HIDDEN:
            raise Refused("InvalidParameterValue", "The message does not exist or the VisibilityTimeout is invalid")
        if message.visible_at <= now:
            raise Refused("MessageNotInflight", "The specified message isn't in flight.")
        message.visible_at = now + seconds
        return {}

    @staticmethod
    def _held(queue: Queue, entry: dict[str, Any]) -> Message | None:
        message = queue.messages.get(entry["ReceiptHandle"].partition("#")[0])
        return message if message and message.handle == entry["ReceiptHandle"] else None

    def _each(self, url: str, entries: list[dict[str, Any]], perform: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        queue, done, failed = self._queue(url), [], []
        if not 1 <= len(entries) <= 10:
            code = "TooManyEntriesInBatchRequest" if entries else "EmptyBatchRequest"
            raise Refused(f"AWS.SimpleQueueService.{code}", "A batch has 1 to 10 entries.")
        for entry in entries:
            try:
                done.append({"Id": entry["Id"], **perform(queue, entry)})
            except Refused as error:
                code, message, _ = error.args
                failed.append({"Id": entry["Id"], "SenderFault": True, "Code": code, "Message": message})
        return {**({"Successful": done} if done else {}), **({"Failed": failed} if failed else {})}

    @operation
    def get_queue_attributes(self, *, QueueUrl: str, AttributeNames: list[str]) -> Any:
        messages, now = self._queue(QueueUrl).messages.values(), self.clock()
        visible = sum(each.visible_at <= now for each in messages)
        numbers = {"": visible, "NotVisible": len(messages) - visible}
        return {"Attributes": {f"ApproximateNumberOfMessages{name}": str(each) for name, each in numbers.items()}}


# --- DynamoDB ---------------------------------------------------------------------------------------------------------

COMPARISONS = {"=": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
TERM = re.compile(
    r"(attribute_exists|attribute_not_exists)\(([#\w]+)\)"
    r"|([#\w]+) (=|<=?|>=?) (:\w+)|([#\w]+) BETWEEN (:\w+) and (:\w+)|([#\w]+) IN \((:\w+(?:, :\w+)*)\)"
)
INSERT = re.compile(r"INSERT INTO \"([\w-]+)\" VALUE \{('\w+': \?(?:, '\w+': \?)*)\}")
# A condition on an item, with the expression's names and values.
Condition = Callable[[Item, dict[str, str], dict[str, Any]], bool]


def _plain(attribute: dict[str, Any] | None) -> Any:
    """Returns an attribute as a value that compares like in DynamoDB, or None."""
    if attribute is None:
        return None
    return float(attribute["N"]) if "N" in attribute else next(iter(attribute.values()))


@cache
def condition(expression: str) -> Condition:
    """Compiles a condition, key condition or filter expression. Supports no parentheses."""
    expression = re.sub(r"(BETWEEN :\w+) AND", r"\1 and", expression)
    terms = [[_term(term) for term in group.split(" AND ")] for group in expression.split(" OR ")]
    if len(terms) == len(terms[0]) == 1:
        return terms[0][0]
    return lambda item, names, values: any(all(term(item, names, values) for term in group) for group in terms)


def _term(text: str) -> Condition:
    match = TERM.fullmatch(text)
    if match is None:
        raise NotImplementedError(f"the fake does not support the expression {text}")
    function, subject, left, sign, right, ranged, low, high, listed, members = match.groups()
    if function:
        exists = function == "attribute_exists"
        return lambda item, names, _: (names.get(subject, subject) in item) is exists
    name = left or ranged or listed

    def compare(test: Callable[[Any, dict[str, Any]], bool]) -> Condition:
        def holds(item: Item, names: dict[str, str], values: dict[str, Any]) -> bool:
            value = _plain(item.get(names.get(name, name)))
            return value is not None and test(value, values)

        return holds

    if left:
        return compare(lambda value, values: bool(COMPARISONS[sign](value, _plain(values[right]))))
    if ranged:
        return compare(lambda value, values: bool(_plain(values[low]) <= value <= _plain(values[high])))
    choices = members.split(", ")
    return compare(lambda value, values: any(value == _plain(values[each]) for each in choices))


@cache
def _insertion(statement: str) -> tuple[str, list[str]]:
    match = INSERT.fullmatch(statement)
    if match is None:
        raise NotImplementedError(f"the fake does not support the statement {statement}")
    return match[1], [each.split("'")[1] for each in match[2].split(", ")]


class Table:
    """Items by their key, which is a string, and the sort keys of each index's partitions.

    ``records`` is the stream. ``stream`` is its ARN, or empty.
    """

    def __init__(self, key: str, indexes: dict[str, tuple[str, str]] | None = None, stream: str = "") -> None:
        self.key, self.indexes, self.stream = key, indexes or {}, stream
        self.items: dict[str, Item] = {}
        self.sorted: dict[tuple[str, str], list[tuple[str, str]]] = {}
        self.records: list[dict[str, Any]] = []

    def write(self, item: Item, now: float) -> None:
        """Stores an item. Adds a record to the stream, unless nothing changes."""
        key: str = item[self.key].get("S", "")
        if not key or len(repr(item)) > ITEM_BYTES:
            raise Refused("ValidationException", "The key is empty or the item has exceeded the maximum allowed size")
        before = self.items.get(key)
        if before == item:
            return
        self.items[key] = item
        for index in self.indexes:
            old, new = before and self._place(index, before), self._place(index, item)
            if old != new:
                if old:
                    places = self.sorted[old[0]]
                    del places[bisect_left(places, (old[1], key))]
                if new:
                    insort(self.sorted.setdefault(new[0], []), (new[1], key))
        if self.stream:
            self._record("MODIFY" if before else "INSERT", item, now)

    def _place(self, index: str, item: Item) -> tuple[tuple[str, str], str] | None:
        partition, sort = self.indexes[index]
        return ((index, item[partition]["S"]), item[sort]["S"]) if partition in item and sort in item else None

    def _record(self, name: str, item: Item, now: float) -> None:
        number = len(self.records) + 1
        change = {
            **{"ApproximateCreationDateTime": float(int(now)), "Keys": {self.key: item[self.key]}, "NewImage": item},
            **{"SequenceNumber": f"{number:021}", "StreamViewType": "NEW_IMAGE"},
        }
        identity = {"eventID": f"{number:032x}", "eventName": name, "eventSourceARN": self.stream}
        self.records.append({**identity, "eventSource": "aws:dynamodb", "dynamodb": change})


class DynamoDb(Client, service="dynamodb", errors=("ConditionalCheckFailedException", "ResourceNotFoundException")):
    def __init__(self, clock: Clock, gate: Gate = pass_on) -> None:
        super().__init__(clock, gate)
        self.tables: dict[str, Table] = {}

    def _table(self, name: str) -> Table:
        if name not in self.tables:
            raise Refused("ResourceNotFoundException", "Requested resource not found")
        return self.tables[name]

    @staticmethod
    def _check(item: Item | None, given: dict[str, Any]) -> None:
        if text := given.get("ConditionExpression"):
            names, values = given.get("ExpressionAttributeNames", {}), given.get("ExpressionAttributeValues", {})
            if not condition(text)(item or {}, names, values):
                raise Refused("ConditionalCheckFailedException", "The conditional request failed")

    @operation
    def put_item(self, *, TableName: str, Item: Item, **given: Any) -> Any:
        table = self._table(TableName)
        self._check(table.items.get(Item[table.key]["S"]), given)
        table.write(Item, self.clock())
        return {}

    @operation
    def update_item(self, *, TableName: str, Key: Item, UpdateExpression: str, **given: Any) -> Any:
        table = self._table(TableName)
        before = table.items.get(Key[table.key]["S"])
        self._check(before, given)
        names, values = given.get("ExpressionAttributeNames", {}), given["ExpressionAttributeValues"]
        if not re.fullmatch(r"SET [#\w]+ = :\w+(, [#\w]+ = :\w+)*", UpdateExpression):
            raise NotImplementedError(f"the fake does not support the expression {UpdateExpression}")
        pairs = [each.split(" = ") for each in UpdateExpression[4:].split(", ")]
        table.write({**(before or Key), **{names.get(n, n): values[v] for n, v in pairs}}, self.clock())
        return {}

    @operation
    def get_item(self, *, TableName: str, Key: Item, **_: Any) -> Any:
        table = self._table(TableName)
        item = table.items.get(Key[table.key]["S"])
        return {"Item": item} if item else {}

    @operation
    def batch_get_item(self, *, RequestItems: dict[str, dict[str, Any]]) -> Any:
        found = {}
        for name, request in RequestItems.items():
            table = self._table(name)
            keys = [key[table.key]["S"] for key in request["Keys"]]
            if not 1 <= len(keys) <= 100 or len(set(keys)) < len(keys):
                raise Refused("ValidationException", "Provided list of item keys is too long or contains duplicates")
            fields = request.get("ProjectionExpression")
            found[name] = [_projected(table.items[key], fields, {}) for key in keys if key in table.items]
        return {"Responses": found, "UnprocessedKeys": {}}

    @operation
    def batch_execute_statement(self, *, Statements: list[dict[str, Any]]) -> Any:
        if not 1 <= len(Statements) <= 25:
            raise Refused("ValidationException", "A batch has 1 to 25 statements")
        return {"Responses": [self._insert(**each) for each in Statements]}

    def _insert(self, Statement: str, Parameters: list[dict[str, Any]]) -> dict[str, Any]:
        name, fields = _insertion(Statement)
        table, item = self._table(name), dict(zip(fields, Parameters, strict=True))
        try:
            if item[table.key]["S"] in table.items:
                raise Refused("DuplicateItem", "Duplicate primary key exists in table")
            table.write(item, self.clock())
        except Refused as error:
            code, message, _ = error.args
            return {
                "Error": {
                    "Code": code.removesuffix("Exception").replace("Validation", "ValidationError"),
                    "Message": message,
                }
            }
        return {"TableName": name}

    @operation
    def query(self, *, TableName: str, IndexName: str, KeyConditionExpression: str, **given: Any) -> Any:
        table = self._table(TableName)
        names, values = given.get("ExpressionAttributeNames", {}), given["ExpressionAttributeValues"]
        partition, _, rest = KeyConditionExpression.partition(" AND ")
        attribute, _, value = partition.partition(" = ")
        if names.get(attribute, attribute) != table.indexes[IndexName][0]:
            raise Refused("ValidationException", "Query condition missed key schema element")
        places = table.sorted.get((IndexName, values[value]["S"]), [])
        start = given.get("ExclusiveStartKey")
        after = start and (start[table.indexes[IndexName][1]]["S"], start[table.key]["S"])
        is_in, wanted = condition(rest), condition(given["FilterExpression"]) if "FilterExpression" in given else None
        answer: dict[str, Any] = {"Items": [], "Count": 0, "ScannedCount": 0}
        forward = given.get("ScanIndexForward", True)
        for place in places if forward else reversed(places):
            item = table.items[place[1]]
            if (after and (place <= after if forward else place >= after)) or not is_in(item, names, values):
                continue
            answer["ScannedCount"] += 1
            if not wanted or wanted(item, names, values):
                answer["Items"].append(_projected(item, given.get("ProjectionExpression"), names))
            if answer["ScannedCount"] == given.get("Limit"):
                # DynamoDB names the last key even if no item follows.
                answer["LastEvaluatedKey"] = {name: item[name] for name in (table.key, *table.indexes[IndexName])}
                break
        answer["Count"] = len(answer["Items"])
        return answer


def _projected(item: Item, fields: str | None, names: dict[str, str]) -> Item:
    if fields is None:
        return item
    return {name: item[name] for each in fields.split(", ") if (name := names.get(each, each)) in item}


class Streams(Client, service="dynamodbstreams", errors=("TrimmedDataAccessException", "ResourceNotFoundException")):
    """Reads the streams of the tables in ``dynamodb``. Each stream has one shard."""

    def __init__(self, dynamodb: DynamoDb, gate: Gate = pass_on) -> None:
        super().__init__(dynamodb.clock, gate)
        self.dynamodb = dynamodb

    def _records(self, stream: str) -> list[dict[str, Any]]:
        for table in self.dynamodb.tables.values():
            if table.stream == stream:
                return table.records
        raise Refused("ResourceNotFoundException", "Requested resource not found")

    @operation
    def get_shard_iterator(self, *, StreamArn: str, SequenceNumber: str, **_: Any) -> Any:
        number, records = int(SequenceNumber), self._records(StreamArn)
        if records[number - 1]["dynamodb"]["ApproximateCreationDateTime"] < self.clock() - STREAM_SECONDS:
            raise Refused("TrimmedDataAccessException", "The requested sequence number is beyond the trim point")
        return {"ShardIterator": f"{StreamArn}|{number - 1}"}

    @operation
    def get_records(self, *, ShardIterator: str, **_: Any) -> Any:
        stream, _, first = ShardIterator.rpartition("|")
        records, shown = self._records(stream), []
        for record in records[int(first) : int(first) + 1000]:
            moment = datetime.fromtimestamp(record["dynamodb"]["ApproximateCreationDateTime"], UTC)
            shown.append({**record, "dynamodb": {**record["dynamodb"], "ApproximateCreationDateTime": moment}})
        return {"Records": shown, "NextShardIterator": f"{stream}|{int(first) + len(shown)}"}


# --- SNS --------------------------------------------------------------------------------------------------------------


class Sns(Client, service="sns"):
    """``published`` contains the messages as the subscribed functions receive them. ``topics`` contains the ARNs."""

    def __init__(self, clock: Clock, gate: Gate = pass_on) -> None:
        super().__init__(clock, gate)
        self.topics: set[str] = set()
        self.published: list[dict[str, Any]] = []

    @operation
    def publish(
        self,
        *,
        TopicArn: str,
        Message: str,
        Subject: str | None = None,
        MessageStructure: str = "",
        MessageAttributes: dict[str, dict[str, str]] | None = None,
    ) -> Any:
        attributes = MessageAttributes or {}
        if TopicArn not in self.topics:
            raise Refused("NotFound", "Topic does not exist", 404)
        if Subject is not None and not (1 <= len(Subject) <= 100 and Subject.isascii() and Subject.isprintable()):
            raise Refused("InvalidParameter", "Invalid parameter: Subject")
        texts = [Message, *(text for name, each in attributes.items() for text in (name, *each.values()))]
        if not Message or sum(len(text.encode()) for text in texts) > NOTIFICATION_BYTES:
            raise Refused("InvalidParameter", "Invalid parameter: Message is empty or too long")
        if not all(each["StringValue"] for each in attributes.values()):
            raise Refused("ParameterValueInvalid", "The message attribute must contain a non-empty value")
        if MessageStructure == "json":
            try:
                Message = json.loads(Message)["default"]
            except (ValueError, KeyError, TypeError):
                raise Refused("InvalidParameter", "Invalid parameter: Message Structure - No default entry") from None
        received = {name: {"Type": each["DataType"], "Value": each["StringValue"]} for name, each in attributes.items()}
        message_id = f"notification-{next(self.numbers)}"
        self.published.append(
            {
                **{"Type": "Notification", "MessageId": message_id, "TopicArn": TopicArn, "Subject": Subject},
                **{"Message": Message, "Timestamp": timestamp(self.now()), "MessageAttributes": received},
            }
        )
        return {"MessageId": message_id}


# --- S3 ---------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Object:
    body: bytes
    etag: str
    modified: datetime


class S3(Client, service="s3", errors=("NoSuchKey", "NoSuchBucket")):
    """``buckets`` maps names to objects. ``events`` contains the records of objects in the bucket ``watched``."""

    meta = SimpleNamespace(events=SimpleNamespace(register=lambda *_, **__: None))

    def __init__(self, clock: Clock, gate: Gate = pass_on, watched: str = "") -> None:
        super().__init__(clock, gate)
        self.watched = watched
        self.buckets: dict[str, dict[str, Object]] = {watched: {}} if watched else {}
        self.events: list[dict[str, Any]] = []

    def _bucket(self, name: str) -> dict[str, Object]:
        if name not in self.buckets:
            raise Refused("NoSuchBucket", "The specified bucket does not exist", 404)
        return self.buckets[name]

    @operation
    def put_object(self, *, Bucket: str, Key: str, Body: bytes = b"", **_: Any) -> Any:
        etag = hashlib.md5(Body, usedforsecurity=False).hexdigest()
        self._bucket(Bucket)[Key] = Object(bytes(Body), etag, self.now())
        if Bucket == self.watched:
            number = next(self.numbers)
            stored = {"key": quote_plus(Key), "size": len(Body), "eTag": etag, "sequencer": f"{number:018X}"}
            names = {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "eventTime": timestamp(self.now())}
            request = {"responseElements": {"x-amz-request-id": f"request-{number}"}}
            self.events.append({**names, **request, "s3": {"bucket": {"name": Bucket}, "object": stored}})
        return {"ETag": f'"{etag}"'}

    @operation
    def get_object(self, *, Bucket: str, Key: str, IfMatch: str | None = None) -> Any:
        found = self._bucket(Bucket).get(Key)
        if found is None:
            raise Refused("NoSuchKey", "The specified key does not exist.", 404)
        if IfMatch is not None and IfMatch.strip('"') != found.etag:
            raise Refused("PreconditionFailed", "At least one of the pre-conditions you specified did not hold", 412)
        return {"Body": io.BytesIO(found.body), "ContentLength": len(found.body), "ETag": f'"{found.etag}"'}

    @operation
    def head_object(self, *, Bucket: str, Key: str) -> Any:
        found = self.buckets.get(Bucket, {}).get(Key)
        if found is None:
            raise Refused("404", "Not Found", 404)
        return {"ContentLength": len(found.body), "ETag": f'"{found.etag}"'}

    @operation
    def list_objects_v2(
        self, *, Bucket: str, StartAfter: str = "", ContinuationToken: str = "", MaxKeys: int = 1000
    ) -> Any:
        objects, after = self._bucket(Bucket), ContinuationToken or StartAfter
        keys = sorted(key for key in objects if key > after)
        contents = [{"Key": key, "Size": len(objects[key].body)} for key in keys[:MaxKeys]]
        answer = {"IsTruncated": len(keys) > MaxKeys, "KeyCount": len(contents)}
        more = {"NextContinuationToken": contents[-1]["Key"]} if answer["IsTruncated"] else {}
        return {**answer, **more, **({"Contents": contents} if contents else {})}

    @operation
    def list_buckets(self) -> Any:
        return {"Buckets": [{"Name": name, "BucketRegion": "us-east-1"} for name in sorted(self.buckets)]}

    def get_paginator(self, name: str) -> Any:
        def paginate(**_: Any) -> Iterator[Any]:
            yield getattr(self, name)()

        return SimpleNamespace(paginate=paginate)

    def generate_presigned_url(self, _method: str, *, Params: dict[str, str], ExpiresIn: int) -> str:
        """Returns a link. Like the real client, calls no service and does not check that the object exists."""
        until = int(self.clock()) + ExpiresIn
        return f"https://{Params['Bucket']}.s3.amazonaws.com/{quote(Params['Key'])}?X-Amz-Until={until}"

    def generate_presigned_post(self, bucket: str, key: str, *, Fields: dict[str, str], **_: Any) -> dict[str, Any]:
        return {"url": f"https://{bucket}.s3.amazonaws.com/", "fields": {**Fields, "key": key}}


# --- Step Functions and Lambda ----------------------------------------------------------------------------------------


class StepFunctions(
    Client,
    service="stepfunctions",
    errors=("ExecutionAlreadyExists", "ExecutionDoesNotExist", "StateMachineDoesNotExist", "InvalidArn"),
):
    """``executions`` maps ARNs to executions in the order of their start. The simulation runs and ends them."""

    def __init__(self, clock: Clock, gate: Gate = pass_on) -> None:
        super().__init__(clock, gate)
        self.machines: set[str] = set()
        self.executions: dict[str, dict[str, Any]] = {}

    @operation
    def start_execution(self, *, stateMachineArn: str, name: str, input: str = "{}") -> Any:
        if stateMachineArn not in self.machines:
            raise Refused("StateMachineDoesNotExist", f"State Machine Does Not Exist: '{stateMachineArn}'")
        arn = stateMachineArn.replace(":stateMachine:", ":execution:") + f":{name}"
        known = self.executions.get(arn)
        if known is None:
            identity = {"executionArn": arn, "stateMachineArn": stateMachineArn, "name": name}
            known = {**identity, "input": input, "status": "RUNNING", "startDate": self.now()}
            self.executions[arn] = known
        elif known["status"] != "RUNNING" or known["input"] != input:
            raise Refused("ExecutionAlreadyExists", f"Execution Already Exists: '{arn}'")
        return {"executionArn": arn, "startDate": known["startDate"]}

    def end(self, arn: str, status: str, **results: str) -> None:
        """Ends an execution with its ``output``, or its ``error`` and ``cause``."""
        self.executions[arn] |= {"status": status, "stopDate": self.now(), **results}

    @operation
    def describe_execution(self, *, executionArn: str) -> Any:
        if executionArn not in self.executions:
            raise Refused("ExecutionDoesNotExist", f"Execution Does Not Exist: '{executionArn}'")
        return dict(self.executions[executionArn])

    @operation
    def list_executions(self, *, stateMachineArn: str, maxResults: int = 100, nextToken: str = "0") -> Any:
        start = int(nextToken)
        executions = [each for each in self.executions.values() if each["stateMachineArn"] == stateMachineArn]
        executions.sort(key=lambda each: each.get("stopDate", each["startDate"]), reverse=True)
        more = {"nextToken": str(start + maxResults)} if len(executions) > start + maxResults else {}
        return {"executions": executions[start : start + maxResults], **more}


class Lambda(Client, service="lambda", errors=("ResourceNotFoundException",)):
    """``invocations`` contains the names of asynchronously invoked functions with their events."""

    def __init__(self, clock: Clock, gate: Gate = pass_on) -> None:
        super().__init__(clock, gate)
        self.functions: set[str] = set()
        self.invocations: list[tuple[str, Any]] = []

    @operation
    def invoke(self, *, FunctionName: str, InvocationType: str, Payload: str) -> Any:
        if FunctionName not in self.functions:
            raise Refused("ResourceNotFoundException", f"Function not found: {FunctionName}", 404)
        if InvocationType != "Event" or len(Payload) > MESSAGE_BYTES:
            raise Refused("RequestTooLargeException", "Request must be smaller than 1 MiB for Event", 413)
        self.invocations.append((FunctionName, json.loads(Payload)))
        return {"StatusCode": 202}
