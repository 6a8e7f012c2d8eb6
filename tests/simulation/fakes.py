"""Fakes of the AWS clients that the handlers use. ``test_contracts.py`` compares them with the local cloud.

The fakes follow AWS's documentation, and support only the operations, arguments and expressions that the handlers use.
The ``gate`` can delay or refuse an operation, or lose its answer. Everything that AWS would deliver is kept in lists,
such as ``Sns.published``.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from itertools import count
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, quote_plus

from botocore.exceptions import ClientError

from chalicelib.timeline import timestamp

Item = dict[str, Any]

MEBIBYTE = 1_048_576
LONGEST_HIDDEN = 43_200


class Refused(Exception):
    """AWS's refusal of an operation, with an error code and an HTTP status."""


def operation(method: Callable[[Any, Item], Any]) -> Callable[..., Any]:
    """Turns a method that takes a dictionary of arguments into an operation, which raises botocore's errors."""
    name = method.__name__.title().replace("_", "")

    def call(self: Client, **arguments: Any) -> Any:
        def perform() -> Any:
            try:
                return method(self, arguments)
            except Refused as error:
                code, status = (*error.args, 400)[:2]
                raise self.error(name, code, status=status) from None

        return self.gate(self.service, name, arguments, perform)

    return call


@dataclass
class Client:
    """A fake client. ``clock`` returns the virtual Unix time."""

    clock: Callable[[], float]
    gate: Callable[[str, str, Item, Callable[[], Any]], Any] = lambda *arguments: arguments[-1]()
    numbers: Any = field(default_factory=lambda: count(1), kw_only=True)

    def __init_subclass__(cls, service: str, errors: str = "") -> None:
        cls.service = service
        classes = {name: type(name, (ClientError,), {}) for name in errors.split()}
        cls.exceptions = SimpleNamespace(ClientError=ClientError, **classes)

    def error(self, operation: str, code: str, message: str = "", status: int = 400) -> ClientError:
        """Returns the error that the real client would raise."""
        answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
        return getattr(self.exceptions, code, ClientError)(answer, operation)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), UTC)


@dataclass(slots=True)
class Message:
    id: str
    body: str
    attributes: Item
    sent_at: float
    visible_at: float
    receive_count: int = 0

    @property
    def handle(self) -> str:
        return f"{self.id}#{self.receive_count}"

    def received(self) -> Item:
        """Returns the message as ``receive_message`` returns it."""
        system = {"ApproximateReceiveCount": self.receive_count, "SentTimestamp": int(self.sent_at * 1000)}
        message = {"MessageId": self.id, "ReceiptHandle": self.handle, "Body": self.body}
        message["Attributes"] = {name: str(value) for name, value in system.items()}
        return {**message, "MessageAttributes": self.attributes} if self.attributes else message

    def lambda_record(self) -> Item:
        """Returns the message as a record of a Lambda event."""
        record = {name[0].lower() + name[1:]: value for name, value in self.received().items()}
        texts = {name: each["StringValue"] for name, each in self.attributes.items()}
        return {**record, "messageAttributes": {name: {"stringValue": text} for name, text in texts.items()}}


@dataclass
class Queue:
    """After ``max_receives``, a message moves to the queue ``dead``. ``visibility`` is in seconds."""

    visibility: float = 30
    dead: Queue | None = None
    max_receives: int = 0
    messages: dict[str, Message] = field(default_factory=dict)


