"""Tests that an upgrade from each earlier version, and the way back, lose nothing.

Every change of stored items, tables or messages must extend ``fill`` and ``Upgrade.check``. The tests of one version
run in order, on one stage.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

from infra.deploy import stacks
from tests.deploying.checkout import Checkout, Place, new_place
from tests.deploying.exercises import link
from tests.deploying.versions import COMMITS, Api, checkout, files
from tests.system.events import failed_event, s3_event
from tests.system.inventory import HEADER
from tests.system.waiting import wait_for
from tests.template import load

pytestmark = pytest.mark.long

STAGE = "up"
FUNCTION = f"arn:aws:lambda:us-east-1:000000000000:function:cafe-{STAGE}"
UPLOADS = f"cafe-{STAGE}-uploads-000000000000"
REQUESTS: tuple[dict[str, str], ...] = ({}, {"kind": "storage"})
# CloudFormation deletes the data of these resources when it replaces them.
STATEFUL = ("AWS::DynamoDB::Table", "AWS::Logs::LogGroup", "AWS::S3::Bucket", "AWS::SNS::Topic", "AWS::SQS::Queue")
# macOS writes an accent as a character of its own.
DECOMPOSED = unicodedata.normalize("NFD", "Zoë")
ORDERS: tuple[dict[str, Any], ...] = (
    {"orderID": "single", "customerID": "ana", "item": "Mocha"},
    {"orderID": "full", "customerID": DECOMPOSED, "items": [{"item": "Té ☕", "quantity": 3}], "note": "l'été\n2"},
    {"orderID": "second", "customerID": "ana", "items": [{"item": "x", "quantity": 1}, {"item": "y", "quantity": 2}]},
)
IDS = {"orders": "orderID", "notifications": "messageId", "reports": "reportId"}
LISTS = ("orders?", "orders?customerID=ana&", "notifications?", "reports?", "reports?kind=storage&")


def inventory(quantity: int) -> str:
    return f"{HEADER}Upgrade Ltd,Espresso,Dark,9.50,strong,{quantity}\n"


@dataclass(frozen=True)
class Upgrade:
    place: Place
    version: str
    old: Checkout
    new: Checkout
    api: Api
    # What the old version stored and answered.
    before: dict[str, Any]

    def aws(self, service: str) -> Any:
        return self.place.account.aws(service)

    def queue(self, name: str) -> str:
        return str(self.aws("sqs").get_queue_url(QueueName=f"cafe-{STAGE}-{name}")["QueueUrl"])

    def quantity(self) -> int:
        return int(self.place.sql("SELECT quantity FROM beans WHERE product_name = 'Dark'")[0][0])

    def ledger(self) -> set[tuple[Any, ...]]:
        """Returns the ledger of imported files, whose ``handled_at`` changes with each write."""
        return set(self.place.sql("SELECT object_key, sequencer, etag, outcome, announced, handled_at FROM uploads"))

    def lists(self) -> dict[str, dict[str, Any]]:
        """Returns the items of the API's lists by their ids."""
        answers = {path: self.api.get(f"/{path}limit=100") for path in LISTS}
        names = {path: path.partition("?")[0] for path in LISTS}
        return {path: {each[IDS[name]]: each for each in answers[path][name]} for path, name in names.items()}

    def check(self) -> None:
        """Reads back through the API everything that the old version stored, and opens every report."""
        present = self.lists()
        for path, items in self.before["lists"].items():
            for identifier, item in items.items():
                assert present[path][identifier].items() >= item.items(), f"{path}: {identifier}"
        for order in self.before["lists"]["orders?"].values():
            assert self.api.get(f"/orders/{order['orderID']}").items() >= order.items()
        for report in [*present["reports?"].values(), *present["reports?kind=storage&"].values()]:
            assert link("GET", self.api.get(report["href"])["url"]).ok, report["reportId"]
        assert self.quantity() == 5
        assert self.ledger() >= self.before["ledger"]


@pytest.mark.parametrize("version", COMMITS)
def test_no_resource_with_data_is_replaced(version: str) -> None:
    """The local cloud keeps the data of a resource that AWS would replace, so this test compares the templates."""
    archived = files(version, "infra/resources.yaml").extractfile("infra/resources.yaml")
    assert archived
    old, new = (load(text)["Resources"] for text in (archived.read().decode(), stacks.template("resources.yaml")))
    stateful = {key: each for key, each in old.items() if each["Type"] in STATEFUL}
    assert {"OrdersTable", "UploadsBucket", "OrdersQueue", "NotificationsTopic"} <= stateful.keys()
    for key, each in stateful.items():
        schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", each["Type"]).schema
        for path in schema["createOnlyProperties"] + schema.get("conditionalCreateOnlyProperties", []):
            name = path.split("/")[2]
            assert new[key]["Properties"].get(name) == each["Properties"].get(name), f"{key}: {name}"


