"""Plays random histories, or one: ``python -m tests.simulation [--seed N [--keep 0,3,7] | --seconds S]``."""

from __future__ import annotations

import argparse
import logging
import secrets
import time

from tests.simulation.history import History
from tests.simulation.invariants import violations


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int)
    parser.add_argument("--keep")
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    logging.getLogger("cafe").setLevel(logging.CRITICAL + 1)
    if given.seed is not None:
        history = History.of(given.seed)
        if given.keep is not None:
            history.steps = [history.steps[int(each)] for each in given.keep.split(",")]
        trace: list[str] = []
        played = history.play(trace)
        print(*(f"{number:3} {step}" for number, step in enumerate(history.steps)), *trace, *violations(played), sep="\n")
        return 0
    began, seed, count, deliveries, failed = time.monotonic(), secrets.randbelow(10**9), 0, 0, 0
    while time.monotonic() < began + given.seconds:
        played = History.of(seed + count).play()
        count, deliveries = count + 1, deliveries + played.world.deliveries
        if found := violations(played):
            failed += 1
            if failed<10: print(seed + count - 1, *found, sep="\n  ")
    seconds = time.monotonic() - began
    print(f"{count} histories, {60 * count / seconds:,.0f} a minute, {deliveries / seconds:,.0f} deliveries a second, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    raise SystemExit(main())
