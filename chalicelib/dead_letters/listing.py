"""The list of dead letters, oldest first."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from chalicelib.dead_letters.destinations import Aws
from chalicelib.dead_letters.queue import open_queues
from chalicelib.settings import Settings

# The list has the oldest among so many letters. SQS keeps no order, so all must be read to find the oldest.
LETTERS_READ = 1_000
# API Gateway waits 29 seconds, in which the last call to AWS must end.
SECONDS = 8
# No other call sees a letter while this one holds it.
HIDDEN_SECONDS = 30


def oldest(limit: int, *, settings: Settings, aws: Aws, clock: Callable[[], float] = time.monotonic) -> dict[str, Any]:
    """Returns ``{"deadLetters": [{"id", "kind", "what", "since", "why", "tries"}], "total"}``, oldest first.

    ``total`` is exact if all letters could be read, and the estimate of SQS otherwise.
    """
    end = clock() + SECONDS
    queues = open_queues(settings, aws("sqs"), HIDDEN_SECONDS)
    shown: dict[str, dict[str, Any]] = {}

    def in_time() -> bool:
        return clock() < end and len(shown) < LETTERS_READ

    try:
        for queue in queues:
            for letters in queue.take(in_time):
                shown |= {each.id: each.shown() for each in letters}
        total = len(shown) if in_time() else max(len(shown), sum(queue.count() for queue in queues))
    finally:
        for queue in queues:
            queue.release()
    ordered = sorted(shown.values(), key=lambda letter: (letter["since"], letter["id"]))
    return {"deadLetters": ordered[:limit], "total": total}
