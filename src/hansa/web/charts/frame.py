"""The sheet a chart is drawn on: size, title, legend, grid and axis texts.

Coordinates of the plot run from 0% to 100% across and in pixels downwards, with margins outside;
so on a page a chart fills its column at any width while its text keeps its size.  A chart that
stands alone has the fixed size `WIDTH`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from hansa.web.charts.scales import Axis
from hansa.web.style import SLOTS, standalone_css
from hansa.web.words import clean

WIDTH = 720
"""Pixels across of a chart that stands alone."""

GRID = 1000
"""Units across of the stretched drawing inside a plot."""

CHAR = 6.7
"""Pixels of an average character at 12 px, on the generous side."""

ROW = 22
"""Pixels down of a row with a name."""

TITLE_CHARS = 38
"""Characters of a title that fit on a phone."""

_NARROW = 320
"""Pixels that a legend may count on when the width of the page is unknown."""


class LegendEntry(NamedTuple):
    """One line or box of a legend."""

    label: str
    slot: int
    line: bool


class Sheet(NamedTuple):
    """Title, margins and height of one chart."""

    title: str
    description: str  # what a person who cannot see the chart is told
    height: int
    left: float
    top: float
    right: float = 14
    bottom: float = 40
    standalone: bool = False

    def draw(self, parts: Iterable[str]) -> str:
        """Return the SVG with `parts` in the plot and the title above."""
        label = escape(f"{clean(self.title)}. {self.description}")
        place = f'x="{num(-self.left)}" y="{num(14 - self.top)}"'
        heading = f'<text class="t" {place}>{escape(clean(self.title, TITLE_CHARS))}</text>'
        body = heading + "".join(parts)
        if self.standalone:
            return self._alone(label, body)
        margin = f"margin:{px(self.top)} {px(self.right)} {px(self.bottom)} {px(self.left)}"
        return (
            f'<svg class="hc" role="img" aria-label="{label}" height="{self.height}" '
            f'style="{margin};width:calc(100% - {px(self.left + self.right)})">{body}</svg>'
        )

    def _alone(self, label: str, body: str) -> str:
        pad = 14
        height = num(self.height + self.top + self.bottom + 2 * pad)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="hc" role="img" aria-label="{label}" '
            f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">'
            f"<style>{standalone_css()}</style>"
            f'<rect class="bg" width="{WIDTH}" height="{height}"/>'
            f'<svg x="{num(pad + self.left)}" y="{num(pad + self.top)}" '
            f'width="{num(WIDTH - 2 * pad - self.left - self.right)}" height="{self.height}" '
            f'overflow="visible">{body}</svg></svg>'
        )


def empty(title: str, *, message: str = "No values yet.", standalone: bool = False) -> str:
    """Return a chart without data, which says so."""
    sheet = Sheet(title, message, 64, 0, 34, right=0, bottom=0, standalone=standalone)
    frame = '<rect class="g" fill="none" width="100%" height="64" rx="6"/>'
    return sheet.draw([frame, f'<text class="m" x="50%" y="36">{escape(clean(message))}</text>'])


def num(value: float) -> str:
    """Return a coordinate with one decimal at most."""
    text = f"{value:.1f}"
    return text.removesuffix(".0") if text != "-0.0" else "0"


def px(value: float) -> str:
    """Return a length for CSS."""
    return f"{num(value)}px"


def percent(fraction: float) -> str:
    """Return a place across the plot."""
    text = f"{fraction * 100:.2f}".rstrip("0").rstrip(".")
    return f"{text}%"


def slot(index: int) -> str:
    """Return the class of the `index`-th colour, counted from 1."""
    return f"s{(index - 1) % SLOTS + 1}"


def stretched(paths: str, *, width: float, height: float, pixels: float) -> str:
    """Return a drawing in its own units, stretched over the plot; strokes keep their width."""
    if not paths:
        return ""
    return (
        f'<svg width="100%" height="{num(pixels)}" viewBox="0 0 {num(width)} {num(height)}" '
        f'preserveAspectRatio="none" overflow="visible">{paths}</svg>'
    )


def hover(lines: Sequence[str], *, left: float, width: float, top: float, height: float) -> str:
    """Return an invisible area that names what is under the pointer."""
    text = escape("\n".join(lines))
    place = f'x="{num(left * 100)}%"' + (f' y="{num(top)}"' if top else "")
    size = f'width="{num(width * 100)}%" height="{num(height)}"'
    return f'<rect class="p" {place} {size}><title>{text}</title></rect>'


def legend(
    entries: Sequence[LegendEntry], *, left: float, top: float, standalone: bool
) -> tuple[str, int]:
    """Return the legend and its number of rows; entries wrap where the width ends."""
    room, parts, x, row = WIDTH - 40 if standalone else _NARROW, [], 0.0, 0
    for entry in entries:
        label = clean(entry.label, 40)
        width = 26 + len(label) * CHAR + 14
        if x and x + width > room:
            x, row = 0.0, row + 1
        parts.append(_legend_entry(entry._replace(label=label), x - left, top + row * 20))
        x += width
    return "".join(parts), (row + 1 if entries else 0)


def _legend_entry(entry: LegendEntry, x: float, y: float) -> str:
    css = slot(entry.slot)
    if entry.line:
        mark = f'<path class="l {css}" d="M{num(x)} {num(y - 4)}h20"/>'
    else:
        place = f'x="{num(x + 4)}" y="{num(y - 9)}"'
        mark = f'<rect class="d {css}" {place} width="11" height="11" rx="2"/>'
    return f'{mark}<text class="n" x="{num(x + 26)}" y="{num(y)}">{escape(entry.label)}</text>'


def horizontal_grid(axis: Axis, height: float) -> str:
    """Return the lines and labels of the ticks of a vertical axis."""
    parts = []
    for tick, label in zip(axis.ticks, axis.labels(), strict=True):
        y = num(height - axis.at(tick) * height)
        parts.append(f'<line class="g" x2="100%" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="e" x="-8" y="{y}" dy=".35em">{label}</text>')
    return "".join(parts)


def bottom_axis(places: Iterable[tuple[float, str]], *, height: float, label: str) -> str:
    """Return the base line, the tick texts at fractions of the width, and the axis label."""
    ticks = "".join(
        f'<text class="m" x="{percent(place)}" y="{num(height + 17)}">{text}</text>'
        for place, text in places
    )
    return (
        f'<line class="x" x2="100%" y1="{num(height)}" y2="{num(height)}"/>{ticks}'
        f'<text class="e" x="100%" y="{num(height + 34)}">{escape(clean(label, 40))}</text>'
    )


def row_text(name: str, value: str, y: float) -> str:
    """Return the name before a row and the value after it."""
    return (
        f'<text class="n e" x="-10" y="{num(y)}" dy=".35em">{escape(name)}</text>'
        f'<text class="n e" x="100%" dx="50" y="{num(y)}" dy=".35em">{escape(value)}</text>'
    )
