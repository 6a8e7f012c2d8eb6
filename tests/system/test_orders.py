"""Tests orders (flow 2) from the API to the inbox.

An order passes through SQS, store_orders, DynamoDB, its stream, announce_orders and SNS.
"""

from __future__ import annotations

from collections import Counter

from tests.system.system import System, new_id, stored, wait_for
from tests.system.waiting import at_once


def announced(system: System, about: str) -> Counter[str]:
    """Counts how often each order is announced in the notifications that contain ``about``."""
    facts = [each["facts"] for each in system.notifications(about, "order")]
    return Counter(order_id for each in facts if each["outcome"] == "placed" for order_id in each["orderIDs"])


def ids(system: System, customer: str) -> Counter[str]:
    return Counter(order["orderID"] for order in system.all(f"/orders?customerID={customer}", "orders"))


def test_an_order_is_stored_and_announced_by_id_and_customer(system: System) -> None:
    order_id = new_id()
    order = {"orderID": order_id, "customerID": "Zoë 漢字", "item": "Flat white", "quantity": 2, "note": "hot\nvery"}
    assert system.post("/orders", order) == {"orderID": order_id, "status": "QUEUED", "href": f"/orders/{order_id}"}
    found = stored(system, order_id)
    assert found.pop("placedAt").endswith("Z")
    assert found == {
        "orderID": order_id,
        "customerID": "Zoë 漢字",
        "items": [{"item": "Flat white", "quantity": 2}],
        "note": "hot\nvery",
        "status": "PLACED",
        "requestedBy": "manager",
    }
    entry = system.notification(order_id, "order")
    assert f"order {order_id} of customer Zoë 漢字" in entry["message"]
    assert order_id in entry["facts"]["orderIDs"]

    other = system.request("POST", "/orders", {**order, "item": "Tea"})
    assert (other.status, other.json["Code"]) == (409, "Conflict")
    assert order_id in other.json["Message"]
    assert stored(system, order_id)["items"] == [{"item": "Flat white", "quantity": 2}]


def test_an_order_sent_many_times_is_stored_and_announced_once(system: System) -> None:
    customer, key = new_id("customer"), new_id("key")
    order = {"orderID": new_id(), "customerID": customer, "item": "Mocha"}
    for body in (order, order, [order, order]):
        system.post("/orders", body)
    nameless = [{"customerID": customer, "item": "Mocha"}] * 2
    answers = at_once(lambda: system.post("/orders", nameless, Idempotency_Key=key))
    assert answers == answers[:1] * 10
    assert system.request("POST", "/orders", nameless[:1], Idempotency_Key=key).status == 409
    # Orders are announced in the sequence in which they are stored, so the last order's announcement comes last.
    last = system.post("/orders", {"customerID": customer, "item": "Tea"})["orderID"]

    sent = {order["orderID"], last, *(each["orderID"] for each in answers[0]["orders"])}
    assert len(sent) == 4
    wait_for(lambda: sent <= set(announced(system, customer)), "all announcements")
    assert ids(system, customer) == announced(system, customer) == Counter(sent)


def test_only_a_new_item_is_announced_whatever_it_contains(system: System) -> None:
    """The test writes the item directly to DynamoDB, as a data migration might do."""
    order_id, last = new_id(), new_id()
    dynamodb, table = system.aws("dynamodb"), system.env["ORDERS_TABLE"]
    item = {
        "orderID": {"S": order_id},
        **{"text": {"S": ""}, "number": {"N": "1.5"}, "binary": {"B": b"\x00"}, "flag": {"BOOL": True}},
        **{"nothing": {"NULL": True}, "list": {"L": [{"S": "x"}]}, "map": {"M": {"deep": {"N": "1"}}}},
        **{"texts": {"SS": ["a"]}, "numbers": {"NS": ["1"]}, "binaries": {"BS": [b"\x01"]}},
    }
    dynamodb.put_item(TableName=table, Item=item)
    assert "customer unknown" in system.notification(order_id, "order")["message"]
    dynamodb.put_item(TableName=table, Item={**item, "text": {"S": "changed"}})
    dynamodb.delete_item(TableName=table, Key={"orderID": {"S": order_id}})
    system.post("/orders", {"orderID": last, "customerID": "c", "item": "Mocha"})
    system.notification(last, "order")
    assert announced(system, order_id)[order_id] == 1
