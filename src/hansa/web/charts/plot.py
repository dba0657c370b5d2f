"""What is drawn: series, bands and reference lines, and the plot that gives values their places."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from hansa.web.charts.frame import CHAR, num
from hansa.web.charts.scales import Axis, Number, finite
from hansa.web.words import clean, number

HEIGHT = 200
"""Pixels down of a plot."""

RESOLUTION = 120
"""Points of one line; more are thinned without losing peaks or gaps."""


class Series(NamedTuple):
    """One line: points in the order of x, and a colour counted from 1."""

    label: str
    points: Sequence[tuple[float, Number]]
    slot: int = 1


class Band(NamedTuple):
    """An area between two values per x, such as the spread over clients; `inner` is darker."""

    label: str
    points: Sequence[tuple[float, Number, Number]]
    slot: int = 1
    inner: bool = False


class ReferenceLine(NamedTuple):
    """A constant to compare with, drawn dashed and named."""

    label: str
    value: float


class Plot(NamedTuple):
    """Two axes and a height in pixels."""

    x: Axis
    y: Axis
    height: float = HEIGHT

    def down(self, value: float) -> float:
        """Return how many pixels below the top `value` lies."""
        return self.height - self.y.at(value) * self.height


def left_margin(axis: Axis) -> float:
    """Return the pixels that the labels of a vertical axis need."""
    return max(30.0, 12 + CHAR * max(len(label) for label in axis.labels()))


def axis_name(label: str, left: float) -> str:
    """Return the name of a vertical axis, printed above it."""
    return f'<text x="{num(-left)}" y="-14">{escape(clean(label))}</text>'


def describe(series: Sequence[Series], y_label: str) -> str:
    """Return the chart in words: where each line begins and ends."""
    parts = []
    for one in series:
        known = [v for _, point in one.points if (v := finite(point)) is not None]
        if known:
            ends = f"{number(known[0])} to {number(known[-1])}"
            parts.append(f"{clean(one.label)}: {clean(y_label)} from {ends}")
    return "; ".join(parts) + "."


def reference(line: ReferenceLine, plot: Plot, *, start: bool = False) -> str:
    """Return a dashed line across the plot, named below its end, or above its start."""
    value = finite(line.value)
    if value is None:
        return ""
    y = plot.down(value)
    above = y > 14 if start else y > plot.height - 18
    place = f'class="n{"" if start else " e"} o" x="{0 if start else 100}%"'
    text = escape(f"{clean(line.label, 36)} {number(value)}")
    return (
        f'<line class="r" x2="100%" y1="{num(y)}" y2="{num(y)}"/>'
        f'<text {place} y="{num(y - 6 if above else y + 15)}">{text}</text>'
    )
