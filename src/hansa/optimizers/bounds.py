"""Modules that bound a direction, or blur it."""

from __future__ import annotations

from hansa.optimizers.arrays import clipped, clipped_by_tensor, normal_like
from hansa.optimizers.module import Module, Need, Point, State, Vector
from hansa.ranges import not_negative, positive


def clip_global(norm: float = 1.0) -> Module:
    """Build clipping of the whole direction, u <- u min(1, norm / |u|).  Pascanu et al. 2013.

    The norm is that of all tensors together, summed in float64, without the 1e-6 that torch adds
    to it; what is not too long stays as it is, bit for bit.

    Args:
      norm: the largest L2 norm of a step before the learning rate, > 0.

    Raises:
      PlanError: a setting is out of range.
    """
    positive("clip_global", norm=norm)

    def update(u: Vector, state: State, at: Point) -> tuple[Vector, State]:
        return clipped(u, norm), state

    return Module("clip_global", update)


def clip_tensor(norm: float = 1.0) -> Module:
    """Build clipping of each tensor by itself, u_k <- u_k min(1, norm / |u_k|).

    A direction of T tensors may still be sqrt(T) * norm long.  Not at the server, whose model is
    one vector.

    Args:
      norm: the largest L2 norm of one tensor, > 0.

    Raises:
      PlanError: a setting is out of range.
    """
    positive("clip_tensor", norm=norm)

    def update(u: Vector, state: State, at: Point) -> tuple[Vector, State]:
        return clipped_by_tensor(u, norm, at.starts), state

    return Module("clip_tensor", update, needs=frozenset({Need.TENSORS}))


def gaussian_noise(std: float = 1.0) -> Module:
    """Build noise, u <- u + std * N(0, 1) in each coordinate, drawn anew in each step.

    This is not differential privacy: single examples are not clipped, nothing is accounted for,
    and the numbers follow from the plan's seed, which whoever knows the plan knows.

    Args:
      std: standard deviation of the noise in one coordinate, >= 0.

    Raises:
      PlanError: a setting is out of range.
    """
    not_negative("gaussian_noise", std=std)

    def update(u: Vector, state: State, at: Point) -> tuple[Vector, State]:
        return u + std * normal_like(u, at.key.child("step", at.step)), state

    return Module("gaussian_noise", update, needs=frozenset({Need.KEY, Need.COUNT}))
