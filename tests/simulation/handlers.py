"""The real handlers on the fake clients, called as ``app.py`` and the inventory report's state machine call them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from datetime import datetime
from functools import partial
from typing import Any

from chalicelib import errors, notifications, reports
from chalicelib.dead_letters import redrive, retrying
from chalicelib.orders import announce, replay, store
from chalicelib.reports import inventory, render
from chalicelib.retries import GIVE_UP_SECONDS
from chalicelib.settings import LOW_STOCK, Settings
from chalicelib.uploads import jobs, receiving
from chalicelib.uploads.records import Records
from infra.functions import BY_NAME
from tests.simulation import fakes
from tests.simulation.mysql import Mysql
from tests.simulation.world import Process, World

PREFIX = "arn:aws:%s:us-east-1:123456789012:"
# The settings whose values are not simply names.
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
# DynamoDB refuses an order with this text in its id.
UNSTORABLE = "refused-by-dynamodb"
# A service always answers with a temporary error if one of these texts is in the name of an order or a file.
ENDLESS, UNHEARD = "never-accepted", "never-announced"
# An announcement is in the inbox after this time, and the stream's record is old enough for a look.
SURELY_SEEN_SECONDS = 15
QUEUE_HIDES_SECONDS, RETRIES_HIDE_SECONDS = 190, 360
# A state that AWS runs for a state machine is tried again this often.
TRIES_OF_STATE = 5


class Failed(Exception):
    """A state failed after its retries."""


def names(announced: Mapping[str, Any]) -> list[Any]:
    """Returns the orders and changes in the facts of an announcement."""
    return [*announced["orderIDs"], *map(tuple, announced.get("changes", ()))]


class Handlers:
    """``kept`` counts each inbox item's writes. ``announced`` has the orders and changes that the inbox shows as
    announced.

    ``repeated`` names those that were announced again unnecessarily.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        clock = partial(getattr, world, "time")
        self.sqs = fakes.Sqs(clock, world.gate)
        for name in ("orders_queue_url", "orders_dead_letter_url", "failures_queue_url", "retries_queue_url"):
            self.sqs.queues[getattr(SETTINGS, name)] = fakes.Queue()
        self.orders = self.sqs.queues[SETTINGS.orders_queue_url]
        self.orders.visibility = QUEUE_HIDES_SECONDS
        self.sqs.queues[SETTINGS.retries_queue_url].visibility = RETRIES_HIDE_SECONDS
        self.orders.max_receives, self.orders.dead = 1000, self.sqs.queues[SETTINGS.orders_dead_letter_url]
        self.dynamodb = fakes.DynamoDb(clock, self.dynamodb_gate)
        self.dynamodb.tables = {
            SETTINGS.orders_table: fakes.Table("orderID", PERIOD, SETTINGS.orders_stream_arn),
            SETTINGS.notifications_table: fakes.Table("notificationID", PERIOD),
            SETTINGS.requests_table: fakes.Table("requestKey"),
            SETTINGS.uploads_table: fakes.Table("uploadId", PERIOD),
        }
        self.stream = self.dynamodb.tables[SETTINGS.orders_table].records
        self.sns = fakes.Sns(clock, self.content_gate)
        self.sns.topics = {SETTINGS.topic_arn, SETTINGS.alarms_topic_arn}
        self.s3 = fakes.S3(clock, self.content_gate, SETTINGS.uploads_bucket)
        self.s3.buckets[SETTINGS.reports_bucket] = {}
        self.sfn = fakes.StepFunctions(clock, world.gate)
        self.functions = fakes.Lambda(clock, world.gate)
        self.mysql = Mysql(world.gate, world.sleep)
        clients = (self.sqs, self.dynamodb, self.sns, self.s3, self.functions, self.sfn)
        self.aws = {client.service: client for client in clients}.__getitem__
        self.publish = notifications.publisher(self.sns, SETTINGS.topic_arn)
        self.records = Records(self.dynamodb, SETTINGS.uploads_table)
        self.kept: Counter[str] = Counter()
        self.announced: dict[str, float] = {}
        self.repeated: list[str] = []

    def dynamodb_gate(self, service: str, operation: str, arguments: dict[str, Any], perform: Any) -> Any:
        def counted() -> Any:
            for place, each in enumerate(arguments.get("Statements", ())):
                for text, code in ((ENDLESS, "ThrottlingError"), (UNSTORABLE, "ValidationError")):
                    if text in each["Parameters"][0]["S"]:
                        return self.world.part(arguments, counted, place, code)
            result = perform()
            # The table also has the dead letters that a person has put back.
            if operation == "PutItem" and "subject" in arguments["Item"]:
                self.keep(arguments["Item"])
            return result

        return self.world.gate(service, operation, arguments, counted)

    def content_gate(self, service: str, operation: str, arguments: dict[str, Any], perform: Any) -> Any:
        def checked() -> Any:
            if REFUSED in arguments.get("Message", ""):
                raise self.sns.error(operation, "InvalidParameter", "Invalid parameter: Message")
            if UNHEARD in arguments.get("Message", ""):
                raise self.sns.error(operation, "Throttled", "Rate exceeded", 429)
            if ENDLESS in arguments.get("Key", "") and operation == "GetObject":
                raise self.s3.error(operation, "SlowDown", "Please reduce your request rate.", 503)
            return perform()

        return self.world.gate(service, operation, arguments, checked)

    # --- The handlers, called as app.py calls them --------------------------------------------------------------------

    def store_orders(self, event: dict[str, Any], _process: Process) -> Any:
        given = {"dynamodb": self.dynamodb, "sqs": self.sqs, "publish": self.publish, "clock": lambda: self.world.time}
        given |= {"queue_url": SETTINGS.orders_queue_url, "dead_letter_url": SETTINGS.orders_dead_letter_url}
        return store.store_orders(event, table=SETTINGS.orders_table, **given)

    def retry_failures(self, event: dict[str, Any], _process: Process) -> Any:
        return retrying.retry(event, settings=SETTINGS, aws=self.aws, now=self.world.now())

    def announce_orders(self, event: dict[str, Any], process: Process) -> Any:
        context, now = process.context(self.world), self.world.now()
        table, published = SETTINGS.notifications_table, []
        surely_seen = self.world.time - SURELY_SEEN_SECONDS
        known = {each for each, sent in self.announced.items() if sent < surely_seen and "redriven" not in event}

        def publish(notification: notifications.Notification) -> None:
            self.publish(notification)
            published.extend(names(notification.facts))

        result = announce.announce_orders(
            event,
            publish=publish,
            set_aside=announce.set_aside_with(self.sqs, SETTINGS.retries_queue_url, context, now, event),
            find_announced=partial(replay.find_announced, self.dynamodb, table, now),
            now=now,
            seconds_left=lambda: context.get_remaining_time_in_millis() / 1000,
        )
        if not process.struck:
            self.repeated += [f"{each} was announced again" for each in published if each in known]
        return result

    def keep(self, item: dict[str, Any]) -> None:
        self.kept[item["notificationID"]["S"]] += 1
        content = json.loads(item["facts"]["S"])
        if content.get("outcome") in ("placed", "changed"):
            sent = datetime.fromisoformat(item["sentAt"]["S"]).timestamp()
            self.announced |= {each: sent for each in names(content) if each not in self.announced}

    def record_notification(self, event: dict[str, Any], _process: Process) -> None:
        notifications.record(event, dynamodb=self.dynamodb, table=SETTINGS.notifications_table)

    def receive_upload(self, event: dict[str, Any], _process: Process) -> None:
        buckets = SETTINGS.uploads_bucket, SETTINGS.reports_bucket
        open_stock: Any = self.mysql.open_stock
        receiving.receive(event, jobs.Jobs(self.s3, open_stock, self.publish, self.records, *buckets, self.world.now))

    def redrive(self, _process: Process) -> Any:
        given = {"settings": SETTINGS, "aws": self.aws, "now": self.world.now(), "clock": lambda: self.world.time}
        return redrive.handle("redriven", redrive.Selection(), by="ann", **given)

    # --- The state machine of the inventory report --------------------------------------------------------------------

    def make_report(self, arn: str, _machine: Process) -> None:
        execution = self.sfn.executions[arn]
        name, request = execution["name"], json.loads(execution["input"])
        began, reason = self.world.time, ""
        while self.world.time < began + GIVE_UP_SECONDS:
            try:
                exported = self.state("read_inventory", self.read_inventory, {"reportId": name, "request": request})
                rendered = self.state("render_report", self.render_report, {**exported, "request": request})
                link = self.state("presign_report", self.presign_report, {"reportId": name, "request": request})
                text = f"{rendered['rows']} beans. Open the report before {link['expiresAt']}: {link['url']}"
                self.notify(name, f"report/{name}", "succeeded", text)
            except Failed as error:
                reason = str(error)
            else:
                assert rendered["reportKey"] in self.s3.buckets[SETTINGS.reports_bucket], "the link does not open"
                output = {"reportId": name, "reportKey": rendered["reportKey"], "summary": {**rendered}}
                self.sfn.end(arn, "SUCCEEDED", output=json.dumps(output))
                return
            if not request.get("scheduled"):
                break
            self.world.sleep(max(10, min(300, self.world.time - began)))
        with suppress(Failed):
            self.notify(name, f"report/{name}/failed", "failed", f"Inventory report {name} failed: {reason}")
        self.sfn.end(arn, "FAILED", error="Failed", cause=reason)

    def state(self, name: str, work: Any, payload: dict[str, Any]) -> Any:
        """Runs a function of a state machine, with the state's retries."""

        def invoke() -> Any:
            result, failure = self.world.call(name, BY_NAME[name].timeout, partial(work, payload))
            # A function that was killed fails with an error that Lambda retries only if the service failed.
            if failure and not isinstance(failure, errors.Unavailable):
                raise Failed(str(failure))
            if failure:
                raise failure
            return result

        return self.retried(invoke)

    def retried(self, work: Callable[[], Any]) -> Any:
        for number in range(TRIES_OF_STATE):
            try:
                return work()
            except Failed:
                raise
            except Exception as error:  # noqa: BLE001 - as in the state machine
                failure = error
                self.world.sleep(min(10, 2**number) * self.world.random.random())
        raise Failed(str(failure))

    def notify(self, name: str, key: str, outcome: str, text: str) -> None:
        facts = json.dumps({"id": name, "kind": "inventory", "outcome": outcome})
        texts = {"kind": "report", "key": key, "facts": facts, "startedAt": self.world.now().isoformat()}
        attributes = {each: {"DataType": "String", "StringValue": value} for each, value in texts.items()}
        message = json.dumps({"default": text, "sms": "Inventory report"})
        given = {"TopicArn": SETTINGS.topic_arn, "Subject": "Inventory report", "MessageStructure": "json"}
        self.retried(partial(self.sns.publish, **given, Message=message, MessageAttributes=attributes))

    def read_inventory(self, event: dict[str, Any], _process: Process) -> Any:
        with self.mysql.connect() as connection:
            return inventory.read_inventory(
                connection, self.s3, SETTINGS.reports_bucket, event["reportId"], self.world.now()
            )

    def render_report(self, event: dict[str, Any], _process: Process) -> Any:
        given = {"bucket": SETTINGS.reports_bucket, "low_stock": LOW_STOCK, "sleep": self.world.sleep}
        return render.render_report(event, s3=self.s3, **given)

    def presign_report(self, event: dict[str, Any], _process: Process) -> Any:
        key = reports.report_key("inventory", event["reportId"])
        return reports.presign(self.s3, SETTINGS.reports_bucket, key, self.world.now())
