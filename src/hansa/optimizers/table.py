"""Every module by the name that a plan gives it."""

from __future__ import annotations

from collections.abc import Callable

from hansa.optimizers.adaptive import adagrad, adam, amsgrad, rmsprop, yogi
from hansa.optimizers.averages import ewma, momentum, nesterov, yogi_momentum
from hansa.optimizers.bounds import clip_global, clip_tensor, gaussian_noise
from hansa.optimizers.module import Module
from hansa.optimizers.regularizers import decoupled_decay, fed_prox, lasso, ridge
from hansa.optimizers.schedules import (
    cosine,
    cosine_restarts,
    cyclic,
    exponential_decay,
    inverse,
    linear,
    piecewise,
    polynomial,
    step_decay,
    warmup,
)
from hansa.optimizers.sgd import sgd

REGULARIZERS: dict[str, Callable[..., Module]] = {
    "fed_prox": fed_prox,
    "lasso": lasso,
    "ridge": ridge,
}
"""What `regularizers = [...]` of an optimizer may name."""

MODULES: dict[str, Callable[..., Module]] = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "ewma": ewma,
    "yogi_momentum": yogi_momentum,
    "adam": adam,
    "amsgrad": amsgrad,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "yogi": yogi,
    "clip_global": clip_global,
    "clip_tensor": clip_tensor,
    "gaussian_noise": gaussian_noise,
    **REGULARIZERS,
    "decoupled_decay": decoupled_decay,
    "warmup": warmup,
    "exponential_decay": exponential_decay,
    "step_decay": step_decay,
    "piecewise": piecewise,
    "linear": linear,
    "polynomial": polynomial,
    "inverse": inverse,
    "cosine": cosine,
    "cosine_restarts": cosine_restarts,
    "cyclic": cyclic,
}
"""What `chain = [...]` of an optimizer may name."""
