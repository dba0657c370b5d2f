"""The named task of federated statistics: what a client tells of the columns of its own rows.

    from hansa.learners.statistics import statistics        # in the project's model.py

It takes two questions.  The first asks for counts, sums and ranges; the second, which brings the
mean and the range over all clients, for squared deviations and a histogram.  So variances are exact
and all histograms have the same bins, while no row leaves.  Sums are correctly rounded, so that
the order of rows does not matter.

Source: NVFlare's Statistics.  Ours differs: a client with fewer rows than the question's `minimum`
answers nothing at all.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hansa.errors import LearnerError
from hansa.learners.named_tasks import TaskContext, task


@task("statistics")
def statistics(params: Any, data: Any, ctx: TaskContext) -> dict[str, Any]:
    """Tell what is asked of this client's training rows.

    Args:
      params: not used.
      data: with `train`, whose `x` holds rows [n, ...]; each further index is a column.
      ctx: `settings` may name `minimum`, the rows without which nothing is told; in the second
        question `mean`, `low` and `high` of each column, and `bins`.

    Raises:
      LearnerError: learner-no-data, there are fewer rows than `minimum`.
    """
    rows = np.asarray(data.train.x, np.float64).reshape(len(data.train.x), -1)
    minimum = int(ctx.settings.get("minimum", 1))
    if len(rows) < max(minimum, 1):
        raise LearnerError(
            "learner-no-data",
            f"This client has fewer than {max(minimum, 1)} rows, so it tells nothing of them.",
            "Ask for less: statistics of few rows are nearly the rows themselves.",
        )
    known = ~np.isnan(rows)
    if "mean" not in ctx.settings:
        return {
            "count": known.sum(0).tolist(),
            "missing": (~known).sum(0).tolist(),
            "sum": _sums(np.where(known, rows, 0.0)),
            "low": np.where(known.any(0), np.where(known, rows, np.inf).min(0), 0.0).tolist(),
            "high": np.where(known.any(0), np.where(known, rows, -np.inf).max(0), 0.0).tolist(),
        }
    mean, low, high = (np.array(ctx.settings[key], np.float64) for key in ("mean", "low", "high"))
    bins = int(ctx.settings["bins"])
    counts = [
        np.histogram(rows[known[:, j], j], bins, (low[j], high[j]))[0].tolist() if bins else []
        for j in range(rows.shape[1])
    ]
    return {
        "squares": _sums(np.where(known, rows - mean, 0.0) ** 2),
        "histogram": counts,
    }


def _sums(rows: np.ndarray) -> list[float]:
    """Return the sum of each column, rounded once; NaN, which is refused, where it is none."""
    return [_sum(column.tolist()) for column in rows.T]


def _sum(values: list[float]) -> float:
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # beyond the largest float, or infinities of both signs
        return math.nan
