"""``docs/performance.md``: what was measured last, as a table for each benchmark between two comments.

The page is the record itself: a run compares its lines with those that it finds there, and takes their places.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.compare import HEAD
from local.packages import find_program

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
# What a line may vary by that has no spread: memory, and work that was done once.
NOISE = 0.2


@dataclass(frozen=True)
class Line:
    """A line of a table: its cells, ``times`` and ``spread`` as numbers.

    ``goal`` is None where there is none, and ``note`` says that the line got worse.
    """

    work: str
    ours: str
    peer: str
    peers: str
    times: float
    spread: tuple[float, float]
    shown_spread: str
    goal: float | None
    note: str = ""

    @classmethod
    def read(cls, text: str) -> Line:
        work, ours, peer, peers, times, spread, goal = (cell.strip() for cell in text.strip().strip("|").split("|"))
        number = float(times.split()[0])
        low, high = map(float, spread.split(" to ")) if spread else (number, number)
        if low == high:
            low, high = number * (1 - NOISE), number * (1 + NOISE)
        return cls(work, ours, peer, peers, number, (low, high), spread, float(goal.split()[0]) if goal else None)

    @property
    def key(self) -> tuple[str, str]:
        """The same work may stand there against several peers."""
        return self.work, self.peer

    def beside(self, recorded: Line | None) -> Line:
        """The line, marked where all that was found now is worse than all that was found before."""
        if recorded is None or self.spread[1] >= recorded.spread[0]:
            return self
        return replace(self, note=f"**worse** than {recorded.times:.2f}")

    def __str__(self) -> str:
        goal = ""
        if self.goal is not None:
            short = 1 - self.times / self.goal
            goal = f"{self.goal:.2f} met" if short <= 0 else f"{self.goal:.2f} **missed** by {short:.1%}"
        times = f"{self.times:.2f} {self.note}".strip()
        cells = (self.work, self.ours, self.peer, self.peers, times, self.shown_spread, goal)
        return f"| {' | '.join(cells)} |"


def recorded(page: str, name: str) -> dict[tuple[str, str], Line]:
    """The lines of one benchmark in the page, by their ``key``."""
    _, _, part = page.partition(f"{_begin(name)}\n")
    _, _, rows = part.partition(_end(name))[0].partition(f"{HEAD}\n")
    lines = [Line.read(row) for row in rows.splitlines()]
    return {line.key: line for line in lines}


def with_part(page: str, name: str, text: str) -> str:
    """The page with ``text`` as its generated part ``name``. Raises ``ValueError`` where it has no place for that."""
    pattern = re.compile(f"({re.escape(_begin(name))}\n).*?({re.escape(_end(name))})", re.DOTALL)
    changed, places = pattern.subn(lambda place: f"{place[1]}{text}\n{place[2]}", page)
    if places != 1:
        raise ValueError(f"the page has {places} places for {name}, between {_begin(name)} and {_end(name)}")
    return changed


def _begin(name: str) -> str:
    return f"<!-- measured: {name} -->"


def _end(name: str) -> str:
    return f"<!-- end of {name} -->"


def table(lines: list[Line]) -> str:
    return "\n".join([f"Measured on {_where()}.", "", HEAD, *map(str, lines)])


def _where() -> str:
    """The date, the processors and the versions that the figures depend on."""
    server = find_program("mariadbd")
    said = subprocess.run([server, "--version"], capture_output=True, text=True, check=True).stdout if server else ""
    found = re.search(r"Ver ([\d.]+)", said)
    versions = {
        "Python": platform.python_version(),
        "MariaDB": found[1] if found else None,
        "MiniStack": _pinned("ministack"),
        "botocore": version("botocore"),
    }
    known = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    return f"{datetime.now(UTC):%Y-%m-%d} with {os.cpu_count()} processors, {known}"


def _pinned(name: str) -> str:
    requirements = (ROOT / "local" / "ministack-requirements.txt").read_text()
    return re.search(f"^{name}==(.*)$", requirements, re.MULTILINE)[1]  # type: ignore[index]
