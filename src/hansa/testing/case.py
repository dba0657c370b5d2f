"""A small federation whose clients are plain functions, to try handles of a federation with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hansa.algorithms import Vectors
from hansa.client import Update
from hansa.learners.function import FunctionLearner, TrainContext
from hansa.learners.learner import ClientData
from hansa.learners.named_tasks import TaskContext
from hansa.metrics import Metrics
from hansa.params import Params
from hansa.plan import hyper_at, read_plan
from hansa.project import client_of, with_learner
from hansa.rounds import BUFFERS
from hansa.seeds import Key
from hansa.simulation.population import Asked
from hansa.simulation.runner import timed

STEPS = {  # what each client adds to half of the model, times the round: signed and unequal
    "client-0": (1.5, -4.0, 0.25),
    "client-1": (-2.5, 0.75, 8.0),
    "client-2": (0.125, -0.5, -1.0),
    "client-3": (3.25, 2.0, -6.5),
    "client-4": (-0.75, 5.0, 0.375),
}
EXAMPLES = {"client-0": 3, "client-1": 1, "client-2": 7, "client-3": 2, "client-4": 5}
VALIDATION = {"client-0": 1, "client-1": 4, "client-2": 2, "client-4": 3}  # client-3 has none
PLAN: dict[str, Any] = {
    "name": "check",
    "rounds": 3,
    "seed": 5,
    "algorithm": {"name": "fed_avg_m", "momentum": 0.5},
    "cohort": {"count": 4},
    "data": {"clients": len(STEPS)},
    "stop": {"metric": "first"},
}

Array = np.ndarray[Any, np.dtype[Any]]
Fault = tuple[str, int]
"""A client and the round in which it does not do what it should."""


class Interruption(BaseException):
    """Stands for a kill -9 of the process that holds the handle; nothing may catch it for good."""


class Case:
    """A federation of five clients, given as plain functions.

    Args:
      faults: by (client, round), "raise", "nan" or "interrupt"; may be changed at any time.
      plan: keys of the plan that differ from `PLAN`.
    """

    def __init__(
        self, faults: Mapping[Fault, str] | None = None, plan: Mapping[str, Any] | None = None
    ) -> None:
        self.faults = dict(faults or {})
        self.steps: dict[Fault, int | None] = {}  # that clients were asked to take
        self.asked: list[tuple[str, int]] = []  # who has trained, and in which round
        self.answered: list[tuple[str, int, int]] = []  # and answered, in which round and step
        self.plan = read_plan({**PLAN, **(plan or {})}).plan
        learner = FunctionLearner(
            self._init, self._train, self._evaluate, tasks={"scaled": self._scaled}
        )
        self.project = with_learner(self.plan, learner)
        self.plan = self.project.plan
        self.population = Asked(self.data, clients=len(STEPS), key=Key.root(self.plan.seed))
        self.clients = tuple(STEPS)
        self.seed = learner.init(None, Key.root(self.plan.seed).child("model"))
        self._client = client_of(self.project, self.seed.layout)

    def data(self, client: str) -> ClientData:
        """Return a client's rows, each of which says whose it is."""
        held = VALIDATION.get(client)
        return ClientData([client] * EXAMPLES[client], [client] * held if held else None)

    def train(self, client: str, number: int, message: Vectors, steps: int | None = None) -> Update:
        """Return a client's update in a round.

        Args:
          client: one of `clients`.
          number: of the round.
          message: vectors as the server broadcast them.
          steps: local steps that the workflow asks of this client; None: those of the plan.

        Raises:
          HansaError: or any other exception: the client has failed, as it was to.
          Interruption: see above.
        """
        hyper = hyper_at(self.plan, number)
        update, _ = self._client.train(
            message,
            self.data(client).train,
            None,
            name=client,
            hyper=hyper if steps is None else hyper._replace(steps=steps),
            key=Key.root(self.plan.seed).child("client", number, client),
        )
        return update._replace(metrics=timed(self.project, client, update))

    def answer(self, client: str, number: int, task: str, step: int, question: Params) -> Params:
        """Return a client's answer to a named task, packed.

        Args:
          client: one of `clients`.
          number: of the round.
          task: "scaled", the only one that there is.
          step: of the exchange.
          question: packed.

        Raises:
          HansaError: or any other exception: the client has failed, as it was to.
          Interruption: see above.
        """
        data = self.data(client)
        found, _ = self._client.answer(task, question, data, name=client, number=number, step=step)
        return found

    def evaluate(self, client: str, message: Vectors) -> Metrics:
        """Return what a client measures on its validation part; nothing where it has none."""
        validation = self.data(client).validation
        model = self.seed.layout.join(message.x, message.get(BUFFERS, np.empty(0)))
        return {} if validation is None else self.project.learner.evaluate(model, validation)

    @staticmethod
    def _init(rng: np.random.Generator, sample: Any) -> dict[str, Array]:
        return {"n": np.array(4), "w": np.array([0.5, -1.25, 2.0], np.float32)}

    def _train(
        self, params: dict[str, Array], data: list[str], ctx: TrainContext
    ) -> tuple[dict[str, Array], dict[str, float]]:
        self.asked.append((ctx.client, ctx.round))
        self.steps[ctx.client, ctx.round] = ctx.steps
        fault = self.faults.get((ctx.client, ctx.round))
        self._obey(fault, ctx.client)
        loss = float(params["w"][0]) + len(data)
        params["w"] = params["w"] / 2 + np.array(STEPS[ctx.client], np.float32) * ctx.round
        params["w"] += np.float32((ctx.steps or 0) / 64)
        params["n"] = params["n"] + len(data)
        if fault == "nan":
            params["w"][1] = np.nan
        return params, {"loss": loss}

    def _scaled(
        self, params: dict[str, Array] | None, data: ClientData, ctx: TaskContext
    ) -> tuple[dict[str, Array] | None, dict[str, Any]]:
        """Answer a named task: what came, scaled, and the client's own numbers."""
        self.answered.append((ctx.client, ctx.round, ctx.step))
        self._obey(self.faults.get((ctx.client, ctx.round)), ctx.client)
        facts = {"rows": len(data.train), "first": -STEPS[ctx.client][1] * ctx.settings["factor"]}
        if params is None:
            return None, facts
        params["v"] = params["v"] * ctx.settings["factor"] + np.array(STEPS[ctx.client])
        return params, facts

    @staticmethod
    def _obey(fault: str | None, client: str) -> None:
        if fault == "interrupt":
            raise Interruption
        if fault == "raise":
            raise ArithmeticError(f"{client} was told to fail")

    @staticmethod
    def _evaluate(params: dict[str, Array], data: list[str]) -> dict[str, float]:
        return {"first": float(params["w"][0]) + STEPS[data[0]][0]}
