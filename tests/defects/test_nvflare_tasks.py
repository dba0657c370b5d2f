"""What goes wrong with FLARE's tasks and filters, and must not here: contract, 1 and 3.1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import hansa
from hansa.compat.nvflare.components import FLContext
from hansa.compat.nvflare.exchange import DXO, from_shareable
from hansa.compat.nvflare.filters import PercentilePrivacy, SVTPrivacy


def test_a_task_that_one_executor_refuses_does_not_panic_the_run(tmp_path: Path) -> None:
    def count(params: Any, data: Any, ctx: Any) -> dict[str, int]:
        if ctx.client == "client-1":
            raise LookupError("TASK_UNKNOWN")
        return {"rows": len(data.train[0])}

    learner = hansa.function_learner(
        lambda rng, sample: {"w": np.zeros(1)}, lambda p, d, c: p, tasks={"count": count}
    )
    data = hansa.clients(lambda name: (np.zeros((10, 1)), np.zeros(10)), 3, validation=0)
    workflow = {"name": "broadcast_and_process", "task": "count"}
    made = hansa.run(learner=learner, data=data, rounds=1, runs=tmp_path, workflow=workflow)
    assert made.folder.state == "finished"
    assert made.folder.rows()[0]["report"] == {"client-0": {"rows": 10}, "client-2": {"rows": 10}}
    told = next(e for e in made.folder.log.events if e["kind"] == "problem")
    assert told["client"] == "client-1" and "TASK_UNKNOWN" in told["message"]


def test_a_scalar_does_not_pass_the_privacy_filter_unprotected() -> None:
    for made in (PercentilePrivacy(0, 0.5), SVTPrivacy(1.0, 1e12, 1e12, 0.5, 0.0)):
        diff = DXO("WEIGHT_DIFF", {"scale": np.float64(9.0), "w": np.array([-7.0, 0.25])})
        found = from_shareable(made.process(diff.to_shareable(), FLContext())).data
        np.testing.assert_allclose(found["scale"], 0.5, atol=1e-9)
        np.testing.assert_allclose(found["w"], [-0.5, 0.25], atol=1e-9)
