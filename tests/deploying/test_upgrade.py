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
KEY = {"Idempotency-Key": "nightly"}
# CloudFormation deletes the data of these resources when it replaces them.
STATEFUL = ("AWS::DynamoDB::Table", "AWS::Logs::LogGroup", "AWS::S3::Bucket", "AWS::SNS::Topic", "AWS::SQS::Queue")
# macOS and some scanners write an accent as a character of its own.
DECOMPOSED = unicodedata.normalize("NFD", "Zoë")
BEAN = "Upgrade Ltd,Espresso,Dark,{},strong,{}\n"
ORDERS: tuple[dict[str, Any], ...] = (
    {"orderID": "single", "customerID": "ana", "item": "Mocha"},
    {"orderID": "full", "customerID": DECOMPOSED, "items": [{"item": "Té ☕", "quantity": 3}], "note": "l'été\n2"},
    {"orderID": "second", "customerID": "ana", "items": [{"item": "x", "quantity": 1}, {"item": "y", "quantity": 2}]},
)


@dataclass(frozen=True)
class Upgrade:
    place: Place
    version: str
    old: Checkout
    new: Checkout
    api: Api
    # The answers of the old version, which later versions must still give.
    before: dict[str, Any]

    def aws(self, service: str) -> Any:
        return self.place.account.aws(service)

    def queue(self, name: str) -> str:
        return str(self.aws("sqs").get_queue_url(QueueName=f"cafe-{STAGE}-{name}")["QueueUrl"])

    def quantity(self) -> int:
        [(quantity,)] = self.place.sql("SELECT quantity FROM beans WHERE product_name = 'Dark'")
        return int(quantity)

    def ledger(self) -> set[tuple[Any, ...]]:
        """Returns the ledger of imported files, whose ``handled_at`` changes with each write."""
        return set(self.place.sql("SELECT object_key, sequencer, etag, outcome, announced, handled_at FROM uploads"))

    def lists(self) -> dict[str, dict[str, Any]]:
        """Returns the items of each list in the API, by id, without links, because each answer signs a new one."""
        ids = {"orders": "orderID", "notifications": "messageId", "reports": "reportId"}
        paths = ("/orders", "/orders?customerID=ana", "/notifications", "/reports")
        found = {}
        for path in (*paths, "/reports?kind=storage"):
            name = path.strip("/").partition("?")[0]
            items = self.api.get(path + ("&" if "?" in path else "?") + "limit=100")[name]
            found[path] = {each[ids[name]]: each for each in items}
        return found

    def check(self) -> None:
        """Reads everything back that the old version stored."""
        present = self.lists()
        assert self.ledger() >= self.before["ledger"]
        for path, items in self.before["lists"].items():
            for identifier, item in items.items():
                assert present[path][identifier].items() >= item.items(), f"{path}: {identifier}"
        for order in self.before["lists"]["/orders"].values():
            assert self.api.get(f"/orders/{order['orderID']}").items() >= order.items()
        for path in ("/reports", "/reports?kind=storage"):
            for name, item in present[path].items():
                report = self.api.get(item["href"])
                assert report["status"] == "SUCCEEDED", name
                assert link("GET", report["url"]).ok, name
        assert self.quantity() == 5


@pytest.mark.parametrize("version", COMMITS)
def test_no_resource_with_data_is_replaced(version: str) -> None:
    """The local cloud keeps the data of a resource that AWS would replace, so this test compares the templates."""
    name = "infra/resources.yaml"
    archived = files(version, name).extractfile(name)
    assert archived
    old, new = (load(text)["Resources"] for text in (archived.read().decode(), stacks.template("resources.yaml")))
    stateful = {key: each for key, each in old.items() if each["Type"] in STATEFUL}
    assert {"OrdersTable", "UploadsBucket", "OrdersQueue", "NotificationsTopic"} <= stateful.keys()
    for key, each in stateful.items():
        schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", each["Type"]).schema
        fixed = schema["createOnlyProperties"] + schema.get("conditionalCreateOnlyProperties", [])
        for field in (path.split("/")[2] for path in fixed):
            assert new[key]["Properties"].get(field) == each["Properties"].get(field), f"{key}: {field}"


