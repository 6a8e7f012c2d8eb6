"""Prints the fault matrix, which counts the accepted, lost and duplicated items of each test case."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import astuple, fields
from typing import Any

import pytest

from tests.faults.counting import Count
from tests.system.stack import Faulty

COLUMNS = [each.name for each in fields(Count)]

Record = Callable[[Count], None]


@pytest.fixture
def record(request: pytest.FixtureRequest, system: Faulty) -> Record:
    """Returns a function that adds the counts of a test case to the fault matrix.

    The test case fails if an item was lost or duplicated.
    """
    # The subscriber that counts notifications must exist before the test case starts.
    _ = system.subscriber

    def record(count: Count) -> None:
        request.node.user_properties.append(("count", astuple(count)))
        assert count.accepted, "nothing was accepted, so this case tests nothing"
        assert (count.lost, count.doubled) == (0, 0), count

    return record


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks all fault tests as long, except those in the short fault matrix.

    Only `make faults` runs the tests that are marked as long.
    """
    for item in items:
        if "record" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("short"):
            item.add_marker("long")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    rows: dict[str, Row] = {}
    for report in (each for reports in terminalreporter.stats.values() for each in reports):
        found = re.search(r"tests/faults/test_(\w+)\.py::test_(\w+)(?:\[(.+)\])?", getattr(report, "nodeid", ""))
        # ``stats`` also contains deselected tests, but these tests have no report.
        if found and getattr(report, "when", "") in ("setup", "call"):
            counts = dict(report.user_properties).get("count")
            flow, case, fault = found.groups()
            if counts or report.failed:
                rows[report.nodeid] = (flow, fault or case.replace("_", " "), counts, report.outcome)
    if rows:
        _matrix(sorted(rows.values()), terminalreporter)


Row = tuple[str, str, list[int] | None, str]


def _matrix(rows: list[Row], reporter: Any) -> None:
    width = max(len(fault) for _, fault, _, _ in rows)

    def line(flow: str, fault: str, cells: list[Any], note: str = "") -> None:
        shown = "".join(f"{each:>10}" for each in cells)
        reporter.write_line(f"{flow:<14}{fault:<{width}}{shown}  {note}".rstrip())

    reporter.section("the fault matrix")
    line("flow", "fault", COLUMNS)
    for flow, fault, counts, outcome in rows:
        line(flow, fault, counts or ["?"] * len(COLUMNS), "" if outcome == "passed" else outcome)
    known = [counts for _, _, counts, _ in rows if counts]
    flows = len({flow for flow, *_ in rows})
    totals = [sum(column) for column in zip(*known, strict=True)] or [0] * len(COLUMNS)
    line("total", f"{len(rows)} cases over {flows} flows", totals)
    reporter.write_line(
        "again: repeated notifications with the same key; waiting: items in a dead-letter queue.\n"
        "`make faults` runs all cases. `make test` runs the short matrix."
    )