@dataclass
class Sqs(Client, service="sqs"):
    queues: dict[str, Queue] = field(default_factory=dict)

    def put(self, url: str, body: str, attributes: Item | None = None) -> str:
        """Adds a message, as AWS does for a failure destination. Returns the message's id."""
        message = Message(f"message-{next(self.numbers)}", body, attributes or {}, self.clock(), self.clock())
        self.queues[url].messages[message.id] = message
        return message.id

    def take(self, url: str, most: int, hidden: float | None = None) -> list[Message]:
        """Receives up to ``most`` messages, as Lambda does. Moves messages that have no tries left."""
        queue, now, taken = self.queues[url], self.clock(), []
        for message in [each for each in queue.messages.values() if each.visible_at <= now]:
            if queue.dead and message.receive_count >= queue.max_receives:
                queue.dead.messages[message.id] = queue.messages.pop(message.id)
            elif len(taken) < most:
                message.receive_count += 1
                message.visible_at = now + (queue.visibility if hidden is None else hidden)
                taken.append(message)
        return taken

    def _each(self, a: Item, perform: Callable[[Item], Item | None]) -> Item:
        if not 1 <= len(a["Entries"]) <= 10:
            raise Refused("AWS.SimpleQueueService.TooManyEntriesInBatchRequest")
        answer: Item = {"Successful": [], "Failed": []}
        for entry in a["Entries"]:
            try:
                answer["Successful"].append({"Id": entry["Id"], **(perform(entry) or {})})
            except Refused as error:
                answer["Failed"].append({"Id": entry["Id"], "SenderFault": True, "Code": error.args[0]})
        return {name: entries for name, entries in answer.items() if entries}

    def _held(self, a: Item, entry: Item) -> Message | None:
        """Returns the message if it exists and was not received again."""
        message = self.queues[a["QueueUrl"]].messages.get(entry["ReceiptHandle"].partition("#")[0])
        return message if message and message.handle == entry["ReceiptHandle"] else None

    @operation
    def send_message_batch(self, a: Item) -> Item:
        def send(entry: Item) -> Item:
            attributes = entry.get("MessageAttributes", {})
            if not all((entry["MessageBody"], *(each["StringValue"] for each in attributes.values()))):
                raise Refused("InvalidParameterValue")
            return {"MessageId": self.put(a["QueueUrl"], entry["MessageBody"], attributes)}

        if sum(len(each["MessageBody"].encode()) for each in a["Entries"]) > MEBIBYTE:
            raise Refused("AWS.SimpleQueueService.BatchRequestTooLong")
        return self._each(a, send)

    @operation
    def receive_message(self, a: Item) -> Item:
        taken = self.take(a["QueueUrl"], a.get("MaxNumberOfMessages", 1), a.get("VisibilityTimeout"))
        return {"Messages": [each.received() for each in taken]} if taken else {}

    @operation
    def delete_message_batch(self, a: Item) -> Item:
        def delete(entry: Item) -> None:
            # SQS accepts an old receipt handle, but may delete nothing.
            if message := self._held(a, entry):
                del self.queues[a["QueueUrl"]].messages[message.id]

        return self._each(a, delete)

    @operation
    def change_message_visibility_batch(self, a: Item) -> Item:
        def hide(entry: Item) -> None:
            message, now = self._held(a, entry), self.clock()
            if not message or not 0 <= entry["VisibilityTimeout"] <= LONGEST_HIDDEN:
                raise Refused("InvalidParameterValue")
            if message.visible_at <= now:
                raise Refused("MessageNotInflight")
            message.visible_at = now + entry["VisibilityTimeout"]

        return self._each(a, hide)

    @operation
    def get_queue_attributes(self, a: Item) -> Item:
        hidden = [each.visible_at > self.clock() for each in self.queues[a["QueueUrl"]].messages.values()]
        numbers = {"": hidden.count(False), "NotVisible": hidden.count(True)}
        return {"Attributes": {f"ApproximateNumberOfMessages{name}": str(each) for name, each in numbers.items()}}


class Missing:
    """An attribute that an item does not have. Every comparison is false."""

    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = lambda *_: False


@cache
def condition(expression: str) -> Callable[[Item, Item, Item], bool]:
    """Compiles an expression to a Python function of an item, names and values."""
    text = re.sub(r"(\S+) BETWEEN (\S+) AND (\S+)", r"\2 <= \1 <= \3", expression)
    text = re.sub(r" IN \((.+?)\)", r" in (\1,)", text).replace(" = ", " == ")
    text = re.sub(r"[#:]?\b(?!in\b)[a-z]\w*\b(?!\()", r"get('\g<0>')", text)
    compiled = compile(text.replace(" AND ", " and ").replace(" OR ", " or "), expression, "eval")

    def holds(item: Item, names: Item, values: Item) -> bool:
        def get(name: str) -> Any:
            attribute = values[name] if name[0] == ":" else item.get(names.get(name, name), {"": Missing()})
            return float(attribute["N"]) if "N" in attribute else next(iter(attribute.values()))

        return bool(eval(compiled, {"get": get, "attribute_not_exists": lambda value: isinstance(value, Missing)}))

    return holds


