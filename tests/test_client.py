"""The client half of a round: what comes in, what goes out, and what stays at the client."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hansa.algorithms import ALGORITHMS, Algorithm, Vectors, fed_avg, scaffold
from hansa.client import Client, Update
from hansa.errors import LearnerError
from hansa.learners import NumPyLearner
from hansa.learners.learner import ClientData, Hyper, Seed, Task
from hansa.metrics import Mean
from hansa.params import Params
from hansa.params.model import ModelLayout
from hansa.plan import Plan, read_plan
from hansa.rounds.questions import packed, unpacked
from hansa.seeds import Key
from hansa.transforms import Transform, cast, chain, clip

KEY = Key.root(5)
HYPER = Hyper(epochs=2, batch_size=2, lr=0.25)
MODEL = Params.of({"w": np.float32([1, -2, 4]), "stat": np.float32([0.5]), "n": np.int64(3)})
LAYOUT = ModelLayout(MODEL.layout, ["stat"])
X, BUFFERS = LAYOUT.split(MODEL)
DATA = np.float32([[1, 0, 0], [0, 2, 0], [0, 0, -3]])


class RecordingWork:
    """Halves the model and doubles the buffers; its own vectors are float64, the model's not."""

    weight: float | None = None
    metrics: Mapping[str, Mean] = {"loss": Mean(2.5, 5.0)}

    def __init__(self, task: Task, data: Any) -> None:
        self.task, self.data = task, data
        self.steps, self.lr = 6, task.hyper.lr
        self.buffers = task.buffers

    def train(self, x, correct=None):
        assert x.dtype == np.float64
        self.buffers = self.buffers * 2
        x = x / 2
        return x if correct is None else x - correct(x, 0 * x)

    def lift(self, vector):
        assert isinstance(vector, np.ndarray) and vector.dtype == np.float32
        return vector.astype(np.float64)

    def lower(self, vector):
        assert vector.dtype == np.float64
        return vector.astype(np.float32)


class RecordingLearner:
    capabilities: frozenset = frozenset()

    def __init__(self, weight: float | None = None) -> None:
        self.weight = weight
        self.works: list[RecordingWork] = []

    def init(self, sample, key) -> Seed:
        return Seed(MODEL, LAYOUT)

    def begin(self, task, data):
        work = RecordingWork(task, data)
        work.weight = self.weight
        self.works.append(work)
        return work

    def evaluate(self, params, data):
        return {}

    def examples(self, data) -> int:
        return len(data)


def taking_part(
    algorithm: Algorithm | None = None,
    *,
    plan: Plan | None = None,
    learner: Any = None,
    transform: Transform | None = None,
    message: Vectors | None = None,
    mine: Vectors | None = None,
    data: Any = DATA,
) -> tuple[Update, Vectors, Any]:
    learner = learner or RecordingLearner()
    client = Client(plan or Plan(), algorithm or fed_avg(), transform or chain(), learner, LAYOUT)
    message = message or Vectors(x=X, buffers=BUFFERS)
    update, after = client.train(message, data, mine, name="north", hyper=HYPER, key=KEY)
    return update, after, learner


def test_an_update_is_the_change_of_the_model_and_its_new_buffers() -> None:
    update, mine, learner = taking_part()
    assert list(update.vectors) == ["delta", "buffers"]
    np.testing.assert_array_equal(update.vectors["delta"], -X / 2)
    np.testing.assert_array_equal(update.vectors["buffers"], BUFFERS * 2)
    assert update.vectors["delta"].dtype == np.float32
    assert update.metrics == {"loss": Mean(2.5, 5.0)}
    assert (update.examples, mine) == (3, {})
    task = learner.works[0].task
    assert (task.client, task.hyper, task.layout, task.key) == ("north", HYPER, LAYOUT, KEY)
    np.testing.assert_array_equal(task.buffers, BUFFERS)
    assert learner.works[0].data is DATA


def test_a_model_without_buffers_sends_none() -> None:
    update, _, learner = taking_part(message=Vectors(x=X))
    assert list(update.vectors) == ["delta"]
    assert learner.works[0].task.buffers.size == 0


def test_the_algorithm_sees_the_learners_own_vectors_and_no_buffers() -> None:
    seen = []

    def half(work, message, mine, key):
        seen.append((dict(message), dict(mine), key))
        return Vectors(delta=message.x), Vectors(c=mine.c + 1)

    algorithm = fed_avg()._replace(client=half, client_init=lambda x: Vectors(c=0 * x))
    message = Vectors(x=X, extra=-X, buffers=BUFFERS)
    _, first, _ = taking_part(algorithm, message=message)
    _, second, _ = taking_part(algorithm, message=message, mine=first)
    assert [sorted(m) for m, _, _ in seen] == [["extra", "x"]] * 2
    assert {v.dtype for m, s, _ in seen for v in (*m.values(), *s.values())} == {
        np.dtype("float64")
    }
    np.testing.assert_array_equal(seen[0][1]["c"], [0, 0, 0])
    np.testing.assert_array_equal(seen[1][1]["c"], [1, 1, 1])
    assert (first.c.dtype, second.c.tolist()) == (np.float32, [2, 2, 2])
    assert seen[0][2] == seen[1][2] != KEY
    assert list(message) == ["x", "extra", "buffers"]  # the caller's message is whole


