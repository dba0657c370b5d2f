"""One metric over all clients of a round: its pooled value and its spread, as plain JSON data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hansa.metrics.mean import Mean, Metrics, pooled
from hansa.metrics.measures import NONE_ASKED, Asked, Value, confusion, is_sum, shown


def summarise(by_client: Mapping[str, Mean]) -> dict[str, Any]:
    """Return the pooled mean of one metric and its spread over clients, as plain JSON data.

    Values that are not finite become None, and do not count in the quartiles, which interpolate
    linearly (Hyndman-Fan type 7).
    """
    mean = pooled(list(by_client.values()))
    values = {client: m.value for client, m in by_client.items()}
    return _summary(Value(mean.value, mean.weight), values)


def summarise_all(
    reports: Mapping[str, Metrics], asked: Asked = NONE_ASKED
) -> dict[str, dict[str, Any]]:
    """Return the summary of every metric that any client reported; `reports` is by client.

    Sums that stand for a metric which the plan asks for are not shown; the metric is, as it would
    be on all clients' examples together, and, for its spread, on each client's own.  A client whose
    examples leave it undefined, such as an area where all are of one class, is not in the spread.
    """
    names = sorted({name for metrics in reports.values() for name in metrics})
    means = {
        name: summarise({c: metrics[name] for c, metrics in reports.items() if name in metrics})
        for name in names
        if not is_sum(asked, name)
    }
    together = shown(asked, _pooled_sums(reports, asked))
    alone = {c: _own(asked, metrics) for c, metrics in reports.items()}
    derived = {
        name: _summary(value, {c: found[name] for c, found in alone.items() if name in found})
        for name, value in together.items()
    }
    return dict(sorted((means | derived).items()))


def confusions(reports: Mapping[str, Metrics], asked: Asked) -> list[list[int]] | None:
    """Return the pooled confusion matrix [true][predicted], if the plan asks for it.

    None too where a client reported what is no count.
    """
    if "confusion" not in asked.metrics:
        return None
    matrix = confusion(_pooled_sums(reports, asked))
    if not matrix.size or not np.isfinite(matrix).all():
        return None
    counts: list[list[int]] = matrix.astype(np.int64).tolist()
    return counts


def _own(asked: Asked, metrics: Metrics) -> dict[str, float]:
    """Return the metrics that are asked for on one client's examples, where they are defined.

    They are not where its sums are numbers and make none.  Sums that are no numbers are those of a
    model that has diverged; its metrics are kept as they are, so that nobody takes it for well.
    """
    values = {name: value.value for name, value in shown(asked, metrics).items()}
    sums = [mean for name, mean in metrics.items() if is_sum(asked, name)]
    if not all(math.isfinite(number) for mean in sums for number in mean):
        return values
    return {name: value for name, value in values.items() if not math.isnan(value)}


def _pooled_sums(reports: Mapping[str, Metrics], asked: Asked) -> dict[str, Mean]:
    found: dict[str, list[Mean]] = {}
    for metrics in reports.values():
        for name, mean in metrics.items():
            if is_sum(asked, name):
                found.setdefault(name, []).append(mean)
    return {name: pooled(means) for name, means in found.items()}


def _summary(together: Value, by_client: Mapping[str, float]) -> dict[str, Any]:
    values = dict(sorted(by_client.items()))
    finite = np.asarray([v for v in values.values() if math.isfinite(v)])
    ranks = np.quantile(finite, [0, 0.25, 0.5, 0.75, 1]) if len(finite) else [math.nan] * 5
    names = ("min", "q25", "median", "q75", "max")
    return {
        "mean": finite_or_none(together.value),
        "weight": finite_or_none(together.weight),
        **{name: finite_or_none(float(rank)) for name, rank in zip(names, ranks, strict=True)},
        "by_client": {client: finite_or_none(value) for client, value in values.items()},
    }


def finite_or_none(value: float) -> float | None:
    """Return a number as JSON has it, which knows no NaN."""
    return value if math.isfinite(value) else None
