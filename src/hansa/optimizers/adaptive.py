"""Modules that divide each coordinate by the size of its gradients so far.

All have the form  u = m / (sqrt(v) + eps)  with eps outside of the root, as in the papers and in
torch, and differ in v.  The second moment sees the direction that the module is given: behind a
clipping module it is that of clipped gradients.
"""

from __future__ import annotations

from collections.abc import Callable

from hansa.optimizers.arrays import larger, sign
from hansa.optimizers.averages import mixed
from hansa.optimizers.module import Module, Need, Point, State, Vector
from hansa.ranges import decay, not_negative, positive

SecondMoment = Callable[[Vector, Vector], Vector]
"""`(v, g * g) -> v`."""


def adam(
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    bias_correction: bool = True,
    initial: float = 0.0,
) -> Module:
    """Build Adam, v <- beta2 v + (1 - beta2) g^2.  Kingma and Ba 2015, Alg. 1.

    With bias correction m and v are divided by 1 - beta^t, and eps is added to the corrected root,
    as in torch.  Without it, and with v starting at tau^2, it is FedAdam's (Reddi et al. 2021).

    Args:
      beta1: decay of the first moment, in [0, 1); 0 keeps none.
      beta2: decay of the second moment, in [0, 1).
      eps: added to the root, > 0.
      bias_correction: whether moments are corrected for where they start.
      initial: where v starts, >= 0.

    Raises:
      PlanError: a setting is out of range.
    """
    _check("adam", beta1=beta1, beta2=beta2, eps=eps, initial=initial)
    return _adaptive(
        "adam",
        lambda v, gg: mixed(beta2, v, gg),
        betas=(beta1, beta2 if bias_correction else None),
        eps=eps,
        initial=initial,
    )


def amsgrad(
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    bias_correction: bool = True,
) -> Module:
    """Build AMSGrad, Adam with the largest v so far below the root.  Reddi et al. 2018, Alg. 2.

    The maximum is taken of v before its bias correction, as in torch.  The paper corrects nothing:
    `bias_correction = false`.

    Args:
      beta1: decay of the first moment, in [0, 1); 0 keeps none.
      beta2: decay of the second moment, in [0, 1).
      eps: added to the root, > 0.
      bias_correction: whether moments are corrected for their start at 0.

    Raises:
      PlanError: a setting is out of range.
    """
    _check("amsgrad", beta1=beta1, beta2=beta2, eps=eps)
    return _adaptive(
        "amsgrad",
        lambda v, gg: mixed(beta2, v, gg),
        betas=(beta1, beta2 if bias_correction else None),
        eps=eps,
        keep_largest=True,
    )


def adagrad(eps: float = 1e-10, beta1: float = 0.0, initial: float = 0.0) -> Module:
    """Build AdaGrad, v <- v + g^2.  Duchi et al. 2011, Fig. 1, diagonal.

    With v starting at tau^2, and beta1 if wanted, it is FedAdagrad's (Reddi et al. 2021).

    Args:
      eps: added to the root, > 0.
      beta1: decay of the first moment, in [0, 1); 0 keeps none, as in the paper and in torch.
      initial: where v starts, >= 0.

    Raises:
      PlanError: a setting is out of range.
    """
    _check("adagrad", beta1=beta1, eps=eps, initial=initial)
    return _adaptive("adagrad", lambda v, gg: v + gg, betas=(beta1, None), eps=eps, initial=initial)


def rmsprop(decay: float = 0.99, eps: float = 1e-8) -> Module:
    """Build RMSProp, v <- decay v + (1 - decay) g^2.  Hinton 2012, lecture 6e.

    Without bias correction.  decay = 0.99 is torch's; the lecture has 0.9.

    Args:
      decay: of the second moment, in [0, 1).
      eps: added to the root, > 0.

    Raises:
      PlanError: a setting is out of range.
    """
    _check("rmsprop", decay=decay, eps=eps)
    return _adaptive("rmsprop", lambda v, gg: mixed(decay, v, gg), betas=(0.0, None), eps=eps)


def yogi(
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-3,
    bias_correction: bool = False,
    initial: float = 1e-6,
) -> Module:
    """Build Yogi, v <- v - (1 - beta2) sign(v - g^2) g^2.  Zaheer et al. 2018, Alg. 2.

    v moves by a share of g^2 whatever the distance, so that it does not forget large gradients at
    once.  Without bias correction, as in the paper.

    Args:
      beta1: decay of the first moment, in [0, 1); 0 keeps none.
      beta2: 1 - beta2 is the share by which v moves, in [0, 1).
      eps: added to the root, > 0; the paper finds 0.001 good.
      bias_correction: whether moments are divided by 1 - beta^t.
      initial: where v starts, >= 0.

    Raises:
      PlanError: a setting is out of range.
    """
    _check("yogi", beta1=beta1, beta2=beta2, eps=eps, initial=initial)

    def second_moment(v: Vector, gg: Vector) -> Vector:
        moved = (1 - beta2) * gg * sign(gg - v)
        moved += v
        return moved

    return _adaptive(
        "yogi",
        second_moment,
        betas=(beta1, beta2 if bias_correction else None),
        eps=eps,
        initial=initial,
    )


def _check(name: str, *, eps: float, initial: float = 0.0, **decays: float) -> None:
    positive(name, eps=eps)  # 0 divides by 0 where nothing has moved yet
    not_negative(name, initial=initial)
    decay(name, **decays)


def _adaptive(
    name: str,
    second_moment: SecondMoment,
    *,
    betas: tuple[float, float | None],  # of the first moment, and of the bias correction if any
    eps: float,
    initial: float = 0.0,
    keep_largest: bool = False,
) -> Module:
    """Build u = m / (sqrt(v) + eps) for one second moment."""
    beta1, beta2 = betas

    def init(x: Vector) -> State:
        state = {"m": 0 * x} if beta1 else {}
        state["v"] = 0 * x + initial
        return state | ({"top": 0 * x + initial} if keep_largest else {})

    def update(u: Vector, state: State, at: Point) -> tuple[Vector, State]:
        v = second_moment(state["v"], u * u)
        after = {"v": v}
        if keep_largest:
            v = after["top"] = larger(state["top"], v)
        if beta1:
            u = after["m"] = mixed(beta1, state["m"], u)
        root = v**0.5
        if beta2 is not None:
            root /= (1 - beta2**at.step) ** 0.5
            u = u / (1 - beta1**at.step)
        root += eps
        return u / root, after

    needs = frozenset({Need.COUNT} if beta2 is not None else ())
    return Module(name, update, init=init, needs=needs)
