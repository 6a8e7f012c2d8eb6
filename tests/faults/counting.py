"""What each flow is loaded with, and what is counted when the fault is over: accepted, lost, doubled."""

from __future__ import annotations

import json
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tests.system.stack import Faulty, Message
from tests.system.system import wait_for

HEADER = "supplier_name,type,product_name,price,description,quantity\n"
# A client that was told to try again does so, this often.
TRIES = 20


@dataclass(frozen=True)
class Count:
    """``again`` counts what a subscriber may see twice, ``waiting`` what failed for good and waits for a person."""

    accepted: int
    lost: int = 0
    doubled: int = 0
    again: int = 0
    waiting: int = 0


def name(prefix: str) -> str:
    return f"{prefix}-{secrets.token_hex(5)}"


def settled(system: Faulty, look: Callable[[], bool], seconds: float = 60) -> None:
    """Waits until all is accounted for, or for long enough that the rest is lost, and then for the queue's rest."""
    try:
        wait_for(look, "all of it", seconds)
        wait_for(lambda: not in_queue(system, "ORDERS_QUEUE_URL"), "an empty queue", seconds)
    except AssertionError:
        pass  # what is missing is counted as lost


def in_queue(system: Faulty, queue: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = system.aws("sqs").get_queue_attributes(QueueUrl=system.env[queue], AttributeNames=names)["Attributes"]
    return sum(int(value) for value in found.values())


def letters(system: Faulty, queue: str) -> list[str]:
    """The bodies of all messages in a dead-letter queue, which stay there."""
    sqs, url = system.aws("sqs"), system.env[queue]
    found: dict[str, str] = {}
    while True:
        got = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0).get("Messages", [])
        if not got or all(each["MessageId"] in found for each in got):
            return list(found.values())
        found |= {each["MessageId"]: each["Body"] for each in got}


def request_in(letter: str) -> dict[str, Any]:
    """The event in a message of the failures queue: what the function was invoked with, in vain."""
    payload: dict[str, Any] = json.loads(letter)["requestPayload"]
    return payload


def redrive(system: Faulty, *about: str) -> None:
    """As a person does: looks for the dead letters about these orders or files, and puts them back."""

    def done() -> bool:
        found = system.get("/dead-letters?limit=100")["deadLetters"]
        ids = [each["id"] for each in found if any(text in each["what"] for text in about)]
        if ids:
            system.request("POST", "/dead-letters/redrive", {"ids": ids})
        return not ids

    wait_for(done, "dead letters put back")


def inbox(system: Faulty) -> list[dict[str, str]]:
    """All of the notifications table, past the API: ``notificationID``, ``kind``, ``subject``, ``message``."""
    pages = (
        system.aws("dynamodb")
        .get_paginator("scan")
        .paginate(TableName=system.env["NOTIFICATIONS_TABLE"], ConsistentRead=True)
    )
    return [
        {key: next(iter(value.values())) for key, value in item.items()} for page in pages for item in page["Items"]
    ]


def in_inbox(system: Faulty, about: str) -> list[dict[str, str]]:
    return [each for each in inbox(system) if about in each["notificationID"] + each["subject"] + each["message"]]


# --- orders -----------------------------------------------------------------------------------------------------------


def order(customer: str, **fields: Any) -> dict[str, Any]:
    return {"orderID": name("o"), "customerID": customer, "item": "Flat white", "quantity": 2, **fields}


def message(placed: dict[str, Any]) -> str:
    """The message on the queue for an order, as the API writes it."""
    items = [{"item": placed["item"], "quantity": placed["quantity"]}]
    return json.dumps(
        {
            "orderID": placed["orderID"],
            "customerID": placed["customerID"],
            "items": items,
            "note": None,
            "placedAt": "2026-11-21T08:00:00.000000Z",
        }
    )


def place(system: Faulty, orders: list[dict[str, Any]]) -> list[str]:
    """Sends a list, and as a client should what was refused for now again; returns the ids of the accepted ones."""
    left = orders
    for _ in range(TRIES):
        answer = system.request("POST", "/orders", left)
        if answer.status == 202:
            return [each["orderID"] for each in orders]
        assert answer.status == 503, answer.text
        named = [each for each in left if each["orderID"] in answer.json["Message"]]
        left = named or left
    accepted = {each["orderID"] for each in orders} - {each["orderID"] for each in left}
    return [each["orderID"] for each in orders if each["orderID"] in accepted]


def send(system: Faulty, orders: Iterable[dict[str, Any] | str]) -> list[str]:
    """Puts orders, and texts that are none, on the queue past the API, in this order; returns the orders' ids."""
    sent = list(orders)
    bodies = [message(each) if isinstance(each, dict) else each for each in sent]
    for start in range(0, len(bodies), 10):
        entries = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies[start : start + 10])]
        answer = system.aws("sqs").send_message_batch(QueueUrl=system.env["ORDERS_QUEUE_URL"], Entries=entries)
        assert not answer.get("Failed")
    return [each["orderID"] for each in sent if isinstance(each, dict)]


