"""From a plan's learner table to a learner, and the combinations that are refused before a run."""

from types import SimpleNamespace

import pytest

from hansa.algorithms import Capability
from hansa.errors import LearnerError, PlanError
from hansa.learners.optional import optional
from hansa.plan import read_plan
from hansa.plan.learner import build_learner


def plan(kind, **learner):
    return read_plan({"learner": {"kind": kind, **learner}}).plan.learner


def module(**functions):
    return SimpleNamespace(__file__="model.py", **functions)


TORCH = {"model": lambda: None, "loss": lambda model, batch: None}


@pytest.mark.torch
@pytest.mark.parametrize(
    ("optimizer", "plain"),
    [
        ({"lr": 0.1}, True),
        ({"momentum": 0.0, "weight_decay": 0.1}, True),
        ({"momentum": 0.9, "nesterov": True}, False),
        ({"name": "adamw", "beta1": 0.8, "eps": 1e-6}, False),
        ({"name": "rmsprop", "momentum": 0.1}, False),
        ({"name": "adagrad", "weight_decay": 0.1}, False),
    ],
)
def test_torch_takes_every_optimizer_with_its_options(optimizer, plain):
    pytest.importorskip("torch")
    learner = build_learner(plan("torch", optimizer=optimizer), module(**TORCH), None)
    assert (Capability.PLAIN_SGD in learner.capabilities) == plain


@pytest.mark.torch
def test_an_optimizer_of_the_user_takes_any_option():
    pytest.importorskip("torch")
    own = module(**TORCH, optimizer=lambda model, hyper: None)
    learner = build_learner(plan("torch", optimizer={"eps": 1.0}), own, None)
    assert Capability.PLAIN_SGD not in learner.capabilities


@pytest.mark.torch
@pytest.mark.parametrize(
    ("optimizer", "code", "said"),
    [
        ({"eps": 1e-3}, "plan-unknown-key", "sgd has no eps"),
        ({"name": "adam", "momentum": 0.9}, "plan-unknown-key", "adam has no momentum"),
        ({"name": "adagrad", "beta1": 0.9}, "plan-unknown-key", "adagrad"),
        ({"nesterov": True}, "plan-impossible", "nesterov"),
    ],
)
def test_torch_refuses_what_an_optimizer_lacks(optimizer, code, said):
    pytest.importorskip("torch")
    with pytest.raises(PlanError, match=code) as error:
        build_learner(plan("torch", optimizer=optimizer), module(**TORCH), None)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("optimizer", "code", "said"),
    [
        ({"name": "rmsprop", "beta1": 0.9}, "plan-unknown-key", "rmsprop has no beta1"),
        ({"nesterov": True}, "plan-impossible", "nesterov"),
        ({"name": "adam", "momentum": 0.9}, "plan-unknown-key", "Valid: beta1, beta2, eps, lr, w"),
    ],
)
def test_numpy_refuses_what_it_lacks(optimizer, code, said):
    with pytest.raises(PlanError, match=code) as error:
        build_learner(plan("numpy", optimizer=optimizer), None, None)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "learner",
    [
        {"optimizer": {"lr": 0.3}},
        {"schedule": {"name": "cosine"}},
        {"change": [{"round": 3, "lr": 0.1}]},
    ],
)
def test_a_rate_that_no_sklearn_model_would_see_is_refused(learner):
    pytest.importorskip("sklearn")
    with pytest.raises(PlanError, match="plan-impossible"):
        build_learner(plan("sklearn", **learner), module(model=lambda: None), None)
    build_learner(plan("sklearn", **learner), module(model=lambda hyper: None), None)


def test_a_module_that_lacks_a_function_is_refused():
    with pytest.raises(LearnerError, match=r"lacks loss\(\)"):
        build_learner(plan("torch"), module(model=lambda: None), None)
    with pytest.raises(PlanError, match="plan-impossible"):
        build_learner(plan("script"), None, None)


def test_a_script_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(LearnerError, match="learner-module"):
        build_learner(plan("script", module="train.py"), None, tmp_path)


@pytest.mark.parametrize("package", ["torch", "sklearn"])
def test_a_package_that_is_not_installed_is_named_once_it_is_used(package):
    missing = optional(f"{package}.not_there")
    assert not hasattr(missing, "__wrapped__")
    with pytest.raises(LearnerError, match="learner-missing-package") as error:
        missing.anything  # noqa: B018
    name = {"torch": "torch", "sklearn": "scikit-learn"}[package]
    assert f"pip install {name}" in str(error.value)
