"""What more than one folder of tests has: the deployed system, and the closing lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.system.stack import Faulty


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    """The deployed system, one for each worker and all of its tests."""
    # The unit tests do without what this imports.
    from tests.system.stack import running

    with running(tmp_path_factory.mktemp("stack")) as system:
        yield system


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Here, and not beside the browser tests: with several workers, their writer has read no other conftest."""
    skipped = [each for each in terminalreporter.stats.get("skipped", ()) if each.nodeid.startswith("tests/browser/")]
    if skipped:
        terminalreporter.section("the console was not tested")
        reasons = {each.longrepr[2].removeprefix("Skipped: ") for each in skipped}
        terminalreporter.write_line(f"{len(skipped)} browser tests were skipped. {' '.join(sorted(reasons))}")
