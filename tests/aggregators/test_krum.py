"""Krum and Multi-Krum against their definition in exact arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.aggregators import AggregationSpec, Contribution, VectorSpec, krum, multi_krum
from hansa.errors import AggregationError

Run = Callable[..., np.ndarray]


def ranking(rows: list[list[float]], f: int) -> list[int]:
    """Blanchard et al. 2017: clients by the sum of distances to the n - f - 2 nearest others."""
    scores = []
    for i, x in enumerate(rows):
        others = [y for j, y in enumerate(rows) if j != i]
        away = sorted(
            sum((Fraction(a) - Fraction(b)) ** 2 for a, b in zip(x, y, strict=True)) for y in others
        )
        scores.append((sum(away[: len(rows) - f - 2]), i))
    return [i for _, i in sorted(scores)]


# Multiples of 1/8 have distances without rounding, so that ties are ties in float64 too.
VALUES = st.integers(-512, 512).map(lambda i: i / 8)


@st.composite
def rounds(draw: st.DrawFn) -> tuple[list[list[float]], int]:
    f = draw(st.integers(0, 3))
    n = draw(st.integers(2 * f + 3, 2 * f + 6))
    size = draw(st.integers(1, 4))
    row = st.lists(VALUES, min_size=size, max_size=size)
    return draw(st.lists(row, min_size=n, max_size=n)), f


@settings(max_examples=100)
@given(case=rounds())
def test_krum_is_the_update_with_the_least_score(
    aggregate: Run, case: tuple[list[list[float]], int]
) -> None:
    rows, f = case
    assert aggregate(krum(f), rows).tolist() == rows[ranking(rows, f)[0]]


@settings(max_examples=100)
@given(case=rounds(), data=st.data())
def test_multi_krum_is_the_mean_of_the_best(
    aggregate: Run, case: tuple[list[list[float]], int], data: st.DataObject
) -> None:
    rows, f = case
    keep = data.draw(st.integers(1, len(rows) - f))
    best = ranking(rows, f)[:keep]
    expected = np.mean([rows[i] for i in best], axis=0)
    np.testing.assert_allclose(
        aggregate(multi_krum(f, keep), rows), expected, rtol=1e-12, atol=1e-13
    )


def test_of_equal_scores_the_first_client_s_update_is_taken(aggregate: Run) -> None:
    rows = [[3.0, -1.0], [-3.0, 1.0], [3.0, 1.0], [-3.0, -1.0]]
    assert aggregate(krum(0), rows).tolist() == rows[0]


def test_the_first_client_is_the_first_by_name_not_by_arrival() -> None:
    spec = AggregationSpec({"x": VectorSpec(1, "float32", 64.0)}, 100)
    rule = krum(0)
    acc = rule.zero(spec)
    for name, value in [("zoe", 4.0), ("mia", 3.0), ("ada", 2.0), ("bob", 1.0)]:
        acc = rule.add(acc, Contribution(name, {"x": np.array([value], "float32")}, 1))
    # ada, bob, mia and zoe score 2, 5, 2, 5.
    assert rule.finish(acc).vectors["x"].tolist() == [2.0]


def test_krum_returns_the_bytes_of_the_update_in_memory_of_its_own(aggregate: Run) -> None:
    spec = AggregationSpec({"x": VectorSpec(2, "float32", 64.0)}, 100)
    rule = krum(0)
    updates = [np.array([v, -0.0], "float32") for v in (1e-42, 3e-42, -60.0)]
    acc = rule.zero(spec)
    for i, x in enumerate(updates):
        acc = rule.add(acc, Contribution(str(i), {"x": x}, 1))
    got = rule.finish(acc).vectors["x"]
    assert got.tobytes() == updates[0].tobytes()
    assert not np.shares_memory(got, updates[0])


def test_distances_are_taken_over_all_vectors_together() -> None:
    """ "b" alone would choose the first client, "a" alone the last; together it is the second."""
    spec = AggregationSpec(
        {"a": VectorSpec(1, "float32", 64.0), "b": VectorSpec(1, "float64", 64.0)}, 100
    )
    rule = krum(0)
    acc = rule.zero(spec)
    for i, (a, b) in enumerate([(20, 0), (5, 1.5), (0, 20), (0.5, -60), (-40, 0.5)]):
        vectors = {"a": np.array([a], "float32"), "b": np.array([b], "float64")}
        acc = rule.add(acc, Contribution(str(i), vectors, 1))
    assert rule.finish(acc).vectors["a"].tolist() == [5.0]


def test_a_counter_has_no_say_in_who_is_chosen() -> None:
    """By their counters of millions, the last client would have the nearest neighbours."""
    spec = AggregationSpec(
        {"a": VectorSpec(1, "float32", 64.0), "n": VectorSpec(1, "float64", None)}, 100
    )
    rounds = [(1, 1e6), (2, 2e6), (4, 3e6), (8, 9e6), (-60, 2.5e6)]
    for rule, a, n in [(krum(1), 2.0, 2e6), (multi_krum(1, 2), 1.5, 1.5e6)]:
        acc = rule.zero(spec)
        for i, (delta, seen) in enumerate(rounds):
            vectors = {"a": np.array([delta], "float32"), "n": np.array([seen])}
            acc = rule.add(acc, Contribution(str(i), vectors, 1))
        got = rule.finish(acc).vectors
        assert (got["a"].tolist(), got["n"].tolist()) == ([a], [n])


def test_weights_do_not_count(aggregate: Run) -> None:
    rows = [[1.0], [1.5], [-40.0], [2.5]]
    assert aggregate(krum(0), rows, [1, 1, 999, 1]).tolist() == [1.5]
    even = aggregate(multi_krum(0, 2), rows, [7, 1, 900, 1])
    assert even.tolist() == aggregate(multi_krum(0, 2), rows).tolist()


@pytest.mark.parametrize(
    ("rule", "needed"), [(krum(1), 5), (krum(4), 11), (multi_krum(1, 2), 5), (multi_krum(1, 6), 7)]
)
def test_too_few_updates_are_refused_with_the_numbers(aggregate: Run, rule, needed: int) -> None:
    rows = [[float(i)] for i in range(needed)]
    aggregate(rule, rows)
    with pytest.raises(
        AggregationError, match=f"{needed - 1} updates.* at least {needed}"
    ) as caught:
        aggregate(rule, rows[1:])
    assert caught.value.code == "aggregation-too-few"


@pytest.mark.parametrize(
    "build",
    [
        lambda: krum(-1),
        lambda: krum(1.0),
        lambda: multi_krum(-1, 2),
        lambda: multi_krum(1, 0),
        lambda: multi_krum(1, 2.0),
    ],
)
def test_counts_that_are_none_are_refused(build: Callable[[], object]) -> None:
    with pytest.raises(AggregationError) as caught:
        build()
    assert caught.value.code == "aggregation-bad-setting"
