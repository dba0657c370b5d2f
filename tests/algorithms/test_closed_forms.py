"""Goal: the real stack converges to where the mathematics says, for every sign of G.

Method: f1(x) = mu x^2 + G x and f2(x) = -G x, both clients in every round, equal weights, K
full-batch local steps, lr = .1/K.  One local step of client 1 is x <- (1 - 2 mu lr) x - lr G and
of client 2 x <- x + lr G, so with a = (1 - 2 mu lr)^K the mean of both stands still at

    x* = (lr G K - (G / 2 mu)(1 - a)) / (1 - a)

which is 0 for K = 1 and not the optimum of (f1 + f2) / 2, 0, for more: client drift.  SCAFFOLD has
no drift.  Sixteen problems with other G and mu are solved at once, one in each coordinate.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from hansa.aggregators import Contribution, admit
from hansa.algorithms import ALGORITHMS, Vectors
from hansa.client import Client
from hansa.learners import NumPyLearner, Perceptron
from hansa.plan import Plan, build_method, check_capabilities, hyper_at, read_plan
from hansa.rounds import aggregation_spec
from hansa.seeds import Key
from hansa.workflows import GlobalState, Trained
from hansa.workflows.synchronous import step

MU, G = np.array(list(itertools.product([1.5, 2.0, 3.0, 4.0], [-3.0, -0.4, 1.0, 2.0]))).T
ROUNDS = {"float64": 260, "float32": 130}
"""The slowest problem keeps 0.88 of its error in each round."""

both = pytest.mark.parametrize("dtype", ["float64", "float32"])
START = 5.0


class Examples(NamedTuple):
    """Rows of data, as the NumPy learner asks for them."""

    x: np.ndarray
    y: np.ndarray


class QuadraticModel:
    """A user's model: the mean over examples of mu x^2 + G x, where x[0] = (mu, G)."""

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
    """Return the plan of K full-batch steps with lr = .1/K; sums are as fine as tests look."""
    local = {"epochs": steps, "batch_size": "all", "optimizer": {"lr": 0.1 / steps}, **learner}
    table = {"algorithm": algorithm, "learner": local, "weighting": "uniform", "bound": 128.0}
    return read_plan(table).plan


class RealFederation:
    """Clients take part in rounds, all of them by default, through every part of a real run."""

    def __init__(self, plan: Plan, data: Mapping[str, Examples], learner: NumPyLearner) -> None:
        self.plan, self.data = plan, data
        self.method = build_method(plan, NotImplemented)
        check_capabilities(self.method.algorithm, learner.capabilities, "numpy")
        seed = learner.init(next(iter(data.values())), Key.root(plan.seed))
        x, buffers = seed.layout.split(seed.params)
        algorithm, transform = self.method.algorithm, self.method.transform
        self.client = Client(plan, algorithm, transform, learner, seed.layout, self.method.chain)
        self.state = GlobalState(algorithm.init(np.array(x)), buffers)
        self.mine: dict[str, Vectors] = {}
        self.round = 0

    def run(self, rounds: int, cohorts: Iterable[Sequence[str]] = ()) -> np.ndarray:
        for cohort in itertools.islice(itertools.chain(cohorts, itertools.repeat(())), rounds):
            self.round += 1
            self._round(cohort or list(self.data))
        return self.state.algorithm.x

    def _round(self, cohort: Sequence[str]) -> None:
        algorithm, aggregator, transform, _ = self.method
        message = Vectors(algorithm.broadcast(self.state.algorithm))
        limit = float(sum(len(d.x) for d in self.data.values()))
        bound = self.plan.bound
        spec = aggregation_spec(algorithm, message, weight_limit=limit, bound=bound)
        acc = aggregator.zero(spec)
        for name in cohort:
            update, self.mine[name] = self.client.train(
                message,
                self.data[name],
                self.mine.get(name),
                name=name,
                hyper=hyper_at(self.plan, self.round),
                key=Key.root(self.plan.seed).child("client", self.round, name),
            )
            contribution = Contribution(name, transform.decode(update.vectors), update.weight)
            admit(contribution, spec)
            acc = aggregator.add(acc, contribution)
        trained = Trained(aggregator.finish(acc), {}, [], 0, 0)
        self.state = step(algorithm, self.state, trained, clients=len(self.data))


def two_clients(dtype: str) -> dict[str, Examples]:
    rows = {"one": np.array([[MU, G]]), "two": np.array([[0 * MU, -G]])}
    return {name: Examples(x.astype(dtype), np.zeros(1)) for name, x in rows.items()}


def federation(algorithm: object, steps: int, dtype: str) -> RealFederation:
    learner = NumPyLearner(QuadraticModel(dtype))
    return RealFederation(plan_of(algorithm, steps), two_clients(dtype), learner)


