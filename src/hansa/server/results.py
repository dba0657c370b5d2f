"""Results of tasks: what identifies one, what a round keeps of it, and why one does not count."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
from blake3 import blake3

from hansa.errors import RequestRefused
from hansa.limits import METRICS_MAX
from hansa.metrics import Mean, Metrics
from hansa.protocol.messages import Partial, TaskResult

if TYPE_CHECKING:
    from hansa.server.sums import Ask


def result_digest(result: TaskResult | Partial) -> tuple[str, int]:
    """Return digest and size of what a result carries.

    Metrics count into the digest of an evaluation, which carries nothing else; the update alone
    is what a training result is known by (law L4).
    """
    if result.update is not None:
        return result.update.digest, result.update.size
    body = msgspec.json.encode(result.metrics, order="deterministic")
    return f"blake3:{blake3(body).hexdigest()}", 0


def few(metrics: dict[str, Metrics]) -> dict[str, Metrics]:
    """Return a round's metrics without those that few sites have, where there are very many.

    Each site's are bounded, but a thousand sites that each make up names of their own would make a
    round of any size.
    """
    counts = Counter(name for measured in metrics.values() for name in measured)
    if len(counts) <= METRICS_MAX:
        return metrics
    kept = set(sorted(counts, key=lambda name: (-counts[name], name))[:METRICS_MAX])
    return {c: {n: m for n, m in found.items() if n in kept} for c, found in metrics.items()}


def means(pairs: Mapping[str, Sequence[float | None]]) -> Metrics:
    """Return metrics as they were before they travelled; JSON knows no NaN."""
    nan = math.nan
    told = {
        name: [nan if value is None else value for value in pair] for name, pair in pairs.items()
    }
    return {name: Mean(*pair) for name, pair in told.items()}


def not_ready(run: str, number: int, phase: str) -> RequestRefused:
    """Return what is told of a result for an exchange that will be open again in a moment."""
    return RequestRefused(
        "round-not-open",
        f"Round {number} ({phase}) of {run} is not ready for it. Nothing was lost.",
        "Send the result again in a moment.",
        status=503,
    )


def rejected(code: str, ask: Ask, client: str) -> RequestRefused:
    """Return what a client is told whose result was not counted."""
    where = f"round {ask.number} ({ask.phase}) of {ask.run}"
    told = {
        "update-conflict": f"{client} has sent another result for {where} before; that one counts.",
        "update-late": f"{client} has answered {where} after it was closed.",
        "update-not-asked": f"{client} was not asked in {where}.",
        "update-failed": f"{client} has reported before that it failed in {where}.",
    }
    return RequestRefused(
        code, f"{told[code]} The result was not counted.", "Go on with the next task.", status=409
    )
