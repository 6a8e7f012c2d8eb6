"""The deployed system that several folders' tests share, and notes at the end of the test run.

``tests/system/__init__.py`` lists the rules for a shared stack.
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

# These tests need no stack and run first, while the stacks' snapshot is made. The unit tests forbid connections, which
# a stack's proxies would open in the same process.
FIRST = ("tests/wiring/", "tests/unit/")


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    """The deployed system. All tests of a worker share it."""
    # The unit tests do not need what this imports.
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
    """Sorts the tests, and starts making the stacks' snapshot while the first tests run."""
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
    """Reports why browser tests were skipped. With several workers, only this conftest is read here."""
    skipped = [each for each in terminalreporter.stats.get("skipped", ()) if each.nodeid.startswith("tests/browser/")]
    if skipped:
        terminalreporter.section("the console was not tested")
        reasons = {each.longrepr[2].removeprefix("Skipped: ") for each in skipped}
        terminalreporter.write_line(f"{len(skipped)} browser tests were skipped. {' '.join(sorted(reasons))}")
    if terminalreporter.stats.get("failed"):
        terminalreporter.write_line("The logs and screenshots of the failed tests are in .local/failures.")
