"""Helpers that send items such as orders and reports, and count the accepted, lost and duplicated items."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from chalicelib import facts
from chalicelib.dead_letters import handled
from tests.faults.cases import Case
from tests.system.events import records
from tests.system.inventory import HEADER, stock
from tests.system.letters import QUEUES, messages, order_message
from tests.system.reports import execution_arn, start, states
from tests.system.stack import Faulty
from tests.system.system import new_id, wait_for

# A client sends a request at most this many times.
TRIES = 20

# ``Facts`` holds the machine-readable fields of a notification.
Facts = dict[str, Any]


@dataclass(frozen=True)
class Count:
    """The counts of accepted, lost and duplicated items in one fault test.

    ``again`` counts repeated notifications, and ``waiting`` counts dead letters.
    """

    accepted: int
    lost: int = 0
    doubled: int = 0
    again: int = 0
    waiting: int = 0


def settled(system: Faulty, look: Callable[[], bool], seconds: float = 60) -> None:
    """Waits until ``look`` finds all items, and then until the orders queue is empty.

    Each wait lasts at most ``seconds``.
    """
    try:
        wait_for(look, "all items", seconds)
        wait_for(lambda: not in_queue(system, "ORDERS_QUEUE_URL"), "an empty queue", seconds)
    except AssertionError:
        pass  # Missing items are later counted as lost.


def settled_or_dead(system: Faulty, missing: Callable[[], set[str]], seconds: float = 60) -> set[str]:
    """Waits until every item in ``missing`` is in a dead-letter queue.

    Returns the ids of the items that became dead letters. A dead letter can still leave the queue and be processed
    later.
    """
    waiting: set[str] = set()

    def accounted() -> bool:
        left = missing()
        waiting.clear()
        waiting.update(dead(system, left) if left else ())
        return left == waiting

    settled(system, accounted, seconds)
    return waiting


def in_queue(system: Faulty, queue: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = system.aws("sqs").get_queue_attributes(QueueUrl=system.env[queue], AttributeNames=names)["Attributes"]
    return sum(int(value) for value in found.values())


def dead(system: Faulty, ids: Iterable[str]) -> set[str]:
    """Returns the subset of ``ids`` that occurs in dead letters."""
    bodies = [each["Body"] for queue in QUEUES for each in messages(system, queue)]
    return {each for each in ids if any(each in body for body in bodies)}


def redrive(system: Faulty, *about: str) -> None:
    """Redrives the dead letters about these orders or files through the API."""

    def done() -> bool:
        found = system.get("/dead-letters?limit=100")["deadLetters"]
        ids = [each["id"] for each in found if any(text in each["what"] for text in about)]
        if ids:
            system.request("POST", "/dead-letters/redrive", {"ids": ids})
        return not ids

    wait_for(done, "the redrive of all dead letters")


def inbox(system: Faulty, about: str | None = None) -> list[dict[str, Any]]:
    """Reads notifications directly from the DynamoDB table, which also has the dead letters that were put back.

    If ``about`` is given, the function returns only notifications that contain that text.
    """
    names = ("notificationID", "subject", "message")
    only = {
        "FilterExpression": " OR ".join(f"contains({name}, :about)" for name in names),
        "ExpressionAttributeValues": {":about": {"S": about}},
    }
    pages = system.aws("dynamodb").get_paginator("scan")
    return [
        {**{key: next(iter(value.values())) for key, value in item.items()}, "facts": facts.of_item(item)}
        for page in pages.paginate(
            TableName=system.env["NOTIFICATIONS_TABLE"], ConsistentRead=True, **(only if about else {})
        )
        for item in page["Items"]
        if item["period"]["S"] != handled.PERIOD
    ]


# --- orders -----------------------------------------------------------------------------------------------------------


def order(customer: str) -> dict[str, Any]:
    return {"orderID": new_id(), "customerID": customer, "item": "Flat white", "quantity": 2}


def message(placed: dict[str, Any]) -> str:
    """Returns an order's queue message, in the format that the API sends."""
    items = [{"item": placed["item"], "quantity": placed["quantity"]}]
    return json.dumps(order_message(placed["orderID"], customerID=placed["customerID"], items=items, note=None))


def place(system: Faulty, orders: list[dict[str, Any]]) -> list[str]:
    """Sends a list of orders to the API, and resends orders after a 503 response.

    Returns the ids of the accepted orders.
    """
    left = orders
    for _ in range(TRIES):
        answer = system.request("POST", "/orders", left)
        if answer.status == 202:
            return [each["orderID"] for each in orders]
        assert answer.status == 503, answer.text
        named = [each for each in left if each["orderID"] in answer.json["Message"]]
        left = named or left
    return [each["orderID"] for each in orders if each not in left]


