"""The load of each flow, and the count when the fault is over: accepted, lost, doubled."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tests.system.inventory import HEADER, stock
from tests.system.letters import QUEUES, messages, order_message
from tests.system.reports import execution_arn
from tests.system.stack import Faulty, Message
from tests.system.system import new_id, wait_for

# How often a client sends again what was refused for now.
TRIES = 20


@dataclass(frozen=True)
class Count:
    """``again`` counts what a subscriber may see twice, and ``waiting`` what failed for good and waits for a person."""

    accepted: int
    lost: int = 0
    doubled: int = 0
    again: int = 0
    waiting: int = 0


def settled(system: Faulty, look: Callable[[], bool], seconds: float = 60) -> None:
    """Waits until everything is accounted for, or for so long that the rest is lost, and then for an idle queue."""
    try:
        wait_for(look, "all of it", seconds)
        wait_for(lambda: not in_queue(system, "ORDERS_QUEUE_URL"), "an empty queue", seconds)
    except AssertionError:
        pass  # the missing ones count as lost


def in_queue(system: Faulty, queue: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = system.aws("sqs").get_queue_attributes(QueueUrl=system.env[queue], AttributeNames=names)["Attributes"]
    return sum(int(value) for value in found.values())


def dead(system: Faulty, ids: Iterable[str]) -> set[str]:
    """Returns the ids that are in a dead letter."""
    bodies = [each["Body"] for queue in QUEUES for each in messages(system, queue)]
    return {each for each in ids if any(each in body for body in bodies)}


def redrive(system: Faulty, *about: str) -> None:
    """Puts the dead letters about these orders or files back, as a person does."""

    def done() -> bool:
        found = system.get("/dead-letters?limit=100")["deadLetters"]
        ids = [each["id"] for each in found if any(text in each["what"] for text in about)]
        if ids:
            system.request("POST", "/dead-letters/redrive", {"ids": ids})
        return not ids

    wait_for(done, "dead letters put back")


def inbox(system: Faulty, about: str | None = None) -> list[dict[str, str]]:
    """All notifications, or those with a text, past the API: their id, ``kind``, ``subject`` and ``message``."""
    names = ("notificationID", "subject", "message")
    only = {
        "FilterExpression": " OR ".join(f"contains({name}, :about)" for name in names),
        "ExpressionAttributeValues": {":about": {"S": about}},
    }
    pages = system.aws("dynamodb").get_paginator("scan")
    return [
        {key: next(iter(value.values())) for key, value in item.items()}
        for page in pages.paginate(
            TableName=system.env["NOTIFICATIONS_TABLE"], ConsistentRead=True, **(only if about else {})
        )
        for item in page["Items"]
    ]


# --- many at the same moment ------------------------------------------------------------------------------------------


def at_once(call: Callable[..., Any], *arguments: Any, times: int = 10) -> list[Any]:
    """Calls ten times at the same moment, with the arguments in turn if there are any."""
    given = [(arguments[number % len(arguments)],) if arguments else () for number in range(times)]
    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(lambda each: call(*each), given))


# --- orders -----------------------------------------------------------------------------------------------------------


def order(customer: str, **fields: Any) -> dict[str, Any]:
    return {"orderID": new_id(), "customerID": customer, "item": "Flat white", "quantity": 2, **fields}


def message(placed: dict[str, Any]) -> str:
    """The message on the queue for an order, as the API writes it."""
    items = [{"item": placed["item"], "quantity": placed["quantity"]}]
    return json.dumps(order_message(placed["orderID"], customerID=placed["customerID"], items=items, note=None))


def place(system: Faulty, orders: list[dict[str, Any]]) -> list[str]:
    """Sends a list, and again what was refused for now, as a client should; returns the ids of the accepted ones."""
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
    """Puts orders, and texts that are none, on the queue past the API, in this order; returns the orders' ids."""
    sent = list(orders)
    bodies = [message(each) if isinstance(each, dict) else each for each in sent]
    for start in range(0, len(bodies), 10):
        entries = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies[start : start + 10])]
        answer = system.aws("sqs").send_message_batch(QueueUrl=system.env["ORDERS_QUEUE_URL"], Entries=entries)
        assert not answer.get("Failed")
    return [each["orderID"] for each in sent if isinstance(each, dict)]


