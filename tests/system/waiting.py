"""Helpers that wait for other processes, make simultaneous calls, and change values temporarily."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

# The time limit is generous because some machines are slow.
SECONDS = 60

Found = TypeVar("Found")


def wait_for(look: Callable[[], Found], what: str, seconds: float = SECONDS) -> Found:
    """Calls ``look`` until it returns a true value, and returns that value."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"timed out after {seconds} s waiting for {what}"
        time.sleep(0.05)


@contextmanager
def changed(change: Callable[[Any], object], usual: Any, to: Any) -> Iterator[None]:
    """Changes a value while the ``with`` block runs, and then restores the original value."""
    change(to)
    try:
        yield
    finally:
        change(usual)


def at_once(call: Callable[..., Found], *arguments: Any, times: int = 10) -> list[Found]:
    """Makes ``times`` simultaneous calls. Each call gets the next value from ``arguments``, which repeats as needed.

    Returns the results in the order of the calls.
    """
    start = threading.Barrier(times)

    def one(number: int) -> Found:
        start.wait()
        return call(*(arguments[number % len(arguments)],) if arguments else ())

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(one, range(times)))
