import random

import numpy as np
import pytest

from hansa.algorithms import Capability, fed_avg, scaffold
from hansa.data import Dataset
from hansa.errors import LearnerError
from hansa.learners import Hyper, NumPyLearner, Perceptron
from hansa.learners.batches import batches
from hansa.params import Params
from hansa.seeds import Key


class Quadratic:
    """Each example (mu, g) has the loss mu x^2 + g x."""

    def init(self, rng, sample):
        return {"x": np.zeros(1, np.float64)}

    def loss(self, params, x, y):
        w = params["x"][0]
        value = (x[:, 0] * w**2 + x[:, 1] * w).mean()
        return value, {"x": np.array([(2 * x[:, 0] * w + x[:, 1]).mean()])}

    def metrics(self, params, x, y):
        return {"loss": x[:, 0] * params["x"][0] ** 2 + x[:, 1] * params["x"][0]}


def quadratic_clients(mu, g):
    return [
        Dataset.of(np.array([[mu, g]]), np.zeros(1)),
        Dataset.of(np.array([[0.0, -g]]), np.zeros(1)),
    ]


@pytest.mark.parametrize(("mu", "g", "k"), [(1.0, 3.0, 5), (2.0, -8.0, 10)])
def test_fed_avg_drifts_to_its_closed_form_and_scaffold_to_the_optimum(mu, g, k, federate):
    lr = 0.1 / k
    hyper = Hyper(steps=k, lr=lr)
    a = (1 - 2 * mu * lr) ** k
    drift = (lr * g * k - (g / (2 * mu)) * (1 - a)) / (1 - a)
    parts = quadratic_clients(mu, g)
    x = federate(NumPyLearner(Quadratic()), fed_avg(), parts, hyper, rounds=200)
    assert x.item() == pytest.approx(drift, rel=1e-6)
    x = federate(NumPyLearner(Quadratic()), scaffold(), parts, hyper, rounds=200, x0=np.ones(1))
    assert x.item() == pytest.approx(0, abs=1e-6)


def test_training_is_the_hand_written_loop(blobs, start):
    data, hyper = blobs(25), Hyper(epochs=2, batch_size=8, lr=0.2)
    learner = NumPyLearner(Perceptron())
    seed = learner.init(data, Key.root(1))
    work, x = start(learner, seed, data, hyper)
    before = x.copy()
    trained = work.train(x)
    w, b = np.zeros((4, 3)), np.zeros(3)
    for rows in batches(25, hyper, Key.root(5).child("train")):
        scores = data.x[rows] @ w + b
        p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        p[np.arange(len(p)), data.y[rows]] -= 1
        w, b = w - 0.2 * data.x[rows].T @ p / len(p), b - 0.2 * p.mean(0)
    np.testing.assert_allclose(trained, np.concatenate([w.ravel(), b]), atol=1e-6)
    assert np.array_equal(x, before), "the message was changed"
    assert work.steps == 6  # 8, 8 and 9 examples, twice
    assert work.metrics["loss"].weight == 50


def test_correct_sees_the_point_and_replaces_the_gradient(blobs, start):
    data = blobs(10)
    learner = NumPyLearner(Perceptron())
    work, x = start(learner, learner.init(data, Key.root(1)), data, Hyper(steps=3, lr=0.5))
    points = []

    def correct(x, g):
        points.append(x.copy())
        return np.full_like(g, -2.0)

    trained = work.train(x, correct)
    np.testing.assert_allclose(trained, x + 3.0)
    np.testing.assert_allclose(points, [x, x + 1, x + 2])


def test_gradients_of_all_batches_average_to_the_full_gradient(blobs, start):
    data = blobs(24)
    learner = NumPyLearner(Perceptron((5,)))
    hyper = Hyper(batch_size=6)
    work, x = start(learner, learner.init(data, Key.root(1)), data, hyper)
    mean = np.mean([work.gradient(x) for _ in range(4)], axis=0)
    np.testing.assert_allclose(mean, work.full_gradient(x), atol=1e-6)
    assert not np.allclose(mean, work.gradient(x))


def test_evaluation_totals_are_those_of_all_examples(monkeypatch, blobs):
    monkeypatch.setattr("hansa.learners.numpy._EVALUATION_BATCH", 7)
    data = blobs(40)
    model = Perceptron()
    params = Params.of({n: t - 0.1 for n, t in model.init(Key.root(1).generator(), data).items()})
    totals = NumPyLearner(model).evaluate(params, data)
    values = model.metrics(params, data.x, data.y)
    assert totals["accuracy"] == (values["accuracy"].sum(), 40)
    assert totals["loss"].total == pytest.approx(float(values["loss"].sum()))


