"""Waiting for something that another process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

# Generous, because a busy machine is no failure: waiting longer than this is.
SECONDS = 60

Found = TypeVar("Found")


def wait_for(look: Callable[[], Found], what: str, seconds: float = SECONDS) -> Found:
    """Calls ``look`` until it returns something true, and returns that."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"{what}: not after {seconds} s"
        time.sleep(0.05)
