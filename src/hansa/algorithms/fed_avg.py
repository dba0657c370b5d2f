"""FedAvg: clients train, the server moves to the mean.  McMahan et al. 2017, Alg. 1."""

from __future__ import annotations

from hansa.algorithms.algorithm import Algorithm, Vectors, Work
from hansa.ranges import positive
from hansa.seeds import Key


def train_locally(work: Work, message: Vectors, mine: Vectors, key: Key) -> tuple[Vectors, Vectors]:
    """Client half of every method whose clients simply train: send x_K - x_0."""
    return Vectors(delta=work.train(message.x) - message.x), mine


def fed_avg(lr: float = 1.0) -> Algorithm:
    """Build FedAvg, x <- x + lr * mean(delta).

    Args:
      lr: server learning rate; 1 is McMahan's algorithm.

    Raises:
      PlanError: a setting is out of range.
    """
    positive("fed_avg", lr=lr)

    def server(state: Vectors, mean: Vectors, share: float) -> Vectors:
        return Vectors(x=state.x + (mean.delta if lr == 1.0 else lr * mean.delta))

    return Algorithm("fed_avg", client=train_locally, server=server)
