"""FedAvgM: FedAvg with server momentum.  Hsu, Qi and Brown 2019, section 4.2."""

from __future__ import annotations

from hansa.algorithms.algorithm import Algorithm, Vector, Vectors
from hansa.algorithms.fed_avg import train_locally
from hansa.algorithms.settings import decay, positive


def fed_avg_m(lr: float = 1.0, momentum: float = 0.9) -> Algorithm:
    """Build FedAvgM, v <- momentum * v + mean(delta), x <- x + lr * v.

    Args:
      lr: server learning rate.
      momentum: beta of the paper, in [0, 1).

    Raises:
      PlanError: a setting is out of range.
    """
    positive("fed_avg_m", lr=lr)
    decay("fed_avg_m", momentum=momentum)

    def init(x: Vector) -> Vectors:
        return Vectors(x=x, v=0 * x)

    def server(state: Vectors, mean: Vectors, share: float) -> Vectors:
        v = momentum * state.v + mean.delta
        return Vectors(x=state.x + lr * v, v=v)

    return Algorithm("fed_avg_m", client=train_locally, server=server, init=init)
