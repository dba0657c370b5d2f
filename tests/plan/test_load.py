"""A plan is read into types, or refused with the key that is wrong and what to type instead."""

from __future__ import annotations

import datetime
import math
from pathlib import Path

import numpy as np
import pytest

from hansa.data.schemes import Dirichlet, Iid, Labels, Natural
from hansa.errors import DataError, PlanError
from hansa.plan import Plan, build_method, check_plan, flatten, load_plan, read_plan
from hansa.plan.load import parse_set, with_clients
from hansa.plan.plain import plain
from hansa.plan.schema import DataPlan
from hansa.text import nearest


def refused(table: object, *sets: str) -> PlanError:
    with pytest.raises(PlanError) as caught:
        read_plan(table, sets)  # type: ignore[arg-type]
    return caught.value


# Unknown keys


@pytest.mark.parametrize(
    ("table", "key", "hint"),
    [
        ({"round": 3}, "round", "'rounds'"),
        ({"Rounds": 3}, "Rounds", "'rounds'"),
        ({"lerner": {}}, "lerner", "'learner'"),
        ({"learner": {"batchsize": 3}}, "learner.batchsize", "'batch_size'"),
        ({"learner": {"optimiser": {}}}, "learner.optimiser", "'optimizer'"),
        ({"learner": {"optimizer": {"momentun": 1}}}, "learner.optimizer.momentun", "'momentum'"),
        ({"learner": {"schedule": {"gama": 1}}}, "learner.schedule.gama", "'gamma'"),
        (
            {"learner": {"change": [{"round": 2}, {"round": 3, "epoch": 1}]}},
            "learner.change[1].epoch",
            "'epochs'",
        ),
        ({"data": {"validate": 0.1}}, "data.validate", "'validation'"),
        (
            {"data": {"split": {"scheme": "dirichlet", "clients": 3, "alhpa": 1.0}}},
            "data.split.alhpa",
            "'alpha'",
        ),
        (
            {"data": {"split": {"scheme": "labels", "clients": 3, "per_klient": 1}}},
            "data.split.per_klient",
            "'per_client'",
        ),
        ({"cohort": {"fractoin": 0.1}}, "cohort.fractoin", "'fraction'"),
        ({"evaluate": {"evry": 1}}, "evaluate.evry", "'every'"),
        ({"stop": {"patients": 1}}, "stop.patients", "'patience'"),
        ({"keep": {"evry": 1}}, "keep.evry", "'every'"),
    ],
)
def test_an_unknown_key_is_named_with_its_path_and_the_nearest_valid_one(table, key, hint) -> None:
    error = refused(table)
    assert error.code == "plan-unknown-key"
    assert f"{key!r} that does not exist. Nothing was started." in error.happened
    assert error.hint == f"Did you mean {hint}?"


def test_a_key_that_is_like_no_other_gets_the_list_of_its_table() -> None:
    assert refused({"keep": {"zzz": 1}}).hint == "Valid: as_numpy, clients, every, lineage, store."
    split = refused({"data": {"split": {"scheme": "iid", "clients": 2, "zzz": 1}}})
    assert split.hint == "Valid: clients, scheme."


@pytest.mark.parametrize(
    "key", ["", "a`b", "a\nb", "`", "x` - at `$.foo", "x` - at `$.learner", "é"]
)
def test_hostile_keys_are_unknown_keys(key: str) -> None:
    for table in ({key: 1}, {"learner": {key: 1}}, {"data": {"split": {"scheme": "iid", key: 1}}}):
        assert refused(table).code in ("plan-unknown-key", "plan-wrong-type")


# Wrong types and words


@pytest.mark.parametrize(
    ("table", "where"),
    [
        ({"rounds": "ten"}, "rounds"),
        ({"rounds": 1.5}, "rounds"),
        ({"rounds": True}, "rounds"),
        ({"rounds": None}, "rounds"),
        ({"name": 3}, "name"),
        ({"learner": []}, "learner"),
        ({"learner": {"hidden": [1, "x"]}}, "learner.hidden[1]"),
        ({"learner": {"hidden": 64}}, "learner.hidden"),
        ({"learner": {"optimizer": "adam"}}, "learner.optimizer"),
        ({"learner": {"change": {"round": 1}}}, "learner.change"),
        ({"learner": {"change": [{}]}}, "learner.change[0]"),
        ({"algorithm": 3}, "algorithm"),
        ({"transforms": ["clip", 3]}, "transforms[1]"),
        ({"data": {"split": {"clients": 3}}}, "data.split"),
        ({"data": {"split": {"scheme": "iid", "clients": "3"}}}, "data.split.clients"),
        ({"stop": {"lower_is_better": 1}}, "stop.lower_is_better"),
        ({"data": {"set": datetime.date(2024, 1, 1)}}, "data.set"),
    ],
)
def test_a_wrong_type_is_named_with_its_path(table, where: str) -> None:
    error = refused(table)
    assert error.code == "plan-wrong-type"
    assert error.happened.startswith(f"The plan's {where} is not usable: ")
    assert error.happened.endswith("Nothing was started.")