def drifted_optimum(steps: int) -> np.ndarray:
    lr = 0.1 / steps
    a = (1 - 2 * MU * lr) ** steps
    return (lr * G * steps - (G / (2 * MU)) * (1 - a)) / (1 - a)


@both
@pytest.mark.parametrize("steps", [1, 2, 5, 10])
def test_fed_avg_converges_to_its_drifted_optimum(steps: int, dtype: str) -> None:
    x = federation("fed_avg", steps, dtype).run(ROUNDS[dtype])
    assert x.dtype == dtype
    np.testing.assert_allclose(
        x, drifted_optimum(steps), rtol=0, atol=1e-13 if dtype == "float64" else 3e-6
    )


@both
@pytest.mark.parametrize("steps", [1, 2, 5, 10])
def test_scaffold_converges_to_the_optimum(steps: int, dtype: str) -> None:
    x = federation("scaffold", steps, dtype).run(ROUNDS[dtype])
    assert x.dtype == dtype
    np.testing.assert_allclose(x, 0, atol=1e-13 if dtype == "float64" else 3e-6)
    # So the test above says something: without control variates there is a drift to remove.
    assert steps == 1 or np.abs(drifted_optimum(steps)).min() > 2e-3


UNEQUAL = {"one": (1, 1.5, -3.0), "four": (4, 0.25, 2.0), "nine": (9, 3.0, 7.0)}
"""Examples, mu and G of three clients."""


@pytest.mark.parametrize("size", [1, 2, 3])
def test_scaffold_finds_the_unweighted_optimum_whatever_the_cohorts_and_sizes(size: int) -> None:
    """The mean of mu x^2 + G x over clients is least at -sum G / (2 sum mu)."""
    data = {
        name: Examples(np.tile([[[mu], [g]]], (rows, 1, 1)), np.zeros(rows))
        for name, (rows, mu, g) in UNEQUAL.items()
    }
    local = {"epochs": 4, "batch_size": "all", "optimizer": {"lr": 0.02}}
    plan = read_plan({"algorithm": "scaffold", "learner": local, "bound": 128.0}).plan
    fed = RealFederation(plan, data, NumPyLearner(QuadraticModel("float64")))
    x = fed.run(900, itertools.cycle(itertools.combinations(UNEQUAL, size)))
    rows, mu, g = np.array(list(UNEQUAL.values())).T
    np.testing.assert_allclose(x, [-g.sum() / (2 * mu.sum())], atol=1e-9)
    # So this says something: weighted by examples, the optimum lies elsewhere.
    assert abs(x[0] + (rows @ g) / (2 * (rows @ mu))) > 0.1


def test_scaffold_with_a_ridge_finds_the_optimum_of_the_penalised_mean() -> None:
    """The mean of mu x^2 + G x, and strength/2 x^2: least at -sum G / (2 sum mu + 3 strength)."""
    data = {
        name: Examples(np.array([[[mu], [g]]]), np.zeros(1)) for name, (_, mu, g) in UNEQUAL.items()
    }
    ridge = {"name": "ridge", "strength": 2.5}
    local = {"epochs": 4, "batch_size": "all", "optimizer": {"lr": 0.02, "regularizers": [ridge]}}
    plan = read_plan({"algorithm": "scaffold", "learner": local, "bound": 128.0}).plan
    fed = RealFederation(plan, data, NumPyLearner(QuadraticModel("float64")))
    x = fed.run(900, itertools.cycle(itertools.combinations(UNEQUAL, 2)))
    _, mu, g = np.array(list(UNEQUAL.values())).T
    np.testing.assert_allclose(x, [-g.sum() / (2 * mu.sum() + 3 * 2.5)], atol=1e-9)


def test_the_regularizer_fed_prox_goes_the_way_of_the_algorithm() -> None:
    prox = {"name": "fed_prox", "mu": 0.7}
    local = {"optimizer": {"lr": 0.02, "regularizers": [prox]}}
    penalised = RealFederation(
        plan_of("fed_avg", 5, **local),
        two_clients("float64"),
        NumPyLearner(QuadraticModel("float64")),
    )
    assert np.array_equal(penalised.run(9), federation(prox, 5, "float64").run(9))


def test_control_variates_become_the_gradients_at_the_optimum() -> None:
    fed = federation("scaffold", 5, "float64")
    fed.run(ROUNDS["float64"])
    np.testing.assert_allclose(fed.mine["one"].c, G, atol=1e-12)
    np.testing.assert_allclose(fed.mine["two"].c, -G, atol=1e-12)
    np.testing.assert_allclose(fed.state.algorithm.c, 0, atol=1e-12)


