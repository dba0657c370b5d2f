"""Refusing a setting of an algorithm or of a module, with a sentence, before anything runs."""

from __future__ import annotations

import math

from hansa.errors import PlanError


def positive(owner: str, **settings: float) -> None:
    """Refuse settings that are not above 0 and finite."""
    for name, value in settings.items():
        _require(0 < value < math.inf, f"{owner}.{name}", value, "a positive number")


def not_negative(owner: str, **settings: float) -> None:
    """Refuse settings that are not at least 0 and finite."""
    for name, value in settings.items():
        _require(0 <= value < math.inf, f"{owner}.{name}", value, "at least 0")


def decay(owner: str, **settings: float) -> None:
    """Refuse factors by which a moving average forgets that are not in [0, 1)."""
    for name, value in settings.items():
        _require(0 <= value < 1, f"{owner}.{name}", value, "at least 0 and below 1")


def share(owner: str, **settings: float) -> None:
    """Refuse settings that are not above 0 and at most 1."""
    for name, value in settings.items():
        _require(0 < value <= 1, f"{owner}.{name}", value, "above 0 and at most 1")


def _require(holds: bool, setting: str, value: float, allowed: str) -> None:
    if not holds:
        raise PlanError(
            "plan-bad-value",
            f"The plan gives {setting} = {value!r}. Nothing was started.",
            f"It must be {allowed}.",
        )
