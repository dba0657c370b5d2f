"""Quadratic problems with known answers, and a federation that runs them through the real parts.

f_i(x) = sum(mu_i x^2 + G_i x): each coordinate is a problem of its own, so one run tries many G
and mu at once.  A client's data carries its coefficients as one example, `x[0] = (mu, G)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from hansa.aggregators import Contribution, admit
from hansa.algorithms import Vectors
from hansa.client import Client
from hansa.learners import NumPyLearner
from hansa.plan import Plan, build_method, check_capabilities, hyper_at, read_plan
from hansa.rounds import aggregation_spec
from hansa.seeds import Key
from hansa.workflows import GlobalState, Trained
from hansa.workflows.synchronous import step

START = 5.0


class Examples(NamedTuple):
    """Rows of data, as the NumPy learner asks for them."""

    x: np.ndarray
    y: np.ndarray


class QuadraticModel:
    """A user's model for `NumPyLearner`: the mean over examples of mu x^2 + G x."""

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype

    def init(self, rng: np.random.Generator, sample: Examples) -> dict[str, np.ndarray]:
        return {"x": np.full(sample.x.shape[-1], START, self._dtype)}

    def loss(
        self, params: Mapping[str, np.ndarray], x: np.ndarray, y: np.ndarray
    ) -> tuple[float, dict[str, np.ndarray]]:
        mu, g = x.mean(axis=0)
        at = params["x"]
        return float(np.sum(mu * at**2 + g * at)), {"x": 2 * mu * at + g}

    def metrics(
        self, params: Mapping[str, np.ndarray], x: np.ndarray, y: np.ndarray
    ) -> dict[str, np.ndarray]:
        return {"loss": np.array([self.loss(params, row[None], y)[0] for row in x])}


def plan_of(algorithm: Any, steps: int, **learner: Any) -> Plan:
    """Return the plan of K full-batch steps with lr = .1/K."""
    local = {"epochs": steps, "batch_size": "all", "optimizer": {"lr": 0.1 / steps}, **learner}
    return read_plan({"algorithm": algorithm, "learner": local, "weighting": "uniform"}).plan


class RealFederation:
    """Every client takes part in every round, through every part that a real run has."""

    def __init__(self, plan: Plan, data: Mapping[str, Examples], learner: NumPyLearner) -> None:
        self.plan, self.data = plan, data
        self.method = build_method(plan, NotImplemented)
        check_capabilities(self.method.algorithm, learner.capabilities, "numpy")
        seed = learner.init(next(iter(data.values())), Key.root(plan.seed))
        x, buffers = seed.layout.split(seed.params)
        algorithm, transform = self.method.algorithm, self.method.transform
        self.client = Client(plan, algorithm, transform, learner, seed.layout)
        self.state = GlobalState(algorithm.init(np.array(x)), buffers)
        self.mine: dict[str, Vectors] = {}
        self.round = 0

    def run(self, rounds: int) -> np.ndarray:
        for _ in range(rounds):
            self.round += 1
            self._round()
        return self.state.algorithm.x

    def _round(self) -> None:
        algorithm, aggregator, transform = self.method
        message = Vectors(algorithm.broadcast(self.state.algorithm))
        limit = float(sum(len(d.x) for d in self.data.values()))
        spec = aggregation_spec(algorithm, message, weight_limit=limit)
        acc = aggregator.zero(spec)
        for name, examples in self.data.items():
            update, self.mine[name] = self.client.train(
                message,
                examples,
                self.mine.get(name),
                name=name,
                hyper=hyper_at(self.plan, self.round),
                key=Key.root(self.plan.seed).child("client", self.round, name),
            )
            contribution = Contribution(name, transform.decode(update.vectors), update.weight)
            admit(contribution, spec)
            acc = aggregator.add(acc, contribution)
        trained = Trained(aggregator.finish(acc), {}, [], 0, 0)
        clients = SimpleNamespace(clients=list(self.data))
        self.state = step(algorithm, self.state, trained, clients)
