"""What never changes in a model is nowhere lost, and in no update; also when the server is killed.

Whole numbers beyond 2^53 show it: one that has been through a float64 is another.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from federations import CALM, SCAFFOLD, as_simulated, orphans, project

from hansa.dev import Rehearsal
from hansa.params import Params
from hansa.store.files import load_params

CODES = [2**62 + 1, -(2**61) - 3]

DESCENT = f"""
import numpy as np
def init(rng, sample):
    return {{"w": np.zeros((64, 10), np.float32), "codes": np.array({CODES})}}
def log_softmax(z): return z - np.log(np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True)) \\
    - z.max(1, keepdims=True)
def loss(params, x, y):
    assert params["codes"].tolist() == {CODES}, params["codes"]
    log_p = log_softmax(x @ params["w"])
    error = np.exp(log_p)
    error[np.arange(len(y)), y] -= 1
    return -log_p[np.arange(len(y)), y].mean(), {{"w": x.T @ error / len(y)}}
def metrics(params, x, y):
    assert params["codes"].tolist() == {CODES}, params["codes"]
    return {{"accuracy": (x @ params["w"]).argmax(1) == y}}
"""

FUNCTIONS = f"""
import numpy as np
def data(client): return np.full(3, 1.5 + len(client))
def init(rng, sample):
    return {{"w": np.zeros(2, np.float32), "codes": np.array({CODES}), "n": np.array(0)}}
def train(params, data, ctx):
    assert params["codes"].tolist() == {CODES}, params["codes"]
    params["w"] += np.float32(data.mean())
    params["n"] += len(data)
    return params
def evaluate(params, data): return {{"error": float(abs(params["codes"][0] - {CODES[0]}))}}
"""

OWN = """
from hansa.rounds import Terms
from hansa.workflows import Commit, Progress, Workflow
from hansa.workflows.synchronous import step

async def _joined(federation, plan, algorithm):
    commit = federation.resume()
    while Progress(**commit.progress).ended is None:
        number = commit.round + 1
        roster = list(await federation.roster(number))
        trained = await federation.train(number, commit.state, roster, terms=Terms(minimum=2))
        state = step(algorithm, commit.state, trained, clients=len(roster))
        model = federation.layout.join(state.algorithm.x, state.buffers)
        ended = "done" if number == plan.rounds else None
        row = {"round": number, "codes": [str(code) for code in model["codes"]]}
        commit = Commit(number, state, row, Progress(ended=ended)._asdict())
        await federation.commit(commit, trained.problems)
    return Progress(**commit.progress)

def joined(): return Workflow("joined", _joined)
"""

STEPS = """
name = "steps"
rounds = 3
seed = 11
{top}
[learner]
kind = "function"
module = "model.py"
[data]
clients = 2
validation = 0.0
[cohort]
minimum = 2
"""

MODULE = SCAFFOLD.replace('kind = "numpy"', 'kind = "numpy"\nmodule = "model.py"')
LARGE = {"delta": np.zeros(640, np.float32), "dc": np.zeros(640, np.float32)}
SMALL = {"delta": np.zeros(2, np.float32), "buffers": np.zeros(1)}
PLANS = {
    "a message of vectors": (MODULE, DESCENT, LARGE),
    "a message that is the model": (STEPS.format(top=""), FUNCTIONS, SMALL),
    "a workflow of the project": (
        STEPS.format(top='workflow = "own.py:joined"'), FUNCTIONS, SMALL
    ),
}  # fmt: skip
"""Plan, code, and what an update looks like."""


@pytest.mark.parametrize("point", [None, "after_update_recorded:3", "behind a combiner"])
@pytest.mark.parametrize("plan", PLANS)
def test_constants_stay_to_the_bit_and_do_not_leave_a_site(
    tmp_path: Path, plan: str, point: str | None
) -> None:
    text, model, sent = PLANS[plan]
    if point == "behind a combiner" and plan != "a message that is the model":
        pytest.skip("no combiner passes on such runs")
    study = project(tmp_path / "study", text, model)
    (study / "own.py").write_text(OWN)
    combiners = int(point == "behind a combiner")
    with Rehearsal(tmp_path / "r", study, settings=CALM, combiners=combiners) as federation:
        folder = as_simulated(federation, None if combiners else point)
        assert load_params(folder.model_path(3))["codes"].tolist() == CODES
        last = folder.rows()[-1]
        if "workflow" in plan:
            assert last["codes"] == [str(code) for code in CODES]
        elif not combiners:  # which sends integers, of another size
            assert last["bytes"]["up"] == 2 * Params.of(sent).nbytes
    assert not orphans(federation)
