"""Today at a glance: what was ordered, reported and uploaded, and what failed, counted where it is kept.

Every count is bounded, so that a day of any size costs the same. The answer says which of them are not the whole.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any, ParamSpec, TypeVar

from chalicelib.errors import InvalidRequest, Problem, aws_errors
from chalicelib.reports import Machines
from chalicelib.settings import Settings
from chalicelib.timeline import SHARDS, Item, Timeline, periods, timestamp

HOUR = timedelta(hours=1)
LONGEST = timedelta(hours=48)
# The newest of each. A notification costs more, for DynamoDB reads its text as well, though nothing here does.
ORDERS = 10_000
NOTIFICATIONS = 4_000
EXECUTIONS = 1_000
THREADS = 16

# Whatever has this form is taken, the 31st of November too: so chalicelib/openapi.json can tell exactly what is.
MOMENT = re.compile(
    r"([12][0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"T([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9])(?:\.([0-9]{1,9}))?"
    r"(?:Z|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)

# What a query gives of an order, and of the notifications that are counted.
PLACED = {"ProjectionExpression": "sortKey"}
TOLD = {
    "ProjectionExpression": "sortKey, #kind, subject",
    "FilterExpression": "#kind IN (:upload, :alarm)",
    "ExpressionAttributeNames": {"#kind": "kind"},
    "ExpressionAttributeValues": {":upload": {"S": "upload"}, ":alarm": {"S": "alarm"}},
}
# As chalicelib/uploads.py words them.
NOT_IMPORTED = "Upload: not imported"
IMPORTED = re.compile(r"Upload: [0-9,]+ rows? imported")

P = ParamSpec("P")
Found = TypeVar("Found")


def since(text: str | None, now: datetime) -> datetime:
    """From when on to count: midnight in UTC, or what is asked for, as far as that is within the last 48 hours.

    Raises ``InvalidRequest`` for what is no moment.
    """
    if text is None:
        return datetime.combine(now.astimezone(UTC), time(), UTC)
    found = MOMENT.fullmatch(text)
    if found is None:
        message = "must be a moment with its offset, as 2026-11-21T00:00:00+01:00 or …T00:00:00Z"
        raise InvalidRequest([Problem("since", message)])
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    fraction, sign, hours, minutes = found.groups()[6:]
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    zone = timezone(-offset if sign == "-" else offset)
    at = time(hour, minute, second, int((fraction or "").ljust(6, "0")[:6]))
    moment = datetime.combine(date(year, month, 1) + timedelta(days=day - 1), at, zone)
    return min(max(moment, now - LONGEST), now).astimezone(UTC)


@aws_errors()
def overview(
    since: datetime, *, aws: Callable[[str], Any], settings: Settings, machines: Machines, now: datetime
) -> dict[str, Any]:
    """What happened since then, in the shape that ``chalicelib/openapi.json`` tells. ``aws`` gives clients."""
    dynamodb, sqs, sfn = aws("dynamodb"), aws("sqs"), aws("stepfunctions")
    orders, inbox = Timeline(dynamodb, settings.orders_table), Timeline(dynamodb, settings.notifications_table)
    start, shards = timestamp(since), periods(since, now)
    with ThreadPoolExecutor(THREADS) as pool:

        def soon(work: Callable[P, Found], *arguments: P.args, **named: P.kwargs) -> Future[Found]:
            """Does ``work`` beside all the others, under the time limit that holds here."""
            context = copy_context()
            return pool.submit(lambda: context.run(work, *arguments, **named))

        placed = [soon(orders.recent, shard, start, ORDERS // SHARDS, PLACED) for shard in shards]
        told = [soon(inbox.recent, shard, start, NOTIFICATIONS // SHARDS, TOLD) for shard in shards]
        waiting = soon(_messages, sqs, settings.orders_queue_url)
        dead = [soon(_messages, sqs, url) for url in (settings.orders_dead_letter_url, settings.failures_queue_url)]
        executions = [soon(_executions, sfn, machine, since) for machine in machines.values()]
    stored, stored_since = _joined(placed)
    notifications, told_since = _joined(told)
    kinds = Counter(map(_kind, notifications))
    reports = [each.result() for each in executions]
    ran = sum((counts for counts, _ in reports), Counter[str]())
    more = {"orders": stored_since > start, "reports": any(each for _, each in reports), "inbox": told_since > start}
    return {
        "since": start,
        "orders": {
            "stored": len(stored),
            "waiting": waiting.result(),
            "hours": _hours([each["sortKey"]["S"] for each in stored], since, now, stored_since),
            "more": more["orders"],
        },
        "reports": {name: ran[name] for name in ("running", "succeeded", "failed")} | {"more": more["reports"]},
        "uploads": {name: kinds[name] for name in ("imported", "notImported", "other")} | {"more": more["inbox"]},
        "failures": {
            "deadLetters": sum(each.result() for each in dead),
            "alarms": kinds["alarm"],
            "more": more["inbox"],
        },
        "counted": not any(more.values()),
    }


def _joined(shards: list[Future[tuple[list[Item], str]]]) -> tuple[list[Item], str]:
    """The items of all shards, and the sort key since which none is missing."""
    found = [each.result() for each in shards]
    return [item for items, _ in found for item in items], max(since for _, since in found)


def _hours(sort_keys: list[str], since: datetime, now: datetime, complete: str) -> list[list[Any]]:
    """``[start, count]`` of each hour; the count is None for those before ``complete``, where orders are missing."""
    starts = [timestamp(since + number * HOUR) for number in range(int((now - since) / HOUR) + 1)]
    # A sort key begins with the order's time.
    counts = Counter(bisect_right(starts, key[: len(starts[0])]) - 1 for key in sort_keys)
    return [[start, None if start < complete else counts[number]] for number, start in enumerate(starts)]


def _kind(notification: Item) -> str:
    """An alarm, or what came of an upload."""
    if notification["kind"]["S"] == "alarm":
        return "alarm"
    subject = notification["subject"]["S"]
    if subject.startswith(NOT_IMPORTED):
        return "notImported"
    return "imported" if IMPORTED.match(subject) else "other"


def _messages(sqs: Any, url: str) -> int:
    """About how many messages a queue has, those that somebody has just taken included."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(int(attributes[name]) for name in names)


def _executions(sfn: Any, machine: str, since: datetime) -> tuple[Counter[str], bool]:
    """How many executions of a machine run, and how many have ended since then; and whether there are more of these."""
    answer = sfn.list_executions(stateMachineArn=machine, maxResults=EXECUTIONS)
    counts: Counter[str] = Counter()
    # The newest first: of those that have ended by their end, of the others by their beginning.
    moment: datetime | None = None
    for execution in answer["executions"]:
        moment = execution.get("stopDate", execution["startDate"])
        if execution["status"] == "RUNNING":
            counts["running"] += 1
        elif moment >= since:
            counts["succeeded" if execution["status"] == "SUCCEEDED" else "failed"] += 1
    return counts, "nextToken" in answer and moment is not None and moment >= since
