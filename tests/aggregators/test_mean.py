"""The mean against exact rational arithmetic and against float32 accumulation."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.aggregators import (
    AggregationSpec,
    Aggregator,
    Contribution,
    VectorSpec,
    admit,
    mean,
    norm_bounded_mean,
)
from hansa.seeds import Key

Run = Callable[..., np.ndarray]
MiB = 2**20


def exact_mean(rows: np.ndarray, weights: list[float]) -> list[Fraction]:
    total = sum(map(Fraction, weights))
    return [
        sum(Fraction(float(x)) * Fraction(w) for x, w in zip(column, weights, strict=True)) / total
        for column in rows.T
    ]


def test_the_weighted_mean_of_two_sites(aggregate: Run) -> None:
    got = aggregate(mean, [[1, -4, 0.5], [-3, 2, 0.5]], weights=[30, 10])
    assert got.tolist() == [0.0, -2.5, 0.5]


def test_equal_weights_of_any_size_give_the_plain_mean(aggregate: Run) -> None:
    rows = [[1.0, -7.25], [2.0, 3.0], [-6.0, 0.125]]
    for weight in (0.25, 1, 250):
        assert aggregate(mean, rows, weights=[weight] * 3).tolist() == [-1.0, -1.375]


@settings(max_examples=60)
@given(
    rows=st.lists(
        st.lists(st.floats(-64, 64, width=32), min_size=4, max_size=4), min_size=1, max_size=12
    ),
    data=st.data(),
)
def test_the_error_is_within_what_is_promised(
    aggregate: Run, rows: list[list[float]], data: st.DataObject
) -> None:
    n = len(rows)
    weights = data.draw(st.lists(st.floats(0.01, 80), min_size=n, max_size=n))
    got = aggregate(mean, rows, weights, dtype="float32")
    resolution = Fraction(n, 2) / 2 ** (62 - 6 - 10) / sum(map(Fraction, weights))
    for value, exact in zip(got, exact_mean(np.float32(rows), weights), strict=True):
        half_ulp = Fraction(float(np.spacing(np.abs(value)))) / 2
        slack = abs(exact) / 2**50 + 64 * Fraction(1, 2**52)  # roundings in float64
        assert abs(Fraction(float(value)) - exact) <= half_ulp + resolution + slack


@pytest.mark.parametrize("size_of_values", [1e-5, 1e-2, 3.0])
@pytest.mark.parametrize(("clients", "times"), [(5, 1.3), (50, 3), (200, 5)])
def test_it_is_nearer_to_the_exact_mean_than_float32_accumulation(
    aggregate: Run, clients: int, times: float, size_of_values: float
) -> None:
    draw = Key.root(clients).generator()
    rows = (draw.normal(0.3, 1, (clients, 40)) * size_of_values).astype("float32")
    weights = [float(w) for w in draw.integers(10, 1000, clients)]
    exact = exact_mean(rows, weights)
    folded = np.zeros(40, "float32")
    for row, weight in zip(rows, weights, strict=True):
        folded += np.float32(weight) * row
    folded /= np.float32(sum(weights))

    def error(got: np.ndarray) -> float:
        return float(sum(abs(Fraction(float(g)) - e) for g, e in zip(got, exact, strict=True)))

    ours = aggregate(mean, rows, weights, dtype="float32", weight_limit=2.0**20)
    # Nothing in float32 is nearer than the exact mean itself, rounded once.
    rounded = np.float32([float(e) for e in exact])
    assert error(ours) <= 1.05 * error(rounded)
    assert error(ours) * times < error(folded)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("bound", [64.0, 1.0, 0.7, 1e30, 2.0**-40, 3e-5])
@pytest.mark.parametrize("limit", [2.0**20, 1000.0, 7.0, 0.3])
def test_the_worst_round_that_is_admitted_does_not_overflow(
    aggregate: Run, sign: int, bound: float, limit: float
) -> None:
    weights = [limit / 2, limit / 4, limit / 8, limit / 8]
    extreme = float(np.float64(sign * bound))
    got = aggregate(mean, [[extreme]] * 4, weights, bound=bound, weight_limit=limit)
    assert got[0] == pytest.approx(extreme, rel=1e-15)


@pytest.mark.parametrize("limit", [2.0**20, 1000.0, 0.3])
def test_the_worst_wide_round_that_is_admitted_does_not_overflow(
    aggregate: Run, limit: float
) -> None:
    from hansa.aggregators.fixed_point import wide_bound

    weights = [limit / 2, limit / 4, limit / 8, limit / 8]
    extreme = [wide_bound(limit), -wide_bound(limit)]
    got = aggregate(mean, [extreme] * 4, weights, bound=None, weight_limit=limit)
    assert got.tolist() == extreme


def test_counters_and_tiny_variances_are_averaged_in_one_wide_vector(aggregate: Run) -> None:
    rows = [[123_456_789, 1e-12, -3e-13], [123_456_792, 3e-12, -5e-13]]
    got = aggregate(mean, rows, weights=[100, 200], bound=None)
    assert got[0] == 123_456_791
    np.testing.assert_allclose(got, [123_456_791, 7e-12 / 3, -13e-13 / 3], rtol=1e-6)


def test_equal_counters_stay_what_they_are(aggregate: Run) -> None:
    got = aggregate(mean, [[123_457.0, -5.0]] * 7, weights=[3, 7, 11, 1, 99, 2, 5], bound=None)
    assert got.tolist() == [123_457.0, -5.0]


def test_a_memory_mapped_strided_or_read_only_vector_is_summed_as_it_is(aggregate: Run, tmp_path):
    values = np.array([[1, -2, 3], [5, 7, -11]], "float32")
    mapped = np.memmap(tmp_path / "update", "float32", "w+", shape=(2, 6))
    mapped[:, ::2] = values
    mapped.flags.writeable = False
    spec = AggregationSpec({"x": VectorSpec(3, "float32", 64.0)}, 10)
    acc = mean.zero(spec)
    for i in range(2):
        acc = mean.add(acc, Contribution(str(i), {"x": mapped[i, ::2]}, 1))
    assert mean.finish(acc).vectors["x"].tolist() == [3, 2.5, -4]


@settings(max_examples=200)
@given(
    shift=st.integers(-40, 6),
    small=st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3),
    weight=st.floats(0.25, 8.0),
    rule=st.sampled_from([mean, norm_bounded_mean(1.0)]),
)
def test_sums_are_the_same_integers_whether_the_peak_is_known_or_not(
    shift: int, small: list[float], weight: float, rule: Aggregator
) -> None:
    """Magnitudes on either side of where the faster way of rounding ends."""
    spec = AggregationSpec(
        {name: VectorSpec(3, "float32", 64.0) for name in ("first", "x", "last")}, 8.0
    )
    x = np.ldexp(np.array(small, "float32"), shift)
    others = np.float32([2.0**-30, -(2.0**-31), 0.0]), np.float32([-3.0, 64.0, 0.25])
    update = Contribution("a", {"first": others[0], "x": x, "last": others[1]}, weight)
    admitted = admit(update, spec)
    known, unknown = (rule.add(rule.zero(spec), c) for c in (admitted, update))
    for name in spec.vectors:
        assert known.totals[name].tolist() == unknown.totals[name].tolist()
    if rule is mean:  # 62 bits, of which 3 are for the weights and 6 for the values
        exact = [Fraction(float(x)) * Fraction(weight) * 2**53 for x in update.vectors["x"]]
        errors = [abs(t - e) for t, e in zip(known.totals["x"].tolist(), exact, strict=True)]
        assert all(
            error <= max(Fraction(1, 2), abs(e) / 2**53)
            for error, e in zip(errors, exact, strict=True)
        )


def test_folding_and_finishing_copy_no_whole_vector() -> None:
    import tracemalloc

    size = 4 * MiB
    spec = AggregationSpec({"x": VectorSpec(size, "float32", 64.0)}, 1024)
    update = Contribution("a", {"x": np.ones(size, "float32")}, 1)
    acc = mean.zero(spec)
    tracemalloc.start()
    try:
        admit(update, spec)
        acc = mean.add(acc, update)
        folding = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        mean.finish(acc)
        finishing = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert folding < size, "a quarter of the vector"
    assert finishing < 4 * size + 3 * MiB


def test_the_result_says_how_much_was_folded() -> None:
    spec = AggregationSpec({"x": VectorSpec(1, "float32", 64.0)}, 1024)
    acc = mean.zero(spec)
    for i in range(3):
        acc = mean.add(acc, Contribution(str(i), {"x": np.ones(1, "float32")}, 1.5))
    assert mean.finish(acc)[1:] == (4.5, 3)
