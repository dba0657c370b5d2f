"""Pictures on their own, outside a page: for notebooks and for files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hansa.web import drawings
from hansa.web.record import Partition, RunRecord, read_record


class Plot:
    """The curves of a run; a notebook shows them, `save` writes them.

    Args:
      svgs: one drawing a metric, the most important first.
    """

    def __init__(self, svgs: Sequence[str]) -> None:
        self.svgs = list(svgs)

    def save(self, path: str | Path) -> None:
        """Write the first drawing as SVG; further ones go beside it as name-2.svg and so on."""
        path = Path(path)
        for number, svg in enumerate(self.svgs, start=1):
            place = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
            place.write_text(svg, encoding="utf-8")

    def _repr_html_(self) -> str:
        return "".join(f'<div style="max-width: 48em">{svg}</div>' for svg in self.svgs)


def plot_record(record: RunRecord | Mapping[str, Any]) -> Plot:
    """Return a run's curves.

    Raises:
      RunError: the record cannot be read.
    """
    return Plot([d.svg for d in drawings.curves(read_record(record), standalone=True)])


def partition_picture(
    scheme: str, clients: list[str], classes: list[str], counts: list[list[int]]
) -> str:
    """Return who holds how much of what, as an SVG file; `counts` is [clients][classes]."""
    drawing = drawings.partition(Partition(scheme, clients, classes, counts), standalone=True)
    assert drawing is not None  # a split has clients
    return drawing.svg
