"""Lists dead letters, oldest first, and what became of those that a person handled."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from chalicelib.dead_letters.destinations import Aws
from chalicelib.dead_letters.handled import Handled, content
from chalicelib.dead_letters.queue import open_queues
from chalicelib.settings import Settings

# Maximum number of dead letters to read. SQS returns messages in no particular order, so the oldest may come last.
LETTERS_READ = 1_000
# Maximum time in seconds to read dead letters. The last AWS call must end before API Gateway's 29-second timeout.
SECONDS = 8
# Visibility timeout in seconds for the dead letters that a list request receives.
HIDDEN_SECONDS = 30


def oldest(
    limit: int, *, settings: Settings, aws: Aws, now: datetime, clock: Callable[[], float] = time.monotonic
) -> dict[str, Any]:
    """Returns ``{"deadLetters", "total", "handled"}`` in the format that ``chalicelib/openapi.json`` describes.

    ``total`` is exact if all dead letters could be read. Otherwise, ``total`` is an estimate from SQS.
    """
    end = clock() + SECONDS
    queues = open_queues(settings, aws("sqs"), HIDDEN_SECONDS)
    shown: dict[str, dict[str, Any]] = {}

    def in_time() -> bool:
        return clock() < end

    def goes_on() -> bool:
        return in_time() and len(shown) < LETTERS_READ

    try:
        for queue in queues:
            for letters in queue.take(goes_on):
                shown |= {each.id: {**each.shown(), "content": content(each.body)} for each in letters}
        total = len(shown) if goes_on() else max(len(shown), sum(queue.count() for queue in queues))
    finally:
        for queue in queues:
            queue.release()
    ordered = sorted(shown.values(), key=lambda letter: (letter["since"], letter["id"]))
    waiting = {each["id"]: each["letter"] for each in ordered}
    return {
        "deadLetters": ordered[:limit],
        "total": total,
        "handled": Handled(settings, aws, now, in_time).newest(waiting),
    }
