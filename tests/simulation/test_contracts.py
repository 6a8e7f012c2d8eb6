"""The same assertions about AWS hold for the fakes and for the local cloud."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.simulation import fakes
from tests.system.events import records
from tests.system.system import new_id
from tests.system.waiting import wait_for

INDEX = {"byPeriod": ("period", "sortKey")}
MACHINE = {"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 60, "End": True}}}
PAGE = {
    "IndexName": "byPeriod",
    "KeyConditionExpression": "#key = :value AND sortKey BETWEEN :since AND :before",
    "ExpressionAttributeNames": {"#key": "period"},
}
CLAIM = "attribute_not_exists(orderID) OR digest = :digest OR expiresAt < :now"
ABSENT = "attribute_not_exists(orderID)"
NOTES = {"kind": {"DataType": "String", "StringValue": "order"}}


@dataclass
class Cloud:
    """The clients by service, resources of the test, and functions that let time pass and read what AWS delivers."""

    is_fake: bool
    aws: Callable[[str], Any]
    names: dict[str, str]
    wait: Callable[[float], None]
    stream: Callable[[], list[Any]]
    published: Callable[[], list[Any]]

    def call(self, service: str, operation: str, resource: str, **arguments: Any) -> Any:
        return getattr(self.aws(service), operation)(**{resource: self.names[resource]}, **arguments)


def fake() -> Cloud:
    now = [time.time()]
    made = [kind(lambda: now[0]) for kind in (fakes.Sqs, fakes.DynamoDb, fakes.Sns, fakes.S3, fakes.StepFunctions)]
    sqs, dynamodb, sns, _, _ = made
    dead = fakes.Queue()
    sqs.queues = {"queue": fakes.Queue(2, dead, 2), "dead": dead}
    dynamodb.tables["table"] = table = fakes.Table("orderID", INDEX, "stream")
    sns.topics.add("topic")
    names = {"QueueUrl": "queue", "TableName": "table", "TopicArn": "topic", "Bucket": "bucket", "dead": "dead"}
    names["stateMachineArn"] = "arn:aws:states:us-east-1:123456789012:stateMachine:machine"
    clients = {each.service: each for each in made}
    wait = lambda seconds: now.append(now.pop() + seconds)  # noqa: E731
    return Cloud(True, clients.__getitem__, names, wait, lambda: table.records, lambda: sns.published)


def local_cloud(system: Any) -> Cloud:
    clients = {each: system.aws(each) for each in ("sqs", "dynamodb", "sns", "s3", "stepfunctions", "dynamodbstreams")}
    sqs, dynamodb, sns, name = clients["sqs"], clients["dynamodb"], clients["sns"], new_id("contract")
    dead, inbox = (sqs.create_queue(QueueName=f"{name}-{each}")["QueueUrl"] for each in ("dead", "inbox"))
    arns = [
        sqs.get_queue_attributes(QueueUrl=each, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        for each in (dead, inbox)
    ]
    redrive = json.dumps({"deadLetterTargetArn": arns[0], "maxReceiveCount": 2})
    queue = sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "2", "RedrivePolicy": redrive})[
        "QueueUrl"
    ]
    keys = [{"AttributeName": each, "KeyType": kind} for each, kind in (("period", "HASH"), ("sortKey", "RANGE"))]
    table = dynamodb.create_table(
        TableName=name,
        AttributeDefinitions=[
            {"AttributeName": each, "AttributeType": "S"} for each in ("orderID", "period", "sortKey")
        ],
        KeySchema=[{"AttributeName": "orderID", "KeyType": "HASH"}],
        GlobalSecondaryIndexes=[{"IndexName": "byPeriod", "KeySchema": keys, "Projection": {"ProjectionType": "ALL"}}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
        BillingMode="PAY_PER_REQUEST",
    )["TableDescription"]
    topic = sns.create_topic(Name=name)["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arns[1])
    clients["s3"].create_bucket(Bucket=name)
    role = f"arn:aws:iam::{topic.split(':')[4]}:role/contract"
    machine = clients["stepfunctions"].create_state_machine(name=name, definition=json.dumps(MACHINE), roleArn=role)
    names = {"QueueUrl": queue, "TableName": name, "TopicArn": topic, "Bucket": name, "dead": dead}
    names["stateMachineArn"] = machine["stateMachineArn"]

    def published() -> list[Any]:
        messages = sqs.receive_message(QueueUrl=inbox, MaxNumberOfMessages=10, VisibilityTimeout=0).get("Messages", [])
        return [json.loads(each["Body"]) for each in messages]

    stream = lambda: [each for _, each in records(clients["dynamodbstreams"], table["LatestStreamArn"])]  # noqa: E731
    return Cloud(False, clients.__getitem__, names, time.sleep, stream, published)


@pytest.fixture(scope="module", params=["fake", "local cloud"])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    return fake() if request.param == "fake" else local_cloud(request.getfixturevalue("system"))


def refusal(call: Callable[..., Any], *arguments: Any, **named: Any) -> tuple[str, int] | None:
    try:
        call(*arguments, **named)
    except ClientError as error:
        return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    return None


def order(order_id: str, **texts: str) -> dict[str, Any]:
    return {name: {"S": text} for name, text in {"orderID": order_id, **texts}.items()}


def test_conditional_put(cloud: Cloud) -> None:
    name = new_id()

    def claim(digest: str, expires: int, now: int) -> tuple[str, int] | None:
        item = {**order(name, digest=digest), "expiresAt": {"N": str(expires)}}
        given = {"ExpressionAttributeValues": {":digest": {"S": digest}, ":now": {"N": str(now)}}}
        return refusal(cloud.call, "dynamodb", "put_item", "TableName", Item=item, ConditionExpression=CLAIM, **given)

    refused = ("ConditionalCheckFailedException", 400)
    outcomes = [claim("a", 20, 9), claim("a", 20, 9), claim("b", 30, 9), claim("b", 30, 100), claim("a", 20, 9)]
    assert outcomes == [None, None, refused, None, refused]
    with pytest.raises(cloud.aws("dynamodb").exceptions.ConditionalCheckFailedException):
        cloud.call("dynamodb", "put_item", "TableName", Item=order(name), ConditionExpression=ABSENT)


def test_conditional_update(cloud: Cloud) -> None:
    key = order(new_id())

    def change(status: str, condition: str) -> Any:
        values = {":status": {"S": status}, ":n": {"N": "1"}, ":is0": {"S": "WAITING"}, ":is1": {"S": "DONE"}}
        given = {"ExpressionAttributeNames": {"#status": "status"}, "ExpressionAttributeValues": values}
        given |= {"Key": key, "UpdateExpression": "SET #status = :status, rowsRead = :n"}
        return refusal(cloud.call, "dynamodb", "update_item", "TableName", **given, ConditionExpression=condition)

    assert change("WAITING", "#status IN (:is0, :is1)") == ("ConditionalCheckFailedException", 400)
    assert change("WAITING", "#status IN (:is0, :is1) OR attribute_not_exists(#status)") is None
    assert change("LOST", "#status IN (:is1) OR attribute_not_exists(#status)") is not None
    assert change("DONE", "#status IN (:is0, :is1)") is None
    item = cloud.call("dynamodb", "get_item", "TableName", Key=key, ConsistentRead=True)["Item"]
    assert item == {**key, "status": {"S": "DONE"}, "rowsRead": {"N": "1"}}
    assert "Item" not in cloud.call("dynamodb", "get_item", "TableName", Key=order("absent"))


def test_inserts_and_the_stream(cloud: Cloud) -> None:
    first, second, table = new_id(), new_id(), cloud.names["TableName"]

    def insert(*ids: str) -> list[str | None]:
        text = f"INSERT INTO \"{table}\" VALUE {{'orderID': ?, 'customerID': ?}}"
        statements = [{"Statement": text, "Parameters": list(order(each, customerID=each).values())} for each in ids]
        answer = cloud.aws("dynamodb").batch_execute_statement(Statements=statements)
        return [each.get("Error", {}).get("Code") for each in answer["Responses"]]

    assert insert(first, second) == [None, None]
    assert insert(second, "new-" + first) == ["DuplicateItem", None]
    keys = {"Keys": [order(first), order("absent")], "ConsistentRead": True}
    answer = cloud.aws("dynamodb").batch_get_item(RequestItems={table: keys})
    assert (answer["Responses"], answer["UnprocessedKeys"]) == ({table: [order(first, customerID=first)]}, {})
    for customer in (first, "another", "another"):
        cloud.call("dynamodb", "put_item", "TableName", Item=order(first, customerID=customer))
    found = [each for each in cloud.stream() if first == each["dynamodb"]["Keys"]["orderID"]["S"]]
    assert [each["eventName"] for each in found] == ["INSERT", "MODIFY"]
    assert [each["dynamodb"]["NewImage"]["customerID"]["S"] for each in found] == [first, "another"]
    numbers = [int(each["dynamodb"]["SequenceNumber"]) for each in found]
    assert numbers == sorted(set(numbers))
    assert len({each["eventID"] for each in found}) == 2


def test_query(cloud: Cloud) -> None:
    period, texts = new_id(), "abcde"
    for text in texts:
        item = order(period + text, period=period, sortKey=text, kind="order" if text < "d" else "report")
        cloud.call("dynamodb", "put_item", "TableName", Item=item)
    values = {":value": {"S": period}, ":since": {"S": "b"}, ":before": {"S": "e"}}

    def query(**given: Any) -> tuple[str, Any, Any]:
        answer = cloud.call("dynamodb", "query", "TableName", **{**PAGE, "ExpressionAttributeValues": values, **given})
        found = "".join(each["sortKey"]["S"] for each in answer["Items"])
        return found, answer["ScannedCount"], answer.get("LastEvaluatedKey")

    last = order(period + "d", period=period, sortKey="d")
    assert query() == ("bcde", 4, None)
    assert query(ScanIndexForward=False, Limit=2) == ("ed", 2, last)
    assert query(ScanIndexForward=False, Limit=9, ExclusiveStartKey=last) == ("cb", 2, None)
    assert query(ExclusiveStartKey=last) == ("e", 1, None)
    kinds = {"ExpressionAttributeValues": {**values, ":a": {"S": "order"}, ":b": {"S": "alarm"}}}
    assert query(Limit=3, FilterExpression="kind IN (:a, :b)", **kinds) == ("bc", 3, last)
    since = {
        "KeyConditionExpression": "#key = :value AND sortKey >= :since",
        "ExpressionAttributeValues": values.copy(),
    }
    del since["ExpressionAttributeValues"][":before"]
    assert query(**since)[0] == "bcde"


def test_messages(cloud: Cloud) -> None:
    bodies = {new_id(): attributes for attributes in (NOTES, {}, {})}

    def batch(operation: str, entries: list[dict[str, Any]]) -> tuple[int, list[str]]:
        numbered = [{"Id": str(number), **each} for number, each in enumerate(entries)]
        answer = cloud.call("sqs", operation, "QueueUrl", Entries=numbered)
        return len(answer.get("Successful", [])), [each["Code"] for each in answer.get("Failed", [])]

    def receive(resource: str = "QueueUrl", **given: Any) -> dict[str, Any]:
        names = {"MessageSystemAttributeNames": ["All"], "MessageAttributeNames": ["All"], "MaxNumberOfMessages": 10}
        url = cloud.names[resource]
        return {
            each["Body"]: each
            for each in cloud.aws("sqs").receive_message(QueueUrl=url, **names, **given).get("Messages", [])
        }

    def depth() -> list[str]:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        attributes = cloud.call("sqs", "get_queue_attributes", "QueueUrl", AttributeNames=names)["Attributes"]
        return [attributes[name] for name in names]

    sent = [{"MessageBody": body, **({"MessageAttributes": each} if each else {})} for body, each in bodies.items()]
    assert batch("send_message_batch", sent) == (3, [])
    first = receive()
    assert (first.keys(), receive(), depth()) == (bodies.keys(), {}, ["0", "3"])
    noted, hidden, deleted = first
    assert first[noted]["MessageAttributes"]["kind"]["StringValue"] == "order"
    assert "MessageAttributes" not in first[hidden]
    assert first[noted]["Attributes"]["ApproximateReceiveCount"] == "1"
    assert abs(int(first[noted]["Attributes"]["SentTimestamp"]) / 1000 - time.time()) < 60
    handles = {body: {"ReceiptHandle": each["ReceiptHandle"]} for body, each in first.items()}
    assert batch("delete_message_batch", [handles[deleted]]) == (1, [])
    delays = {noted: 0, hidden: 100, deleted: 0}
    entries = [{**handles[body], "VisibilityTimeout": seconds} for body, seconds in delays.items()]
    assert batch("change_message_visibility_batch", entries)[0] == 2
    assert depth() == ["1", "1"]
    second = receive(VisibilityTimeout=1)
    assert {body: each["Attributes"]["ApproximateReceiveCount"] for body, each in second.items()} == {noted: "2"}
    cloud.wait(1.5)
    # The message was received twice, as often as the queue allows, so the next call moves it to the dead letters.
    assert (receive(), receive("dead")[noted]["MessageId"]) == ({}, first[noted]["MessageId"])
    assert batch("delete_message_batch", [handles[hidden]]) == (1, [])


def test_objects(cloud: Cloud) -> None:
    key, s3 = new_id("folder/ä "), partial(cloud.call, "s3")
    etags = [s3("put_object", "Bucket", Key=key, Body=body)["ETag"] for body in (b"old", b"new", b"new")]
    assert etags[0] != etags[1] == etags[2] == s3("head_object", "Bucket", Key=key)["ETag"]
    answer = s3("get_object", "Bucket", Key=key, IfMatch=etags[1])
    assert (answer["Body"].read(2), answer["Body"].read(2), answer["ContentLength"]) == (b"ne", b"w", 3)
    assert refusal(s3, "get_object", "Bucket", Key=key, IfMatch=etags[0]) == ("PreconditionFailed", 412)
    assert refusal(s3, "get_object", "Bucket", Key="absent") == ("NoSuchKey", 404)
    assert refusal(s3, "head_object", "Bucket", Key="absent") == ("404", 404)


def test_executions(cloud: Cloud) -> None:
    sfn, name = cloud.aws("stepfunctions"), new_id()
    start = partial(cloud.call, "stepfunctions", "start_execution", "stateMachineArn", name=name)
    arn, started = (start(input="{}")[each] for each in ("executionArn", "startDate"))
    assert arn.endswith(f":{name}")
    assert start(input="{}") == {**start(input="{}"), "executionArn": arn, "startDate": started}
    assert refusal(start, input='{"a": 1}') == ("ExecutionAlreadyExists", 400)
    cloud.aws("stepfunctions").end(arn, "ABORTED") if cloud.is_fake else sfn.stop_execution(executionArn=arn)
    execution = sfn.describe_execution(executionArn=arn)
    assert (execution["name"], execution["status"], execution["input"]) == (name, "ABORTED", "{}")
    assert execution["stopDate"] >= execution["startDate"]
    with pytest.raises(sfn.exceptions.ExecutionAlreadyExists):
        start(input="{}")
    with pytest.raises(sfn.exceptions.ExecutionDoesNotExist):
        sfn.describe_execution(executionArn=arn + "-absent")


def test_publication(cloud: Cloud) -> None:
    text = json.dumps({"default": new_id(), "sms": "short"})
    given = {"Subject": "Hello", "Message": text, "MessageStructure": "json", "MessageAttributes": NOTES}
    message_id = cloud.call("sns", "publish", "TopicArn", **given)["MessageId"]
    found = wait_for(lambda: [each for each in cloud.published() if each["MessageId"] == message_id], "the message")[0]
    del found["Timestamp"]
    shown = {"Type": "Notification", "TopicArn": cloud.names["TopicArn"], "Message": json.loads(text)["default"]}
    shown |= {"Subject": "Hello", "MessageAttributes": {"kind": {"Type": "String", "Value": "order"}}}
    assert shown.items() <= found.items()


EMPTY = {"kind": {"DataType": "String", "StringValue": ""}}
TOO_MANY = [{"Id": str(number), "MessageBody": "x"} for number in range(11)]
REFUSALS = {
    "too many messages": (
        "sqs",
        "send_message_batch",
        "QueueUrl",
        {"Entries": TOO_MANY},
        "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
    ),
    "too long a batch": (
        "sqs",
        "send_message_batch",
        "QueueUrl",
        {"Entries": [{"Id": "0", "MessageBody": "x" * 1_048_577}]},
        "AWS.SimpleQueueService.BatchRequestTooLong",
    ),
    "no key": ("dynamodb", "put_item", "TableName", {"Item": order("")}, "ValidationException"),
    "too large an item": (
        "dynamodb",
        "put_item",
        "TableName",
        {"Item": order("x", note="x" * 409_600)},
        "ValidationException",
    ),
    "a long subject": ("sns", "publish", "TopicArn", {"Message": "x", "Subject": "x" * 101}, "InvalidParameter"),
    "a subject of two lines": ("sns", "publish", "TopicArn", {"Message": "x", "Subject": "x\ny"}, "InvalidParameter"),
    "an empty message": ("sns", "publish", "TopicArn", {"Message": ""}, "InvalidParameter"),
    "a long message": ("sns", "publish", "TopicArn", {"Message": "x" * 262_145}, "InvalidParameter"),
    "no default": ("sns", "publish", "TopicArn", {"Message": "{}", "MessageStructure": "json"}, "InvalidParameter"),
    "an empty attribute": (
        "sns",
        "publish",
        "TopicArn",
        {"Message": "x", "MessageAttributes": EMPTY},
        "ParameterValueInvalid",
    ),
}
# The local cloud accepts these, unlike AWS.
ACCEPTED_LOCALLY: set[str] = set()


@pytest.mark.parametrize("what", REFUSALS)
def test_refusal(cloud: Cloud, what: str) -> None:
    service, operation, resource, arguments, code = REFUSALS[what]
    accepted = not cloud.is_fake and what in ACCEPTED_LOCALLY
    assert refusal(cloud.call, service, operation, resource, **arguments) == (None if accepted else (code, 400))
