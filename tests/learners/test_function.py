import random

import numpy as np
import pytest
from projects import make_project, simulate

from hansa.errors import LearnerError
from hansa.learners import FunctionLearner, Hyper
from hansa.learners.function import as_metrics, count_examples
from hansa.metrics import Mean
from hansa.seeds import Key


def init(rng, sample):
    return {"w": rng.standard_normal(2).astype(np.float32), "n": np.array(3, np.int64)}


def learner(train, evaluate=None):
    return FunctionLearner(init, train, evaluate)


def run(train, data, start, hyper=None, **options):
    made = learner(train)
    seed = made.init(data, Key.root(1))
    work, x = start(made, seed, data, hyper, **options)
    return work, x, work.train(x)


def test_what_train_returns_is_what_is_sent(blobs, start):
    def train(params, data, ctx):
        params["w"] += 2.5
        params["n"] += 4
        return params, {"loss": 0.25}

    work, x, trained = run(train, blobs(8), start)
    np.testing.assert_allclose(trained, x + 2.5)
    assert work.buffers.tolist() == [7.0]
    assert work.metrics == {"loss": Mean(2.0, 8.0)}


def test_train_gets_copies_and_its_context(blobs, start):
    seen = []

    def train(params, data, ctx):
        params["w"][:] = 0
        seen.append((ctx.client, ctx.round, ctx.epochs, ctx.lr, ctx.options, ctx.batch_size))
        ctx.weight = 3.5
        return params

    hyper = Hyper(round=4, epochs=2, lr=0.3, batch_size=None, options={"mu": 1.0})
    work, x, _ = run(train, blobs(8), start, hyper)
    assert seen == [("client-0", 4, 2, 0.3, {"mu": 1.0}, None)]
    assert x.any()
    assert work.weight == 3.5


def test_global_generators_are_seeded_and_restored(blobs, start):
    draws = []

    def train(params, data, ctx):
        draws.append((random.random(), np.random.rand(), ctx.rng.random()))
        return params

    random.seed(1)
    np.random.seed(1)
    expected = random.Random(1).random(), np.random.RandomState(1).rand()
    for key in (5, 5, 6):
        run(train, blobs(8), start, key=key)
    assert draws[0] == draws[1] != draws[2]
    assert (random.random(), np.random.rand()) == expected


def test_evaluation_and_prediction_draw_the_same_every_time(blobs):
    def evaluate(params, data):
        return {"noise": random.random() + np.random.rand()}

    def predict(params, data):
        return np.random.rand(len(data.y)), data.y

    made = FunctionLearner(init, lambda p, d, c: p, evaluate, predict=predict)
    params = made.init(None, Key.root(1)).params
    random.seed(1)
    np.random.seed(1)
    assert made.evaluate(params, blobs(8)) == made.evaluate(params, blobs(8))
    (one,), (other,) = (list(made.predictions(params, blobs(8))) for _ in range(2))
    assert one.scores.tolist() == other.scores.tolist()
    predicted = made.predictions(params, blobs(8))
    next(predicted)
    assert np.random.rand() == np.random.RandomState(1).rand()  # also between two predictions
    assert random.random() == random.Random(1).random()


@pytest.mark.torch
def test_functions_that_draw_from_torch_are_seeded_as_well(blobs, start):
    torch = pytest.importorskip("torch")

    def train(params, data, ctx):
        return params | {"w": torch.rand(2).numpy()}

    torch.manual_seed(1)
    drawn = [run(train, blobs(8), start, key=key)[2].tolist() for key in (5, 5, 6)]
    assert drawn[0] == drawn[1] != drawn[2]
    outside = torch.Generator().manual_seed(1)
    assert torch.rand(1).tolist() == torch.rand(1, generator=outside).tolist()


@pytest.mark.parametrize(
    ("returned", "code", "said"),
    [
        (None, "learner-params", "NoneType"),
        ({"w": np.zeros(2, np.float32)}, "learner-params", "n as nothing"),
        ({"w": np.zeros(2), "n": np.array(3)}, "learner-params", "w as F64 [2]"),
        (
            {"w": np.zeros(2, np.float32), "n": np.array(3), "x": np.zeros(1)},
            "learner-params",
            "x as F64 [1]",
        ),
        (
            ({"w": np.zeros(2, np.float32), "n": np.array(3)}, {"loss": "low"}),
            "learner-metrics",
            "'low'",
        ),
        (({"w": np.zeros(2, np.float32), "n": np.array(3)}, 0.5), "learner-metrics", "float"),
    ],
)
def test_a_wrong_result_is_named(returned, code, said, blobs, start):
    with pytest.raises(LearnerError, match=code) as error:
        run(lambda params, data, ctx: returned, blobs(8), start)
    assert said in str(error.value)


@pytest.mark.parametrize("returned", [None, 3.0, "w"])
def test_a_seed_model_that_is_no_model_is_the_users_mistake(returned):
    with pytest.raises(LearnerError, match="learner-params") as error:
        FunctionLearner(lambda rng, sample: returned, None).init(None, Key.root(1))
    assert f"init returned {type(returned).__name__} instead" in str(error.value)


def test_tensors_may_come_back_in_another_order(blobs, start):
    def train(params, data, ctx):
        return {"n": params["n"], "w": params["w"] + np.float32(1)}

    _, x, trained = run(train, blobs(8), start)
    np.testing.assert_allclose(trained, x + 1)


def test_evaluation_is_weighted_by_examples(blobs):
    made = learner(lambda *_: None, lambda params, data: {"accuracy": 0.75})
    seed = made.init(blobs(8), Key.root(1))
    assert made.evaluate(seed.params, blobs(8)) == {"accuracy": Mean(6.0, 8.0)}
    assert learner(lambda *_: None).evaluate(seed.params, blobs(8)) == {}


def test_only_training_is_offered(blobs, start):
    made = learner(lambda params, data, ctx: params)
    work, x = start(made, made.init(blobs(8), Key.root(1)), blobs(8))
    assert made.capabilities == frozenset()
    for ask in (work.gradient, work.full_gradient):
        with pytest.raises(LearnerError, match="learner-capability"):
            ask(x)


def test_examples_are_counted_in_all_usual_kinds_of_data(blobs):
    x = np.zeros((5, 2))
    assert count_examples(blobs(7)) == 7
    assert count_examples((x, x[:, 0])) == count_examples({"a": x, "b": x}) == 5
    assert count_examples([1, 2, 3]) == 3
    with pytest.raises(LearnerError, match="learner-data"):
        count_examples(iter(x))


def test_statistics_of_batch_norm_are_buffers_and_not_trained():
    arrays = {"w": np.ones(2, np.float32), "bn.running_mean": np.zeros(2, np.float32)}
    seed = FunctionLearner(lambda rng, sample: arrays, lambda *_: None).init(None, Key.root(0))
    assert seed.layout.trained.names == ("w",)
    assert seed.layout.buffers.names == ("bn.running_mean",)


def test_a_metric_may_say_itself_what_it_counts_for():
    told = as_metrics({"loss": Mean(6.0, 4.0), "accuracy": 0.5}, 10, "train")
    assert told == {"loss": Mean(6.0, 4.0), "accuracy": Mean(5.0, 10.0)}


def test_close_is_called_once_a_run_is_over(tmp_path):
    folder = make_project(tmp_path / "steps", train="pass")
    with open(folder / "model.py", "a") as file:
        file.write("\ndef close():\n    (HERE / 'closed').write_text('yes')\n")
    simulate(folder)
    assert (folder / "closed").read_text() == "yes"
