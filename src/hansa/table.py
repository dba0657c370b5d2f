"""Rows of plain values as a table: on a terminal, in a notebook, for pandas."""

from __future__ import annotations

from typing import Any

from hansa.text import clean

CELL_CHARS = 100
"""Characters of a table's cell; a digest has 71."""


class Table(list[dict[str, Any]]):
    """Rows of plain values; `pandas.DataFrame(table)` works, and notebooks show it as a table."""

    def columns(self) -> list[str]:
        """Return the column names in order of first appearance."""
        return list(dict.fromkeys(name for row in self for name in row))

    def _repr_html_(self) -> str:
        from html import escape  # for notebooks alone

        columns = self.columns()
        head = "".join(f"<th>{escape(clean(name))}</th>" for name in columns)
        rows = "".join(
            "<tr>"
            + "".join(f"<td>{escape(cell(row.get(name)))}</td>" for name in columns)
            + "</tr>"
            for row in self
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"

    def __str__(self) -> str:
        columns = self.columns()
        heads = [clean(name) for name in columns]
        lines = [heads, *([cell(row.get(name)) for name in columns] for row in self)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
        return "\n".join(
            "  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True))
            for line in lines
        )


def cell(value: Any) -> str:
    """Return a value as a person wants to read it in a table."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else clean(value, CELL_CHARS)
