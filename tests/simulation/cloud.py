"""The cloud around the handlers: it delivers messages, events and records to the real handlers on the fake clients."""

from __future__ import annotations

import json
from dataclasses import fields
from functools import partial
from typing import Any

from chalicelib import errors, notifications, reports
from chalicelib.dead_letters import redrive, retrying
from chalicelib.orders import announce, replay, store
from chalicelib.reports import inventory, render
from chalicelib.settings import Settings
from chalicelib.uploads import jobs, receiving
from chalicelib.uploads.records import Records
from infra.functions import BY_NAME
from tests.simulation import fakes
from tests.simulation.mysql import Mysql
from tests.simulation.world import Fault, Killed, Process, World

PREFIX = "arn:aws:%s:us-east-1:123456789012:"
# Where a name alone does not do, the settings have these values.
ARNS = {
    "orders_stream_arn": PREFIX % "dynamodb" + "table/cafe-test-orders/stream/1",
    "topic_arn": PREFIX % "sns" + "cafe-test-notifications",
    "alarms_topic_arn": PREFIX % "sns" + "cafe-test-alarms",
    "inventory_report_arn": PREFIX % "states" + "stateMachine:cafe-test-inventory-report",
    "storage_report_arn": PREFIX % "states" + "stateMachine:cafe-test-storage-report",
    "orders_since": "2026-06-01",
    "user_pool_id": "us-east-1_pool",
    "cafe_stage": "test",
}
SETTINGS = Settings(**{each.name: ARNS.get(each.name, each.name.removesuffix("_url")) for each in fields(Settings)})
MACHINES = {"inventory": SETTINGS.inventory_report_arn, "storage": SETTINGS.storage_report_arn}
PERIOD = {"byPeriod": ("period", "sortKey")}
# SNS refuses a message that contains this text, like one with a character that it does not accept.
REFUSED = "refused-by-sns"
QUEUE_HIDES_SECONDS, RETRIES_HIDE_SECONDS = 190, 360
# Lambda tries an asynchronous event again after these pauses.
PAUSES = (60, 120)
# A state that AWS runs for a state machine is tried again this often.
TRIES_OF_STATE = 5