def test_fed_prox_stands_where_its_proximal_recursion_does() -> None:
    """Both local maps are affine: x1 = a1 x + (1-a1) y1(x), x2 = a2 x + (1-a2) y2(x)."""
    steps, m = 5, 0.7
    x = federation({"name": "fed_prox", "mu": m}, steps, "float64").run(ROUNDS["float64"])
    lr = 0.1 / steps
    a1, a2 = (1 - lr * (2 * MU + m)) ** steps, (1 - lr * m) ** steps
    # y = (m x - G)/(2 mu + m) and x + G/m are where the local steps from x would end.
    expected = ((1 - a2) * G / m - (1 - a1) * G / (2 * MU + m)) / ((1 - a1) * 2 * MU / (2 * MU + m))
    np.testing.assert_allclose(x, expected, atol=1e-12)


class StackedWork:
    """Both clients at once: arrays of shape [2, D], and its own number of steps for each."""

    def __init__(self, steps: tuple[int, int], lr: float) -> None:
        self._mu, self._g = np.stack([MU, 0 * MU]), np.stack([G, -G])
        self.steps = np.array(steps, np.float64)[:, None]
        self.lr = np.full((2, 1), lr)

    def full_gradient(self, x):
        return 2 * self._mu * x + self._g

    gradient = full_gradient

    def train(self, x, correct=None):
        x = x + np.zeros_like(self._mu)
        for k in range(int(self.steps.max())):
            g = self.full_gradient(x)
            g = g if correct is None else correct(x, g)
            x = np.where(k < self.steps, x - self.lr * g, x)
        return x


@pytest.mark.parametrize("algorithm", ["fed_avg", "fed_sgd", "scaffold", "fed_prox", "fed_yogi"])
def test_a_stack_of_clients_goes_the_way_of_clients_one_by_one(algorithm: str) -> None:
    options = {"name": algorithm, "mu": 0.5} if algorithm == "fed_prox" else algorithm
    looped = federation(options, 5, "float64")
    value = looped.method.algorithm
    work = StackedWork((5, 5), 0.1 / 5)
    state = value.init(np.full(MU.size, START))
    mine = Vectors({k: np.stack([v, v]) for k, v in value.client_init(state.x).items()})
    for _ in range(6):
        update, mine = value.client(work, value.broadcast(state), mine, None)
        assert all(vector.shape == (2, MU.size) for vector in update.values())
        mean = Vectors({name: vector.mean(axis=0) for name, vector in update.items()})
        state = value.server(state, mean, 1.0)
        np.testing.assert_allclose(looped.run(1), state.x, rtol=1e-12, atol=1e-12)
    for i, name in enumerate(["one", "two"]):
        for vector, kept in mine.items():
            np.testing.assert_allclose(looped.mine[name][vector], kept[i], rtol=1e-11, atol=1e-12)


def test_stacked_clients_may_take_different_numbers_of_steps() -> None:
    algorithm = ALGORITHMS["scaffold"]()
    state = algorithm.init(np.full(MU.size, START))
    work = StackedWork((3, 7), 0.02)
    mine = Vectors(c=np.zeros((2, MU.size)))
    update, mine = algorithm.client(work, algorithm.broadcast(state), mine, None)
    np.testing.assert_allclose(update.delta[1], 7 * 0.02 * G, rtol=1e-12)
    np.testing.assert_allclose(mine.c[1], -G, rtol=1e-12)
    a = (1 - 2 * MU * 0.02) ** 3
    x1 = a * START - (G / (2 * MU)) * (1 - a)
    np.testing.assert_allclose(update.delta[0], x1 - START, rtol=1e-12)
    np.testing.assert_allclose(mine.c[0], (START - x1) / (3 * 0.02), rtol=1e-12)


def test_fed_sgd_on_unequal_clients_is_gradient_descent_on_their_pooled_data() -> None:
    draw = np.random.default_rng(3)
    x = draw.normal(size=(30, 4)).astype(np.float32)
    y = draw.integers(0, 3, 30)
    parts = {"a": slice(0, 4), "b": slice(4, 21), "c": slice(21, 30)}

    class Rows(Examples):
        classes = ("red", "green", "blue")

    plan = read_plan(
        {"algorithm": "fed_sgd", "learner": {"optimizer": {"lr": 0.5}, "batch_size": 2}}
    ).plan
    data = {name: Rows(x[part], y[part]) for name, part in parts.items()}
    fed = RealFederation(plan, data, NumPyLearner(Perceptron()))
    result = fed.run(20)

    w, b = np.zeros((4, 3)), np.zeros(3)  # the built-in softmax model starts at zero
    for _ in range(20):
        p = np.exp(x @ w + b)
        residual = p / p.sum(axis=1, keepdims=True) - np.eye(3)[y]
        w, b = w - 0.5 * x.T @ residual / 30, b - 0.5 * residual.mean(axis=0)
    model = fed.client.layout.join(result, np.empty(0))
    np.testing.assert_allclose(model["layer0.weight"], w, atol=2e-6)
    np.testing.assert_allclose(model["layer0.bias"], b, atol=2e-6)
