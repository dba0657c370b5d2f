"""The deployed handle keeps the laws that the simulated one keeps, with stand-ins for sites."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from handles import deployed, simulated

from hansa.server.exchange import Interrupted
from hansa.testing import check_federation
from hansa.testing.case import Case
from hansa.workflows import drive


def test_the_deployed_handle_keeps_every_law(tmp_path: Path) -> None:
    check_federation(deployed, tmp_path, interrupted=Interrupted)


PLANS: tuple[dict[str, Any], ...] = (
    {},
    {"workflow": {"name": "semi_synchronous", "multiple": 5.0, "spread": 1.5}},
    {"workflow": {"name": "cyclic", "order": "random"}, "algorithm": "fed_avg", "rounds": 7},
    {"workflow": {"name": "cross_site_evaluation", "own_models": True}},
    {"workflow": "evaluate_only"},
    {"workflow": {"name": "asynchronous", "buffer": 4}, "algorithm": "fed_avg"},
    {"workflow": {"name": "asynchronous", "rule": "fed_buff", "buffer": 4}},
    # One at a time, so that who comes next is the same on both.
    {
        "workflow": {"name": "asynchronous", "rule": "fed_async", "staleness": "polynomial"},
        "algorithm": "fed_avg",
        "cohort": {"count": 1},
    },
)


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_a_whole_run_ends_in_the_same_bytes_on_both_handles(
    tmp_path: Path, plan: dict[str, Any]
) -> None:
    """Goal: law L1, and X6 in small.  Method: a few rounds of four clients of five, on each."""
    ends: list[Any] = []
    for opened in (simulated, deployed):
        case, folder = Case(plan=plan), tmp_path / opened.__name__
        folder.mkdir()
        with opened(case, folder) as handle:
            drive(case.project.workflow.run(handle, case.plan, case.project.method.algorithm))
            ends.append((handle.resume(), sorted(case.asked), case.steps))
    (here, *asked_here), (there, *asked_there) = ends
    assert asked_here == asked_there
    assert here.round == there.round > 0
    for name, vector in here.state.algorithm.items():
        assert vector.tobytes() == there.state.algorithm[name].tobytes(), name
    assert here.state.buffers.tobytes() == there.state.buffers.tobytes()
    assert here.progress == there.progress
    assert {**here.row, "seconds": 0} == {**there.row, "seconds": 0}
