"""Results of tasks: what identifies one, and how many metrics a round keeps of them."""

from __future__ import annotations

from collections import Counter

import msgspec
from blake3 import blake3

from hansa.limits import METRICS_MAX
from hansa.metrics import Metrics
from hansa.protocol.messages import Partial, TaskResult


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
