"""Defines tables of faults for parametrized tests.

Each table maps a fault's name to a function that applies the fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import pytest

from tests.system.faults import after_call, before_call, cut_before
from tests.system.gate import Trap
from tests.system.stack import Faulty
from tests.system.wire import Fault

Case = Callable[[Faulty], AbstractContextManager[Any]]

# ``SOME`` is larger than the number of attempts for one AWS call, so the flow itself must handle some of the faults.
SOME = 5

short = pytest.mark.short


def wire(operation: str, fault: Fault, **how: Any) -> Case:
    """Returns a test case that applies a fault to AWS calls. Without ``first``, it applies to every matching call."""
    return lambda system: system.wire.fault(operation, fault, **how)


def invoking(function: str, fault: Fault, **how: Any) -> Case:
    """Returns a test case that applies a fault to the calls from state machines to ``function``."""
    return wire("lambda:Invoke", fault, caller="states", when=lambda call: function in call, **how)


def publishing(text: str, fault: Fault, **how: Any) -> Case:
    """Returns a test case that applies a fault to state machine notifications whose encoded body contains ``text``."""
    return wire("sns:Publish", fault, caller="states", when=lambda call: text in call, **how)


def killing(operation: str, function: str, *, done: bool = False, first: int = 2) -> Case:
    """Returns a test case that kills the process of the function before a call takes effect.

    If ``done`` is true, the process is killed after the call takes effect.
    """
    return lambda system: system.wire.fault(
        operation,
        after_call(system.kill) if done else before_call(system.kill, cut_before),
        caller=function,
        first=first,
    )


def trap(work: Callable[[Faulty], object] = lambda _system: None, **how: Any) -> Case:
    """Returns a test case that calls ``work`` and then cuts a connection to MySQL."""
    return lambda system: system.gate.trap(Trap(work=lambda: work(system), **how))


def afresh(function: str) -> Case:
    """Returns a test case that kills the worker processes of the function, so that they lose their caches."""

    @contextmanager
    def ended(system: Faulty) -> Iterator[None]:
        system.kill_all(function)
        yield

    return ended


def together(*several: Case) -> Case:
    @contextmanager
    def all_of_them(system: Faulty) -> Iterator[None]:
        with ExitStack() as stack:
            for each in several:
                stack.enter_context(each(system))
            yield

    return all_of_them


def cases(table: dict[str, Any], in_short: Iterable[str] = ()) -> Any:
    """Runs a test once for each row of ``table``.

    The rows named in ``in_short`` also run in the short fault matrix.
    """
    unknown = set(in_short) - set(table)
    assert not unknown, unknown
    return pytest.mark.parametrize(
        "case",
        [pytest.param(case, id=name, marks=[short] * (name in in_short)) for name, case in table.items()],
    )
