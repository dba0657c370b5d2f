"""Goal: every module of the table is the one that torch.optim, or its paper, defines.

Method: twelve steps with signed, asymmetric gradients, against torch.optim or its schedulers where
torch has the thing, and else against the paper's lines in plain NumPy.  A new module is tested by
adding a row to CASES; the laws are those that chains, stacks and the server rely on.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from hansa.algorithms import fed_opt
from hansa.errors import PlanError
from hansa.optimizers import MODULES, REGULARIZERS, Need, Point, chain
from hansa.optimizers.arrays import clipped_by_tensor, clipped_on_device
from hansa.seeds import Key
from hansa.testing import check_algorithm, check_module

X = np.array([0.5, -2.0, 3.0, 0.0, 1.5, -0.25])
STARTS = (0, 1, 4)  # three tensors, of 1, 3 and 2 elements
LR, STEPS = 0.07, 12
KEY = Key.root(3).child("test")
ROUND = 5


def gradients() -> list[np.ndarray]:
    rng = Key.root(1).generator()
    scales = np.array([3, -1, 0.1, 1e-4, 0, 2])
    return [rng.standard_normal(6) * scales - 0.2 for _ in range(STEPS)]


Path = Callable[[], np.ndarray]
"""Gives the parameters after each step, `[STEPS, 6]`."""


def torch_optim(name: str, schedule: str | None = None, *, options=(), **settings: Any) -> Path:
    def path() -> np.ndarray:
        torch = pytest.importorskip("torch")
        x = torch.tensor(X, requires_grad=True)
        optimizer = getattr(torch.optim, name)([x], lr=LR, **dict(options))
        scheduler = None
        if schedule:
            scheduler = getattr(torch.optim.lr_scheduler, schedule)(optimizer, **settings)
        rows = []
        for g in gradients():
            x.grad = torch.from_numpy(g)
            optimizer.step()
            if scheduler:
                scheduler.step()
            rows.append(x.detach().numpy().copy())
        return np.array(rows)

    return path


def formula(step: Callable[..., np.ndarray], **memory: float) -> Path:
    """`step(g, x, t, s)` returns the direction; `s` starts as `memory` in every coordinate."""

    def path() -> np.ndarray:
        x, rows = X.copy(), []
        s = {name: np.full(6, float(value)) for name, value in memory.items()}
        for t, g in enumerate(gradients(), start=1):
            x = x - LR * step(g, x, t, s)
            rows.append(x)
        return np.array(rows)

    return path


def ewma(g, x, t, s):
    s["m"] = 0.7 * s["m"] + 0.3 * g
    return s["m"]


def yogi(g, x, t, s):  # Zaheer et al. 2018, Alg. 2
    s["m"] = 0.8 * s["m"] + 0.2 * g
    s["v"] = s["v"] - 0.1 * np.sign(s["v"] - g**2) * g**2
    return s["m"] / (np.sqrt(s["v"]) + 0.01)


def yogi_momentum(g, x, t, s):
    for i in range(6):  # towards g, by a share of its size
        up = g[i] > s["m"][i]
        s["m"][i] += (0.17 if up else -0.17) * abs(g[i])
    return s["m"].copy()


def reddi_amsgrad(g, x, t, s):  # Reddi et al. 2018, Alg. 2: no bias correction
    s["m"] = 0.8 * s["m"] + 0.2 * g
    s["v"] = 0.5 * s["v"] + 0.5 * g**2
    s["top"] = np.maximum(s["top"], s["v"])
    return s["m"] / (np.sqrt(s["top"]) + 0.01)


def fed_adam(g, x, t, s):  # Reddi et al. 2021, Alg. 2, lines 8, 11 and 13
    s["m"] = 0.8 * s["m"] + 0.2 * g
    s["v"] = 0.5 * s["v"] + 0.5 * g**2
    return s["m"] / (np.sqrt(s["v"]) + 0.3)


def fed_adagrad(g, x, t, s):  # line 10
    s["m"] = 0.4 * s["m"] + 0.6 * g
    s["v"] = s["v"] + g**2
    return s["m"] / (np.sqrt(s["v"]) + 0.3)


def clip_tensor(g, x, t, s):
    parts = [g[0:1], g[1:4], g[4:6]]
    return np.concatenate([p * min(1, 0.6 / np.sqrt((p**2).sum())) for p in parts])


def noise(g, x, t, s):
    return g + 0.4 * KEY.child("step", t).generator().standard_normal(6)


class Case(NamedTuple):
    name: str
    options: dict[str, Any]
    path: Path


ROWS = [
    ("sgd", {}, torch_optim("SGD")),
    ("sgd", {"factor": 0.5}, formula(lambda g, x, t, s: g / 2)),
    ("momentum", {"beta": 0.8}, torch_optim("SGD", options={"momentum": 0.8}.items())),
    (
        "nesterov",
        {"beta": 0.8},
        torch_optim("SGD", options={"momentum": 0.8, "nesterov": True}.items()),
    ),
    ("ewma", {"beta": 0.7}, formula(ewma, m=0)),
    ("yogi_momentum", {"beta": 0.83}, formula(yogi_momentum, m=0)),
    ("adam", {}, torch_optim("Adam")),
    (
        "adam",
        {"beta1": 0.5, "beta2": 0.7, "eps": 0.1},
        torch_optim("Adam", options={"betas": (0.5, 0.7), "eps": 0.1}.items()),
    ),
    (
        "adam",
        {"beta1": 0.8, "beta2": 0.5, "eps": 0.3, "bias_correction": False, "initial": 0.09},
        formula(fed_adam, m=0, v=0.09),
    ),
    (
        "amsgrad",
        {"beta2": 0.5},
        torch_optim("Adam", options={"amsgrad": True, "betas": (0.9, 0.5)}.items()),
    ),
    (
        "amsgrad",
        {"beta1": 0.8, "beta2": 0.5, "eps": 0.01, "bias_correction": False},
        formula(reddi_amsgrad, m=0, v=0, top=0),
    ),
    ("adagrad", {}, torch_optim("Adagrad")),
    (
        "adagrad",
        {"initial": 0.3, "eps": 0.1},
        torch_optim("Adagrad", options={"initial_accumulator_value": 0.3, "eps": 0.1}.items()),
    ),
    ("adagrad", {"beta1": 0.4, "eps": 0.3, "initial": 0.09}, formula(fed_adagrad, m=0, v=0.09)),
    ("rmsprop", {}, torch_optim("RMSprop")),
    (
        "rmsprop",
        {"decay": 0.6, "eps": 0.1},
        torch_optim("RMSprop", options={"alpha": 0.6, "eps": 0.1}.items()),
    ),
    (
        "yogi",
        {"beta1": 0.8, "beta2": 0.9, "eps": 0.01, "initial": 0.04},
        formula(yogi, m=0, v=0.04),
    ),
    (
        "clip_global",
        {"norm": 1.5},
        formula(lambda g, x, t, s: g * min(1, 1.5 / np.linalg.norm(g))),
    ),
    ("clip_tensor", {"norm": 0.6}, formula(clip_tensor)),
    ("gaussian_noise", {"std": 0.4}, formula(noise)),
    ("fed_prox", {"mu": 0.3}, formula(lambda g, x, t, s: g + 0.3 * (x - X))),
    ("lasso", {"strength": 0.3}, formula(lambda g, x, t, s: g + 0.3 * np.sign(x))),
    ("ridge", {"strength": 0.3}, torch_optim("SGD", options={"weight_decay": 0.3}.items())),
    (
        "decoupled_decay",
        {"rate": 0.3},
        formula(lambda g, x, t, s: (x - (1 - LR * 0.3) * x) / LR + g),
    ),
    ("warmup", {"length": 1}, torch_optim("SGD")),
    (
        "warmup",
        {"length": 5},
        torch_optim("SGD", "LinearLR", start_factor=0.2, end_factor=1.0, total_iters=4),
    ),
    ("exponential_decay", {"gamma": 0.8}, torch_optim("SGD", "ExponentialLR", gamma=0.8)),
    (
        "step_decay",
        {"every": 3, "gamma": 0.3},
        torch_optim("SGD", "StepLR", step_size=3, gamma=0.3),
    ),
    (
        "piecewise",
        {"at": (2, 7), "factors": (0.3, 0.09)},
        torch_optim("SGD", "MultiStepLR", milestones=[2, 7], gamma=0.3),
    ),
    (
        "linear",
        {"length": 8, "end": 0.2},
        torch_optim("SGD", "LinearLR", start_factor=1.0, end_factor=0.2, total_iters=8),
    ),
    (
        "polynomial",
        {"length": 8, "power": 1.7},
        torch_optim("SGD", "PolynomialLR", total_iters=8, power=1.7),
    ),
    (
        "inverse",
        {"gamma": 0.5, "power": 0.75},
        torch_optim("SGD", "LambdaLR", lr_lambda=lambda t: 1 / (1 + 0.5 * t) ** 0.75),
    ),
    (
        "cosine",
        {"length": 12, "end": 0.1},
        torch_optim("SGD", "CosineAnnealingLR", T_max=12, eta_min=0.1 * LR),
    ),
    (
        "cosine",
        {"length": 4},
        formula(lambda g, x, t, s: g * (0.5 + 0.5 * np.cos(np.pi * min(t - 1, 4) / 4))),
    ),
    (
        "cosine_restarts",
        {"length": 3},
        torch_optim("SGD", "CosineAnnealingWarmRestarts", T_0=3),
    ),
    (
        "cosine_restarts",
        {"length": 2, "growth": 2, "end": 0.1},
        torch_optim("SGD", "CosineAnnealingWarmRestarts", T_0=2, T_mult=2, eta_min=0.1 * LR),
    ),
    (
        "cyclic",
        {"length": 6, "low": 0.2},
        torch_optim(
            "SGD",
            "CyclicLR",
            base_lr=0.2 * LR,
            max_lr=LR,
            step_size_up=3,
            cycle_momentum=False,
        ),
    ),
    (
        "cyclic",
        {"length": 4, "low": 0.2, "gamma": 0.8},
        torch_optim(
            "SGD",
            "CyclicLR",
            base_lr=0.2 * LR,
            max_lr=LR,
            step_size_up=2,
            mode="exp_range",
            gamma=0.8,
            cycle_momentum=False,
        ),
    ),
]
CASES = [Case(*row) for row in ROWS]
every = pytest.mark.parametrize(
    "case", CASES, ids=lambda c: "-".join([c.name, *map(str, c.options)])
)
SCHEDULES = {name for name in MODULES if "by" in inspect.signature(MODULES[name]).parameters}


def descend(case: Case, made: Callable = np.array, lr: float = LR) -> tuple[np.ndarray, Any]:
    """Return the path of a module over vectors of any kind, and its last state."""
    module = MODULES[case.name](**case.options)
    x, start, rows = made(X), made(X), []
    state = module.init(x)
    for t, g in enumerate(gradients(), start=1):
        at = Point(x, start, step=t, round=ROUND, key=KEY, starts=STARTS)
        u, state = module.update(made(g), state, at)
        x = x - lr * u
        rows.append(np.asarray(x).copy())
    return np.array(rows), (u, state)


def test_every_module_of_the_table_has_a_row() -> None:
    assert {case.name for case in CASES} == set(MODULES) >= set(REGULARIZERS)


@pytest.mark.torch
@every
def test_a_module_is_that_of_torch_or_of_its_paper(case: Case) -> None:
    np.testing.assert_allclose(descend(case)[0], case.path(), rtol=1e-11, atol=1e-13)


@pytest.mark.torch
@every
def test_a_module_does_the_same_to_torch_tensors(case: Case) -> None:
    torch = pytest.importorskip("torch")
    path, (u, state) = descend(case, torch.tensor)
    np.testing.assert_allclose(path, descend(case)[0], rtol=1e-12, atol=1e-14)
    assert {str(v.dtype) for v in (u, *state.values())} == {"torch.float64"}
    _, (u, state) = descend(case, lambda v: torch.tensor(v, dtype=torch.float32))
    assert {str(v.dtype) for v in (u, *state.values())} == {"torch.float32"}


@every
def test_float32_stays_float32(case: Case) -> None:
    path, (u, state) = descend(case, lambda v: np.array(v, np.float32))
    assert {str(v.dtype) for v in (u, *state.values())} == {"float32"}
    if case.name != "gaussian_noise":  # whose numbers in float32 are others
        np.testing.assert_allclose(path, descend(case)[0], rtol=2e-3, atol=2e-3)


@every
def test_a_module_keeps_the_laws(case: Case) -> None:
    check_module(MODULES[case.name](**case.options))


@every
def test_a_module_keeps_the_laws_at_the_server_or_is_refused(case: Case) -> None:
    module = MODULES[case.name](**case.options)
    if module.needs & {Need.START, Need.TENSORS}:
        with pytest.raises(PlanError, match=f"{case.name} looks at") as error:
            fed_opt((module,))
        assert error.value.code == "plan-impossible"
        return
    check_algorithm(fed_opt((module,), lr=0.1))
    check_algorithm(fed_opt((MODULES["momentum"](), module, MODULES["clip_global"]()), lr=0.1))


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_a_schedule_by_round_looks_at_the_round_alone(name: str) -> None:
    options = next(case.options for case in CASES if case.name == name)
    by_step, by_round = (MODULES[name](**options, by=by) for by in ("step", "round"))
    g = np.array([1.0, -2.0])
    for count in range(1, 15):
        a, _ = by_step.update(g, {}, Point(g, step=count, round=77))
        b, _ = by_round.update(g, {}, Point(g, step=77, round=count))
        assert a.tolist() == b.tolist()


BAD = [
    (name, option)
    for name in MODULES
    for option, parameter in inspect.signature(MODULES[name]).parameters.items()
    if parameter.annotation in ("float", "int")
]


@pytest.mark.parametrize(("name", "option"), BAD)
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_a_setting_out_of_range_is_refused(name: str, option: str, value: float) -> None:
    given = {**next(case.options for case in CASES if case.name == name), option: value}
    with pytest.raises(PlanError) as error:
        MODULES[name](**given)
    assert error.value.code == "plan-bad-value"
    assert f"{name}.{option} = {value!r}" in error.value.happened


@pytest.mark.parametrize("at", [(0, 2), (3, 3), (5, 2), (2,)])
def test_a_piecewise_schedule_that_does_not_rise_is_refused(at: tuple[int, ...]) -> None:
    with pytest.raises(PlanError, match=r"piecewise\.at"):
        MODULES["piecewise"](at, (0.5, 0.1))


def test_a_chain_gives_each_module_what_the_one_before_it_returns() -> None:
    """SGD with momentum on clipped gradients, and not clipped momentum."""
    clip, ball = MODULES["clip_global"](1.0), MODULES["momentum"](0.5)
    g, at = np.array([3.0, -4.0]), Point(np.zeros(2))
    first, last = chain(clip, ball), chain(ball, clip)
    lengths = []
    for module in (first, last):
        state = module.init(at.x)
        for _ in range(20):
            u, state = module.update(g, state, at)
        lengths.append(float(np.linalg.norm(u)))
    np.testing.assert_allclose(lengths, [2.0, 1.0], rtol=1e-5)
    assert (first.name, list(first.init(at.x))) == ("clip_global > momentum", ["1.v"])
    assert list(chain(first, ball).init(at.x)) == ["0.1.v", "1.v"]
    assert chain(ball) is ball


def test_noise_is_drawn_anew_for_each_step_place_client_and_round() -> None:
    noise, x = MODULES["gaussian_noise"](2.0), np.zeros(20_000)

    def drawn(module, key, step):
        return module.update(x, module.init(x), Point(x, step=step, key=key))[0]

    one = drawn(noise, KEY, 1)
    assert np.array_equal(one, drawn(noise, KEY, 1))
    assert abs(one.mean()) < 0.06 and abs(one.std() - 2) < 0.05
    others = [drawn(noise, KEY, 2), drawn(noise, KEY.child("other"), 1)]
    others.append(
        drawn(chain(noise, noise), KEY, 1) - drawn(chain(noise, MODULES["sgd"]()), KEY, 1)
    )
    for other in others:
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.05


@pytest.mark.torch
def test_clipping_by_tensor_on_a_device_is_that_of_numpy() -> None:
    torch = pytest.importorskip("torch")
    stack = np.stack(gradients())
    expected = clipped_by_tensor(stack, 0.6, STARTS)
    found = clipped_on_device(torch.tensor(stack), 0.6, STARTS)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-15)


def test_what_is_not_finite_stays_so_and_is_refused_later_by_name() -> None:
    for name in ("clip_global", "clip_tensor"):
        for bad in (math.nan, math.inf):
            u, _ = MODULES[name]().update(np.array([bad, 1.0]), {}, Point(X, starts=(0,)))
            assert not np.isfinite(u).all()


def test_clipping_does_not_overflow_in_float32_and_leaves_short_vectors_alone() -> None:
    at = Point(X, starts=(0, 2))
    for name in ("clip_global", "clip_tensor"):
        u, _ = MODULES[name](1.0).update(np.array([3e30, -4e30, 0, 0], np.float32), {}, at)
        np.testing.assert_allclose(u, [0.6, -0.8, 0, 0], rtol=1e-6)
        short = np.array([0.1, -0.7, 0.3, 0.2], np.float32)
        assert np.array_equal(MODULES[name](1.0).update(short, {}, at)[0], short)
