"""Metrics that aggregate exactly: a client reports a total and a weight, never only a mean.

The federated mean is the pooled mean: `sum(total) / sum(weight)` over clients.  Both sums are
computed with rational arithmetic and rounded once, so no order of clients changes a bit of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np


class Mean(NamedTuple):
    """A mean that has not been divided yet.

    >>> Mean(total=3.0, weight=4.0).value
    0.75
    """

    total: float  # sum of the per-example values
    weight: float  # how many examples, or what stands for them

    @property
    def value(self) -> float:
        """The mean itself; NaN when nothing was counted."""
        return self.total / self.weight if self.weight else math.nan


Metrics = Mapping[str, Mean]
"""What one client measured, by name."""


_COSTS = ("loss", "error", "mse", "mae", "perplexity", "entropy", "nll", "deviance", "brier")


def lower_is_better(metric: str) -> bool:
    """Return whether a metric counts mistakes, as far as its name tells.

    >>> lower_is_better("val_loss"), lower_is_better("rmse"), lower_is_better("accuracy")
    (True, True, False)
    """
    return any(word in metric.lower() for word in _COSTS)


def pooled(means: list[Mean]) -> Mean:
    """Return the sum of several undivided means; NaN where a total or a weight is not finite.

    >>> pooled([Mean(1.0, 2.0), Mean(3.0, 4.0)])
    Mean(total=4.0, weight=6.0)
    """
    return Mean(_sum(m.total for m in means), _sum(m.weight for m in means))


def _sum(values: Iterable[float]) -> float:
    """Return the exact sum, rounded once; infinite if it is beyond the largest float."""
    total = Fraction(0)
    for value in values:
        if not math.isfinite(value):
            return math.nan
        total += Fraction(float(value))
    try:
        return float(total)
    except OverflowError:
        return math.inf if total > 0 else -math.inf


def summarise(by_client: Mapping[str, Mean]) -> dict[str, Any]:
    """Return the pooled mean of one metric and its spread over clients, as plain JSON data.

    Values that are not finite become None, and do not count in the quartiles, which interpolate
    linearly (Hyndman-Fan type 7).
    """
    mean = pooled(list(by_client.values()))
    values = {client: m.value for client, m in sorted(by_client.items())}
    finite = np.asarray([v for v in values.values() if math.isfinite(v)])
    ranks = np.quantile(finite, [0, 0.25, 0.5, 0.75, 1]) if len(finite) else [math.nan] * 5
    names = ("min", "q25", "median", "q75", "max")
    return {
        "mean": _json(mean.value),
        "weight": _json(mean.weight),
        **{name: _json(float(rank)) for name, rank in zip(names, ranks, strict=True)},
        "by_client": {client: _json(value) for client, value in values.items()},
    }


def summarise_all(reports: Mapping[str, Metrics]) -> dict[str, dict[str, Any]]:
    """Return `summarise` of every metric that any client reported; `reports` is by client."""
    names = sorted({name for metrics in reports.values() for name in metrics})
    return {
        name: summarise({c: metrics[name] for c, metrics in reports.items() if name in metrics})
        for name in names
    }


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None
