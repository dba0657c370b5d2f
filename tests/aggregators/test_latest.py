"""The rolling mean of latest contributions, against its definition and against a fresh sum."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from hansa.aggregators import Contribution
from hansa.aggregators.latest import Latest

SIZE = 7


class Rolling:
    """A rolling mean with what it keeps, and the definition beside it."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, int], Mapping[str, np.ndarray]] = {}
        self.latest = Latest(lambda client, number: self.kept[client, number])
        self.number = 0
        self.now: dict[str, Contribution] = {}

    def commit(self, client: str, vectors: Mapping[str, np.ndarray], weight: float) -> None:
        self.number += 1
        self.kept[client, self.number] = vectors
        self.now[client] = Contribution(client, vectors, weight)
        self.latest.replace(self.now[client], self.number)

    def fresh(self) -> Mapping[str, np.ndarray]:
        """Return what a sum comes to into which nothing but the latest ever went."""
        other = Rolling()
        for client in sorted(self.now):
            other.commit(client, self.now[client].vectors, self.now[client].weight)
        return other.latest.mean().vectors

    def defined(self, name: str = "x") -> np.ndarray:
        total = sum(c.weight for c in self.now.values())
        whole = sum(c.weight * c.vectors[name].astype(np.float64) for c in self.now.values())
        return np.asarray(whole / total)


def vector(rng: np.random.Generator, scale: float = 1.0) -> dict[str, np.ndarray]:
    return {"x": (scale * rng.normal(size=SIZE) - 0.3).astype(np.float32)}


def test_ten_thousand_replacements_leave_no_trace() -> None:
    """MetisFL 2 drifts for ever; here the bytes are those of a fresh sum, at any point."""
    rng, rolling = np.random.default_rng(3), Rolling()
    for number in range(10_000):
        weight = float(rng.integers(1, 500)) / 8
        rolling.commit(f"c{rng.integers(5)}", vector(rng, 10.0 ** rng.integers(-6, 2)), weight)
        if number % 1_999 == 0 or number == 9_999:
            found = rolling.latest.mean().vectors["x"]
            assert found.tobytes() == rolling.fresh()["x"].tobytes()
            assert np.allclose(found, rolling.defined(), rtol=1e-6, atol=1e-7)


def test_the_order_of_arrival_does_not_matter_given_the_same_latest() -> None:
    rng = np.random.default_rng(5)
    last = {f"c{i}": (vector(rng), float(i + 1)) for i in range(6)}
    bytes_of = set()
    for seed in range(8):
        mine, rolling = np.random.default_rng(seed), Rolling()
        for _ in range(int(mine.integers(0, 30))):  # another past each time
            rolling.commit(f"c{mine.integers(6)}", vector(mine, 40.0), float(mine.integers(1, 90)))
        for index in mine.permutation(6).tolist():
            rolling.commit(f"c{index}", *last[f"c{index}"])
        bytes_of.add(rolling.latest.mean().vectors["x"].tobytes())
    assert len(bytes_of) == 1


def test_a_value_beyond_every_bound_so_far_moves_the_point_and_back() -> None:
    rng, rolling = np.random.default_rng(1), Rolling()
    rolling.commit("a", vector(rng), 3.0)
    rolling.commit("b", vector(rng, 1e9), 1.0)
    found = rolling.latest.mean().vectors["x"]
    assert np.allclose(found, rolling.defined(), rtol=1e-6)
    rolling.commit("b", vector(rng), 1.0)
    assert rolling.latest.mean().vectors["x"].tobytes() == rolling.fresh()["x"].tobytes()
    assert np.allclose(rolling.latest.mean().vectors["x"], rolling.defined(), rtol=1e-6)


def test_it_goes_on_from_what_is_kept_to_the_same_bytes() -> None:
    """A process dies: the sum is made anew from the entries of the last commit."""
    rng, rolling = np.random.default_rng(9), Rolling()
    for _ in range(20):
        rolling.commit(f"c{rng.integers(4)}", vector(rng), float(rng.integers(1, 9)))
    again = Latest(rolling.latest._load, rolling.latest.entries)
    assert again.mean().vectors["x"].tobytes() == rolling.latest.mean().vectors["x"].tobytes()


@pytest.mark.parametrize("count", [2**53 - 1, -7, 0])
def test_counters_of_any_size_are_replaced_exactly(count: int) -> None:
    rng, rolling = np.random.default_rng(2), Rolling()
    for value in (1e15, -3.5, float(count)):
        rolling.commit("a", vector(rng) | {"buffers": np.array([value])}, 2.0)
    rolling.commit("b", vector(rng) | {"buffers": np.array([float(count)])}, 5.0)
    assert rolling.latest.mean().vectors["buffers"].tolist() == [count]


def test_the_mean_is_asked_for_as_often_as_one_likes() -> None:
    rng, rolling = np.random.default_rng(4), Rolling()
    rolling.commit("a", vector(rng), 2.0)
    first, again = rolling.latest.mean(), rolling.latest.mean()
    assert first.vectors["x"].tobytes() == again.vectors["x"].tobytes()
    assert first.vectors["x"].tobytes() == rolling.now["a"].vectors["x"].tobytes()
    assert (first.weight, first.clients) == (2.0, 1)
