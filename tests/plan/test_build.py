"""A plan's words become values, or a sentence that says why they cannot."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hansa.algorithms import ALGORITHMS, Capability, Vectors, fed_avg
from hansa.errors import HansaError, PlanError
from hansa.plan import (
    Plan,
    build_method,
    check_capabilities,
    hyper_at,
    read_plan,
    weighting_of,
)
from hansa.seeds import Key
from hansa.transforms import Transform, clip

if TYPE_CHECKING:
    from decimal import Decimal


def plan_of(**table: object) -> Plan:
    return read_plan(table).plan


def slow(mu: float, *, steps: int = 2, word: str = "a", **ignored: object):
    """A user's algorithm with options of several types."""
    return fed_avg(lr=1 / (mu * steps))._replace(name=f"slow-{word}")


def unresolved(mu: Decimal = 1):  # its annotation exists for type checkers only
    return fed_avg()._replace(name=f"unresolved-{mu}")


def drawing(key: Key, *, mu: float = 1.0):
    """A user's algorithm whose name shows a draw."""
    return fed_avg(lr=mu)._replace(name=f"drawing-{key.child(4).integer(16)}")


MINE = SimpleNamespace(
    drawing=drawing,
    slow=slow,
    value=fed_avg()._replace(name="value"),
    unresolved=unresolved,
    wrong=lambda: {"x": 1},
    number=3,
    squeeze=lambda: Transform("squeeze", lambda vs, key: vs, lambda vs: vs),
    word=lambda needed: needed,
)


def my_module(name: str) -> object:
    assert name == "mine.py"
    return MINE


def built(**table: object):
    return build_method(plan_of(**table), my_module)


def refused(**table: object) -> HansaError:
    with pytest.raises(HansaError) as caught:
        built(**table)
    return caught.value


def test_names_and_options_become_values() -> None:
    method = built(
        algorithm={"name": "fed_prox", "mu": 1},
        aggregator={"name": "trimmed_mean", "fraction": 0.25},
        transforms=[{"name": "clip", "norm": 2}, "cast"],
    )
    assert (method.algorithm.name, method.aggregator.name) == ("fed_prox", "trimmed_mean")
    assert method.transform.name == "clip > cast-bf16"
    clipped = method.transform.encode({"a": np.array([300.0, -400.0], np.float32)}, Key.root(0))
    np.testing.assert_allclose(clipped["a"].astype(float), [1.2, -1.6], rtol=2**-8)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_can_be_named(name: str) -> None:
    assert built(algorithm=name).algorithm.name == name


def test_options_reach_the_algorithm() -> None:
    state, mean = Vectors(x=np.zeros(1), v=np.ones(1)), Vectors(delta=np.array([-2.0]))
    plain = built(algorithm={"name": "fed_avg_m", "lr": 0.5, "momentum": 0.25}).algorithm
    np.testing.assert_allclose(plain.server(state, mean, 1.0).x, 0.5 * (0.25 - 2.0))


def test_the_projects_own_methods_are_imported_by_name() -> None:
    method = built(
        algorithm={"name": "mine.py:slow", "mu": 2, "word": "b"}, transforms=["mine.py:squeeze"]
    )
    assert (method.algorithm.name, method.transform.name) == ("slow-b", "squeeze")
    assert built(algorithm="mine.py:value").algorithm.name == "value"
    assert built(algorithm={"name": "mine.py:unresolved", "mu": 7}).algorithm.name == "unresolved-7"


def test_a_method_that_asks_for_a_key_gets_one_of_the_runs_seed() -> None:
    for seed in (1, 2):
        drawn = Key.root(seed).child("server").child(4).integer(16)
        for named in ("mine.py:drawing", {"name": "mine.py:drawing", "mu": 2}):
            assert built(seed=seed, algorithm=named).algorithm.name == f"drawing-{drawn}"


