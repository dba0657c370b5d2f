"""What never changes is in the model and in no update; who changes it all the same is told."""

from __future__ import annotations

import numpy as np
import pytest

from hansa.algorithms import Vectors, fed_avg
from hansa.client import Client
from hansa.errors import LearnerError
from hansa.learners import Hyper
from hansa.learners.function import FunctionLearner
from hansa.learners.learner import Seed
from hansa.params.model import ModelLayout
from hansa.plan import read_plan
from hansa.rounds import BUFFERS
from hansa.runs.start import Start, as_seed
from hansa.seeds import Key
from hansa.transforms import chain

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from hansa.learners.torch import TorchLearner  # noqa: E402

pytestmark = pytest.mark.torch
torch.set_num_threads(1)


class Head(nn.Module):
    """A frozen layer with BatchNorm, a mask that cannot be averaged, and a head that trains."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)).requires_grad_(False)
        self.head = nn.Linear(5, 3)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf, 0.0]))
        self.register_buffer("last", torch.tensor(2**63 - 1))

    def forward(self, x):
        return self.head(self.body(x))


def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def update_of(learner, seed, data):
    """Return what a client sends in a round."""
    plan = read_plan({"name": "frozen"}).plan
    client = Client(plan, fed_avg(), chain(), learner, seed.layout)
    x, averaged = seed.layout.split(seed.params)
    message = Vectors({"x": x, BUFFERS: averaged})
    update, _ = client.train(
        message, data, None, name="north", hyper=Hyper(lr=0.5), key=Key.root(3)
    )
    return update.vectors


def test_an_update_has_no_frozen_parameters_and_no_masks_and_the_model_has(blobs):
    learner = TorchLearner(Head, loss)
    seed = learner.init(None, Key.root(1))
    assert set(seed.layout.constants) == {
        "body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias", "mask", "last",
    }  # fmt: skip
    sent = update_of(learner, seed, blobs())
    assert {name: len(v) for name, v in sent.items()} == {"delta": 18, BUFFERS: 11}
    x, _ = seed.layout.split(seed.params)
    model = seed.layout.join(x + sent["delta"], sent[BUFFERS])
    assert model["last"] == 2**63 - 1
    assert model["mask"].tolist() == [0, -np.inf, 0]
    assert model["body.1.num_batches_tracked"] == 2
    assert (model["body.1.running_mean"] != seed.params["body.1.running_mean"]).all()
    assert (model["head.weight"] != seed.params["head.weight"]).all()


def test_a_model_is_measured_with_its_own_constants(blobs):
    learner = TorchLearner(Head, loss)
    seed = learner.init(None, Key.root(1))
    data = blobs()
    before = learner.evaluate(seed.params, data)["loss"].value
    other = seed.params.copy()
    other["body.0.weight"][...] = 0.0
    other["body.0.bias"][...] = 0.0
    changed = learner.evaluate(other, data)["loss"].value
    logits = other["head.bias"].astype(np.float64)
    shifts = np.log(np.exp(logits).sum()) - logits
    assert changed == pytest.approx(np.mean([shifts[y] for y in data.y]), rel=1e-5)
    assert learner.evaluate(seed.params, data)["loss"].value == before != changed


def nudged(model, batch):
    with torch.no_grad():
        model.body[0].weight.add_(0.25)
    return loss(model, batch)


def unmasked(model, batch):
    model.mask = torch.zeros(3)
    return loss(model, batch)


def unfrozen(model, batch):
    model.body.requires_grad_(True)
    return loss(model, batch)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (nudged, "has changed 'body.0.weight', which was frozen when"),
        (unmasked, "has changed 'mask', which held infinity"),
        (unfrozen, "has unfrozen 'body.0.weight'"),
    ],
)
def test_training_that_changes_what_never_changes_is_refused(blobs, function, words):
    learner = TorchLearner(Head, function)
    seed = learner.init(None, Key.root(1))
    for _ in range(2):  # the next client of this process is told the same
        with pytest.raises(LearnerError, match=words) as caught:
            update_of(learner, seed, blobs())
        assert caught.value.code == "learner-constant"


def test_a_model_that_freezes_other_layers_than_the_run_is_refused_by_name(blobs):
    seed = TorchLearner(Head, loss).init(None, Key.root(1))
    later = TorchLearner(lambda: Head().requires_grad_(True), loss)
    with pytest.raises(LearnerError, match="trains 'body"):
        update_of(later, seed, blobs())


def test_a_run_that_has_none_declared_goes_on_with_buffers(blobs):
    """As an earlier release began it: all that is not trained is averaged."""
    learner = TorchLearner(lambda: Head().body.append(nn.Linear(5, 3)), lambda m, b: loss(m, b))
    new = learner.init(None, Key.root(1))
    names = [*new.layout.buffers, *new.layout.constants]
    old = Seed(new.params, ModelLayout(new.params.layout, names))
    sent = update_of(learner, old, blobs())
    assert {name: len(v) for name, v in sent.items()} == {"delta": 18, BUFFERS: 11 + 35}
    assert (update_of(learner, new, blobs())["delta"] == sent["delta"]).all()


def test_a_new_run_from_a_model_trains_what_the_old_one_froze(blobs):
    old = TorchLearner(Head, loss).init(None, Key.root(1))
    new = TorchLearner(lambda: Head().requires_grad_(True), loss)
    seed = as_seed(Start(old.params, "old:3"), new.init(None, Key.root(2)))
    assert set(seed.layout.constants) == {"mask", "last"}
    assert len(update_of(new, seed, blobs())["delta"]) == 18 + 35


def test_buffers_of_a_plain_function_that_have_no_mean_stay_as_they_are(blobs):
    def init(rng, sample):
        return {"w": np.zeros(2), "big": np.array([2**62 + 1, -3]), "n": np.array([7])}

    def train(params, data, ctx):
        return {**params, "w": params["w"] + 1.5, "n": params["n"] + 1}

    seed = FunctionLearner(init, train).init(None, Key.root(1))
    sent = update_of(FunctionLearner(init, train), seed, blobs())
    assert (sent["delta"].tolist(), sent[BUFFERS].tolist()) == ([1.5, 1.5], [8.0])
    touching = FunctionLearner(init, lambda p, d, c: {**p, "big": p["big"] - 1})
    with pytest.raises(LearnerError, match="'big', which held infinity or numbers from 2"):
        update_of(touching, seed, blobs())


def test_a_buffer_that_begins_as_nan_is_refused_by_name():
    learner = FunctionLearner(
        lambda rng, sample: {"w": np.ones(1), "running_mean": np.array([1.0, np.nan])},
        lambda params, data, ctx: params,
    )
    with pytest.raises(LearnerError, match="'running_mean' holds NaN before any training"):
        learner.init(None, Key.root(1))
