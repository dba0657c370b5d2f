import numpy as np
import pytest

from hansa.learners import Perceptron
from hansa.seeds import Key


def random_params(model, sample, scale=0.4):
    rng = Key.root(8).generator()
    shapes = {name: t.shape for name, t in model.init(rng, sample).items()}
    return {name: rng.standard_normal(shape) * scale - 0.1 for name, shape in shapes.items()}


@pytest.mark.parametrize("hidden", [(), (5,), (6, 3)])
def test_gradient_agrees_with_finite_differences(hidden, blobs):
    data = blobs(17)
    model = Perceptron(hidden)
    params = random_params(model, data)  # float64, so that differences are exact enough
    _, gradient = model.loss(params, data.x, data.y)
    assert gradient.keys() == params.keys()
    h = 1e-6
    for name, tensor in params.items():
        numeric = np.zeros_like(tensor)
        for index in np.ndindex(tensor.shape):
            old = tensor[index]
            tensor[index] = old + h
            above = model.loss(params, data.x, data.y)[0]
            tensor[index] = old - h
            below = model.loss(params, data.x, data.y)[0]
            tensor[index] = old
            numeric[index] = (above - below) / (2 * h)
        np.testing.assert_allclose(gradient[name], numeric, atol=1e-7)


@pytest.mark.torch
@pytest.mark.parametrize("hidden", [(), (6, 3)])
def test_loss_and_gradient_agree_with_torch(hidden, blobs):
    torch = pytest.importorskip("torch")
    data = blobs(23)
    model = Perceptron(hidden)
    params = random_params(model, data)
    loss, gradient = model.loss(params, data.x, data.y)
    tensors = {n: torch.tensor(t, requires_grad=True) for n, t in params.items()}
    h = torch.from_numpy(data.x).double()
    for layer in range(len(hidden) + 1):
        h = (h.relu() if layer else h) @ tensors[f"layer{layer}.weight"]
        h = h + tensors[f"layer{layer}.bias"]
    expected = torch.nn.functional.cross_entropy(h, torch.from_numpy(data.y))
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    for name, tensor in tensors.items():
        np.testing.assert_allclose(gradient[name], tensor.grad.numpy(), atol=1e-6)


def test_a_run_starts_at_the_loss_of_guessing(blobs):
    data = blobs(20)
    model = Perceptron((8,))
    params = model.init(Key.root(0).generator(), data)
    assert model.loss(params, data.x, data.y)[0] == pytest.approx(np.log(3), rel=1e-6)
    assert {t.dtype for t in params.values()} == {np.dtype(np.float32)}
    assert params["layer0.weight"].std() == pytest.approx(np.sqrt(2 / 4), rel=0.4)


def test_metrics_are_values_by_example(blobs):
    data = blobs(11)
    model = Perceptron()
    params = random_params(model, data)
    values = model.metrics(params, data.x, data.y)
    logits = data.x @ params["layer0.weight"] + params["layer0.bias"]
    assert values["accuracy"].tolist() == (logits.argmax(1) == data.y).tolist()
    assert values["loss"].shape == (11,)
    assert values["loss"].mean() == pytest.approx(model.loss(params, data.x, data.y)[0], rel=1e-6)


def test_large_logits_do_not_overflow(blobs):
    data = blobs(5)
    model = Perceptron()
    params = {n: t * 1e4 for n, t in random_params(model, data).items()}
    loss, gradient = model.loss(params, data.x, data.y)
    assert np.isfinite(loss)
    assert all(np.isfinite(g).all() for g in gradient.values())


def test_images_are_flattened():
    class Sample:
        x = np.zeros((1, 3, 2), np.float32)
        classes = ("a", "b")

    shapes = [t.shape for t in Perceptron((4,)).init(Key.root(0).generator(), Sample).values()]
    assert shapes == [(6, 4), (4,), (4, 2), (2,)]
