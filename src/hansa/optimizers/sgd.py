"""The module that does nothing but scale: stochastic gradient descent."""

from __future__ import annotations

from hansa.optimizers.module import Module
from hansa.ranges import positive


def sgd(factor: float = 1.0) -> Module:
    """Build plain steps, u <- factor g: what SGD does without momentum.

    Args:
      factor: on the learning rate, > 0.

    Raises:
      PlanError: a setting is out of range.
    """
    positive("sgd", factor=factor)
    if factor == 1.0:
        return Module("sgd", lambda u, state, at: (u, state), plain=True)
    return Module("sgd", lambda u, state, at: (factor * u, state))
