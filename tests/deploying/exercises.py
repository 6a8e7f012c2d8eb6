"""Defines the smallest call that needs each permission that the local cloud enforces.

An exercise calls a function in the same way as its trigger, and takes a few hundredths of a second. The function's
response and log show whether an AWS call was denied.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any, NamedTuple

import urllib3

from chalicelib.reports.inventory import COLUMNS
from chalicelib.reports.render import WHOLE_INVENTORY
from chalicelib.timeline import timestamp
from tests.deploying.checkout import Place
from tests.system.events import failed_batch, failed_event, records, s3_event, sns_event, sqs_event, undelivered
from tests.system.faults import invalid, unavailable
from tests.system.letters import order_message
from tests.system.waiting import changed, wait_for

# Matches the error of a denied call in a response or a log. For HEAD requests and signed links, S3 returns a different
# error.
REFUSED = re.compile(r"is not authorized to perform|AccessDenied|AuthorizationError|\(403\) when calling|left behind")


class Answer(NamedTuple):
    """The result of an exercise. The field ``said`` contains the response and, for a function, its log."""

    ok: bool
    said: str

    @property
    def refused(self) -> bool:
        return bool(REFUSED.search(self.said))


@dataclass(frozen=True)
class Stage:
    """A deployed stage in the local cloud. Tests call the stage in the same way as AWS services and users do."""

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
        """Sets the environment variables of a function, which makes the next call start a new process."""
        environment = {"Variables": variables}
        self.aws("lambda").update_function_configuration(FunctionName=self.function(function), Environment=environment)

    def over_the_wire(self, function: str) -> AbstractContextManager[None]:
        """Sends the function's AWS calls through the proxy while the ``with`` block runs."""
        before, wire = self.variables(function), f"http://127.0.0.1:{self.place.wire.server_address[1]}"
        return changed(partial(self.set_variables, function), before, {**before, "AWS_ENDPOINT_URL": wire})

    def call(self, function: str, event: Any) -> Answer:
        answer = self.aws("lambda").invoke(
            FunctionName=self.function(function), Payload=json.dumps(event), LogType="Tail"
        )
        said = answer["Payload"].read().decode()
        return Answer("FunctionError" not in answer, said + "\n" + b64decode(answer.get("LogResult", "")).decode())

    def api(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Sends a manager's request as API Gateway does.

        Braces in ``path`` mark a path parameter, as in ``/orders/{o-1}``.
        """
        path, _, query = path.partition("?")
        parameter = re.search(r"{(.*)}", path)
        name = f"{path.split('/')[1].removesuffix('s')}_id"
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
        content: dict[str, Any] = json.loads(json.loads(answer.said.partition("\n")[0])["body"])
        return content

    def execution(self, kind: str) -> str:
        """Starts a report, and returns the name of its execution."""
        name = f"{kind}-{secrets.token_hex(6)}"
        machine = self.machine(f"{kind}-report")
        self.aws("stepfunctions").start_execution(stateMachineArn=machine, name=name, input="{}")
        return name

    def ended(self, kind: str, name: str) -> str:
        """Waits until a report's execution ends, and returns the final status."""
        arn = f"{self.machine(f'{kind}-report').replace(':stateMachine:', ':execution:')}:{name}"
        sfn = self.aws("stepfunctions")

        def status() -> str:
            return str(sfn.describe_execution(executionArn=arn)["status"])

        wait_for(lambda: status() != "RUNNING", f"the end of {name}")
        return status()


def link(method: str, url: str, form: dict[str, str] | None = None) -> Answer:
    """Sends a request to a link, with optional form data."""
    answer = urllib3.request(method, url, fields=form, retries=False, timeout=30)
    return Answer(answer.status < 400, f"{answer.status} {answer.data.decode()}")


# A ``Run`` makes one exercise's call to a stage, and returns the result.
Run = Callable[[Stage], Answer]


def call(function: str, event: Any) -> Run:
    """Returns a ``Run`` that invokes a function. The argument ``event`` is the event, or a callable that creates it."""
    return lambda stage: stage.call(function, event(stage) if callable(event) else event)


def afresh(run: Run, function: str) -> Run:
    """Returns a ``Run`` that first restarts the function, which makes it read the database secret again."""

    def renewed(stage: Stage) -> Answer:
        stage.set_variables(function, stage.variables(function))
        return run(stage)

    return renewed


# --- The API ----------------------------------------------------------------------------------------------------------


ORDER = {"customerID": "c", "item": "x"}


def with_a_key(stage: Stage) -> Answer:
    return stage.api("POST", "/orders", ORDER, **{"Idempotency-Key": secrets.token_hex(8)})


def one_order(stage: Stage) -> Answer:
    stage.aws("dynamodb").put_item(TableName=f"cafe-{stage.name}-orders", Item=stored("one-order"))
    return stage.api("GET", "/orders/{one-order}")


def changed_order(stage: Stage) -> Answer:
    stage.aws("dynamodb").put_item(TableName=f"cafe-{stage.name}-orders", Item=stored("changed-order"))
    return stage.api("PATCH", "/orders/{changed-order}", {"from": "PLACED", "status": "READY"})


def stored(order_id: str) -> dict[str, Any]:
    """Returns an order as a DynamoDB item."""
    lines = {"L": [{"M": {"item": {"S": "x"}, "quantity": {"N": "1"}}}]}
    moment = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    return {
        **{"orderID": {"S": order_id}, "customerID": {"S": "c"}, "items": lines, "note": {"NULL": True}},
        **{"status": {"S": "PLACED"}, "placedAt": {"S": moment}, "digest": {"S": "other"}},
        **{"requestedBy": {"NULL": True}, "period": {"S": "none"}, "sortKey": {"S": moment}},
    }


def report(kind: str, what: str = "") -> Run:
    """Returns a ``Run`` that reads a newly started report, because the API caches the history of a finished report."""
    return lambda stage: stage.api("GET", f"/reports/{{{stage.execution(kind)}}}{what}")


@cache
def finished(stage: Stage) -> str:
    """Returns the execution name of a finished storage report that has a page."""
    name = stage.execution("storage")
    assert stage.ended("storage", name) == "SUCCEEDED"
    return name


def page(stage: Stage) -> Answer:
    """Opens a report's page through the link that the API returns."""
    answer = stage.api("GET", f"/reports/{{{finished(stage)}}}")
    return link("GET", stage.content(answer)["url"]) if answer.ok else answer


def upload_link(preview: bool) -> Run:
    def sent(stage: Stage) -> Answer:
        answer = stage.api("POST", "/uploads", {"filename": "a.csv", "preview": preview})
        if not answer.ok:
            return answer
        offer = stage.content(answer)
        return link("POST", offer["url"], {**offer["fields"], "file": "supplier_name\n"})

    return sent


def waiting(queue: str) -> Run:
    """Returns a ``Run`` that sends one dead letter to the queue, and lists it through the API."""

    def listed(stage: Stage) -> Answer:
        sent = letter(stage, queue, {})
        answer = stage.api("GET", "/dead-letters")
        return Answer(answer.ok and sent in answer.said, answer.said)

    return listed


def letter(stage: Stage, queue: str, content: Any) -> str:
    """Empties both dead-letter queues, sends a message to ``queue``, and returns the message id."""
    for each in ("orders-dead", "failures"):
        stage.aws("sqs").purge_queue(QueueUrl=stage.queue(each))
    return str(stage.aws("sqs").send_message(QueueUrl=stage.queue(queue), MessageBody=json.dumps(content))["MessageId"])


def redriven(queue: str, content: Callable[[Stage], Any]) -> Run:
    def redrive(stage: Stage) -> Answer:
        answer = stage.api("POST", "/dead-letters/redrive", {"ids": [letter(stage, queue, content(stage))]})
        return Answer(answer.ok and stage.content(answer)["redriven"] == 1, answer.said)

    return redrive


def became(content: Callable[[Stage], Any]) -> Run:
    """Returns a ``Run`` that redrives a failure, and reads what became of it. The API logs a refused read."""

    def read(stage: Stage) -> Answer:
        sent = redriven("failures", content)(stage)
        answer = stage.api("GET", "/dead-letters")
        return Answer(sent.ok and answer.ok and "results of dead letters not read" not in answer.said, answer.said)

    return read


def dead_order(_: Stage) -> Any:
    return {**order_message(secrets.token_hex(4)), "requestedBy": None}


def dead_event(function: str) -> Callable[[Stage], Any]:
    arn = "arn:aws:lambda:us-east-1:000000000000:function:"
    return lambda stage: failed_event(arn + stage.function(function), {"Records": []})


def dead_upload(stage: Stage) -> Any:
    event = s3_event(stage.bucket("uploads"), "inventory/a.csv", "0" * 32)
    return failed_event(f"arn:aws:lambda:us-east-1:000000000000:function:{stage.function('receive_upload')}", event)


def dead_message(topic: str) -> Callable[[Stage], Any]:
    """Returns a function that creates a dead letter for a message that SNS could not deliver."""
    return lambda stage: undelivered(stage.topic(topic), "s", "m")


def dead_batch(stage: Stage) -> Any:
    streams, name = stage.aws("dynamodbstreams"), f"cafe-{stage.name}-orders"
    stage.aws("dynamodb").put_item(TableName=name, Item=stored(secrets.token_hex(4)))
    [stream] = [each["StreamArn"] for each in streams.list_streams(TableName=name)["Streams"]]
    *_, (shard, record) = records(streams, stream)
    number = record["dynamodb"]["SequenceNumber"]
    return failed_batch(stream, shard, number, number)


def retried(content: Callable[[Stage], Any], outcome: str = "failure retried") -> Run:
    """Returns a ``Run`` that retries a failure, whose log must contain ``outcome``."""

    def retry(stage: Stage) -> Answer:
        event = sqs_event(json.dumps(content(stage)), tries=2)
        # EventBridge Scheduler adds this attribute.
        event["Records"][0]["messageAttributes"] = {
            "EXHAUSTED_RETRY_CONDITION": {"stringValue": "MaximumRetryAttempts"}
        }
        answer = stage.call("retry_failures", event)
        return Answer(answer.ok and outcome in answer.said, answer.said)

    return retry


def paused(stage: Stage) -> Answer:
    event = sqs_event(json.dumps(dead_event("record_alarm")(stage)))
    answer = stage.call("retry_failures", event)
    return Answer(answer.ok and "AccessDenied" not in answer.said, answer.said)


def unstarted(kind: str) -> Callable[[Stage], Any]:
    """Returns a function that creates the failure of a schedule that could not start a report."""
    return lambda stage: {
        "StateMachineArn": stage.machine(f"{kind}-report"),
        "Name": f"{kind}-{secrets.token_hex(4)}",
        "Input": "{}",
    }


# --- Reports ----------------------------------------------------------------------------------------------------------


READ = call("read_inventory", {"reportId": "exercise"})


@contextmanager
def many_beans(place: Place) -> Iterator[None]:
    """Fills the inventory with more data than fits into one part of a multipart upload."""
    texts = ", ".join(f"REPEAT('x', 255) AS {name}" for name in ("type", "product_name", "price", "description"))
    place.sql("RENAME TABLE beans TO beans_before")
    try:
        place.sql(f"CREATE VIEW beans AS SELECT seq AS id, 0 AS supplier_id, {texts}, 1 AS quantity FROM seq_1_to_8000")
        yield
    finally:
        place.sql("DROP VIEW IF EXISTS beans")
        place.sql("RENAME TABLE beans_before TO beans")


def nothing_left_behind(stage: Stage, function: str, call: Callable[[str], Answer]) -> Answer:
    """Makes S3 reject one part of a function's multipart upload, and reports parts that the function leaves behind."""
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


def rendered(stage: Stage, name: str = "exercise", more: str = "", at: str = "2026-11-21T08:00:00.000000Z") -> Answer:
    key, body = f"inventory/{name}/inventory.csv", ",".join(COLUMNS) + "\r\n" + more
    stage.aws("s3").put_object(Bucket=stage.bucket("reports"), Key=key, Body=body.encode())
    event = {"reportId": name, "csvKey": key, "generatedAt": at, "rows": 0}
    return stage.call("render_report", event)


def render_breaks_off(stage: Stage) -> Answer:
    """Renders the longest possible page, with a kilobyte of text for each bean."""
    text = "&" * 250
    row = f"1,s,c,s,e,p,1,t,{text},1,1,{text}\r\n"
    return nothing_left_behind(stage, "render_report", lambda name: rendered(stage, name, row * WHOLE_INVENTORY))


def compared(stage: Stage) -> Answer:
    """Renders two reports, and finds out whether the second one was compared with the first one."""
    name, [first, second] = secrets.token_hex(8), [timestamp(datetime.now(UTC) + timedelta(seconds=n)) for n in (0, 1)]
    answers = [rendered(stage, f"{name}-{at}", at=at) for at in (first, second)]
    return Answer(f'"since": "{first}"' in answers[1].said, "".join(each.said for each in answers))


def presigned(stage: Stage) -> Answer:
    """Opens a report's page through the link that ``presign_report`` creates for a notification."""
    stage.aws("s3").put_object(Bucket=stage.bucket("reports"), Key="inventory/exercise/report.html", Body=b"page")
    answer = stage.call("presign_report", {"reportId": "exercise"})
    return link("GET", json.loads(answer.said.partition("\n")[0])["url"]) if answer.ok else answer


# --- Orders -----------------------------------------------------------------------------------------------------------


def store(stage: Stage) -> Answer:
    return stage.call("store_orders", sqs_event(json.dumps(dead_order(stage))))


def store_again(stage: Stage) -> Answer:
    order = dead_order(stage)
    # The order is already stored, so the function only reads it.
    stage.aws("dynamodb").put_item(TableName=f"cafe-{stage.name}-orders", Item=stored(order["orderID"]))
    return stage.call("store_orders", sqs_event(json.dumps(order)))


def store_later(stage: Stage) -> Answer:
    with stage.over_the_wire("store_orders"), stage.place.wire.fault("dynamodb:BatchExecuteStatement", unavailable):
        return store(stage)


def stream_event(**event_id: str) -> dict[str, Any]:
    """Returns the DynamoDB stream event of an order from a minute ago, which the stream may be delivering again.

    An event without an ``eventID`` cannot be announced.
    """
    key = {"orderID": {"S": secrets.token_hex(8)}}
    change = {"Keys": key, "SequenceNumber": "1", "ApproximateCreationDateTime": time.time() - 60}
    change["NewImage"] = {**key, "customerID": {"S": "c"}}
    return {"Records": [{"eventName": "INSERT", "eventSource": "aws:dynamodb", **event_id, "dynamodb": change}]}


# --- Uploads ----------------------------------------------------------------------------------------------------------


def received(form: str) -> Run:
    """Returns a ``Run`` that sends the upload event of an object that does not exist.

    Nothing is uploaded, so S3 does not send an event.
    """
    return call(
        "receive_upload", lambda stage: s3_event(stage.bucket("uploads"), form.format(secrets.token_hex(4)), "0" * 32)
    )


IMPORT = received("inventory/{}.csv")


def preview_event(stage: Stage) -> tuple[str, dict[str, Any]]:
    """Stores an inventory, and returns the upload's id and the event of a preview."""
    bucket, identifier = stage.bucket("uploads"), secrets.token_hex(6)
    key = f"previews/2026-11-29-{identifier}/a.csv"
    text = f"supplier_name,type,product_name,price,description,quantity\nA,t,{identifier},1,d,1\n"
    etag = stage.aws("s3").put_object(Bucket=bucket, Key=key, Body=text.encode())["ETag"].strip('"')
    return identifier, s3_event(bucket, key, etag)


def preview(stage: Stage) -> Answer:
    return stage.call("receive_upload", preview_event(stage)[1])


def apply(stage: Stage) -> Answer:
    identifier, event = preview_event(stage)
    answer = stage.call("receive_upload", event)
    if not answer.ok:
        return answer
    stage.aws("dynamodb").update_item(
        TableName=f"cafe-{stage.name}-uploads",
        Key={"uploadId": {"S": identifier}},
        UpdateExpression="SET #status = :status",
        ExpressionAttributeNames={"#status": "status"},
        ExpressionAttributeValues={":status": {"S": "IMPORTING"}},
    )
    event["Records"][0]["eventName"] = "Cafe:Apply"
    return stage.call("receive_upload", event)


def changes(stage: Stage) -> Answer:
    identifier, event = preview_event(stage)
    stage.call("receive_upload", event)
    return stage.api("GET", f"/uploads/{{{identifier}}}?change=new")


def notified(_: Stage) -> Any:
    return sns_event(secrets.token_hex(8))


# --- Storage ----------------------------------------------------------------------------------------------------------


def measure_by_metrics(stage: Stage) -> Answer:
    dimensions = {"BucketName": stage.bucket("uploads"), "StorageType": "StandardStorage"}
    figure = {
        **{"MetricName": "BucketSizeBytes", "Value": 1, "Unit": "Bytes", "Timestamp": datetime.now(UTC)},
        "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
    }
    stage.aws("cloudwatch").put_metric_data(Namespace="AWS/S3", MetricData=[figure])
    return stage.call("measure_buckets", {"mode": "metrics"})


def measure_again(stage: Stage) -> Answer:
    stage.call("measure_buckets", {"mode": "listing"})
    return stage.call("measure_buckets", {"mode": "listing"})


def measure_versions(stage: Stage) -> Answer:
    s3, upload = stage.aws("s3"), {"Bucket": stage.bucket("uploads"), "Key": "exercise"}
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    answer = stage.call("measure_buckets", {"versions": True})
    s3.abort_multipart_upload(**upload)
    return answer


def measure_in_shares(stage: Stage) -> Answer:
    request = {"reportId": "exercise", "request": {"mode": "listing", "aloneSeconds": 0}}
    first = stage.call("measure_buckets", {**request, "spread": {"round": 0}})
    if not first.ok:
        return first
    spread = json.loads(first.said.partition("\n")[0])["spread"]
    return stage.call("measure_buckets", {**request, "spread": {**spread, "share": spread["shares"][0]}})


# --- MySQL ------------------------------------------------------------------------------------------------------------


def rotate(stage: Stage) -> Answer:
    """Rotates the database password in the four steps that Secrets Manager uses."""
    secret, answer = stage.variables("rotate_password")["DB_SECRET_ARN"], Answer(False, "")
    event = {"SecretId": secret, "ClientRequestToken": secrets.token_hex(16)}
    for step in ("createSecret", "setSecret", "testSecret", "finishSecret"):
        answer = stage.call("rotate_password", {**event, "Step": step})
        if not answer.ok:
            break
    return answer


# --- All exercises ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exercise:
    """Pairs a call with the permissions that it needs.

    A permission consists of an action and the end of a resource ARN, as in docs/permissions.md.
    """

    role: str
    rights: tuple[tuple[str, str], ...]
    run: Run


def of(role: str, run: Run, *rights: str) -> Exercise:
    pairs = [right.partition(" ") for right in rights]
    return Exercise(role, tuple((action, resource) for action, _, resource in pairs), run)


def get(path: str) -> Run:
    return lambda stage: stage.api("GET", path)


def post(path: str, body: Any) -> Run:
    return lambda stage: stage.api("POST", path, body)


API = partial(of, "ApiRole")
EXERCISES: tuple[Exercise, ...] = (
    API(post("/create_report", {}), "states:StartExecution -inventory-report"),
    API(post("/create_report", {"kind": "storage"}), "states:StartExecution -storage-report"),
    API(get("/reports?kind=inventory"), "states:ListExecutions -inventory-report"),
    API(get("/reports?kind=storage"), "states:ListExecutions -storage-report"),
    *(API(report(kind), f"states:DescribeExecution -{kind}-report:*") for kind in ("inventory", "storage")),
    *(
        API(
            report(kind, "/history"),
            f"states:DescribeStateMachineForExecution -{kind}-report:*",
            f"states:GetExecutionHistory -{kind}-report:*",
        )
        for kind in ("inventory", "storage")
    ),
    API(page, "s3:GetObject -reports-<account>/*/report.html"),
    API(upload_link(False), "s3:PutObject -uploads-<account>/inventory/*", "dynamodb:UpdateItem -uploads"),
    API(upload_link(True), "s3:PutObject -uploads-<account>/previews/*"),
    API(get("/uploads"), "dynamodb:Query -uploads/index/byPeriod"),
    API(changes, "dynamodb:GetItem -uploads", "s3:GetObject -reports-<account>/uploads/*"),
    API(post("/orders", ORDER), "sqs:SendMessage -orders", "dynamodb:BatchGetItem -orders"),
    API(with_a_key, "dynamodb:PutItem -requests"),
    API(one_order, "dynamodb:GetItem -orders"),
    API(changed_order, "dynamodb:UpdateItem -orders"),
    API(get("/orders"), "dynamodb:Query -orders/index/byPeriod"),
    API(get("/orders?customerID=c"), "dynamodb:Query -orders/index/byCustomer"),
    API(get("/notifications"), "dynamodb:Query -notifications/index/byPeriod"),
    API(get("/today"), "sqs:GetQueueAttributes -orders"),
    *(
        API(
            waiting(queue),
            f"sqs:ReceiveMessage -{queue}",
            f"sqs:ChangeMessageVisibility -{queue}",
            f"sqs:GetQueueAttributes -{queue}",
        )
        for queue in ("orders-dead", "failures")
    ),
    API(redriven("orders-dead", dead_order), "sqs:DeleteMessage -orders-dead", "dynamodb:PutItem -notifications"),
    API(became(dead_message("notifications")), "dynamodb:BatchGetItem -notifications"),
    API(became(dead_upload), "dynamodb:BatchGetItem -uploads"),
    API(redriven("failures", dead_event("record_alarm")), "sqs:DeleteMessage -failures"),
    *(
        API(redriven("failures", dead_event(name)), f"lambda:InvokeFunction -{name}")
        for name in ("announce_orders", "receive_upload", "record_notification", "record_alarm")
    ),
    *(API(redriven("failures", dead_message(name)), f"sns:Publish -{name}") for name in ("notifications", "alarms")),
    API(
        redriven("failures", dead_batch),
        "dynamodb:GetShardIterator -orders/stream/<time>",
        "dynamodb:GetRecords -orders/stream/<time>",
    ),
    *(
        of("RetryFailuresRole", retried(dead_event(name)), f"lambda:InvokeFunction -{name}")
        for name in ("announce_orders", "receive_upload", "record_notification", "record_alarm")
    ),
    of(
        "RetryFailuresRole",
        retried(dead_batch),
        "dynamodb:GetShardIterator -orders/stream/<time>",
        "dynamodb:GetRecords -orders/stream/<time>",
    ),
    *(
        of("RetryFailuresRole", retried(unstarted(kind)), f"states:StartExecution -{kind}-report")
        for kind in ("inventory", "storage")
    ),
    of("RetryFailuresRole", paused, "sqs:ChangeMessageVisibility -retries"),
    of("RetryFailuresRole", retried(lambda _: {}, "failure waits for a person"), "sqs:SendMessage -failures"),
    of("ReadInventoryRole", afresh(READ, "read_inventory"), "secretsmanager:GetSecretValue -database-<random>"),
    of("ReadInventoryRole", READ, "s3:PutObject /inventory.csv"),
    of("ReadInventoryRole", read_breaks_off, "s3:AbortMultipartUpload /inventory.csv"),
    of("RenderReportRole", rendered, "s3:GetObject /inventory.csv", "s3:PutObject /report.html"),
    of("RenderReportRole", compared, "s3:GetObject /newest.json", "s3:PutObject /newest.json"),
    of("RenderReportRole", render_breaks_off, "s3:AbortMultipartUpload /report.html"),
    of("PresignReportRole", presigned, "s3:GetObject /report.html"),
    of("StoreOrdersRole", store, "dynamodb:PartiQLInsert -orders"),
    of("StoreOrdersRole", store_again, "dynamodb:BatchGetItem -orders", "sns:Publish -notifications"),
    of("StoreOrdersRole", store_later, "sqs:ChangeMessageVisibility -orders"),
    of("StoreOrdersRole", call("store_orders", sqs_event("no order")), "sqs:SendMessage -orders-dead"),
    of(
        "AnnounceOrdersRole",
        call("announce_orders", lambda _: stream_event(eventID=secrets.token_hex(8))),
        "sns:Publish -notifications",
        "dynamodb:Query -notifications/index/byPeriod",
    ),
    of("AnnounceOrdersRole", call("announce_orders", lambda _: stream_event()), "sqs:SendMessage -retries"),
    of("ReceiveUploadRole", received("other/{}.txt"), "sns:Publish -notifications"),
    of("ReceiveUploadRole", IMPORT, "s3:GetObject -uploads-<account>/*", "dynamodb:UpdateItem -uploads"),
    of("ReceiveUploadRole", preview, "s3:PutObject -reports-<account>/uploads/*"),
    of("ReceiveUploadRole", apply, "dynamodb:GetItem -uploads", "s3:GetObject -reports-<account>/uploads/*"),
    of("ReceiveUploadRole", afresh(IMPORT, "receive_upload"), "secretsmanager:GetSecretValue -database-<random>"),
    of("RecordNotificationRole", call("record_notification", notified), "dynamodb:PutItem -notifications"),
    of("RecordAlarmRole", call("record_alarm", notified), "dynamodb:PutItem -notifications"),
    of(
        "MeasureBucketsRole",
        call("measure_buckets", {"mode": "listing"}),
        "s3:ListAllMyBuckets *",
        "s3express:ListAllMyDirectoryBuckets *",
        "s3:ListBucket :::*",
        "s3:PutObject /report.html",
        "s3:PutObject /storage-sizes/*",
    ),
    of("MeasureBucketsRole", measure_again, "s3:GetObject /storage-sizes/*"),
    of("MeasureBucketsRole", measure_by_metrics, "cloudwatch:ListMetrics *", "cloudwatch:GetMetricData *"),
    of("MeasureBucketsRole", measure_versions, "s3:ListBucketVersions :::*", "s3:ListMultipartUploadParts :::*"),
    of("MeasureBucketsRole", measure_versions, "s3:ListBucketMultipartUploads :::*"),
    of("MeasureBucketsRole", measure_in_shares, "s3:PutObject /round-*", "s3:GetObject /round-*"),
    of(
        "MigrateRole",
        call("migrate", {}),
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
