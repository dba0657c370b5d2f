"""A model that begins at the clients: before the first round they are asked for their own weights.

    initial = "mean"        # the mean of all clients', weighted by what each says or its examples
    initial = "first"       # those of the first client, by name, that gives some
    initial = "north"       # those of one client

The weights are a client's answer to the named task `initial_weights`: the project's own, or what
the learner makes of the client's data.  Shapes and names must be the seed model's.

Source: NVFlare's InitializeGlobalWeights.  Ours differs: the weights can be a mean of all.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from hansa.algorithms import Algorithm
from hansa.errors import RunError
from hansa.plan import Plan
from hansa.workflows.answers import first_model, mean_model
from hansa.workflows.federation import Commit, Federation, Problem
from hansa.workflows.outcome import Turn
from hansa.workflows.stopping import Progress
from hansa.workflows.synchronous import reasons
from hansa.workflows.workflow import Run

TASK = "initial_weights"


def initialised(run: Run, initial: str) -> Run:
    """Return a workflow's function that begins from the clients' weights.

    Args:
      run: of the workflow.
      initial: "mean", "first", or a client's name.
    """

    async def begun(federation: Federation, plan: Plan, algorithm: Algorithm) -> Progress:
        commit = federation.resume()
        if commit.round == 0:
            commit = await _begin(federation, plan, algorithm, commit, initial=initial)
            federation = cast(Federation, _Begun(federation, commit))
        return await run(federation, plan, algorithm)

    return begun


async def _begin(
    federation: Federation, plan: Plan, algorithm: Algorithm, commit: Commit, *, initial: str
) -> Commit:
    """Return the commit that the first round goes on from; a crash before its end repeats this.

    Raises:
      RunError: run-too-few, too few clients gave weights that can be used.
    """
    roster = await federation.roster(1)
    everybody = initial in ("mean", "first")
    asked = [name for name in roster if everybody or name == initial]
    layout, state = federation.layout, commit.state
    seed = layout.join(state.algorithm.x, state.buffers)
    answered = await federation.ask(1, TASK, asked)
    turn = Turn(1, 0, {}, layout, seed)
    outcome = (first_model if initial == "first" else mean_model)(answered.answers, turn)
    counted = len(answered.answers) - len(outcome.refused)
    needed = max(1, plan.cohort.minimum) if initial == "mean" else 1
    if outcome.model is None or counted < needed:
        refused = [
            Problem(1, name, "refused", error.code, error.happened)
            for name, error in sorted(outcome.refused.items())
        ]
        wanted = () if everybody else (initial,)
        raise RunError(
            "run-too-few",
            f"The model shall begin with weights of {'clients' if everybody else initial}; "
            f"{counted} gave some and {needed} are needed: "
            f"{reasons([*answered.problems, *refused], wanted)}. The run has failed.",
            'Correct the cause, or begin with the server\'s model: initial = "server".',
        )
    x, buffers = layout.split(outcome.model)
    begun = type(state)(algorithm.init(np.array(x)), np.array(buffers))
    return commit._replace(state=begun)


class _Begun:
    """A federation whose last commit is another, until there is one of its own."""

    def __init__(self, federation: Federation, commit: Commit) -> None:
        self._federation, self._commit = federation, commit

    def resume(self) -> Commit:
        """Return the commit to begin from."""
        return self._commit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._federation, name)
