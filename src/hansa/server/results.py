"""What identifies a result: the digest of its update, or of its metrics."""

from __future__ import annotations

import msgspec
from blake3 import blake3

from hansa.protocol.messages import TaskResult


def result_digest(result: TaskResult) -> tuple[str, int]:
    """Return digest and size of what a result carries.

    Metrics count into the digest of an evaluation, which carries nothing else; the update alone
    is what a training result is known by (law L4).
    """
    if result.update is not None:
        return result.update.digest, result.update.size
    body = msgspec.json.encode(result.metrics, order="deterministic")
    return f"blake3:{blake3(body).hexdigest()}", 0
