"""Deletes dead letters that need not be processed. A copy of each stays readable for 30 days.

If a copy cannot be stored, the dead letter is not deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from chalicelib.dead_letters.destinations import Aws
from chalicelib.dead_letters.handled import Register, State
from chalicelib.dead_letters.handling import Selection, handle
from chalicelib.settings import Settings


def discard(
    selection: Selection,
    *,
    by: str,
    settings: Settings,
    aws: Aws,
    now: datetime,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Discards the selected dead letters for the user ``by``. Returns ``{"discarded", "kept", "left"}``.

    ``chalicelib.dead_letters.handling`` describes the result.
    """
    register = Register(aws("dynamodb"), settings.notifications_table, by, now)
    return handle(
        selection,
        "discarded",
        lambda in_time: lambda letters: register.add(letters, State.DISCARDED, in_time),
        settings=settings,
        aws=aws,
        clock=clock,
    )
