"""Orders: from the request to the queue, from the queue into the table, from the table's stream to the subscribers.

An order is stored once, however often it is sent or delivered: every write is conditional on its ``orderID`` being
new. A digest of the content tells the same order sent again from another one under the same id.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from itertools import chain, takewhile
from typing import Any

from botocore.exceptions import ClientError, ParamValidationError

from chalicelib.errors import Conflict, InvalidRequest, NotFound, Unavailable, aws_errors, listed, shown
from chalicelib.logs import logger
from chalicelib.notifications import Notification, Publish, counted, one_line
from chalicelib.rest import Page
from chalicelib.timeline import Timeline, index_keys, timestamp

ORDERS_IN_LIST = 100
ITEMS_IN_ORDER = 100
QUANTITY = 10_000
ORDER_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Of a message that is no order the log has this much of the reason.
REASON_CHARACTERS = 200

# Limits of one call: SQS takes 10 messages and 1 MiB, DynamoDB 25 statements, or 100 keys.
SQS_ENTRIES = 10
SQS_BYTES = 1_000_000
STATEMENTS = 25
KEYS = 100

# How often the queue delivers a message: its redrive policy's maxReceiveCount.
TRIES = 5
REASON_CHARACTERS = 300

# For so long an order that SNS does not take for now stays on the stream and holds up those behind it.
PATIENCE_SECONDS = 120
# A call of SNS, and one to put on the failures queue what was not announced, each with its retries.
ANNOUNCEMENT_SECONDS = 30
# By these SNS refuses a message for what is in it, and no other one.
REFUSED_CONTENT = ("InvalidParameter", "InvalidParameterValue", "ParameterValueInvalid", "ValidationException")

log = logger("orders")


@dataclass(frozen=True)
class Item:
    item: str
    quantity: int


@dataclass(frozen=True)
class Order:
    """``order_id`` is at most 64 of A-Za-z0-9_-, ``placed_at`` a timestamp of when it was accepted."""

    order_id: str
    customer_id: str
    items: tuple[Item, ...]
    note: str | None = None
    placed_at: str = field(default="", compare=False)

    def digest(self) -> str:
        """Equal for two orders with the same content, whenever they were placed."""
        content = [self.customer_id, [[each.item, each.quantity] for each in self.items], self.note]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def to_json(self) -> str:
        """The message on the queue."""
        return json.dumps(
            {
                "orderID": self.order_id,
                "customerID": self.customer_id,
                "items": [{"item": each.item, "quantity": each.quantity} for each in self.items],
                "note": self.note,
                "placedAt": self.placed_at,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Order:
        """The order in a message of the queue. Raises ``InvalidRequest`` for what ``to_json`` never wrote."""
        try:
            content = json.loads(text)
            placed_at = content.pop("placedAt")
            if content["note"] is None:
                del content["note"]
            # Without its id it would be a new order each time it is delivered.
            if "orderID" not in content:
                raise KeyError("orderID")
            if timestamp(datetime.fromisoformat(placed_at)) != placed_at:
                raise ValueError(f"placedAt: {placed_at}")
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise InvalidRequest([f"message: is no order: {error!r}"[:REASON_CHARACTERS]]) from None
        problems: list[str] = []
        order = _parse_one(content, "", problems, placed_at)
        if order is None or problems:
            raise InvalidRequest(problems)
        return order


# --- from the request to the queue ------------------------------------------------------------------------------------


def parse(body: Any, now: datetime, key: str | None = None) -> list[Order]:
    """The orders in a request's JSON body: one order, or a list of 1 to 100.

    An order without an orderID gets one: from the Idempotency-Key ``key``, so that the same request gives the same
    orders, or a new one where there is no key. Raises ``InvalidRequest``, and ``Conflict`` where all that is wrong is
    one id for orders of different content.
    """
    several = isinstance(body, list)
    given = body if several else [body]
    problems: list[str] = []
    conflicts: list[str] = []
    if several and not 1 <= len(given) <= ORDERS_IN_LIST:
        raise InvalidRequest([f"orders: must be 1 to {ORDERS_IN_LIST}, and these are {len(given)}"])
    placed_at = timestamp(now)
    by_id: dict[str, tuple[int, Order]] = {}
    result = []
    for index, each in enumerate(given):
        order = _parse_one(each, f"orders[{index}]." if several else "", problems, placed_at)
        if order is None:
            continue
        if "orderID" not in each and key:
            order = replace(order, order_id=_id_of(key, index if several else None))
        earlier, same = by_id.setdefault(order.order_id, (index, order))
        if same != order:
            conflicts.append(f"orders[{index}].orderID: is that of orders[{earlier}], which has other content")
        result.append(order)
    if problems:
        raise InvalidRequest(problems + conflicts)
    if conflicts:
        raise Conflict("; ".join(listed(conflicts)))
    return result


def _id_of(key: str, index: int | None) -> str:
    """The key itself for a single order; for one of a list a digest, since it must not be longer than a key."""
    return key if index is None else hashlib.sha256(f"{key} {index}".encode()).hexdigest()[:32]


def _parse_one(body: Any, at: str, problems: list[str], placed_at: str) -> Order | None:
    """The order in ``body``, or None after adding to ``problems`` all that is wrong, each with its place ``at``."""
    before = len(problems)
    if not isinstance(body, dict):
        problems.append(f"{at.rstrip('.') or 'body'}: must be an object with customerID and item or items")
        return None
    known = ("orderID", "customerID", "item", "quantity", "items", "note")
    problems.extend(f"{at}{shown(name)}: is not a field of an order" for name in body if name not in known)
    order_id = body.get("orderID", None)
    if "orderID" in body and not (isinstance(order_id, str) and ORDER_ID.fullmatch(order_id)):
        problems.append(f"{at}orderID: must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -")
    customer_id = _text(body, "customerID", 64, at, problems)
    items: list[Item] = []
    if "items" in body:
        if "item" in body or "quantity" in body:
            problems.append(f"{at}items: stands beside item or quantity; give one or the other")
        items = _items(body["items"], at, problems)
    else:
        items = [_item(body, at, problems)]
    note = None if "note" not in body else _text(body, "note", 500, at, problems, least=0, lines=True)
    if len(problems) > before:
        return None
    return Order(order_id or secrets.token_urlsafe(16), customer_id, tuple(items), note, placed_at)


def _items(given: Any, at: str, problems: list[str]) -> list[Item]:
    if not isinstance(given, list) or not 1 <= len(given) <= ITEMS_IN_ORDER:
        problems.append(f"{at}items: must be a list of 1 to {ITEMS_IN_ORDER} objects with item and quantity")
        return []
    items = []
    for index, each in enumerate(given):
        place = f"{at}items[{index}]"
        if not isinstance(each, dict):
            problems.append(f"{place}: must be an object with item and quantity")
            continue
        problems.extend(
            f"{place}.{shown(name)}: is not a field of an item" for name in each if name not in ("item", "quantity")
        )
        items.append(_item(each, f"{place}.", problems))
    return items


def _item(body: dict[str, Any], at: str, problems: list[str]) -> Item:
    quantity = body.get("quantity", 1)
    if isinstance(quantity, float) and quantity.is_integer():
        # JSON has one kind of numbers: 2.0 is 2.
        quantity = int(quantity)
    # True is an int in Python, and no quantity.
    if not isinstance(quantity, int) or isinstance(quantity, bool) or not 1 <= quantity <= QUANTITY:
        problems.append(f"{at}quantity: must be a whole number from 1 to {QUANTITY:,}")
    return Item(_text(body, "item", 200, at, problems), quantity)


def _text(
    body: dict[str, Any], name: str, most: int, at: str, problems: list[str], *, least: int = 1, lines: bool = False
) -> str:
    value = body.get(name)
    if name not in body:
        problems.append(f"{at}{name}: is missing")
    elif not isinstance(value, str):
        problems.append(f"{at}{name}: must be a text")
    elif not least <= len(value) <= most:
        problems.append(f"{at}{name}: must have {least} to {most} characters, and has {len(value)}")
    elif least and not value.strip():
        problems.append(f"{at}{name}: is blank")
    else:
        for position, character in enumerate(value):
            if _forbidden(character) and not (lines and character in "\n\t"):
                problems.append(f"{at}{name}: has U+{ord(character):04X}, which is no text, at position {position}")
                break
    return value if isinstance(value, str) else ""


def _forbidden(character: str) -> bool:
    """Control characters, lone surrogates and the two that XML, and so SQS and SNS, never take."""
    return unicodedata.category(character) in ("Cc", "Cs") or character in "\ufffe\uffff"


def queued(order: Order) -> dict[str, str]:
    """What the client is told of an accepted order."""
    return {"orderID": order.order_id, "status": "QUEUED", "href": f"/orders/{order.order_id}"}


@aws_errors()
def enqueue(orders: list[Order], *, sqs: Any, queue_url: str, dynamodb: Any, table: str) -> None:
    """Puts ``orders`` on the queue, each once.

    Raises ``Conflict`` where one is stored with other content already, and ``Unavailable``, which names what is on
    the queue by then, where SQS does not take all of them.
    """
    distinct = {order.order_id: order for order in orders}
    stored = _stored_digests(list(distinct), dynamodb, table)
    others = [key for key, digest in stored.items() if digest != distinct[key].digest()]
    if others:
        raise Conflict(f"orderID: {', '.join(others)} is stored already with other content, and stays as it is")
    waiting = [order for key, order in distinct.items() if key not in stored]
    refused: list[str] = []
    for chunk in _chunks(waiting):
        entries = [{"Id": str(index), "MessageBody": text} for index, (_, text) in enumerate(chunk)]
        try:
            with aws_errors():
                answer = sqs.send_message_batch(QueueUrl=queue_url, Entries=entries)
        except Unavailable:
            # They may be on the queue all the same; sent again with the same ids, they are the same orders.
            refused += [order.order_id for order, _ in chunk]
            continue
        refused += [chunk[int(failed["Id"])][0].order_id for failed in answer.get("Failed", [])]
    for order in waiting:
        if order.order_id not in refused:
            log.info("order queued", extra={"orderID": order.order_id})
    if refused:
        log.error("orders refused by the queue", extra={"orderIDs": refused})
        if len(orders) == 1:
            raise Unavailable(f"the order could not be queued: try again in a moment, with the orderID {refused[0]}")
        # By place and id: without an orderID of its own the client knows an order by its place only.
        places = [
            f"orders[{index}] as {order.order_id}" for index, order in enumerate(orders) if order.order_id in refused
        ]
        raise Unavailable(
            f"{len(places)} of {len(orders)} orders could not be queued: {', '.join(places)}. "
            "The others are accepted. Send these again, each with the orderID that is named here."
        )


def _chunks(orders: list[Order]) -> Iterator[list[tuple[Order, str]]]:
    """The orders with their messages, in parts that one call of SQS takes: ten, and 1 MiB."""
    chunk: list[tuple[Order, str]] = []
    size = 0
    for order in orders:
        text = order.to_json()
        if chunk and (len(chunk) == SQS_ENTRIES or size + len(text) > SQS_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append((order, text))
        size += len(text)
    if chunk:
        yield chunk


def _stored_digests(order_ids: list[str], dynamodb: Any, table: str) -> dict[str, str]:
    """The digest of each of the orders that is stored. Raises ``Unavailable`` where DynamoDB holds some back."""
    found: dict[str, str] = {}
    for start in range(0, len(order_ids), KEYS):
        keys = [{"orderID": {"S": order_id}} for order_id in order_ids[start : start + KEYS]]
        wanted = {"Keys": keys, "ProjectionExpression": "orderID, digest", "ConsistentRead": True}
        with aws_errors():
            answer = dynamodb.batch_get_item(RequestItems={table: wanted})
        if answer.get("UnprocessedKeys"):
            raise Unavailable("the orders table is busy: send the request again in a moment")
        found |= {item["orderID"]["S"]: item.get("digest", {}).get("S", "") for item in answer["Responses"][table]}
    return found


# --- from the queue into the table ------------------------------------------------------------------------------------


def store(
    event: dict[str, Any],
    *,
    dynamodb: Any,
    table: str,
    sqs: Any,
    queue_url: str,
    dead_letter_url: str,
    publish: Publish,
) -> dict[str, Any]:
    """Stores the orders of an SQS event and returns ``{"batchItemFailures": [{"itemIdentifier": message id}]}``.

    A message that is no order, or whose write fails, comes back after 1, 2, 4 and 8 seconds, and its neighbours are
    stored all the same. After its last try it is put on the dead-letter queue together with the reason. An order that
    contradicts the stored one is reported to the topic and not retried.
    """
    failed: list[tuple[dict[str, Any], str]] = []
    sent: dict[str, list[tuple[dict[str, Any], Order]]] = defaultdict(list)
    for message in event["Records"]:
        try:
            order = Order.from_json(message["body"])
        except InvalidRequest as error:
            log.error("message refused", extra={"messageId": message["messageId"], "reason": str(error)})
            failed.append((message, str(error)))
        else:
            sent[order.order_id].append((message, order))

    # Of several messages with one id the first is written, and the others are compared with what is stored.
    first = {order_id: same[0][1] for order_id, same in sent.items()}
    inserted, known, refused = _insert(list(first.values()), dynamodb, table)
    digests = {order_id: first[order_id].digest() for order_id in inserted}
    if known:
        try:
            digests |= _stored_digests(known, dynamodb, table)
        except Unavailable:
            refused += known
    conflicts = []
    for order_id, same in sent.items():
        if order_id in refused:
            failed += [(message, "the orders table did not take it, for a reason that may pass") for message, _ in same]
        else:
            conflicts += [(message, order) for message, order in same if order.digest() != digests[order_id]]
            log.info("order stored" if order_id in inserted else "order stored already", extra={"orderID": order_id})
    if conflicts:
        try:
            publish(_conflict([order for _, order in conflicts]))
        except Unavailable as error:
            # Their neighbours are stored, and need not come again.
            reason = f"its id is stored with other content, and that could not be reported: {error}"
            failed += [(message, reason) for message, _ in conflicts]
            orders = [order.order_id for _, order in conflicts]
            log.warning("conflicts not reported yet", extra={"orderIDs": orders, "reason": str(error)})
    buried = _bury([(message, reason) for message, reason in failed if _tries(message) >= TRIES], sqs, dead_letter_url)
    again = [message for message, _ in failed if message["messageId"] not in buried]
    if again:
        _delay(again, sqs, queue_url)
    return {"batchItemFailures": [{"itemIdentifier": message["messageId"]} for message in again]}


def _insert(orders: list[Order], dynamodb: Any, table: str) -> tuple[list[str], list[str], list[str]]:
    """Writes each order unless its id is there; returns the ids that were new, that were known, and that failed."""
    inserted: list[str] = []
    known: list[str] = []
    refused: list[str] = []
    for start in range(0, len(orders), STATEMENTS):
        chunk = orders[start : start + STATEMENTS]
        # PartiQL's INSERT is conditional for each item, where BatchWriteItem overwrites and a transaction costs double.
        try:
            with aws_errors():
                answer = dynamodb.batch_execute_statement(Statements=[_insertion(order, table) for order in chunk])
        except Unavailable as error:
            ids = [order.order_id for order in chunk]
            refused += ids
            log.warning("orders not written", extra={"orderIDs": ids, "reason": str(error)})
            continue
        for order, response in zip(chunk, answer["Responses"], strict=True):
            problem = response.get("Error")
            if problem is None:
                inserted.append(order.order_id)
            elif problem["Code"] == "DuplicateItem":
                known.append(order.order_id)
            else:
                refused.append(order.order_id)
                log.warning("order not written", extra={"orderID": order.order_id, "reason": problem["Code"]})
    return inserted, known, refused


def _insertion(order: Order, table: str) -> dict[str, Any]:
    values: dict[str, Any] = {
        "orderID": {"S": order.order_id},
        "customerID": {"S": order.customer_id},
        "items": {
            "L": [{"M": {"item": {"S": each.item}, "quantity": {"N": str(each.quantity)}}} for each in order.items]
        },
        "note": {"NULL": True} if order.note is None else {"S": order.note},
        "status": {"S": "PLACED"},
        "placedAt": {"S": order.placed_at},
        "digest": {"S": order.digest()},
        **{name: {"S": value} for name, value in index_keys(order.placed_at, order.order_id).items()},
    }
    fields = ", ".join(f"'{name}': ?" for name in values)
    return {"Statement": f'INSERT INTO "{table}" VALUE {{{fields}}}', "Parameters": list(values.values())}


def _conflict(orders: list[Order]) -> Notification:
    contents = " ".join(sorted(f"{order.order_id} {order.digest()}" for order in orders))
    lines = [f"- order {order.order_id} of customer {one_line(order.customer_id)}" for order in orders]
    return Notification(
        kind="order",
        key=f"order-conflict/{hashlib.sha256(contents.encode()).hexdigest()[:32]}",
        subject=counted(len(orders), "order") + " refused: the id is taken",
        message="These orders came under an id that is stored with other content. The stored one stays:\n"
        + "\n".join(lines),
        sms=counted(len(orders), "order") + " refused: the id is taken",
    )


def _delay(messages: list[dict[str, Any]], sqs: Any, queue_url: str) -> None:
    """Lets each failed message come back after 1, 2, 4 and 8 seconds, and not after the queue's whole time-out."""
    for start in range(0, len(messages), SQS_ENTRIES):
        chunk = messages[start : start + SQS_ENTRIES]
        entries = [
            {
                "Id": str(index),
                "ReceiptHandle": message["receiptHandle"],
                "VisibilityTimeout": 2 ** min(_tries(message) - 1, 3),
            }
            for index, message in enumerate(chunk)
        ]
        try:
            with aws_errors():
                sqs.change_message_visibility_batch(QueueUrl=queue_url, Entries=entries)
        except Unavailable as error:
            # Then they come back after the queue's own time-out: later, and just as surely.
            ids = [message["messageId"] for message in chunk]
            log.warning("messages not hastened", extra={"messageIds": ids, "reason": str(error)})


