"""Cases as data: a fault's name, and what it does to the system for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import pytest

from tests.system.faults import after_call, before_call, cut_before
from tests.system.stack import Faulty
from tests.system.wire import Fault

Weather = Callable[[Faulty], AbstractContextManager[Any]]

# More than the two tries of one call, so that the flow itself must bear some of them.
SOME = 5

short = pytest.mark.short


def wire(operation: str, fault: Fault, **how: Any) -> Weather:
    """A fault of ``Wire.fault``; without ``first`` it lasts as long as the weather."""
    return lambda system: system.wire.fault(operation, fault, **how)


def invoking(function: str, fault: Fault, **how: Any) -> Weather:
    """A fault of the state machines' calls of ``function``."""
    return wire("lambda:Invoke", fault, caller="states", when=lambda call: function in call, **how)


def publishing(text: str, fault: Fault, **how: Any) -> Weather:
    """A fault of the state machines' notifications with ``text`` in them, as it is in a form."""
    return wire("sns:Publish", fault, caller="states", when=lambda call: text in call, **how)


def killing(operation: str, function: str, *, done: bool = False, first: int = 2) -> Weather:
    """The function is killed when it makes that call, before anything came of it, or when it is ``done``."""
    return lambda system: system.wire.fault(
        operation,
        after_call(system.kill) if done else before_call(system.kill, cut_before),
        caller=function,
        first=first,
    )


def afresh(function: str) -> Weather:
    """The function's workers end, so that nothing is known that was read before."""

    @contextmanager
    def ended(system: Faulty) -> Iterator[None]:
        system.kill_all(function)
        yield

    return ended


def together(*weathers: Weather) -> Weather:
    @contextmanager
    def all_of_them(system: Faulty) -> Iterator[None]:
        with ExitStack() as stack:
            for each in weathers:
                stack.enter_context(each(system))
            yield

    return all_of_them


def cases(table: dict[str, Any], in_short: Iterable[str] = ()) -> Any:
    """A parameter ``weather`` for each row of ``table``; those ``in_short`` are cases of the short matrix."""
    unknown = set(in_short) - set(table)
    assert not unknown, unknown
    return pytest.mark.parametrize(
        "weather",
        [pytest.param(weather, id=name, marks=[short] * (name in in_short)) for name, weather in table.items()],
    )
