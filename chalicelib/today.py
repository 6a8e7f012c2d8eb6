"""Counts today's orders, reports, uploads and failures in DynamoDB, SQS and Step Functions.

All counts are capped to limit the cost of a busy day. The response indicates which counts are incomplete.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from datetime import UTC, datetime, time, timedelta
from typing import Any, ParamSpec, TypeVar

from chalicelib import facts, queues, rest
from chalicelib.errors import aws_errors
from chalicelib.reports import Machines
from chalicelib.settings import Settings
from chalicelib.timeline import SHARDS, Item, Timeline, periods, timestamp

HOUR = timedelta(hours=1)
LONGEST = timedelta(hours=48)
# At most this many of the newest items are counted. Counting notifications costs more, because DynamoDB also reads
# their text.
ORDERS = 10_000
NOTIFICATIONS = 4_000
EXECUTIONS = 1_000
THREADS = 16

# With these query arguments, DynamoDB returns only the attributes and the notifications that are counted.
ORDER_QUERY = {"ProjectionExpression": "sortKey"}
NOTIFICATION_QUERY = {
    "ProjectionExpression": f"sortKey, #kind, {facts.NAME}",
    "FilterExpression": "#kind IN (:upload, :alarm)",
    "ExpressionAttributeNames": {"#kind": "kind"},
    "ExpressionAttributeValues": {":upload": {"S": "upload"}, ":alarm": {"S": "alarm"}},
}

P = ParamSpec("P")
Result = TypeVar("Result")


def since(text: str | None, now: datetime) -> datetime:
    """Returns the time in ``text``, or the time 48 hours ago if that is later. The default is midnight in UTC.

    Raises ``InvalidRequest`` if ``text`` is not a time with a UTC offset.
    """
    if text is None:
        return datetime.combine(now.astimezone(UTC), time(), UTC)
    moment = rest.moment("since", text)
    return min(max(moment, now - LONGEST), now).astimezone(UTC)


@aws_errors()
def overview(
    since: datetime, *, aws: Callable[[str], Any], settings: Settings, machines: Machines, now: datetime
) -> dict[str, Any]:
    """Returns all counts since ``since``, in the format that ``chalicelib/openapi.json`` describes."""
    dynamodb, sqs, sfn = aws("dynamodb"), aws("sqs"), aws("stepfunctions")
    orders, inbox = Timeline(dynamodb, settings.orders_table), Timeline(dynamodb, settings.notifications_table)
    start, shards = timestamp(since), periods(since, now)
    with ThreadPoolExecutor(THREADS) as pool:

        def submit(work: Callable[P, Result], *arguments: P.args, **named: P.kwargs) -> Future[Result]:
            """Runs ``work`` in another thread, with the time limit of the current thread."""
            context = copy_context()
            return pool.submit(lambda: context.run(work, *arguments, **named))

        order_shards = [submit(orders.recent, shard, start, ORDERS // SHARDS, ORDER_QUERY) for shard in shards]
        inbox_shards = [
            submit(inbox.recent, shard, start, NOTIFICATIONS // SHARDS, NOTIFICATION_QUERY) for shard in shards
        ]
        waiting = submit(queues.depth, sqs, settings.orders_queue_url)
        dead = [
            submit(queues.depth, sqs, url) for url in (settings.orders_dead_letter_url, settings.failures_queue_url)
        ]
        executions = [submit(_executions, sfn, machine, since) for machine in machines.values()]
    stored, stored_since = _joined(order_shards)
    notifications, notified_since = _joined(inbox_shards)
    outcomes = Counter(map(_outcome, notifications))
    reports = [each.result() for each in executions]
    statuses = sum((counts for counts, _ in reports), Counter[str]())
    more = {
        "orders": stored_since > start,
        "reports": any(is_more for _, is_more in reports),
        "inbox": notified_since > start,
    }
    return {
        "since": start,
        "orders": {
            "stored": len(stored),
            "waiting": sum(waiting.result()),
            "hours": _hours([each["sortKey"]["S"] for each in stored], since, now, stored_since),
            "more": more["orders"],
        },
        "reports": {name: statuses[name] for name in ("running", "succeeded", "failed")} | {"more": more["reports"]},
        "uploads": {name: outcomes[name] for name in ("imported", "notImported", "other")} | {"more": more["inbox"]},
        "failures": {
            "deadLetters": sum(sum(each.result()) for each in dead),
            "alarms": outcomes["alarm"],
            "more": more["inbox"],
        },
        "counted": not any(more.values()),
    }


def _joined(shards: list[Future[tuple[list[Item], str]]]) -> tuple[list[Item], str]:
    """Returns the items from all shards, and a sort key. No item at or after the returned sort key is missing."""
    results = [each.result() for each in shards]
    return [item for items, _ in results for item in items], max(since for _, since in results)


def _hours(sort_keys: list[str], since: datetime, now: datetime, complete_since: str) -> list[list[Any]]:
    """Returns ``[start, count]`` for each hour. The count is None for hours that started before ``complete_since``."""
    starts = [timestamp(since + number * HOUR) for number in range(int((now - since) / HOUR) + 1)]
    # A sort key begins with the time of the order.
    counts = Counter(bisect_right(starts, key[: len(starts[0])]) - 1 for key in sort_keys)
    return [[start, None if start < complete_since else counts[number]] for number, start in enumerate(starts)]


def _outcome(notification: Item) -> str:
    """Returns ``alarm`` for an alarm, and the outcome of the upload for an upload."""
    if notification["kind"]["S"] == "alarm":
        return "alarm"
    outcome = facts.of_item(notification).get("outcome")
    return outcome if outcome in ("imported", "notImported") else "other"


def _executions(sfn: Any, machine: str, since: datetime) -> tuple[Counter[str], bool]:
    """Counts the executions that are running or ended after ``since``, by status.

    Also returns True if some were not counted.
    """
    answer = sfn.list_executions(stateMachineArn=machine, maxResults=EXECUTIONS)
    counts: Counter[str] = Counter()
    # Step Functions lists executions newest first. Finished executions are sorted by end time, and running executions
    # by start time.
    moment: datetime | None = None
    for execution in answer["executions"]:
        moment = execution.get("stopDate", execution["startDate"])
        if execution["status"] == "RUNNING":
            counts["running"] += 1
        elif moment >= since:
            counts["succeeded" if execution["status"] == "SUCCEEDED" else "failed"] += 1
    return counts, "nextToken" in answer and moment is not None and moment >= since