@cache
def insertion(statement: str) -> tuple[str, list[str]]:
    """Returns the table and the attributes of a PartiQL INSERT."""
    match = re.fullmatch(r"INSERT INTO \"(.+)\" VALUE \{'(.+)': \?\}", statement)
    assert match, statement
    return match[1], match[2].split("': ?, '")


@cache
def assignments(expression: str) -> list[tuple[str, str, str]]:
    """Returns each attribute of an UpdateExpression, its new value, and the value that stands for a missing list."""
    assert expression[:4] == "SET ", expression
    pairs = [each.split(" = ") for each in re.split(r", (?=#?\w+ = )", expression[4:])]
    appending = re.compile(r"list_append\(if_not_exists\(\S+, (\S+)\), (\S+)\)")
    return [(name, match[2], match[1]) if (match := appending.fullmatch(to)) else (name, to, "") for name, to in pairs]


@dataclass
class Table:
    """Items by their key, a string. ``indexes`` names the partition key and the sort key of each index.

    ``records`` is the stream, whose ARN is ``stream``. A table without an ARN has no stream.
    """

    key: str
    indexes: dict[str, tuple[str, str]] = field(default_factory=dict)
    stream: str = ""
    items: dict[str, Item] = field(default_factory=dict)
    records: list[Item] = field(default_factory=list)

    def write(self, item: Item, now: float) -> None:
        key = item[self.key]["S"]
        before = self.items.get(key)
        if not key or len(repr(item)) > 400 * 1024:
            raise Refused("ValidationException")
        # A write that changes nothing adds no record to the stream.
        if self.stream and before != item:
            number = len(self.records) + 1
            facts = {"eventID": f"{number:032x}", "eventName": "MODIFY" if before else "INSERT"}
            change: Item = {"Keys": {self.key: item[self.key]}, "NewImage": item, "SequenceNumber": f"{number:021}"}
            change["ApproximateCreationDateTime"] = float(int(now))
            self.records.append({**facts, "eventSourceARN": self.stream, "dynamodb": change})
        self.items[key] = item


