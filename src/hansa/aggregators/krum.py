"""Krum and Multi-Krum: trust the update whose neighbours are near.  Blanchard et al. 2017.

score(i) = sum of |x_i - x_j|^2 over the n - f - 2 nearest j != i
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hansa.aggregators.aggregator import AggregationSpec, Aggregator, Contribution, Vector
from hansa.aggregators.collected import aggregator
from hansa.aggregators.distances import squared_distances
from hansa.aggregators.mean import mean_of
from hansa.aggregators.settings import require, require_updates


def krum(byzantine: int) -> Aggregator:
    """Build Krum: the one update with the least score; of equal scores, the first client's.

    Distances are taken over all bounded vectors joined; wide ones (statistics, counters) come from
    the chosen update without having a say.  Unweighted, as in the paper.

    Args:
      byzantine: f >= 0, faulty clients to withstand; a round needs n >= 2f + 3 updates.

    """
    _require_byzantine(byzantine)

    def rule(spec: AggregationSpec, contributions: Sequence[Contribution]) -> dict[str, Vector]:
        chosen = contributions[_best(spec, contributions, byzantine)[0]]
        return {name: np.array(chosen.vectors[name]) for name in spec.vectors}

    return aggregator("krum", rule, needs=2 * byzantine + 3)


def multi_krum(byzantine: int, keep: int) -> Aggregator:
    """Build Multi-Krum: the plain mean of the `keep` updates with the least scores.

    Args:
      byzantine: f >= 0, as for Krum.
      keep: m >= 1; 1 is Krum.  A round needs n >= max(2f + 3, f + m), or faulty ones are kept.

    """
    _require_byzantine(byzantine)
    require(isinstance(keep, int) and keep >= 1, "keep", keep, "a count of 1 or more")

    def rule(spec: AggregationSpec, contributions: Sequence[Contribution]) -> dict[str, Vector]:
        require_updates(
            len(contributions), byzantine + keep, f"Multi-Krum({byzantine}, keep={keep})"
        )
        best = _best(spec, contributions, byzantine)[:keep]
        return mean_of(spec, [contributions[i] for i in best], [1 / keep] * keep)

    needs = max(2 * byzantine + 3, byzantine + keep)
    return aggregator("multi_krum", rule, needs=needs)


def _require_byzantine(byzantine: int) -> None:
    holds = isinstance(byzantine, int) and byzantine >= 0
    require(holds, "byzantine", byzantine, "a count of 0 or more")


def _best(
    spec: AggregationSpec, contributions: Sequence[Contribution], byzantine: int
) -> list[int]:
    """Return positions from the least score to the greatest; equal scores keep their order."""
    n = len(contributions)
    require_updates(n, 2 * byzantine + 3, f"Krum against {byzantine} faulty clients (2f + 3)")
    squares = squared_distances(spec, contributions)
    np.fill_diagonal(squares, np.inf)
    nearest = np.sort(squares, axis=1)[:, : n - byzantine - 2]
    scores = [math.fsum(row) for row in nearest.tolist()]
    return sorted(range(n), key=scores.__getitem__)
