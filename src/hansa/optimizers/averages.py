"""Modules that remember earlier directions: momentum in its several forms."""

from __future__ import annotations

from hansa.optimizers.arrays import sign
from hansa.optimizers.module import Module, Point, State, Vector
from hansa.ranges import decay


def momentum(beta: float = 0.9) -> Module:
    """Build heavy-ball momentum, v <- beta v + g; the step goes along v.  Polyak 1964.

    The learning rate stays outside of v, and g counts in full (no dampening), as in torch's SGD:
    a constant gradient ends in steps of 1 / (1 - beta) times its length.

    Args:
      beta: what stays of v from step to step, in [0, 1).

    Raises:
      PlanError: a setting is out of range.
    """
    decay("momentum", beta=beta)

    def update(u: Vector, state: State, at: Point) -> tuple[Vector, State]:
        v = beta * state["v"]
        v += u
        return v, {"v": v}

    return Module("momentum", update, init=lambda x: {"v": 0 * x})


def nesterov(beta: float = 0.9) -> Module:
    """Build Nesterov's momentum, v <- beta v + g; the step goes along g + beta v.  Sutskever 2013.

    The form with the gradient at the parameters themselves, as in torch's SGD.

    Args:
      beta: what stays of v from step to step, in [0, 1).

    Raises:
      PlanError: a setting is out of range.
    """
    decay("nesterov", beta=beta)
    inner = momentum(beta)

    def update(u: Vector, state: State, at: Point) -> tuple[Vector, State]:
        v, state = inner.update(u, state, at)
        ahead = beta * v
        ahead += u
        return ahead, state

    return Module("nesterov", update, init=inner.init)


def ewma(beta: float = 0.9) -> Module:
    """Build an exponential moving average, m <- beta m + (1 - beta) g; the step goes along m.

    As long as the gradient, unlike momentum.  m starts at 0 and is not corrected for that.

    Args:
      beta: what stays of m from step to step, in [0, 1).

    Raises:
      PlanError: a setting is out of range.
    """
    decay("ewma", beta=beta)

    def update(u: Vector, state: State, at: Point) -> tuple[Vector, State]:
        m = mixed(beta, state["m"], u)
        return m, {"m": m}

    return Module("ewma", update, init=lambda x: {"m": 0 * x})


def yogi_momentum(beta: float = 0.9) -> Module:
    """Build an average that moves as Yogi's second moment does, m <- m + (1-beta) |g| sign(g - m).

    How far m moves depends on g alone and not on the distance, so it forgets slowly.  Zaheer et al.
    2018, Alg. 2, has this rule for g^2, which is positive; |g| makes m approach a negative g too.

    Args:
      beta: 1 - beta is the share of |g| by which m moves, in [0, 1).

    Raises:
      PlanError: a setting is out of range.
    """
    decay("yogi_momentum", beta=beta)

    def update(u: Vector, state: State, at: Point) -> tuple[Vector, State]:
        m = (1 - beta) * abs(u) * sign(u - state["m"])
        m += state["m"]
        return m, {"m": m}

    return Module("yogi_momentum", update, init=lambda x: {"m": 0 * x})


def mixed(beta: float, old: Vector, new: Vector) -> Vector:
    """Return beta * old + (1 - beta) * new."""
    mean = beta * old
    mean += (1 - beta) * new
    return mean
