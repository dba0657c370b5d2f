"""Evaluations in which clients say more of a model than numbers: any JSON, kept with the round."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from hansa.limits import FACTS_BYTES_MAX, METRIC_NAME_CHARS_MAX, METRICS_MAX
from hansa.metrics import Mean, Metrics
from hansa.workflows.federation import Evaluated, Federation, GlobalState

VALIDATE = "validate"
"""The named task that is asked instead of an evaluation."""


class Reported(NamedTuple):
    """What clients measured, and what else they said."""

    evaluated: Evaluated
    reports: dict[str, Any]  # JSON by client


async def reported(
    federation: Federation, number: int, state: GlobalState, clients: Sequence[str]
) -> Reported:
    """Have clients evaluate a model and say all that their code says of it.

    The reports of a round have a bound together; what is beyond it, by the clients' names, is left
    out, and its metrics count all the same.
    """
    model = federation.layout.join(state.algorithm.x, state.buffers)
    answered = await federation.ask(number, VALIDATE, clients, message=model)
    metrics: dict[str, Metrics] = {}
    reports: dict[str, Any] = {}
    left = FACTS_BYTES_MAX
    for client, answer in sorted(answered.answers.items()):
        if found := _metrics(answer.facts.get("metrics")):
            metrics[client] = found
        report = answer.facts.get("report")
        left -= len(msgspec.json.encode(report))
        if report is not None and left >= 0:
            reports[client] = report
    return Reported(Evaluated(metrics, answered.problems), reports)


def _metrics(said: Any) -> dict[str, Mean]:
    """Return totals and weights; what is none is left out, for it came from a client's code."""
    if not isinstance(said, Mapping) or len(said) > METRICS_MAX:
        return {}
    return {
        str(name): Mean(*map(number, pair))
        for name, pair in said.items()
        if isinstance(pair, list) and len(pair) == 2 and len(name) <= METRIC_NAME_CHARS_MAX
    }


def number(value: Any) -> float:
    """Return a number of a client's facts; NaN where it is none."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        return float(value) if plain else math.nan
    except OverflowError:  # an integer of JSON may have any length
        return math.nan
