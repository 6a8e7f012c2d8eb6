"""``docs/images/growth.svg``: how time and memory grow with the work, drawn from the recorded lines."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.page import ROOT, Line

PICTURE = ROOT / "docs" / "images" / "growth.svg"
# Of a curve: its points, as the size of the work and the figure.
Curves = dict[str, list[tuple[float, float]]]


def draw(recorded: Mapping[str, Mapping[tuple[str, str], Line]]) -> None:
    """The same lines are the same picture, to the byte."""
    with mpl.rc_context({"svg.hashsalt": "growth", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure(recorded).savefig(PICTURE, metadata={"Date": None}, facecolor="white")


def figure(recorded: Mapping[str, Mapping[tuple[str, str], Line]]) -> Figure:
    inventory, orders = recorded["inventory"].values(), recorded["orders"].values()
    panels = (
        ("Inventory report: time", "rows", "seconds", times(inventory, r"inventory report, ([\d,]+) rows")),
        ("Inventory report: peak memory", "rows", "MB", memory(inventory)),
        ("store_orders: time", "messages", "seconds", times(orders, r"store_orders, ([\d,]+) messages")),
    )
    drawn = Figure(figsize=(13, 5), layout="constrained")
    for axes, (title, size, unit, curves) in zip(drawn.subplots(1, len(panels)), panels, strict=True):
        for name, points in curves.items():
            axes.plot(*zip(*sorted(points), strict=True), marker="o", label=name)
        # Where time is in proportion to the work the line rises by one decade in each.
        axes.set(title=title, xlabel=size, ylabel=unit, xscale="log", yscale="log" if unit == "seconds" else "linear")
        if unit == "MB":
            axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.3)
        if curves:
            # Below, where it hides no point.
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False)
    return drawn


def times(lines: Iterable[Line], pattern: str) -> Curves:
    """Ours and the peer's seconds, of the lines whose work is ``pattern`` with a size in it."""
    curves: Curves = defaultdict(list)
    for line in lines:
        if found := re.fullmatch(pattern, line.work):
            curves["ours"].append((_number(found[1]), _number(line.ours)))
            curves[line.peer].append((_number(found[1]), _number(line.peers)))
    return dict(curves)


def memory(lines: Iterable[Line]) -> Curves:
    """Of each function, and of the peers where they are other work and not the same with fewer rows."""
    curves: Curves = defaultdict(list)
    for line in lines:
        if found := re.fullmatch(r"(.+), ([\d,]+) rows, peak memory", line.work):
            curves[found[1]].append((_number(found[2]), _number(line.ours)))
            same = re.fullmatch(r"the same with ([\d,]+)", line.peer)
            name, size = (found[1], same[1]) if same else (line.peer, found[2])
            curves[name].append((_number(size), _number(line.peers)))
    return dict(curves)


def _number(text: str) -> float:
    """The number that a text such as ``1,000`` or ``0.123 s`` begins with."""
    return float(text.split()[0].replace(",", ""))
