"""``python -m benchmarks.page`` writes the tables in ``docs/performance.md`` from the recorded results."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks import money, results, storage_account
from benchmarks.results import Measurement, Result

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
HEAD = """\
| work | ours | peer | peer's | times faster | spread | goal |
| --- | --- | --- | --- | --- | --- | --- |"""


def with_results(page: str) -> str:
    """Returns the page with the recorded results, the costs and the simulated storage account."""
    parts = {name: table(each) for name, each in results.read().items()}
    parts |= {"money": money.tables(), "storage_account": storage_account.table()}
    for name, text in parts.items():
        page = with_part(page, name, text)
    return page


def table(measurement: Measurement) -> str:
    return "\n".join([f"Measured on {measurement.conditions}.", "", HEAD, *map(line, measurement.results)])


def line(result: Result) -> str:
    """Returns a table row, with a mark if the result is worse than the recorded result or misses its goal."""
    shortfall = 1 - result.times / (result.goal or 1)
    times = f"{result.times:.2f}" + (f" **worse** than {result.worse_than:.2f}" if result.worse_than else "")
    spread = "{:.2f} to {:.2f}".format(*result.spread) if result.spread else ""
    goal = f"{result.goal:.2f} met" if shortfall <= 0 else f"{result.goal:.2f} **missed** by {shortfall:.1%}"
    goal = goal if result.goal else ""
    return f"| {' | '.join((result.work, result.ours, result.peer, result.peers, times, spread, goal))} |"


def with_part(page: str, name: str, text: str) -> str:
    """Returns the page with the part ``name`` replaced by ``text``.

    Raises ``ValueError`` unless exactly one part has that name.
    """
    begin, end = f"<!-- measured: {name} -->", f"<!-- end of {name} -->"
    pattern = re.compile(f"({re.escape(begin)}\n).*?({re.escape(end)})", re.DOTALL)
    changed, places = pattern.subn(lambda place: f"{place[1]}{text}\n{place[2]}", page)
    if places != 1:
        raise ValueError(f"the page must contain {begin} and {end} exactly once, but contains them {places} times")
    return changed


if __name__ == "__main__":
    PAGE.write_text(with_results(PAGE.read_text()))
