"""A plan's chains become modules at clients and at the server, or a sentence says why not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hansa.algorithms import Capability, Vectors, scaffold
from hansa.data import Dataset
from hansa.errors import PlanError
from hansa.learners import FunctionLearner, NumPyLearner, Perceptron
from hansa.optimizers import MODULES, Module, Point
from hansa.plan import build_method, check_chain, hyper_at, read_plan
from hansa.project import client_of, open_project, with_learner
from hansa.seeds import Key

MINE = SimpleNamespace(
    halve=lambda factor=0.5: Module("halve", lambda u, state, at: (factor * u, state)),
    alone=lambda: Module("alone", lambda u, state, at: u),
    first=lambda: Module("first", lambda u, state, at: (u[:1], state)),
)


def built(**table: Any):
    return build_method(read_plan(table).plan, lambda name: MINE)


def local(**optimizer: Any):
    return built(learner={"optimizer": optimizer}).chain


def refused(**table: Any) -> PlanError:
    with pytest.raises(PlanError) as error:
        built(**table)
    return error.value


def learner() -> NumPyLearner:
    return NumPyLearner(Perceptron())


def project(**table: Any):
    return with_learner(read_plan(table).plan, learner())


def test_no_chain_is_none() -> None:
    assert local(name="adam", beta1=0.5) is None


def test_names_and_options_become_one_module_with_regularizers_first() -> None:
    module = local(
        chain=["momentum", {"name": "clip_global", "norm": 2}],
        regularizers=[{"name": "ridge", "strength": 1}],
    )
    assert module.name == "ridge > momentum > clip_global"
    x = np.array([3.0, 0.0])
    u, _ = module.update(np.array([0.0, 4.0]), module.init(x), Point(x))
    np.testing.assert_allclose(u, [1.2, 1.6])


def test_regularizers_go_before_a_named_optimizer() -> None:
    module = local(name="adam", beta1=0.25, regularizers=["lasso"])
    assert module.name == "lasso > adam"
    x = np.array([-2.0])
    _, state = module.update(np.array([1.0]), module.init(x), Point(x))
    np.testing.assert_allclose(state["1.m"], 0.75 * (1.0 - 0.01))


@pytest.mark.parametrize("name", ["alone", "first"])
def test_a_module_of_ones_own_that_returns_something_else_is_told(name: str) -> None:
    """A direction of another shape would train something else, without a word."""
    x = np.array([1.0, -2.0])
    module = local(chain=["momentum", f"mine.py:{name}"])
    with pytest.raises(PlanError, match=rf"mine.py:{name} in .*\(2,\)"):
        module.update(x, module.init(x), Point(x))


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_named_at_a_client(name: str) -> None:
    options = {"length": 5} if name in ("warmup", "linear", "polynomial", "cyclic") else {}
    options |= {"length": 5} if name.startswith("cosine") else {}
    options |= {"at": [3], "factors": [0.5]} if name == "piecewise" else {}
    assert local(chain=[{"name": name, **options}]).name == name


def test_a_module_of_the_projects_own_can_be_named_on_both_sides() -> None:
    mine = {"name": "mine.py:halve", "factor": 0.25}
    method = built(
        learner={"optimizer": {"chain": [mine]}},
        algorithm={"name": "fed_opt", "chain": ["mine.py:halve"]},
    )
    assert method.chain.update(4.0, {}, Point(0.0)) == (1.0, {})
    after = method.algorithm.server(Vectors(x=np.ones(1)), Vectors(delta=np.full(1, 4.0)), 1.0)
    assert after.x.tolist() == [3.0]


def test_the_servers_noise_follows_from_the_plans_seed_and_the_round() -> None:
    """Oracle: the documented key, by hand; after two rounds the server is built anew."""
    ends = []
    for seed in (1, 2):
        noisy = {"name": "fed_opt", "lr": 0.5, "chain": [{"name": "gaussian_noise", "std": 0.25}]}
        before = built(seed=seed, algorithm=noisy).algorithm
        after = built(seed=seed, algorithm=noisy).algorithm
        x, delta = np.array([1.0, -2.0, 4.0]), np.array([0.5, 3.0, -8.0])
        state = before.init(x)
        for number in (1, 2, 3):
            state = (before if number < 3 else after).server(state, Vectors(delta=delta), 1.0)
            key = Key.root(seed).child("server").child(number).child("step", number)
            x = x + 0.5 * (delta + 0.25 * key.generator().standard_normal(3))
            np.testing.assert_allclose(state.x, x, rtol=1e-12)
        ends.append(x)
    assert (ends[0] != ends[1]).all()


def test_the_key_of_a_method_is_the_runs_and_no_option_of_a_plan() -> None:
    error = refused(algorithm={"name": "fed_opt", "key": 3})
    assert (error.code, "an option 'key'" in error.happened) == ("plan-unknown-key", True)


@pytest.mark.parametrize(
    ("optimizer", "code", "said"),
    [
        ({"chain": ["lbfgs"]}, "plan-unknown-name", "chain[0] is 'lbfgs', which does not exist"),
        ({"chain": ["sgd", {"norm": 1}]}, "plan-wrong-type", "chain[1] has no name"),
        ({"chain": [{"name": "ewma", "alpha": 1}]}, "plan-unknown-key", "that ewma does not take"),
        ({"chain": [{"name": "ewma", "beta": "a"}]}, "plan-wrong-type", "chain[0].beta is 'a'"),
        ({"chain": [{"name": "ewma", "beta": 1}]}, "plan-bad-value", "ewma.beta = 1.0"),
        ({"chain": ["warmup"]}, "plan-bad-value", "chain[0] lacks length"),
        ({"chain": ["sgd"] * 33}, "plan-bad-value", "has 33 modules"),
        ({"regularizers": ["adam"]}, "plan-unknown-name", "regularizers[0] is 'adam'"),
        ({"chain": ["ewma"], "momentum": 0.9}, "plan-impossible", "a chain, and momentum beside"),
        ({"chain": ["ewma"], "name": "adam"}, "plan-impossible", "a chain, and name = 'adam'"),
        ({"regularizers": ["ridge"], "beta1": 0.9}, "plan-unknown-key", "that sgd does not take"),
    ],
)
def test_what_no_chain_can_be_is_refused(optimizer: dict, code: str, said: str) -> None:
    error = refused(learner={"optimizer": optimizer})
    assert (error.code, said in error.happened) == (code, True), error


def test_an_unknown_module_is_answered_with_those_that_exist() -> None:
    hint = refused(learner={"optimizer": {"chain": ["zzz"]}}).hint
    assert all(name in hint for name in MODULES)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ({"chain": "momentum"}, "plan-wrong-type", "algorithm.chain is 'momentum', which is no"),
        ({"chain": ["lbfgs"]}, "plan-unknown-name", "algorithm.chain[0] is 'lbfgs'"),
        ({"chain": [3]}, "plan-wrong-type", "algorithm.chain[0] has no name"),
        ({"chain": ["clip_tensor"]}, "plan-impossible", "where tensors begin"),
        ({"regularizers": ["fed_prox"]}, "plan-impossible", "the model that a client started"),
        ({"regularizers": ["adam"]}, "plan-unknown-name", "algorithm.regularizers[0]"),
        ({"lr": 0}, "plan-bad-value", "fed_opt.lr = 0"),
    ],
)
def test_what_no_server_can_do_is_refused(options: dict, code: str, said: str) -> None:
    error = refused(algorithm={"name": "fed_opt", **options})
    assert (error.code, said in error.happened) == (code, True), error


def test_a_method_without_local_steps_refuses_a_chain_that_nothing_would_use() -> None:
    for key in ("chain", "regularizers"):
        error = refused(algorithm="fed_sgd", learner={"optimizer": {key: ["ridge"]}})
        assert error.code == "plan-impossible"
        assert "fed_sgd takes no local steps" in error.happened


@pytest.mark.parametrize("key", ["chain", "regularizers"])
def test_a_learner_that_steps_in_code_of_its_own_refuses_a_chain(key: str) -> None:
    plan = read_plan({"learner": {"optimizer": {key: ["lasso"]}}}).plan
    black_box = FunctionLearner(lambda rng, sample: {}, lambda params, data, ctx: params)
    with pytest.raises(PlanError, match="takes its steps in code of its own") as error:
        with_learner(plan, black_box)
    assert error.value.code == "plan-impossible"
    assert 'algorithm = { name = "fed_opt", chain = [...] }' in error.value.hint
    with_learner(read_plan({"algorithm": {"name": "fed_opt", "chain": ["adam"]}}).plan, black_box)


@pytest.mark.parametrize("kind", ["function", "script", "sklearn"])
def test_so_do_projects_of_black_boxes(tmp_path: Path, kind: str) -> None:
    if kind == "sklearn":
        pytest.importorskip("sklearn")
    (tmp_path / "plan.toml").write_text(f'[learner]\nkind = "{kind}"\nmodule = "model.py"\n')
    code = "def init(rng, sample): ...\ndef train(p, d, c): ...\ndef model(hyper): ...\n"
    (tmp_path / "model.py").write_text(code)
    open_project(tmp_path)
    with pytest.raises(PlanError, match=f"this {kind} learner takes its steps in code of its own"):
        open_project(tmp_path, ['learner.optimizer.chain=["momentum"]'])


@pytest.mark.torch
def test_a_torch_project_with_an_optimizer_of_its_own_refuses_a_chain(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "plan.toml").write_text('[learner]\nkind = "torch"\nmodule = "model.py"\n')
    code = "def model(): ...\ndef loss(model, batch): ...\n"
    (tmp_path / "model.py").write_text(code)
    sets = ['learner.optimizer.chain=["momentum"]']
    open_project(tmp_path, sets)
    (tmp_path / "model.py").write_text(code + "def optimizer(model, hyper): ...\n")
    with pytest.raises(PlanError, match="takes its steps in code of its own"):
        open_project(tmp_path, sets)


@pytest.mark.parametrize("chain_", [["momentum"], ["clip_global"], [{"name": "sgd", "factor": 2}]])
def test_scaffold_refuses_steps_that_are_not_those_of_plain_sgd(chain_: list) -> None:
    with pytest.raises(PlanError, match="scaffold is derived for plain SGD steps") as error:
        project(algorithm="scaffold", learner={"optimizer": {"chain": chain_}})
    assert error.value.code == "plan-impossible"


def test_scaffold_takes_penalties_and_plain_steps() -> None:
    for optimizer in (
        {"chain": ["sgd", "decoupled_decay"]},
        {"regularizers": ["ridge", "fed_prox"]},
    ):
        made = project(algorithm="scaffold", learner={"optimizer": optimizer})
        assert made.method.algorithm.name == scaffold().name


def test_a_learner_without_the_capability_is_refused_by_name() -> None:
    method = built(learner={"optimizer": {"chain": ["momentum"]}})
    check_chain(method, frozenset({Capability.CHAIN}), "numpy")
    with pytest.raises(PlanError, match=r"\(momentum\); this command learner"):
        check_chain(method, frozenset(), "command")


def blobs() -> Dataset:
    draw = Key.root(1).generator()
    return Dataset.of(draw.normal(size=(24, 4)).astype(np.float32), np.arange(24) % 3)


def trained(optimizer: dict[str, Any], *, number: int = 1) -> np.ndarray:
    """Return the delta of one client's round, through the whole client half."""
    table = {"optimizer": {"lr": 0.5, **optimizer}, "epochs": 2, "batch_size": 8}
    made = project(learner=table)
    seed = made.learner.init(blobs(), Key.root(0))
    x, _ = seed.layout.split(seed.params)
    update, _ = client_of(made, seed.layout).train(
        Vectors(x=x + 0.1),
        blobs(),
        None,
        name="client-0",
        hyper=hyper_at(made.plan, number),
        key=Key.root(5),
    )
    return update.vectors["delta"]