def _tries(message: dict[str, Any]) -> int:
    return int(message["attributes"]["ApproximateReceiveCount"])


def _bury(failed: list[tuple[dict[str, Any], str]], sqs: Any, url: str) -> set[str]:
    """Puts messages on the dead-letter queue, each with the reason; returns the ids of those that are there now.

    SQS moves the others there by itself, without a reason.
    """
    buried = set()
    for message, reason in failed:
        attributes = {
            "reason": {"DataType": "String", "StringValue": _plain(reason)},
            "tries": {"DataType": "Number", "StringValue": str(_tries(message))},
        }
        if sent := message["attributes"].get("SentTimestamp"):
            attributes["sent"] = {"DataType": "Number", "StringValue": sent}
        facts = {"messageId": message["messageId"], "reason": reason}
        # One by one, for a body may be as large as a whole batch.
        try:
            with aws_errors():
                sqs.send_message(QueueUrl=url, MessageBody=message["body"], MessageAttributes=attributes)
        except (ClientError, Unavailable) as error:
            log.error("dead message left to the queue", extra={**facts, "error": str(error)})
        else:
            buried.add(message["messageId"])
            log.error("message dead", extra=facts)
    return buried


def _plain(text: str) -> str:
    """``text`` as an attribute of SQS takes it: not empty, not long, and without what is no text."""
    return "".join("?" if _forbidden(character) else character for character in text[:REASON_CHARACTERS]) or "unknown"


