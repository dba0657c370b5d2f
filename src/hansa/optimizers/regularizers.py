"""Modules that add the gradient of a penalty; first in a chain, as a part of the objective."""

from __future__ import annotations

from hansa.optimizers.arrays import sign
from hansa.optimizers.module import Module, Need, Point, State, Vector
from hansa.ranges import not_negative


def fed_prox(mu: float = 0.01) -> Module:
    """Build FedProx's pull to the round's first model, g <- g + mu (x - x_0).  Li et al. 2020.

    The gradient of mu/2 |x - x_0|^2.  At clients only: at the server x_0 is x.

    Args:
      mu: strength, >= 0.

    Raises:
      PlanError: a setting is out of range.
    """
    not_negative("fed_prox", mu=mu)

    def update(u: Vector, state: State, at: Point) -> tuple[Vector, State]:
        return u + mu * (at.x - at.start), state

    return Module("fed_prox", update, needs=frozenset({Need.PARAMS, Need.START}), plain=True)


def lasso(strength: float = 0.01) -> Module:
    """Build the L1 penalty, g <- g + strength * sign(x).  Tibshirani 1996.

    The subgradient of strength * |x|_1 that is 0 at 0.

    Args:
      strength: lambda, >= 0.

    Raises:
      PlanError: a setting is out of range.
    """
    not_negative("lasso", strength=strength)

    def update(u: Vector, state: State, at: Point) -> tuple[Vector, State]:
        return u + strength * sign(at.x), state

    return Module("lasso", update, needs=frozenset({Need.PARAMS}), plain=True)


def ridge(strength: float = 0.01) -> Module:
    """Build the L2 penalty, g <- g + strength * x.  Hoerl and Kennard 1970.

    The gradient of strength/2 |x|^2, as torch's `weight_decay` of SGD and Adam; without the half
    it would be twice as much.

    Args:
      strength: lambda, >= 0.

    Raises:
      PlanError: a setting is out of range.
    """
    not_negative("ridge", strength=strength)
    return decoupled_decay(strength)._replace(name="ridge")


def decoupled_decay(rate: float = 0.01) -> Module:
    """Build decoupled weight decay, u <- u + rate * x.  Loshchilov and Hutter 2019, Alg. 2.

    Put it behind the modules that it shall not pass through; before them it is `ridge`.  A step
    takes lr * rate * x away, and what schedules behind it leave of that, as torch's AdamW does;
    the paper multiplies by its schedule and not by the learning rate.

    Args:
      rate: lambda, >= 0.

    Raises:
      PlanError: a setting is out of range.
    """
    not_negative("decoupled_decay", rate=rate)

    def update(u: Vector, state: State, at: Point) -> tuple[Vector, State]:
        return u + rate * at.x, state

    return Module("decoupled_decay", update, needs=frozenset({Need.PARAMS}), plain=True)
