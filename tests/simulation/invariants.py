"""The promises that must hold after every history. Each function yields one sentence for each violation."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from chalicelib.orders.changes import CORRECTED
from chalicelib.orders.order import STATUSES, Item, stored_items
from chalicelib.uploads.records import Status
from chalicelib.uploads.rows import IDENTITY
from chalicelib.uploads.upload import Upload
from tests.simulation.handlers import ENDLESS, REFUSED, SETTINGS, UNHEARD, UNSTORABLE
from tests.simulation.history import Played

# Work whose description contains one of these texts can never succeed.
HOPELESS = ("not an order", REFUSED, UNSTORABLE, ENDLESS, UNHEARD)


def _facts(played: Played, kind: str) -> list[dict[str, Any]]:
    """Returns the facts, the key and the text of each notification of a kind that the e-mail subscriber received."""
    found = []
    for message in played.cloud.heard:
        attributes = message["MessageAttributes"]
        if attributes["kind"]["Value"] == kind:
            identity = {"notification": attributes["key"]["Value"], "text": message["Message"]}
            found.append({**json.loads(attributes["facts"]["Value"]), **identity})
    return found


def _changes(item: dict[str, Any]) -> list[dict[str, Any]]:
    return [each["M"] for each in item.get("changes", {"L": []})["L"]]


def accepted_orders_are_stored(played: Played) -> Iterator[str]:
    """Every accepted order is stored with its content, or its conflict with a stored order is reported."""
    items = played.cloud.dynamodb.tables[SETTINGS.orders_table].items
    conflicts = {
        each for facts in _facts(played, "order") if facts["outcome"] == "conflict" for each in facts["orderIDs"]
    }
    for order in played.orders:
        stored = items.get(order.order_id)
        if stored is None and (ENDLESS in order.order_id or UNSTORABLE in order.order_id):
            continue
        if stored is None:
            yield f"{order.order_id} was accepted and is not stored"
        elif stored["digest"]["S"] != order.digest() and (order.order_id not in conflicts or "key" in order.order_id):
            yield f"{order.order_id} was accepted and is stored with another content"


def a_repeated_order_is_accepted(played: Played) -> Iterator[str]:
    """The API refuses an order only if another content was sent with the same id or key."""
    yield from (f"{name} was refused" for name in played.refused if len(played.contents.get(name, "ab")) == 1)


def orders_are_stored_once(played: Played) -> Iterator[str]:
    """No stored order is inserted again or reverted. Each later write adds one allowed change, and loses nothing."""
    stored: dict[str, dict[str, Any]] = {}
    for record in played.cloud.stream:
        new: dict[str, Any] = record["dynamodb"]["NewImage"]
        order_id = new["orderID"]["S"]
        old, stored[order_id] = stored.get(order_id), new
        if old is None:
            continue
        *before, entry = _changes(new) or [{}]
        if not entry or before != _changes(old) or new["version"]["N"] != str(len(before) + 1):
            yield f"{order_id} was turned back, or lost a change"
            continue
        change, asked = entry["change"]["S"], played.changes[entry["key"]["S"]]
        status, content = old["status"]["S"], {name: old[name] for name in ("items", "note")}
        if change == CORRECTED:
            is_right = status == new["status"]["S"] == "PLACED" and content.items() <= entry.items()
            content = {"items": stored_items(tuple(Item(**each) for each in asked["items"])), "note": entry["key"]}
        else:
            is_right = change in STATUSES[status] and new["status"]["S"] == change == asked["status"]
        if not is_right or not content.items() <= new.items():
            yield f"{order_id} was {status}, and became {change} wrongly"
    keys = Counter(order_id[:5] for order_id in played.cloud.dynamodb.tables[SETTINGS.orders_table].items)
    yield from (f"{key} made {number} orders" for key, number in keys.items() if key[:4] == "key-" and number > 1)


def stored_orders_are_announced(played: Played) -> Iterator[str]:
    """Every stored order is announced, unless SNS refuses its content."""
    announced = {
        each for facts in _facts(played, "order") if facts["outcome"] == "placed" for each in facts["orderIDs"]
    }
    for order_id in played.cloud.dynamodb.tables[SETTINGS.orders_table].items.keys() - announced:
        if REFUSED not in order_id and UNHEARD not in order_id:
            yield f"{order_id} is stored and was not announced"


def accepted_changes_are_made_once(played: Played) -> Iterator[str]:
    """Every accepted change is in its order once, even if the request was repeated. A refused change is not."""
    items = played.cloud.dynamodb.tables[SETTINGS.orders_table].items.values()
    made = Counter(each["key"]["S"] for item in items for each in _changes(item))
    for key in {*played.changed, *made}:
        if made[key] != 1:
            yield f"the change {key} was made {made[key]} times"
    yield from (f"{name} was refused and made" for name in played.refused if made[name.removeprefix("change ")])


def corrected_and_cancelled_orders_are_announced(played: Played) -> Iterator[str]:
    """Only corrections and cancellations are announced, each of them, with the order's new content."""
    announced: dict[tuple[Any, ...], str] = {}
    for facts in _facts(played, "order"):
        announced |= {tuple(change): facts["text"] for change in facts.get("changes", ())}
    made = {
        (order_id, version, entry["change"]["S"]): entry
        for order_id, item in played.cloud.dynamodb.tables[SETTINGS.orders_table].items.items()
        for version, entry in enumerate(_changes(item), 1)
        if entry["change"]["S"] in (CORRECTED, "CANCELLED")
    }
    yield from (f"{change} was announced and did not happen" for change in announced.keys() - made.keys())
    for (order_id, version, change), entry in made.items():
        expected = f"order {order_id} of customer ann was {change.lower()} by {entry['by']['S']}"
        if change == CORRECTED:
            [item] = played.changes[entry["key"]["S"]]["items"]
            expected += f": {item['quantity']} × {item['item']}; note: {entry['key']['S']}"
        if REFUSED not in order_id and expected not in announced.get((order_id, version, change), ""):
            yield f"the change {version} to {order_id} was not announced"


