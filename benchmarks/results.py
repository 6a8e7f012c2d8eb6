"""Reads and writes the benchmark results recorded in ``results.json``."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from local.cloud import REQUIREMENTS
from local.packages import find_program

FILE = Path(__file__).parent / "results.json"
# Results without a spread, such as memory or work that was done once, are assumed to vary by this fraction.
NOISE = 0.2


@dataclass(frozen=True)
class Point:
    """A point on a curve. ``value`` is the measured value in the unit ``unit``, and ``size`` is the amount of work."""

    unit: str
    curve: str
    size: float
    value: float


@dataclass(frozen=True)
class Result:
    """A comparison of the system's code with a peer. ``ours`` and ``peers`` are the measured figures with their units.

    ``times`` is how many times faster or smaller ``ours`` is, and ``spread`` is the range of ``times`` over all rounds.
    ``goal`` is the lowest accepted value of ``times``, or 0 without a goal. If this result is worse than the recorded
    result, ``worse_than`` is the recorded value of ``times``.
    """

    work: str
    ours: str
    peer: str
    peers: str
    times: float
    goal: float
    spread: tuple[float, float] | None = None
    points: tuple[Point, ...] = ()
    worse_than: float | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Returns the work and the peer, because the same work may be compared with several peers."""
        return self.work, self.peer

    @property
    def _range(self) -> tuple[float, float]:
        if self.spread is None or self.spread[0] == self.spread[1]:
            return self.times * (1 - NOISE), self.times * (1 + NOISE)
        return self.spread

    def compared_with(self, recorded: Result | None) -> Result:
        """Returns this result, marked as worse if its best round was worse than the worst recorded round."""
        worse = recorded is not None and self._range[1] < recorded._range[0]
        return replace(self, worse_than=recorded.times if recorded and worse else None)


@dataclass(frozen=True)
class Measurement:
    """A benchmark's results. ``conditions`` describes the date, the number of processors and the software versions."""

    conditions: str
    results: list[Result]


def read() -> dict[str, Measurement]:
    """Returns the recorded measurements, keyed by benchmark name."""
    return {
        name: Measurement(each["conditions"], [_result(**result) for result in each["results"]])
        for name, each in json.loads(FILE.read_text()).items()
    }


def _result(spread: list[float] | None, points: list[dict[str, float]], **fields: float) -> Result:
    return Result(
        spread=(spread[0], spread[1]) if spread else None,
        points=tuple(Point(**each) for each in points),  # type: ignore[arg-type]
        **fields,  # type: ignore[arg-type]
    )


def write(measurements: Mapping[str, Measurement]) -> None:
    content = {name: asdict(each) for name, each in measurements.items()}
    FILE.write_text(json.dumps(content, indent=2) + "\n")


def conditions() -> str:
    """Describes the current date, the number of processors and the software versions."""
    server = find_program("mariadbd")
    output = subprocess.run([server, "--version"], capture_output=True, text=True, check=True).stdout if server else ""
    mariadb = re.search(r"Ver ([\d.]+)", output)
    ministack = re.search(r"^ministack==(\S+)", REQUIREMENTS.read_text(), re.MULTILINE)
    versions = {
        "Python": platform.python_version(),
        "MariaDB": mariadb[1] if mariadb else None,
        "MiniStack": ministack[1] if ministack else None,
        "botocore": version("botocore"),
    }
    known = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    return f"{datetime.now(UTC):%Y-%m-%d} with {os.cpu_count()} processors, {known}"
