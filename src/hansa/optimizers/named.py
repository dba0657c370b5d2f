"""Optimizers by their usual names: each is only a chain.

They take the steps of torch.optim's of the same names (compared in the tests).
"""

from __future__ import annotations

from collections.abc import Callable

from hansa.optimizers import adaptive, averages
from hansa.optimizers.module import Module, chain
from hansa.optimizers.regularizers import decoupled_decay, ridge


def sgd(momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0) -> Module:
    """Build ridge > momentum or nesterov: v <- momentum v + g, x <- x - lr v."""
    kind = averages.nesterov if nesterov else averages.momentum
    return chain(*_ridge(weight_decay), *([kind(momentum)] if momentum else []))


def adam(
    beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0
) -> Module:
    """Build ridge > adam: weight decay is a part of the gradient, as in the paper's L2 form."""
    return chain(*_ridge(weight_decay), adaptive.adam(beta1, beta2, eps))


def adamw(
    beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.01
) -> Module:
    """Build adam > decoupled_decay: weight decay stays apart from the gradient."""
    return chain(adaptive.adam(beta1, beta2, eps), decoupled_decay(weight_decay))


def rmsprop(momentum: float = 0.0, eps: float = 1e-8, weight_decay: float = 0.0) -> Module:
    """Build ridge > rmsprop > momentum, with torch's decay of 0.99."""
    after = [averages.momentum(momentum)] if momentum else []
    return chain(*_ridge(weight_decay), adaptive.rmsprop(eps=eps), *after)


def adagrad(eps: float = 1e-10, weight_decay: float = 0.0) -> Module:
    """Build ridge > adagrad."""
    return chain(*_ridge(weight_decay), adaptive.adagrad(eps))


def _ridge(strength: float) -> list[Module]:
    return [ridge(strength)] if strength else []


OPTIMIZERS: dict[str, Callable[..., Module]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
    "adagrad": adagrad,
}
"""What `name = "..."` of a plan's optimizer may be."""
