"""The smallest call that needs each right of each role, for the rights that the local cloud enforces.

An exercise calls a function as its trigger does, in some hundredths of a second. The answer and the log tell whether
AWS refused something.
"""

from __future__ import annotations

import json
import re
import secrets
import time
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, NamedTuple

from chalicelib.reports.inventory import COLUMNS
from chalicelib.reports.render import WHOLE_INVENTORY
from tests.deploying.checkout import Place
from tests.system.faults import invalid
from tests.system.system import wait_for

# The words of a refusal in an answer or a log. S3 has its own ones for a HEAD request and for a signed link.
REFUSED = re.compile(r"is not authorized to perform|AccessDenied|AuthorizationError|\(403\) when calling|left behind")


class Answer(NamedTuple):
    """``ok`` tells whether the call succeeded, and ``said`` has its answer and its log."""

    ok: bool
    said: str

    @property
    def refused(self) -> bool:
        return bool(REFUSED.search(self.said))


@dataclass(frozen=True)
class Stage:
    """A deployed stage of the local cloud, as the services of AWS and its users see it."""

    place: Place
    name: str

    def aws(self, service: str) -> Any:
        return self.place.account.aws(service)

    def bucket(self, name: str) -> str:
        return f"cafe-{self.name}-{name}-000000000000"

    def queue(self, name: str) -> str:
        return str(self.aws("sqs").get_queue_url(QueueName=f"cafe-{self.name}-{name}")["QueueUrl"])

    def topic(self, name: str) -> str:
        return f"arn:aws:sns:us-east-1:000000000000:cafe-{self.name}-{name}"

    def machine(self, name: str) -> str:
        return f"arn:aws:states:us-east-1:000000000000:stateMachine:cafe-{self.name}-{name}"

    def function(self, name: str) -> str:
        return f"cafe-{self.name}-{name}" if name else f"cafe-{self.name}"

    def variables(self, function: str) -> dict[str, str]:
        configuration = self.aws("lambda").get_function_configuration(FunctionName=self.function(function))
        return dict(configuration["Environment"]["Variables"])

    def set_variables(self, function: str, variables: dict[str, str]) -> None:
        """Sets the variables of a function, whose next call starts in a new process."""
        self.aws("lambda").update_function_configuration(
            FunctionName=self.function(function), Environment={"Variables": variables}
        )

    @contextmanager
    def over_the_wire(self, function: str) -> Iterator[None]:
        """Sends the function's calls through the tests' wire for a while."""
        before = self.variables(function)
        self.set_variables(
            function, {**before, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.place.wire.server_address[1]}"}
        )
        try:
            yield
        finally:
            self.set_variables(function, before)

    def call(self, function: str, event: Any) -> Answer:
        answer = self.aws("lambda").invoke(
            FunctionName=self.function(function), Payload=json.dumps(event), LogType="Tail"
        )
        said = answer["Payload"].read().decode()
        return Answer("FunctionError" not in answer, said + "\n" + b64decode(answer.get("LogResult", "")).decode())

    def api(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Sends a manager's request as API Gateway does. Braces in the path mark a parameter: ``/orders/{o-1}``."""
        path, _, query = path.partition("?")
        parameter = re.search(r"{(.*)}", path)
        name = "order_id" if path.startswith("/orders") else "report_id"
        resource = path.replace(parameter[0], f"{{{name}}}") if parameter else path
        event = {
            "resource": resource,
            "path": path,
            "httpMethod": method,
            "headers": {"Content-Type": "application/json", "Host": "api.test", **headers},
            "multiValueQueryStringParameters": {
                key: [value] for key, _, value in (each.partition("=") for each in query.split("&") if each)
            },
            "pathParameters": {name: parameter[1]} if parameter else None,
            "stageVariables": None,
            "body": None if body is None else json.dumps(body),
            "isBase64Encoded": False,
            "requestContext": {
                "resourcePath": resource,
                "httpMethod": method,
                "path": path,
                "requestId": secrets.token_hex(8),
                "identity": {},
                "authorizer": {"principalId": "manager", "groups": "managers"},
            },
        }
        answer = self.call("", event)
        status = json.loads(answer.said.partition("\n")[0]).get("statusCode", 500)
        return Answer(answer.ok and status < 400, answer.said)

    def content(self, answer: Answer) -> dict[str, Any]:
        """Returns the JSON of a route's answer."""
        content: dict[str, Any] = json.loads(json.loads(answer.said.partition("\n")[0])["body"])
        return content

    def execution(self, kind: str) -> str:
        """Starts a report, and returns the name of its execution."""
        name = f"{kind}-{secrets.token_hex(6)}"
        machine = self.machine(f"{kind}-report")
        self.aws("stepfunctions").start_execution(stateMachineArn=machine, name=name, input="{}")
        return name

    def ended(self, kind: str, name: str) -> str:
        """Waits for the end of a report's execution, and returns its status."""
        arn = f"{self.machine(f'{kind}-report').replace(':stateMachine:', ':execution:')}:{name}"
        sfn = self.aws("stepfunctions")

        def look() -> str | None:
            status = str(sfn.describe_execution(executionArn=arn)["status"])
            return status if status != "RUNNING" else None

        return str(wait_for(look, f"the end of {name}"))


def link(url: str, data: bytes | None = None, kind: str = "") -> Answer:
    """Follows a link, or posts to it."""
    request = urllib.request.Request(url, data, {"Content-Type": kind} if kind else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return Answer(True, answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(False, f"{error.code} {error.read().decode()}")


# --- The API ----------------------------------------------------------------------------------------------------------


def new_order(**more: Any) -> dict[str, Any]:
    return {"customerID": "c", "item": "x", **more}


def with_a_key(stage: Stage) -> Answer:
    return stage.api("POST", "/orders", new_order(), **{"Idempotency-Key": secrets.token_hex(8)})


def one_order(stage: Stage) -> Answer:
    stage.aws("dynamodb").put_item(TableName=f"cafe-{stage.name}-orders", Item=stored("one-order"))
    return stage.api("GET", "/orders/{one-order}")


def stored(order_id: str) -> dict[str, Any]:
    """Returns an order as an item of the table."""
    lines = {"L": [{"M": {"item": {"S": "x"}, "quantity": {"N": "1"}}}]}
    moment = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    return {
        **{"orderID": {"S": order_id}, "customerID": {"S": "c"}, "items": lines, "note": {"NULL": True}},
        **{"status": {"S": "PLACED"}, "placedAt": {"S": moment}, "digest": {"S": "other"}},
        **{"requestedBy": {"NULL": True}, "period": {"S": "none"}, "sortKey": {"S": moment}},
    }


def report(kind: str, stage: Stage) -> Answer:
    return stage.api("GET", f"/reports/{{{stage.execution(kind)}}}")


def history(kind: str, stage: Stage) -> Answer:
    """Reads the history of a new report, because the API caches that of an old one."""
    return stage.api("GET", f"/reports/{{{stage.execution(kind)}}}/history")


@cache
def finished(stage: Stage) -> str:
    """Returns the name of a report that has a page."""
    name = stage.execution("storage")
    assert stage.ended("storage", name) == "SUCCEEDED"
    return name


def page(stage: Stage) -> Answer:
    """Opens a report's page by the link of the API."""
    answer = stage.api("GET", f"/reports/{{{finished(stage)}}}")
    return link(stage.content(answer)["url"]) if answer.ok else answer


def upload_link(stage: Stage) -> Answer:
    answer = stage.api("POST", "/uploads", {"filename": "a.csv"})
    if not answer.ok:
        return answer
    offer = stage.content(answer)
    fields = {**offer["fields"], "file": "supplier_name\n"}
    parts = "".join(
        f'--limit\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n' for name, text in fields.items()
    )
    return link(offer["url"], f"{parts}--limit--\r\n".encode(), "multipart/form-data; boundary=limit")


def waiting(queue: str, stage: Stage) -> Answer:
    """Lists the dead letters while there is one, which the API receives and releases."""
    sent = letter(stage, queue, {})
    answer = stage.api("GET", "/dead-letters")
    return Answer(answer.ok and sent in answer.said, answer.said)


def letter(stage: Stage, queue: str, content: Any) -> str:
    """Puts the only dead letter into a queue, and returns its id."""
    for each in ("orders-dead", "failures"):
        stage.aws("sqs").purge_queue(QueueUrl=stage.queue(each))
    return str(stage.aws("sqs").send_message(QueueUrl=stage.queue(queue), MessageBody=json.dumps(content))["MessageId"])


def redriven(queue: str, content: Callable[[Stage], Any], stage: Stage) -> Answer:
    answer = stage.api("POST", "/dead-letters/redrive", {"ids": [letter(stage, queue, content(stage))]})
    return Answer(answer.ok and stage.content(answer)["redriven"] == 1, answer.said)


def dead_order(_: Stage) -> Any:
    return {
        **{"orderID": secrets.token_hex(4), "customerID": "c", "items": [{"item": "x", "quantity": 1}]},
        **{"note": None, "placedAt": "2026-11-21T08:00:00.000000Z", "requestedBy": None},
    }


def failed_event(function: str, stage: Stage) -> Any:
    """Returns Lambda's dead letter of an event on which a function failed."""
    arn = f"arn:aws:lambda:us-east-1:000000000000:function:{stage.function(function)}"
    context = {"functionArn": arn, "condition": "RetriesExhausted"}
    return {"requestContext": context, "requestPayload": {"Records": []}, "timestamp": "2026-11-21T08:00:00.000Z"}


def failed_message(topic: str, stage: Stage) -> Any:
    """Returns SNS's dead letter of a message that it could not deliver."""
    return {
        **{"Type": "Notification", "TopicArn": stage.topic(topic), "MessageId": secrets.token_hex(8)},
        **{"Subject": "s", "Message": "m", "Timestamp": "2026-11-21T08:00:00.000Z"},
    }


def position(stage: Stage) -> Any:
    """Returns Lambda's dead letter of a batch of a stream, which has only the batch's position."""
    streams, name = stage.aws("dynamodbstreams"), f"cafe-{stage.name}-orders"
    stage.aws("dynamodb").put_item(TableName=name, Item=stored(secrets.token_hex(4)))
    [stream] = streams.list_streams(TableName=name)["Streams"]
    [shard] = streams.describe_stream(StreamArn=stream["StreamArn"])["StreamDescription"]["Shards"]
    iterator = streams.get_shard_iterator(
        StreamArn=stream["StreamArn"], ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    number = streams.get_records(ShardIterator=iterator)["Records"][-1]["dynamodb"]["SequenceNumber"]
    info = {"streamArn": stream["StreamArn"], "shardId": shard["ShardId"], "batchSize": 1}
    return {
        "requestContext": {"condition": "RetryAttemptsExhausted"},
        "DDBStreamBatchInfo": {**info, "startSequenceNumber": number, "endSequenceNumber": number},
    }


# --- Reports ----------------------------------------------------------------------------------------------------------


def read_afresh(stage: Stage) -> Answer:
    """Calls a new process, which must read the database's secret."""
    stage.set_variables("read_inventory", stage.variables("read_inventory"))
    return read(stage)


def read(stage: Stage) -> Answer:
    return stage.call("read_inventory", {"reportId": "exercise"})


@contextmanager
def many_beans(place: Place) -> Iterator[None]:
    """Fills the inventory with more data than one part of an object can have."""
    texts = ", ".join(f"REPEAT('x', 255) AS {name}" for name in ("type", "product_name", "price", "description"))
    place.sql("RENAME TABLE beans TO beans_before")
    try:
        place.sql(f"CREATE VIEW beans AS SELECT seq AS id, 0 AS supplier_id, {texts}, 1 AS quantity FROM seq_1_to_8000")
        yield
    finally:
        place.sql("DROP VIEW IF EXISTS beans")
        place.sql("RENAME TABLE beans_before TO beans")


def nothing_left_behind(stage: Stage, function: str, call: Callable[[str], Answer]) -> Answer:
    """Lets S3 refuse a part of a large object, after which the function must remove the other parts."""
    name, bucket = secrets.token_hex(8), stage.bucket("reports")
    with stage.over_the_wire(function), stage.place.wire.fault("s3:UploadPart", invalid):
        answer = call(name)
    left = stage.aws("s3").list_multipart_uploads(Bucket=bucket, Prefix=f"inventory/{name}/").get("Uploads", [])
    return Answer(not answer.ok, " left behind: ".join(["", *(each["Key"] for each in left)]))


def read_breaks_off(stage: Stage) -> Answer:
    with many_beans(stage.place):
        return nothing_left_behind(
            stage, "read_inventory", lambda name: stage.call("read_inventory", {"reportId": name})
        )


def rendered(stage: Stage, name: str, more: bytes = b"") -> Answer:
    key = f"inventory/{name}/inventory.csv"
    stage.aws("s3").put_object(
        Bucket=stage.bucket("reports"), Key=key, Body=",".join(COLUMNS).encode() + b"\r\n" + more
    )
    event = {"reportId": name, "csvKey": key, "generatedAt": "2026-11-21T08:00:00.000000Z", "rows": 0}
    return stage.call("render_report", event)


def render(stage: Stage) -> Answer:
    return rendered(stage, "exercise")


def render_breaks_off(stage: Stage) -> Answer:
    """Renders the longest page, with a kilobyte for each bean."""
    text = b"&" * 250
    row = b",".join([b"1", b"s", b"c", b"s", b"e", b"p", b"1", b"t", text, b"1", b"1", text]) + b"\r\n"
    return nothing_left_behind(stage, "render_report", lambda name: rendered(stage, name, row * WHOLE_INVENTORY))


def presigned(stage: Stage) -> Answer:
    """Opens the page by the link of a notification."""
    stage.aws("s3").put_object(Bucket=stage.bucket("reports"), Key="inventory/exercise/report.html", Body=b"page")
    answer = stage.call("presign_report", {"reportId": "exercise"})
    return link(json.loads(answer.said.partition("\n")[0])["url"]) if answer.ok else answer


# --- Orders -----------------------------------------------------------------------------------------------------------


def sqs_event(order: Any, tries: int = 1) -> dict[str, Any]:
    attributes = {"ApproximateReceiveCount": str(tries), "SentTimestamp": "1795248000000"}
    message = {"messageId": secrets.token_hex(8), "receiptHandle": "none", "body": json.dumps(order)}
    return {"Records": [{**message, "attributes": attributes, "messageAttributes": {}, "eventSource": "aws:sqs"}]}


def store(stage: Stage) -> Answer:
    return stage.call("store_orders", sqs_event(dead_order(stage)))


def store_again(stage: Stage) -> Answer:
    order = dead_order(stage)
    # The table's owner stores it, so that the function only reads.
    stage.aws("dynamodb").put_item(TableName=f"cafe-{stage.name}-orders", Item=stored(order["orderID"]))
    return stage.call("store_orders", sqs_event(order))


def shorten_retry(stage: Stage) -> Answer:
    return stage.call("store_orders", sqs_event("no order"))


def set_aside_order(stage: Stage) -> Answer:
    return stage.call("store_orders", sqs_event("no order", tries=5))


def stream_event(**changes: Any) -> dict[str, Any]:
    image = {"orderID": {"S": "o"}, "customerID": {"S": "c"}}
    change = {"Keys": {"orderID": {"S": "o"}}, "NewImage": image, "SequenceNumber": "1"}
    change["ApproximateCreationDateTime"] = time.time()
    record = {"eventName": "INSERT", "eventID": secrets.token_hex(8), "eventSource": "aws:dynamodb", **changes}
    return {"Records": [{**record, "dynamodb": change}]}


def announce(stage: Stage) -> Answer:
    return stage.call("announce_orders", stream_event())


def set_aside_event(stage: Stage) -> Answer:
    """Sends an event without an id, which cannot be announced."""
    event = stream_event()
    del event["Records"][0]["eventID"]
    return stage.call("announce_orders", event)


# --- Uploads ----------------------------------------------------------------------------------------------------------


def s3_event(stage: Stage, key: str) -> dict[str, Any]:
    object_ = {"key": key, "size": 1, "eTag": "0" * 32, "sequencer": "0A"}
    record = {"eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put"}
    record["eventTime"] = "2026-11-21T08:00:00.000Z"
    return {"Records": [{**record, "s3": {"bucket": {"name": stage.bucket("uploads")}, "object": object_}}]}


def receive(stage: Stage) -> Answer:
    return stage.call("receive_upload", s3_event(stage, f"other/{secrets.token_hex(4)}.txt"))


def import_(stage: Stage) -> Answer:
    """Imports an object that is gone, so that S3 sends no event of its own."""
    return stage.call("receive_upload", s3_event(stage, f"inventory/{secrets.token_hex(4)}.csv"))


def import_afresh(stage: Stage) -> Answer:
    stage.set_variables("receive_upload", stage.variables("receive_upload"))
    return import_(stage)


# --- Notifications ----------------------------------------------------------------------------------------------------


def record(function: str, stage: Stage) -> Answer:
    sns = {"MessageId": secrets.token_hex(8), "Message": "m", "Timestamp": "2026-11-21T08:00:00.000Z", "Subject": None}
    return stage.call(function, {"Records": [{"Sns": {**sns, "MessageAttributes": {}}}]})


# --- Storage ----------------------------------------------------------------------------------------------------------


def measure(stage: Stage) -> Answer:
    return stage.call("measure_buckets", {"mode": "listing"})


def measure_by_metrics(stage: Stage) -> Answer:
    dimensions = {"BucketName": stage.bucket("uploads"), "StorageType": "StandardStorage"}
    figure = {
        **{"MetricName": "BucketSizeBytes", "Value": 1, "Unit": "Bytes", "Timestamp": datetime.now(UTC)},
        "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
    }
    stage.aws("cloudwatch").put_metric_data(Namespace="AWS/S3", MetricData=[figure])
    return stage.call("measure_buckets", {"mode": "metrics"})


def measure_in_shares(stage: Stage) -> Answer:
    request = {"reportId": "exercise", "request": {"mode": "listing", "aloneSeconds": 0}}
    first = stage.call("measure_buckets", {**request, "spread": {"round": 0}})
    if not first.ok:
        return first
    spread = json.loads(first.said.partition("\n")[0])["spread"]
    return stage.call("measure_buckets", {**request, "spread": {**spread, "share": spread["shares"][0]}})


# --- MySQL ------------------------------------------------------------------------------------------------------------


def migrate(stage: Stage) -> Answer:
    return stage.call("migrate", {})


def rotate(stage: Stage) -> Answer:
    """Rotates the password in the steps of Secrets Manager."""
    event = {
        "SecretId": stage.variables("rotate_password")["DB_SECRET_ARN"],
        "ClientRequestToken": secrets.token_hex(16),
    }
    answer = Answer(False, "")
    for step in ("createSecret", "setSecret", "testSecret", "finishSecret"):
        answer = stage.call("rotate_password", {**event, "Step": step})
        if not answer.ok:
            break
    return answer


# --- All of them ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exercise:
    """A call that needs rights of a role: each an action, and the end of its resource in docs/permissions.md."""

    role: str
    rights: tuple[tuple[str, str], ...]
    run: Callable[[Stage], Answer]


def of(role: str, run: Callable[[Stage], Answer], *rights: str) -> Exercise:
    pairs = [right.partition(" ") for right in rights]
    return Exercise(role, tuple((action, resource) for action, _, resource in pairs), run)


def get(path: str) -> Callable[[Stage], Answer]:
    return lambda stage: stage.api("GET", path)


def post(path: str, body: Any) -> Callable[[Stage], Answer]:
    return lambda stage: stage.api("POST", path, body)


API = partial(of, "ApiRole")
EXERCISES: tuple[Exercise, ...] = (
    API(post("/create_report", {}), "states:StartExecution -inventory-report"),
    API(post("/create_report", {"kind": "storage"}), "states:StartExecution -storage-report"),
    API(get("/reports?kind=inventory"), "states:ListExecutions -inventory-report"),
    API(get("/reports?kind=storage"), "states:ListExecutions -storage-report"),
    *(
        exercise
        for kind in ("inventory", "storage")
        for exercise in (
            API(partial(report, kind), f"states:DescribeExecution -{kind}-report:*"),
            API(
                partial(history, kind),
                f"states:DescribeStateMachineForExecution -{kind}-report:*",
                f"states:GetExecutionHistory -{kind}-report:*",
            ),
        )
    ),
    API(page, "s3:GetObject -reports-<account>/*/report.html"),
    API(upload_link, "s3:PutObject -uploads-<account>/inventory/*"),
    API(post("/orders", new_order()), "sqs:SendMessage -orders", "dynamodb:BatchGetItem -orders"),
    API(with_a_key, "dynamodb:PutItem -requests"),
    API(one_order, "dynamodb:GetItem -orders"),
    API(get("/orders"), "dynamodb:Query -orders/index/byPeriod"),
    API(get("/orders?customerID=c"), "dynamodb:Query -orders/index/byCustomer"),
    API(get("/notifications"), "dynamodb:Query -notifications/index/byPeriod"),
    API(get("/today"), "sqs:GetQueueAttributes -orders"),
    *(
        exercise
        for queue, content in (
            ("orders-dead", dead_order),
            ("failures", partial(failed_event, "record_alarm")),
        )
        for exercise in (
            API(
                partial(waiting, queue),
                f"sqs:ReceiveMessage -{queue}",
                f"sqs:ChangeMessageVisibility -{queue}",
                f"sqs:GetQueueAttributes -{queue}",
            ),
            API(partial(redriven, queue, content), f"sqs:DeleteMessage -{queue}"),
        )
    ),
    *(
        API(partial(redriven, "failures", partial(failed_event, name)), f"lambda:InvokeFunction -{name}")
        for name in ("announce_orders", "receive_upload", "record_notification", "record_alarm")
    ),
    *(
        API(partial(redriven, "failures", partial(failed_message, name)), f"sns:Publish -{name}")
        for name in ("notifications", "alarms")
    ),
    API(
        partial(redriven, "failures", position),
        "dynamodb:GetShardIterator -orders/stream/<time>",
        "dynamodb:GetRecords -orders/stream/<time>",
    ),
    of("ReadInventoryRole", read_afresh, "secretsmanager:GetSecretValue -database-<random>"),
    of("ReadInventoryRole", read, "s3:PutObject /inventory.csv"),
    of("ReadInventoryRole", read_breaks_off, "s3:AbortMultipartUpload /inventory.csv"),
    of("RenderReportRole", render, "s3:GetObject /inventory.csv", "s3:PutObject /report.html"),
    of("RenderReportRole", render_breaks_off, "s3:AbortMultipartUpload /report.html"),
    of("PresignReportRole", presigned, "s3:GetObject /report.html"),
    of("StoreOrdersRole", store, "dynamodb:PartiQLInsert -orders"),
    of("StoreOrdersRole", store_again, "dynamodb:BatchGetItem -orders", "sns:Publish -notifications"),
    of("StoreOrdersRole", shorten_retry, "sqs:ChangeMessageVisibility -orders"),
    of("StoreOrdersRole", set_aside_order, "sqs:SendMessage -orders-dead"),
    of("AnnounceOrdersRole", announce, "sns:Publish -notifications"),
    of("AnnounceOrdersRole", set_aside_event, "sqs:SendMessage -failures"),
    of("ReceiveUploadRole", receive, "sns:Publish -notifications"),
    of("ReceiveUploadRole", import_, "s3:GetObject -uploads-<account>/*"),
    of("ReceiveUploadRole", import_afresh, "secretsmanager:GetSecretValue -database-<random>"),
    of("RecordNotificationRole", partial(record, "record_notification"), "dynamodb:PutItem -notifications"),
    of("RecordAlarmRole", partial(record, "record_alarm"), "dynamodb:PutItem -notifications"),
    of(
        "MeasureBucketsRole",
        measure,
        "s3:ListAllMyBuckets *",
        "s3:ListBucket :::*",
        "s3:PutObject /report.html",
    ),
    of("MeasureBucketsRole", measure_by_metrics, "cloudwatch:ListMetrics *", "cloudwatch:GetMetricData *"),
    of("MeasureBucketsRole", measure_in_shares, "s3:PutObject /round-*", "s3:GetObject /round-*"),
    of(
        "MigrateRole",
        migrate,
        "secretsmanager:GetSecretValue -database-<random>",
        "secretsmanager:GetSecretValue -<id>-<random>",
    ),
    of(
        "RotatePasswordRole",
        rotate,
        "secretsmanager:GetSecretValue -database-<random>",
        "secretsmanager:DescribeSecret -database-<random>",
        "secretsmanager:PutSecretValue -database-<random>",
        "secretsmanager:UpdateSecretVersionStage -database-<random>",
        "secretsmanager:GetSecretValue -<id>-<random>",
    ),
)
