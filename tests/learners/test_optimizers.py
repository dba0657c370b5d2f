"""Both tables of flat optimizers against torch.optim, and NumPy's against the formulas."""

import numpy as np
import pytest

from hansa.learners import numpy_optimizers, torch_optimizers
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
NUMPY_CASES = [c for c in CASES if c[0] in numpy_optimizers.OPTIMIZERS and "nesterov" not in c[1]]
NAMES = {
    "sgd": "SGD",
    "adam": "Adam",
    "adamw": "AdamW",
    "rmsprop": "RMSprop",
    "adagrad": "Adagrad",
}
LR, STEPS = 0.07, 6


def gradients():
    rng = Key.root(1).generator()
    return [rng.standard_normal(5) * np.array([3, -1, 0.1, 1e-4, 0]) - 0.2 for _ in range(STEPS)]


def torch_result(name, options):
    torch = pytest.importorskip("torch")
    x = torch.tensor([0.5, -2.0, 3.0, 0.0, 1.5], dtype=torch.float64, requires_grad=True)
    optimizer = getattr(torch.optim, NAMES[name])([x], lr=LR, **options)
    for g in gradients():
        x.grad = torch.from_numpy(g)
        optimizer.step()
    return x.detach().numpy()


@pytest.mark.torch
@pytest.mark.parametrize(("name", "ours", "theirs"), CASES)
def test_torch_optimizers_take_the_steps_of_torch_optim(name, ours, theirs):
    expected = torch_result(name, theirs)
    import torch

    x = torch.tensor([0.5, -2.0, 3.0, 0.0, 1.5], dtype=torch.float64)
    step = torch_optimizers.OPTIMIZERS[name](LR, **ours)
    for g in gradients():
        tensor = torch.from_numpy(g.copy())
        step(x, tensor)
        assert np.array_equal(tensor.numpy(), g), "the gradient was changed"
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-12)


@pytest.mark.torch
@pytest.mark.parametrize(("name", "ours", "theirs"), NUMPY_CASES)
def test_numpy_optimizers_take_the_steps_of_torch_optim(name, ours, theirs):
    x = np.array([0.5, -2.0, 3.0, 0.0, 1.5])
    step = numpy_optimizers.OPTIMIZERS[name](LR, **ours)
    for g in gradients():
        before = g.copy()
        step(x, g)
        assert np.array_equal(g, before), "the gradient was changed"
    np.testing.assert_allclose(x, torch_result(name, theirs), rtol=1e-10)


def test_momentum_by_hand():
    x = np.array([1.0, -1.0])
    step = numpy_optimizers.sgd(0.5, momentum=0.5)
    step(x, np.array([2.0, -4.0]))
    assert x.tolist() == [0.0, 1.0]
    step(x, np.array([-2.0, 0.0]))  # velocity: [-1, -2]
    assert x.tolist() == [0.5, 2.0]


def test_the_first_adam_step_has_the_length_of_the_learning_rate():
    x = np.array([1.0, -1.0, 5.0])
    numpy_optimizers.adam(0.25)(x, np.array([1e-3, -7.0, 100.0]))
    np.testing.assert_allclose(x, [0.75, -0.75, 4.75], rtol=1e-4)


def test_optimizers_share_no_state():
    a, b = np.zeros(1), np.zeros(1)
    first, second = (numpy_optimizers.sgd(1.0, momentum=0.9) for _ in range(2))
    first(a, np.ones(1))
    first(a, np.ones(1))
    second(b, np.ones(1))
    assert (a.item(), b.item()) == (-2.9, -1.0)
