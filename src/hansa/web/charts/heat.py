"""Amounts in a table as colours, such as classes by client."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from hansa.web.charts.frame import CHAR, ROW, Sheet, empty, hover, num, percent, row_text, stretched
from hansa.web.charts.scales import finite
from hansa.web.style import HEAT_LEVELS, INVERSE_FROM
from hansa.web.words import clean, count, number


def heat_map(
    counts: Sequence[Sequence[float]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    x_label: str,
    y_label: str,
    standalone: bool = False,
) -> str:
    """Return a table of amounts as colours, with the numbers where they fit and totals at the end.

    Args:
      counts: one row per name in `rows`, one amount >= 0 per name in `columns`.
      rows: such as clients.
      columns: such as classes.
      title: printed above, in bold.
      x_label: what the columns are.
      y_label: what the rows are.
      standalone: embed style and size.

    """
    cells = [[max(0.0, finite(value) or 0.0) for value in row[: len(columns)]] for row in counts]
    if not cells or not columns:
        return empty(title, standalone=standalone)
    top_value = max(max(row, default=0.0) for row in cells)
    height = len(cells) * ROW
    names = [clean(name, 14) for name in rows]
    left = 14 + CHAR * max(len(clean(y_label)), *map(len, names))
    described = (
        f"{count(len(cells), clean(y_label))} by {count(len(columns), clean(x_label))}, "
        f"largest amount {number(top_value)}."
    )
    sheet = Sheet(title, described, height, left, 68, right=52, standalone=standalone)
    return sheet.draw(
        [
            _heat_header(columns, x_label, y_label),
            _heat_cells(cells, top_value, width=len(columns)),
            *_heat_numbers(cells, top_value, width=len(columns)),
            *_heat_rows(cells, names, rows=rows, columns=columns),
            _heat_scale(top_value, height),
        ]
    )


def _heat_header(columns: Sequence[str], x_label: str, y_label: str) -> str:
    size = len(columns)
    every, chars = math.ceil(size / 20), max(3, 40 // size)
    parts = [
        f'<text x="0" y="-28">{escape(clean(x_label))}</text>'
        f'<text class="e" x="-10" y="-8">{escape(clean(y_label))}</text>'
        '<text class="e" x="100%" dx="50" y="-8">total</text>'
    ]
    for index in range(0, size, every):
        text = escape(clean(columns[index], chars))
        parts.append(f'<text class="m" x="{percent((index + 0.5) / size)}" y="-8">{text}</text>')
    return "".join(parts)


def _level(value: float, top: float) -> int:
    """Return 0 for nothing, else the step from 1 to `HEAT_LEVELS`."""
    return math.ceil(HEAT_LEVELS * value / top) if value > 0 else 0


def _heat_cells(cells: list[list[float]], top: float, *, width: int) -> str:
    boxes: dict[int, list[str]] = {}
    for y, row in enumerate(cells):
        for x, value in enumerate(row):
            if value > 0:
                boxes.setdefault(_level(value, top), []).append(f"M{x} {y}h1v1h-1z")
    paths = "".join(
        f'<path class="k h{level}" d="{"".join(parts)}"/>' for level, parts in boxes.items()
    )
    return stretched(paths, width=width, height=len(cells), pixels=len(cells) * ROW)


def _heat_numbers(cells: list[list[float]], top: float, *, width: int) -> Iterator[str]:
    digits = len(f"{top:.0f}")
    if width * (digits + 1) > 90:
        return
    narrow = " y" if width * (digits * 6 + 3) > 190 else ""
    for y, row in enumerate(cells):
        for x, value in enumerate(row):
            if value > 0:
                inverse = " i" if _level(value, top) >= INVERSE_FROM else ""
                yield (
                    f'<text class="v{inverse}{narrow}" x="{percent((x + 0.5) / width)}" '
                    f'y="{y * ROW + 15}">{value:.0f}</text>'
                )


def _heat_rows(
    cells: list[list[float]], names: list[str], *, rows: Sequence[str], columns: Sequence[str]
) -> Iterator[str]:
    for y, row in enumerate(cells):
        most = sorted(range(len(row)), key=lambda x: -row[x])[:12]
        said = [f"{clean(columns[x], 20)}: {row[x]:,.0f}" for x in most if row[x] > 0]
        head = f"{clean(rows[y])}, {sum(row):,.0f} in all"
        yield row_text(names[y], f"{sum(row):,.0f}", y * ROW + ROW / 2)
        yield hover([head, *said], left=0, width=1, top=y * ROW, height=ROW)


def _heat_scale(top: float, height: float) -> str:
    size = f'y="{num(height + 16)}" width="18" height="10"'
    boxes = "".join(
        f'<rect class="h{level}" x="{14 + 18 * level}" {size}/>'
        for level in range(1, HEAT_LEVELS + 1)
    )
    last = 14 + 18 * (HEAT_LEVELS + 1) + 8
    return (
        f'<text x="0" y="{num(height + 25)}">few</text>{boxes}'
        f'<text x="{last}" y="{num(height + 25)}">up to {top:,.0f}</text>'
    )