def stream_records(system: Faulty, wanted: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """The records of the ``wanted`` orders, or of all, on the orders table's stream, as a function gets them."""
    streams, arn, ids = system.aws("dynamodbstreams"), system.env["ORDERS_STREAM_ARN"], set(wanted or ())
    found = []
    for shard in streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]:
        of_shard = {"StreamArn": arn, "ShardId": shard["ShardId"]}
        iterator = streams.get_shard_iterator(**of_shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
        while iterator:
            answer = streams.get_records(ShardIterator=iterator)
            if not answer["Records"]:
                break
            for each in answer["Records"]:
                change = each["dynamodb"]
                change["ApproximateCreationDateTime"] = change["ApproximateCreationDateTime"].timestamp()
                if wanted is None or change["Keys"]["orderID"]["S"] in ids:
                    found.append({**each, "eventSourceARN": arn})
            iterator = answer.get("NextShardIterator")
    return found


def writes(system: Faulty) -> Counter[str]:
    """How often each order was written: one overwritten has two records on the stream."""
    return Counter(each["dynamodb"]["Keys"]["orderID"]["S"] for each in stream_records(system))


def announcements(seen: Iterable[Message]) -> Counter[str]:
    """How often a subscriber saw each order announced."""
    texts = [each.text for each in seen if "new order" in each.subject]
    return Counter(order_id for text in texts for order_id in re.findall(r"order (\S+) of customer", text))


def count_orders(system: Faulty, accepted: Iterable[str], seconds: float = 60) -> Count:
    """Counts the orders that were not stored or not announced, and those written more than once."""
    wanted = set(accepted)
    waiting: set[str] = set()

    def accounted() -> bool:
        seen = announcements(system.subscriber.messages())
        missing = {each for each in wanted if not seen[each]}
        waiting.clear()
        waiting.update(dead(system, missing) if missing else ())
        return missing == waiting

    settled(system, accounted, seconds)
    written, seen = writes(system), announcements(system.subscriber.messages())
    # An order that was put back may still be among what was looked at last.
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


def request_reports(system: Faulty, body: dict[str, str], number: int = 2) -> list[str]:
    """Requests reports, each with a key of its own, again where it was refused for now; returns the accepted ids."""
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


def count_reports(system: Faulty, accepted: Iterable[str], wanted: str = "SUCCEEDED|FAILED") -> Count:
    """Counts the reports that did not end or were not announced, and those announced twice.

    ``wanted`` is how they must end. An alarm is as good as a notification where the report has no result.
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
        # A link that somebody got must open, also where the report failed.
        assert system.request("GET", link).status == 200
    seen = [system.subscriber.about(each) for each in ids]
    return Count(
        accepted=len(ids),
        lost=sum(1 for each in ids if ended[each] == "RUNNING" or not announced(each)),
        doubled=sum(n - 1 for entries in texts.values() for n in Counter(entries).values()),
        again=sum(n - 1 for keys in seen for n in keys.values()),
    )


# --- uploads ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class File:
    """An inventory, the rows that MySQL must have of it in the end, and the number of notifications about its key."""

    key: str
    supplier: str
    rows: int = 40
    quantity: int = 5
    told: int = 1

    @property
    def body(self) -> str:
        return HEADER + "".join(f"{self.supplier},Arabica,Bean {n},12.50,,{self.quantity}\n" for n in range(self.rows))


def new_file(**fields: Any) -> File:
    return File(**{"key": f"inventory/{new_id('u')}.csv", "supplier": new_id("Supplier"), **fields})


def upload(system: Faulty, number: int = 2, **fields: Any) -> list[File]:
    files = [new_file(**fields) for _ in range(number)]
    for each in files:
        system.upload(each.key, each.body)
    return files


def count_uploads(system: Faulty, files: Iterable[File]) -> Count:
    """Counts the uploads that lack a row or a notification, and the rows and notifications too many."""
    wanted = list(files)

    def told(file: File) -> int:
        return len(inbox(system, file.key))

    settled(system, lambda: all(told(each) >= each.told for each in wanted))
    lost = doubled = 0
    for each in wanted:
        found = stock(system, each.supplier)
        right = {f"Bean {n}": each.quantity for n in range(each.rows)}
        [(rows,)] = system.sql(
            "SELECT COUNT(*) FROM beans JOIN suppliers ON supplier_id = suppliers.id WHERE name = %s", each.supplier
        )
        lost += not right.items() <= found.items() or told(each) < each.told
        doubled += rows - len(right.items() & found.items()) + max(0, told(each) - each.told)
    seen = [system.subscriber.about(each.key) for each in wanted]
    return Count(
        accepted=len(wanted), lost=lost, doubled=doubled, again=sum(n - 1 for keys in seen for n in keys.values())
    )


# --- notifications ----------------------------------------------------------------------------------------------------


def publish(system: Faulty, number: int = 3, keys: list[str] | None = None) -> list[str]:
    """Publishes to the topic past the wire; returns the keys, which are the texts too."""
    keys = keys or [new_id("n") for _ in range(number)]
    for key in keys:
        attributes = {"kind": "upload", "key": key}
        system.aws("sns").publish(
            TopicArn=system.env["TOPIC_ARN"],
            Subject="For the inbox",
            Message=key,
            MessageAttributes={
                name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
            },
        )
    return keys


def sns_event(*texts: str, key: str | None = None) -> dict[str, Any]:
    """The event that SNS sends to ``record_notification``, with a record for each text, in AWS's shape."""
    return {
        "Records": [
            {
                "EventSource": "aws:sns",
                "EventVersion": "1.0",
                "Sns": {
                    "MessageId": new_id("m"),
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
    """Counts the notifications that the inbox lacks, or has more than once."""
    keys = list(accepted)
    waiting: set[str] = set()

    def accounted() -> bool:
        missing = {key for key in keys if not inbox(system, key)}
        waiting.clear()
        waiting.update(dead(system, missing) if missing else ())
        return missing == waiting

    settled(system, accounted)
    entries = {key: len(inbox(system, key)) for key in keys}
    waiting -= {key for key in keys if entries[key]}
    return Count(
        accepted=len(keys),
        lost=sum(1 for key in keys if not entries[key] and key not in waiting),
        doubled=sum(n - 1 for n in entries.values() if n),
        waiting=len(waiting),
    )
