"""From numbers to places on a chart: axes with round ticks, and fewer points without lost peaks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

Number = float | None
"""A value of a chart; None, NaN and infinity are gaps."""

REACH = 1e300
"""Values beyond this are drawn at this, so that the span of an axis stays a finite float."""


def finite(value: Number) -> Number:
    """Return `value` as a float within `REACH`, or None where there is no number to draw.

    >>> finite(float("nan")), finite(None), finite(3)
    (None, None, 3.0)
    """
    if value is None or not math.isfinite(value):
        return None
    return max(-REACH, min(REACH, float(value)))


_LEAST_POWER = -307


class Axis(NamedTuple):
    """A range of values with its ticks; `low < high`, and both positive when `log`."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def at(self, value: float) -> float:
        """Return where `value` lies: 0 at `low`, 1 at `high`; outside the range it is clipped."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, self.low))
        # Halves first: the span of two large numbers of opposite sign would overflow.
        return max(0.0, min(1.0, (value / 2 - low / 2) / (high / 2 - low / 2)))

    def labels(self) -> list[str]:
        """Return one text per tick, short and different from its neighbours."""
        if self.log:
            return [_short(tick, 0) for tick in self.ticks]
        step = min((b - a for a, b in pairwise(self.ticks)), default=1.0)
        size = max(map(abs, self.ticks), default=1.0)
        if step >= 1e-4 and size < 1e6:
            decimals = max(0, -math.floor(math.log10(step) + 1e-9))
            return [f"{tick + 0.0:,.{decimals}f}" for tick in self.ticks]
        digits = max(0, math.ceil(math.log10(size) - math.log10(step)))
        return [_short(tick, min(digits, 9)) for tick in self.ticks]


def nice_step(span: float, count: int) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that divides `span` in <= `count` steps.

    >>> nice_step(0.93, 5), nice_step(7, 5), nice_step(100, 4)
    (0.2, 2.0, 50.0)
    """
    raw = span / count
    exponent = math.floor(math.log10(raw))
    for digit in (1, 2, 5, 10):
        # Read the decimal back: 2 * 10**-1 is not exactly the float 0.2.
        step = float(f"{digit}e{exponent}")
        if step >= raw * (1 - 1e-9):
            return step
    return float(f"1e{exponent + 2}")


def linear(
    values: Iterable[float], *, count: int = 6, integer: bool = False, snap: bool = True
) -> Axis:
    """Return an axis that holds all `values`; with `snap` it starts and ends on a tick.

    Args:
      values: finite numbers; without any the axis is 0 to 1.
      count: how many steps there may be at most.
      integer: ticks at whole numbers only, such as rounds.
      snap: widen the range to whole ticks.

    """
    numbers = list(values) or [0.0, 1.0]
    low, high = _spread(min(numbers), max(numbers), integer=integer)
    step = nice_step(high - low, count)
    if integer:
        step = max(1.0, step)
    if snap:
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = tuple(float(f"{index * step:.12g}") for index in range(first, last + 1))
    return Axis(low, high, ticks)


def logarithmic(values: Iterable[float]) -> Axis:
    """Return a logarithmic axis in whole powers of ten; all `values` must be positive.

    What is smaller than any power of ten that a float holds in full stands at the axis' end.
    """
    numbers = list(values)
    first = max(_LEAST_POWER, math.floor(math.log10(min(numbers)) + 1e-9))
    last = max(first + 1, math.ceil(math.log10(max(numbers)) - 1e-9))
    step = max(1, math.ceil((last - first) / 6))
    ticks = tuple(float(f"1e{power}") for power in range(first, last + 1, step))
    return Axis(float(f"1e{first}"), float(f"1e{last}"), ticks, log=True)


def thin(values: Sequence[Number], limit: int) -> list[int]:
    """Return the indices of at most `limit` points that keep both ends, every peak and every gap.

    Each bucket of neighbours keeps its lowest and its highest value and its first gap, so a spike
    or one lost round among a thousand stays visible.
    """
    size = len(values)
    if size <= limit:
        return list(range(size))
    buckets = max(1, (limit - 2) // 3)
    keep = {0, size - 1}
    for bucket in range(buckets):
        span = range(bucket * size // buckets, (bucket + 1) * size // buckets)
        known = [(value, i) for i in span if (value := finite(values[i])) is not None]
        if known:
            keep |= {min(known)[1], max(known)[1]}
        if len(known) < len(span):
            keep.add(next(i for i in span if finite(values[i]) is None))
    return sorted(keep)


def spaced(size: int, limit: int) -> list[int]:
    """Return at most `limit` evenly spaced indices below `size`, both ends included.

    >>> spaced(10, 4)
    [0, 3, 6, 9]
    """
    if size <= limit:
        return list(range(size))
    return sorted({round(i * (size - 1) / (limit - 1)) for i in range(limit)})


def _spread(low: float, high: float, *, integer: bool) -> tuple[float, float]:
    """Return a range wide enough to divide, also when all values are one."""
    if high - low > max(abs(low), abs(high)) * 1e-9 and high - low > 1e-290:
        return low, high
    pad = 0.5 if integer else max(abs(low), abs(high)) * 0.1
    pad = pad if pad > 1e-290 else 1.0
    return low - pad, high + pad


def _short(value: float, digits: int) -> str:
    """Return a number in the shortest of its usual forms."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:,.{max(digits + 1, 4)}g}"
    mantissa, _, exponent = f"{value:.{digits}e}".partition("e")
    return f"{mantissa}e{int(exponent)}"
