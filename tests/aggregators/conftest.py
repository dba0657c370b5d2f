"""One way to run a round of one vector through an aggregator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from hansa.aggregators import AggregationSpec, Aggregator, Contribution, VectorSpec, admit


@pytest.fixture(scope="session")
def aggregate() -> Callable[..., np.ndarray]:
    """`aggregate(aggregator, rows, weights)`: the result for clients "c0", "c1", ..."""

    def run(
        aggregator: Aggregator,
        rows: Sequence[Sequence[float]] | np.ndarray,
        weights: Sequence[float] | None = None,
        *,
        dtype: str = "float64",
        bound: float | None = 64.0,
        weight_limit: float = 1024.0,
    ) -> np.ndarray:
        rows = np.asarray(rows, dtype)
        spec = AggregationSpec({"x": VectorSpec(rows.shape[1], dtype, bound)}, weight_limit)
        acc = aggregator.zero(spec)
        for i, (row, weight) in enumerate(zip(rows, weights or [1] * len(rows), strict=True)):
            contribution = Contribution(f"c{i:03}", {"x": row}, weight)
            admit(contribution, spec)
            acc = aggregator.add(acc, contribution)
        return aggregator.finish(acc).vectors["x"]

    return run