@dataclass
class DynamoDb(Client, service="dynamodb", errors="ConditionalCheckFailedException"):
    tables: dict[str, Table] = field(default_factory=dict)

    def _write(self, a: Item, key: Item, make: Callable[[Item, Item], Item]) -> Item:
        table = self.tables[a["TableName"]]
        before = table.items.get(key[table.key]["S"], {})
        names, values = a.get("ExpressionAttributeNames", {}), a.get("ExpressionAttributeValues", {})
        if "ConditionExpression" in a and not condition(a["ConditionExpression"])(before, names, values):
            raise Refused("ConditionalCheckFailedException")
        new = make(before or key, names)
        table.write(new, self.clock())
        return {"Attributes": new} if a.get("ReturnValues") == "ALL_NEW" else {}

    @operation
    def put_item(self, a: Item) -> Item:
        return self._write(a, a["Item"], lambda *_: a["Item"])

    @operation
    def update_item(self, a: Item) -> Item:
        values = a["ExpressionAttributeValues"]

        def updated(old: Item, names: Item) -> Item:
            new = {}
            for name, value, nothing in assignments(a["UpdateExpression"]):
                attribute = names.get(name, name)
                start = old.get(attribute, values[nothing])["L"] if nothing else []
                new[attribute] = {"L": start + values[value]["L"]} if nothing else values[value]
            return old | new

        return self._write(a, a["Key"], updated)

    @operation
    def get_item(self, a: Item) -> Item:
        table = self.tables[a["TableName"]]
        key = a["Key"][table.key]["S"]
        return {"Item": table.items[key]} if key in table.items else {}

    @operation
    def batch_get_item(self, a: Item) -> Item:
        found = {}
        for name, request in a["RequestItems"].items():
            table = self.tables[name]
            keys = [each[table.key]["S"] for each in request["Keys"]]
            if not 1 <= len(keys) <= 100 or len(set(keys)) < len(keys):
                raise Refused("ValidationException")
            found[name] = [table.items[each] for each in keys if each in table.items]
        return {"Responses": found, "UnprocessedKeys": {}}

    @operation
    def batch_execute_statement(self, a: Item) -> Item:
        if not 1 <= len(a["Statements"]) <= 25:
            raise Refused("ValidationException")
        answers: list[Item] = []
        for each in a["Statements"]:
            name, fields = insertion(each["Statement"])
            table, item = self.tables[name], dict(zip(fields, each["Parameters"], strict=True))
            is_new = item[table.key]["S"] not in table.items
            if is_new:
                table.write(item, self.clock())
            answers.append({"TableName": name} if is_new else {"Error": {"Code": "DuplicateItem"}})
        return {"Responses": answers}

    @operation
    def query(self, a: Item) -> Item:
        table, forward, limit = self.tables[a["TableName"]], a.get("ScanIndexForward", True), a.get("Limit")
        names, values = a.get("ExpressionAttributeNames", {}), a["ExpressionAttributeValues"]
        partition, sort = table.indexes[a["IndexName"]]
        equals, _, rest = a["KeyConditionExpression"].partition(" AND ")
        value, is_in = values[equals.rpartition(" ")[2]], condition(rest)

        def place(item: Item) -> tuple[str, str]:
            return item[sort]["S"], item[table.key]["S"]

        found = [each for each in table.items.values() if each.get(partition) == value and is_in(each, names, values)]
        found.sort(key=place, reverse=not forward)
        if start := a.get("ExclusiveStartKey"):
            found = [each for each in found if (place(each) > place(start) if forward else place(each) < place(start))]
        page = found[:limit]
        # DynamoDB returns the last key even if no item follows.
        last = {name: page[-1][name] for name in (table.key, partition, sort)} if page and len(page) == limit else None
        items = [each for each in page if condition(a.get("FilterExpression", "1 == 1"))(each, names, values)]
        return {"Items": items, "ScannedCount": len(page), **({"LastEvaluatedKey": last} if last else {})}


@dataclass
class Sns(Client, service="sns"):
    """``published`` contains the messages as the subscribed functions receive them."""

    topics: set[str] = field(default_factory=set)
    published: list[Item] = field(default_factory=list)

    @operation
    def publish(self, a: Item) -> Item:
        attributes, subject, message = a.get("MessageAttributes", {}), a.get("Subject"), a["Message"]
        if a["TopicArn"] not in self.topics:
            raise Refused("NotFound", 404)
        if subject is not None and not (1 <= len(subject) <= 100 and subject.isascii() and subject.isprintable()):
            raise Refused("InvalidParameter")
        texts = [message, *attributes, *(text for each in attributes.values() for text in each.values())]
        if not message or sum(len(text.encode()) for text in texts) > 256 * 1024:
            raise Refused("InvalidParameter")
        if not all(texts):
            raise Refused("ParameterValueInvalid")
        if a.get("MessageStructure") == "json":
            try:
                message = json.loads(message)["default"]
            except (ValueError, KeyError, TypeError):
                raise Refused("InvalidParameter") from None
        identity = {"Type": "Notification", "MessageId": f"sns-{next(self.numbers)}", "TopicArn": a["TopicArn"]}
        shown = {name: {"Type": each["DataType"], "Value": each["StringValue"]} for name, each in attributes.items()}
        content = {"Subject": subject, "Message": message, "MessageAttributes": shown}
        self.published.append({**identity, **content, "Timestamp": timestamp(self.now())})
        return {"MessageId": identity["MessageId"]}