def test_scaffold_with_a_median_is_refused() -> None:
    error = refused(algorithm="scaffold", aggregator="median")
    assert error.code == "plan-impossible"
    assert "scaffold needs the mean" in error.happened
    assert "median is not a mean. Nothing was started." in error.happened
    for name, options in (
        ("krum", {"byzantine": 1}),
        ("norm_bounded_mean", {"norm_limit": 1.0}),
        ("geometric_median", {}),
    ):
        table = {"name": name, **options}
        assert refused(algorithm="scaffold", aggregator=table).code == "plan-impossible"
        built(algorithm="fed_prox", aggregator=table)


@pytest.mark.parametrize("weighting", ["examples", "steps", "user"])
def test_a_weighting_against_the_algorithms_own_is_refused(weighting: str) -> None:
    error = refused(algorithm="scaffold", weighting=weighting)
    assert error.code == "plan-impossible"
    assert f"weighs all clients equally; the plan's weighting is '{weighting}'" in error.happened
    assert "Leave weighting out" in error.hint
    assert built(algorithm="fed_avg", weighting=weighting).algorithm.name == "fed_avg"


def test_more_clients_than_all_cannot_be_asked() -> None:
    error = refused(cohort={"over": 1.3})
    assert error.code == "plan-impossible"
    assert "cohort.over is 1.3, and its rounds ask all clients already" in error.happened
    assert "Set cohort.fraction or cohort.count" in error.hint
    built(cohort={"over": 1.3, "fraction": 0.9})
    built(cohort={"over": 1.3, "count": 5})
    built(cohort={"over": 1.0})


@pytest.mark.parametrize("key", [{"over": 1.3}, {"late": "discount"}])
def test_scaffold_with_updates_that_would_not_count_in_their_round_is_refused(key: dict) -> None:
    error = refused(algorithm="scaffold", cohort={"count": 4, **key})
    assert error.code == "plan-impossible"
    assert "scaffold keeps at each client what it believes to have counted" in error.happened
    assert "cohort.over is 1.3" in error.happened or 'cohort.late is "discount"' in error.happened
    built(algorithm="scaffold", cohort={"count": 4, "deadline_s": 60})
    built(algorithm="fed_prox", cohort={"count": 4, **key})


def test_late_updates_of_lower_weight_need_a_rule_that_is_a_weighted_sum() -> None:
    error = refused(aggregator="median", cohort={"late": "discount"})
    assert error.code == "plan-impossible"
    assert "lowers weights; median is not a weighted sum. Nothing was started." in error.happened
    built(aggregator="mean", cohort={"late": "discount"})
    built(aggregator="median", cohort={"late": "refuse", "count": 4, "over": 2})


def test_clients_weigh_by_examples_unless_plan_or_algorithm_say_otherwise() -> None:
    for table, weighting in [
        ({"algorithm": "fed_prox"}, "examples"),
        ({"algorithm": "scaffold"}, "uniform"),
        ({"algorithm": "scaffold", "weighting": "uniform"}, "uniform"),
        ({"weighting": "steps"}, "steps"),
    ]:
        assert weighting_of(plan_of(**table), built(**table).algorithm) == weighting