@pytest.fixture(scope="module", params=COMMITS)
def upgrade(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgrade]:
    """Deploys an earlier version and fills it."""
    with new_place(tmp_path_factory.mktemp("place")) as place:
        old, new = checkout(place, request.param), place.checkout("present")
        old.deploy(STAGE, *(["--unchecked"] if request.param != "0.1.0" else []))
        upgrade = Upgrade(place, request.param, old, new, Api(place, STAGE), {})
        fill(upgrade)
        upgrade.before.update(lists=upgrade.lists(), ledger=upgrade.ledger())
        if request.param == "0.2.0":
            leave_open_api(upgrade)
        yield upgrade


def fill(upgrade: Upgrade) -> None:
    """Stores something of each kind, and leaves a message in each queue."""
    api, sqs = upgrade.api, upgrade.aws("sqs")
    reports = [api.post("/create_report", body, **KEY)["reportId"] for body in ({}, {"kind": "storage"})]
    upgrade.before["reports"] = reports
    single, *others = ORDERS
    api.post("/orders", single)
    api.post("/orders", others)
    key = f"inventory/{upgrade.version}.csv"
    upgrade.aws("s3").put_object(
        Bucket=f"cafe-{STAGE}-uploads-000000000000", Key=key, Body=(HEADER + BEAN.format("9.50", 5)).encode()
    )
    for order in ORDERS:
        api.wait(f"/orders/{order['orderID']}")
    for report in reports:
        api.wait(f"/reports/{report}", "SUCCEEDED")

    def kinds() -> set[str]:
        return {each["kind"] for each in api.get("/notifications")["notifications"]}

    wait_for(lambda: kinds() >= {"order", "report", "storage", "upload"}, "a notification of each kind")
    body = leave_in_queue(upgrade)
    sqs.send_message(QueueUrl=upgrade.queue("orders-dead"), MessageBody=body.replace("waiting", "dead"))
    [(sequencer, etag)] = upgrade.place.sql("SELECT sequencer, etag FROM uploads")
    event = s3_event(f"cafe-{STAGE}-uploads-000000000000", key, etag, sequencer, len(HEADER + BEAN.format("9.50", 5)))
    arn = f"arn:aws:lambda:us-east-1:000000000000:function:cafe-{STAGE}-receive_upload"
    sqs.send_message(QueueUrl=upgrade.queue("failures"), MessageBody=json.dumps(failed_event(arn, event)))


def leave_in_queue(upgrade: Upgrade) -> str:
    """Sends an order through the API, and hides its message from the function. Returns the message's body."""
    lambda_, sqs, url = upgrade.aws("lambda"), upgrade.aws("sqs"), upgrade.queue("orders")
    function = f"cafe-{STAGE}-store_orders"
    [mapping] = lambda_.list_event_source_mappings(FunctionName=function)["EventSourceMappings"]

    def enable(enabled: bool) -> None:
        lambda_.update_event_source_mapping(UUID=mapping["UUID"], Enabled=enabled)
        state = "Enabled" if enabled else "Disabled"
        wait_for(lambda: lambda_.get_event_source_mapping(UUID=mapping["UUID"])["State"] == state, state)

    enable(False)
    upgrade.api.post("/orders", {"orderID": "waiting", "customerID": DECOMPOSED, "item": "Latte"})
    [message] = wait_for(
        lambda: sqs.receive_message(QueueUrl=url, VisibilityTimeout=43_200).get("Messages"), "the message"
    )
    upgrade.before["receipt"] = message["ReceiptHandle"]
    enable(True)
    return str(message["Body"])


def leave_open_api(upgrade: Upgrade) -> None:
    """Adds an API without sign-in, which an upgrade from 0.1.0 to 0.2.0 left."""
    gateway, function = upgrade.aws("apigateway"), f"arn:aws:lambda:us-east-1:000000000000:function:cafe-{STAGE}"
    uri = f"arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{function}/invocations"
    call = {"x-amazon-apigateway-integration": {"type": "aws_proxy", "httpMethod": "POST", "uri": uri}}
    document = {"swagger": "2.0", "info": {"title": "cafe", "version": "1"}, "paths": {"/orders": {"get": call}}}
    api = gateway.import_rest_api(body=json.dumps(document))["id"]
    gateway.create_deployment(restApiId=api, stageName="api")


