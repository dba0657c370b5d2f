"""When a run is over: the rounds are done, a target is met, or nothing gets better."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from hansa.limits import SPEEDS_KEPT_MAX
from hansa.metrics import lower_is_better
from hansa.plan.schema import StopPlan


class Progress(NamedTuple):
    """The best value so far and how long ago it was; survives a restart inside each commit."""

    best: float | None = None
    best_round: int = 0
    evaluations_since: int = 0
    ended: str | None = None  # why the run is over, in words
    memory: dict[str, Any] = {}  # noqa: RUF012 - what the workflow must remember; never changed


def watched(row: dict[str, Any], metric: str) -> float | None:
    """Return the metric of one round: on the server's test part, else pooled over clients.

    NaN if it was measured and is not a number, None if it was not measured.
    """
    for part in ("test", "validation"):
        summary = row.get(part, {}).get(metric)
        if summary is not None:
            return math.nan if summary["mean"] is None else float(summary["mean"])
    return None


LATEST = "stop.latest"
"""Key of the memory: each client's latest value of the metric, where the mean is over clients.

The memory is the workflow's too, and no workflow's own key begins with "stop.".
"""


def latest(memory: dict[str, Any], row: dict[str, Any], metric: str) -> dict[str, Any]:
    """Return each client's latest value; of very many clients those that were asked last."""
    known = dict(memory.get(LATEST, {}))
    by_client = row.get("validation", {}).get(metric, {}).get("by_client", {})
    for client, value in sorted(by_client.items()):
        known.pop(client, None)  # the last one measured is the last one forgotten
        known[client] = value
    return dict(list(known.items())[-SPEEDS_KEPT_MAX:])


def _over_clients(progress: Progress, row: dict[str, Any], metric: str) -> tuple[Any, Progress]:
    """Return the mean of clients' latest values, None if nobody was asked, and what to remember.

    A client whose examples leave the metric undefined has no value, and does not count.  One that
    has measured what is no number does, so that the mean is none: its model has diverged.
    """
    if metric not in row.get("validation", {}):
        return None, progress
    known = latest(progress.memory, row, metric)
    values = [math.nan if value is None else value for value in known.values()]
    mean = math.fsum(values) / len(values) if values else math.nan
    return mean, progress._replace(memory={**progress.memory, LATEST: known})


def advance(
    progress: Progress, row: dict[str, Any], stop: StopPlan, *, rounds: int, minutes: float
) -> Progress:
    """Take one round's metrics into account; `minutes` is the time worked so far."""
    if stop.over == "clients":
        value, progress = _over_clients(progress, row, stop.metric)
    else:
        value = watched(row, stop.metric)
    if value is not None:  # NaN is an evaluation too, and never a better one
        known = math.isfinite(value)
        better = known and (progress.best is None or _better(value, progress.best, stop))
        progress = progress._replace(
            best=value if better else progress.best,
            best_round=row["round"] if better else progress.best_round,
            evaluations_since=0 if better else progress.evaluations_since + 1,
        )
        if known and stop.target is not None and not _better(stop.target, value, stop):
            return progress._replace(
                ended=f"{stop.metric} reached {value:.4g}, the target being {stop.target:.4g}"
            )
        if stop.patience is not None and progress.evaluations_since >= stop.patience:
            return progress._replace(
                ended=f"{stop.metric} has not improved in {stop.patience} evaluations"
            )
    if row["round"] >= rounds:
        return progress._replace(
            ended=f"all {rounds} rounds are done" if rounds > 1 else "the one round is done"
        )
    if stop.minutes is not None and minutes >= stop.minutes:
        return progress._replace(ended=f"{stop.minutes:g} minutes of work are over")
    return progress


def _better(a: float, b: float, stop: StopPlan) -> bool:
    said = stop.lower_is_better
    lower = lower_is_better(stop.metric) if said is None else said
    return a < b if lower else a > b
