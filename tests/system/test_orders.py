"""Flow 2, whole: REST -> SQS -> store_orders -> DynamoDB -> stream -> announce_orders -> SNS -> inbox."""

import json
import re
import secrets
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.system.system import System, wait_for


def new_id() -> str:
    return f"o-{secrets.token_hex(4)}"


def announced(system: System) -> Counter[str]:
    """How often each order was announced, by all notifications in the inbox."""
    told = system.notifications("new order", "order")
    return Counter(order for n in told for order in re.findall(r"order (\S+) of customer", n["message"]))


def attributes(system: System, url: str) -> dict[str, int]:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = system.aws("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return {name: int(value) for name, value in found.items()}


def test_an_order_is_stored_and_announced_by_id_and_customer(system: System) -> None:
    order = {"orderID": new_id(), "customerID": "Zoë 漢字", "item": "Flat white", "quantity": 2, "note": "hot\nvery"}
    assert system.post("/orders", order) == {
        "orderID": order["orderID"],
        "status": "QUEUED",
        "href": f"/orders/{order['orderID']}",
    }

    stored = wait_for(
        lambda: (answer := system.request("GET", f"/orders/{order['orderID']}")).status == 200 and answer.json,
        "the order",
    )
    assert stored.pop("placedAt").endswith("Z")
    assert stored == {
        "orderID": order["orderID"],
        "customerID": "Zoë 漢字",
        "items": [{"item": "Flat white", "quantity": 2}],
        "note": "hot\nvery",
        "status": "PLACED",
        "requestedBy": "manager",
    }
    told = system.notification(order["orderID"], "order")
    assert f"order {order['orderID']} of customer Zoë 漢字" in told["message"]


def test_500_orders_in_lists_of_100_are_each_stored_and_announced_exactly_once(system: System) -> None:
    customer = new_id()
    sent = set()
    for start in range(0, 500, 100):
        orders = [{"customerID": customer, "item": f"bean {start + number}"} for number in range(100)]
        sent |= {each["orderID"] for each in system.post("/orders", orders)["orders"]}
    assert len(sent) == 500

    wait_for(lambda: sent <= set(announced(system)), "all announcements")
    stored = [order["orderID"] for order in system.all(f"/orders?customerID={customer}", "orders")]
    assert Counter(stored) == Counter(sent)
    counted = announced(system)
    assert {counted[order] for order in sent} == {1}


def test_the_same_order_sent_many_times_is_one_order_and_one_announcement(system: System) -> None:
    order = {"orderID": new_id(), "customerID": "c", "item": "Mocha"}
    for _ in range(5):
        system.post("/orders", order)
    system.post("/orders", [order, order])
    last = {"orderID": new_id(), "customerID": "c", "item": "Mocha"}
    system.post("/orders", last)

    wait_for(lambda: announced(system)[last["orderID"]], "the last announcement")
    assert announced(system)[order["orderID"]] == 1


def test_a_list_sent_ten_times_at_the_same_moment_with_one_key_is_stored_and_announced_once(system: System) -> None:
    key, customer = new_id(), new_id()
    orders = [{"customerID": customer, "item": "Mocha"}, {"customerID": customer, "item": "Mocha"}]
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: system.post("/orders", orders, Idempotency_Key=key), range(10)))
    assert answers == answers[:1] * 10
    sent = {each["orderID"] for each in answers[0]["orders"]}
    assert len(sent) == 2

    wait_for(lambda: sent <= set(announced(system)), "both announcements")
    assert system.request("POST", "/orders", orders[:1], Idempotency_Key=key).status == 409
    last = system.post("/orders", {"customerID": customer, "item": "Tea"})["orderID"]
    wait_for(lambda: announced(system)[last], "the last announcement")
    stored = [order["orderID"] for order in system.all(f"/orders?customerID={customer}", "orders")]
    assert Counter(stored) == Counter({*sent, last})
    assert {announced(system)[order] for order in sent} == {1}


def test_another_order_under_a_stored_id_is_refused_and_the_stored_one_stays(system: System) -> None:
    order = {"orderID": new_id(), "customerID": "c", "item": "Mocha"}
    system.post("/orders", order)
    path = f"/orders/{order['orderID']}"
    wait_for(lambda: system.request("GET", path).status == 200, "the order")

    answer = system.request("POST", "/orders", {**order, "item": "Tea"})
    assert (answer.status, answer.json["Code"]) == (409, "Conflict")
    assert order["orderID"] in answer.json["Message"]
    assert system.get(path)["items"] == [{"item": "Mocha", "quantity": 1}]


