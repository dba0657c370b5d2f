"""Step counts that let clients of different speed finish together; all expected numbers by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hansa.limits import LOCAL_STEPS_MAX, SPEEDS_KEPT_MAX
from hansa.metrics import Mean
from hansa.workflows.pace import (
    Speed,
    budgets,
    drawn_seconds,
    kept,
    remembered,
    round_seconds,
    speed_key,
    split_pace,
    with_pace,
)

SPEEDS = {"slow": Speed(0.5, 10), "quick": Speed(0.125, 40), "small": Speed(0.25, 3)}
"""One pass takes 5, 5 and 0.75 seconds."""


@pytest.mark.parametrize(
    ("multiple", "steps"),
    [
        (1.0, {"slow": 10, "quick": 40, "small": 20}),
        (2.0, {"slow": 20, "quick": 80, "small": 40}),
        (0.25, {"slow": 2, "quick": 10, "small": 5}),
        (0.001, {"slow": 1, "quick": 1, "small": 1}),
    ],
)
def test_all_clients_finish_together(multiple: float, steps: dict[str, int]) -> None:
    """arXiv 2102.02849: B_k = lambda * max_k(e_k s_k) / s_k, rounded down, at least one."""
    assert budgets(SPEEDS, multiple=multiple, most_epochs=1e6) == steps
    t_max = round_seconds(SPEEDS.values(), multiple=multiple)
    assert t_max == 5 * multiple
    for name, count in steps.items():
        assert count == 1 or count * SPEEDS[name].step_seconds <= t_max


def test_a_multiple_that_is_no_whole_number_is_not_truncated() -> None:
    """MetisFL 4: lambda was cut to an integer."""
    assert budgets(SPEEDS, multiple=1.5, most_epochs=1e6)["slow"] == 15
    assert budgets(SPEEDS, multiple=0.5, most_epochs=1e6)["slow"] == 5


def test_the_slowest_takes_not_one_step_too_many() -> None:
    """MetisFL 4: the counter ran one step too many; t_max / s is 3.0000000000000004 for some s."""
    for seconds in np.random.default_rng(3).uniform(1e-4, 2.0, 2000):
        for epoch in (3, 7, 49):
            speed = Speed(float(seconds), epoch)
            found = budgets({"a": speed}, multiple=1.0, most_epochs=1e6)
            assert found == {"a": epoch}, speed


def test_a_site_that_claims_to_be_slow_does_not_make_the_others_work_for_ever() -> None:
    lying = {**SPEEDS, "liar": Speed(1e300, 1e9)}
    found = budgets(lying, multiple=1.0, most_epochs=4.0)
    assert (found["slow"], found["quick"], found["small"]) == (40, 160, 12)
    assert found["liar"] <= LOCAL_STEPS_MAX


@pytest.mark.parametrize(
    ("seconds", "epoch"),
    [
        (Mean(math.nan, 4.0), Mean(8.0, 1.0)),
        (Mean(1.0, 0.0), Mean(8.0, 1.0)),
        (Mean(-1.0, 4.0), Mean(8.0, 1.0)),
        (Mean(0.0, 4.0), Mean(8.0, 1.0)),
        (Mean(math.inf, 4.0), Mean(8.0, 1.0)),
        (Mean(1.0, 4.0), Mean(0.5, 1.0)),
        (Mean(1.0, 4.0), Mean(math.nan, 1.0)),
        (None, Mean(8.0, 1.0)),
        (Mean(1.0, 4.0), None),
    ],
)
def test_a_time_that_cannot_be_is_as_good_as_none(seconds: Mean | None, epoch: Mean | None) -> None:
    metrics = {"step_seconds": seconds, "epoch_steps": epoch, "loss": Mean(1.0, 2.0)}
    told = {name: mean for name, mean in metrics.items() if mean is not None}
    plain, speeds = split_pace({"north": told})
    assert speeds == {}
    assert plain == {"north": {"loss": Mean(1.0, 2.0)}}


def test_completed_steps_are_those_that_were_taken() -> None:
    """MetisFL 4: completed batches repeated the request; the time of a step is by the fact."""
    metrics = with_pace({"loss": Mean(3.0, 2.0)}, seconds=2.0, steps=8, epoch_steps=5)
    plain, speeds = split_pace({"north": metrics})
    assert speeds == {"north": Speed(0.25, 5.0)}
    assert plain == {"north": {"loss": Mean(3.0, 2.0)}}


def test_a_step_of_no_measurable_time_is_not_taken_for_ever() -> None:
    """MetisFL took 0 ms for 1 ms; a clock here tells microseconds."""
    told = with_pace({}, seconds=1e-30, steps=1, epoch_steps=2)
    assert split_pace({"a": told})[1] == {"a": Speed(1e-6, 2.0)}


def test_a_simulated_clients_speed_is_its_own_and_the_same_each_time() -> None:
    def per_step(client: str, steps: int, spread: float = 0.5) -> float:
        return drawn_seconds(speed_key(9, client), steps=steps, spread=spread) / steps

    assert per_step("a", 4) == pytest.approx(per_step("a", 400))
    assert per_step("a", 4) != per_step("b", 4)
    assert per_step("a", 4, 0.0) == per_step("b", 4, 0.0) == 0.001
    logs = [math.log(per_step(f"c{i}", 1, 0.7) / 0.001) for i in range(2000)]
    assert np.mean(logs) == pytest.approx(0.0, abs=0.06)
    assert np.std(logs) == pytest.approx(0.7, abs=0.05)


def test_speeds_of_very_many_clients_are_forgotten_oldest_first() -> None:
    many = {f"c{i}": Speed(1.0, 2.0) for i in range(SPEEDS_KEPT_MAX + 3)}
    found = remembered(kept(many))
    assert len(found) == SPEEDS_KEPT_MAX
    assert "c2" not in found and found["c3"] == Speed(1.0, 2.0)