@pytest.mark.parametrize(
    ("table", "code", "happened", "hint"),
    [
        ({"algorithm": "fedprox"}, "plan-unknown-name", "'fedprox'", "'fed_prox'"),
        ({"aggregator": "crumb"}, "plan-unknown-name", "aggregator is 'crumb'", "'krum'"),
        ({"transforms": ["clip2"]}, "plan-unknown-name", "transforms[0] is 'clip2'", "'clip'"),
        ({"algorithm": "mine.py:nothing"}, "plan-unknown-name", "nothing", "Define nothing in"),
        ({"algorithm": {"name": "fed_prox", "muu": 1}}, "plan-unknown-key", "'muu'", "'mu'"),
        (
            {"algorithm": {"name": "fed_sgd", "lr": 1}},
            "plan-unknown-key",
            "'lr' that fed_sgd does not take",
            "no options",
        ),
        (
            {"algorithm": {"name": "mine.py:slow", "mu": 1, "args": 2}},
            "plan-unknown-key",
            "'args'",
            "Valid: mu, steps, word",
        ),
        (
            {"aggregator": {"name": "mean", "trim": 1}},
            "plan-unknown-key",
            "['trim']; mean takes none",
            '"mean"',
        ),
        (
            {"algorithm": {"name": "fed_prox", "mu": "big"}},
            "plan-wrong-type",
            "algorithm.mu is 'big'",
            "",
        ),
        (
            {"transforms": ["cast", {"name": "cast", "dtype": "fp8"}]},
            "plan-wrong-type",
            "transforms[1].dtype is 'fp8'",
            "",
        ),
        (
            {"aggregator": {"name": "krum", "byzantine": 1.5}},
            "plan-wrong-type",
            "aggregator.byzantine is 1.5",
            "",
        ),
        (
            {"algorithm": {"name": "fed_prox", "mu": math.nan}},
            "plan-bad-value",
            "algorithm.mu is nan",
            "finite",
        ),
        (
            {"algorithm": {"name": "fed_avg", "lr": -1}},
            "plan-bad-value",
            "fed_avg.lr = -1.0",
            "a positive number",
        ),
        ({"aggregator": "krum"}, "plan-bad-value", "aggregator lacks byzantine", "byzantine = 1 }"),
        ({"transforms": ["clip"]}, "plan-bad-value", "lacks norm", '"clip", norm = 0.1 }'),
        (
            {"algorithm": "mine.py:slow"},
            "plan-bad-value",
            "lacks mu",
            '{ name = "mine.py:slow", mu = 0.1 }',
        ),
        ({"algorithm": {"mu": 1}}, "plan-wrong-type", "has no name", 'algorithm = "fed_avg"'),
        ({"algorithm": {"name": 3}}, "plan-wrong-type", "has no name", ""),
        (
            {"algorithm": "mine.py:wrong"},
            "plan-wrong-type",
            "gives dict instead of Algorithm",
            "Let wrong be Algorithm(...)",
        ),
        ({"algorithm": "mine.py:number"}, "plan-wrong-type", "gives int", ""),
        ({"aggregator": "mine.py:value"}, "plan-wrong-type", "Algorithm instead of Aggregator", ""),
        ({"transforms": [{"name": "clip", "norm": -1}]}, "plan-bad-value", "positive norm", ""),
        (
            {"aggregator": {"name": "trimmed_mean", "fraction": 0.5}},
            "aggregation-bad-setting",
            "fraction = 0.5",
            "",
        ),
    ],
)
def test_what_cannot_be_built_is_refused(table, code: str, happened: str, hint: str) -> None:
    error = refused(**table)
    assert error.code == code
    assert happened in error.happened
    assert hint in error.hint


def test_a_learner_that_offers_too_little_is_refused() -> None:
    needy = ALGORITHMS["scaffold"]()
    check_capabilities(needy, frozenset(Capability), "torch")
    with pytest.raises(PlanError, match="scaffold changes every local gradient; this function"):
        check_capabilities(needy, frozenset(), "function")
    with pytest.raises(PlanError, match="plain SGD steps") as caught:
        check_capabilities(needy, frozenset({Capability.CORRECT, Capability.GRADIENT}), "numpy")
    assert caught.value.code == "plan-impossible"
    with pytest.raises(PlanError, match="asks for gradients"):
        check_capabilities(ALGORITHMS["fed_sgd"](), frozenset({Capability.CORRECT}), "x")
    check_capabilities(fed_avg(), frozenset(), "function")


# Hyper-parameters by round


def test_defaults_are_handed_on() -> None:
    hyper = hyper_at(Plan(), 7)
    assert hyper._asdict() == {
        "round": 7,
        "epochs": 1,
        "steps": None,
        "batch_size": 32,
        "lr": 0.1,
        "optimizer": "sgd",
        "options": {},
        "chain": None,
        "scheduled": 7,
        "settings": {},
    }