# --- from the stream to the subscribers -------------------------------------------------------------------------------

Record = dict[str, Any]
# Takes records that cannot be announced and the error; returns those that it could not put by.
PutBy = Callable[[Sequence[Record], Exception], list[Record]]


def announce(
    event: dict[str, Any],
    *,
    publish: Publish,
    put_by: PutBy,
    now: datetime,
    seconds_left: Callable[[], float],
) -> dict[str, Any]:
    """One notification for all the orders that a batch of the table's stream brings; changes and deletions are none.

    Returns ``{"batchItemFailures": [{"itemIdentifier": sequence number}]}`` with the first record that is not done:
    the stream brings that one and those behind it again, and none that was announced before it.

    - What may pass brings an order again until it is two minutes old; then it is put by.
    - Where SNS refuses the message itself, the batch is halved until the order that it refuses is alone. That one
      is put by, and its neighbours are announced.
    - Any other refusal will not pass by trying, so all that is left is put by at once.

    An event with ``"redriven": true`` does not come from the stream, and nobody reads its answer. So what is left then
    raises ``Unavailable``: Lambda tries twice more, and hands the event over to the failures queue.
    """
    redriven = event.get("redriven") is True
    new = [record for record in event["Records"] if record.get("eventName") == "INSERT"]
    left = _announce(new, publish, put_by, 0 if redriven else now.timestamp() - PATIENCE_SECONDS, seconds_left)
    if left and redriven:
        raise Unavailable(f"{counted(len(left), 'order')} could be neither announced nor put by for now")
    return {"batchItemFailures": [{"itemIdentifier": left[0]["dynamodb"]["SequenceNumber"]}] if left else []}


