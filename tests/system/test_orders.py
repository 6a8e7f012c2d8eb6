"""Tests orders (flow 2) from the API to the inbox.

An order passes through SQS, store_orders, DynamoDB, its stream, announce_orders and SNS.
"""

from __future__ import annotations

import csv
import io
import random
from collections import Counter, defaultdict
from typing import Any

from chalicelib.orders.order import STATUSES
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
        **{"version": 0, "changedAt": None, "changedBy": None, "changes": []},
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


def test_an_order_is_corrected_served_or_cancelled_and_exported(system: System) -> None:
    customer, (first, second), tea = new_id("customer"), (new_id(), new_id()), [{"item": "=Tea ☕", "quantity": 2}]
    system.post("/orders", [{"orderID": each, "customerID": customer, "item": "Mocha"} for each in (first, second)])
    wait_for(lambda: set(ids(system, customer)) == {first, second}, "both orders")
    staff = system.sent_by("staff")

    def change(order_id: str, body: Any, status: int = 200, base: str = "") -> Any:
        answer = staff.request("PATCH", f"{base}/orders/{order_id}", body)
        assert answer.status == status, answer.text
        return answer.json

    change(first, {"items": tea, "note": "hot", "version": 0})
    assert change(first, {"note": "cold", "version": 0}, 409)["Order"]["note"] == "hot"
    # API Gateway and `chalice local` accept the same requests.
    for base, old, new in ((system.env["REST_API_URL"], "PLACED", "READY"), ("", "READY", "SERVED")):
        change(first, {"from": old, "status": new}, base=base)
        assert "is now " + new in change(first, {"from": old, "status": "CANCELLED"}, 409, base)["Message"]
    change(second, {"from": "PLACED", "status": "CANCELLED"})
    wait_for(lambda: system.get(f"/orders?customerID={customer}&status=PLACED,READY")["orders"] == [], "the index")
    served, cancelled = (system.get(f"/orders/{each}") for each in (first, second))
    assert [each["change"] for each in served["changes"]] == ["CORRECTED", "READY", "SERVED"]
    assert (served["changedBy"], served["version"], cancelled["status"]) == ("staff", 3, "CANCELLED")

    query = f"/orders.csv?since={served['placedAt']}"
    for base in ("", system.env["REST_API_URL"]):
        answer = staff.request("GET", base + query)
        assert answer.text.startswith("\ufefforderID,"), answer.text
        rows = {row["\ufefforderID"]: row for row in csv.DictReader(io.StringIO(answer.text, newline=""))}
        assert (rows[first]["items"], rows[first]["note"], rows[first]["status"]) == ("2 x =Tea ☕", "hot", "SERVED")


def test_two_people_who_change_the_same_orders_lose_no_change(system: System) -> None:
    """Both send the version that they last saw. Each of the 500 answers must agree with the table."""
    customer = new_id("customer")
    orders = system.post("/orders", [{"customerID": customer, "item": "Mocha"}] * 50)["orders"]
    order_ids = {each["orderID"] for each in orders}
    wait_for(lambda: set(ids(system, customer)) == order_ids, "the orders")
    wait_for(lambda: order_ids <= set(announced(system, customer)), "all announcements")

    def tap(person: str) -> list[dict[str, Any]]:
        choose, sender, made = random.Random(person), system.sent_by(person), []
        seen = {each["orderID"]: each for each in sender.all(f"/orders?customerID={customer}", "orders")}
        for number in range(250):
            order = choose.choice([*seen.values()])
            body: dict[str, Any] = {"note": f"{person} {number}", "version": order["version"]}
            if choose.random() < 0.3 and STATUSES[order["status"]]:
                body = {"from": order["status"], "status": choose.choice(STATUSES[order["status"]])}
            elif order["status"] != "PLACED":
                continue
            answer = sender.request("PATCH", f"/orders/{order['orderID']}", body)
            assert answer.status in (200, 409), answer.text
            shown = answer.json if answer.status == 200 else answer.json["Order"]
            seen[order["orderID"]] = shown
            made += [shown] if answer.status == 200 else []
        return made

    answers = [each for made in at_once(tap, "manager", "staff", times=2) for each in made]
    by_order = defaultdict(list)
    for each in sorted(answers, key=lambda answer: answer["version"]):
        by_order[each["orderID"]].append(each)
    for order_id, made in by_order.items():
        assert [each["version"] for each in made] == [*range(1, len(made) + 1)]
        assert made[-1] == system.get(f"/orders/{order_id}")
        assert [(each["changedAt"], each["changedBy"]) for each in made] == [
            (each["at"], each["by"]) for each in made[-1]["changes"]
        ]
    assert {each["changedBy"] for each in answers} == {"manager", "staff"}
    listed = {each["orderID"]: each["version"] for each in system.all(f"/orders?customerID={customer}", "orders")}
    assert listed == {order_id: len(by_order[order_id]) for order_id in order_ids}
