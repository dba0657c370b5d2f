"""Federated optimisation methods, one file each, all of the one shape in `algorithm.py`."""

from hansa.algorithms.algorithm import Algorithm, Capability, Correct, Vector, Vectors, Work
from hansa.algorithms.fed_avg import fed_avg
from hansa.algorithms.fed_opt import fed_adagrad, fed_adam, fed_avg_m, fed_opt, fed_yogi
from hansa.algorithms.fed_prox import fed_prox
from hansa.algorithms.fed_sgd import fed_sgd
from hansa.algorithms.scaffold import scaffold

ALGORITHMS = {
    "fed_avg": fed_avg,
    "fed_sgd": fed_sgd,
    "fed_opt": fed_opt,
    "fed_avg_m": fed_avg_m,
    "fed_adagrad": fed_adagrad,
    "fed_adam": fed_adam,
    "fed_yogi": fed_yogi,
    "fed_prox": fed_prox,
    "scaffold": scaffold,
}
"""What `algorithm = "..."` in a plan may name."""

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Capability",
    "Correct",
    "Vector",
    "Vectors",
    "Work",
    "fed_adagrad",
    "fed_adam",
    "fed_avg",
    "fed_avg_m",
    "fed_opt",
    "fed_prox",
    "fed_sgd",
    "fed_yogi",
    "scaffold",
]
