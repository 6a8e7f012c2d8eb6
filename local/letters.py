"""``make dead-letters`` and ``make redrive``: what failed for good, as a table, and back to where it came from."""

from __future__ import annotations

import time
from typing import Any

from local.demo import Api

COLUMNS = ("since", "kind", "tries", "what", "why")
# Another call may look at the letters just now, which hides them for a moment.
PATIENCE = 3
PAUSE = 2.0


def show(api: Api) -> None:
    """The hundred oldest dead letters."""
    found = api.get("/dead-letters?limit=100")
    letters = found["deadLetters"]
    if not letters:
        print("nothing waits" if not found["total"] else f"{found['total']:,} are being looked at or put back just now")
        return
    table([{**each, "since": each["since"][:19].replace("T", " "), "tries": each["tries"] or "?"} for each in letters])
    if found["total"] > len(letters):
        print(f"and {found['total'] - len(letters):,} more")


def table(rows: list[dict[str, Any]]) -> None:
    """Each column as wide as its longest cell; the last one as long as it is."""
    lines = [COLUMNS, *(tuple(str(row[name]) for name in COLUMNS) for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(COLUMNS) - 1)]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, [*widths, 0], strict=True)]
        print("  ".join(cells).rstrip())


def redrive(api: Api) -> bool:
    """Puts back all that waits now, and says what it could not: whether that was nothing.

    What fails again meanwhile comes back as a new letter, and is left for a person to look at.
    """
    waiting = api.get("/dead-letters?limit=1")["total"]
    done, idle = 0, 0
    while True:
        answer = api.post("/dead-letters/redrive", {})
        done += answer["redriven"]
        # Each call tries again what the one before has kept.
        kept = answer["kept"]
        if answer["redriven"]:
            print(f"  {done:,} put back, {answer['left']:,} left", flush=True)
        idle = 0 if answer["redriven"] else idle + 1
        if not answer["left"] or len(kept) >= answer["left"] or done >= waiting > 0 or idle == PATIENCE:
            break
        time.sleep(PAUSE if idle else 0)
    if not done and not answer["left"]:
        print("nothing waits")
    for each in kept:
        print(f"  kept: {each['what']}: {each['why']}")
    if answer["left"] > len(kept):
        print(f"  {answer['left'] - len(kept):,} left")
    return not answer["left"]
