"""Refusing a setting of an aggregator, with a sentence."""

from __future__ import annotations

from hansa.errors import AggregationError


def require(holds: bool, name: str, value: object, expected: str) -> None:
    """Raise AggregationError (aggregation-bad-setting) unless `holds`."""
    if not holds:
        raise AggregationError(
            "aggregation-bad-setting",
            f"The aggregator was given {name} = {value!r}, not {expected}; it was not built.",
            f"Give {expected}.",
        )


def require_updates(found: int, needed: int, why: str) -> None:
    """Raise AggregationError (aggregation-too-few) unless there are enough updates."""
    if found < needed:
        raise AggregationError(
            "aggregation-too-few",
            f"There are {found} updates, and {why} needs at least {needed}; "
            "nothing was aggregated.",
            "Choose a larger cohort and minimum of clients, or a rule that tolerates fewer faults.",
        )