def send(system: Faulty, orders: Iterable[dict[str, Any] | str]) -> list[str]:
    """Sends orders and malformed messages directly to the queue, in the given sequence.

    Returns the ids of the orders.
    """
    sent = list(orders)
    bodies = [message(each) if isinstance(each, dict) else each for each in sent]
    for first in range(0, len(bodies), 10):
        entries = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies[first : first + 10])]
        answer = system.aws("sqs").send_message_batch(QueueUrl=system.env["ORDERS_QUEUE_URL"], Entries=entries)
        assert not answer.get("Failed")
    return [each["orderID"] for each in sent if isinstance(each, dict)]


def stream_records(system: Faulty, wanted: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Returns stream records in the form in which Lambda functions receive them.

    If ``wanted`` is not given, the function returns the records of all orders.
    """
    arn, ids = system.env["ORDERS_STREAM_ARN"], set(wanted or ())
    found = []
    for _, each in records(system.aws("dynamodbstreams"), arn):
        change = each["dynamodb"]
        change["ApproximateCreationDateTime"] = change["ApproximateCreationDateTime"].timestamp()
        if wanted is None or change["Keys"]["orderID"]["S"] in ids:
            found.append({**each, "eventSourceARN": arn})
    return found


def writes(system: Faulty) -> Counter[str]:
    """Counts how often each order was written. An overwritten order has two records on the stream."""
    return Counter(each["dynamodb"]["Keys"]["orderID"]["S"] for each in stream_records(system))


def orders_of(outcome: str, notifications: Iterable[Facts]) -> Counter[str]:
    """Counts the notifications with this ``outcome`` for each order."""
    return Counter(
        order_id for each in notifications if each.get("outcome") == outcome for order_id in each["orderIDs"]
    )


def announcements(system: Faulty) -> Counter[str]:
    """Counts how often the subscriber received each order's announcement."""
    return orders_of("placed", (each.facts for each in system.subscriber.messages()))


def count_orders(system: Faulty, accepted: Iterable[str], seconds: float = 60) -> Count:
    """Counts the orders that were not stored or not announced, and the orders that were written more than once."""
    wanted = set(accepted)
    waiting = settled_or_dead(system, lambda: wanted - announcements(system).keys(), seconds)
    written, seen = writes(system), announcements(system)
    waiting -= {each for each in wanted if written[each] and seen[each]}
    entries = Counter(each["message"] for each in inbox(system) if any(order in each["message"] for order in wanted))
    return Count(
        accepted=len(wanted),
        lost=sum(1 for each in wanted - waiting if not written[each] or not seen[each]),
        doubled=sum(written[each] - 1 for each in wanted if written[each]) + sum(n - 1 for n in entries.values()),
        again=sum(seen[each] - 1 for each in wanted if seen[each]),
        waiting=len(waiting),
    )


# --- reports ----------------------------------------------------------------------------------------------------------


def request_reports(system: Faulty, number: int = 2, **body: str) -> list[str]:
    """Requests reports with different idempotency keys, and retries after a 503 or 504.

    Returns the ids of the accepted reports.
    """
    accepted = []
    for key in [new_id("k") for _ in range(number)]:
        for _ in range(TRIES):
            answer = system.request("POST", "/create_report", body, Idempotency_Key=key)
            if answer.status == 202:
                accepted.append(answer.json["reportId"])
                break
            assert answer.status in (503, 504), answer.text
    return accepted


def statuses(system: Faulty, report_ids: Iterable[str]) -> dict[str, str]:
    sfn = system.aws("stepfunctions")
    return {
        each: str(sfn.describe_execution(executionArn=execution_arn(system, each))["status"]) for each in report_ids
    }


def wait_for_reports(system: Faulty, report_ids: Iterable[str], seconds: float = 60) -> None:
    ids = list(report_ids)
    wait_for(lambda: "RUNNING" not in statuses(system, ids).values(), "the end of the reports", seconds)


def reports_in(system: Faulty, case: Case, **body: str) -> list[str]:
    """Requests reports during the fault, and waits until they end. Returns the ids of the accepted reports."""
    with case(system):
        accepted = request_reports(system, **body)
        wait_for_reports(system, accepted)
    return accepted


def count_reports(system: Faulty, accepted: Iterable[str], wanted: str = "SUCCEEDED|FAILED") -> Count:
    """Counts the reports that did not end or were not announced, and the reports that were announced more than once.

    The final status of every report must match the pattern ``wanted``. For a failed report, an alarm counts as a
    notification.
    """
    ids = list(accepted)

    def announced(report_id: str) -> bool:
        kinds = {each["notificationID"]: each["kind"] for each in inbox(system, report_id)}
        if statuses(system, [report_id])[report_id] == "SUCCEEDED":
            return any(each.endswith(f"/{report_id}") for each in kinds)
        return any(each.endswith(f"/{report_id}/failed") for each in kinds) or "alarm" in kinds.values()

    settled(system, lambda: "RUNNING" not in statuses(system, ids).values() and all(map(announced, ids)))
    ended = statuses(system, ids)
    assert all(re.fullmatch(wanted, each) for each in ended.values()), ended
    texts = {each: [entry["message"] for entry in inbox(system, each)] for each in ids}
    for link in re.findall(r"http\S+X-Amz-Signature=\w+", str(texts)):
        # Every link that was sent must work, even if the report failed later.
        assert system.request("GET", link).status == 200
    seen = [system.subscriber.about(each) for each in ids]
    return Count(
        accepted=len(ids),
        lost=sum(1 for each in ids if ended[each] == "RUNNING" or not announced(each)),
        doubled=sum(n - 1 for entries in texts.values() for n in Counter(entries).values()),
        again=sum(n - 1 for keys in seen for n in keys.values()),
    )


def count_scheduled_report(system: Faulty, case: Case, kind: str, key: str) -> Count:
    """Starts a report as its schedule does, and counts it. The fault lasts until the report has waited twice.

    Only the success of the report may be announced, under ``key``.
    """
    with case(system):
        report_id = start(system, kind, '{"scheduled": true}')
        wait_for(lambda: states(system, report_id)["WaitBeforeRetry"]["tries"] > 1, "the second wait")
    count = count_reports(system, [report_id], wanted="SUCCEEDED")
    assert system.subscriber.about(report_id).keys() == {f"{key}/{report_id}"}
    return count


# --- uploads ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class File:
    """An inventory file, with the expected number of rows in MySQL and the expected number of notifications."""

    key: str
    supplier: str
    rows: int = 40
    quantity: int = 5
    notifications: int = 1

    @property
    def body(self) -> str:
        return HEADER + "".join(f"{self.supplier},Arabica,Bean {n},12.50,,{self.quantity}\n" for n in range(self.rows))


def new_file(**fields: Any) -> File:
    return File(**{"key": f"inventory/{new_id('u')}.csv", "supplier": new_id("Supplier"), **fields})


def count_uploads(system: Faulty, files: Iterable[File]) -> Count:
    """Counts the uploads with missing rows or notifications, and counts the surplus rows and notifications."""
    wanted = list(files)

    def notified(file: File) -> int:
        return len(inbox(system, file.key))

    settled(system, lambda: all(notified(each) >= each.notifications for each in wanted))
    lost = doubled = 0
    for each in wanted:
        found = stock(system, each.supplier)
        right = {f"Bean {n}": each.quantity for n in range(each.rows)}
        [(rows,)] = system.sql(
            "SELECT COUNT(*) FROM beans JOIN suppliers ON supplier_id = suppliers.id WHERE name = %s", each.supplier
        )
        lost += not right.items() <= found.items() or notified(each) < each.notifications
        doubled += rows - len(right.items() & found.items()) + max(0, notified(each) - each.notifications)
    seen = [system.subscriber.about(each.key) for each in wanted]
    return Count(
        accepted=len(wanted), lost=lost, doubled=doubled, again=sum(n - 1 for keys in seen for n in keys.values())
    )


# --- notifications ----------------------------------------------------------------------------------------------------


def publish(system: Faulty, keys: list[str]) -> None:
    """Publishes one notification per key. Each notification's key is also its message."""
    for key in keys:
        system.publish("For the inbox", key, kind="upload", key=key)


def count_notifications(system: Faulty, accepted: Iterable[str]) -> Count:
    """Counts the notifications that are missing from the inbox or appear in it more than once."""
    keys = list(accepted)
    waiting = settled_or_dead(system, lambda: {key for key in keys if not inbox(system, key)})
    entries = {key: len(inbox(system, key)) for key in keys}
    waiting -= {key for key in keys if entries[key]}
    return Count(
        accepted=len(keys),
        lost=sum(1 for key in keys if not entries[key] and key not in waiting),
        doubled=sum(n - 1 for n in entries.values() if n),
        waiting=len(waiting),
    )
