"""Federated statistics: what the answers of `hansa.learners.statistics` come to over all clients.

    workflow = { name = "broadcast_and_process", task = "statistics", process = "statistics",
                 settings = { bins = 20, minimum = 10 }, send_model = false }

The report has, for each column, count, missing, sum, mean, min, max, variance (over count - 1) and
a histogram, equal to those of all rows together: a client's sums and those over clients are each
correctly rounded, so neither the order of rows nor that of clients matters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hansa.errors import HansaError, UpdateRefused
from hansa.rounds.questions import Answer
from hansa.workflows.outcome import Outcome, Turn

_FIRST = ("count", "missing", "sum", "low", "high")
_SECOND = ("squares", "histogram")
_ADDED = (*_FIRST, "mean", "clients")
"""What the second question has beside the settings of the plan."""

_LARGEST = 1e290
"""No value beyond; sums of so many clients as there can be stay finite."""


def statistics(answers: Mapping[str, Answer], turn: Turn) -> Outcome:
    """Ask for deviations once the means are known, then report.

    Who answers the first question and not the second is in the means, so all begin again without.
    """
    settings = turn.settings
    if "mean" not in settings:
        told, refused = _sound(answers, _FIRST)
        if not told:
            return Outcome({}, refused=refused)
        first = _first([told[name] for name in sorted(told)])
        return Outcome({}, ask={**settings, **first, "clients": len(told)}, refused=refused)
    told, refused = _sound(answers, _SECOND, width=len(settings["mean"]))
    if not told:
        return Outcome({}, refused=refused)
    if len(told) < settings["clients"]:
        asked = {key: value for key, value in settings.items() if key not in _ADDED}
        return Outcome({}, ask=asked, refused=refused)
    clients = [told[name] for name in sorted(told)]
    columns = range(len(settings["mean"]))
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
    answers: Mapping[str, Answer], keys: Sequence[str], *, width: int | None = None
) -> tuple[dict[str, dict[str, Any]], dict[str, HansaError]]:
    """Return the facts that can be summed, and the others' refusals.

    Args:
      answers: by client.
      keys: of the facts that are wanted.
      width: columns, where that is known; else most clients decide, as they do about bins.
    """
    shapes = {name: _shape(answer.facts, keys) for name, answer in answers.items()}
    known = [shape for shape in shapes.values() if shape and width in (None, shape[0])]
    shape = max(sorted(set(known)), key=known.count, default=())
    told = {name: answers[name].facts for name in answers if shape and shapes[name] == shape}
    columns = width or (shape[0] if shape else 0)
    refused: dict[str, HansaError] = {
        name: UpdateRefused(
            "task-answer",
            f"The statistics of {name} are not those of {columns} columns. They were not counted.",
            "Answer with hansa.learners.statistics, on rows of the same columns everywhere.",
        )
        for name in answers
        if name not in told
    }
    return told, refused


def _shape(facts: Mapping[str, Any], keys: Sequence[str]) -> tuple[int, ...]:
    """Return the number of columns, and of bins of each; () where the facts are no statistics."""
    columns = [facts.get(key) for key in keys]
    if not all(_fits(key, column) for key, column in zip(keys, columns, strict=True)):
        return ()
    sizes = {len(column) for column in columns if isinstance(column, list)}
    if len(sizes) != 1:
        return ()
    return (*sizes, *(len(bins) for bins in (facts["histogram"] if "histogram" in keys else ())))


def _fits(key: str, column: Any) -> bool:
    """Tell whether what a client's code has answered is a column of such facts."""
    if not isinstance(column, list) or not column:
        return False
    if key == "histogram":
        return all(isinstance(bins, list) and all(map(_is_count, bins)) for bins in column)
    if key in ("count", "missing"):
        return all(map(_is_count, column))
    return all(type(value) in (int, float) and abs(value) <= _LARGEST for value in column)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53
