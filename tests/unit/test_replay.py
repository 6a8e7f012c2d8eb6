"""Tests that an order is not announced again if a new event source mapping reads the stream from its start."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chalicelib.notifications import Notification
from chalicelib.orders.announce import announce_orders
from chalicelib.orders.replay import find_announced_with
from tests.unit import notices
from tests.unit.api import Api
from tests.unit.cloud import Aws, refusing
from tests.unit.test_announce import record

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def announced(aws: Aws, number: int, order_ids: Iterable[str], ago: float, outcome: str = "placed") -> None:
    """Stores an announcement in the inbox."""
    facts = {"outcome": outcome, "orderIDs": list(order_ids)}
    values = {"kind": "order", "key": f"orders/{number}-{ago}", "facts": json.dumps(facts)}
    moment = NOW - timedelta(seconds=ago)
    notices.record(aws, notices.sent(number, moment, MessageAttributes=notices.attributes(**values)))


def written(order_id: str, ago: float) -> dict[str, Any]:
    change = record(order_id)
    change["dynamodb"]["ApproximateCreationDateTime"] = float(int(NOW.timestamp() - ago))
    return change


def replay(aws: Aws, records: Iterable[dict[str, Any]], *, redriven: bool = False, calls: int = 1_000) -> list[str]:
    """Delivers records again, and returns the ids of the orders that are announced."""
    published: list[Notification] = []
    left = iter(range(calls))
    answer = announce_orders(
        {"Records": list(records), "redriven": redriven},
        publish=published.append,
        set_aside=lambda given, _: list(given),
        find_announced=find_announced_with(aws.dynamodb, notices.TABLE, NOW),
        now=NOW,
        seconds_left=lambda: 60 if next(left, None) is not None else 0,
    )
    assert answer == {"batchItemFailures": []}
    return [each for notification in published for each in notification.facts["orderIDs"]]


def test_announced_orders_are_not_announced_again_in_batches_of_another_size(aws: Aws) -> None:
    announced(aws, 1, ["o-1", "o-2"], ago=3599)
    announced(aws, 2, ["o-3"], ago=1800)
    announced(aws, 3, ["o-4", "o-5"], ago=60)
    first = [written("o-1", 3600)]
    later = [written("o-2", 3600), written("o-3", 1801), written("o-4", 120), written("o-5", 61)]
    assert replay(aws, first) == replay(aws, later) == []


def test_only_what_was_never_announced_is_announced_whatever_its_age(aws: Aws) -> None:
    """An order was set aside, or the function stopped after publishing it and before the inbox stored it."""
    announced(aws, 1, ["o-1", "o-4"], ago=3590)
    batch = [written(order_id, ago) for order_id, ago in {"o-1": 3600, "o-2": 3599, "o-4": 3598, "o-5": 1}.items()]
    assert replay(aws, batch) == ["o-2", "o-5"]


def test_an_order_that_was_announced_long_after_it_was_stored_is_found(aws: Aws) -> None:
    """The announcement is in another month, behind many other notifications."""
    ago = 20 * 86400 + 13 * 3600
    for number in range(40):
        announced(aws, number, ["other"], ago=ago - 3600 - number)
    announced(aws, 99, ["o-1"], ago=ago - 10 * 3600)
    now, then = NOW - timedelta(seconds=ago - 11 * 3600), NOW - timedelta(seconds=ago)
    assert (then.month, now.month) == (10, 11)
    find = find_announced_with(aws.dynamodb, notices.TABLE, now)
    assert find({"o-1": then.timestamp()}, lambda: True) == {"o-1"}


def test_a_usual_batch_costs_no_read(aws: Aws) -> None:
    reads = aws.calls(aws.dynamodb, "Query")
    assert replay(aws, [written("o-1", 4), written("o-2", 0)]) == ["o-1", "o-2"]
    assert reads == []


def test_reading_ends_when_every_order_is_found_and_when_time_runs_out(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chalicelib.orders.replay.PAGE", 2)
    for number in range(60):
        announced(aws, number, [f"o-{number}"], ago=3600 - number)
    reads = aws.calls(aws.dynamodb, "Query")
    assert replay(aws, [written("o-0", 3600)]) == []
    assert len(reads) <= 8
    assert replay(aws, [written("never", 3600)], calls=3) == ["never"]
    assert len(reads) <= 8 + 3


def test_an_order_that_was_deleted_and_placed_again_is_announced(aws: Aws) -> None:
    announced(aws, 1, ["o-1"], ago=3600)
    assert replay(aws, [written("o-1", 60)]) == ["o-1"]


def test_other_notifications_about_an_order_are_not_its_announcement(aws: Aws) -> None:
    announced(aws, 1, ["o-1"], ago=50, outcome="conflict")
    notices.record(aws, notices.sent(2, NOW - timedelta(seconds=40)))
    assert replay(aws, [written("o-1", 60)]) == ["o-1"]


def test_a_redriven_order_is_always_announced(aws: Aws) -> None:
    announced(aws, 1, ["o-1"], ago=50)
    assert replay(aws, [written("o-1", 60)], redriven=True) == ["o-1"]


@pytest.mark.parametrize("code", ["AccessDeniedException", "ThrottlingException"])
def test_if_the_inbox_cannot_be_read_every_order_is_announced(aws: Aws, code: str) -> None:
    announced(aws, 1, ["o-1"], ago=50)
    with refusing(aws.dynamodb, "query", code):
        assert replay(aws, [written("o-1", 60)]) == ["o-1"]
    assert replay(aws, [written("o-1", 60)]) == []


def test_a_record_without_a_time_is_announced_without_a_look_at_the_inbox(aws: Aws) -> None:
    change = written("o-1", 60)
    del change["dynamodb"]["ApproximateCreationDateTime"]
    assert replay(aws, [change]) == ["o-1"]


def test_the_deployed_function_looks_into_the_inbox(api: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    # Chalice's test client says that three seconds are left.
    monkeypatch.setattr("chalicelib.orders.announce.ANNOUNCEMENT_SECONDS", 1)
    reads = aws.calls(aws.dynamodb, "Query")
    change = record("o-1")
    change["dynamodb"]["ApproximateCreationDateTime"] = datetime.now(UTC).timestamp() - 600
    assert api.invoke("announce_orders", {"Records": [change]}) == {"batchItemFailures": []}
    assert reads[0]["TableName"] == notices.TABLE
    assert len(aws.published()) == 1
