"""Modules that scale a step by when it is taken; they multiply, so that a warm-up joins any other.

`past` counts what lies behind: it is 0 in the first step or round, which so gets the first value.
With `by = "step"` a client counts the steps of this round, and the server its own since the run
began; with `by = "round"` both count rounds.  A schedule behind momentum changes the learning rate,
one before it the gradient.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from typing import Literal

from hansa.errors import PlanError
from hansa.optimizers.module import Module, Need, Point, State, Vector
from hansa.ranges import not_negative, positive, share

By = Literal["step", "round"]


def warmup(length: int, by: By = "step") -> Module:
    """Build a linear rise, (past + 1) / length, and 1 from then on.  Goyal et al. 2017.

    Args:
      length: steps or rounds until the whole rate is reached, >= 1; the first has 1 / length.
      by: what is counted.

    Raises:
      PlanError: a setting is out of range.
    """
    positive("warmup", length=length)
    return _schedule("warmup", lambda past: min(1.0, (past + 1) / length), by)


def exponential_decay(gamma: float = 0.99, by: By = "step") -> Module:
    """Build gamma^past.

    Args:
      gamma: factor from one to the next, above 0 and at most 1.
      by: what is counted.

    Raises:
      PlanError: a setting is out of range.
    """
    share("exponential_decay", gamma=gamma)
    return _schedule("exponential_decay", lambda past: gamma**past, by)


def step_decay(every: int = 10, gamma: float = 0.5, by: By = "step") -> Module:
    """Build gamma^floor(past / every).

    Args:
      every: steps or rounds between two drops, >= 1.
      gamma: factor of a drop, above 0 and at most 1.
      by: what is counted.

    Raises:
      PlanError: a setting is out of range.
    """
    positive("step_decay", every=every)
    share("step_decay", gamma=gamma)
    return _schedule("step_decay", lambda past: step_factor(past, every, gamma), by)


def piecewise(at: tuple[int, ...], factors: tuple[float, ...], by: By = "step") -> Module:
    """Build 1 until at[0] lie behind, then factors[0] until at[1] do, and so on.

    Args:
      at: rising counts, >= 1.
      factors: of the rate from there on, as many, >= 0.
      by: what is counted.

    Raises:
      PlanError: a setting is out of range, or the lists are not of one length.
    """
    rising = all(a < b for a, b in zip((0, *at), at, strict=False))
    if not rising or len(at) != len(factors):
        raise PlanError(
            "plan-bad-value",
            f"The plan gives piecewise.at = {list(at)} and {len(factors)} factors. "
            "Nothing was started.",
            "Give rising numbers from 1 with a factor each: at = [10, 20], factors = [0.5, 0.1]",
        )
    for factor in factors:
        not_negative("piecewise", factors=factor)
    return _schedule("piecewise", lambda past: (1.0, *factors)[bisect.bisect(at, past)], by)


def linear(length: int, end: float = 0.0, by: By = "step") -> Module:
    """Build a straight line from 1 to `end`, which is reached after `length` and stays.

    Args:
      length: steps or rounds, >= 1.
      end: last factor, >= 0.
      by: what is counted.

    Raises:
      PlanError: a setting is out of range.
    """
    positive("linear", length=length)
    not_negative("linear", end=end)
    return polynomial(length, 1.0, end, by)._replace(name="linear")


def polynomial(length: int, power: float = 1.0, end: float = 0.0, by: By = "step") -> Module:
    """Build end + (1 - end) (1 - past / length)^power, and `end` from then on.

    Args:
      length: steps or rounds, >= 1.
      power: > 0; 1 is linear.
      end: last factor, >= 0.
      by: what is counted.

    Raises:
      PlanError: a setting is out of range.
    """
    positive("polynomial", length=length, power=power)
    not_negative("polynomial", end=end)

    def factor(past: int) -> float:
        return end + (1 - end) * math.pow(1 - min(past, length) / length, power)

    return _schedule("polynomial", factor, by)


def inverse(gamma: float = 0.1, power: float = 1.0, by: By = "step") -> Module:
    """Build (1 + gamma past)^-power; with 1 and 1/2 it is Zinkevich's 2003.

    Args:
      gamma: how fast it falls, >= 0.
      power: > 0.
      by: what is counted.

    Raises:
      PlanError: a setting is out of range.
    """
    positive("inverse", power=power)
    not_negative("inverse", gamma=gamma)
    return _schedule("inverse", lambda past: (1 + gamma * past) ** -power, by)


def cosine(length: int, end: float = 0.0, by: By = "step") -> Module:
    """Build half a cosine from 1 to `end`, which stays.  Loshchilov and Hutter 2017, Eq. 5.

    Args:
      length: steps or rounds, >= 1.
      end: last factor, >= 0.
      by: what is counted.

    Raises:
      PlanError: a setting is out of range.
    """
    positive("cosine", length=length)
    not_negative("cosine", end=end)

    def factor(past: int) -> float:
        return end + (1 - end) * cosine_factor(min(past, length), length)

    return _schedule("cosine", factor, by)


def cosine_restarts(length: int, growth: int = 1, end: float = 0.0, by: By = "step") -> Module:
    """Build half cosines from 1 to `end`, one after another.  Loshchilov and Hutter 2017, Eq. 5.

    Args:
      length: steps or rounds of the first, >= 1.
      growth: how many times as long the next is, >= 1.
      end: towards which each falls, >= 0.
      by: what is counted.

    Raises:
      PlanError: a setting is out of range.
    """
    positive("cosine_restarts", length=length, growth=growth)
    not_negative("cosine_restarts", end=end)

    def factor(past: int) -> float:
        period = length
        if growth == 1:
            past %= length
        while past >= period:
            past, period = past - period, period * growth
        return end + (1 - end) * cosine_factor(past, period)

    return _schedule("cosine_restarts", factor, by)


def cyclic(length: int, low: float = 0.1, gamma: float = 1.0, by: By = "step") -> Module:
    """Build triangles from `low` up to 1 and back, low + (1 - low) gamma^past tri.  Smith 2017.

    Args:
      length: steps or rounds of one triangle, >= 1.
      low: where each begins and ends, >= 0.
      gamma: shrinks them, above 0; 1 is the paper's "triangular", and less its "exp_range".
      by: what is counted.

    Raises:
      PlanError: a setting is out of range.
    """
    positive("cyclic", length=length)
    share("cyclic", gamma=gamma)
    not_negative("cyclic", low=low)

    def factor(past: int) -> float:
        up = 1 - abs(2 * (past % length) / length - 1)
        return low + (1 - low) * up * gamma**past

    return _schedule("cyclic", factor, by)


def step_factor(past: int, every: int, gamma: float) -> float:
    """Return gamma^floor(past / every)."""
    return float(gamma ** (past // every))


def cosine_factor(past: int, length: int) -> float:
    """Return half a cosine, 1 at 0 and 0 at `length`."""
    return 0.5 * (1 + math.cos(math.pi * past / length))


def _schedule(name: str, factor: Callable[[int], float], by: By) -> Module:
    def update(u: Vector, state: State, at: Point) -> tuple[Vector, State]:
        return factor((at.round if by == "round" else at.step) - 1) * u, state

    return Module(name, update, needs=frozenset({Need.COUNT}))
