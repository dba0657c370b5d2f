"""Split learning: each client holds some columns of the same rows, and one holds their labels.

    workflow = { name = "split", labels = "north" }

The model is in parts: tensors named `CLIENT/...` are that client's, `head/...` are the label
holder's.  A batch is three named tasks of the project's own code, on the same rows everywhere:

    forward   at each client with a part: its rows through its part    -> {"embedding": z}
    head      at the label holder: embeddings and labels               -> gradients, and facts
    backward  at each client: the gradient of the loss by its z        -> the gradient of its part

so the gradient of the joint model comes together, and the algorithm's server half takes the step.
Labels and columns stay where they are.  The server holds all parts and sees the embeddings.

With `parts = "clients"` only the head is in the model.  Every other client keeps its part as its
state, which never leaves it, and takes its own step in `backward`, which returns nothing.  A commit
names each client's state by digest, so after a crash all go on from the same batch.

Source: Vepakomma et al. 2018, vertically partitioned data, figure 2b.  Ours differs: parts, or
their digests, are kept with each commit, so that a crash loses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from hansa.aggregators import Aggregate
from hansa.algorithms import Algorithm
from hansa.errors import PlanError, RunError
from hansa.learners.learner import Hyper
from hansa.limits import ASK_STEPS_MAX
from hansa.metrics import Mean, Metrics, summarise_all
from hansa.params import Params
from hansa.params.model import ModelLayout
from hansa.plan import Method, Plan, hyper_at
from hansa.rounds import Terms
from hansa.rounds.questions import from_state
from hansa.workflows.federation import Commit, Federation, GlobalState, Problem, Trained
from hansa.workflows.reports import number
from hansa.workflows.stopping import Progress, advance
from hansa.workflows.synchronous import reasons, row_of, step
from hansa.workflows.workflow import Workflow

HEAD = "head"
"""How names of the label holder's tensors begin, and the task that it does."""

TASKS = ("forward", HEAD, "backward")
"""What the clients are asked in a batch."""

_KEPT = "states"  # in the memory of each commit: digests of what clients keep, by client

Arrays = dict[str, np.ndarray]


def split(
    labels: str,
    measure: Literal["validation", "train", "nothing"] = "validation",
    parts: Literal["server", "clients"] = "server",
) -> Workflow:
    """Build split learning.

    Args:
      labels: the client who holds the labels and the head; where parts are in the model it may
        have columns too.
      measure: rows on which evaluations are made.
      parts: who keeps the clients' parts; "server": in the model, "clients": each its own.
    """

    async def run(federation: Federation, plan: Plan, algorithm: Algorithm) -> Progress:
        commit = federation.resume()
        while Progress(**commit.progress).ended is None:
            work = _Round(federation, plan, algorithm, commit, labels, own=parts == "clients")
            commit, problems = await work.perform(measure)
            await federation.commit(commit, problems)
        return Progress(**commit.progress)

    keeps = "the server keeps" if parts == "server" else "it alone keeps"
    tells = (
        f"In every batch the server gets what this site's part of the model makes of its rows, and "
        f"{labels} gets it too; {keeps} that part of the model."
    )
    return Workflow("split", run, _check, tells)


def _check(plan: Plan, method: Method) -> None:
    """Refuse what would not be the gradient of the joint model."""
    cohort, algorithm = plan.cohort, method.algorithm
    faults = {
        f"the algorithm {algorithm.name}": algorithm.sends != ("delta",) or algorithm.needs_mean,
        f"the aggregator {method.aggregator.name}": method.aggregator.name != "mean",
        "transforms": bool(plan.transforms),
        "a cohort that is drawn": cohort.fraction < 1 or cohort.count is not None,
        "a chain of local modules": method.chain is not None,
        f"{plan.learner.steps} batches in a round": (plan.learner.steps or 1) >= ASK_STEPS_MAX,
    }
    for fault, holds in faults.items():
        if holds:
            raise PlanError(
                "plan-impossible",
                f"In split learning a batch needs every part of the model; the plan has {fault}. "
                "Nothing was started.",
                "Use fed_avg, which is SGD here, or fed_opt and its kin; all clients take part.",
            )


