"""Metrics that aggregate exactly: a client reports a total and a weight, never only a mean.

The federated mean is the pooled mean: `sum(total) / sum(weight)` over clients.  Both sums are
computed with rational arithmetic and rounded once, so no order of clients changes a bit of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import NamedTuple


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
    whole, total = 0, Fraction(0)
    for value in values:
        if not math.isfinite(value):
            return math.nan
        if float(value).is_integer():  # counts are many, and integers are ten times faster
            whole += int(value)
        else:
            total += Fraction(float(value))
    total += whole
    try:
        return float(total)
    except OverflowError:
        return math.inf if total > 0 else -math.inf
