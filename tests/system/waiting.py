"""Waiting for another process, calls at the same moment, and values that a test changes for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

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


@contextmanager
def changed(change: Callable[[Any], object], usual: Any, to: Any) -> Iterator[None]:
    """Changes a value while the block runs, and then back to the usual one."""
    change(to)
    try:
        yield
    finally:
        change(usual)


def at_once(call: Callable[..., Found], *arguments: Any, times: int = 10) -> list[Found]:
    """Makes ``times`` calls at the same moment. Each one gets the next of the ``arguments`` in turn, if there are any.

    Returns their results, in the order of the arguments.
    """
    start = threading.Barrier(times)

    def one(number: int) -> Found:
        start.wait()
        return call(*(arguments[number % len(arguments)],) if arguments else ())

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(one, range(times)))
