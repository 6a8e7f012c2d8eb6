"""Implements the commands ``make dead-letters`` and ``make redrive``, which list dead letters and send them back for
processing.
"""

from __future__ import annotations

import time
from typing import Any

from local.api import Api

COLUMNS = ("since", "kind", "tries", "what", "why")
# Reading dead letters hides them from other requests for a moment, so a single empty response is not enough.
EMPTY_ANSWERS = 3
PAUSE_SECONDS = 2.0


def show(api: Api) -> None:
    """Prints the 100 oldest dead letters."""
    page = api.get("/dead-letters?limit=100")
    letters = page["deadLetters"]
    if not letters:
        in_use = f"{page['total']:,} dead letters are being read by another request: try again in a moment"
        print(in_use if page["total"] else "there are no dead letters")
        return
    print_table(
        [{**each, "since": each["since"][:19].replace("T", " "), "tries": each["tries"] or "?"} for each in letters]
    )
    if page["total"] > len(letters):
        print(f"and {page['total'] - len(letters):,} more")


def print_table(rows: list[dict[str, Any]]) -> None:
    """Prints the rows as a table. Every column except the last is padded to its longest cell."""
    lines = [COLUMNS, *(tuple(str(row[name]) for name in COLUMNS) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS) - 1)]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, [*widths, 0], strict=True)]
        print("  ".join(cells).rstrip())


def redrive(api: Api) -> bool:
    """Sends the existing dead letters back for processing, and prints the dead letters that could not be sent back.

    Returns whether no dead letters are left. A message that fails again becomes a dead letter again.
    """
    waiting = api.get("/dead-letters?limit=1")["total"]
    redriven, empty_answers = 0, 0
    while True:
        answer = api.post("/dead-letters/redrive", {})
        redriven += answer["redriven"]
        # Each request also retries the dead letters that earlier requests could not send back.
        kept = answer["kept"]
        if answer["redriven"]:
            print(f"  {redriven:,} put back, {answer['left']:,} left", flush=True)
        empty_answers = 0 if answer["redriven"] else empty_answers + 1
        only_kept_left = len(kept) >= answer["left"]
        if not answer["left"] or only_kept_left or redriven >= waiting > 0 or empty_answers == EMPTY_ANSWERS:
            break
        time.sleep(PAUSE_SECONDS if empty_answers else 0)
    if not redriven and not answer["left"]:
        print("there are no dead letters")
    for each in kept:
        print(f"  kept: {each['what']}: {each['why']}")
    if answer["left"] > len(kept):
        print(f"  {answer['left'] - len(kept):,} left")
    return not answer["left"]
