"""The same assertions hold for the fakes and for the local cloud. The tests name the deviations of the local cloud."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from chalicelib.orders import changes
from chalicelib.orders.changes import Change
from tests.simulation import fakes
from tests.system.events import records
from tests.system.system import new_id
from tests.system.waiting import wait_for

CLAIM = "attribute_not_exists(orderID) OR digest = :digest OR expiresAt < :now"
RANGE = "#key = :value AND sortKey BETWEEN :since AND :before"
FAILED_CHECK = ("ConditionalCheckFailedException", 400)
NOTE = {"kind": {"DataType": "String", "StringValue": "order"}}
MACHINE = {"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 60, "End": True}}}
SYSTEM = {"MessageSystemAttributeNames": ["All"], "MessageAttributeNames": ["All"], "MaxNumberOfMessages": 10}


def fake() -> SimpleNamespace:
    now = [time.time()]
    names = {"queue": "queue", "dead": "dead", "table": "table", "topic": "topic", "bucket": "bucket", "machine": "arn"}
    kinds = (fakes.Sqs, fakes.DynamoDb, fakes.Sns, fakes.S3, fakes.StepFunctions)
    cloud = SimpleNamespace(**names, **{kind.service: kind(lambda: now[0]) for kind in kinds}, is_fake=True)
    cloud.sqs.queues["dead"] = dead = fakes.Queue()
    cloud.sqs.queues["queue"] = fakes.Queue(2, dead, 2)
    cloud.dynamodb.tables["table"] = table = fakes.Table("orderID", {"byPeriod": ("period", "sortKey")}, "stream")
    cloud.sns.topics.add("topic")
    cloud.stream, cloud.published = (lambda: table.records), (lambda: cloud.sns.published)
    cloud.wait = lambda seconds: now.append(now.pop() + seconds)
    cloud.stop = lambda arn: cloud.stepfunctions.end(arn, "ABORTED")
    return cloud


def local_cloud(system: Any) -> SimpleNamespace:
    services = ("sqs", "dynamodb", "sns", "s3", "stepfunctions", "dynamodbstreams")
    cloud, name = SimpleNamespace(**{each: system.aws(each) for each in services}, is_fake=False), new_id("contract")
    prefix, sfn = system.env["ORDERS_QUEUE_ARN"].rpartition(":")[0], cloud.stepfunctions
    redrive = json.dumps({"deadLetterTargetArn": f"{prefix}:{name}-dead", "maxReceiveCount": 2})
    allowed = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": f"{prefix}:{name}-inbox"}
    attributes = {"-dead": {}, "": {"VisibilityTimeout": "2", "RedrivePolicy": redrive}}
    attributes["-inbox"] = {"Policy": json.dumps({"Version": "2012-10-17", "Statement": [allowed]})}
    made = [cloud.sqs.create_queue(QueueName=name + end, Attributes=each) for end, each in attributes.items()]
    cloud.dead, cloud.queue, inbox = (each["QueueUrl"] for each in made)
    orders = cloud.dynamodb.describe_table(TableName=system.env["ORDERS_TABLE"])["Table"]
    copied = {each: orders[each] for each in ("AttributeDefinitions", "KeySchema", "StreamSpecification")}
    indexes = [
        {each: index[each] for each in ("IndexName", "KeySchema", "Projection")}
        for index in orders["GlobalSecondaryIndexes"]
    ]
    table = cloud.dynamodb.create_table(
        **copied, TableName=name, GlobalSecondaryIndexes=indexes, BillingMode="PAY_PER_REQUEST"
    )
    cloud.topic = cloud.sns.create_topic(Name=name)["TopicArn"]
    cloud.sns.subscribe(TopicArn=cloud.topic, Protocol="sqs", Endpoint=f"{prefix}:{name}-inbox")
    cloud.s3.create_bucket(Bucket=name)
    role = sfn.describe_state_machine(stateMachineArn=system.env["INVENTORY_REPORT_ARN"])["roleArn"]
    cloud.machine = sfn.create_state_machine(name=name, definition=json.dumps(MACHINE), roleArn=role)["stateMachineArn"]
    cloud.table, cloud.bucket, cloud.wait = name, name, time.sleep
    receive = partial(cloud.sqs.receive_message, QueueUrl=inbox, **SYSTEM, VisibilityTimeout=0)
    cloud.published = lambda: [json.loads(each["Body"]) for each in receive().get("Messages", [])]
    stream = table["TableDescription"]["LatestStreamArn"]
    cloud.stream = lambda: [each for _, each in records(cloud.dynamodbstreams, stream)]
    cloud.stop = lambda arn: sfn.stop_execution(executionArn=arn)
    return cloud


@pytest.fixture(scope="module", params=["fake", "local cloud"])
def cloud(request: pytest.FixtureRequest) -> SimpleNamespace:
    return fake() if request.param == "fake" else local_cloud(request.getfixturevalue("system"))


def refusal(call: Callable[..., Any], **arguments: Any) -> tuple[str, int] | None:
    try:
        call(**arguments)
    except ClientError as error:
        return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    return None


def order(order_id: str, **texts: str) -> dict[str, Any]:
    return {name: {"S": text} for name, text in {"orderID": order_id, **texts}.items()}


def test_puts(cloud: SimpleNamespace) -> None:
    name, put = new_id(), partial(cloud.dynamodb.put_item, TableName=cloud.table)

    def claim(digest: str, expires: int, now: int) -> tuple[str, int] | None:
        item = {**order(name, digest=digest), "expiresAt": {"N": str(expires)}}
        values = {":digest": {"S": digest}, ":now": {"N": str(now)}}
        return refusal(put, Item=item, ConditionExpression=CLAIM, ExpressionAttributeValues=values)

    outcomes = [claim("a", 20, 9), claim("a", 20, 9), claim("b", 30, 9), claim("b", 30, 100), claim("a", 20, 9)]
    assert outcomes == [None, None, FAILED_CHECK, None, FAILED_CHECK]
    with pytest.raises(cloud.dynamodb.exceptions.ConditionalCheckFailedException):
        put(Item=order(name), ConditionExpression="attribute_not_exists(orderID)")
    assert refusal(put, Item=order("")) == ("ValidationException", 400)
    assert refusal(put, Item=order(name, note="x" * 409_600)) == ("ValidationException", 400)


def test_updates(cloud: SimpleNamespace) -> None:
    key = order(new_id())

    def change(status: str, condition: str) -> tuple[str, int] | None:
        values = {":status": {"S": status}, ":n": {"N": "1"}, ":is0": {"S": "WAITING"}, ":is1": {"S": "LATE"}}
        given = {"ExpressionAttributeNames": {"#status": "status"}, "ExpressionAttributeValues": values}
        given |= {"TableName": cloud.table, "Key": key, "UpdateExpression": "SET #status = :status, rowsRead = :n"}
        return refusal(cloud.dynamodb.update_item, **given, ConditionExpression=condition)

    assert change("WAITING", "#status IN (:is0, :is1)") == FAILED_CHECK
    assert change("WAITING", "#status IN (:is0, :is1) OR attribute_not_exists(#status)") is None
    assert change("DONE", "#status IN (:is0, :is1)") is None
    assert change("LOST", "#status IN (:is0, :is1) OR attribute_not_exists(#status)") == FAILED_CHECK
    item = cloud.dynamodb.get_item(TableName=cloud.table, Key=key, ConsistentRead=True)["Item"]
    assert item == {**key, "status": {"S": "DONE"}, "rowsRead": {"N": "1"}}
    assert "Item" not in cloud.dynamodb.get_item(TableName=cloud.table, Key=order("absent"))


def test_changes_of_an_order(cloud: SimpleNamespace) -> None:
    order_id, given = new_id(), {"dynamodb": cloud.dynamodb, "table": cloud.table}
    placed = {**order(order_id, status="PLACED", customerID="ann"), "items": {"L": []}, "note": {"NULL": True}}
    cloud.dynamodb.put_item(TableName=cloud.table, Item=placed)

    def entry(key: str, name: str) -> dict[str, Any]:
        return {field: {"S": text} for field, text in {"at": "now", "by": "ben", "change": name, "key": key}.items()}

    corrected = changes.make(order_id, Change("PLACED", note="new", has_note=True), entry("a", "CORRECTED"), **given)
    # Neither an order as it was before nor a repeated request changes the order.
    assert changes._write(placed, {"status": {"S": "READY"}}, entry("b", "READY"), **given) is None
    ready = changes.make(order_id, Change("PLACED", 1, "READY"), entry("c", "READY"), **given)
    assert changes._write(corrected, {"status": {"S": "CANCELLED"}}, entry("d", "CANCELLED"), **given) is None
    assert changes.make(order_id, Change("PLACED", 1, "READY"), entry("c", "READY"), **given) == ready
    entries = [{**entry("a", "CORRECTED"), "items": placed["items"], "note": placed["note"]}, entry("c", "READY")]
    assert ready == {
        **{
            **placed,
            **order(order_id, status="READY", note="new", changedAt="now", changedBy="ben", lastChange="READY"),
        },
        **{"version": {"N": "2"}, "changes": {"L": [{"M": each} for each in entries]}},
    }
    found = [each for each in cloud.stream() if each["dynamodb"]["Keys"] == order(order_id)]
    assert [each["dynamodb"]["NewImage"] for each in found] == [placed, corrected, ready]
    assert [each["eventName"] for each in found] == ["INSERT", "MODIFY", "MODIFY"]


def test_inserts_and_the_stream(cloud: SimpleNamespace) -> None:
    first, second = new_id(), new_id()

    def insert(*ids: str) -> list[str | None]:
        text = f"INSERT INTO \"{cloud.table}\" VALUE {{'orderID': ?, 'customerID': ?}}"
        statements = [{"Statement": text, "Parameters": [{"S": each}, {"S": first}]} for each in ids]
        answer = cloud.dynamodb.batch_execute_statement(Statements=statements)
        return [each.get("Error", {}).get("Code") for each in answer["Responses"]]

    assert (insert(first, second), insert(second, "new")) == ([None, None], ["DuplicateItem", None])
    request = {cloud.table: {"Keys": [order(first), order("absent")], "ConsistentRead": True}}
    answer = cloud.dynamodb.batch_get_item(RequestItems=request)
    assert (answer["Responses"], answer["UnprocessedKeys"]) == ({cloud.table: [order(first, customerID=first)]}, {})
    for customer in (first, "other", "other"):
        cloud.dynamodb.put_item(TableName=cloud.table, Item=order(first, customerID=customer))
    found = [each for each in cloud.stream() if each["dynamodb"]["Keys"] == order(first)]
    images = [(each["eventName"], each["dynamodb"]["NewImage"]["customerID"]["S"]) for each in found]
    # A write that changes nothing adds no record.
    assert images == [("INSERT", first), ("MODIFY", "other")]
    assert int(found[0]["dynamodb"]["SequenceNumber"]) < int(found[1]["dynamodb"]["SequenceNumber"])
    assert found[0]["eventID"] != found[1]["eventID"]


def test_queries(cloud: SimpleNamespace) -> None:
    period = new_id()
    for text in "abcde":
        item = order(period + text, period=period, sortKey=text, kind="order" if text < "d" else "report")
        cloud.dynamodb.put_item(TableName=cloud.table, Item=item)

    def query(keys: str = RANGE, more: Any = {":before": {"S": "e"}}, **given: Any) -> tuple[str, int, Any]:  # noqa: B006
        given |= {"ExpressionAttributeValues": {":value": {"S": period}, ":since": {"S": "b"}, **more}}
        given |= {"KeyConditionExpression": keys, "ExpressionAttributeNames": {"#key": "period"}}
        answer = cloud.dynamodb.query(TableName=cloud.table, IndexName="byPeriod", **given)
        found = "".join(each["sortKey"]["S"] for each in answer["Items"])
        return found, answer["ScannedCount"], answer.get("LastEvaluatedKey")

    last = order(period + "d", period=period, sortKey="d")
    assert query() == query("#key = :value AND sortKey >= :since", {}) == ("bcde", 4, None)
    assert query(ScanIndexForward=False, Limit=2) == ("ed", 2, last)
    assert query(ScanIndexForward=False, Limit=9, ExclusiveStartKey=last) == ("cb", 2, None)
    assert query(ExclusiveStartKey=last) == ("e", 1, None)
    kinds = {":before": {"S": "e"}, ":a": {"S": "order"}, ":b": {"S": "alarm"}}
    assert query(more=kinds, Limit=3, FilterExpression="kind IN (:a, :b)") == ("bc", 3, last)


def test_messages(cloud: SimpleNamespace) -> None:
    noted, hidden, deleted = new_id(), new_id(), new_id()

    def batch(operation: str, *entries: dict[str, Any]) -> tuple[int, int]:
        numbered = [{"Id": str(number), **each} for number, each in enumerate(entries)]
        answer = getattr(cloud.sqs, operation)(QueueUrl=cloud.queue, Entries=numbered)
        return len(answer.get("Successful", [])), len(answer.get("Failed", []))

    def receive(queue: str = cloud.queue, **given: Any) -> dict[str, Any]:
        answer = cloud.sqs.receive_message(QueueUrl=queue, **SYSTEM, **given)
        return {each["Body"]: each for each in answer.get("Messages", [])}

    def depth() -> list[str]:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        attributes = cloud.sqs.get_queue_attributes(QueueUrl=cloud.queue, AttributeNames=names)["Attributes"]
        return [attributes[name] for name in names]

    bodies = [{"MessageBody": noted, "MessageAttributes": NOTE}, {"MessageBody": hidden}, {"MessageBody": deleted}]
    assert batch("send_message_batch", *bodies) == (3, 0)
    got = receive()
    assert (got.keys(), receive(), depth()) == ({noted, hidden, deleted}, {}, ["0", "3"])
    assert got[noted]["MessageAttributes"]["kind"]["StringValue"] == "order"
    assert "MessageAttributes" not in got[hidden]
    assert got[noted]["Attributes"]["ApproximateReceiveCount"] == "1"
    assert abs(int(got[noted]["Attributes"]["SentTimestamp"]) / 1000 - time.time()) < 60
    handles = {body: {"ReceiptHandle": each["ReceiptHandle"]} for body, each in got.items()}
    assert batch("delete_message_batch", handles[deleted]) == (1, 0)
    # AWS accepts that a message is deleted twice. The local cloud refuses it.
    assert batch("delete_message_batch", handles[deleted]) == ((1, 0) if cloud.is_fake else (0, 1))
    seconds = {noted: 0, hidden: 100, deleted: 0}
    changes = [{**handles[body], "VisibilityTimeout": each} for body, each in seconds.items()]
    assert (batch("change_message_visibility_batch", *changes), depth()) == ((2, 1), ["1", "1"])
    assert {body: each["Attributes"]["ApproximateReceiveCount"] for body, each in receive().items()} == {noted: "2"}
    cloud.wait(2.5)
    # The queue's maxReceiveCount is 2, so the third attempt moves the message to the dead letters.
    assert (receive(), receive(cloud.dead)[noted]["MessageId"]) == ({}, got[noted]["MessageId"])
    assert batch("delete_message_batch", handles[hidden]) == (1, 0)
    too_many = [{"Id": str(number), "MessageBody": "x"} for number in range(11)]
    for name, entries in {
        "TooManyEntriesInBatchRequest": too_many,
        "BatchRequestTooLong": [{"Id": "0", "MessageBody": "x" * 1_048_577}],
    }.items():
        refused = refusal(cloud.sqs.send_message_batch, QueueUrl=cloud.queue, Entries=entries)
        assert refused == (f"AWS.SimpleQueueService.{name}", 400)


def test_objects(cloud: SimpleNamespace) -> None:
    where, s3 = {"Bucket": cloud.bucket, "Key": new_id("folder/ä ")}, cloud.s3
    old, new, same = (s3.put_object(**where, Body=body)["ETag"] for body in (b"old", b"new", b"new"))
    assert old != new == same == s3.head_object(**where)["ETag"]
    answer = s3.get_object(**where, IfMatch=new)
    assert (answer["Body"].read(2), answer["Body"].read(2), answer["ContentLength"]) == (b"ne", b"w", 3)
    assert refusal(s3.get_object, **where, IfMatch=old) == ("PreconditionFailed", 412)
    assert refusal(s3.get_object, **where | {"Key": "absent"}) == ("NoSuchKey", 404)
    assert refusal(s3.head_object, **where | {"Key": "absent"}) == ("404", 404)


def test_executions(cloud: SimpleNamespace) -> None:
    sfn, name = cloud.stepfunctions, new_id()
    start = partial(sfn.start_execution, stateMachineArn=cloud.machine, name=name)
    first, again = start(input="{}"), start(input="{}")
    arn = first["executionArn"]
    assert (again["executionArn"], again["startDate"]) == (arn, first["startDate"])
    assert refusal(start, input='{"other": 1}') == ("ExecutionAlreadyExists", 400)
    cloud.stop(arn)
    shown = sfn.describe_execution(executionArn=arn)
    assert (shown["name"], shown["status"], shown["input"]) == (name, "ABORTED", "{}")
    assert shown["stopDate"] >= shown["startDate"]
    with pytest.raises(sfn.exceptions.ExecutionAlreadyExists):
        start(input="{}")
    with pytest.raises(sfn.exceptions.ExecutionDoesNotExist):
        sfn.describe_execution(executionArn=arn + "-absent")


def test_publications(cloud: SimpleNamespace) -> None:
    text = json.dumps({"default": new_id(), "sms": "short"})
    given = {"TopicArn": cloud.topic, "Subject": "Hello", "MessageAttributes": NOTE}
    known = cloud.sns.publish(**given, Message=text, MessageStructure="json")["MessageId"]
    found = wait_for(lambda: [each for each in cloud.published() if each["MessageId"] == known], "the message")[0]
    shown = given | {"Type": "Notification", "Message": json.loads(text)["default"]}
    assert found.items() >= (shown | {"MessageAttributes": {"kind": {"Type": "String", "Value": "order"}}}).items()


@pytest.mark.parametrize(
    ("is_accepted_locally", "refused"),
    [
        (True, {"Subject": "x" * 101}),
        (True, {"Subject": "two\nlines"}),
        (True, {"Message": ""}),
        (True, {"Message": "{}", "MessageStructure": "json"}),
        (True, {"MessageAttributes": {"kind": {"DataType": "String", "StringValue": ""}}}),
        (False, {"Message": "x" * 262_145}),
    ],
)
def test_refused_publications(cloud: SimpleNamespace, is_accepted_locally: bool, refused: dict[str, Any]) -> None:
    code = "ParameterValueInvalid" if "MessageAttributes" in refused else "InvalidParameter"
    expected = None if is_accepted_locally and not cloud.is_fake else (code, 400)
    assert refusal(cloud.sns.publish, TopicArn=cloud.topic, **{"Message": "x"} | refused) == expected