def announcements_are_recognisable(played: Played) -> Iterator[str]:
    """Notifications with the same key have the same content. A redeploy repeats no announcement in the inbox."""
    by_key: dict[object, object] = {}
    for facts in _facts(played, "order"):
        if by_key.setdefault(facts["notification"], facts) != facts:
            yield f"two different notifications have the key {facts['notification']}"
    yield from played.cloud.repeated


def reports_end_and_are_announced(played: Played) -> Iterator[str]:
    """Every report ends and is announced, once for each Idempotency-Key."""
    announced = {str(facts["notification"]) for facts in _facts(played, "report")}
    sns_is_out = any(each.target == "sns" for each in played.world.outages)
    by_key = 0
    for execution in played.cloud.sfn.executions.values():
        by_key += "key-report" in execution["name"]
        name, failed = execution["name"], execution["status"] == "FAILED"
        if execution["status"] == "RUNNING":
            yield f"the report {name} never ends"
        elif f"report/{name}{'/failed' * failed}" not in announced and not (failed and sns_is_out):
            yield f"the report {name} was not announced"
        if failed and "scheduled" in execution["input"]:
            yield f"the scheduled report {name} failed: {execution['cause']}"
    if by_key > 1:
        yield f"one Idempotency-Key started {by_key} reports"
    if played.scheduled and "report/nightly" not in announced:
        yield "the scheduled report never came"


def the_inbox_has_each_notification_once(played: Played) -> Iterator[str]:
    """The inbox has each notification that a subscriber received, and no repetition replaces it."""
    heard = {each["MessageAttributes"]["key"]["Value"] for each in played.cloud.heard}
    yield from (f"the inbox lacks {key}" for key in sorted(heard - played.cloud.kept.keys()))
    yield from (f"the inbox wrote {key} {writes} times" for key, writes in played.cloud.kept.items() if writes > 1)


def uploads_are_applied_once(played: Played) -> Iterator[str]:
    """The newest file of each key is imported exactly once, an older one at most once and never after a newer one."""
    commits = Counter((kind, upload_id) for kind, upload_id, _ in played.cloud.mysql.commits)
    order = [upload_id for kind, upload_id, _ in played.cloud.mysql.commits if kind == "import"]
    rows = {upload_id: rows for kind, upload_id, rows in played.cloud.mysql.commits if kind == "import"}
    for key, files in played.files.items():
        if ENDLESS in key:
            continue
        ids = [Upload.from_record(event).id for event, _ in files]
        for upload_id, (_, content) in zip(ids, files, strict=True):
            cells = [line.split(",") for line in content.splitlines()[1:]]
            if rows.get(upload_id, content) not in (content, {tuple(row[:3]): int(row[5]) for row in cells}):
                yield f"another file than that of {key} was imported"
        imported = [upload_id for upload_id in order if upload_id in ids]
        if imported != sorted(imported, key=ids.index):
            yield f"an older file of {key} was imported after a newer one"
        for upload_id in ids:
            status = played.cloud.records.get(upload_id)["status"]
            if commits["import", upload_id] > 1:
                yield f"{key} was imported {commits['import', upload_id]} times"
            if status not in (Status.IMPORTED, Status.UNDONE, Status.REFUSED, Status.PREVIEWED, Status.OUTDATED):
                yield f"{key} is {status} for ever"
            if commits["import", upload_id] != (status in (Status.IMPORTED, Status.UNDONE)):
                yield f"{key} is {status}, but was imported {commits['import', upload_id]} times"
        if key.startswith("inventory") and not commits["import", ids[-1]]:
            yield f"{key} was not imported"


