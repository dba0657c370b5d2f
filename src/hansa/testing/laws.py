"""What a conformance check raises."""

from __future__ import annotations

from typing import Any

import numpy as np

from hansa.errors import HansaError


class LawBroken(HansaError, AssertionError):  # noqa: N818 - says what it is
    """A value does not keep the laws of its kind; an AssertionError too, for test runners."""


def law(holds: bool, what: str, sentence: str, *, hint: str) -> None:
    """Raise LawBroken (law-broken) unless `holds`."""
    if not holds:
        raise LawBroken("law-broken", f"{what} breaks a law: {sentence}.", hint)


def form(vector: Any) -> str:
    """Return what a vector is, for a sentence: its dtype and shape, or what kind of thing."""
    if not isinstance(vector, np.ndarray):
        return type(vector).__name__
    return f"{vector.dtype}{list(vector.shape)}"
