"""A setting that would ruin the model is refused before anything runs."""

from __future__ import annotations

import math

import pytest

from hansa.algorithms import ALGORITHMS
from hansa.errors import PlanError

POSITIVE = {
    "fed_avg": ["lr"],
    "fed_avg_m": ["lr"],
    "fed_adagrad": ["lr", "tau"],
    "fed_adam": ["lr", "tau"],
    "fed_yogi": ["lr", "tau"],
    "scaffold": ["lr"],
}
DECAY = {
    "fed_avg_m": ["momentum"],
    "fed_adagrad": ["beta1"],
    "fed_adam": ["beta1", "beta2"],
    "fed_yogi": ["beta1", "beta2"],
}
BAD = [
    (name, setting, value)
    for table, values in ((POSITIVE, [0.0, -0.1]), (DECAY, [1.0, -0.1]))
    for name, settings in table.items()
    for setting in settings
    for value in (*values, math.nan, math.inf)
] + [("fed_prox", "mu", value) for value in (-1e-9, math.nan, math.inf)]


@pytest.mark.parametrize(("name", "setting", "value"), BAD)
def test_a_setting_out_of_range_is_refused(name: str, setting: str, value: float) -> None:
    with pytest.raises(PlanError) as caught:
        ALGORITHMS[name](**{setting: value})
    assert caught.value.code == "plan-bad-value"
    assert f"{name}.{setting} = {value!r}" in caught.value.happened


def test_settings_at_the_edge_are_taken() -> None:
    ALGORITHMS["fed_prox"](mu=0.0)
    ALGORITHMS["fed_avg_m"](momentum=0.0)
    ALGORITHMS["fed_adam"](beta1=0.0, beta2=0.0, tau=1e-12)
