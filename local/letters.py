"""Implements the commands ``make dead-letters``, ``make redrive`` and ``make discard``, which list dead letters, send
them back for processing, and remove them.
"""

from __future__ import annotations

import argparse
import textwrap
import time
from collections.abc import Sequence
from typing import Any

from local.api import Api
from local.processes import StackError

COLUMNS = ("id", "since", "kind", "tries", "what", "why")
HANDLED_COLUMNS = ("at", "state", "by", "kind", "what")
# Reading dead letters hides them from other requests for a moment, so a single empty response is not enough.
EMPTY_ANSWERS = 3
PAUSE_SECONDS = 2.0
# Maximum time in seconds to wait for the results of a redrive.
WAIT_SECONDS = 60
LIST = "/dead-letters?limit=100"


def kind(text: str) -> str:
    """Returns a valid kind of dead letter unchanged. Raises ``ArgumentTypeError`` if there is no such kind."""
    from chalicelib.dead_letters.letters import KINDS

    if text not in KINDS:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(KINDS)}")
    return text


def show(api: Api) -> None:
    """Prints the 100 oldest dead letters, and the newest that were put back or discarded."""
    page = api.get(LIST)
    letters = page["deadLetters"]
    if letters:
        print_table(COLUMNS, letters)
        if page["total"] > len(letters):
            print(f"and {page['total'] - len(letters):,} more")
    else:
        in_use = f"{page['total']:,} dead letters are being read by another request: try again in a moment"
        print(in_use if page["total"] else "there are no dead letters")
    if page["handled"]:
        print("\nput back or discarded in the last 30 days:")
        print_table(HANDLED_COLUMNS, page["handled"])


def print_table(columns: Sequence[str], letters: list[dict[str, Any]]) -> None:
    """Prints the dead letters as a table. Every column except the last is padded to its longest cell."""
    rows = [{**each, "tries": each["tries"] or "?"} for each in letters]
    for row in rows:
        row |= {name: row[name][:19].replace("T", " ") for name in ("since", "at") if name in row}
        row |= {"state": row["state"].replace("_", " ").lower()} if "state" in row else {}
    lines = [columns, *(tuple(str(row[name]) for name in columns) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns) - 1)]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, [*widths, 0], strict=True)]
        print("  ".join(cells).rstrip())


def _select(api: Api, kind: str | None, identifier: str | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the list of dead letters, and those among them that have the kind and the id."""
    for attempt in range(EMPTY_ANSWERS):
        if attempt:
            time.sleep(PAUSE_SECONDS)
        page = api.get(LIST)
        letters = [
            each for each in page["deadLetters"] if kind in (None, each["kind"]) and identifier in (None, each["id"])
        ]
        if letters or not page["total"]:
            break
    return page, letters


def redrive(api: Api, kind: str | None = None, identifier: str | None = None) -> bool:
    """Sends the selected dead letters back for processing, and prints what becomes of them within a minute.

    Returns whether no selected dead letters are left. A message that fails again becomes a dead letter again.
    """
    page, selected = _select(api, kind, identifier)
    waiting = len(selected) if page["total"] <= len(page["deadLetters"]) else page["total"]
    body = {**({"ids": [identifier]} if identifier else {}), **({"kind": kind} if kind else {})}
    redriven, empty_answers = 0, 0
    while True:
        answer = api.post("/dead-letters/redrive", body)
        redriven += answer["redriven"]
        # Each request also retries the dead letters that earlier requests could not send back.
        kept = answer["kept"]
        if answer["redriven"]:
            print(f"  {redriven:,} put back, {answer['left']:,} left", flush=True)
        empty_answers = 0 if answer["redriven"] else empty_answers + 1
        only_kept_left = len(kept) >= answer["left"]
        is_complete = redriven + len(kept) >= waiting > 0
        if not answer["left"] or only_kept_left or is_complete or empty_answers == EMPTY_ANSWERS:
            break
        time.sleep(PAUSE_SECONDS if empty_answers else 0)
    if not redriven and not kept:
        print("no dead letter has this id or kind" if body else "there are no dead letters")
    for each in kept:
        print(f"  kept: {each['what']}: {each['why']}")
    if answer["left"] > len(kept):
        print(f"  {answer['left'] - len(kept):,} left")
    earlier = [(each["letter"], each["at"]) for each in page["handled"] or []]
    succeeded = not redriven or _wait(api, earlier, redriven)
    is_found = bool(redriven or not identifier)
    return succeeded and is_found and not kept and (bool(body) or not answer["left"])


def _wait(api: Api, earlier: list[tuple[str, str]], redriven: int) -> bool:
    """Prints what becomes of the dead letters that were put back. Returns whether none has failed again."""
    from chalicelib.dead_letters.handled import SHOWN

    print(f"  on their way; waiting up to {WAIT_SECONDS} seconds for the results", flush=True)
    end = time.monotonic() + WAIT_SECONDS
    printed: dict[str, str] = {}
    open_ones: list[dict[str, Any]] = []
    try:
        while True:
            page = api.get(LIST)
            mine = [each for each in page["handled"] or [] if (each["letter"], each["at"]) not in earlier]
            # The orders of one event may fail separately. Their ids then begin with the id of the event's dead letter.
            ids = [(each, each["letter"]) for each in page["deadLetters"]]
            reasons = {name: each["why"] for each, letter in ids for name in (letter.rpartition("-")[0], letter)}
            open_ones = [each for each in mine if each["state"] == "ON_ITS_WAY"]
            for each in mine:
                if each not in open_ones and each["letter"] not in printed:
                    printed[each["letter"]] = each["state"]
                    reason = f": {reasons[each['letter']]}" if each["letter"] in reasons else ""
                    print(f"  {each['state'].replace('_', ' ').lower()}: {each['what']}{reason}", flush=True)
            if len(printed) >= min(redriven, SHOWN) or time.monotonic() >= end:
                break
            time.sleep(PAUSE_SECONDS)
    except KeyboardInterrupt:
        print()
    for each in open_ones:
        print(f"  still on its way: {each['what']}")
    if open_ones or redriven > len(printed):
        print("  `make dead-letters` shows what becomes of the others")
    return "FAILED_AGAIN" not in printed.values()


def discard(api: Api, kind: str | None = None, identifier: str | None = None, *, yes: bool = False) -> bool:
    """Shows the selected dead letters, and discards them after a confirmation. Returns whether none is left."""
    if not kind and not identifier:
        raise StackError("name what to discard: make discard ID=… or make discard KIND=…")
    page, letters = _select(api, kind, identifier)
    if not letters:
        print("no dead letter has this id or kind")
        return False
    for each in letters:
        print(f"{each['kind']}: {each['what']}\n  {each['why']}\n{textwrap.indent(each['content'], '    ')}\n")
    try:
        question = f"Discard {len(letters)} of {page['total']:,} dead letters? A copy is kept for 30 days. yes or no: "
        if not yes and input(question).strip().lower() not in ("y", "yes"):
            print("nothing was discarded")
            return False
    except EOFError:
        raise StackError("there is no terminal to ask for confirmation: use YES=1 to discard without it") from None
    # Only dead letters that were shown are discarded.
    answer = api.post("/dead-letters/discard", {"ids": [each["id"] for each in letters]})
    print(f"  {answer['discarded']:,} discarded")
    for each in answer["kept"]:
        print(f"  kept: {each['what']}: {each['why']}")
    return bool(answer["discarded"] == len(letters))
