"""Compares two ways of doing the same work, which run alternately on one machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

from benchmarks.results import Point, Result

ROUNDS = 9


def compare(
    work: str,
    ours: Callable[[], object],
    peer: str,
    peers: Callable[[], object],
    goal: float,
    rounds: int = ROUNDS,
    size: int | None = None,
) -> Result:
    """Measures ``ours`` and ``peers`` alternately, after an unmeasured first round. ``ours`` and ``peers`` must return
    the same result.

    ``goal`` is how many times faster ``ours`` must be. If ``size`` is given, the result is a point on a curve.
    """
    if ours() != peers():
        raise AssertionError(f"{work}, {peer}: our code and the peer returned different results")
    return in_turns(work, partial(_seconds, ours), peer, partial(_seconds, peers), goal, rounds, size)


def in_turns(
    work: str,
    ours: Callable[[], float],
    peer: str,
    peers: Callable[[], float],
    goal: float,
    rounds: int = ROUNDS,
    size: int | None = None,
) -> Result:
    """Compares two functions that measure their own time and return the seconds."""
    ours_times: list[float] = []
    peers_times: list[float] = []
    for number in range(rounds):
        # The order alternates, because the function that runs first warms up the machine.
        for do, times in ((ours, ours_times), (peers, peers_times))[:: 1 if number % 2 else -1]:
            times.append(do())
    ratios = [theirs / own for own, theirs in zip(ours_times, peers_times, strict=True)]
    medians = {"ours": statistics.median(ours_times), peer: statistics.median(peers_times)}
    points = [Point("seconds", name, size, median) for name, median in medians.items() if size is not None]
    return Result(
        work,
        f"{medians['ours']:.3f} s",
        peer,
        f"{medians[peer]:.3f} s",
        statistics.median(ratios),
        goal,
        (min(ratios), max(ratios)),
        tuple(points),
    )


def _seconds(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began
