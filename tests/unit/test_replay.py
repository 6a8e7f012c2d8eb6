"""Tests that an order is announced once although a new event source mapping reads the stream from its start."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from chalicelib.notifications import Notification
from chalicelib.orders.announce import announce_orders
from chalicelib.orders.replay import find_announced
from tests.unit import notices
from tests.unit.api import Api
from tests.unit.cloud import Aws, refusing
from tests.unit.test_announce import change, record

NOW = datetime(2026, 11, 1, 5, tzinfo=UTC)


def announced(aws: Aws, number: int, order_ids: Iterable[str], ago: float, outcome: str = "placed") -> None:
    """Stores an announcement in the inbox. The names of changes have the form ``o-1/2/CANCELLED``."""
    names = [each.split("/") for each in order_ids]
    changes = [[order_id, int(version), change] for order_id, version, change in (each for each in names if each[1:])]
    facts = {"outcome": outcome, "orderIDs": [each[0] for each in names if not each[1:]], "changes": changes}
    values = notices.attributes(kind="order", key=f"orders/{number}", facts=json.dumps(facts))
    notices.record(aws, notices.sent(number, NOW - timedelta(seconds=ago), MessageAttributes=values))


def replay(aws: Aws, written: dict[str, float], *, redriven: bool = False, calls: int = 1_000) -> list[str]:
    """Delivers orders and changes of the given ages in seconds, and returns those that are announced."""
    names = [each.split("/") for each in written]
    records = [change(each[0], each[2], int(each[1])) if each[1:] else record(each[0]) for each in names]
    for each, ago in zip(records, written.values(), strict=True):
        each["dynamodb"]["ApproximateCreationDateTime"] = float(int(NOW.timestamp() - ago))
    published: list[Notification] = []
    seconds = iter([60] * calls)
    answer = announce_orders(
        {"Records": records, "redriven": redriven},
        publish=published.append,
        set_aside=lambda given, _: list(given),
        find_announced=partial(find_announced, aws.dynamodb, notices.TABLE, NOW),
        now=NOW,
        seconds_left=lambda: next(seconds, 0),
    )
    assert answer == {"batchItemFailures": []}
    facts = [notification.facts for notification in published]
    changes = ["/".join(map(str, each)) for given in facts for each in given.get("changes", ())]
    return [each for given in facts for each in given["orderIDs"]] + changes


def test_announced_orders_are_not_announced_again_in_batches_of_another_size(aws: Aws) -> None:
    """The first announcement was in another month."""
    announced(aws, 1, ["o-1", "o-2"], ago=5.5 * 3600)
    announced(aws, 2, ["o-3"], ago=1800)
    announced(aws, 3, ["o-4", "o-5"], ago=60)
    assert replay(aws, {"o-1": 5.6 * 3600}) == []
    assert replay(aws, {"o-2": 5.6 * 3600, "o-3": 1801, "o-4": 120, "o-5": 61}) == []


def test_what_was_never_announced_is_announced_whatever_its_age(aws: Aws) -> None:
    """An order was set aside, or the function stopped before the inbox stored the announcement."""
    announced(aws, 1, ["o-1", "o-4"], ago=3590)
    assert replay(aws, {"o-1": 3600, "o-2": 3599, "o-4": 3598, "o-5": 1}) == ["o-2", "o-5"]


def test_announced_changes_are_not_announced_again_and_another_change_to_the_same_order_is(aws: Aws) -> None:
    announced(aws, 1, ["o-1", "o-2/1/CORRECTED"], ago=3590)
    announced(aws, 2, ["o-1/3/CANCELLED"], ago=1790, outcome="changed")
    found = {"o-1": 3600, "o-2/1/CORRECTED": 3600, "o-1/3/CANCELLED": 1800}
    assert replay(aws, found) == []
    fresh = {"o-1/1/CORRECTED": 3600, "o-1/2/CORRECTED": 3600, "o-2/2/CORRECTED": 1800, "o-2": 3600}
    assert replay(aws, fresh) == ["o-2", "o-1/1/CORRECTED", "o-1/2/CORRECTED", "o-2/2/CORRECTED"]
    # A later change of a new order that has the same id is not the change that was announced.
    assert replay(aws, {"o-1/3/CANCELLED": 1700}) == ["o-1/3/CANCELLED"]
    assert replay(aws, found, redriven=True) == ["o-1", "o-2/1/CORRECTED", "o-1/3/CANCELLED"]


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"orderIDs": "o-1", "changes": "o-1"},
        {"orderIDs": [{"id": "o-1"}, None], "changes": [["o-1"], [1, 2, 3], None, ["o-1", "1", "CANCELLED"]]},
    ],
)
def test_facts_of_another_program_do_not_stop_announcements(aws: Aws, facts: dict[str, Any]) -> None:
    content = json.dumps({"outcome": "placed", **facts})
    values = notices.attributes(kind="order", key="orders/1", facts=content)
    notices.record(aws, notices.sent(1, NOW - timedelta(seconds=60), MessageAttributes=values))
    assert replay(aws, {"o-1": 61, "o-1/1/CANCELLED": 61}) == ["o-1", "o-1/1/CANCELLED"]


def test_a_usual_batch_costs_no_read(aws: Aws) -> None:
    reads = aws.calls(aws.dynamodb, "Query")
    assert replay(aws, {"o-1": 4, "o-2": 0}) == ["o-1", "o-2"]
    assert reads == []


def test_reading_ends_when_every_order_is_found_and_when_time_runs_out(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chalicelib.orders.replay.PAGE", 2)
    for number in range(60):
        announced(aws, number, [f"o-{number}"], ago=3600 - number)
    reads = aws.calls(aws.dynamodb, "Query")
    assert replay(aws, {"o-0": 3600}) == []
    assert len(reads) <= 8
    assert replay(aws, {"o-59": 3601}) == []
    reads.clear()
    assert replay(aws, {"never": 3600}, calls=3) == ["never"]
    assert len(reads) == 3


@pytest.mark.parametrize(("outcome", "ago"), [("placed", 3600), ("conflict", 50)])
def test_an_earlier_order_with_the_same_id_and_a_conflict_do_not_count(aws: Aws, outcome: str, ago: int) -> None:
    announced(aws, 1, ["o-1"], ago, outcome)
    notices.record(aws, notices.sent(2, NOW - timedelta(seconds=40)))
    assert replay(aws, {"o-1": 60}) == ["o-1"]


@pytest.mark.parametrize("code", ["AccessDeniedException", "ThrottlingException"])
def test_a_redriven_order_and_an_order_that_cannot_be_looked_up_are_announced(aws: Aws, code: str) -> None:
    announced(aws, 1, ["o-1"], ago=50)
    assert replay(aws, {"o-1": 60}) == []
    assert replay(aws, {"o-1": 60}, redriven=True) == ["o-1"]
    with refusing(aws.dynamodb, "query", code):
        assert replay(aws, {"o-1": 60}) == ["o-1"]


def test_the_deployed_function_looks_into_the_inbox(api: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    # Chalice's test client says that three seconds are left.
    monkeypatch.setattr("chalicelib.orders.announce.ANNOUNCEMENT_SECONDS", 1)
    reads = aws.calls(aws.dynamodb, "Query")
    change: dict[str, Any] = record("o-1")
    # A record without a time cannot be looked up.
    for moment in (datetime.now(UTC).timestamp() - 600, 0):
        change["dynamodb"]["ApproximateCreationDateTime"] = moment
        assert api.invoke("announce_orders", {"Records": [change]}) == {"batchItemFailures": []}
    assert {each["TableName"] for each in reads} == {notices.TABLE}
    assert len(aws.published()) == 2
