"""Plays histories: random ones, one of them step by step, or those that show whether a missing mechanism is noticed.

``python -m tests.simulation [--seconds S] [mechanisms]`` or ``python -m tests.simulation --seed N [--keep 0,3,7]``
"""

from __future__ import annotations

import argparse
import gc
import logging
import secrets
import time
from collections.abc import Iterator
from itertools import count

from tests.simulation.history import History, Played
from tests.simulation.invariants import violations
from tests.simulation.mechanisms import MECHANISMS, without

# A run stops after this many failures, and shows the history of the first one.
FAILURES = 20


def shrunk(history: History, violated: str) -> list[int]:
    """Returns the numbers of a few steps that suffice to violate the same invariant."""
    kept, size = list(range(len(history.steps))), len(history.steps) // 2
    while size:
        before = len(kept)
        for start in range(len(kept) - size, -1, -size):
            fewer = kept[:start] + kept[start + size :]
            found = violations(history.of_steps(fewer).play())
            if any(each.startswith(violated) for each in found):
                kept = fewer
        size = size // 2 if size > 1 or len(kept) == before else 1
    return kept


def show(history: History) -> None:
    trace: list[str] = []
    played = history.play(trace)
    print(*history.steps, "", *trace, "", *violations(played), sep="\n")


def play(seeds: Iterator[int], seconds: float) -> Iterator[tuple[History, Played, list[str]]]:
    """Plays a history for each seed, until the time is over."""
    end = time.monotonic() + seconds
    # Histories leave reference cycles behind. Collecting them less often is cheaper.
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    for seed in seeds:
        if time.monotonic() > end:
            return
        history = History.of(seed)
        played = history.play()
        yield history, played, violations(played)


def simulate(seconds: float) -> int:
    # Processor time does not depend on how busy the machine is.
    began, histories, deliveries = time.process_time(), 0, 0
    failed: dict[int, list[str]] = {}
    try:
        for history, played, found in play(count(secrets.randbelow(10**9)), seconds):
            histories, deliveries = histories + 1, deliveries + played.world.deliveries
            if found:
                failed[history.seed] = found
                print(f"seed {history.seed}:", *found, sep="\n  ")
            if len(failed) == FAILURES:
                break
    except KeyboardInterrupt:
        print()
    took = time.process_time() - began
    print(
        f"{histories:,} histories ({60 * histories / took:,.0f} a minute, {deliveries / took:,.0f} deliveries a second)"
    )
    print(f"{len(failed)} failed")
    for seed, found in list(failed.items())[:1]:
        kept = shrunk(History.of(seed), found[0].partition(":")[0])
        show(History.of(seed).of_steps(kept))
        print(f"\npython -m tests.simulation --seed {seed} --keep {','.join(map(str, kept))}")
    return len(failed) > 0


def find_mechanisms(seconds: float) -> int:
    """Takes out each mechanism, and prints how soon a history fails."""
    missed = 0
    for name in MECHANISMS:
        began = time.monotonic()
        with without(name):
            runs = ((number, found) for number, (_, _, found) in enumerate(play(count(), seconds), 1) if found)
            number, found = next(runs, (0, ["not found"]))
        missed += not number
        print(f"{name:48} {time.monotonic() - began:5.1f} s {number:5} histories  {found[0]}", flush=True)
    print(f"{len(MECHANISMS) - missed} of {len(MECHANISMS)} mechanisms were noticed when they were taken out")
    return missed > 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="?", choices=["mechanisms"])
    parser.add_argument("--seed", type=int)
    parser.add_argument("--keep", type=lambda text: [int(each) for each in text.split(",")])
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    logging.getLogger("cafe").setLevel(logging.CRITICAL + 1)
    if given.what:
        return find_mechanisms(given.seconds)
    if given.seed is None:
        return simulate(given.seconds)
    history = History.of(given.seed)
    show(history if given.keep is None else history.of_steps(given.keep))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
