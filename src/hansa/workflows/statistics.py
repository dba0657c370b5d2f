"""Federated statistics: what the answers of `hansa.learners.statistics` come to over all clients.

    workflow = { name = "broadcast_and_process", task = "statistics", process = "statistics",
                 settings = { bins = 20, minimum = 10 }, send_model = false }

The report has, for each column, count, missing, sum, mean, min, max, variance (over count - 1) and
a histogram, equal to those of all rows together: sums are correctly rounded, in any order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hansa.errors import HansaError, UpdateRefused
from hansa.rounds.questions import Answer
from hansa.workflows.outcome import Outcome, Turn

_FIRST = ("count", "missing", "sum", "low", "high")


def statistics(answers: Mapping[str, Answer], turn: Turn) -> Outcome:
    """Ask for deviations once the means are known, then report."""
    keys = _FIRST if turn.step == 0 else ("squares", "histogram")
    told, refused = _sound(answers, keys)
    if not told:
        return Outcome({}, refused=refused)
    clients = [told[name] for name in sorted(told)]
    if turn.step == 0:
        return Outcome({}, ask={**turn.settings, **_first(clients)}, refused=refused)
    columns, settings = range(len(clients[0]["squares"])), turn.settings
    squares = [math.fsum(c["squares"][j] for c in clients) for j in columns]
    report: dict[str, Any] = {key: settings[key] for key in ("count", "missing", "sum", "mean")}
    report |= {"min": settings["low"], "max": settings["high"]}
    report["variance"] = [
        s / (n - 1) if n > 1 else None for s, n in zip(squares, settings["count"], strict=True)
    ]
    report["histogram"] = [
        [sum(column) for column in zip(*(c["histogram"][j] for c in clients), strict=True)]
        for j in columns
    ]
    return Outcome({**report, "clients": sorted(told)}, refused=refused)


def _first(clients: Sequence[dict[str, Any]]) -> dict[str, Any]:
    columns = range(len(clients[0]["count"]))
    count = [sum(int(c["count"][j]) for c in clients) for j in columns]
    total = [math.fsum(c["sum"][j] for c in clients) for j in columns]
    lows = [[c["low"][j] for c in clients if c["count"][j]] for j in columns]
    highs = [[c["high"][j] for c in clients if c["count"][j]] for j in columns]
    return {
        "count": count,
        "missing": [sum(int(c["missing"][j]) for c in clients) for j in columns],
        "sum": total,
        "mean": [t / n if n else 0.0 for t, n in zip(total, count, strict=True)],
        "low": [min(found, default=0.0) for found in lows],
        "high": [max(found, default=0.0) for found in highs],
    }


def _sound(
    answers: Mapping[str, Answer], keys: Sequence[str]
) -> tuple[dict[str, dict[str, Any]], dict[str, HansaError]]:
    """Return the facts that can be summed, and the others' refusals.

    Clients whose columns differ in number from those of most are refused.
    """
    widths = {name: _width(answer.facts, keys) for name, answer in answers.items()}
    known = [width for width in widths.values() if width]
    width = max(sorted(set(known)), key=known.count, default=0)
    told = {name: answers[name].facts for name in answers if widths[name] == width and width}
    refused: dict[str, HansaError] = {
        name: UpdateRefused(
            "task-answer",
            f"The statistics of {name} are not those of {width} columns. They were not counted.",
            "Answer with hansa.learners.statistics, on rows of the same columns everywhere.",
        )
        for name in answers
        if name not in told
    }
    return told, refused


def _width(facts: Mapping[str, Any], keys: Sequence[str]) -> int:
    """Return the number of columns, or 0 where the facts are no statistics."""
    columns = [facts.get(key) for key in keys]
    if not all(isinstance(column, list) and column for column in columns):
        return 0
    numbers = [value for column in columns for value in _flat(column)]
    if not all(type(value) in (int, float) and math.isfinite(value) for value in numbers):
        return 0
    sizes = {len(column) for column in columns if isinstance(column, list)}
    return sizes.pop() if len(sizes) == 1 else 0


def _flat(column: Any) -> list[Any]:
    return [v for item in column for v in (item if isinstance(item, list) else [item])]