def test_only_options_that_were_given_reach_the_optimizer() -> None:
    optimizer = {"name": "adam", "lr": 0.25, "beta1": 0.5, "eps": 1e-3}
    hyper = hyper_at(plan_of(learner={"optimizer": optimizer, "batch_size": "all"}), 1)
    assert (hyper.optimizer, hyper.lr) == ("adam", 0.25)
    assert hyper.options == {"beta1": 0.5, "eps": 1e-3}
    assert hyper.batch_size is None


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({}, [1, 1, 1, 1, 1, 1]),
        ({"name": "step", "every": 2, "gamma": 0.5}, [1, 1, 0.5, 0.5, 0.25, 0.25]),
        ({"name": "exponential", "gamma": 0.5}, [1, 0.5, 0.25, 0.125, 0.0625, 0.03125]),
        (
            {"name": "cosine"},
            [1, (2 + 3**0.5) / 4, 0.75, 0.5, 0.25, (2 - 3**0.5) / 4],
        ),
    ],
)
def test_schedules_multiply_the_rate(schedule: dict, expected: list[float]) -> None:
    plan = plan_of(rounds=6, learner={"optimizer": {"lr": 0.8}, "schedule": schedule})
    rates = [hyper_at(plan, number).lr for number in range(1, 7)]
    np.testing.assert_allclose(rates, 0.8 * np.array(expected), rtol=1e-14)


@pytest.mark.parametrize("name", ["cosine", "exponential", "step"])
def test_rounds_beyond_the_plans_train_as_its_last(name: str) -> None:
    """A cosine would be 0 one round later, and rise again."""
    change = [{"round": 5, "epochs": 3}, {"round": 8, "epochs": 99}]
    plan = plan_of(rounds=6, learner={"schedule": {"name": name, "every": 2}, "change": change})
    last = hyper_at(plan, 6)
    assert last.lr > 0 and last.epochs == 3
    for number in (7, 12, 40):
        assert hyper_at(plan, number)._replace(round=6) == last


def test_changes_hold_from_their_round_on_in_the_order_of_rounds() -> None:
    changes = [
        {"round": 5, "batch_size": "all", "steps": 3},
        {"round": 3, "lr": 0.01, "epochs": 4},
        {"round": 7, "epochs": 2},
    ]
    plan = plan_of(learner={"change": changes, "epochs": 1, "batch_size": 8})
    told = [(h.epochs, h.steps, h.batch_size, h.lr) for h in (hyper_at(plan, n) for n in range(9))]
    assert told[2] == (1, None, 8, 0.1)
    assert told[3] == told[4] == (4, None, 8, 0.01)
    assert told[5] == told[6] == (4, 3, None, 0.01)
    assert told[7] == told[8] == (2, None, None, 0.01)  # epochs take the place of steps again


def test_the_schedule_goes_on_from_a_changed_rate() -> None:
    plan = plan_of(
        learner={
            "optimizer": {"lr": 1.0},
            "schedule": {"name": "exponential", "gamma": 0.5},
            "change": [{"round": 3, "lr": 0.1}],
        }
    )
    rates = [hyper_at(plan, number).lr for number in (1, 2, 3, 4)]
    np.testing.assert_allclose(rates, [1.0, 0.5, 0.025, 0.0125], rtol=1e-14)


def test_a_change_of_two_things_at_once_takes_both() -> None:
    plan = plan_of(learner={"steps": 9, "change": [{"round": 2, "epochs": 3, "steps": 5}]})
    assert [(hyper_at(plan, n).epochs, hyper_at(plan, n).steps) for n in (1, 2)] == [(1, 9), (3, 5)]


def test_clip_is_the_transform_of_that_name() -> None:
    assert clip(1.0).name == "clip"