def test_of_two_orders_under_one_id_in_the_queue_one_is_stored_and_the_other_is_reported(system: System) -> None:
    # Past the API, which would see the first one stored: two requests at the same moment would not.
    order_id = new_id()
    for item in ("Mocha", "Tea"):
        body = {
            "orderID": order_id,
            "customerID": "c",
            "items": [{"item": item, "quantity": 1}],
            "note": None,
            "placedAt": "2026-11-21T08:00:00.000000Z",
        }
        system.aws("sqs").send_message(QueueUrl=system.env["ORDERS_QUEUE_URL"], MessageBody=json.dumps(body))

    wait_for(lambda: [n for n in system.notifications(order_id, "order") if "refused" in n["subject"]], "the report")
    stored = system.get(f"/orders/{order_id}")
    assert stored["items"][0]["item"] in ("Mocha", "Tea")
    assert len(stored["items"]) == 1


def test_a_poison_message_is_dead_after_five_tries_and_its_neighbours_are_stored(system: System) -> None:
    queue, dead = system.env["ORDERS_QUEUE_URL"], system.env["ORDERS_DEAD_LETTER_URL"]
    orders = [{"orderID": new_id(), "customerID": "c", "item": "Mocha"} for _ in range(3)]
    before = attributes(system, dead)["ApproximateNumberOfMessages"]
    system.aws("sqs").send_message(QueueUrl=queue, MessageBody="{poison")
    system.post("/orders", orders)

    for order in orders:
        wait_for(lambda path=f"/orders/{order['orderID']}": system.request("GET", path).status == 200, "a neighbour")
    # After 1, 2, 4 and 8 seconds it comes back, and then no more.
    wait_for(lambda: attributes(system, dead)["ApproximateNumberOfMessages"] == before + 1, "the dead letter")
    wait_for(lambda: not sum(attributes(system, queue).values()), "an empty queue")
    letters = system.aws("sqs").receive_message(QueueUrl=dead, MaxNumberOfMessages=10, VisibilityTimeout=0)["Messages"]
    assert "{poison" in [letter["Body"] for letter in letters]


def test_the_alarm_on_the_dead_letters_reaches_the_inbox(system: System) -> None:
    # MiniStack has no AWS/SQS metrics, so the alarm's state is set by hand: what follows is its own action.
    system.aws("cloudwatch").set_alarm_state(
        AlarmName="cafe-dev-orders-dead", StateValue="ALARM", StateReason="one waits"
    )
    told = system.notification("cafe-dev-orders-dead", "alarm")
    assert "ALARM" in told["subject"] + told["message"]


def test_a_changed_or_removed_order_is_not_announced(system: System) -> None:
    order = {"orderID": new_id(), "customerID": "c", "item": "Mocha"}
    system.post("/orders", order)
    wait_for(lambda: announced(system)[order["orderID"]], "the announcement")
    dynamodb, key = system.aws("dynamodb"), {"orderID": {"S": order["orderID"]}}
    dynamodb.update_item(
        TableName=system.env["ORDERS_TABLE"],
        Key=key,
        UpdateExpression="SET note = :note",
        ExpressionAttributeValues={":note": {"S": "changed"}},
    )
    dynamodb.delete_item(TableName=system.env["ORDERS_TABLE"], Key=key)
    last = {"orderID": new_id(), "customerID": "c", "item": "Mocha"}
    system.post("/orders", last)

    wait_for(lambda: announced(system)[last["orderID"]], "the last announcement")
    assert announced(system)[order["orderID"]] == 1


def test_an_item_of_the_table_with_every_type_of_attribute_is_announced(system: System) -> None:
    # Written past the API, as a migration might.
    order_id = new_id()
    item = {
        "orderID": {"S": order_id},
        "text": {"S": ""},
        "number": {"N": "1.5"},
        "binary": {"B": b"\x00"},
        "flag": {"BOOL": True},
        "nothing": {"NULL": True},
        "list": {"L": [{"S": "x"}]},
        "map": {"M": {"deep": {"N": "1"}}},
        "texts": {"SS": ["a"]},
        "numbers": {"NS": ["1"]},
        "binaries": {"BS": [b"\x01"]},
    }
    system.aws("dynamodb").put_item(TableName=system.env["ORDERS_TABLE"], Item=item)
    assert "customer unknown" in system.notification(order_id, "order")["message"]
    system.aws("dynamodb").delete_item(TableName=system.env["ORDERS_TABLE"], Key={"orderID": {"S": order_id}})
