"""The geometric median against known points and the paper's own iteration."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.aggregators import AggregationSpec, Contribution, VectorSpec, geometric_median
from hansa.errors import AggregationError
from hansa.seeds import Key

Run = Callable[..., np.ndarray]


def weiszfeld(x: np.ndarray, weights: np.ndarray, *, passes: int = 5000) -> np.ndarray:
    """Pillutla et al. 2022, Alg. 2, on the vectors themselves."""
    alpha = weights / weights.sum()
    v = alpha @ x
    for _ in range(passes):
        beta = alpha / np.maximum(1e-6, np.linalg.norm(x - v, axis=1))
        v = beta @ x / beta.sum()
    return v


def objective(v: np.ndarray, x: np.ndarray, weights: np.ndarray) -> float:
    return float(weights @ np.linalg.norm(x - v, axis=1))


@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_fixed_point_of_the_paper(aggregate: Run, seed: int) -> None:
    draw = Key.root(seed).generator()
    x = draw.normal(0.7, 3, (3 + 2 * seed, 5)) * [1, 2, -1, 0.1, 5]
    weights = draw.integers(1, 40, len(x)).astype(float)
    got = aggregate(geometric_median(), x.clip(-64, 64), weights.tolist())
    np.testing.assert_allclose(got, weiszfeld(x.clip(-64, 64), weights), rtol=1e-6, atol=1e-7)


def test_the_fermat_point_of_a_right_triangle(aggregate: Run) -> None:
    """It sees every side under 120 degrees: the unit vectors to the corners add up to zero."""
    corners = np.array([[-3.0, 0.0], [1.0, 0.0], [-3.0, 2.0]])
    to = corners - aggregate(geometric_median(), corners)
    units = to / np.linalg.norm(to, axis=1, keepdims=True)
    np.testing.assert_allclose(units.sum(axis=0), 0, atol=1e-7)


def test_on_a_line_it_is_the_weighted_median(aggregate: Run) -> None:
    got = aggregate(geometric_median(), [[-50.0], [1.0], [2.0], [40.0]], [2, 1, 9, 3])
    np.testing.assert_allclose(got, [2.0], atol=1e-5)


@settings(max_examples=60)
@given(
    rows=st.lists(st.lists(st.floats(-64, 64), min_size=2, max_size=2), min_size=1, max_size=8),
    data=st.data(),
)
def test_no_point_nearby_is_better(
    aggregate: Run, rows: list[list[float]], data: st.DataObject
) -> None:
    n = len(rows)
    weights = np.array(data.draw(st.lists(st.floats(0.5, 100), min_size=n, max_size=n)))
    x = np.array(rows)
    got = aggregate(geometric_median(), x, weights.tolist())
    reached = objective(got, x, weights)
    # Weiszfeld creeps where updates lie nearly on a line; 0.01 is the worst of 5,000 such rounds.
    slack = 0.05 * weights.sum()
    for angle in np.linspace(0, 2 * math.pi, 12):
        step = 0.1 * np.array([math.cos(angle), math.sin(angle)])
        assert reached <= objective(got + step, x, weights) + slack
    assert reached <= min(objective(point, x, weights) for point in x) + slack


def test_equal_updates_give_that_update(aggregate: Run) -> None:
    got = aggregate(geometric_median(), [[1.25, -3.0]] * 4, [1, 5, 2, 9])
    np.testing.assert_allclose(got, [1.25, -3.0], rtol=1e-15)


def test_far_attackers_do_not_drown_the_differences_of_honest_clients(aggregate: Run) -> None:
    """The distances of attackers are 1e9 times those of honest clients."""
    honest = np.array([[1.0, -2.0], [1.001, -2.0], [1.0, -2.001], [0.999, -2.0005], [1.0, -1.999]])
    attacked = np.vstack([honest, [[1e6, 1e6], [1e6, 1e6]]])
    got = aggregate(geometric_median(), attacked, bound=2e6)
    expected = weiszfeld(attacked - honest[0], np.ones(7)) + honest[0]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_counter_has_no_say_and_gets_the_mean_of_the_same_shares() -> None:
    deltas, seen = [1.0, 2.0, 4.0, 8.0, -60.0], [1e6, 2e6, 3e6, 9e6, 2.5e6]

    def run(names: str) -> dict[str, np.ndarray]:
        specs = {"a": VectorSpec(2, "float64", 64.0), "n": VectorSpec(1, "float64", None)}
        rule = geometric_median()
        acc = rule.zero(AggregationSpec({name: specs[name] for name in names}, 100))
        for i, (delta, n) in enumerate(zip(deltas, seen, strict=True)):
            vectors = {"a": np.array([delta, 3 - delta]), "n": np.array([n])}
            acc = rule.add(acc, Contribution(str(i), {name: vectors[name] for name in names}, 1))
        return rule.finish(acc).vectors

    both = run("an")
    np.testing.assert_array_equal(both["a"], run("a")["a"])
    np.testing.assert_allclose(both["a"], [2, 1], atol=1e-4)
    np.testing.assert_allclose(both["n"], [2e6], rtol=1e-3)


@pytest.mark.parametrize("smoothing", [0.0, -1e-6, float("nan"), float("inf")])
def test_a_smoothing_that_is_no_positive_number_is_refused(smoothing: float) -> None:
    with pytest.raises(AggregationError, match="smoothing") as caught:
        geometric_median(smoothing)
    assert caught.value.code == "aggregation-bad-setting"
