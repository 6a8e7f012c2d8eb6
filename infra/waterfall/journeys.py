"""Finds the hops of an order and of an upload, and the journeys of any id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from chalicelib.orders.announce import ANNOUNCED_CHANGES
from chalicelib.orders.order import PLACED
from infra.trace import SUBJECT_IDS, Line
from infra.waterfall.facts import Facts, at, seconds
from infra.waterfall.hops import Builder, Evidence, Journey, Run, message
from infra.waterfall.states import report

# A request can name hundreds of orders. The page shows at most this many orders, reports and uploads.
SUBJECTS = 20
KINDS = {**dict(zip(SUBJECT_IDS, ("order", "report"), strict=True)), "key": "upload"}
UPLOADS = {"Cafe:Preview": "Preview", "Cafe:Apply": "Import of the preview", "Cafe:Undo": "Undo of the import"}
IMPORTS = {
    "inventory imported": "MySQL import",
    "inventory not imported": "MySQL import, refused",
    "upload previewed": "MySQL comparison",
}


def subjects(lines: list[Line], identifier: str) -> list[tuple[str, str]]:
    """Returns the kind and id of the named order, report or upload, or of all that belong to a request id."""
    named = dict.fromkeys(
        (kind, str(line.record[name])) for name, kind in KINDS.items() for line in lines if line.record.get(name)
    )
    matches = [subject for subject in named if subject[1] == identifier]
    # The files of a report have keys too, but no journey of their own.
    received = {line.record.get("key") for line in lines if message(line) in ("upload received", "upload offered")}
    others = [subject for subject in named if subject[0] != "upload" or subject[1] in received]
    return matches[:1] or others[:SUBJECTS]


def journeys(lines: list[Line], named: Iterable[tuple[str, str]], facts: Facts) -> Iterator[Journey]:
    """Yields the journeys of each kind and id in ``named``, in the order in which they began."""
    builders, evidence = {"order": _order, "report": report, "upload": _upload}, Evidence(lines, facts)
    results = [journey for kind, identifier in named for journey in builders[kind](identifier, evidence)]
    yield from sorted((each for each in results if each.hops), key=lambda each: each.start)
    yield from (each for each in results if not each.hops)


def _order(order_id: str, evidence: Evidence) -> Iterator[Journey]:
    placed = Builder("Order placed", order_id, evidence)
    queued = evidence.find("API", "order queued", orderID=order_id)
    for line in queued[:1]:
        placed.request(line, at(line))
    stored = next(iter(evidence.find("store_orders", "order stored", "order stored already", orderID=order_id)), None)
    runs = _runs("store_orders", order_id, stored, evidence)
    if placed.attempts("store_orders", runs, stored, "wait in the queue", at(stored) if stored else None) and stored:
        if (milliseconds := stored.record.get("writeMilliseconds")) is not None:
            placed.part("write to DynamoDB", at(stored) - milliseconds / 1000, at(stored), lines=[stored])
        if (tries := stored.record.get("tries", 1)) > 1:
            next(hop for hop in placed.journey.hops[::-1] if hop.kind == "work").notes.append(f"delivery {tries}")
        _announce(placed, order_id, at(stored), PLACED)
    else:
        placed.journey.missing["store_orders"] = _why_not_stored(order_id, evidence)
    yield placed.journey
    for line in queued[1:]:
        repeated = Builder("Order sent again", order_id, evidence)
        repeated.request(line, None)
        yield repeated.journey
    for line in evidence.find("API", "order changed", orderID=order_id):
        change = str(line.record.get("change"))
        changed = Builder(f"Order {change.lower()}", order_id, evidence)
        is_announced = change in ANNOUNCED_CHANGES
        changed.request(line, at(line) if is_announced else None)
        if is_announced:
            _announce(changed, order_id, at(line), change, line.record.get("version"))
        yield changed.journey


def _runs(source: str, order_id: str, done: Line | None, evidence: Evidence) -> list[Run]:
    """Returns the invocation that wrote ``done``, and those that failed with this order or before they named any."""

    def may_be_failed_try(lines: list[Line]) -> bool:
        named = {name for line in lines for name in (line.record.get("orderID"), *line.record.get("orderIDs", ()))}
        return named <= {None} or (order_id in named and not any(message(line) == "order announced" for line in lines))

    return [run for run in evidence.runs(source) if done in run[1] or may_be_failed_try(run[1])]


def _why_not_stored(order_id: str, evidence: Evidence) -> str:
    for line in evidence.lines:
        if message(line) == "message sent to the dead-letter queue":
            return f"A message of this request is a dead letter: {line.record.get('reason')}. See make dead-letters."
    state = "is stored, but the log line is missing" if order_id in evidence.facts.stored else "is not stored yet"
    return f"The order {state}."


def _announce(builder: Builder, order_id: str, since: float, change: str, version: Any = None) -> None:
    evidence = builder.evidence
    lines = evidence.find("announce_orders", "order announced", since=since, orderID=order_id)
    # Earlier releases logged no version, and no change, because they announced only new orders.
    described = ((line, line.record.get("change", PLACED), line.record.get("version", version)) for line in lines)
    done = next((line for line, *which in described if which == [change, version]), None)
    runs = [run for run in _runs("announce_orders", order_id, done, evidence) if run[0].end >= since]
    published = [] if done is None else [
        each
        for run in runs if done in run[1]
        for each in run[1] if message(each) == "notification published" and each.time <= done.time
    ]  # fmt: skip
    start = next((run[0].start for run in runs if done in run[1]), since)
    handover = builder.accepted(published[-1], start) if published else None
    if not builder.attempts("announce_orders", runs, done, "wait in the stream", handover):
        builder.journey.missing["announce_orders"] = "The function has not announced this yet."
    elif published:
        builder.deliver(str(published[-1].record["key"]))


def _upload(key: str, evidence: Evidence) -> Iterator[Journey]:
    for line in evidence.find("API", "upload offered", key=key):
        offered = Builder("Link for the upload", key, evidence)
        offered.request(line, None)
        yield offered.journey
    received = evidence.find("receive_upload", "upload received", key=key)
    # A repeated delivery of an event has the same correlation id.
    for correlation_id in dict.fromkeys(line.record.get("correlationId") for line in received):
        yield _event(key, [line for line in received if line.record.get("correlationId") == correlation_id], evidence)


def _event(key: str, received: list[Line], evidence: Evidence) -> Journey:
    """Returns the journey of an S3 event, or of a request that has the same form."""
    about: dict[str, Any] = {"correlationId": received[0].record.get("correlationId")}
    event = str(received[0].record["eventName"])
    upload = Builder(UPLOADS.get(event, "File uploaded"), key, evidence)
    upload.moment = seconds(received[0].record["eventTime"])
    for answer in evidence.find("API", "request answered", **about)[:1]:
        upload.request(answer, upload.moment)
    runs = evidence.runs("receive_upload", evidence.find("receive_upload", **about))
    published = evidence.find("receive_upload", "notification published", **about)[:1]
    results = evidence.find("receive_upload", *IMPORTS, **about)[:1]
    done = next(iter([*published, *results]), None)
    start = next((run.start for run, lines in runs if done in lines), 0)
    handover = upload.accepted(published[0], start) if published else None
    wait = "wait in Lambda's queue" if event in UPLOADS else "S3 event"
    if not upload.attempts("receive_upload", runs, done, wait, handover):
        upload.journey.missing["receive_upload"] = "No log line tells how this work ended."
    begun = max((at(each) for each in received if done is None or at(each) <= at(done)), default=0)
    for line in results:
        upload.part(IMPORTS[message(line)], begun, at(line), lines=[line])
        begun = at(line)
    for line in published:
        upload.part("announcement", begun, at(line), lines=[line])
        upload.deliver(str(line.record["key"]))
    return upload.journey


def unused(lines: list[Line], shown: Iterable[Journey]) -> list[Line]:
    """Returns the lines that belong to no hop."""
    used = {line for journey in shown for hop in journey.hops for line in hop.lines}
    return [line for line in lines if line not in used]
