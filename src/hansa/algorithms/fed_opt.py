"""FedAdagrad, FedAdam and FedYogi: adaptive server steps.  Reddi et al. 2021, Alg. 2.

The mean client delta is a pseudo-gradient `d`; the three differ only in the second moment `v`.
As in the paper there is no bias correction, and `v` starts at tau^2 (it asks for v >= tau^2).
"""

from __future__ import annotations

from collections.abc import Callable

from hansa.algorithms.algorithm import Algorithm, Vector, Vectors
from hansa.algorithms.fed_avg import train_locally
from hansa.algorithms.settings import decay, positive

SecondMoment = Callable[[Vector, Vector], Vector]
"""`(v, d * d) -> v`."""


def _adaptive(
    name: str, second_moment: SecondMoment, *, lr: float, beta1: float, tau: float
) -> Algorithm:
    """Build Alg. 2 for one line 9: m <- b1 m + (1-b1) d, x <- x + lr * m / (sqrt(v) + tau)."""
    positive(name, lr=lr, tau=tau)  # tau = 0 divides by 0 where nothing has moved yet
    decay(name, beta1=beta1)

    def init(x: Vector) -> Vectors:
        return Vectors(x=x, m=0 * x, v=0 * x + tau**2)

    def server(state: Vectors, mean: Vectors, share: float) -> Vectors:
        m = beta1 * state.m + (1 - beta1) * mean.delta
        v = second_moment(state.v, mean.delta * mean.delta)
        return Vectors(x=state.x + lr * m / (v**0.5 + tau), m=m, v=v)

    return Algorithm(name, client=train_locally, server=server, init=init)


def fed_adagrad(lr: float = 0.1, beta1: float = 0.0, tau: float = 1e-3) -> Algorithm:
    """Build FedAdagrad, v <- v + d^2.

    Args:
      lr: server learning rate, eta of the paper.
      beta1: decay of the first moment; the paper uses 0 for FedAdagrad.
      tau: degree of adaptivity; smaller is more adaptive.

    Raises:
      PlanError: a setting is out of range.
    """
    return _adaptive("fed_adagrad", lambda v, dd: v + dd, lr=lr, beta1=beta1, tau=tau)


def fed_adam(
    lr: float = 0.01, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3
) -> Algorithm:
    """Build FedAdam, v <- beta2 * v + (1 - beta2) * d^2; arguments as in `fed_adagrad`."""
    decay("fed_adam", beta2=beta2)
    return _adaptive(
        "fed_adam", lambda v, dd: beta2 * v + (1 - beta2) * dd, lr=lr, beta1=beta1, tau=tau
    )


def fed_yogi(
    lr: float = 0.01, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3
) -> Algorithm:
    """Build FedYogi, v <- v - (1 - beta2) * d^2 * sign(v - d^2); arguments as in `fed_adagrad`."""
    decay("fed_yogi", beta2=beta2)

    def second_moment(v: Vector, dd: Vector) -> Vector:
        # Floats times booleans: their difference would be integers, and widen float32 to float64.
        return v + (1 - beta2) * (dd * (v < dd) - dd * (v > dd))

    return _adaptive("fed_yogi", second_moment, lr=lr, beta1=beta1, tau=tau)
