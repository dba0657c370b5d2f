"""Training, and then every model at every client: whose model works on whose data.

First come the plan's rounds, synchronous ones.  Then each model has a round of its own, in which
nothing is aggregated into the global model: the last global one, the best one where another was
best, and, if the plan says so, the own model of each client.  These rounds are counted on from the
training's last; each is committed, so a crash loses the evaluation of one model at most.

A client's own model is what its local training makes of the last global model.  Other clients get
to see it, so it leaves its client only where the plan says `own_models = true`, which data owners
read before they approve.

Source: NVFlare's cross-site model evaluation.  Ours differs: a client's model is made when it is
asked for, by training once more, so that no site has to keep models, and a run can be resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hansa.algorithms import Algorithm, Vectors
from hansa.errors import PlanError
from hansa.limits import CROSS_SITE_MODELS_MAX
from hansa.metrics import Metrics, summarise_all
from hansa.plan import Method, Plan
from hansa.plan.measured import asked_of
from hansa.rounds import BUFFERS, Terms, largest_parameter
from hansa.seeds import Key
from hansa.workflows.federation import Commit, Federation, GlobalState, Problem, Trained
from hansa.workflows.sampling import sample
from hansa.workflows.stopping import Progress
from hansa.workflows.synchronous import one_round
from hansa.workflows.workflow import Workflow

LAST, BEST = "global, last", "global, best"
"""What the global models are called; no client's name holds a comma or a space."""


def cross_site_evaluation(own_models: bool = False) -> Workflow:
    """Build synchronous rounds, and then an evaluation of every model at every client.

    Args:
      own_models: each client's own model, too, goes to all other clients.
    """

    async def run(federation: Federation, plan: Plan, algorithm: Algorithm) -> Progress:
        commit = federation.resume()
        progress = Progress(**commit.progress)
        while progress.ended is None:
            if "models" in progress.memory:
                commit, problems = await _one_model(federation, plan, commit)
            else:
                commit, problems = await one_round(federation, plan, algorithm, commit)
                progress = Progress(**commit.progress)
                if progress.ended is not None:
                    roster = await federation.roster(commit.round)
                    progress = _evaluating(progress, plan, commit.round, roster, own=own_models)
                    commit = commit._replace(progress=progress._asdict())
            progress = Progress(**commit.progress)
            await federation.commit(commit, problems)
        return progress

    def check(plan: Plan, method: Method) -> None:
        _check(plan, method, own_models=own_models)

    tells = (
        "A model that is trained on your data alone is sent to the other sites, which evaluate it."
    )
    return Workflow("cross_site_evaluation", run, check, tells if own_models else "")


def _check(plan: Plan, method: Method, *, own_models: bool) -> None:
    """Refuse an evaluation by nobody, and clients' models that cannot be had."""
    if plan.evaluate.clients == 0:
        raise PlanError(
            "plan-impossible",
            "Cross-site evaluation asks clients to evaluate; the plan's evaluate.clients is 0. "
            "Nothing was started.",
            "Set evaluate.clients to how many clients shall evaluate at most.",
        )
    if own_models and (
        method.algorithm.sends[:1] != ("delta",) or method.aggregator.name != "mean"
    ):
        part = method.aggregator.name if method.aggregator.name != "mean" else method.algorithm.name
        raise PlanError(
            "plan-impossible",
            f"A client's own model is the global one and its own delta; with {part} the server "
            "does not get that. Nothing was started.",
            'Leave own_models out, or use algorithm = "fed_avg" and aggregator = "mean".',
        )
    if own_models and plan.cohort.late == "discount":
        raise PlanError(
            "plan-impossible",
            'A client\'s own model is made of its update alone, and with cohort.late = "discount" '
            "another's late one would be added. Nothing was started.",
            "Leave own_models out, or cohort.late.",
        )


