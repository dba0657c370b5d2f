"""Local optimizers on one flat torch vector, in place.

They take the same steps as torch.optim's of the same names (compared in the tests).  torch.optim
itself costs seconds to import, once for each worker, and 0.1 ms a step; these cost neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Vector = Any  # torch.Tensor [D]
Step = Callable[[Vector, Vector], None]
"""`step(x, g)`: move `x` in place, given the gradient at `x`; `g` is not changed."""


def sgd(
    lr: float, *, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
) -> Step:
    """Build v <- momentum * v + g, x <- x - lr * v; Nesterov's steps by g + momentum * v."""
    velocity: Vector = None

    def step(x: Vector, g: Vector) -> None:
        nonlocal velocity
        g = _decayed(x, g, weight_decay)
        if momentum:
            velocity = g.clone() if velocity is None else velocity.mul_(momentum).add_(g)
            g = g.add(velocity, alpha=momentum) if nesterov else velocity
        x.add_(g, alpha=-lr)

    return step


def adam(
    lr: float,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Step:
    """Build Adam, weight decay in its L2 form.  Kingma and Ba 2015, Alg. 1."""
    m: Vector = None
    v: Vector = None
    t = 0

    def step(x: Vector, g: Vector) -> None:
        nonlocal m, v, t
        if m is None:
            m, v = _zeros(x), _zeros(x)
        g = _decayed(x, g, weight_decay)
        t += 1
        m.lerp_(g, 1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        root = v.sqrt().div_(math.sqrt(1 - beta2**t)).add_(eps)
        x.addcdiv_(m, root, value=-lr / (1 - beta1**t))

    return step


def adamw(
    lr: float,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> Step:
    """Build Adam with weight decay apart from the gradient.  Loshchilov and Hutter 2019, Alg. 2."""
    inner = adam(lr, beta1=beta1, beta2=beta2, eps=eps)

    def step(x: Vector, g: Vector) -> None:
        x.mul_(1 - lr * weight_decay)
        inner(x, g)

    return step


def rmsprop(
    lr: float, *, momentum: float = 0.0, eps: float = 1e-8, weight_decay: float = 0.0
) -> Step:
    """Build RMSprop with torch's smoothing constant 0.99.  Hinton 2012, lecture 6e."""
    v: Vector = None
    inner = sgd(lr, momentum=momentum)

    def step(x: Vector, g: Vector) -> None:
        nonlocal v
        if v is None:
            v = _zeros(x)
        g = _decayed(x, g, weight_decay)
        v.mul_(0.99).addcmul_(g, g, value=0.01)
        inner(x, g / v.sqrt().add_(eps))

    return step


def adagrad(lr: float, *, eps: float = 1e-10, weight_decay: float = 0.0) -> Step:
    """Build Adagrad.  Duchi et al. 2011, Fig. 1, diagonal."""
    total: Vector = None

    def step(x: Vector, g: Vector) -> None:
        nonlocal total
        if total is None:
            total = _zeros(x)
        g = _decayed(x, g, weight_decay)
        total.addcmul_(g, g)
        x.addcdiv_(g, total.sqrt().add_(eps), value=-lr)

    return step


def _decayed(x: Vector, g: Vector, weight_decay: float) -> Vector:
    return g.add(x, alpha=weight_decay) if weight_decay else g


def _zeros(x: Vector) -> Vector:
    return x.new_zeros(x.shape)


OPTIMIZERS: dict[str, Callable[..., Step]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
    "adagrad": adagrad,
}
