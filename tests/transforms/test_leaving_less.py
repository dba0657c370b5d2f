"""Transforms and filters that let less of an update leave, against their closed forms."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from hansa.errors import PlanError, UpdateRefused
from hansa.seeds import Key
from hansa.testing import check_transform
from hansa.transforms import Transform, cast, chain, clip, percentile, sparse_vector
from hansa.transforms.exclude import without
from hansa.transforms.percentile import largest
from hansa.transforms.sparse_vector import sparse

KEY = Key.root(3)


def test_values_below_the_percentile_are_set_to_0_and_the_others_cut_off() -> None:
    # |d| = 1 .. 11 times 0.01, signed; the 50th percentile is 0.06, so 0.06 stays and 0.05 goes.
    d = np.array([0.01, -0.02, 0.03, -0.04, 0.05, -0.06, 0.07, -0.08, 0.09, -0.10, 0.11])
    vectors = {"a": d[:4], "b": d[4:]}
    made = percentile(50, 0.085).encode(vectors, KEY)
    assert made["a"].tolist() == [0, 0, 0, 0]
    assert made["b"].tolist() == [0, -0.06, 0.07, -0.08, 0.085, -0.085, 0.085]
    # By step: the cutoff does not move, and the bound holds for a step.
    by_step = largest(vectors, 50, 0.04, steps=2.0)
    np.testing.assert_allclose(by_step["b"], [0, -0.06, 0.07, -0.08, 0.08, -0.08, 0.08])


def test_only_the_share_that_is_above_the_threshold_leaves_where_noise_is_nothing() -> None:
    d = np.array([5.0, -0.5, 0.0, -7.0, 2.0, 0.25, -3.0, 1.5])
    made = sparse({"d": d}, KEY.generator(), 1.0, (1e12, 1e12), bound=4.0, threshold=1.0)["d"]
    np.testing.assert_allclose(made, [4, 0, 0, -4, 2, 0, -3, 1.5], atol=1e-9)
    few = sparse({"d": d}, KEY.generator(), 0.25, (1e12, 1e12), bound=4.0, threshold=1.0)["d"]
    assert np.count_nonzero(few) == 2 and set(np.flatnonzero(few)) <= {0, 3, 4, 6, 7}


def test_the_noise_of_what_leaves_is_laplace_of_the_declared_scale() -> None:
    """E|Lap(b)| = b with b = 2 gamma c / e3, and the mean is the value itself."""
    n, gamma, third = 40_000, 1.0, 5e4
    d = np.full(n, 0.75)
    made = sparse({"d": d}, KEY.generator(), 1.0, (1e12, third), bound=gamma, threshold=0.0)["d"]
    scale = 2 * gamma * n / third
    assert np.count_nonzero(made) == n
    assert abs(np.mean(np.abs(made - 0.75)) / scale - 1) < 0.03
    assert abs(np.mean(made) - 0.75) < 5 * scale * np.sqrt(2 / n)


def test_the_noise_of_the_queries_is_laplace_of_the_declared_scale() -> None:
    """P(|d| + Lap(b) >= tau) = exp(-(tau - |d|) / b) / 2 with b = 2 gamma c / e2."""
    n, first = 40_000, 1e3
    b = 2 * n / (first * (2 * n) ** (2 / 3))
    made = sparse(
        {"d": np.zeros(n)}, KEY.generator(), 1.0, (first, 1e12), bound=1.0, threshold=1.3
    )["d"]
    share = np.count_nonzero(made) / n
    assert abs(share - np.exp(-1.3 / b) / 2) < 0.01  # the threshold's own noise is 0.001


def test_named_tensors_are_sent_as_no_change() -> None:
    spans = [("body.w", 0, 3), ("head.w", 3, 5), ("head.b", 5, 6)]
    vectors = {"delta": np.arange(1.0, 7), "count": np.array([9.0])}
    made = without(vectors, spans, ["head.*"])
    assert made["delta"].tolist() == [1, 2, 3, 0, 0, 0] and made["count"].tolist() == [9]
    assert vectors["delta"].tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("transform", [percentile(20, 0.5), sparse_vector(0.5)])
def test_they_keep_the_laws_of_transforms(transform: object) -> None:
    check_transform(transform)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [lambda: percentile(101), lambda: percentile(bound=0), lambda: sparse_vector(2.0),
              lambda: sparse_vector(epsilon=float("nan"))]
)  # fmt: skip
def test_arguments_out_of_range_are_refused(wrong: object) -> None:
    with pytest.raises(PlanError):
        wrong()  # type: ignore[operator]


HALVES = {"bf16": (np.dtype(ml_dtypes.bfloat16), 2.0**-8), "fp16": (np.dtype(np.float16), 2.0**-11)}
D = np.array([0.5, -0.25, 1e-4, 3.0, -0.07], np.float32)


@pytest.mark.parametrize("half", HALVES)
def test_what_a_cast_has_made_smaller_is_filtered_as_well(half: str) -> None:
    """bfloat16 is no kind of NumPy's own; it left unfiltered and without noise."""
    dtype, unit = HALVES[half]
    narrowing: Transform = cast(half)  # type: ignore[arg-type]
    narrow = D.astype(dtype).astype(np.float64)
    few = chain(narrowing, percentile(50, 0.1))
    sent = few.encode({"delta": D}, KEY)["delta"]
    expected = np.where(np.abs(narrow) < np.percentile(np.abs(narrow), 50), 0, narrow)
    assert sent.dtype == dtype and np.count_nonzero(expected) == 3
    found = few.decode({"delta": sent})["delta"]
    np.testing.assert_allclose(found, np.clip(expected, -0.1, 0.1), rtol=unit)

    noisy = chain(narrowing, sparse_vector(1.0, 1e12, noise=5e2, bound=1.0, threshold=0.2))
    sent = noisy.encode({"delta": D}, KEY)["delta"]
    found = noisy.decode({"delta": sent})["delta"].astype(np.float64)
    assert sent.dtype == dtype and np.flatnonzero(found).tolist() == [0, 1, 3]
    noise = found[[0, 1, 3]] - [0.5, -0.25, 1.0]  # Lap(2 * 5 / 500): beyond 0.3 in 3 of 10 million
    assert np.count_nonzero(noise) >= 2 and (np.abs(noise) < 0.3).all()