@pytest.fixture(scope="module", params=COMMITS)
def upgrade(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgrade]:
    """Deploys an earlier version and fills it."""
    with new_place(tmp_path_factory.mktemp("place")) as place:
        old, new = checkout(place, request.param), place.checkout("present")
        upgrade = Upgrade(place, request.param, old, new, Api(place, STAGE), {})
        # IAM cannot simulate the permissions of an administrator without a policy.
        old.deploy(STAGE, *["--unchecked"] * (upgrade.version != "0.1.0"))
        fill(upgrade)
        upgrade.before.update(lists=upgrade.lists(), ledger=upgrade.ledger())
        if upgrade.version == "0.2.0":
            leave_open_api(upgrade)
        yield upgrade


def fill(upgrade: Upgrade) -> None:
    """Stores something of each kind, and leaves a message in each queue."""
    api, sqs, key, content = upgrade.api, upgrade.aws("sqs"), f"inventory/{upgrade.version}.csv", inventory(5)
    names = {"Idempotency-Key": "nightly"}
    upgrade.before["report"] = api.post("/create_report", **names)["reportId"]
    reports = [upgrade.before["report"], api.post("/create_report", REQUESTS[1])["reportId"]]
    api.post("/orders", ORDERS[0])
    api.post("/orders", ORDERS[1:])
    upgrade.aws("s3").put_object(Bucket=UPLOADS, Key=key, Body=content.encode())
    for path in (f"/orders/{order['orderID']}" for order in ORDERS):
        api.wait(path, "PLACED")
    for report in reports:
        api.wait(f"/reports/{report}", "SUCCEEDED")

    def kinds() -> set[str]:
        return {each["kind"] for each in api.get("/notifications")["notifications"]}

    wait_for(lambda: kinds() >= {"order", "report", "storage", "upload"}, "a notification of each kind")
    body = leave_in_queue(upgrade)
    sqs.send_message(QueueUrl=upgrade.queue("orders-dead"), MessageBody=body.replace("waiting", "dead"))
    [(sequencer, etag)] = upgrade.place.sql("SELECT sequencer, etag FROM uploads")
    event = failed_event(f"{FUNCTION}-receive_upload", s3_event(UPLOADS, key, etag, sequencer, len(content)))
    sqs.send_message(QueueUrl=upgrade.queue("failures"), MessageBody=json.dumps(event))


def leave_in_queue(upgrade: Upgrade) -> str:
    """Sends an order through the API, and hides its message from the function. Returns the message's body."""
    lambda_, queue = upgrade.aws("lambda"), {"QueueUrl": upgrade.queue("orders"), "VisibilityTimeout": 43_200}
    [mapping] = lambda_.list_event_source_mappings(FunctionName=f"{FUNCTION}-store_orders")["EventSourceMappings"]

    def enable(enabled: bool, state: str) -> None:
        lambda_.update_event_source_mapping(UUID=mapping["UUID"], Enabled=enabled)
        wait_for(lambda: lambda_.get_event_source_mapping(UUID=mapping["UUID"])["State"] == state, state)

    enable(False, "Disabled")
    upgrade.api.post("/orders", {"orderID": "waiting", "customerID": DECOMPOSED, "item": "Latte"})
    [message] = wait_for(lambda: upgrade.aws("sqs").receive_message(**queue).get("Messages"), "the message")
    enable(True, "Enabled")
    upgrade.before["receipt"] = message["ReceiptHandle"]
    return str(message["Body"])


def leave_open_api(upgrade: Upgrade) -> None:
    """Adds an API without sign-in, which an upgrade from 0.1.0 to 0.2.0 left."""
    gateway = upgrade.aws("apigateway")
    uri = f"arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{FUNCTION}/invocations"
    call = {"x-amazon-apigateway-integration": {"type": "aws_proxy", "httpMethod": "POST", "uri": uri}}
    document = {"swagger": "2.0", "info": {"title": "cafe", "version": "1"}, "paths": {"/orders": {"get": call}}}
    api = gateway.import_rest_api(body=json.dumps(document))["id"]
    gateway.create_deployment(restApiId=api, stageName="api")


