"""The coordinate-wise median against Python's own."""

from __future__ import annotations

import statistics
import tracemalloc
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.aggregators import AggregationSpec, Contribution, VectorSpec, collected, median

Run = Callable[..., np.ndarray]
MiB = 2**20


@settings(max_examples=80)
@given(
    rows=st.lists(
        st.lists(st.floats(-64, 64, width=32), min_size=3, max_size=3), min_size=1, max_size=9
    )
)
def test_it_is_the_middle_value_or_the_mean_of_the_two(
    aggregate: Run, rows: list[list[float]]
) -> None:
    got = aggregate(median, rows, dtype="float32")
    exact = [statistics.median(map(Fraction, column)) for column in zip(*rows, strict=True)]
    assert got.tolist() == [float(np.float32(float(value))) for value in exact]


def test_weights_do_not_count(aggregate: Run) -> None:
    rows = [[-5.0], [1.0], [2.0]]
    assert aggregate(median, rows, [500, 1, 1]).tolist() == [1.0]


def test_minus_zero_becomes_zero_whatever_the_sorting_of_zeros(aggregate: Run) -> None:
    for rows in ([[-0.0], [0.0], [-0.0]], [[0.0], [-0.0], [-0.0]], [[-0.0]]):
        assert not np.signbit(aggregate(median, rows)).any()


def test_wide_vectors_have_medians_too(aggregate: Run) -> None:
    rows = [[1e12, -7.0], [3.0, 1e-12], [5.0, 4.0]]
    assert aggregate(median, rows, bound=None).tolist() == [5.0, 1e-12]


@pytest.mark.parametrize("clients", [1, 2, 7])
def test_more_clients_than_a_block_holds_are_still_read_column_by_column(
    aggregate: Run, clients: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collected, "STACK_BYTES", 1)
    rows = [[i * 3.0, -i, i * i - 4.0] for i in range(clients)]
    assert aggregate(median, rows).tolist() == np.median(rows, axis=0).tolist()


def test_memory_is_bounded_with_memory_mapped_updates(tmp_path) -> None:
    """Twelve updates of 4 MiB in files: finish may hold the result and a few blocks."""
    size = MiB
    spec = AggregationSpec({"x": VectorSpec(size, "float32", 64.0)}, 1024)
    acc = median.zero(spec)
    for i in range(12):
        x = np.memmap(tmp_path / str(i), "float32", "w+", shape=(size,))
        x[:] = i * 2 - 9
        acc = median.add(acc, Contribution(str(i), {"x": x}, 1))
    tracemalloc.start()
    try:
        got = median.finish(acc).vectors["x"]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (got == 2.0).all()
    assert peak < 4 * MiB + 6 * MiB
