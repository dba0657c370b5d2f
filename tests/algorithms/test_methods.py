"""Goal: every algorithm is the one of its paper.

Method: two rounds of three clients with signed, asymmetric quadratics, two of them taking part in
each round with unequal weights, against a derivation from the paper's own lines in plain NumPy.
A new algorithm is tested by adding a row to DERIVED.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hansa.algorithms import ALGORITHMS, Algorithm, Vectors, fed_yogi
from hansa.optimizers import clip_global, momentum, ridge
from hansa.seeds import Key
from hansa.testing import check_algorithm

X0 = np.array([1.0, -2.0, 0.25, 0.5])
H = np.array([[1.0, 0.5, 3.0, 0.2], [0.3, 2.0, 1.5, 0.1], [2.5, 0.7, 0.4, 0.3]])
B = np.array([[-1.0, 4.0, 0.5, 0.5], [2.0, -3.0, 1.0, 0.52], [0.5, 1.0, -2.0, 0.45]])
N = np.array([3.0, 1.0, 2.0])  # examples
COHORTS = ([0, 2], [2, 1])
K, LR = 3, 0.1


class QuadraticWork:
    """One client's work on sum(h (x - b)^2) / 2, in arrays of any kind."""

    def __init__(self, h, b) -> None:
        self._h, self._b = h, b
        self.steps, self.lr = K, LR

    def full_gradient(self, x):
        return self._h * (x - self._b)

    gradient = full_gradient

    def train(self, x, correct=None):
        for _ in range(K):
            g = self.full_gradient(x)
            x = x - LR * (g if correct is None else correct(x, g))
        return x


def two_rounds(
    algorithm: Algorithm, array: Callable = np.array, dtype: object = None
) -> tuple[Vectors, dict[int, Vectors]]:
    """Run the algorithm's own functions; weighted means are taken here, in the arrays' own kind."""

    def made(values):
        return array(values, dtype=dtype)

    works = [QuadraticWork(made(h), made(b)) for h, b in zip(H, B, strict=True)]
    state, mine = algorithm.init(made(X0)), {}
    for number, cohort in enumerate(COHORTS):
        message, total = algorithm.broadcast(state), {}
        for i in cohort:
            before = mine.get(i, algorithm.client_init(message.x))
            key = Key.root(0).child(number, i)
            update, mine[i] = algorithm.client(works[i], message, before, key)
            assert tuple(update) == algorithm.sends
            share = float(N[i] / N[cohort].sum())
            for name, vector in update.items():
                total[name] = total.get(name, 0) + share * vector
        state = algorithm.server(state, Vectors(total), len(cohort) / len(N))
    return state, mine


def local(x, i, c=0.0):
    for _ in range(K):
        x = x - LR * (H[i] * (x - B[i]) + c)
    return x


def mean(values, cohort):
    return np.average(values, axis=0, weights=N[cohort])


def delta(x, cohort):
    return mean([local(x, i) - x for i in cohort], cohort)


def derived_fed_avg(x, lr):  # McMahan et al. 2017, Alg. 1: with lr = 1, the mean of the models
    for cohort in COHORTS:
        x = (1 - lr) * x + lr * mean([local(x, i) for i in cohort], cohort)
    return {"x": x}


def derived_fed_sgd(x):  # McMahan et al. 2017, section 2: one step on the pooled examples
    for cohort in COHORTS:
        rows = np.repeat(cohort, N[cohort].astype(int))
        x = x - LR * np.mean(H[rows] * (x - B[rows]), axis=0)
    return {"x": x}


def derived_fed_avg_m(x, lr, momentum):  # Hsu et al. 2019: v <- beta v + dw, w <- w - lr v
    v = np.zeros(4)
    for cohort in COHORTS:
        dw = x - mean([local(x, i) for i in cohort], cohort)
        v = momentum * v + dw
        x = x - lr * v
    return {"x": x, "v": -v}