class Cloud:
    """``heard`` contains the messages that an e-mail subscriber received, and ``kept`` counts each inbox item's writes."""

    def __init__(self, world: World) -> None:
        self.world = world
        clock, world.after_call = (lambda: world.time), self.deliver
        self.sqs = fakes.Sqs(clock, world.gate)
        for name in ("orders_queue_url", "orders_dead_letter_url", "failures_queue_url", "retries_queue_url"):
            self.sqs.queues[getattr(SETTINGS, name)] = fakes.Queue()
        self.orders = self.sqs.queues[SETTINGS.orders_queue_url]
        self.orders.visibility = QUEUE_HIDES_SECONDS
        self.sqs.queues[SETTINGS.retries_queue_url].visibility = RETRIES_HIDE_SECONDS
        self.orders.max_receives, self.orders.dead = 1000, self.sqs.queues[SETTINGS.orders_dead_letter_url]
        self.dynamodb = fakes.DynamoDb(clock, self.count_writes)
        self.dynamodb.tables = {
            SETTINGS.orders_table: fakes.Table("orderID", PERIOD, SETTINGS.orders_stream_arn),
            SETTINGS.notifications_table: fakes.Table("notificationID", PERIOD),
            SETTINGS.requests_table: fakes.Table("requestKey"),
            SETTINGS.uploads_table: fakes.Table("uploadId", PERIOD),
        }
        self.stream = self.dynamodb.tables[SETTINGS.orders_table].records
        self.sns = fakes.Sns(clock, self.refuse_content)
        self.sns.topics = {SETTINGS.topic_arn, SETTINGS.alarms_topic_arn}
        self.s3 = fakes.S3(clock, world.gate, SETTINGS.uploads_bucket)
        self.s3.buckets[SETTINGS.reports_bucket] = {}
        self.sfn = fakes.StepFunctions(clock, world.gate)
        self.sfn.machines = set(MACHINES.values())
        self.functions = fakes.Lambda(clock, world.gate)
        self.functions.functions = {f"cafe-test-{name}" for name in BY_NAME}
        self.mysql = Mysql(world.gate, world.sleep)
        self.clients = {
            **{"sqs": self.sqs, "dynamodb": self.dynamodb, "sns": self.sns, "s3": self.s3, "lambda": self.functions},
            **{"stepfunctions": self.sfn, "dynamodbstreams": fakes.Streams(self.dynamodb, world.gate)},
        }
        self.publish = notifications.publisher(self.sns, SETTINGS.topic_arn)
        self.records = Records(self.dynamodb, SETTINGS.uploads_table)
        self.heard: list[dict[str, Any]] = []
        self.kept: dict[str, int] = {}
        self.unannounced: list[str] = []
        self.position = self.failures_of_stream = 0
        self.mapping = object()
        self.reading = False
        self.polls: dict[str, float] = {}
        self.started: set[str] = set()
        self.repeated: list[str] = []

    def aws(self, service: str) -> Any:
        return self.clients[service]

    def count_writes(self, service: str, operation: str, arguments: dict[str, Any], perform: Any) -> Any:
        def counted() -> Any:
            result = perform()
            if operation == "PutItem" and arguments["TableName"] == SETTINGS.notifications_table:
                key = arguments["Item"]["notificationID"]["S"]
                self.kept[key] = self.kept.get(key, 0) + 1
            return result

        return self.world.gate(service, operation, arguments, counted)

    def refuse_content(self, service: str, operation: str, arguments: dict[str, Any], perform: Any) -> Any:
        def checked() -> Any:
            if REFUSED in arguments["Message"] and "aside" not in arguments["Message"]:
                raise self.sns.error(operation, "InvalidParameter", "Invalid parameter: Message")
            return perform()

        return self.world.gate(service, operation, arguments, checked)

    # --- Deliveries ---------------------------------------------------------------------------------------------------

    def deliver(self, service: str, operation: str) -> None:
        """Schedules what AWS delivers after a call."""
        if service == "sqs":
            self.poll(SETTINGS.orders_queue_url)
            self.poll(SETTINGS.retries_queue_url)
        elif operation == "BatchExecuteStatement":
            self.world.soon(self.read_stream)
        elif operation == "Publish":
            self.deliver_published()
        elif operation == "PutObject":
            while self.s3.events:
                self.event("receive_upload", {"Records": [self.s3.events.pop(0)]})
        elif operation == "Invoke":
            while self.functions.invocations:
                name, payload = self.functions.invocations.pop(0)
                self.event(name.removeprefix("cafe-test-"), payload)
        elif operation == "StartExecution":
            for arn in self.sfn.executions.keys() - self.started:
                self.started.add(arn)
                self.world.start(f"machine {self.sfn.executions[arn]['name']}", 0, partial(self.make_report, arn), ignore, True)

    def poll(self, url: str) -> None:
        """Schedules the next delivery of a queue's messages to its function."""
        if messages := self.sqs.queues[url].messages.values():
            moment = max(self.world.time, min(each.visible_at for each in messages)) + self.world.random.random()
            if not self.world.time < self.polls.get(url, 0) <= moment:
                self.polls[url] = moment
                self.world.later(moment - self.world.time, partial(self.take, url, moment))

    def take(self, url: str, moment: float) -> None:
        if self.polls.get(url) != moment:
            return
        self.polls[url] = 0
        name = "store_orders" if url == SETTINGS.orders_queue_url else "retry_failures"
        queue = self.sqs.queues[url]
        mixed = list(queue.messages.items())
        self.world.random.shuffle(mixed)
        queue.messages = dict(mixed)
        batch = self.sqs.take(url, self.world.random.randint(1, 10))
        if batch:
            event = {"Records": [each.lambda_record() for each in batch]}
            fault = self.world.strike(name)
            done = partial(self.settle, url, batch, fault)
            if fault and fault.kind == "throttled invocation":
                done(None, None)
            else:
                self.world.start(name, BY_NAME[name].timeout, partial(getattr(self, name), event), done)
        self.poll(url)

    def settle(self, url: str, batch: list[fakes.Message], fault: Fault | None, result: Any, _error: Any) -> None:
        """Deletes the messages that the function did not report as failed. SQS may deliver a deleted message again."""
        queue = self.sqs.queues[url]
        if result is not None:
            failed = {each["itemIdentifier"] for each in result["batchItemFailures"]}
            for message in batch:
                if message.id in failed or message.id not in queue.messages:
                    continue
                if fault:
                    message.visible_at = self.world.time + self.world.random.random() * 20
                else:
                    del queue.messages[message.id]
        self.poll(url)

    def read_stream(self) -> None:
        """Delivers the next records of the stream, in order. One batch is under way at a time."""
        if self.reading or self.position >= len(self.stream):
            return
        self.reading, mapping = True, self.mapping
        first, end = self.position, min(len(self.stream), self.position + self.world.random.randint(1, 10))
        event = {"Records": self.stream[first:end]}
        fault = self.world.strike("announce_orders")

        def done(result: Any, failure: Any) -> None:
            if mapping is not self.mapping:
                return
            self.reading = False
            left = [] if failure is not None else result["batchItemFailures"]
            if failure is None and not left and not fault:
                self.position, self.failures_of_stream = end, 0
            elif left and int(left[0]["itemIdentifier"]) - 1 > first:
                self.position, self.failures_of_stream = int(left[0]["itemIdentifier"]) - 1, 0
            else:
                self.failures_of_stream += 1
            self.world.later(min(60, 2**self.failures_of_stream) * self.world.random.random(), self.read_stream)

        self.world.start("announce_orders", BY_NAME["announce_orders"].timeout, partial(self.announce_orders, event), done)

    def deliver_published(self) -> None:
        while self.sns.published:
            message = self.sns.published.pop(0)
            fault = self.world.strike("sns delivery")
            for _ in range(2 if fault else 1):
                self.world.soon(partial(self.heard.append, message))
                self.event("record_notification", {"Records": [{"Sns": message}]})

    def event(self, name: str, payload: dict[str, Any], tries: int = 0) -> None:
        """Invokes a function asynchronously: at least once, in any order, and twice more if it fails."""
        fault = self.world.strike(name) if not tries else None
        delay = fault.seconds if fault and fault.kind == "late delivery" else 0
        for _ in range(2 if fault and fault.kind == "repeated delivery" else 1):
            work = partial(getattr(self, name), payload)
            start = partial(self.world.start, name, BY_NAME[name].timeout, work, partial(self.finish, name, payload, tries))
            self.world.later(delay + self.world.random.random(), start)

    def finish(self, name: str, payload: dict[str, Any], tries: int, _result: Any, failure: BaseException | None) -> None:
        if failure is None:
            return
        if tries < len(PAUSES):
            self.world.later(PAUSES[tries] * self.world.random.uniform(0.8, 1.2), partial(self.event, name, payload, tries + 1))
            return
        kind = "Sandbox.Timedout" if isinstance(failure, Killed) else type(failure).__name__
        names = {"requestId": f"event-{next(self.world.numbers)}", "functionArn": f"{PREFIX % 'lambda'}function:cafe-test-{name}"}
        record = {
            **{"version": "1.0", "timestamp": errors_time(self.world)},
            "requestContext": {**names, "condition": "RetriesExhausted", "approximateInvokeCount": tries + 1},
            "requestPayload": payload,
            "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
            "responsePayload": {"errorType": kind, "errorMessage": str(failure)},
        }
        self.fail(json.dumps(record))

    def fail(self, record: str) -> None:
        """Sends a failed event to the failure destination."""
        url = SETTINGS.retries_queue_url
        self.sqs.put(url, record)
        self.deliver("sqs", "SendMessage")

    def redeploy(self) -> None:
        """Kills the functions. The stream's new mapping begins at the start of the stream."""
        self.world.say("*** redeploy")
        self.world.kill()
        self.mapping, self.reading, self.position = object(), False, 0
        self.world.soon(self.read_stream, 10)

    # --- The handlers, called as app.py calls them --------------------------------------------------------------------

    def store_orders(self, event: dict[str, Any], _process: Process) -> Any:
        return store.store_orders(
            event,
            dynamodb=self.dynamodb,
            table=SETTINGS.orders_table,
            sqs=self.sqs,
            queue_url=SETTINGS.orders_queue_url,
            dead_letter_url=SETTINGS.orders_dead_letter_url,
            publish=self.publish,
            clock=lambda: self.world.time,
        )

    def retry_failures(self, event: dict[str, Any], _process: Process) -> Any:
        return retrying.retry(event, settings=SETTINGS, aws=self.aws, now=self.world.now())

    def announce_orders(self, event: dict[str, Any], process: Process) -> Any:
        context, now = process.context(self.world), self.world.now()
        url = SETTINGS.retries_queue_url
        return announce.announce_orders(
            event,
            publish=self.publish,
            set_aside=announce.set_aside_with(self.sqs, url, context, now),
            find_announced=partial(replay.find_announced, self.dynamodb, SETTINGS.notifications_table, now),
            now=now,
            seconds_left=lambda: context.get_remaining_time_in_millis() / 1000,
        )

    def record_notification(self, event: dict[str, Any], _process: Process) -> None:
        notifications.record(event, dynamodb=self.dynamodb, table=SETTINGS.notifications_table)

    def receive_upload(self, event: dict[str, Any], _process: Process) -> None:
        buckets = SETTINGS.uploads_bucket, SETTINGS.reports_bucket
        open_stock: Any = self.mysql.open_stock
        receiving.receive(event, jobs.Jobs(self.s3, open_stock, self.publish, self.records, *buckets, self.world.now))

    def redrive(self, _process: Process) -> Any:
        return redrive.redrive(None, settings=SETTINGS, aws=self.aws, clock=lambda: self.world.time)

    # --- The state machine of the inventory report --------------------------------------------------------------------

    def make_report(self, arn: str, _machine: Process) -> None:
        execution = self.sfn.executions[arn]
        name, request = execution["name"], json.loads(execution["input"])
        reason, began = None, self.world.time
        try:
            exported = self.state("read_inventory", self.read_inventory, {"reportId": name, "request": request})
            rendered = self.state("render_report", self.render_report, {**exported, "request": request})
            link = self.state("presign_report", self.presign_report, {"reportId": name, "request": request})
            if rendered["reportKey"] not in self.s3.buckets[SETTINGS.reports_bucket]:
                raise AssertionError("a link that does not open")
            text = f"Inventory report {name}: {rendered['rows']} beans. Open it before {link['expiresAt']}: {link['url']}"
            self.notify(name, f"report/{name}", "succeeded", text)
        except Failed as error:
            reason = str(error)
        if reason is None:
            output = {"reportId": name, "reportKey": rendered["reportKey"], "summary": {"rows": rendered["rows"]}}
            self.sfn.end(arn, "SUCCEEDED", output=json.dumps(output))
            return
        try:
            self.notify(name, f"report/{name}/failed", "failed", f"Inventory report {name} failed: {reason}")
        except Failed:
            self.unannounced.append(name)
        self.sfn.end(arn, "FAILED", error="Failed", cause=reason)
        self.world.say(f"report {name} ended after {self.world.time - began:.0f} s")

    def state(self, name: str, work: Any, payload: dict[str, Any]) -> Any:
        """Runs a function of a state machine, with the state's retries."""
        for number in range(TRIES_OF_STATE):
            result, failure = self.world.call(name, BY_NAME[name].timeout, partial(work, payload))
            if failure is None:
                return result
            # A function that was killed fails with an error that Lambda retries only if the service failed.
            if not isinstance(failure, errors.Unavailable):
                break
            self.world.sleep(min(10, 2**number) * self.world.random.random())
        raise Failed(str(failure))

    def notify(self, name: str, key: str, outcome: str, text: str) -> None:
        facts = json.dumps({"id": name, "kind": "inventory", "outcome": outcome})
        texts = {"kind": "report", "key": key, "facts": facts, "startedAt": self.world.now().isoformat()}
        attributes = {each: {"DataType": "String", "StringValue": value} for each, value in texts.items()}
        message = json.dumps({"default": text, "sms": "Inventory report"})
        for number in range(TRIES_OF_STATE):
            try:
                self.sns.publish(
                    TopicArn=SETTINGS.topic_arn,
                    Subject="Inventory report",
                    Message=message,
                    MessageStructure="json",
                    MessageAttributes=attributes,
                )
            except Exception as error:  # noqa: BLE001 - as in the state machine
                failure = error
                self.world.sleep(min(10, 2**number) * self.world.random.random())
            else:
                return
        raise Failed(str(failure))

    def read_inventory(self, event: dict[str, Any], _process: Process) -> Any:
        with self.mysql.connect() as connection:
            return inventory.read_inventory(connection, self.s3, SETTINGS.reports_bucket, event["reportId"], self.world.now())

    def render_report(self, event: dict[str, Any], _process: Process) -> Any:
        return render.render_report(event, s3=self.s3, bucket=SETTINGS.reports_bucket)

    def presign_report(self, event: dict[str, Any], _process: Process) -> Any:
        key = reports.report_key("inventory", event["reportId"])
        return reports.presign(self.s3, SETTINGS.reports_bucket, key, self.world.now())


class Failed(Exception):
    """A state failed after its retries."""


def ignore(_result: Any, _failure: BaseException | None) -> None:
    pass


def errors_time(world: World) -> str:
    return world.now().isoformat().replace("+00:00", "Z")
