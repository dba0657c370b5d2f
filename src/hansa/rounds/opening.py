"""What is fixed when a round opens, before any client answers.

The binary point of every exact sum depends only on the committed state and the plan, so a round
that is opened again after a crash sums the same numbers to the same bytes.
"""

from __future__ import annotations

import numpy as np

from hansa.aggregators import AggregationSpec, VectorSpec
from hansa.aggregators.fixed_point import ceil_log2
from hansa.algorithms import Algorithm, Vector, Vectors
from hansa.errors import RunError
from hansa.limits import (
    ACCUMULATOR_BITS,
    POINT_BITS_MIN,
    SPEC_EXPONENT_MAX,
    UPDATE_BOUND_FACTOR,
    UPDATE_BOUND_MIN,
)

BUFFERS = "buffers"
"""Name under which a model's buffers travel, in messages and in updates."""


def largest_parameter(x: Vector) -> float:
    """Return max |x|, or refuse a model that no round can go on from.

    Raises:
      RunError: the model holds NaN, infinity or values too large to sum (run-diverged).
    """
    # Without a copy of the model; NaN comes out of the first.
    largest = max(float(np.max(x, initial=0.0)), -float(np.min(x, initial=0.0)))
    if not UPDATE_BOUND_FACTOR * largest <= 2.0**SPEC_EXPONENT_MAX:  # nor is NaN
        raise RunError(
            "run-diverged",
            f"The global model has diverged: its largest parameter is {largest}. "
            "The model of the round before is kept.",
            "Lower the server's or the clients' learning rate, and run again.",
        )
    return largest


def aggregation_spec(
    algorithm: Algorithm, message: Vectors, *, weight_limit: float, bound: float | None = None
) -> AggregationSpec:
    """Return what updates of this round look like.

    Args:
      algorithm: names the vectors that clients send, each as long as the model.
      message: what the cohort gets; its `x` and `buffers` give lengths and precision.
      weight_limit: the weights of the round never add up to more.
      bound: largest absolute value of an update; None derives it from model and weights: 64, or
        16 times the largest parameter, or 2^(62 - 36 - log2(weight_limit)), whichever is most.
        The last spends bits that the sum has to spare: 36 stay below its point.

    Raises:
      RunError: the model holds NaN, infinity or values too large to sum (run-diverged).
    """
    x = message.x
    largest = largest_parameter(x)
    if bound is None:
        # A limit below 1 makes the sum finer, not the updates larger.
        spare = ACCUMULATOR_BITS - POINT_BITS_MIN - max(0, ceil_log2(weight_limit))
        bound = max(UPDATE_BOUND_MIN, UPDATE_BOUND_FACTOR * largest, 2.0**spare)
    bound = 2.0 ** ceil_log2(bound)  # a power of two costs nothing and makes the spec readable
    vectors = {name: VectorSpec(len(x), str(x.dtype), bound) for name in algorithm.sends}
    buffers = message.get(BUFFERS)
    if buffers is not None and len(buffers):
        vectors[BUFFERS] = VectorSpec(len(buffers), "float64", None)
    return AggregationSpec(vectors, weight_limit)
