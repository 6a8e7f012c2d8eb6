"""The faulty system, one for all cases, and the matrix of what they counted."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import astuple, fields
from typing import Any

import pytest

from tests.faults.counting import Count
from tests.system.stack import Faulty

COLUMNS = [each.name for each in fields(Count)]

Tell = Callable[[Count], None]


@pytest.fixture
def tell(request: pytest.FixtureRequest, system: Faulty) -> Tell:
    """Puts a case's count into the matrix, and fails it where something was lost or doubled."""
    # From now on, for the counts.
    _ = system.subscriber

    def tell(count: Count) -> None:
        request.node.user_properties.append(("count", astuple(count)))
        assert count.accepted, "nothing was accepted, so nothing was shown"
        assert (count.lost, count.doubled) == (0, 0), count

    return tell


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A case is long, and for `make faults` alone, unless it is marked as one of the short matrix."""
    for item in items:
        if "tell" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("short"):
            item.add_marker("long")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    rows: dict[str, Row] = {}
    for report in (each for reports in terminalreporter.stats.values() for each in reports):
        found = re.search(r"tests/faults/test_(\w+)\.py::test_(\w+)(?:\[(.+)\])?", getattr(report, "nodeid", ""))
        # What was left out is among them too, and has no report.
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
        "again: what a subscriber saw more than once, under a key to know it by; waiting: what failed for good, and"
        " waits for a person.\n`make faults` runs all cases, `make test` those of the short matrix."
    )
