"""Lines over rounds, with the spread as bands behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from hansa.web.charts.frame import (
    GRID,
    LegendEntry,
    Sheet,
    bottom_axis,
    empty,
    horizontal_grid,
    hover,
    legend,
    num,
    percent,
    slot,
    stretched,
)
from hansa.web.charts.plot import (
    HEIGHT,
    RESOLUTION,
    Band,
    Plot,
    ReferenceLine,
    Series,
    axis_name,
    describe,
    left_margin,
    reference,
)
from hansa.web.charts.scales import Number, finite, linear, logarithmic, spaced, thin
from hansa.web.words import clean, number

HOVERS_MAX = 75
"""Places along a line that name their values under the pointer."""

MARKED_POINTS = 40
"""Up to this many points each one gets a dot."""


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    bands: Sequence[Band] = (),
    reference_lines: Sequence[ReferenceLine] = (),
    log: bool = False,
    resolution: int = RESOLUTION,
    standalone: bool = False,
) -> str:
    """Return lines over a common x, with bands behind and reference lines across.

    Args:
      series: at least one finite point in all, or the chart says that it is empty.
      title: printed above, in bold.
      x_label: such as "round"; also used in the texts shown on hover.
      y_label: printed above the vertical axis.
      bands: areas; they widen the vertical axis.
      reference_lines: constants; they widen the vertical axis too.
      log: logarithmic vertical axis where every value is positive; otherwise linear.
      resolution: points per line after thinning.
      standalone: embed style and size.

    """
    values = [v for one in series for _, point in one.points if (v := finite(point)) is not None]
    if not values:
        return empty(title, standalone=standalone)
    plot = _line_plot(series, values, bands=bands, references=reference_lines, log=log)
    left = left_margin(plot.y)
    entries = [LegendEntry(one.label, one.slot, line=True) for one in series]
    keys, rows = legend(entries, left=left, top=0, standalone=standalone)
    sheet = Sheet(
        title, describe(series, y_label), HEIGHT, left, 52 + 20 * rows, standalone=standalone
    )
    labels = zip(plot.x.ticks, plot.x.labels(), strict=True)
    return sheet.draw(
        [
            f'<g transform="translate(0 {num(38 - sheet.top)})">{keys}</g>',
            axis_name(y_label, left),
            horizontal_grid(plot.y, HEIGHT),
            stretched(
                "".join(_band_path(band, plot, resolution) for band in bands)
                + "".join(_line_path(one, plot, resolution) for one in series),
                width=GRID,
                height=HEIGHT,
                pixels=HEIGHT,
            ),
            *(reference(line, plot) for line in reference_lines),
            *(_marks(one, plot, resolution) for one in series),
            bottom_axis(
                ((plot.x.at(tick), text) for tick, text in labels), height=HEIGHT, label=x_label
            ),
            *_line_hovers(series, bands, plot, x_label=x_label, limit=resolution),
        ]
    )


def _line_plot(
    series: Sequence[Series],
    values: list[float],
    *,
    bands: Sequence[Band],
    references: Sequence[ReferenceLine],
    log: bool,
) -> Plot:
    edges = [v for band in bands for _, *pair in band.points for v in pair]
    constants = [line.value for line in references]
    inside = values + [v for edge in (*edges, *constants) if (v := finite(edge)) is not None]
    places = [x for one in series for x, _ in one.points]
    whole = all(float(x).is_integer() for x in places)
    y_axis = logarithmic(inside) if log and min(inside) > 0 else linear(inside)
    return Plot(linear(places, count=6, integer=whole, snap=False), y_axis)


def _segments(gaps: Sequence[bool]) -> Iterator[list[int]]:
    """Yield the runs of neighbouring points without a gap."""
    run: list[int] = []
    for index, gap in enumerate(gaps):
        if gap:
            if run:
                yield run
            run = []
        else:
            run.append(index)
    if run:
        yield run


def _thinned(one: Series, resolution: int) -> list[tuple[float, Number]]:
    keep = thin([value for _, value in one.points], resolution)
    return [(one.points[i][0], finite(one.points[i][1])) for i in keep]


def _line_path(one: Series, plot: Plot, resolution: int) -> str:
    points = _thinned(one, resolution)
    runs = _segments([value is None for _, value in points])
    path = "".join(
        "M"
        + "L".join(
            f"{num(plot.x.at(x) * GRID)} {num(plot.down(value or 0.0))}"
            for x, value in (points[i] for i in run)
        )
        for run in runs
        if len(run) > 1
    )
    return f'<path class="l {slot(one.slot)}" d="{path}"/>' if path else ""


def _marks(one: Series, plot: Plot, resolution: int) -> str:
    """Return dots where a line alone would hide points, and a cross where values were lost."""
    points = _thinned(one, resolution)
    runs = list(_segments([value is None for _, value in points]))
    alone = {run[0] for run in runs if len(run) == 1} | {runs[-1][-1] for _ in runs[:1]}
    parts = []
    for index, (x, value) in enumerate(points):
        place = percent(plot.x.at(x))
        if value is not None and (len(points) <= MARKED_POINTS or index in alone):
            parts.append(f'<circle cx="{place}" cy="{num(plot.down(value))}" r="3"/>')
        elif value is None and (index == 0 or points[index - 1][1] is not None):
            parts.append(f'<text class="z m" x="{place}" y="{num(plot.height - 4)}">&#215;</text>')
    return f'<g class="d {slot(one.slot)}">{"".join(parts)}</g>' if parts else ""


def _band_path(band: Band, plot: Plot, resolution: int) -> str:
    lows = [finite(low) for _, low, _ in band.points]
    highs = [finite(high) for _, _, high in band.points]
    keep = sorted({*thin(lows, resolution), *thin(highs, resolution)})
    points = [(band.points[i][0], lows[i], highs[i]) for i in keep]
    path = ""
    for run in _segments([low is None or high is None for _, low, high in points]):
        # A single round still shows its spread, as a narrow box.
        pad = 6.0 if len(run) == 1 else 0.0
        upper, lower = [], []
        for x, low, high in (points[i] for i in run):
            place = plot.x.at(x) * GRID
            for at in (place - pad, place + pad) if pad else (place,):
                upper.append(f"{num(at)} {num(plot.down(high or 0.0))}")
                lower.append(f"{num(at)} {num(plot.down(low or 0.0))}")
        path += f"M{'L'.join(upper + lower[::-1])}Z"
    return f'<path class="{"q" if band.inner else "f"} {slot(band.slot)}" d="{path}"/>'


def _line_hovers(
    series: Sequence[Series], bands: Sequence[Band], plot: Plot, *, x_label: str, limit: int
) -> Iterator[str]:
    places = sorted({x for one in series for x, _ in one.points})
    places = [places[i] for i in spaced(len(places), min(limit, HOVERS_MAX))]
    lines: dict[float, list[str]] = {x: [f"{clean(x_label)} {x:g}"] for x in places}
    for one in series:
        for x, value in one.points:
            if x in lines:
                lines[x].append(f"{clean(one.label)}: {number(value)}")
    for band in bands:
        for x, low, high in band.points:
            if x in lines and finite(low) is not None and finite(high) is not None:
                lines[x].append(f"{clean(band.label)}: {number(low)} to {number(high)}")
    at = [plot.x.at(x) for x in places]
    edges = [0.0, *((a + b) / 2 for a, b in pairwise(at)), 1.0]
    for index, x in enumerate(places):
        left, right = edges[index], edges[index + 1]
        yield hover(lines[x], left=left, width=right - left, top=0, height=plot.height)
