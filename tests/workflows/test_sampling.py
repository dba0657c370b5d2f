"""Every set of clients is equally likely, and choosing from a million costs what is chosen."""

from __future__ import annotations

import itertools
import tracemalloc
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.seeds import Key
from hansa.workflows.sampling import cohort_size, sample, spare

ROOT = Key.root(11)


class LazyNames(Sequence):
    """Names that are made when they are asked for, and counted."""

    def __init__(self, length: int) -> None:
        self._length, self.asked = length, 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index):
        assert 0 <= index < self._length
        self.asked += 1
        return f"client-{index:07}"


@given(st.integers(0, 60), st.integers(0, 70), st.integers(0, 10**6))
def test_a_cohort_is_a_set_in_the_clients_own_order(clients, size, seed) -> None:
    names = [f"{i % 7}-{i}" for i in range(clients)]
    cohort = sample(names, size, Key.root(seed))
    assert len(cohort) == len(set(cohort)) == min(size, clients)
    positions = [names.index(name) for name in cohort]
    assert positions == sorted(positions)
    assert cohort == sample(names, size, Key.root(seed))


def chi_square(counts: Counter, cells: int) -> float:
    expected = sum(counts.values()) / cells
    return sum((n - expected) ** 2 / expected for n in counts.values()) + expected * (
        cells - len(counts)
    )


def test_every_set_is_equally_likely() -> None:
    """15 pairs of 6 clients: 14 degrees of freedom, 36.1 is the 99.9th percentile."""
    names = "abcdef"
    drawn = Counter(tuple(sample(names, 2, ROOT.child("pairs", i))) for i in range(6000))
    assert set(drawn) == set(itertools.combinations(names, 2))
    assert chi_square(drawn, 15) < 36.1


@pytest.mark.parametrize(("clients", "size"), [(20_000, 40), (20_000, 4_000)])
def test_every_client_is_equally_likely_in_a_large_federation(clients: int, size: int) -> None:
    """Ten bins, 9 degrees of freedom, 27.9; the generator chooses in two ways, by the size."""
    drawn = Counter(
        int(name[7:]) * 10 // clients
        for i in range(200_000 // size // 2)
        for name in sample(LazyNames(clients), size, ROOT.child("bins", i, size))
    )
    assert chi_square(drawn, 10) < 27.9


def test_each_round_draws_anew() -> None:
    names = [str(i) for i in range(50)]
    cohorts = {tuple(sample(names, 5, ROOT.child("cohort", i))) for i in range(30)}
    assert len(cohorts) == 30


def test_a_cohort_of_a_million_clients_costs_what_is_chosen() -> None:
    names = LazyNames(1_000_000)
    sample(names, 100, ROOT)
    names.asked = 0
    tracemalloc.start()
    try:
        cohort = sample(names, 100, ROOT.child(1))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(cohort) == names.asked == 100
    assert peak < 200_000  # bytes; one bit for each client would be 125,000


def test_spare_clients_are_others_and_every_set_of_them_is_equally_likely() -> None:
    """Two of the four that are not in the cohort: 6 pairs, 5 degrees of freedom, 20.5 at 99.9%."""
    names, cohort = "abcdef", ["b", "e"]
    keys = [ROOT.child("spare pairs", i) for i in range(3000)]
    drawn = Counter(tuple(spare(names, cohort, 2, key=key)) for key in keys)
    assert set(drawn) == set(itertools.combinations("acdf", 2))
    assert chi_square(drawn, 6) < 20.5
    assert spare(names, cohort, 4, key=ROOT) == list("acdf")


def test_spare_clients_of_a_million_cost_what_is_chosen() -> None:
    names = LazyNames(1_000_000)
    cohort = sample(names, 50, ROOT)
    names.asked = 0
    assert len(set(spare(names, cohort, 20, key=ROOT)) - set(cohort)) == 20
    assert names.asked == 70


def test_all_clients_need_no_draw() -> None:
    assert sample("abc", 3, ROOT) == sample("abc", 9, ROOT) == ["a", "b", "c"]
    assert sample("", 3, ROOT) == []


def test_the_cohort_is_what_it_always_was() -> None:
    """A change of NumPy's `choice` or of our keys would change every recorded run."""
    assert sample("abcdefghijklmnopqrst", 6, ROOT.child("cohort", 1)) == list("cehjnr")


@pytest.mark.parametrize(
    ("clients", "fraction", "count", "size"),
    [
        (100, 0.1, None, 10),
        (100, 1.0, None, 100),
        (5, 0.01, None, 1),
        (7, 0.5, None, 4),
        (9, 0.5, None, 4),
        (3, 0.9, None, 3),
        (100, 0.1, 25, 25),
        (20, 1.0, 25, 20),
        (1, 0.1, None, 1),
        (1_000_000, 1e-4, None, 100),
    ],
)
def test_the_size_is_the_plans(clients: int, fraction: float, count: int | None, size: int) -> None:
    assert cohort_size(clients, fraction=fraction, count=count) == size