def test_state_stays_at_the_client_and_is_not_written_to() -> None:
    mine = Vectors(c=np.float32([1, 2, -3]))
    message = Vectors(x=X, c=np.float32([0.5, 0, 0]), buffers=BUFFERS)
    _, after, _ = taking_part(scaffold(), message=message, mine=mine)
    np.testing.assert_array_equal(mine.c, [1, 2, -3])
    # c_i+ = c_i - c + (x0 - xK) / (K lr), and this learner takes xK = x0/2 - (c - c_i)
    moved = X / 2 + (message.c - mine.c)
    np.testing.assert_allclose(after.c, mine.c - message.c + moved / (6 * 0.25), rtol=1e-6)


def test_a_transform_meets_the_update_before_it_leaves_but_not_the_buffers() -> None:
    update, _, _ = taking_part(transform=chain(clip(0.5), cast("fp16")))
    assert update.vectors["delta"].dtype == np.float16
    assert np.linalg.norm(update.vectors["delta"].astype(float)) == pytest.approx(0.5, rel=1e-3)
    np.testing.assert_array_equal(update.vectors["buffers"], BUFFERS * 2)


def test_a_transforms_key_is_its_own() -> None:
    seen = []

    def encode(vectors, key):
        seen.append(key)
        return vectors

    def half(work, message, mine, key):
        seen.append(key)
        return Vectors(delta=message.x), mine

    algorithm = fed_avg()._replace(client=half)
    transform = Transform("see", encode, lambda vectors: vectors)
    _, _, learner = taking_part(algorithm, transform=transform)
    seen.append(learner.works[0].task.key)
    assert len(set(seen)) == 3


@pytest.mark.parametrize(
    ("weighting", "weight"), [("examples", 3.0), ("steps", 6.0), ("uniform", 1.0), ("user", 0.25)]
)
def test_the_weight_is_what_the_plan_says(weighting: str, weight: float) -> None:
    plan = read_plan({"weighting": weighting}).plan
    update, _, _ = taking_part(plan=plan, learner=RecordingLearner(weight=0.25))
    assert update.weight == weight
    assert isinstance(update.weight, float)


def test_a_users_weight_that_was_never_set_is_an_error_of_the_code() -> None:
    plan = read_plan({"weighting": "user"}).plan
    with pytest.raises(LearnerError, match="set no weight") as caught:
        taking_part(plan=plan)
    assert caught.value.code == "learner-metrics"


def test_a_client_without_examples_says_so_and_does_not_train() -> None:
    learner = RecordingLearner()
    with pytest.raises(LearnerError, match="north has no training examples") as caught:
        taking_part(learner=learner, data=DATA[:0])
    assert caught.value.code == "learner-no-data"
    assert learner.works == []


class LinearModel:
    """A user's model in float32: mean squared error of x @ w."""

    def init(self, rng, sample):
        return {"w": np.zeros(3, np.float32)}

    def loss(self, params, x, y):
        residual = x @ params["w"] - y
        return float(residual @ residual), {"w": 2 * x.T @ residual}

    def metrics(self, params, x, y):
        return {"loss": (x @ params["w"] - y) ** 2}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_same_key_gives_the_same_bytes_and_writes_to_nothing(name: str) -> None:
    algorithm = ALGORITHMS[name]()
    learner = NumPyLearner(LinearModel())
    rows = SimpleNamespace(x=np.tile(DATA, (3, 1)), y=np.arange(9, dtype=np.float32))
    params = Params.of({"w": np.float32([0.1, -0.2, 0.3])})
    client = Client(Plan(), algorithm, chain(), learner, ModelLayout(params.layout))
    message = algorithm.broadcast(algorithm.init(params["w"].copy()))
    for vector in message.values():
        vector.flags.writeable = False

    def train(key: Key) -> bytes:
        update, mine = client.train(message, rows, None, name="n", hyper=HYPER, key=key)
        return b"".join(v.tobytes() for v in (*update.vectors.values(), *mine.values()))

    assert train(KEY.child(1)) == train(KEY.child(1))
    if name != "fed_sgd":  # full batches have no order
        assert train(KEY.child(1)) != train(KEY.child(2))


@pytest.mark.torch
def test_a_named_task_draws_from_every_generator_by_seed_client_and_round() -> None:
    torch = pytest.importorskip("torch")

    def draw(params, data, ctx):
        return {"drawn": np.array([np.random.rand(), torch.rand(1).item()])}, {}

    def drawn(name: str, number: int) -> list[float]:
        client = Client(
            Plan(), fed_avg(), chain(), RecordingLearner(), LAYOUT, tasks={"draw": draw}
        )
        question = packed(None, {})
        data = ClientData(DATA)
        found, _ = client.answer("draw", question, data, name=name, number=number, step=0)
        return unpacked(found).params["drawn"].tolist()

    one, same, other, later = (drawn(n, i) for n, i in (("a", 1), ("a", 1), ("b", 1), ("a", 2)))
    assert one == same
    assert all(len({a, b, c}) == 3 for a, b, c in zip(one, other, later, strict=True))
