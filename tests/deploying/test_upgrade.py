"""Tests that an upgrade from each earlier version, and the way back, lose nothing.

Every change of stored items, tables or messages must extend ``fill`` and ``Upgrade.check``. The tests of one version
run in order, on one stage.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

from infra.deploy import stacks
from tests.deploying.checkout import Checkout, new_place
from tests.deploying.exercises import link
from tests.deploying.versions import COMMITS, Api, checkout
from tests.system.events import failed_event, s3_event
from tests.system.inventory import HEADER
from tests.system.waiting import wait_for
from tests.template import load

pytestmark = pytest.mark.long

STAGE = "up"
FUNCTION = f"arn:aws:lambda:us-east-1:000000000000:function:cafe-{STAGE}"
UPLOADS = f"cafe-{STAGE}-uploads-000000000000"
KEY = {"Idempotency-Key": "nightly"}
# CloudFormation deletes the data of these resources when it replaces them.
STATEFUL = ("AWS::DynamoDB::Table", "AWS::Logs::LogGroup", "AWS::S3::Bucket", "AWS::SNS::Topic", "AWS::SQS::Queue")
# macOS writes an accent as a character of its own.
DECOMPOSED = "Zoe\u0308"
ORDERS: tuple[dict[str, Any], ...] = (
    {"orderID": "single", "customerID": "ana", "item": "Mocha"},
    {"orderID": "full", "customerID": DECOMPOSED, "items": [{"item": "Té ☕", "quantity": 3}], "note": "l'été\n2"},
)
LISTS = ("orders?", "orders?customerID=ana&", "notifications?", "reports?", "reports?kind=storage&")
QUANTITY = "SELECT quantity FROM beans WHERE product_name = 'Dark'"
INVENTORY = HEADER + "Upgrade Ltd,Espresso,Dark,9.50,strong,{}\n"


@dataclass(frozen=True, kw_only=True)
class Upgrade(Api):
    version: str
    old: Checkout
    new: Checkout
    # Everything that the old version stored and returned.
    before: dict[str, Any] = field(default_factory=dict)

    def aws(self, service: str) -> Any:
        return self.place.account.aws(service)

    def queue(self, name: str) -> str:
        return str(self.aws("sqs").get_queue_url(QueueName=f"cafe-{STAGE}-{name}")["QueueUrl"])

    def ledger(self) -> set[tuple[Any, ...]]:
        """Returns the ledger of imported files, whose ``handled_at`` changes with each write."""
        return set(self.place.sql("SELECT object_key, sequencer, etag, outcome, announced, handled_at FROM uploads"))

    def lists(self) -> dict[str, list[dict[str, Any]]]:
        return {path: self.get(f"/{path}limit=100")[path.partition("?")[0]] for path in LISTS}

    def orders(self) -> set[str]:
        return {each["orderID"] for each in self.lists()["orders?"]}

    def make_reports(self) -> None:
        for body in ({}, {"kind": "storage"}):
            self.wait(self.post("/create_report", body)["href"], "SUCCEEDED")

    def check(self) -> None:
        """Reads back through the API everything that the old version stored, and opens every report."""
        present = self.lists()
        for path, items in self.before["lists"].items():
            lost = [item for item in items if not any(each.items() >= item.items() for each in present[path])]
            assert lost == [], path
        for order in self.before["lists"]["orders?"]:
            assert self.get(f"/orders/{order['orderID']}").items() >= order.items()
        for report in present["reports?"] + present["reports?kind=storage&"]:
            assert link("GET", self.get(report["href"])["url"]).ok, report["reportId"]
        assert self.place.sql(QUANTITY) == [(5,)]
        assert self.ledger() >= self.before["ledger"]


@pytest.fixture(scope="module", params=COMMITS)
def upgrade(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgrade]:
    """Deploys an earlier version and fills it."""
    with new_place(tmp_path_factory.mktemp("place")) as place:
        old, new = checkout(place, request.param), place.checkout("present")
        upgrade = Upgrade(place, STAGE, version=request.param, old=old, new=new)
        # IAM cannot simulate the permissions of an administrator without a policy.
        old.deploy(STAGE, *["--unchecked"] * (upgrade.version != "0.1.0"))
        fill(upgrade)
        upgrade.before.update(lists=upgrade.lists(), ledger=upgrade.ledger())
        if upgrade.version == "0.2.0":
            # An upgrade from 0.1.0 to 0.2.0 left an API without sign-in.
            uri = f"arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{FUNCTION}/invocations"
            call = {"x-amazon-apigateway-integration": {"type": "aws_proxy", "httpMethod": "POST", "uri": uri}}
            document = {"swagger": "2", "info": {"title": "cafe", "version": "1"}, "paths": {"/orders": {"get": call}}}
            api = upgrade.aws("apigateway").import_rest_api(body=json.dumps(document))["id"]
            upgrade.aws("apigateway").create_deployment(restApiId=api, stageName="api")
        yield upgrade


def fill(upgrade: Upgrade) -> None:
    """Stores something of each kind, and leaves a message in each queue."""
    sqs, key, content = upgrade.aws("sqs"), f"inventory/{upgrade.version}.csv", INVENTORY.format(5)
    upgrade.before["report"] = upgrade.post("/create_report", **KEY)
    upgrade.post("/orders", ORDERS[0])
    upgrade.post("/orders", ORDERS[1:])
    upgrade.aws("s3").put_object(Bucket=UPLOADS, Key=key, Body=content.encode())
    upgrade.make_reports()
    upgrade.wait(upgrade.before["report"]["href"], "SUCCEEDED")
    wait_for(lambda: upgrade.orders() == {each["orderID"] for each in ORDERS}, "the orders")
    kinds = {"order", "report", "storage", "upload"}
    wait_for(lambda: kinds <= {each["kind"] for each in upgrade.lists()["notifications?"]}, "notifications")
    body = leave_in_queue(upgrade)
    sqs.send_message(QueueUrl=upgrade.queue("orders-dead"), MessageBody=body.replace("waiting", "dead"))
    [(sequencer, etag)] = upgrade.place.sql("SELECT sequencer, etag FROM uploads")
    event = failed_event(f"{FUNCTION}-receive_upload", s3_event(UPLOADS, key, etag, sequencer, len(content)))
    sqs.send_message(QueueUrl=upgrade.queue("failures"), MessageBody=json.dumps(event))


def leave_in_queue(upgrade: Upgrade) -> str:
    """Sends an order through the API, and hides its message from the function. Returns the message."""
    lambda_, queue = upgrade.aws("lambda"), {"QueueUrl": upgrade.queue("orders"), "VisibilityTimeout": 43_200}
    [mapping] = lambda_.list_event_source_mappings(FunctionName=f"{FUNCTION}-store_orders")["EventSourceMappings"]
    lambda_.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    upgrade.post("/orders", {"orderID": "waiting", "customerID": DECOMPOSED, "item": "Latte"})
    [message] = wait_for(lambda: upgrade.aws("sqs").receive_message(**queue).get("Messages"), "the message")
    lambda_.update_event_source_mapping(UUID=mapping["UUID"], Enabled=True)
    upgrade.before["receipt"] = message["ReceiptHandle"]
    return str(message["Body"])


def test_no_resource_with_data_is_replaced(upgrade: Upgrade) -> None:
    """The local cloud keeps the data of a resource that AWS would replace, so this test compares the templates."""
    texts = ((upgrade.old.folder / "infra/resources.yaml").read_text(), stacks.template("resources.yaml"))
    old, new = (load(text)["Resources"] for text in texts)
    for key, each in ((key, each) for key, each in old.items() if each["Type"] in STATEFUL):
        schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", each["Type"]).schema
        for path in schema["createOnlyProperties"] + schema.get("conditionalCreateOnlyProperties", []):
            name = path.split("/")[2]
            assert new[key]["Properties"].get(name) == each["Properties"].get(name), f"{key}: {name}"


def test_an_upgrade_keeps_everything(upgrade: Upgrade) -> None:
    before, sqs = upgrade.place.account.apis(STAGE), upgrade.aws("sqs")
    upgrade.new.deploy(STAGE)
    [api] = upgrade.place.account.apis(STAGE)
    assert api in before
    assert upgrade.send("GET", "/orders")[0] == 401
    upgrade.check()
    waiting = {"QueueUrl": upgrade.queue("orders"), "ReceiptHandle": upgrade.before["receipt"]}
    sqs.change_message_visibility(**waiting, VisibilityTimeout=0)
    assert upgrade.wait("/orders/waiting", "PLACED")["items"] == [{"item": "Latte", "quantity": 1}]


def test_orders_of_the_old_version_are_placed_and_can_become_ready(upgrade: Upgrade) -> None:
    placed = {each["orderID"] for each in upgrade.get("/orders?status=PLACED&limit=100")["orders"]}
    assert placed == upgrade.orders() >= {each["orderID"] for each in ORDERS}
    upgrade.post("/orders/single", {"from": "PLACED", "status": "READY"}, method="PATCH")
    for order in (each for items in upgrade.before["lists"].values() for each in items):
        order.update({"status": "READY"} if order.get("orderID") == "single" else {})
    wait_for(lambda: upgrade.get("/orders?status=READY")["orders"], "the index")
    upgrade.check()


def test_dead_letters_of_the_old_version_are_listed_and_redriven(upgrade: Upgrade) -> None:
    """One dead letter is the event of an upload that the old version has imported, so it changes nothing."""
    letters = upgrade.get("/dead-letters")["deadLetters"]
    assert {each["kind"] for each in letters} == {"order", "upload"}
    assert upgrade.post("/dead-letters/redrive", {"ids": [each["id"] for each in letters]})["redriven"] == 2
    assert upgrade.wait("/orders/dead", "PLACED")["items"] == [{"item": "Latte", "quantity": 1}]
    [upload] = wait_for(lambda: upgrade.get("/uploads")["uploads"], "the upload")
    assert upgrade.wait(f"/uploads/{upload['uploadId']}", "IMPORTED")["reason"] is None
    assert upgrade.get("/dead-letters")["deadLetters"] == []
    upgrade.check()


def test_requests_work_and_repeated_requests_are_known(upgrade: Upgrade) -> None:
    assert upgrade.post("/create_report", **KEY)["reportId"] == upgrade.before["report"]["reportId"]
    for order in ORDERS:
        upgrade.post("/orders", order)
    found = upgrade.get(f"/orders?customerID={quote(DECOMPOSED)}")["orders"]
    assert {each["orderID"] for each in found} == {"full", "waiting", "dead"}
    upgrade.post("/orders", {"orderID": "new", "customerID": "ana", "item": "Mocha"})
    upgrade.make_reports()
    offer = upgrade.post("/uploads", {"filename": "a.csv", "preview": True})
    assert link("POST", offer["url"], {**offer["fields"], "file": INVENTORY.format(7)}).ok
    path = f"/uploads/{offer['uploadId']}"
    assert upgrade.wait(path, "PREVIEWED")["counts"]["updated"] == 1
    for action, status, quantity in (("apply", "IMPORTED", 7), ("undo", "UNDONE", 5)):
        upgrade.post(f"{path}/{action}")
        upgrade.wait(path, status)
        assert upgrade.place.sql(QUANTITY) == [(quantity,)]
    upgrade.wait("/orders/new", "PLACED")
    upgrade.check()


def test_the_way_back_and_a_second_upgrade_lose_nothing(upgrade: Upgrade) -> None:
    """No release of 0.1.0 was stored, so the way back to 0.1.0 is a deploy of 0.1.0."""
    uploads, orders = upgrade.get("/uploads")["uploads"], upgrade.orders()
    if upgrade.version == "0.1.0":
        status, said = upgrade.new.run(STAGE, "--rollback")
        assert (status, "up has no previous release" in said) == (1, True), said
        upgrade.old.deploy(STAGE)
    else:
        upgrade.new.deploy(STAGE, "--rollback")
    assert upgrade.get("/health")["version"] == upgrade.version
    upgrade.check()
    assert upgrade.orders() == orders
    upgrade.post("/orders", {"orderID": "back", "customerID": "ana", "item": "Mocha"})
    upgrade.wait("/orders/back", "PLACED")
    upgrade.new.deploy(STAGE)
    upgrade.check()
    assert upgrade.get("/uploads")["uploads"] == uploads
    assert upgrade.orders() == {*orders, "back"}