@pytest.mark.parametrize(
    ("table", "hint"),
    [
        ({"learner": {"kind": "torhc"}}, "Did you mean 'torch'?"),
        ({"weighting": "example"}, "Did you mean 'examples'?"),
        ({"learner": {"batch_size": "al"}}, "Did you mean 'all'?"),
        ({"learner": {"schedule": {"name": "cos"}}}, "Did you mean 'cosine'?"),
        ({"learner": {"change": [{"round": 1, "batch_size": "al"}]}}, "Did you mean 'all'?"),
        ({"data": {"split": {"scheme": "dirichlett", "clients": 2}}}, "Did you mean 'dirichlet'?"),
        (
            {"learner": {"optimizer": {"name": "!"}}},
            "Valid: adagrad, adam, adamw, rmsprop, sgd.",
        ),
    ],
)
def test_a_word_that_is_not_one_gets_the_nearest_that_is(table, hint: str) -> None:
    error = refused(table)
    assert (error.code, error.hint) == ("plan-wrong-type", hint)


def test_a_split_out_of_range_is_the_splits_own_error() -> None:
    with pytest.raises(DataError, match="alpha") as caught:
        read_plan({"data": {"split": {"scheme": "dirichlet", "clients": 2, "alpha": -1}}})
    assert caught.value.code == "data-scheme"


# Values from elsewhere


def test_a_notebooks_own_numbers_are_taken() -> None:
    plan = read_plan(
        {
            "rounds": np.int64(3),
            "learner": {"optimizer": {"lr": np.float32(0.5)}, "hidden": (np.int32(7),)},
            "algorithm": {"name": "fed_prox", "mu": np.float64(0.25)},
        }
    ).plan
    assert (plan.rounds, plan.learner.optimizer.lr, plan.learner.hidden) == (3, 0.5, (7,))
    assert type(plan.algorithm["mu"]) is float


def test_the_table_that_was_given_is_left_alone() -> None:
    table = {"algorithm": "fed_prox", "learner": {"hidden": [3]}}
    plan = read_plan(table, ["algorithm.mu=1", "learner.epochs=9"]).plan
    table["learner"]["hidden"].append(4)
    assert table == {"algorithm": "fed_prox", "learner": {"hidden": [3, 4]}}
    assert plan.learner.hidden == (3,)


def nested(depth: int, make) -> object:
    value: object = 1
    for _ in range(depth):
        value = make(value)
    return value


@pytest.mark.parametrize("make", [lambda v: {"algorithm": v}, lambda v: [v]])
def test_deep_nesting_is_refused_and_shallow_is_not(make) -> None:
    for depth in (40, 100_000):
        assert "nested deeper" in refused({"algorithm": {"x": nested(depth, make)}}).happened
    assert plain(nested(14, make)) == nested(14, make)


def test_integers_beyond_64_bits_and_keys_that_are_not_text_are_refused() -> None:
    for value in (2**63, -(2**63) - 1, 10**5000):
        error = refused({"algorithm": {"name": "x", "deep": [0, value]}})
        assert error.happened.startswith("The plan's algorithm.deep[1] is an integer")
    assert read_plan({"seed": 2**63 - 1}).plan.seed == 2**63 - 1
    assert read_plan({"seed": -(2**63)}).plan.seed == -(2**63)
    assert "the key 1, which is not text" in refused({"learner": {1: 2}}).happened


