"""Draws ``docs/images/growth.svg``, a chart of how time and memory grow with the amount of work."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.page import ROOT
from benchmarks.results import Measurement, Result

PICTURE = ROOT / "docs" / "images" / "growth.svg"
# Each tuple contains the title of a panel, its benchmark, the label of its horizontal axis and the unit of its vertical
# axis.
PANELS = (
    ("Inventory report: time", "inventory", "rows", "seconds"),
    ("Inventory report: peak memory", "inventory", "rows", "MB"),
    ("store_orders: time", "orders", "messages", "seconds"),
)


def draw(measurements: Mapping[str, Measurement]) -> None:
    """Writes the picture. The same recorded results always produce exactly the same file."""
    with mpl.rc_context({"svg.hashsalt": "growth", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure(measurements).savefig(PICTURE, metadata={"Date": None}, facecolor="white")


def figure(measurements: Mapping[str, Measurement]) -> Figure:
    drawn = Figure(figsize=(13, 5), layout="constrained")
    for axes, (title, benchmark, size, unit) in zip(drawn.subplots(1, len(PANELS)), PANELS, strict=True):
        points_of = curves(measurements[benchmark].results, unit)
        for name, points in points_of.items():
            axes.plot(*zip(*sorted(points), strict=True), marker="o", label=name)
        # If both axes are logarithmic, a time that is proportional to the work appears as a straight line.
        axes.set(title=title, xlabel=size, ylabel=unit, xscale="log", yscale="log" if unit == "seconds" else "linear")
        if unit == "MB":
            axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.3)
        if points_of:
            # The legend is below the panel so that it hides no points.
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False)
    return drawn


def curves(results: Iterable[Result], unit: str) -> dict[str, list[tuple[float, float]]]:
    """Returns the points of each curve, as pairs of the amount of work and the measured value."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for result in results:
        for point in result.points:
            if point.unit == unit:
                found[point.curve].append((point.size, point.value))
    return dict(found)
