"""The optimizers that a plan can name, against torch.optim and by hand, in NumPy and in torch."""

import numpy as np
import pytest

from hansa.learners.descent import Descent
from hansa.learners.learner import Hyper, Task
from hansa.optimizers.named import OPTIMIZERS
from hansa.seeds import Key

CASES = [
    ("sgd", {}, {}),
    ("sgd", {"weight_decay": 0.3}, {"weight_decay": 0.3}),
    ("sgd", {"momentum": 0.8}, {"momentum": 0.8}),
    ("sgd", {"momentum": 0.8, "weight_decay": 0.3}, {"momentum": 0.8, "weight_decay": 0.3}),
    ("sgd", {"momentum": 0.8, "nesterov": True}, {"momentum": 0.8, "nesterov": True}),
    ("adam", {}, {}),
    ("adam", {"beta1": 0.5, "eps": 1e-3}, {"betas": (0.5, 0.999), "eps": 1e-3}),
    ("adam", {"beta2": 0.7, "weight_decay": 0.3}, {"betas": (0.9, 0.7), "weight_decay": 0.3}),
    ("adamw", {}, {}),
    ("adamw", {"weight_decay": 0.3, "beta2": 0.9}, {"weight_decay": 0.3, "betas": (0.9, 0.9)}),
    ("rmsprop", {}, {}),
    (
        "rmsprop",
        {"momentum": 0.6, "weight_decay": 0.3, "eps": 1e-3},
        {"momentum": 0.6, "weight_decay": 0.3, "eps": 1e-3},
    ),
    ("adagrad", {}, {}),
    ("adagrad", {"eps": 1e-2, "weight_decay": 0.3}, {"eps": 1e-2, "weight_decay": 0.3}),
]
NAMES = {
    "sgd": "SGD",
    "adam": "Adam",
    "adamw": "AdamW",
    "rmsprop": "RMSprop",
    "adagrad": "Adagrad",
}
X = [0.5, -2.0, 3.0, 0.0, 1.5]
LR, STEPS = 0.07, 6


def gradients():
    rng = Key.root(1).generator()
    return [rng.standard_normal(5) * np.array([3, -1, 0.1, 1e-4, 0]) - 0.2 for _ in range(STEPS)]


def torch_result(name, options):
    torch = pytest.importorskip("torch")
    x = torch.tensor(X, dtype=torch.float64, requires_grad=True)
    optimizer = getattr(torch.optim, NAMES[name])([x], lr=LR, **options)
    for g in gradients():
        x.grad = torch.from_numpy(g)
        optimizer.step()
    return x.detach().numpy()


def descent(x, name, **options):
    hyper = Hyper(lr=LR, optimizer=name, options=options)
    return Descent(Task("client-0", None, np.empty(0), hyper, Key.root(5)), x)


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize(("name", "ours", "theirs"), CASES)
def test_named_optimizers_take_the_steps_of_torch_optim(name, ours, theirs, kind):
    expected = torch_result(name, theirs)
    import torch

    made = np.array if kind == "numpy" else torch.tensor
    x = made(X) if kind == "numpy" else made(X, dtype=torch.float64)
    steps = descent(x, name, **ours)
    for g in gradients():
        given = made(g)
        x = x - LR * steps.direction(x, given)
        assert np.array_equal(np.asarray(given), g), "the gradient was changed"
    np.testing.assert_allclose(np.asarray(x), expected, rtol=1e-12)


@pytest.mark.torch
def test_all_names_are_compared_with_torch_optim():
    assert {name for name, _, _ in CASES} == set(OPTIMIZERS) == set(NAMES)


def test_momentum_by_hand():
    x = np.array([1.0, -1.0])
    steps = descent(x, "sgd", momentum=0.5)
    assert steps.direction(x, np.array([2.0, -4.0])).tolist() == [2.0, -4.0]
    assert steps.direction(x, np.array([-2.0, 0.0])).tolist() == [-1.0, -2.0]


def test_the_first_adam_step_has_the_length_of_the_learning_rate():
    x = np.array([1.0, -1.0, 5.0])
    u = descent(x, "adam").direction(x, np.array([1e-3, -7.0, 100.0]))
    np.testing.assert_allclose(u, [1, -1, 1], rtol=1e-4)


def test_optimizers_share_no_state():
    x, g = np.zeros(1), np.ones(1)
    first, second = (descent(x, "sgd", momentum=0.9) for _ in range(2))
    first.direction(x, g)
    assert (first.direction(x, g).item(), second.direction(x, g).item()) == (1.9, 1.0)
