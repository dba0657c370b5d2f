"""Charts as SVG text, from plain numbers: lines, columns, per-client strips and heat maps.

Each function is pure and returns one `<svg>`.  Inlined into a page it takes colours from the
page's CSS variables and the width of its column; with `standalone=True` it brings its own style,
light and dark, for files and notebooks.  A gap is None, NaN or infinity.

>>> svg = line_chart([Series("training", [(1, 0.5), (2, 0.9)])],
...                  title="Accuracy", x_label="round", y_label="accuracy", standalone=True)
>>> svg.startswith("<svg ") and svg.endswith("</svg>")
True
"""

from hansa.web.charts.columns import columns
from hansa.web.charts.heat import heat_map
from hansa.web.charts.lines import line_chart
from hansa.web.charts.plot import Band, ReferenceLine, Series
from hansa.web.charts.strips import strip

__all__ = ["Band", "ReferenceLine", "Series", "columns", "heat_map", "line_chart", "strip"]