def test_plain_sgd_is_offered_only_when_it_is():
    assert Capability.PLAIN_SGD in NumPyLearner(Perceptron()).capabilities
    momentum = NumPyLearner(Perceptron(), plain_sgd=False).capabilities
    assert momentum == {Capability.CORRECT, Capability.GRADIENT, Capability.CHAIN}


class Dropping(Perceptron):
    """Drops inputs by NumPy's global generator, and measures with noise of Python's."""

    measures = None

    def init(self, rng, sample):
        tensors = super().init(rng, sample)
        return tensors | {"layer0.bias": np.random.normal(size=3).astype(np.float32)}

    def loss(self, params, x, y):
        return super().loss(params, x * (np.random.random(x.shape) > 0.3), y)

    def metrics(self, params, x, y):
        return {"noise": np.array([random.random() for _ in y])}

    def predict(self, params, x):
        return super().predict(params, x) + np.random.random((len(x), 3))


def test_what_a_model_drops_follows_from_the_key_alone(blobs, start):
    """Oracle: the loop by hand, with a generator that is seeded from the documented key."""
    data, hyper, learner = (
        blobs(20),
        Hyper(epochs=1, batch_size=8, lr=0.2),
        NumPyLearner(Dropping()),
    )
    seed = learner.init(data, Key.root(1))
    assert seed.params == learner.init(data, Key.root(1)).params
    assert seed.params != learner.init(data, Key.root(2)).params
    work, x = start(learner, seed, data, hyper)
    key = Key.root(5).child("train")
    drawn = np.random.RandomState(key.integer(32))
    w, b = np.zeros((4, 3)), seed.params["layer0.bias"].astype(np.float64)
    for rows in batches(20, hyper, key):
        kept = data.x[rows] * (drawn.random_sample((len(rows), 4)) > 0.3)
        p = np.exp(kept @ w + b) / np.exp(kept @ w + b).sum(1, keepdims=True)
        p[np.arange(len(p)), data.y[rows]] -= 1
        w, b = w - 0.2 * kept.T @ p / len(p), b - 0.2 * p.mean(0)
    for _ in range(2):
        np.random.random()  # what happens outside changes nothing
        found = seed.layout.join(work.train(x), work.buffers)
        np.testing.assert_allclose(found["layer0.weight"], w, atol=1e-5)
        np.testing.assert_allclose(found["layer0.bias"], b, atol=1e-5)


def test_each_gradient_draws_anew_and_alike_in_every_process(blobs, start):
    data, learner = blobs(8), NumPyLearner(Dropping())
    seed = learner.init(data, Key.root(1))
    outside = random.Random(1).random(), np.random.RandomState(1).random_sample()
    random.seed(1)
    np.random.seed(1)
    told = []
    for key in (5, 5, 6):
        work, x = start(learner, seed, data, Hyper(batch_size=None), key=key)
        told.append([work.gradient(x), work.gradient(x), work.full_gradient(x)])
    for one, same, other in zip(*told, strict=True):
        assert one.tolist() == same.tolist() != other.tolist()
    first, second, whole = (g.tolist() for g in told[0])
    assert first != second != whole != first
    assert (random.random(), np.random.random()) == outside


def test_a_model_is_measured_with_the_same_draws_every_time(monkeypatch, blobs):
    monkeypatch.setattr("hansa.learners.numpy._EVALUATION_BATCH", 7)
    data, learner = blobs(20), NumPyLearner(Dropping())
    params = learner.init(data, Key.root(1)).params
    assert learner.evaluate(params, data) == learner.evaluate(params, data)
    one, other = (list(learner.predictions(params, data)) for _ in range(2))
    assert [p.scores.tolist() for p in one] == [p.scores.tolist() for p in other]
    plain = Perceptron().predict(params, data.x)
    noise = np.concatenate([p.scores for p in one]) - plain
    assert len(np.unique(noise.round(4))) > 50  # no batch repeats what another drew


class Broken(Quadratic):
    def __init__(self, gradient):
        self.gradient = gradient

    def loss(self, params, x, y):
        return 0.0, self.gradient


@pytest.mark.parametrize(
    ("gradient", "said"),
    [({}, "no gradient for x"), ({"x": np.zeros(2)}, "has shape (2,); the tensor has (1,)")],
)
def test_a_gradient_that_does_not_fit_is_refused_by_name(gradient, said, start):
    data = quadratic_clients(1, 1)[0]
    learner = NumPyLearner(Broken(gradient))
    work, x = start(learner, learner.init(data, Key.root(1)), data)
    with pytest.raises(LearnerError, match="learner-gradient") as error:
        work.train(x)
    assert said in str(error.value)


def test_the_seed_model_depends_on_the_key_alone(blobs):
    learner = NumPyLearner(Perceptron((5,)))
    one, same, other = (learner.init(blobs(9), Key.root(seed)).params for seed in (1, 1, 2))
    assert one == same
    assert one != other
