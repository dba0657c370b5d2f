"""Optimizers of clients and servers: chains of small modules, and the usual ones by name."""

from hansa.optimizers.adaptive import adagrad, adam, amsgrad, rmsprop, yogi
from hansa.optimizers.averages import ewma, momentum, nesterov, yogi_momentum
from hansa.optimizers.bounds import clip_global, clip_tensor, gaussian_noise
from hansa.optimizers.module import Module, Need, Point, State, Vector, chain
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
from hansa.optimizers.table import MODULES, REGULARIZERS

__all__ = [
    "MODULES",
    "REGULARIZERS",
    "Module",
    "Need",
    "Point",
    "State",
    "Vector",
    "adagrad",
    "adam",
    "amsgrad",
    "chain",
    "clip_global",
    "clip_tensor",
    "cosine",
    "cosine_restarts",
    "cyclic",
    "decoupled_decay",
    "ewma",
    "exponential_decay",
    "fed_prox",
    "gaussian_noise",
    "inverse",
    "lasso",
    "linear",
    "momentum",
    "nesterov",
    "piecewise",
    "polynomial",
    "ridge",
    "rmsprop",
    "sgd",
    "step_decay",
    "warmup",
    "yogi",
    "yogi_momentum",
]