# --set


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("rounds=3", "rounds", 3),
        (" rounds = 3 ", "rounds", 3),
        ("a.b_c.d1=0.5", "a.b_c.d1", 0.5),
        ("a=1e-3", "a", 1e-3),
        ("a=true", "a", True),
        ('a="3"', "a", "3"),
        ("a='x y'", "a", "x y"),
        ("a=fed_prox", "a", "fed_prox"),
        ("a=my module.py:prox", "a", "my module.py:prox"),
        ("a=[1, 2]", "a", [1, 2]),
        ('a={name="clip", norm=1.0}', "a", {"name": "clip", "norm": 1.0}),
        ("a=", "a", ""),
        ("a=b=c", "a", "b=c"),
        ("a=data/my.csv", "a", "data/my.csv"),
        ("a=1\nb=2", "a", "1\nb=2"),
        ("a=007", "a", "007"),
        ("a=1 # one", "a", 1),
        ("a=inf", "a", math.inf),
    ],
)
def test_a_set_is_a_key_and_a_toml_value_or_a_bare_word(text: str, key: str, value) -> None:
    assert parse_set(text) == (key, value)


@pytest.mark.parametrize(
    "text", ["rounds", "=3", "a b=3", "a..b=3", ".a=3", "a.=3", "3=3", "a-b=1"]
)
def test_a_set_of_another_form_is_refused(text: str) -> None:
    error = refused({}, text)
    assert error.code == "plan-syntax"
    assert repr(text) in error.happened
    assert "--set" in error.hint


@pytest.mark.parametrize("value", ["[" * 100_000, "1" * 5000, "{a=" * 50_000])
def test_a_set_beyond_the_parsers_limits_is_refused_or_a_word(value: str) -> None:
    refused({}, f"rounds={value}")


def test_sets_come_in_order_on_top_of_the_file() -> None:
    loaded = read_plan(
        {"rounds": 3, "seed": 1, "learner": {"epochs": 2}},
        ["rounds=4", "learner.optimizer.lr=0.5", "rounds=5"],
    )
    assert (loaded.plan.rounds, loaded.plan.seed, loaded.plan.learner.epochs) == (5, 1, 2)
    assert loaded.plan.learner.optimizer.lr == 0.5
    assert loaded.sources == {
        "seed": "plan.toml",
        "learner.epochs": "plan.toml",
        "rounds": "--set",
        "learner.optimizer.lr": "--set",
    }


SPLIT = {"data": {"set": "digits", "split": {"scheme": "dirichlet", "alpha": 0.5, "clients": 4}}}


@pytest.mark.parametrize(
    ("sets", "split"),
    [
        (["data.split.scheme=iid"], Iid(clients=4)),
        (["data.split=iid"], Iid(clients=4)),
        (["data.split=natural"], Natural()),
        (["data.split.scheme=labels", "data.split.per_client=3"], Labels(clients=4, per_client=3)),
        (["data.split.scheme=dirichlet"], Dirichlet(clients=4, alpha=0.5)),
    ],
)
def test_another_scheme_leaves_the_options_of_the_plans_own_behind(sets, split) -> None:
    loaded = read_plan(SPLIT, sets)
    assert loaded.plan.data.split == split
    assert "data.split.alpha" not in loaded.sources or isinstance(split, Dirichlet)


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (["data.split.scheme=iid", "data.split.alpha=1"], "which scheme 'iid' does not take"),
        (["data.split.alpha=1", "data.split.scheme=iid"], "which scheme 'iid' does not take"),
        (["data.split.shards=1"], "that does not exist"),
        (["data.split={scheme='iid'}"], "it lacks clients, which scheme 'iid' needs"),
        (["data.split={clients=3}"], "lacks scheme, which it needs"),
        (["data.split.scheme=foo"], "Valid: biased, dirichlet"),
        (["data.clients=3"], "data.split.clients"),
    ],
)
def test_what_a_split_cannot_be_set_to_is_told_in_words_of_the_plan(sets, told: str) -> None:
    with pytest.raises(PlanError) as caught:
        read_plan(SPLIT, sets)
    assert told in str(caught.value)


def test_a_name_becomes_a_table_when_an_option_is_set() -> None:
    both = ["algorithm=fed_prox", "algorithm.mu=0.1"]
    assert read_plan({}, both).plan.algorithm == {"name": "fed_prox", "mu": 0.1}
    in_file = read_plan({"aggregator": "trimmed_mean"}, ["aggregator.fraction=0.2"])
    assert in_file.plan.aggregator == {"name": "trimmed_mean", "fraction": 0.2}
    assert in_file.sources == {"aggregator": "plan.toml", "aggregator.fraction": "--set"}


def test_a_name_replaces_a_table_and_its_options() -> None:
    loaded = read_plan({"algorithm": {"name": "fed_prox", "mu": 1.0}}, ["algorithm=fed_avg"])
    assert loaded.plan.algorithm == "fed_avg"
    assert loaded.sources == {"algorithm": "--set"}


