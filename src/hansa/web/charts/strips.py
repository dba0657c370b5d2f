"""One value per client, sorted, with names at least at the ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise

from hansa.web.charts.frame import (
    CHAR,
    ROW,
    Sheet,
    bottom_axis,
    empty,
    horizontal_grid,
    hover,
    num,
    percent,
    row_text,
)
from hansa.web.charts.plot import HEIGHT, Plot, ReferenceLine, axis_name, left_margin, reference
from hansa.web.charts.scales import Axis, Number, finite, linear, spaced
from hansa.web.words import amount, clean, count, number

ROWS_MAX = 24
"""Up to this many clients a strip has one named row each."""

RANKED_MAX = 150
"""Clients drawn in a ranked strip; more are thinned, the lowest are all kept."""


def strip(
    values: Mapping[str, Number],
    *,
    title: str,
    x_label: str,
    reference_lines: Sequence[ReferenceLine] = (),
    from_zero: bool = False,
    standalone: bool = False,
) -> str:
    """Return one value per client, sorted, so that one sees who is far from the rest.

    Up to `ROWS_MAX` clients have a named row each; more become ranked dots whose ends are named.

    Args:
      values: by client; clients without a number are listed last, or counted in the label.
      title: printed above, in bold.
      x_label: what the values are.
      reference_lines: the first one is where the stems of the dots start.
      from_zero: bars from zero, for amounts; always one row per client.
      standalone: embed style and size.

    """
    known = [(v, name) for name, value in values.items() if (v := finite(value)) is not None]
    if not known:
        return empty(title, standalone=standalone)
    known.sort(key=lambda pair: (-pair[0], pair[1]))
    lost = [name for name, value in values.items() if finite(value) is None]
    lines = [line for line in reference_lines if finite(line.value) is not None]
    described = (
        f"{count(len(known), 'client')}: {clean(x_label)} from {number(known[-1][0])} "
        f"({clean(known[-1][1])}) to {number(known[0][0])} ({clean(known[0][1])})."
    )
    make = _rows if from_zero or len(values) <= ROWS_MAX else _ranked
    return make(
        known,
        lost,
        lines,
        sheet=Sheet(title, described, 0, 0, 0, standalone=standalone),
        label=x_label,
        from_zero=from_zero,
    )


def _rows(
    known: list[tuple[float, str]],
    lost: list[str],
    lines: Sequence[ReferenceLine],
    *,
    sheet: Sheet,
    label: str,
    from_zero: bool,
) -> str:
    axis = linear(_range(known, lines, from_zero=from_zero), count=4)
    names = [clean(name, 16) for _, name in known] + [clean(name, 16) for name in lost]
    left = 14 + CHAR * max(map(len, names))
    height = len(names) * ROW
    sheet = sheet._replace(height=height, left=left, top=30 + 17 * len(lines), right=52)
    shown = amount if from_zero else number
    origin = axis.at(0.0 if from_zero else lines[0].value) if from_zero or lines else None
    parts = [_vertical_grid(axis, height, label), *_vertical_references(lines, axis, height)]
    for row, (value, name) in enumerate(known):
        y = row * ROW + ROW / 2
        parts.append(row_text(names[row], shown(value), y))
        parts.append(_row_mark(axis.at(value), origin, y, bar=from_zero))
        said = [clean(name), f"{clean(label)}: {shown(value)}"]
        parts.append(hover(said, left=0, width=1, top=row * ROW, height=ROW))
    for row, name in enumerate(names[len(known) :], start=len(known)):
        parts.append(row_text(name, "no value", row * ROW + ROW / 2))
    return sheet.draw(parts)


def _range(
    known: list[tuple[float, str]], lines: Sequence[ReferenceLine], *, from_zero: bool
) -> list[float]:
    """Return what the axis must hold: at least a tenth of the values, so that alike looks alike."""
    values = [*(value for value, _ in known), *(line.value for line in lines)]
    if from_zero:
        return [0.0, *values]
    low, high = min(values), max(values)
    middle, share = low / 2 + high / 2, low >= 0 and high <= 1
    pad = abs(middle) * 0.05
    return [low, high, middle - pad, min(1.0, middle + pad) if share else middle + pad]


def _row_mark(at: float, origin: float | None, y: float, *, bar: bool) -> str:
    if bar:
        return f'<rect class="d s1" y="{num(y - 6)}" height="12" width="{percent(at)}" rx="1"/>'
    dot = f'<circle class="d s1" cx="{percent(at)}" cy="{num(y)}" r="4.5"/>'
    if origin is None:
        return dot
    ends = f'x1="{percent(origin)}" x2="{percent(at)}" y1="{num(y)}" y2="{num(y)}"'
    return f'<line class="s s1" {ends}/>{dot}'


def _vertical_grid(axis: Axis, height: float, label: str) -> str:
    places = [(axis.at(t), text) for t, text in zip(axis.ticks, axis.labels(), strict=True)]
    grid = "".join(
        f'<line class="g" x1="{percent(at)}" x2="{percent(at)}" y2="{num(height)}"/>'
        for at, _ in places
    )
    return grid + bottom_axis(places, height=height, label=label)


def _vertical_references(
    lines: Sequence[ReferenceLine], axis: Axis, height: float
) -> Iterator[str]:
    """Yield upright lines whose texts stand above each other and point inwards."""
    for index, line in enumerate(lines):
        at, y = axis.at(line.value), -6 - 17 * (len(lines) - 1 - index)
        turn = ' class="n e" dx="-4"' if at > 0.5 else ' class="n" dx="4"'
        text = escape(f"{clean(line.label, 30)} {number(line.value)}")
        place = percent(at)
        yield f'<line class="r" x1="{place}" x2="{place}" y1="{num(y - 10)}" y2="{num(height)}"/>'
        yield f'<text{turn} x="{place}" y="{num(y)}">{text}</text>'


def _ranked(
    known: list[tuple[float, str]],
    lost: list[str],
    lines: Sequence[ReferenceLine],
    *,
    sheet: Sheet,
    label: str,
    from_zero: bool,
) -> str:
    rising = known[::-1]
    y_axis = linear(_range(known, lines, from_zero=from_zero))
    plot = Plot(linear([1.0, float(len(rising))], count=6, integer=True, snap=False), y_axis)
    keep = sorted({*range(min(30, len(rising))), *spaced(len(rising), RANKED_MAX - 30)})
    at = [plot.x.at(rank + 1) for rank in keep]
    edges = [0.0, *((a + b) / 2 for a, b in pairwise(at)), 1.0]
    left = left_margin(y_axis)
    parts = [
        axis_name(label, left),
        horizontal_grid(y_axis, HEIGHT),
        *(reference(line, plot, start=True) for line in lines),
    ]
    for index, rank in enumerate(keep):
        value, name = rising[rank]
        y = num(plot.down(value))
        parts.append(f'<circle class="d s1" cx="{percent(at[index])}" cy="{y}" r="3"/>')
    for index, rank in enumerate(keep):
        value, name = rising[rank]
        width = edges[index + 1] - edges[index]
        said = [clean(name), f"{clean(label)}: {number(value)}"]
        parts.append(hover(said, left=edges[index], width=width, top=0, height=HEIGHT))
    parts.append(_end_names(rising, plot))
    ranks = zip(plot.x.ticks, plot.x.labels(), strict=True)
    missing = f"; {len(lost):,} without a value" if lost else ""
    parts.append(
        bottom_axis(
            ((plot.x.at(tick), text) for tick, text in ranks),
            height=HEIGHT,
            label=f"lowest first{missing}",
        )
    )
    return sheet._replace(height=HEIGHT, left=left, top=74).draw(parts)


def _end_names(rising: list[tuple[float, str]], plot: Plot) -> str:
    """Return the name of the lowest client beside its dot, and of the highest above the plot."""
    (low, lowest), (high, highest) = rising[0], rising[-1]
    return (
        f'<text class="n o" x="0" dx="9" y="{num(plot.down(low))}" dy=".35em">'
        f"{escape(clean(lowest, 16))} {number(low)}</text>"
        f'<text class="n e" x="100%" y="-32">highest: '
        f"{escape(clean(highest, 16))} {number(high)}</text>"
    )
