"""How two ways of doing the same work compare: in turns, in one run, on one machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

ROUNDS = 9


@dataclass(frozen=True)
class Row:
    """A line of the table. ``ratios`` has the peer's time divided by ours, one for each round.

    ``goal`` is the least that their median shall be.
    """

    work: str
    ours: float
    peer: str
    peers: float
    ratios: list[float]
    goal: float

    def __str__(self) -> str:
        median = statistics.median(self.ratios)
        return (
            f"| {self.work} | {self.ours:.3f} s | {self.peer} | {self.peers:.3f} s "
            f"| {median:.2f} | {min(self.ratios):.2f} to {max(self.ratios):.2f} | {self.goal:.2f} |"
        )


HEAD = """\
| work | ours | peer | peer's | times faster | spread | goal |
| --- | --- | --- | --- | --- | --- | --- |"""


def compare(
    work: str, ours: Callable[[], object], peer: str, peers: Callable[[], object], goal: float, rounds: int = ROUNDS
) -> Row:
    """Both, ``rounds`` times in turns, after one round that does not count. They must come to the same result."""
    if ours() != peers():
        raise AssertionError(f"{work}: ours and {peer} differ")
    return in_turns(work, partial(_seconds, ours), peer, partial(_seconds, peers), goal, rounds)


def in_turns(
    work: str, ours: Callable[[], float], peer: str, peers: Callable[[], float], goal: float, rounds: int = ROUNDS
) -> Row:
    """The same of two that tell the seconds by themselves, such as those of a process without its start."""
    ours_times: list[float] = []
    peers_times: list[float] = []
    for number in range(rounds):
        # Neither is always the one that finds the machine warm.
        for do, times in ((ours, ours_times), (peers, peers_times))[:: 1 if number % 2 else -1]:
            times.append(do())
    ratios = [theirs / own for own, theirs in zip(ours_times, peers_times, strict=True)]
    return Row(work, statistics.median(ours_times), peer, statistics.median(peers_times), ratios, goal)


def _seconds(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began
