"""What an update is worth that was made from an older model.

Its staleness s is the number of rounds that were committed since its client was given a model; 0
is the newest one's.

Source: Xie, Koyejo and Gupta 2019 (arXiv 1903.03934), section 5.2; Nguyen et al. 2022 (FedBuff,
arXiv 2106.06639) uses the polynomial with a = 1/2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from hansa.ranges import not_negative, positive

Staleness = Literal["constant", "polynomial", "hinge"]

Discount = Callable[[int], float]
"""From staleness to a factor in (0, 1]."""


def discount(name: Staleness, *, a: float, b: float) -> Discount:
    """Return a discount by its name in the literature.

    constant: 1.  polynomial: (s + 1)^-a.  hinge: 1 up to s = b, then 1 / (a (s - b) + 1).

    Raises:
      PlanError: a number is out of range.

    >>> [discount("polynomial", a=0.5, b=4)(s) for s in (0, 3, 8)]
    [1.0, 0.5, 0.3333333333333333]
    >>> [discount("hinge", a=10.0, b=4)(s) for s in (0, 4, 5, 6)]
    [1.0, 1.0, 0.09090909090909091, 0.047619047619047616]
    """
    positive("asynchronous", a=a)
    not_negative("asynchronous", b=b)
    if name == "constant":
        return lambda s: 1.0
    if name == "polynomial":
        return lambda s: float((s + 1) ** -a)
    return lambda s: 1.0 if s <= b else 1.0 / (a * (s - b) + 1.0)
