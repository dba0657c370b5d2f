"""How fast clients are, and how many local steps let them all finish together.

A client reports two metrics beside its own: `step_seconds`, the seconds of its local steps over
their number, and `epoch_steps`, the steps of one pass over its examples.  A time is a client's own
word: it decides how many steps clients are asked for, within bounds, and nothing else.

Source: Stripelis, Thompson and Ambite 2022 (arXiv 2102.02849), section 4: with
t_max = lambda * max_k (e_k * s_k), client k takes B_k = t_max / s_k steps, where s_k are the
seconds of one of its steps and e_k the steps of one pass over its examples.  Ours rounds down, so
that nobody needs longer than t_max, and gives everybody at least one step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from hansa.limits import LOCAL_STEPS_MAX, SPEEDS_KEPT_MAX, STEP_SECONDS_MIN
from hansa.metrics import Mean, Metrics
from hansa.seeds import Key

STEP_SECONDS = "step_seconds"
EPOCH_STEPS = "epoch_steps"


class Speed(NamedTuple):
    """How fast a client has been."""

    step_seconds: float  # of one local step
    epoch_steps: float  # of one pass over its examples, at least 1


def with_pace(metrics: Metrics, *, seconds: float, steps: int, epoch_steps: int) -> Metrics:
    """Return a client's metrics with its speed.

    Args:
      metrics: what was measured while training.
      seconds: all local steps took.
      steps: that were taken, not those that were asked.
      epoch_steps: of one pass over its examples.
    """
    pace = {
        STEP_SECONDS: Mean(float(seconds), float(steps)),
        EPOCH_STEPS: Mean(float(epoch_steps), 1.0),
    }
    return {**metrics, **pace}


def drawn_seconds(key: Key, *, steps: int, spread: float) -> float:
    """Return the seconds that a simulated client takes for its steps.

    One step takes about a millisecond: exp(spread * z) of them, where z is standard normal and
    belongs to the client.  A simulation's own times would say how fast this machine is, differ
    from run to run, and make no result reproducible.

    Args:
      key: of the client, the same in each round.
      steps: local steps.
      spread: standard deviation of the logarithm; 0 makes all clients equally fast.
    """
    return 0.001 * steps * math.exp(spread * float(key.generator().standard_normal()))


def speed_key(seed: int, client: str) -> Key:
    """Return the key of a simulated client's speed."""
    return Key.root(seed).child("speed", client)


def split_pace(reports: Mapping[str, Metrics]) -> tuple[dict[str, Metrics], dict[str, Speed]]:
    """Return what clients measured of their model, and how fast they say they were.

    A speed that cannot be is left out: not finite, no time at all, or no steps.
    """
    plain: dict[str, Metrics] = {}
    speeds: dict[str, Speed] = {}
    for client, metrics in reports.items():
        plain[client] = {n: m for n, m in metrics.items() if n not in (STEP_SECONDS, EPOCH_STEPS)}
        seconds, epoch = metrics.get(STEP_SECONDS), metrics.get(EPOCH_STEPS)
        if seconds is None or epoch is None:
            continue
        speed = Speed(seconds.value, epoch.value)
        if all(math.isfinite(value) and value > 0 for value in speed) and speed.epoch_steps >= 1:
            speeds[client] = speed._replace(step_seconds=max(STEP_SECONDS_MIN, speed.step_seconds))
    return plain, speeds


def round_seconds(speeds: Iterable[Speed], *, multiple: float) -> float | None:
    """Return t_max, the seconds that a round's local work shall take; None if no speed is known.

    >>> round_seconds([Speed(0.5, 10), Speed(0.1, 40)], multiple=2.0)
    10.0
    """
    epochs = [s.step_seconds * s.epoch_steps for s in speeds]
    return multiple * max(epochs) if epochs else None


def budgets(speeds: Mapping[str, Speed], *, multiple: float, most_epochs: float) -> dict[str, int]:
    """Return how many local steps each of these clients takes, so that all finish together.

    Args:
      speeds: of clients that work together.
      multiple: lambda, passes that the slowest of them makes over its examples.
      most_epochs: passes that the fastest makes at most, whatever the slowest has told.

    >>> budgets({"a": Speed(0.5, 10), "b": Speed(0.125, 40)}, multiple=1.0, most_epochs=9.0)
    {'a': 10, 'b': 40}
    >>> budgets({"a": Speed(0.5, 10), "b": Speed(0.1, 5)}, multiple=2.0, most_epochs=9.0)
    {'a': 20, 'b': 45}
    """
    t_max = round_seconds(speeds.values(), multiple=multiple)
    if t_max is None:
        return {}
    return {
        client: _steps(min(t_max / speed.step_seconds, most_epochs * speed.epoch_steps))
        for client, speed in speeds.items()
    }


def _steps(steps: float) -> int:
    """Round down, but not what is whole and lacks a last bit."""
    return max(1, math.floor(min(steps * (1 + 1e-9), LOCAL_STEPS_MAX)))


def kept(speeds: Mapping[str, Speed]) -> dict[str, Any]:
    """Return speeds as JSON data; of very many clients those that were measured last."""
    last = list(speeds.items())[-SPEEDS_KEPT_MAX:]
    return {client: list(speed) for client, speed in last}


def remembered(facts: Mapping[str, Any]) -> dict[str, Speed]:
    """Return what `kept` was given."""
    return {client: Speed(*pair) for client, pair in facts.items()}
