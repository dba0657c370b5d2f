"""Runs as a server's database would have them, without any sites."""

from __future__ import annotations

from typing import Any

import numpy as np

from hansa.params import Params, encode
from hansa.protocol.messages import BlobRef, Submission
from hansa.server.journal import Journal
from hansa.server.opening import Opened
from hansa.store.blobs import BlobStore


def record_run(server: Opened, *, rounds: int, number: int = 1) -> list[str]:
    """Record a run that has committed so many rounds; return its models' digests, seed first."""
    blobs = BlobStore(server.folder / "blobs", durable=True)
    package = blobs.put_bytes(b"package %d" % number)
    models = [blobs.put_bytes(encode(_model(number, round))) for round in range(rounds + 1)]
    submission = Submission(
        id=f"{number:032x}",
        identity=f"blake3:{number:064x}",
        plan={"name": "study", "rounds": 9},
        package=BlobRef(*package),
        seed_model=BlobRef(*models[0]),
        tensors=[("w", "F32", [4])],
        buffers=[],
        signature="",
        certificate="",
    )
    journal = Journal(server.database, lambda _: None)
    run, fresh = journal.submit(submission, "anna")
    assert fresh
    for round, (digest, size) in enumerate(models):
        fact: dict[str, Any] = {"kind": "committed", "round": round, "model": digest}
        fact |= {"model_size": size, "state": None, "row": {}, "progress": {}, "elapsed": 0.0}
        journal.commit(run, fact, keep=lambda _: True)
    return [digest for digest, _ in models]


def _model(number: int, round: int) -> Params:
    return Params.of({"w": np.full(4, 100 * number + round, dtype=np.float32)})