def test_a_chain_is_what_a_client_steps_by() -> None:
    by_name, by_chain = trained({"momentum": 0.9}), trained({"chain": ["momentum"]})
    np.testing.assert_array_equal(by_name, by_chain)
    assert not np.allclose(by_name, trained({}))
    np.testing.assert_array_equal(trained({}), trained({"chain": ["sgd"]}))
    decayed = trained({"regularizers": [{"name": "ridge", "strength": 0.3}]})
    np.testing.assert_array_equal(decayed, trained({"weight_decay": 0.3}))
    assert np.abs(trained({"chain": [{"name": "clip_tensor", "norm": 1e-3}]})).max() <= 6 * 5e-4


def test_a_schedule_by_round_sees_the_round_and_noise_the_clients_key() -> None:
    cosine = {"chain": [{"name": "step_decay", "every": 1, "gamma": 0.5, "by": "round"}]}
    np.testing.assert_allclose(trained(cosine), trained({}), rtol=1e-6)
    np.testing.assert_allclose(trained(cosine, number=3), trained({"lr": 0.125}), rtol=1e-6)
    noisy = {"chain": [{"name": "gaussian_noise", "std": 0.1}]}
    np.testing.assert_array_equal(trained(noisy), trained(noisy))
    assert not np.allclose(trained(noisy), trained({}))
