"""Cases as data: a fault's name, and what it does to the system for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.faults.harness import Faulty
from tests.faults.wire import Fault

Weather = Callable[[Faulty], AbstractContextManager[Any]]

short = pytest.mark.short


def wire(operation: str, fault: Fault, **how: Any) -> Weather:
    """A fault of ``wire.Wire``, for a case of a table."""
    return lambda system: system.wire.fault(operation, fault, **how)


def cases(table: dict[str, Any], in_short: Iterable[str] = ()) -> Any:
    """A parameter ``weather`` for each row of ``table``; those ``in_short`` are cases of the short matrix."""
    unknown = set(in_short) - set(table)
    assert not unknown, unknown
    return pytest.mark.parametrize(
        "weather",
        [pytest.param(weather, id=name, marks=[short] * (name in in_short)) for name, weather in table.items()],
    )
