"""The door: what is not a finite, bounded, well-shaped update never reaches an aggregator."""

from __future__ import annotations

import math
from collections.abc import Iterator
from numbers import Real

import numpy as np

from hansa.aggregators.aggregator import AggregationSpec, Contribution, Vector, VectorSpec
from hansa.aggregators.fixed_point import blocks, wide_bound
from hansa.errors import AggregationError, UpdateRefused
from hansa.limits import SPEC_EXPONENT_MAX, WEIGHT_RANGE_BITS
from hansa.text import quoted

DTYPES = ("float32", "float64")


def admit(contribution: Contribution, spec: AggregationSpec) -> Contribution:
    """Return the contribution with its peaks if it may be aggregated; raise with the reason if not.

    Reads each vector once and copies nothing.

    Raises:
      UpdateRefused: update-names, update-shape, update-dtype, update-not-finite,
        update-out-of-bound or update-weight, naming the vector and the value.

    """
    _admit_weight(contribution, spec.weight_limit)
    _admit_names(contribution, spec)
    peaks: dict[str, float] = {}
    for name, vector_spec in spec.vectors.items():
        where = f"vector {name!r} of client {contribution.client!r}"
        vector = contribution.vectors[name]
        _admit_form(vector, vector_spec, where)
        bound = vector_spec.bound
        bound = wide_bound(spec.weight_limit) if bound is None else bound
        peaks[name] = _admit_values(vector, bound, where)
    return contribution._replace(peaks=peaks)


def check_spec(spec: AggregationSpec) -> None:
    """Raise AggregationError (aggregation-bad-spec) if nothing can be summed under this spec."""
    for what in _faults(spec):
        raise AggregationError(
            "aggregation-bad-spec",
            f"The round was opened with {what}; no aggregation was started.",
            "Sizes are counts, dtypes float32 or float64, bounds and weight_limit positive "
            f"numbers between 2^-{SPEC_EXPONENT_MAX} and 2^{SPEC_EXPONENT_MAX}.",
        )


def _faults(spec: AggregationSpec) -> Iterator[str]:
    if not _usable(spec.weight_limit):
        yield f"weight_limit {spec.weight_limit!r}"
    for name, vector in spec.vectors.items():
        if vector.dtype not in DTYPES:
            yield f"dtype {vector.dtype!r} for vector {name!r}"
        if vector.size < 0:
            yield f"size {vector.size} for vector {name!r}"
        if vector.bound is not None and not _usable(vector.bound):
            yield f"bound {vector.bound!r} for vector {name!r}"


def _usable(value: float) -> bool:
    return 2.0**-SPEC_EXPONENT_MAX <= value <= 2.0**SPEC_EXPONENT_MAX


def _admit_weight(contribution: Contribution, limit: float) -> None:
    weight = contribution.weight
    lowest = limit * 2.0**-WEIGHT_RANGE_BITS
    # Compared as it is: a huge int has no float, and NaN lies in no interval.
    if isinstance(weight, Real) and not isinstance(weight, bool) and lowest <= weight <= limit:
        return
    hint = "Let the client send a positive finite number of examples or steps, or 1."
    if isinstance(weight, Real) and limit < weight < math.inf:
        hint = "Set weight_limit in the plan to the most that one round's weights can add up to."
    raise _refused(
        "update-weight",
        f"The weight of client {contribution.client!r} is {quoted(weight)}; this round takes "
        f"weights from {lowest:.3g} to {limit:g}",
        hint,
    )


def _admit_names(contribution: Contribution, spec: AggregationSpec) -> None:
    missing = [name for name in spec.vectors if name not in contribution.vectors]
    extra = [name for name in contribution.vectors if name not in spec.vectors]
    if missing or extra:
        faults = [f"lacks {name!r}" for name in missing[:3]]
        faults += [f"brings {quoted(name)}, which was not asked for" for name in extra[:3]]
        raise _refused(
            "update-names",
            f"The update of client {contribution.client!r} {' and '.join(faults)}",
            f"This round takes exactly the vectors {', '.join(map(repr, spec.vectors))}.",
        )


def _admit_form(vector: Vector, spec: VectorSpec, where: str) -> None:
    if not isinstance(vector, np.ndarray) or vector.dtype != np.dtype(spec.dtype):
        found = getattr(vector, "dtype", type(vector).__name__)
        raise _refused(
            "update-dtype",
            f"The {where} is {found}, not {spec.dtype}",
            f"Convert it to {spec.dtype} at the client.",
        )
    if vector.shape != (spec.size,):
        raise _refused(
            "update-shape",
            f"The {where} has shape {vector.shape}, not ({spec.size},)",
            "Train the model of this round, and send each vector flat.",
        )


def _admit_values(vector: Vector, bound: float, where: str) -> float:
    """Return the greatest magnitude of a vector, 0 if it is empty."""
    largest, peak = _rounded_up(bound, vector.dtype.name), 0.0
    for block in blocks(vector.size):
        values = vector[block]
        # The extremes are NaN if any value is, and need no memory.
        with np.errstate(invalid="ignore"):
            low, high = float(values.min()), float(values.max())
        if not (-largest <= low and high <= largest):
            first = int(np.argmin(np.abs(values) <= np.float64(largest)))
            raise _bad_value(float(values[first]), f"{where} at index {block.start + first}", bound)
        peak = max(peak, -low, high)
    return peak


def _rounded_up(bound: float, dtype: str) -> float:
    """Return the bound as a client has it that clips to it: float32(0.1) is more than 0.1.

    Sums have room for it: the bit that is kept free is more than all rounding.
    """
    top = float(np.finfo(dtype).max)
    return top if bound >= top else max(bound, float(np.dtype(dtype).type(bound)))


def _bad_value(value: float, where: str, bound: float) -> UpdateRefused:
    if math.isfinite(value):
        return _refused(
            "update-out-of-bound",
            f"The {where} is {value!r}, beyond the bound {bound:g}",
            "Clip updates at the client, lower its learning rate, or raise the bound of the plan.",
        )
    return _refused(
        "update-not-finite",
        f"The {where} is {value!r}",
        "Training diverged there: lower the learning rate or look at that client's data.",
    )


def _refused(code: str, fault: str, hint: str) -> UpdateRefused:
    return UpdateRefused(code, f"{fault}. The update was not counted.", hint)