@dataclass
class S3(Client, service="s3", errors="NoSuchKey"):
    """Bodies and ETags by bucket and key. ``events`` has a record of each object put into the bucket ``watched``."""

    watched: str = ""
    buckets: dict[str, dict[str, tuple[bytes, str]]] = field(default_factory=lambda: defaultdict(dict))
    events: list[Item] = field(default_factory=list)

    def _object(self, a: Item, code: str) -> tuple[bytes, str]:
        if a["Key"] not in self.buckets[a["Bucket"]]:
            raise Refused(code, 404)
        return self.buckets[a["Bucket"]][a["Key"]]

    @operation
    def put_object(self, a: Item) -> Item:
        # S3 writes under a condition on the present object, or on its absence.
        present = self.buckets[a["Bucket"]].get(a["Key"])
        if a.get("IfMatch", present and present[1]) != (present and present[1]) or (present and "IfNoneMatch" in a):
            raise Refused("PreconditionFailed", 412)
        body, number = bytes(a["Body"]), next(self.numbers)
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        self.buckets[a["Bucket"]][a["Key"]] = body, f'"{etag}"'
        if a["Bucket"] == self.watched:
            stored = {"key": quote_plus(a["Key"]), "size": len(body), "eTag": etag, "sequencer": f"{number:018X}"}
            event = {"eventName": "ObjectCreated:Put", "eventTime": timestamp(self.now())}
            request = {"responseElements": {"x-amz-request-id": f"request-{number}"}}
            self.events.append({**event, **request, "s3": {"bucket": {"name": a["Bucket"]}, "object": stored}})
        return {"ETag": f'"{etag}"'}

    @operation
    def get_object(self, a: Item) -> Item:
        body, etag = self._object(a, "NoSuchKey")
        if a.get("IfMatch", etag) != etag:
            raise Refused("PreconditionFailed", 412)
        return {"Body": io.BytesIO(body), "ContentLength": len(body), "ETag": etag}

    @operation
    def head_object(self, a: Item) -> Item:
        return {"ETag": self._object(a, "404")[1]}

    def generate_presigned_url(self, _operation: str, Params: Item, ExpiresIn: int) -> str:  # noqa: N803
        return f"https://{Params['Bucket']}.s3.amazonaws.com/{quote(Params['Key'])}?until={self.clock() + ExpiresIn}"


@dataclass
class StepFunctions(Client, service="stepfunctions", errors="ExecutionAlreadyExists ExecutionDoesNotExist InvalidArn"):
    """``executions`` maps ARNs to executions. The simulation runs and ends them."""

    executions: dict[str, Item] = field(default_factory=dict)

    @operation
    def start_execution(self, a: Item) -> Item:
        arn = a["stateMachineArn"].replace(":stateMachine:", ":execution:") + f":{a['name']}"
        new = {**a, "executionArn": arn, "status": "RUNNING", "startDate": self.now()}
        known = self.executions.setdefault(arn, new)
        # The same name and input as a running execution is not an error.
        if known["status"] != "RUNNING" or known["input"] != a["input"]:
            raise Refused("ExecutionAlreadyExists")
        return {"executionArn": arn, "startDate": known["startDate"]}

    @operation
    def describe_execution(self, a: Item) -> Item:
        if a["executionArn"] not in self.executions:
            raise Refused("ExecutionDoesNotExist")
        return dict(self.executions[a["executionArn"]])

    def end(self, arn: str, status: str, **results: str) -> None:
        """Ends an execution with its ``output``, or with its ``error`` and ``cause``."""
        self.executions[arn] |= {"status": status, "stopDate": self.now(), **results}


@dataclass
class Lambda(Client, service="lambda"):
    """``invocations`` lists each asynchronous invocation as the name of a function and its event."""

    invocations: list[tuple[str, Any]] = field(default_factory=list)

    @operation
    def invoke(self, a: Item) -> Item:
        if len(a["Payload"]) > MEBIBYTE:
            raise Refused("RequestTooLargeException", 413)
        self.invocations.append((a["FunctionName"], json.loads(a["Payload"])))
        return {"StatusCode": 202}
