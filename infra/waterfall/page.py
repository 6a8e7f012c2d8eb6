"""Renders journeys as one HTML page that needs no network, no script and no other file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra import trace
from infra.deploy.target import DeployError
from infra.trace import LINES, Line
from infra.waterfall import facts, journeys
from infra.waterfall.facts import Client
from infra.waterfall.hops import Hop, Journey

FOLDER = Path(__file__).parent
THEME = FOLDER.parents[1] / "chalicelib" / "console" / "theme.css"
# A page shows at most this many lines that belong to no hop.
OTHER_LINES = 200
# The axis has at most this many ticks.
TICKS = 6


def make(lines: list[Line], identifier: str, where: str, client: Client, outputs: Mapping[str, str]) -> str:
    """Returns the page about an order, report, upload or request, whose log lines are in ``lines``.

    ``where`` names the stage, and ``outputs`` its tables and state machines.
    """
    subjects = journeys.subjects(lines, identifier)
    shown = list(journeys.journeys(lines, subjects, facts.read(lines, subjects, client, outputs)))
    return render(shown, journeys.unused(lines, shown), identifier, where, len(lines) >= LINES)


def write(file: Path, page: str) -> None:
    """Writes the page into a file. Raises ``DeployError`` if that is not possible."""
    try:
        file.write_text(page, "utf-8")
    except OSError as error:
        raise DeployError(f"{file} could not be written: {error.strerror}") from None
    print(f"{file} shows the hops: open it in a browser")


def render(shown: list[Journey], others: list[Line], identifier: str, where: str, is_cut: bool = False) -> str:
    """Returns the page. ``others`` are lines that belong to no hop, and ``is_cut`` tells that lines may be missing."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "percent": lambda part: f"{100 * part:.3f}%", "text": _text}
    style = THEME.read_text("utf-8") + (FOLDER / "page.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    lines = [line for journey in shown for hop in journey.hops for line in hop.lines] + others
    return environment.get_template("page.html").render(
        identifier=identifier,
        where=where,
        style=style,
        style_hash=f"sha256-{digest}",
        made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        request_ids=trace.correlation_ids(lines),
        journeys=[_shown(journey) for journey in shown],
        others=others[:OTHER_LINES],
        left_out=max(0, len(others) - OTHER_LINES),
        limit=f"{LINES:,}" if is_cut else "",
    )


def _shown(journey: Journey) -> dict[str, Any]:
    shown: dict[str, Any] = {"title": journey.title, "subject": journey.subject, "missing": journey.missing, "bars": []}
    if not journey.hops:
        return shown
    whole = max(max(hop.end for hop in journey.hops) - journey.start, 0.001)
    longest = max(journey.path, key=lambda hop: hop.path_end - hop.start)
    return {
        **shown,
        "began": f"{datetime.fromtimestamp(journey.start, UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3],
        "end_to_end": journey.end_to_end,
        "sum": journey.sum,
        "share": journey.sum / journey.end_to_end if journey.end_to_end else 1,
        "longest": {"name": longest.name, "seconds": longest.path_end - longest.start},
        "ticks": [(moment / whole, moment) for moment in ticks(whole)],
        "bars": [_bar(hop, journey.start, whole) for hop in journey.hops],
    }


def _bar(hop: Hop, start: float, whole: float) -> dict[str, Any]:
    """Returns a bar with its place and its widths as parts of ``whole`` seconds."""
    on_path = hop.end if hop.kind == "part" else hop.path_end
    return {
        "hop": hop,
        "offset": hop.start - start,
        "seconds": on_path - hop.start,
        "after": hop.end - on_path,
        "left": (hop.start - start) / whole,
        # A bar without any width would not be visible.
        "width": max((on_path - hop.start) / whole, 0.002),
        "rest": max(0, hop.end - on_path) / whole,
    }


def ticks(whole: float) -> list[float]:
    """Returns round moments in seconds for an axis that is ``whole`` seconds long."""
    steps = [base * 10.0**power for power in range(-4, 7) for base in (1, 2, 5)]
    step = next((step for step in steps if whole / step <= TICKS), steps[-1])
    return [number * step for number in range(int(whole / step) + 1)]


def duration(seconds: float) -> str:
    """Formats a duration such as ``9 ms``, ``1.24 s`` or ``3 min 5 s``."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _text(lines: list[Line]) -> str:
    return "\n".join(trace.shown(lines)) if lines else ""