def undos_and_applied_previews_happen_once(played: Played) -> Iterator[str]:
    """Every accepted undo or applied preview is carried out exactly once. An import changes what its preview showed."""
    commits = Counter((kind, upload_id) for kind, upload_id, _ in played.cloud.mysql.commits)
    for name, upload_id in set(played.actions):
        stored = played.cloud.records.get(upload_id)
        status = stored["status"]
        if name == "undo" and (commits["undo", upload_id], status) != (1, Status.UNDONE):
            yield f"the undo of {upload_id} happened {commits['undo', upload_id]} times, and it is {status}"
        if name == "apply" and status not in (Status.IMPORTED, Status.OUTDATED):
            yield f"the applied preview {upload_id} is {status}"
        if name == "apply" and status == Status.IMPORTED:
            pages = [f"{stored['result']['folder']}/{kind}-00000.json" for kind in ("changed", "new")]
            shown = [
                row for page in pages for row in json.loads(played.cloud.s3.buckets[SETTINGS.reports_bucket][page][0])
            ]
            previewed = {tuple(row[each] for each in IDENTITY): tuple(row.get("before", {}).values()) for row in shown}
            changes = played.cloud.mysql.changes[upload_id]
            if previewed != {bean: before or () for bean, (before, _) in changes.items()}:
                yield f"the applied preview {upload_id} was out of date"


def uploads_are_announced(played: Played) -> Iterator[str]:
    """Every committed import and undo is announced."""
    heard = {(facts["outcome"], facts["uploadId"]) for facts in _facts(played, "upload")}
    for kind, upload_id, _ in played.cloud.mysql.commits:
        if ({"import": "imported", "undo": "undone"}[kind], upload_id) not in heard:
            yield f"the {kind} of {upload_id} was not announced"


def only_what_cannot_succeed_waits_for_a_person(played: Played) -> Iterator[str]:
    """Only work that can never succeed is a dead letter, and a redrive does not lose its history."""
    letters, first_ids = Counter(), set()
    for letter in played.letters():
        kind = next((each for each in HOPELESS if each in letter.what), "")
        letters[kind] += 1
        first_ids.add(letter.letter)
        if not kind:
            yield f"waits for a person: {letter.what}, because {letter.why}"
    stored = " ".join(played.cloud.dynamodb.tables[SETTINGS.orders_table].items)
    unstorable = any(UNSTORABLE in order.order_id for order in played.orders)
    endless = sum(ENDLESS in order.order_id for order in played.orders) + sum(ENDLESS in key for key in played.files)
    expected = {
        REFUSED: REFUSED in stored,
        UNSTORABLE: unstorable,
        UNHEARD: UNHEARD in stored,
        "not an order": played.messages > 0,
        ENDLESS: endless,
    }
    yield from (f"no dead letter says {text!r}" for text, number in expected.items() if letters[text] < number)
    for letter in played.waited:
        if letter.letter not in first_ids and any(each in letter.what for each in HOPELESS):
            yield f"the history of {letter.what} was lost when it was put back"


def the_code_has_no_errors(played: Played) -> Iterator[str]:
    """A function fails only because of a refused call, a crash or a time-out."""
    yield from played.world.bugs


def everything_rests(played: Played) -> Iterator[str]:
    """Some time after the last fault, nothing is under way or waiting."""
    if not played.rests:
        yield "something still goes on long after the last fault"
    for name in (SETTINGS.orders_queue_url, SETTINGS.retries_queue_url):
        if left := len(played.cloud.sqs.queues[name].messages):
            yield f"{left} messages wait in {name}"


INVARIANTS = (
    accepted_orders_are_stored,
    a_repeated_order_is_accepted,
    orders_are_stored_once,
    accepted_changes_are_made_once,
    stored_orders_are_announced,
    corrected_and_cancelled_orders_are_announced,
    announcements_are_recognisable,
    reports_end_and_are_announced,
    the_inbox_has_each_notification_once,
    uploads_are_applied_once,
    undos_and_applied_previews_happen_once,
    uploads_are_announced,
    only_what_cannot_succeed_waits_for_a_person,
    the_code_has_no_errors,
    everything_rests,
)


def violations(played: Played) -> list[str]:
    return [f"{check.__name__}: {sentence}" for check in INVARIANTS for sentence in check(played)]