def derived_adaptive(second_moment):  # Reddi et al. 2021, Alg. 2
    def derived(x, lr, beta1, tau, beta2=None):
        m, v = np.zeros(4), np.full(4, tau**2)
        for cohort in COHORTS:
            d = delta(x, cohort)
            m = beta1 * m + (1 - beta1) * d
            v = second_moment(v, d, beta2)
            x = x + lr * m / (np.sqrt(v) + tau)
        return {"x": x, "m": m, "v": v}

    return derived


def derived_fed_prox(x, mu):  # Li et al. 2020: K steps on f + mu/2 |x - x0|^2, in closed form
    for cohort in COHORTS:
        h, b = H[cohort], B[cohort]
        end = (h * b + mu * x) / (h + mu)
        x = mean(end + (1 - LR * (h + mu)) ** K * (x - end), cohort)
    return {"x": x}


def derived_scaffold(x, lr):  # Karimireddy et al. 2020, Alg. 1, option II, lines 10-17
    c, ci = np.zeros(4), np.zeros((3, 4))
    for cohort in COHORTS:
        y = {i: local(x, i, c - ci[i]) for i in cohort}
        plus = {i: ci[i] - c + (x - y[i]) / (K * LR) for i in cohort}
        dc = mean([plus[i] - ci[i] for i in cohort], cohort)
        x = x + lr * mean([y[i] - x for i in cohort], cohort)
        c = c + len(cohort) / 3 * dc
        ci[cohort] = [plus[i] for i in cohort]
    return {"x": x, "c": c, "ci": ci}


def derived_fed_opt(x, lr, chain, regularizers):  # ridge on x, then momentum, then a norm of 0.4
    v = np.zeros(4)
    for cohort in COHORTS:
        v = 0.8 * v + (0.3 * x - delta(x, cohort))  # the gradient of a penalty beside -delta
        x = x - lr * v * min(1, 0.4 / np.linalg.norm(v))
    return {"x": x, "1.v": -v}


DERIVED = {
    "fed_opt": (
        derived_fed_opt,
        {"lr": 0.6, "chain": (momentum(0.8), clip_global(0.4)), "regularizers": (ridge(0.3),)},
    ),
    "fed_avg": (derived_fed_avg, {"lr": 0.7}),
    "fed_sgd": (derived_fed_sgd, {}),
    "fed_avg_m": (derived_fed_avg_m, {"lr": 0.6, "momentum": 0.8}),
    "fed_adagrad": (
        derived_adaptive(lambda v, d, _: v + d**2),
        {"lr": 0.3, "beta1": 0.4, "tau": 0.05},
    ),
    "fed_adam": (
        derived_adaptive(lambda v, d, b2: b2 * v + (1 - b2) * d**2),
        {"lr": 0.3, "beta1": 0.8, "beta2": 0.7, "tau": 0.05},
    ),
    "fed_yogi": (
        derived_adaptive(lambda v, d, b2: v - (1 - b2) * d**2 * np.sign(v - d**2)),
        {"lr": 0.3, "beta1": 0.8, "beta2": 0.7, "tau": 0.05},
    ),
    "fed_prox": (derived_fed_prox, {"mu": 0.9}),
    "scaffold": (derived_scaffold, {"lr": 0.8}),
}
every = pytest.mark.parametrize("name", ALGORITHMS)


@every
def test_two_rounds_are_those_of_the_paper(name: str) -> None:
    derived, options = DERIVED[name]
    state, mine = two_rounds(ALGORITHMS[name](**options))
    expected = derived(X0, **options)
    for i, c in enumerate(expected.pop("ci", [])):
        np.testing.assert_allclose(mine[i].c, c, rtol=1e-12)
    assert set(state) == set(expected)
    for vector in expected:
        np.testing.assert_allclose(state[vector], expected[vector], rtol=1e-12, err_msg=vector)