def test_an_upgrade_keeps_everything(upgrade: Upgrade) -> None:
    before, sqs = upgrade.place.account.apis(STAGE), upgrade.aws("sqs")
    upgrade.new.deploy(STAGE)
    [api] = upgrade.place.account.apis(STAGE)
    assert api in before
    assert upgrade.api.send("GET", "/orders").status == 401
    upgrade.check()
    waiting = {"QueueUrl": upgrade.queue("orders"), "ReceiptHandle": upgrade.before["receipt"]}
    sqs.change_message_visibility(**waiting, VisibilityTimeout=0)
    assert upgrade.api.wait("/orders/waiting", "PLACED")["items"] == [{"item": "Latte", "quantity": 1}]


def test_a_repeated_request_is_the_one_that_the_old_version_answered(upgrade: Upgrade) -> None:
    repeated = upgrade.api.post("/create_report", **{"Idempotency-Key": "nightly"})
    assert repeated["reportId"] == upgrade.before["report"]
    for order in ORDERS:
        upgrade.api.post("/orders", order)
    found = upgrade.api.get(f"/orders?customerID={quote(DECOMPOSED)}")["orders"]
    assert {each["orderID"] for each in found} == {"full", "waiting"}


def test_dead_letters_of_the_old_version_are_listed_and_redriven(upgrade: Upgrade) -> None:
    """One dead letter is the event of an upload that the old version has imported, so it changes nothing."""
    letters = upgrade.api.get("/dead-letters")["deadLetters"]
    assert {each["kind"] for each in letters} == {"order", "upload"}
    redriven = upgrade.api.post("/dead-letters/redrive", {"ids": [each["id"] for each in letters]})
    assert redriven["redriven"] == 2
    assert upgrade.api.wait("/orders/dead", "PLACED")["items"] == [{"item": "Latte", "quantity": 1}]
    [upload] = wait_for(lambda: upgrade.api.get("/uploads")["uploads"], "the upload")
    assert upgrade.api.wait(f"/uploads/{upload['uploadId']}", "IMPORTED")["reason"] is None
    assert upgrade.api.get("/dead-letters")["deadLetters"] == []
    upgrade.check()


def test_the_present_version_works_on_the_old_data(upgrade: Upgrade) -> None:
    api = upgrade.api
    api.post("/orders", {"orderID": "new", "customerID": "ana", "item": "Mocha"})
    reports = [api.post("/create_report", each)["reportId"] for each in REQUESTS]
    offer = api.post("/uploads", {"filename": "a.csv", "preview": True})
    assert link("POST", offer["url"], {**offer["fields"], "file": inventory(7)}).ok
    path = f"/uploads/{offer['uploadId']}"
    assert api.wait(path, "PREVIEWED")["counts"]["updated"] == 1
    for action, status, quantity in (("apply", "IMPORTED", 7), ("undo", "UNDONE", 5)):
        api.post(f"{path}/{action}")
        api.wait(path, status)
        assert upgrade.quantity() == quantity
    api.wait("/orders/new", "PLACED")
    for report in reports:
        api.wait(f"/reports/{report}", "SUCCEEDED")
    upgrade.check()


def test_the_way_back_and_a_second_upgrade_lose_nothing(upgrade: Upgrade) -> None:
    """No release of 0.1.0 was stored, so the way back to 0.1.0 is a deploy of 0.1.0."""
    uploads, orders = upgrade.api.get("/uploads")["uploads"], upgrade.lists()["orders?"].keys()
    if upgrade.version == "0.1.0":
        status, said = upgrade.new.run(STAGE, "--rollback")
        assert (status, "up has no previous release" in said) == (1, True), said
        upgrade.old.deploy(STAGE)
    else:
        upgrade.new.deploy(STAGE, "--rollback")
    assert upgrade.api.get("/health")["version"] == upgrade.version
    upgrade.check()
    assert upgrade.lists()["orders?"].keys() == orders
    upgrade.api.post("/orders", {"orderID": "back", "customerID": "ana", "item": "Mocha"})
    upgrade.api.wait("/orders/back", "PLACED")
    upgrade.new.deploy(STAGE)
    upgrade.check()
    assert upgrade.api.get("/uploads")["uploads"] == uploads
    assert upgrade.lists()["orders?"].keys() == {*orders, "back"}