FILTERS = {"percentile": percentile(50, 0.01), "sparse_vector": sparse_vector(1.0)}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
def test_what_they_cannot_change_is_refused_and_does_not_leave(name: str, dtype: str) -> None:
    vectors = {"delta": D, "counts": np.array([5, 90, 3]).astype(dtype)}
    with pytest.raises(UpdateRefused, match=f"{name} cannot change 'counts'.*{dtype}") as refused:
        FILTERS[name].encode(vectors, KEY)
    assert refused.value.code == "update-dtype"


def test_clipping_holds_for_integers_and_refuses_booleans() -> None:
    """12, -4 and 3 have the norm 13; half of True is no boolean, so it would leave as it is."""
    made = clip(6.5).encode({"n": np.array([12, -4], np.int16), "m": np.array([3], np.uint8)}, KEY)
    assert [made["n"].tolist(), made["m"].tolist()] == [[6, -2], [1]]
    assert made["n"].dtype == np.int16
    with pytest.raises(UpdateRefused, match="bool"):
        clip(1.0).encode({"flags": np.ones(9, bool)}, KEY)


def test_clipping_a_large_update_of_half_floats_holds_its_norm() -> None:
    """The factor is 2^-24.8, between the two smallest numbers of float16."""
    vector = np.tile(np.array([60000.0, -60000.0], np.float16), 5000)
    made = clip(0.2).encode({"delta": vector}, KEY)["delta"].astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(made), 0.2, rtol=2.0**-11)


@pytest.mark.parametrize(
    ("share", "size", "leave"), [(0.07, 100, 7), (0.29, 100, 29), (1e-9, 5, 1)]
)
def test_no_more_than_the_stated_share_leaves(share: float, size: int, leave: int) -> None:
    """In floats 0.07 * 100 is 7.000000000000001."""
    d = np.where(np.arange(size) % 3, 2.0, -5.0)
    made = sparse({"d": d}, KEY.generator(), share, (1e12, 1e12), bound=4.0, threshold=1.0)["d"]
    assert np.count_nonzero(made) == leave
