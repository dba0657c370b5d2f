"""Robust rules hold against faulty clients where the mean does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hansa.aggregators import (
    Aggregator,
    geometric_median,
    krum,
    mean,
    median,
    multi_krum,
    norm_bounded_mean,
    trimmed_mean,
)
from hansa.seeds import Key

Run = Callable[..., np.ndarray]
CENTRE = np.array([3.0, -1.0, 0.25, -7.0, 2.0])
HONEST, FAULTY, BOUND = 8, 3, 2e6

ATTACKS = {
    "one far point": lambda honest: np.tile([1e6, 1e6, -1e6, 1e6, -1e6], (FAULTY, 1)),
    "opposite sign": lambda honest: np.tile(-1e5 * honest.mean(axis=0), (FAULTY, 1)),
    "far points on both sides": lambda honest: np.outer([1e6, -1.5e6, 7e5], np.ones(5)),
    "one coordinate": lambda honest: np.add(honest[:FAULTY], [0, 0, 1e6, 0, 0]),
}
ROBUST = {
    "median": median,
    "trimmed_mean": trimmed_mean(0.28),
    "krum": krum(FAULTY),
    "multi_krum": multi_krum(FAULTY, keep=4),
    "geometric_median": geometric_median(),
    "norm_bounded_mean": norm_bounded_mean(9.0),
}


def error(aggregate: Run, rule: Aggregator, attack: str) -> float:
    draw = Key.root(5).generator()
    honest = CENTRE + draw.normal(0, 0.3, (HONEST, 5))
    rows = np.vstack([ATTACKS[attack](honest), honest])
    return float(np.linalg.norm(aggregate(rule, rows, bound=BOUND) - CENTRE))


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_mean_is_destroyed(aggregate: Run, attack: str) -> None:
    assert error(aggregate, mean, attack) > 1e4


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("rule", sorted(set(ROBUST) - {"norm_bounded_mean"}))
def test_a_robust_rule_stays_near_the_honest_clients(
    aggregate: Run, rule: str, attack: str
) -> None:
    assert error(aggregate, ROBUST[rule], attack) < 1.0


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_norm_bound_limits_the_damage_to_the_share_of_the_faulty(
    aggregate: Run, attack: str
) -> None:
    """Not a robust rule: attackers move the mean, each by its share of at most twice the norm."""
    assert error(aggregate, ROBUST["norm_bounded_mean"], attack) < 1.0 + 2 * 9 * FAULTY / 11


@pytest.mark.parametrize("rule", ["median", "trimmed_mean", "krum", "geometric_median"])
def test_beyond_its_breakdown_point_a_rule_breaks(aggregate: Run, rule: str) -> None:
    """Positive control: the same attack by a majority goes through."""
    honest = np.tile(CENTRE, (4, 1))
    rows = np.vstack([np.full((7, 5), 1e6), honest])
    broken = aggregate(ROBUST[rule], rows, bound=BOUND)
    assert np.linalg.norm(broken - CENTRE) > 1e4
