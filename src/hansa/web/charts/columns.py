"""Stacked columns over rounds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from hansa.web.charts.frame import (
    LegendEntry,
    Sheet,
    bottom_axis,
    empty,
    horizontal_grid,
    hover,
    legend,
    num,
    slot,
    stretched,
)
from hansa.web.charts.plot import RESOLUTION, Plot, Series, axis_name, describe, left_margin
from hansa.web.charts.scales import Axis, finite, linear
from hansa.web.words import amount, clean

HEIGHT = 96
"""Pixels down of a plot; lower than for lines, since three of them stand together."""


def columns(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    resolution: int = RESOLUTION,
    standalone: bool = False,
) -> str:
    """Return stacked columns from zero, such as accepted and failed clients by round.

    All series have the same x in the same order.  Above `resolution` columns neighbours are
    averaged, and the axis label says so.
    """
    places = [x for x, _ in series[0].points] if series else []
    heights = [[max(0.0, finite(v) or 0.0) for _, v in one.points] for one in series]
    if not places:
        return empty(title, standalone=standalone)
    group = math.ceil(len(places) / resolution)
    stacks = _averages(heights, group)
    y_axis = linear([0.0, max(max(map(sum, stacks)), 1e-9)], count=3)
    left = left_margin(y_axis)
    entries = [LegendEntry(one.label, one.slot, line=False) for one in series]
    keys, rows = legend(entries, left=left, top=0, standalone=standalone)
    top = 52 + 20 * rows
    sheet = Sheet(title, describe(series, y_label), HEIGHT, left, top, standalone=standalone)
    plot = Plot(Axis(0.0, float(len(stacks)), ()), y_axis, HEIGHT)
    averaged = f", averages of {group}" if group > 1 else ""
    return sheet.draw(
        [
            f'<g transform="translate(0 {num(38 - sheet.top)})">{keys}</g>',
            axis_name(y_label, left),
            horizontal_grid(y_axis, HEIGHT),
            _column_paths(series, stacks, plot),
            bottom_axis(_column_ticks(places, group), height=HEIGHT, label=f"{x_label}{averaged}"),
            *_column_hovers(series, stacks, places, x_label=x_label, group=group),
        ]
    )


def _averages(heights: list[list[float]], group: int) -> list[list[float]]:
    """Return one stack per column, each the mean of `group` neighbours (fewer in the last)."""
    stacks = []
    for first in range(0, len(heights[0]), group):
        parts = [height[first : first + group] for height in heights]
        stacks.append([sum(part) / len(part) for part in parts])
    return stacks


def _column_paths(series: Sequence[Series], stacks: list[list[float]], plot: Plot) -> str:
    # Gaps between many thin columns would only flicker.
    thick = min(0.8, len(stacks) * 0.08) if len(stacks) <= 50 else 1.0
    paths = []
    for level, one in enumerate(series):
        boxes = []
        for index, stack in enumerate(stacks):
            bottom, top = plot.down(sum(stack[:level])), plot.down(sum(stack[: level + 1]))
            if bottom - top > 0.05:
                left = f"{index + (1 - thick) / 2:.3g}"
                boxes.append(f"M{left} {num(bottom)}h{thick:.2g}v{num(top - bottom)}h-{thick:.2g}z")
        if boxes:
            paths.append(f'<path class="c {slot(one.slot)}" d="{"".join(boxes)}"/>')
    return stretched("".join(paths), width=len(stacks), height=plot.height, pixels=HEIGHT)


def _column_ticks(places: Sequence[float], group: int) -> list[tuple[float, str]]:
    columns_drawn = math.ceil(len(places) / group)
    whole = all(float(x).is_integer() for x in places)
    axis = linear(places, count=6, integer=whole, snap=False)
    index = {x: i for i, x in enumerate(places)}
    return [
        ((index[tick] // group + 0.5) / columns_drawn, text)
        for tick, text in zip(axis.ticks, axis.labels(), strict=True)
        if tick in index
    ]


def _column_hovers(
    series: Sequence[Series],
    stacks: list[list[float]],
    places: Sequence[float],
    *,
    x_label: str,
    group: int,
) -> Iterator[str]:
    size = len(stacks)
    for index, stack in enumerate(stacks):
        first = places[index * group]
        last = places[min(len(places), (index + 1) * group) - 1]
        head = f"{clean(x_label)} {first:g}" + (f" to {last:g}, average" if last != first else "")
        lines = [f"{clean(s.label)}: {amount(v)}" for s, v in zip(series, stack, strict=True)]
        yield hover([head, *lines], left=index / size, width=1 / size, top=0, height=HEIGHT)
