"""Defines pytest hooks for all tests, and fixtures for tests that run on the deployed system.

The docstring of ``tests/system/__init__.py`` lists the rules for tests on the shared stack.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.evidence import FAILURES, REPORTS, failed, folder_of, save_logs

if TYPE_CHECKING:
    from tests.system.stack import Faulty

# The tests in these folders need no deployed stack. They run first, while a background process builds the stack
# snapshot. The unit tests block network connections, so the proxies of a stack must not run in the same process.
FIRST = ("tests/wiring/", "tests/unit/", "tests/simulation/test_simulation.py")


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    """Yields the deployed system that all tests of one pytest worker share."""
    # The stack module is imported here because the unit tests do not need it.
    from tests.system.stack import running

    with running(tmp_path_factory.mktemp("stack")) as system:
        yield system


@pytest.fixture(autouse=True)
def tidy(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves dead letters on the shared stack, and saves the logs of a failed test."""
    if "system" not in request.fixturenames:
        yield
        return
    from tests.system.letters import take_all

    system: Faulty = request.getfixturevalue("system")
    since = time.time()
    yield
    left = take_all(system)
    if left or failed(request.node):
        save_logs(system, folder_of(request.node.nodeid), since)
    assert not left, f"the test left dead letters: {left}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[misc,assignment]
    item.stash.setdefault(REPORTS, {})[report.when] = report
    return report  # type: ignore[return-value]


def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        shutil.rmtree(FAILURES, ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Moves the tests that need no stack to the front, and builds the stack snapshot in the background."""
    if not any("system" in getattr(item, "fixturenames", ()) for item in items):
        return
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))
    if getattr(config, "workerinput", {}).get("workerid", "gw0") == "gw0":
        config.stash[BUILDER] = subprocess.Popen([sys.executable, "-m", "tests.system.stack"], cwd=config.rootpath)


BUILDER = pytest.StashKey[subprocess.Popen[bytes]]()


def pytest_unconfigure(config: pytest.Config) -> None:
    if builder := config.stash.get(BUILDER, None):
        builder.wait()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Reports why browser tests were skipped.

    With several workers, the main pytest process loads only this conftest file.
    """
    skipped = [each for each in terminalreporter.stats.get("skipped", ()) if each.nodeid.startswith("tests/browser/")]
    if skipped:
        terminalreporter.section("the console was not tested")
        reasons = {each.longrepr[2].removeprefix("Skipped: ") for each in skipped}
        terminalreporter.write_line(f"{len(skipped)} browser tests were skipped. {' '.join(sorted(reasons))}")
    if terminalreporter.stats.get("failed"):
        terminalreporter.write_line("The logs and screenshots of the failed tests are in .local/failures.")