def _announce(
    new: list[Record], publish: Publish, put_by: PutBy, late: float, seconds_left: Callable[[], float]
) -> list[Record]:
    """Announces the orders; returns those that are not done. ``late`` is the time before which none has to wait."""
    left: list[Record] = []
    for record in new:
        try:
            _line(record), record["eventID"]
        except (KeyError, TypeError, AttributeError) as error:
            if left := put_by([record], ValueError(f"a record without {error}")):
                # Nothing behind it may be announced, or the stream would bring it to be announced again.
                left = new[new.index(record) :]
                break
            new = [each for each in new if each is not record]
    groups = [group] if (group := new[: len(new) - len(left)]) else []
    first = True
    while groups and (first or seconds_left() > ANNOUNCEMENT_SECONDS):
        first, group = False, groups[0]
        waiting = list(chain(*groups))
        try:
            publish(_announcement(group))
        except Unavailable as error:
            given_up = list(takewhile(lambda record: _written(record) < late, waiting))
            log.warning("orders not announced", extra={"orderIDs": _ids(waiting), "reason": str(error)})
            stuck = put_by(given_up, error) if given_up else []
            return [*stuck, *waiting[len(given_up) :], *left]
        except (ClientError, ParamValidationError, UnicodeError) as error:
            content = not isinstance(error, ClientError) or error.response["Error"]["Code"] in REFUSED_CONTENT
            if content and len(group) > 1:
                groups[:1] = [group[: len(group) // 2], group[len(group) // 2 :]]
                continue
            given_up = group if content else waiting
            log.error("orders refused", extra={"orderIDs": _ids(given_up), "reason": str(error)})
            if stuck := put_by(given_up, error):
                return [*stuck, *waiting[len(given_up) :], *left]
            groups = groups[1:] if content else []
        else:
            for order_id in _ids(group):
                log.info("order announced", extra={"orderID": order_id})
            groups = groups[1:]
    return [*chain(*groups), *left]


def _announcement(records: list[Record]) -> Notification:
    new_orders = counted(len(records), "new order")
    ids = " ".join(record["eventID"] for record in records)
    return Notification(
        kind="order",
        key=f"orders/{hashlib.sha256(ids.encode()).hexdigest()[:32]}",
        subject=new_orders,
        message=f"{new_orders}:\n" + "\n".join(map(_line, records)),
        sms=new_orders,
    )


def _line(record: Record) -> str:
    return f"- order {one_line(record['dynamodb']['Keys']['orderID']['S'])} of customer {one_line(customer(record))}"


def customer(record: Record) -> str:
    """The customer of the order that a record of the stream brings, as far as it has one."""
    name: str = record["dynamodb"].get("NewImage", {}).get("customerID", {}).get("S", "unknown")
    return name


def _ids(records: Iterable[Record]) -> list[str]:
    return [record["dynamodb"]["Keys"]["orderID"]["S"] for record in records]


def _written(record: Record) -> float:
    """When it came onto the stream, in seconds since 1970."""
    return float(record["dynamodb"].get("ApproximateCreationDateTime", 0))


def announced_part(record: Record) -> Record:
    """As much of a record of the stream as it takes to announce the order: its id, its customer, and when it came."""
    change = record["dynamodb"] if isinstance(record.get("dynamodb"), dict) else {}
    names = ("ApproximateCreationDateTime", "Keys", "SequenceNumber")
    part = {name: change[name] for name in names if name in change}
    match change:
        case {"NewImage": {"customerID": {"S": str(name)}}}:
            part["NewImage"] = {"customerID": {"S": name}}
    return {
        **{name: record[name] for name in ("eventID", "eventName", "eventSourceARN") if name in record},
        "dynamodb": part,
    }


def putter_by(sqs: Any, url: str, context: Any, now: datetime) -> PutBy:
    """A function that puts orders on the failures queue, each by its id as a message of its own.

    A message has the shape in which Lambda itself hands an event over that a function failed on. So all that waits
    there is read, and put back, in one way. ``context`` is that of the function.
    """

    def put_by(records: Sequence[Record], error: Exception) -> list[Record]:
        stuck: list[Record] = []
        for start in range(0, len(records), SQS_ENTRIES):
            chunk = records[start : start + SQS_ENTRIES]
            entries = [
                {"Id": str(index), "MessageBody": json.dumps(_failure(record, error, context, now))}
                for index, record in enumerate(chunk)
            ]
            try:
                with aws_errors():
                    answer = sqs.send_message_batch(QueueUrl=url, Entries=entries)
            except (ClientError, Unavailable) as refusal:
                log.error("failures queue refuses", extra={"orders": len(chunk), "reason": str(refusal)})
                stuck += chunk
            else:
                refused = {int(failed["Id"]) for failed in answer.get("Failed", [])}
                stuck += [record for index, record in enumerate(chunk) if index in refused]
                for index, record in enumerate(chunk):
                    if index not in refused:
                        log.error("order put by", extra={"eventID": record.get("eventID"), "reason": str(error)})
        return stuck

    return put_by


def _failure(record: Record, error: Exception, context: Any, now: datetime) -> dict[str, Any]:
    """https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html, without a count of tries:
    the stream does not tell."""
    return {
        "version": "1.0",
        "timestamp": timestamp(now),
        "requestContext": {
            "requestId": context.aws_request_id,
            "functionArn": context.invoked_function_arn,
            "condition": "NotAnnounced",
        },
        "requestPayload": {"Records": [announced_part(record)]},
        "responsePayload": {"errorType": type(error).__name__, "errorMessage": str(error)},
    }


# --- reading ----------------------------------------------------------------------------------------------------------


@aws_errors()
def get(order_id: str, *, dynamodb: Any, table: str) -> dict[str, Any]:
    """The stored order, as the REST interface shows it. Raises ``NotFound``."""
    if ORDER_ID.fullmatch(order_id):
        answer = dynamodb.get_item(TableName=table, Key={"orderID": {"S": order_id}}, ConsistentRead=True)
        if "Item" in answer:
            return _shown_order(answer["Item"])
    raise NotFound("order", order_id[:64])


@aws_errors()
def newest(page: Page, since: date, *, dynamodb: Any, table: str, now: datetime | None = None) -> dict[str, Any]:
    """``{"orders": [order], "next": token or None}``, newest first, of all customers or of one."""
    timeline = Timeline(dynamodb, table)
    customer = page.filters.get("customerID")
    if customer is None:
        items, token = timeline.page("orders", since, page.limit, page.next, now or datetime.now(UTC))
    else:
        if not 1 <= len(customer) <= 64:
            raise InvalidRequest(["customerID: must have 1 to 64 characters"])
        items, token = timeline.page_of("byCustomer", "customerID", customer, "orders", page.limit, page.next)
    return {"orders": [_shown_order(item) for item in items], "next": token}


def _shown_order(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "orderID": item["orderID"]["S"],
        "customerID": item["customerID"]["S"],
        "items": [
            {"item": each["M"]["item"]["S"], "quantity": int(each["M"]["quantity"]["N"])} for each in item["items"]["L"]
        ],
        "note": item["note"].get("S"),
        "status": item["status"]["S"],
        "placedAt": item["placedAt"]["S"],
    }
