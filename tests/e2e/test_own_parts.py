"""A project's own parts over TLS: the bytes of a simulation, also when the server is killed."""

from __future__ import annotations

from pathlib import Path

import pytest
from federations import CALM, as_simulated, orphans

from hansa.dev import Rehearsal

MODEL = """
import numpy as np
VALUES = {"client-0": (1.0, 3), "client-1": (-4.0, 1), "client-2": (2.5, 6), "client-3": (-0.5, 2)}
def init(rng, sample): return {"w": np.array([0.5, -1.0], np.float32)}
def data(client):
    value, rows = VALUES[client]
    return np.full(rows, value)
def train(params, data, ctx):
    params["w"] += np.float32(ctx.lr) * (np.float32(data.mean()) - params["w"])
    return params, {"mean": float(data.mean())}
def evaluate(params, data): return {"error": float(abs(params["w"] - data.mean()).max())}
import hansa
@hansa.task("spread")
def spread(params, data, ctx): return None, {"top": float(data.train.max()), "round": ctx.round}
"""

OWN = """
import numpy as np
from hansa.aggregators import collected
from hansa.algorithms import Algorithm, Vectors
from hansa.transforms import Transform
from hansa.workflows import Commit, GlobalState, Progress, Workflow
from hansa.workflows.synchronous import step
from hansa.rounds import Terms

def momentum(beta: float = 0.75):
    def client(work, message, mine, key):
        return Vectors(delta=work.train(message.x) - message.x), mine
    def init(x):
        return Vectors(x=x, m=np.zeros_like(x))
    def server(state, mean, share):
        m = np.float32(beta) * state.m + mean.delta
        return Vectors(x=state.x + m, m=m)
    return Algorithm("momentum", client=client, server=server, init=init)

def trimmed_sum():
    def rule(spec, each):
        made = {}
        for name in spec.vectors:
            rows = np.sort([np.array(c.vectors[name]) for c in each], axis=0)
            made[name] = rows[1:-1].sum(axis=0)
        return made
    return collected.aggregator("trimmed_sum", rule, needs=3)

def halves():
    half = np.float32(0.5)
    return Transform("halves", lambda v, key: {n: a * half for n, a in v.items()},
                     lambda v: {n: a / half for n, a in v.items()})

async def _turns(federation, plan, algorithm):
    commit = federation.resume()
    while Progress(**commit.progress).ended is None:
        number = commit.round + 1
        roster = list(await federation.roster(number))
        tops = await federation.ask(number, "spread", roster, terms=Terms(minimum=len(roster)))
        told = {name: answer.facts["top"] for name, answer in tops.answers.items()}
        cohort = sorted(roster, key=lambda name: -told[name])[:3]
        trained = await federation.train(number, commit.state, cohort, terms=Terms(minimum=3))
        state = step(algorithm, commit.state, trained, clients=len(roster))
        evaluated = await federation.evaluate(number, state, roster)
        memory = {"tops": told, "seen": commit.progress["memory"].get("seen", 0) + len(cohort)}
        ended = "all turns are done" if number == plan.rounds else None
        progress = Progress(ended=ended, memory=memory)._asdict()
        row = {"round": number, "cohort": cohort, "measured": len(evaluated.metrics)}
        commit = Commit(number, state, row, progress)
        await federation.commit(commit, trained.problems)
    return Progress(**commit.progress)

def turns():
    return Workflow("turns", _turns, tells="Your largest value is told, then three of you train.")
"""

PLAN = """
name = "own"
rounds = 3
seed = 11
{top}
[learner]
kind = "function"
module = "model.py"
optimizer = {{ lr = 0.5 }}
[data]
clients = 4
validation = 0.0
[cohort]
minimum = 4
[stop]
metric = "error"
"""

PARTS = {
    "algorithm": 'algorithm = { name = "own.py:momentum", beta = 0.75 }',
    "aggregator": 'aggregator = "own.py:trimmed_sum"',
    "transform": 'transforms = ["own.py:halves"]',
    "workflow": 'workflow = "own.py:turns"',
}
PARTS["all of them"] = "\n".join(PARTS.values())


def written(folder: Path, top: str) -> Path:
    folder.mkdir()
    (folder / "plan.toml").write_text(PLAN.format(top=top))
    (folder / "model.py").write_text(MODEL)
    (folder / "own.py").write_text(OWN)
    return folder


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("point", [None, "after_update_recorded:5", "after_round_closed:2"])
def test_a_federation_does_what_a_simulation_does(
    tmp_path: Path, part: str, point: str | None
) -> None:
    if point is not None and part in ("aggregator", "transform"):
        pytest.skip("killed with all of them")
    study = written(tmp_path / "study", PARTS[part])
    with Rehearsal(tmp_path / "r", study, settings=CALM) as federation:
        as_simulated(federation, point)
    assert not orphans(federation)