def test_lists_and_tables_can_be_set() -> None:
    plan = read_plan(
        {"transforms": ["cast"], "data": {"split": {"scheme": "iid", "clients": 3}}},
        [
            'transforms=[{name="clip", norm=2.0}, "cast"]',
            "learner.hidden=[8, 4]",
            'data.split={scheme="dirichlet", clients=4}',
            "data.split.alpha=0.1",
            "learner.change=[{round=3, lr=0.01}]",
        ],
    ).plan
    assert plan.transforms == ({"name": "clip", "norm": 2.0}, "cast")
    assert plan.learner.hidden == (8, 4)
    assert plan.data.split == Dirichlet(clients=4, alpha=0.1)
    assert plan.learner.change[0].lr == 0.01


@pytest.mark.parametrize(
    ("table", "text", "whole"),
    [
        ({"rounds": 3}, "rounds.x=1", "rounds"),
        ({"learner": {"epochs": 3}}, "learner.epochs.x.y=1", "learner.epochs"),
        ({"learner": {"change": [{"round": 1}]}}, "learner.change.round=3", "learner.change"),
        ({"learner": {"hidden": []}}, "learner.hidden.x=3", "learner.hidden"),
    ],
)
def test_a_set_below_a_value_that_is_no_table_is_refused(table, text: str, whole: str) -> None:
    error = refused(table, text)
    assert error.code == "plan-wrong-type"
    assert f"the plan's {whole} is " in error.happened
    assert error.hint == f"Set the whole of it: --set {whole}=..."


def test_a_set_is_checked_as_the_file_is() -> None:
    assert refused({}, "learner.epoch=3").hint == "Did you mean 'epochs'?"
    assert refused({}, "rounds=many").code == "plan-wrong-type"
    assert "64 bits" in refused({}, f"seed={2**70}").happened


# Files


def test_a_file_is_read_and_says_where_values_came_from(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_bytes(b'\xef\xbb\xbfname = "studie"\n[data.split]\nscheme = "iid"\nclients = 3\n')
    plan, sources = load_plan(path, ["data.split.clients=4"])
    assert (plan.name, plan.data.split) == ("studie", Iid(clients=4))
    assert sources == {
        "name": "plan.toml",
        "data.split.scheme": "plan.toml",
        "data.split.clients": "--set",
    }


@pytest.mark.parametrize(
    "text",
    [
        b"rounds = ",
        b"rounds = 1\nrounds = 2",
        b"\xff\xfe",
        b"a = " + b"1" * 5000,
        b"a = " + b"[" * 100_000,
        b"x = {" * 20_000,
        b"\0",
    ],
    ids=range(7),
)
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "plan.toml"
    path.write_bytes(text)
    with pytest.raises(PlanError, match=r"plan\.toml") as caught:
        load_plan(path)
    assert caught.value.code == "plan-syntax"


def test_a_file_of_deep_dotted_keys_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(".".join(["a"] * 3000) + " = 1")
    with pytest.raises(PlanError):
        load_plan(path)


def test_a_missing_file_and_a_folder_are_told_apart_from_a_bad_one(tmp_path: Path) -> None:
    for path in (tmp_path / "plan.toml", tmp_path):
        with pytest.raises(PlanError, match="There is no plan at") as caught:
            load_plan(path)
        assert caught.value.code == "plan-not-found"
        assert "hansa init" in caught.value.hint


# Small parts


def test_flatten_keeps_empty_tables_and_lists() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": {}}, "e": [{"f": 1}]}) == {
        "a.b.c": 1,
        "a.d": {},
        "e": [{"f": 1}],
    }


def test_nearest_names_one_word_or_all() -> None:
    assert nearest("fedprox", ["fed_avg", "fed_prox"]) == "Did you mean 'fed_prox'?"
    assert nearest("qqq", ["b", "a"]) == "Valid: a, b."


def test_every_default_is_a_plan_that_runs() -> None:
    plan = read_plan({}).plan
    assert plan == Plan()
    check_plan(plan)
    build_method(plan, NotImplemented)


def test_more_clients_than_a_plan_names_are_refused_and_fewer_are_the_first() -> None:
    named = DataPlan(clients=("north", "south"))
    assert with_clients(named, 2) == 'data.clients=["north", "south"]'
    assert parse_set(with_clients(named, 1)) == ("data.clients", ["north"])
    with pytest.raises(PlanError, match="names 2 clients, north, south; 3 are asked for"):
        with_clients(named, 3)
