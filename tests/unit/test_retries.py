"""Tests the pauses between the tries of a message."""

import pytest

from chalicelib.retries import pause


@pytest.mark.parametrize(
    ("tries", "shortest", "longest"), [(0, 1, 1), (1, 1, 1), (2, 1, 2), (3, 2, 4), (9, 128, 256), (10_000, 150, 300)]
)
def test_a_pause_doubles_up_to_five_minutes_and_is_partly_random(tries: int, shortest: int, longest: int) -> None:
    pauses = {pause(tries) for _ in range(200)}
    assert shortest <= min(pauses) <= max(pauses) <= longest
    assert len(pauses) > 1 or shortest == longest


def test_a_stack_for_tests_pauses_for_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRST_RETRY_SECONDS", "0.1")
    monkeypatch.setenv("LONGEST_RETRY_SECONDS", "1")
    assert [pause(1), pause(2), pause(9)] == [0, 0, 1]
