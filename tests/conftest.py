"""What more than one folder of tests has: the deployed system, and the closing lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.system.system import System


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Of each worker one, for the tests in ``system`` and in ``browser``; the unit tests do without what it needs."""
    from local.processes import free_ports
    from local.stack import Stack
    from tests.system.system import System

    api_port, aws_port, db_port = free_ports(3)
    stack = Stack(tmp_path_factory.mktemp("stack"), api_port=api_port, aws_port=aws_port, db_port=db_port)
    try:
        yield System(stack, stack.start())
    finally:
        stack.stop()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Here, and not beside the browser tests: with several workers, their writer has read no other conftest."""
    skipped = [each for each in terminalreporter.stats.get("skipped", ()) if each.nodeid.startswith("tests/browser/")]
    if skipped:
        terminalreporter.section("the console was not tested")
        reasons = {each.longrepr[2].removeprefix("Skipped: ") for each in skipped}
        terminalreporter.write_line(f"{len(skipped)} browser tests were skipped. {' '.join(sorted(reasons))}")