class _Round:
    """One round: `learner.steps` batches of all clients with a part."""

    def __init__(
        self,
        federation: Federation,
        plan: Plan,
        algorithm: Algorithm,
        commit: Commit,
        labels: str,
        *,
        own: bool,
    ) -> None:
        self._federation, self._plan, self._algorithm = federation, plan, algorithm
        self._labels, self._commit, self._state = labels, commit, commit.state
        self._number = commit.round + 1
        self._hyper: Hyper = hyper_at(plan, self._number)
        self._own, self._clients = own, _clients(federation.layout, own=own)
        # Digests of what clients keep; whoever is named here took part from the first round on.
        self._kept: dict[str, str] = Progress(**commit.progress).memory.get(_KEPT, {})
        self._problems: list[Problem] = []
        self._down = self._up = 0

    async def perform(self, measure: str) -> tuple[Commit, list[Problem]]:
        """Return the commit that follows, which is not made yet, and who dropped out."""
        federation, plan, number = self._federation, self._plan, self._number
        began = federation.elapsed()
        self._check_there(await federation.roster(number))
        batches = self._hyper.steps or 1
        measured: list[Metrics] = []
        for batch in range(batches):
            gradients, facts = await self._batch(batch, (number - 1) * batches + batch)
            measured.append(facts)
            self._step(gradients)
        trained = self._trained({self._labels: _pooled(measured)})
        row = row_of(number, self._everybody(), trained)
        row["clients"]["accepted"] = len(self._everybody())
        due = number % plan.evaluate.every == 0 or number >= plan.rounds
        if due and measure != "nothing":
            embeddings = await self._forward(batches, {"part": measure})
            _, facts = await self._head(batches, embeddings, {"part": measure})
            if facts:
                row["validation"] = summarise_all({self._labels: facts})
        row["bytes"] = {"down": self._down, "up": self._up}
        row["seconds"] = federation.elapsed() - began
        progress = Progress(**self._commit.progress)
        minutes = federation.elapsed() / 60
        progress = advance(progress, row, plan.stop, rounds=plan.rounds, minutes=minutes)
        progress = progress._replace(memory={**progress.memory, _KEPT: self._kept})
        return Commit(number, self._state, row, progress._asdict()), self._problems

    # ---- a batch

    async def _batch(self, place: int, count: int) -> tuple[Arrays, Metrics]:
        """Return the gradient of the joint model on one batch, and what the head measured."""
        told = {"part": "train", "batch": count, "batch_size": self._hyper.batch_size}
        told["seed"] = self._plan.seed
        embeddings = await self._forward(place, told)
        back, facts = await self._head(place, embeddings, told)
        gradients = {f"{HEAD}/{name}": array for name, array in back.items() if "/" not in name}
        questions = {}
        for client in self._clients:
            gradient = back.get(f"gradient/{client}")
            if gradient is None or gradient.shape != embeddings[client].shape:
                shape = None if gradient is None else list(gradient.shape)
                raise self._bad(
                    self._labels,
                    f"gave the gradient of {client}'s embedding as {shape}; the embedding is "
                    f"{list(embeddings[client].shape)}",
                )
            questions[client] = Params.of({**self._part(client), "gradient": gradient})
        answers = await self._ask("backward", questions, told, place)
        for client, arrays in answers.items():
            if self._own and arrays:
                name = next(iter(arrays))
                raise self._bad(client, f"answered backward with {name}, and keeps its own part")
            gradients |= {f"{client}/{name}": array for name, array in arrays.items()}
        return gradients, facts

    async def _forward(self, place: int, told: Mapping[str, Any]) -> Arrays:
        questions = {client: Params.of(self._part(client)) for client in self._clients}
        answers = await self._ask("forward", questions, told, place)
        embeddings = {}
        for client, arrays in answers.items():
            if arrays.keys() != {"embedding"} or not arrays["embedding"].ndim:
                raise self._bad(client, f"answered forward with {', '.join(arrays) or 'nothing'}")
            embeddings[client] = arrays["embedding"]
        rows = {client: len(array) for client, array in embeddings.items()}
        if len(set(rows.values())) > 1:
            said = ", ".join(f"{client} {count}" for client, count in rows.items())
            raise self._bad(
                "the clients",
                f"embedded different numbers of rows: {said}; theirs are not the same",
            )
        return embeddings

    async def _head(
        self, place: int, embeddings: Arrays, told: Mapping[str, Any]
    ) -> tuple[Arrays, Metrics]:
        given = {f"embedding/{client}": array for client, array in embeddings.items()}
        question = Params.of({**self._part(HEAD), **given})
        facts: dict[str, Any] = {}
        answers = await self._ask("head", {self._labels: question}, told, place, facts=facts)
        rows = float(len(next(iter(embeddings.values()))))
        numbers = {
            name: Mean(found * rows, rows)
            for name, value in facts.items()
            if math.isfinite(found := number(value))
        }
        return answers[self._labels], numbers

    async def _ask(
        self,
        task: str,
        questions: Mapping[str, Params],
        told: Mapping[str, Any],
        place: int,
        *,
        facts: dict[str, Any] | None = None,
    ) -> dict[str, Arrays]:
        """Have all of these clients answer; return their tensors, which are finite numbers.

        Each begins from what it has kept; what it keeps while its part is measured is forgotten.
        """
        kept = self._kept
        message = {client: from_state(q, kept.get(client, "")) for client, q in questions.items()}
        answered = await self._federation.ask(
            self._number,
            task,
            sorted(questions),
            message=message,
            settings=dict(told),
            terms=Terms(minimum=len(questions)),
            step=place,
        )
        self._down += answered.bytes_down
        self._up += answered.bytes_up
        if missing := sorted(questions.keys() - answered.answers.keys()):
            raise RunError(
                "run-too-few",
                f"{', '.join(missing)} did not answer {task} in round {self._number}, and a batch "
                f"needs every part: {reasons(answered.problems)}. The run has failed; the model of "
                f"round {self._number - 1} is kept.",
                "Correct the cause and run again.",
            )
        found = {}
        for client in sorted(questions):
            answer = answered.answers[client]
            if "batch" in told:
                self._kept = {**self._kept, client: answer.state}
            found[client] = {} if answer.params is None else dict(answer.params.to_dict())
            for name, array in found[client].items():
                if array.dtype.kind != "f" or not np.isfinite(array).all():
                    raise self._bad(client, f"answered {task} with {name}, which is not finite")
            if facts is not None:
                facts |= answer.facts
        return found

    # ---- the model

    def _part(self, owner: str) -> Arrays:
        model = self._federation.layout.join(self._state.algorithm.x, self._state.buffers)
        start = f"{owner}/"
        return {n.removeprefix(start): a for n, a in model.items() if n.startswith(start)}

    def _step(self, gradients: Arrays) -> None:
        """Step against the gradient of the joint model."""
        layout = self._federation.layout
        model = layout.join(self._state.algorithm.x, self._state.buffers)
        if odd := sorted(gradients.keys() ^ model.keys()):
            raise self._bad(
                odd[0].rpartition("/")[0].replace(HEAD, self._labels),
                f"gave {'no' if odd[0] in model else 'a'} gradient of {odd[0]}",
            )
        for name, array in model.items():
            owner = name.rpartition("/")[0].replace(HEAD, self._labels)
            if gradients[name].shape != array.shape:
                shape = list(gradients[name].shape)
                raise self._bad(
                    owner, f"gave a gradient of {name} of shape {shape}; it is {list(array.shape)}"
                )
            with np.errstate(over="ignore"):
                fitted = gradients[name].astype(array.dtype)
            if not np.isfinite(fitted.astype(np.float64)).all():
                raise self._bad(owner, f"gave a gradient of {name} that no {array.dtype} holds")
        whole = Params.of({n: gradients[n].astype(a.dtype) for n, a in model.items()})
        gradient, _ = layout.split(whole)
        rate = gradient.dtype.type(self._hyper.lr)
        one = Aggregate({"delta": -rate * gradient}, 1.0, len(self._everybody()))
        trained = Trained(one, {}, [], bytes_down=0, bytes_up=0)
        everybody = len(self._everybody())
        self._state = GlobalState(*step(self._algorithm, self._state, trained, clients=everybody))

    def _trained(self, metrics: Mapping[str, Metrics]) -> Trained:
        return Trained(None, metrics, self._problems, bytes_down=self._down, bytes_up=self._up)

    def _everybody(self) -> list[str]:
        return sorted({*self._clients, self._labels})

    def _check_there(self, roster: Sequence[str]) -> None:
        """Find who takes part, where the model does not say it: all, or all of the first round."""
        if self._own:
            self._clients = sorted({*(self._kept or roster)} - {self._labels})
        if missing := sorted({*self._everybody()} - {*roster}):
            raise RunError(
                "run-too-few",
                f"The model has parts of {', '.join(self._everybody())}, and {missing[0]} is not "
                "there. The run has failed.",
                f"Set cohort.minimum = {len(self._everybody())}, so that a round waits for all; "
                "name the model's tensors after the clients.",
            )

    def _bad(self, who: str, what: str) -> RunError:
        return RunError(
            "task-answer",
            f"In round {self._number} {who} {what}. The run has failed.",
            "See docs/howto/split-learning.md for what forward, head and backward return.",
        )


def _clients(layout: ModelLayout, *, own: bool) -> list[str]:
    """Return the clients whose parts a model has; none where each keeps its own.

    Raises:
      RunError: a tensor has no owner, or is not trained.
    """
    owners = {name: name.rpartition("/")[0] for name in (s.name for s in layout.layout.specs)}
    trained = {s.name for s in layout.trained.specs}
    for name, owner in owners.items():
        if not owner or name not in trained:
            raise RunError(
                "plan-impossible",
                f"The model's tensor {name!r} belongs to no client, or is not trained.",
                f'Name each after its owner, as "north/w" or "{HEAD}/w"; use floats alone.',
            )
    found = sorted({*owners.values()} - {HEAD})
    if own and found:
        raise RunError(
            "plan-impossible",
            f"The model has a part of {found[0]}, and the plan says that clients keep theirs.",
            'Leave it out of init(), or leave out parts = "clients".',
        )
    return found


def _pooled(measured: Sequence[Metrics]) -> Metrics:
    found: dict[str, Mean] = {}
    for metrics in measured:
        for name, mean in metrics.items():
            seen = found.get(name, Mean(0.0, 0.0))
            found[name] = Mean(seen.total + mean.total, seen.weight + mean.weight)
    return found