@every
def test_the_same_functions_run_on_torch_tensors(name: str) -> None:
    torch = pytest.importorskip("torch")
    algorithm = ALGORITHMS[name](**DERIVED[name][1])
    expected, mine = two_rounds(algorithm)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        state, kept = two_rounds(algorithm, torch.tensor, dtype)
        for vector in expected:
            assert state[vector].dtype == dtype, vector
            np.testing.assert_allclose(state[vector], expected[vector], tolerance, tolerance)
        for i, vectors in kept.items():
            for vector in vectors:
                assert vectors[vector].dtype == dtype
                np.testing.assert_allclose(vectors[vector], mine[i][vector], tolerance, tolerance)


@every
def test_float32_stays_float32(name: str) -> None:
    state, mine = two_rounds(ALGORITHMS[name](**DERIVED[name][1]), dtype=np.float32)
    kept = [*state.values(), *(vector for v in mine.values() for vector in v.values())]
    assert {str(vector.dtype) for vector in kept} == {"float32"}


@every
def test_every_algorithm_keeps_the_laws(name: str) -> None:
    check_algorithm(ALGORITHMS[name]())


@every
def test_inputs_are_not_written_to(name: str) -> None:
    """Read-only arrays make any write raise."""

    def frozen(values, dtype=None):
        array = np.array(values, dtype=dtype)
        array.flags.writeable = False
        return array

    algorithm = ALGORITHMS[name]()
    state = algorithm.init(frozen(X0))
    mine = Vectors({k: frozen(v) for k, v in algorithm.client_init(state.x).items()})
    message = Vectors({k: frozen(v) for k, v in algorithm.broadcast(state).items()})
    update, after = algorithm.client(QuadraticWork(frozen(H[0]), frozen(B[0])), message, mine, None)
    before = Vectors({k: frozen(v) for k, v in state.items()})
    new = algorithm.server(before, Vectors({k: frozen(v) for k, v in update.items()}), 0.5)
    for vector in (*update.values(), *after.values(), *new.values()):
        assert not any(vector is old for old in (*message.values(), *mine.values()))
        assert not any(vector is old for old in before.values())


def test_yogi_moves_its_second_moment_up_and_down_and_not_at_all() -> None:
    """Zaheer et al. 2018: v - (1 - b2) d^2 sign(v - d^2); sign(0) is 0."""
    algorithm = fed_yogi(beta2=0.75, tau=0.5)
    state = algorithm.init(np.zeros(3))
    v = algorithm.server(state, Vectors(delta=np.array([0.1, -0.5, 3.0])), 1.0).v
    np.testing.assert_allclose(v, [0.25 - 0.25 * 0.01, 0.25, 0.25 + 0.25 * 9.0], rtol=1e-15)


def test_a_share_of_one_makes_scaffolds_c_the_mean_of_the_clients() -> None:
    algorithm = ALGORITHMS["scaffold"]()
    state = algorithm.init(X0)
    mine = [algorithm.client_init(X0) for _ in range(3)]
    for _ in range(3):
        done = [
            algorithm.client(QuadraticWork(H[i], B[i]), algorithm.broadcast(state), mine[i], None)
            for i in range(3)
        ]
        mine = [after for _, after in done]
        mean = Vectors({n: np.mean([u[n] for u, _ in done], axis=0) for n in algorithm.sends})
        state = algorithm.server(state, mean, 1.0)
        np.testing.assert_allclose(state.c, np.mean([m.c for m in mine], axis=0), rtol=1e-12)
    half = algorithm.server(state, mean, 0.5)
    np.testing.assert_allclose(half.c - state.c, mean.dc / 2, rtol=1e-9)
    np.testing.assert_array_equal(half.x, algorithm.server(state, mean, 1.0).x)


def test_vectors_are_attributes_and_a_missing_one_is_an_attribute_error() -> None:
    vectors = Vectors(x=1.0)
    assert vectors.x == vectors["x"] == 1.0
    assert getattr(vectors, "c", None) is None
    with pytest.raises(AttributeError, match="delta"):
        _ = vectors.delta