def test_an_upgrade_keeps_everything(upgrade: Upgrade) -> None:
    receipt, apis = upgrade.before.pop("receipt"), upgrade.place.account.apis(STAGE)
    upgrade.new.deploy(STAGE)
    # The address stays the same, and no address works without a token.
    assert upgrade.place.account.apis(STAGE).keys() <= apis.keys()
    assert upgrade.api.status("/orders") == 401
    upgrade.check()
    upgrade.aws("sqs").change_message_visibility(
        QueueUrl=upgrade.queue("orders"), ReceiptHandle=receipt, VisibilityTimeout=0
    )
    assert upgrade.api.wait("/orders/waiting")["items"] == [{"item": "Latte", "quantity": 1}]


def test_a_repeated_request_is_the_one_that_the_old_version_answered(upgrade: Upgrade) -> None:
    assert upgrade.api.post("/create_report", {}, **KEY)["reportId"] == upgrade.before["reports"][0]
    for order in ORDERS:
        upgrade.api.post("/orders", order)
    found = upgrade.api.get(f"/orders?customerID={quote(DECOMPOSED)}")["orders"]
    assert {each["orderID"] for each in found} == {"full", "waiting"}


def test_dead_letters_of_the_old_version_are_listed_and_redriven(upgrade: Upgrade) -> None:
    """One dead letter is the event of an upload that the old version has imported, so it changes nothing."""
    letters = upgrade.api.get("/dead-letters")["deadLetters"]
    assert len(letters) == 2
    body = {"ids": [each["id"] for each in letters]}
    assert upgrade.api.post("/dead-letters/redrive", body)["redriven"] == 2
    assert upgrade.api.wait("/orders/dead")["items"] == [{"item": "Latte", "quantity": 1}]
    [upload] = wait_for(
        lambda: [each for each in upgrade.api.get("/uploads")["uploads"] if each["status"] != "IMPORTING"], "the upload"
    )
    assert (upload["key"], upload["status"], upload["reason"]) == (f"inventory/{upgrade.version}.csv", "IMPORTED", None)
    assert upgrade.api.get("/dead-letters")["deadLetters"] == []
    upgrade.check()


def test_the_present_version_works_on_the_old_data(upgrade: Upgrade) -> None:
    api = upgrade.api
    api.post("/orders", {"orderID": "new", "customerID": "ana", "item": "Mocha"})
    reports = [api.post("/create_report", body)["reportId"] for body in ({}, {"kind": "storage"})]
    offer = api.post("/uploads", {"filename": "a.csv", "preview": True})
    assert link("POST", offer["url"], {**offer["fields"], "file": HEADER + BEAN.format("9.50", 7)}).ok
    path = f"/uploads/{offer['uploadId']}"
    assert api.wait(path, "PREVIEWED")["counts"]["updated"] == 1
    for action, status, quantity in (("apply", "IMPORTED", 7), ("undo", "UNDONE", 5)):
        api.post(f"{path}/{action}")
        api.wait(path, status)
        assert upgrade.quantity() == quantity
    api.wait("/orders/new")
    for report in reports:
        api.wait(f"/reports/{report}", "SUCCEEDED")
    upgrade.check()


def test_the_way_back_and_a_second_upgrade_lose_nothing(upgrade: Upgrade) -> None:
    """No release of 0.1.0 was stored, so the way back to 0.1.0 is a deploy of 0.1.0."""
    uploads = upgrade.api.get("/uploads")["uploads"]
    present = upgrade.lists()
    if upgrade.version == "0.1.0":
        status, said = upgrade.new.run(STAGE, "--rollback")
        assert (status, "up has no previous release" in said) == (1, True), said
        upgrade.old.deploy(STAGE)
    else:
        upgrade.new.deploy(STAGE, "--rollback")
    assert upgrade.api.get("/health")["version"] == upgrade.version
    upgrade.check()
    assert upgrade.lists()["/orders"].keys() == present["/orders"].keys()
    upgrade.api.post("/orders", {"orderID": "back", "customerID": "ana", "item": "Mocha"})
    upgrade.api.wait("/orders/back")
    upgrade.new.deploy(STAGE)
    upgrade.check()
    assert upgrade.api.get("/uploads")["uploads"] == uploads
    assert upgrade.lists()["/orders"].keys() == {*present["/orders"], "back"}
