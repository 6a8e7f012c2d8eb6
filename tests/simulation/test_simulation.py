"""Tests that the handlers keep their promises in histories with fixed seeds, and that the simulation would notice."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import count

import pytest

from tests.simulation.__main__ import shrunk
from tests.simulation.history import SIX_HOURS, Action, History
from tests.simulation.invariants import violations
from tests.simulation.mechanisms import MECHANISMS, without
from tests.simulation.world import Fault

# About 20 seconds of histories, in parts that two workers share.
PARTS, HISTORIES = 4, 40


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    log = logging.getLogger("cafe")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    yield
    log.setLevel(level)


@pytest.mark.parametrize("part", range(PARTS))
def test_every_history_keeps_the_promises(part: int) -> None:
    for seed in range(part * HISTORIES, (part + 1) * HISTORIES):
        found = violations(History.of(seed).play())
        assert not found, f"python -m tests.simulation --seed {seed}"


@pytest.mark.parametrize("service", ["dynamodb", "sns", "s3", "mysql"])
def test_an_outage_of_six_hours_needs_no_person(service: str) -> None:
    for seed in range(2):
        history = History.of(seed)
        people = [step for step in history.steps if isinstance(step, Action)]
        history.steps = [Fault(2, "outage", service, SIX_HOURS), *people]
        assert not violations(history.play())


@pytest.mark.parametrize("name", ["orders: the condition on the write", "uploads: the ledger of sequencers"])
def test_a_missing_mechanism_is_noticed_and_the_history_is_shrunk(name: str) -> None:
    with without(name):
        found = ((seed, each) for seed in count() for each in violations(History.of(seed).play()))
        seed, violation = next(found)
        violated = violation.partition(":")[0]
        history = History.of(seed)
        kept = shrunk(history, violated)
        assert len(kept) < len(history.steps) / 3
        assert any(each.startswith(violated) for each in violations(history.of_steps(kept).play()))
    assert not violations(history.of_steps(kept).play())


def test_a_history_replays_exactly() -> None:
    traces: list[list[str]] = [[], []]
    for trace in traces:
        History.of(7).play(trace)
    assert traces[0] == traces[1]
    assert len(History.of(7).steps) > 20
    assert len(MECHANISMS) > 15