def stream_records(system: Faulty, wanted: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """What the orders table's stream has of the ``wanted`` orders, or of all, as a function gets it."""
    streams, arn, ids = system.aws("dynamodbstreams"), system.env["ORDERS_STREAM_ARN"], set(wanted or ())
    found = []
    for shard in streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]:
        iterator = streams.get_shard_iterator(
            StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while iterator:
            answer = streams.get_records(ShardIterator=iterator)
            if not answer["Records"]:
                break
            for each in answer["Records"]:
                each["dynamodb"]["ApproximateCreationDateTime"] = each["dynamodb"][
                    "ApproximateCreationDateTime"
                ].timestamp()
                if wanted is None or each["dynamodb"]["Keys"]["orderID"]["S"] in ids:
                    found.append({**each, "eventSourceARN": arn})
            iterator = answer.get("NextShardIterator")
    return found


def writes(system: Faulty) -> Counter[str]:
    """How often each order was written: one overwritten has two records on the stream."""
    return Counter(each["dynamodb"]["Keys"]["orderID"]["S"] for each in stream_records(system))


def announcements(messages: Iterable[Message]) -> Counter[str]:
    """How often a subscriber saw each order announced."""
    return Counter(
        order_id
        for each in messages
        if "new order" in each.subject
        for order_id in re.findall(r"order (\S+) of customer", each.text)
    )


def count_orders(system: Faulty, accepted: Iterable[str], seconds: float = 60) -> Count:
    """Of the accepted orders: those not stored or not announced, and those written more than once."""
    wanted = set(accepted)
    dead: set[str] = set()

    def accounted() -> bool:
        bodies = letters(system, "ORDERS_DEAD_LETTER_URL") + letters(system, "FAILURES_QUEUE_URL")
        dead.clear()
        dead.update(each for body in bodies for each in wanted if each in body)
        told = announcements(system.subscriber.messages())
        return all(each in dead or told[each] for each in wanted)

    settled(system, accounted, seconds)
    written, told = writes(system), announcements(system.subscriber.messages())
    # Those that were put back may still be among what was looked at last.
    dead -= {each for each in wanted if written[each] and told[each]}
    entries = Counter(each["message"] for each in inbox(system) if any(order in each["message"] for order in wanted))
    return Count(
        accepted=len(wanted),
        lost=sum(1 for each in wanted - dead if not written[each] or not told[each]),
        doubled=sum(written[each] - 1 for each in wanted if written[each]) + sum(n - 1 for n in entries.values()),
        again=sum(told[each] - 1 for each in wanted if told[each]),
        waiting=len(dead),
    )


# --- reports ----------------------------------------------------------------------------------------------------------


def request_reports(system: Faulty, body: dict[str, str], number: int = 2) -> list[str]:
    """Requests reports, each with a key of its own, again where it was told to; returns the accepted ones' ids."""
    accepted = []
    for key in [name("k") for _ in range(number)]:
        for _ in range(TRIES):
            answer = system.request("POST", "/create_report", body, Idempotency_Key=key)
            if answer.status == 202:
                accepted.append(answer.json["reportId"])
                break
            assert answer.status in (503, 504), answer.text
    return accepted


def statuses(system: Faulty, report_ids: Iterable[str]) -> dict[str, str]:
    sfn = system.aws("stepfunctions")

    def status(report_id: str) -> str:
        machine = system.env["STORAGE_REPORT_ARN" if report_id.startswith("storage") else "INVENTORY_REPORT_ARN"]
        arn = machine.replace(":stateMachine:", ":execution:") + f":{report_id}"
        return str(sfn.describe_execution(executionArn=arn)["status"])

    return {each: status(each) for each in report_ids}


def count_reports(system: Faulty, accepted: Iterable[str], wanted: str = "SUCCEEDED|FAILED") -> Count:
    """Of the accepted reports: those that did not end, or of whose end nobody was told; and those told of twice.

    ``wanted`` is how they have to end. An alarm is as good as a notification where the report has no result.
    """
    ids = list(accepted)

    def told(report_id: str) -> bool:
        kinds = {each["notificationID"]: each["kind"] for each in in_inbox(system, report_id)}
        if statuses(system, [report_id])[report_id] == "SUCCEEDED":
            return any(each.endswith(f"/{report_id}") for each in kinds)
        return any(each.endswith(f"/{report_id}/failed") for each in kinds) or "alarm" in kinds.values()

    settled(system, lambda: "RUNNING" not in statuses(system, ids).values() and all(map(told, ids)))
    ended = statuses(system, ids)
    assert all(re.fullmatch(wanted, each) for each in ended.values()), ended
    entries = {each: in_inbox(system, each) for each in ids}
    texts = " ".join(each["message"] for told in entries.values() for each in told)
    for link in re.findall(r"http\S+X-Amz-Signature=\w+", texts):
        # Whatever became of the report, a link that somebody got has to open.
        assert system.request("GET", link).status == 200
    seen = [system.subscriber.about(each) for each in ids]
    return Count(
        accepted=len(ids),
        lost=sum(1 for each in ids if ended[each] == "RUNNING" or not told(each)),
        doubled=sum(n - 1 for told in entries.values() for n in Counter(each["message"] for each in told).values()),
        again=sum(n - 1 for keys in seen for n in keys.values()),
    )


# --- uploads ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class File:
    """An inventory, the rows that MySQL has to have of it in the end, and how many notifications tell of its key."""

    key: str
    supplier: str
    rows: int = 40
    quantity: int = 5
    told: int = 1

    @property
    def body(self) -> str:
        return HEADER + "".join(f"{self.supplier},Arabica,Bean {n},12.50,,{self.quantity}\n" for n in range(self.rows))


def new_file(**fields: Any) -> File:
    return File(**{"key": f"inventory/{name('u')}.csv", "supplier": name("Supplier"), **fields})


def upload(system: Faulty, number: int = 2, **fields: Any) -> list[File]:
    files = [new_file(**fields) for _ in range(number)]
    for each in files:
        system.upload(each.key, each.body)
    return files


def stock(system: Faulty, supplier: str) -> list[tuple[str, int]]:
    return [
        (product, quantity)
        for product, quantity in system.sql(
            "SELECT product_name, quantity FROM beans JOIN suppliers ON supplier_id = suppliers.id WHERE name = %s",
            supplier,
        )
    ]


def count_uploads(system: Faulty, files: Iterable[File]) -> Count:
    """Of the uploads: those of which a row is not in MySQL, or nobody was told; and rows or notifications too many."""
    wanted = list(files)

    def told(file: File) -> int:
        return len(in_inbox(system, file.key))

    settled(system, lambda: all(told(each) >= each.told for each in wanted))
    lost = doubled = 0
    for each in wanted:
        found = stock(system, each.supplier)
        right = {(f"Bean {n}", each.quantity) for n in range(each.rows)}
        lost += not right <= set(found) or told(each) < each.told
        doubled += len(found) - len(right & set(found)) + max(0, told(each) - each.told)
    seen = [system.subscriber.about(each.key) for each in wanted]
    return Count(
        accepted=len(wanted), lost=lost, doubled=doubled, again=sum(n - 1 for keys in seen for n in keys.values())
    )


# --- notifications ----------------------------------------------------------------------------------------------------


def publish(system: Faulty, number: int = 3) -> list[str]:
    """Publishes to the topic past the wire; returns the keys, which are the texts too."""
    keys = [name("n") for _ in range(number)]
    for key in keys:
        system.aws("sns").publish(
            TopicArn=system.env["TOPIC_ARN"],
            Subject="For the inbox",
            Message=key,
            MessageAttributes={
                "kind": {"DataType": "String", "StringValue": "upload"},
                "key": {"DataType": "String", "StringValue": key},
            },
        )
    return keys


def sns_event(*texts: str, key: str | None = None) -> dict[str, Any]:
    """What SNS hands to ``record_notification``, a record for each text, in AWS's shape."""
    return {
        "Records": [
            {
                "EventSource": "aws:sns",
                "EventVersion": "1.0",
                "Sns": {
                    "MessageId": name("m"),
                    "Subject": "For the inbox",
                    "Message": text,
                    "Timestamp": "2026-11-21T08:00:00.000Z",
                    "MessageAttributes": {"key": {"Type": "String", "Value": key or text}},
                },
            }
            for text in texts
        ]
    }


def count_notifications(system: Faulty, accepted: Iterable[str]) -> Count:
    """Of the published notifications: those that the inbox does not have, or has more than once."""
    keys = list(accepted)
    dead: set[str] = set()

    def accounted() -> bool:
        dead.update(key for body in letters(system, "FAILURES_QUEUE_URL") for key in keys if key in body)
        return all(key in dead or in_inbox(system, key) for key in keys)

    settled(system, accounted)
    entries = {key: len(in_inbox(system, key)) for key in keys}
    dead -= {key for key in keys if entries[key]}
    return Count(
        accepted=len(keys),
        lost=sum(1 for key in keys if not entries[key] and key not in dead),
        doubled=sum(n - 1 for n in entries.values() if n),
        waiting=len(dead),
    )