def _evaluating(
    progress: Progress, plan: Plan, number: int, roster: Sequence[str], *, own: bool
) -> Progress:
    """Return the progress of a run whose training is over and whose models are to be evaluated."""
    models = [LAST]
    if progress.best_round not in (0, number):
        models.append(BEST)
    if own:
        key = Key.root(plan.seed).child("cross-site", "models")
        models += sorted(sample(roster, min(len(roster), CROSS_SITE_MODELS_MAX), key))
    key = Key.root(plan.seed).child("cross-site", "clients")
    clients = sorted(sample(roster, min(len(roster), plan.evaluate.clients), key))
    memory = {"trained": progress.ended, "rounds": number, "models": models, "clients": clients}
    return progress._replace(ended=None, memory={**progress.memory, **memory})


async def _one_model(
    federation: Federation, plan: Plan, commit: Commit
) -> tuple[Commit, list[Problem]]:
    """Evaluate the next model at all clients; return the commit, which is not made yet."""
    number, progress = commit.round + 1, Progress(**commit.progress)
    models, clients = progress.memory["models"], progress.memory["clients"]
    model = models[number - progress.memory["rounds"] - 1]
    began = federation.elapsed()
    there = set(await federation.roster(number))
    away = [client for client in clients if client not in there]
    problems = [_was_away(number, client) for client in away]
    state, trained = await _state_of(federation, model, commit, progress, there=there)
    metrics: dict[str, Metrics] = {}
    if state is not None:
        evaluated = await federation.evaluate(number, state, [c for c in clients if c in there])
        metrics, problems = dict(evaluated.metrics), [*problems, *evaluated.problems]
    problems += trained.problems
    row = {
        "round": number,
        "clients": {
            "asked": len(clients),
            "accepted": len(metrics),
            "failed": len({p.client for p in problems}),
            "refused": 0,
        },
        "bytes": {"down": trained.bytes_down, "up": trained.bytes_up},
        "cross_site": {"model": model, "metrics": _values(metrics, plan)},
        "seconds": federation.elapsed() - began,
    }
    if number - progress.memory["rounds"] == len(models):
        told = "the last model was" if len(models) == 1 else f"{len(models)} models were"
        ended = f"{progress.memory['trained']}; {told} evaluated at {len(clients)} clients"
        progress = progress._replace(ended=ended)
    return Commit(number, commit.state, row, progress._asdict()), problems


async def _state_of(
    federation: Federation, model: str, commit: Commit, progress: Progress, *, there: set[str]
) -> tuple[GlobalState | None, Trained]:
    """Return a model to evaluate, None if its client does not give it, and what was exchanged."""
    number = commit.round + 1
    nothing = Trained(None, {}, [], bytes_down=0, bytes_up=0)
    if model == LAST:
        return commit.state, nothing
    if model == BEST:
        best = federation.recall(progress.best_round)
        vectors = Vectors({**commit.state.algorithm, "x": best.algorithm.x})
        return GlobalState(vectors, best.buffers), nothing
    if model not in there:
        return None, nothing._replace(problems=[_was_away(number, model)])
    trained = await federation.train(number, commit.state, [model], terms=Terms(minimum=0))
    if trained.aggregate is None:
        return None, trained
    before, found = commit.state.algorithm, trained.aggregate.vectors
    x = np.asarray(before.x + found["delta"], before.x.dtype)
    largest_parameter(x)
    state = GlobalState(Vectors({**before, "x": x}), found.get(BUFFERS, commit.state.buffers))
    return state, trained


def _was_away(number: int, client: str) -> Problem:
    return Problem(number, client, "failed", "client-silent", "it was not there when it was asked")


def _values(metrics: dict[str, Metrics], plan: Plan) -> dict[str, dict[str, Any]]:
    """Return each client's own value by metric and client, as plain JSON data."""
    summary = summarise_all(metrics, asked_of(plan))
    return {
        name: {
            client: value if value is not None and np.isfinite(value) else None
            for client, value in sorted(found["by_client"].items())
        }
        for name, found in summary.items()
    }
