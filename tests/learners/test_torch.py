import numpy as np
import pytest

from hansa.algorithms import Capability, fed_avg, fed_avg_m, fed_prox, fed_sgd, scaffold
from hansa.data import Dataset
from hansa.errors import LearnerError
from hansa.learners import Hyper, NumPyLearner, Perceptron
from hansa.learners.batches import batches
from hansa.optimizers import chain, clip_tensor, cosine, gaussian_noise, yogi
from hansa.optimizers import fed_prox as fed_prox_pull
from hansa.seeds import Key

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from hansa.learners.torch import TorchLearner, choose_device, state_dict  # noqa: E402
from hansa.learners.torch_work import parts  # noqa: E402

pytestmark = pytest.mark.torch
torch.set_num_threads(1)


def cross_entropy(model, batch):
    x, y = batch
    return F.cross_entropy(model(x), y)


def mlp():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def batch_norm():
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))


def dropout():
    return nn.Sequential(nn.Linear(4, 32), nn.Dropout(0.5), nn.Linear(32, 3))


class Softmax(nn.Module):
    """The same tensors, names and shapes as `Perceptron()`."""

    def __init__(self):
        super().__init__()
        self.layer0 = nn.Module()
        self.layer0.weight = nn.Parameter(torch.zeros(4, 3))
        self.layer0.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return x @ self.layer0.weight + self.layer0.bias


class Quadratic(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, dtype=torch.float64))


def quadratic(model, batch):
    """Each example (mu, g) has the loss mu w^2 + g w."""
    x, _ = batch
    return (x[:, 0] * model.w**2 + x[:, 1] * model.w).mean()


def bits(array):
    return np.asarray(array).tobytes()


@pytest.mark.parametrize(("mu", "g", "k"), [(1.0, 3.0, 5), (2.0, -8.0, 10)])
def test_fed_avg_drifts_to_its_closed_form_and_scaffold_to_the_optimum(mu, g, k, federate):
    lr = 0.1 / k
    a = (1 - 2 * mu * lr) ** k
    drift = (lr * g * k - (g / (2 * mu)) * (1 - a)) / (1 - a)
    parts = [
        Dataset.of(np.array([[mu, g]]), np.zeros(1)),
        Dataset.of(np.array([[0.0, -g]]), np.zeros(1)),
    ]
    learner, hyper = TorchLearner(Quadratic, quadratic), Hyper(steps=k, lr=lr)
    x = federate(learner, fed_avg(), parts, hyper, rounds=150)
    assert x.item() == pytest.approx(drift, rel=1e-6)
    x = federate(learner, scaffold(), parts, hyper, rounds=150, x0=np.ones(1))
    assert x.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "hyper",
    [
        Hyper(epochs=2, batch_size=8, lr=0.3),
        Hyper(epochs=1, batch_size=8, lr=0.1, options={"momentum": 0.9}),
        Hyper(epochs=1, batch_size=8, lr=0.01, optimizer="adam"),
        Hyper(steps=3, batch_size=None, lr=0.3),
        Hyper(
            epochs=2,
            batch_size=8,
            lr=0.05,
            chain=chain(
                fed_prox_pull(mu=0.3), clip_tensor(0.2), gaussian_noise(0.01), yogi(), cosine(8)
            ),
        ),
    ],
)
@pytest.mark.parametrize("algorithm", [fed_avg(), fed_sgd(), fed_prox(mu=0.5), fed_avg_m()])
def test_the_torch_learner_is_the_numpy_learner(hyper, algorithm, federate, blobs):
    parts = [blobs(30, seed=1), blobs(18, seed=2), blobs(10, seed=3)]
    learners = NumPyLearner(Perceptron()), TorchLearner(Softmax, cross_entropy)
    ours, theirs = (federate(ln, algorithm, parts, hyper, rounds=4) for ln in learners)
    assert ours.dtype == theirs.dtype == np.float32
    assert abs(ours).max() > 0.01
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_scaffold_agrees_with_the_numpy_learner(federate, blobs):
    parts = [blobs(30, seed=1), blobs(17, seed=2)]
    learners = NumPyLearner(Perceptron()), TorchLearner(Softmax, cross_entropy)
    ours, theirs = (
        federate(ln, scaffold(), parts, Hyper(batch_size=8), rounds=4) for ln in learners
    )
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


@pytest.mark.parametrize("make", [mlp, batch_norm])
def test_training_is_the_hand_written_loop(make, blobs, start):
    data, hyper = blobs(29), Hyper(epochs=3, batch_size=8, lr=0.1, options={"momentum": 0.8})
    learner = TorchLearner(make, cross_entropy)
    seed = learner.init(data, Key.root(1))
    work, x = start(learner, seed, data, hyper)
    trained = work.train(x)

    net = make()
    net.load_state_dict(state_dict(seed.params))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.8)
    total = 0.0
    for rows in batches(29, hyper, Key.root(5).child("train")):
        inputs, labels = torch.from_numpy(data.x[rows]), torch.from_numpy(data.y[rows])
        optimizer.zero_grad()
        loss = F.cross_entropy(net(inputs), labels)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(rows)

    expected = net.state_dict()
    result = seed.layout.join(work.lower(trained), work.buffers)
    assert list(result) == list(expected)
    for name, tensor in expected.items():
        np.testing.assert_allclose(result[name], tensor.numpy(), atol=1e-6, err_msg=name)
    assert work.metrics["loss"].total == pytest.approx(total, rel=1e-5)
    assert work.metrics["loss"].weight == 3 * 29


def test_batch_norm_statistics_are_buffers_and_used_in_evaluation(blobs, start):
    data = blobs(40)
    learner = TorchLearner(batch_norm, cross_entropy)
    seed = learner.init(data, Key.root(1))
    names = ("1.running_mean", "1.running_var", "1.num_batches_tracked")
    assert seed.layout.buffers.names == names
    work, x = start(learner, seed, data, Hyper(batch_size=10))
    trained = work.lower(work.train(x))
    model = seed.layout.join(trained, work.buffers)
    assert model["1.num_batches_tracked"] == 4
    net = batch_norm().eval()
    net.load_state_dict(state_dict(model))
    with torch.no_grad():
        loss = cross_entropy(net, (torch.from_numpy(data.x), torch.from_numpy(data.y)))
    assert learner.evaluate(model, data)["loss"].value == pytest.approx(loss.item(), rel=1e-6)


def test_scaffold_correction_by_hand(start):
    rng = Key.root(2).generator()
    data = Dataset.of(rng.standard_normal((6, 2)), rng.standard_normal(6))
    learner = TorchLearner(
        lambda: nn.Linear(2, 1, bias=False).double(),
        lambda m, b: ((m(b[0])[:, 0] - b[1]) ** 2).mean(),
    )
    work, x = start(
        learner, learner.init(data, Key.root(1)), data, Hyper(steps=4, batch_size=None, lr=0.05)
    )
    c, ci = torch.tensor([0.7, -1.1]).double(), torch.tensor([-0.2, 0.4]).double()
    trained = work.train(x, lambda x, g: g + c - ci)
    w = x.numpy().copy()
    for _ in range(4):
        g = 2 * data.x.T @ (data.x @ w - data.y) / 6
        w -= 0.05 * (g + c.numpy() - ci.numpy())
    np.testing.assert_allclose(trained.numpy(), w, rtol=1e-12)


def test_nothing_of_a_client_reaches_the_next(blobs, start):
    class Leaky(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(*batch_norm(), nn.Dropout(0.2))
            self.register_buffer("memory", torch.zeros(3), persistent=False)

        def forward(self, x):
            out = self.body(x)
            self.memory = self.memory + out.detach().mean(0)
            return out + self.memory

    hyper = Hyper(batch_size=8, lr=0.05, optimizer="adam")
    mine, others = blobs(20, seed=1), blobs(30, seed=2)
    results = []
    for before in ([], [others], [others, mine]):
        learner = TorchLearner(Leaky, cross_entropy)
        seed = learner.init(mine, Key.root(1))
        for data in before:
            work, x = start(learner, seed, data, hyper, key=77)
            work.train(x)
            work.full_gradient(x)
            learner.evaluate(seed.params, data)
        work, x = start(learner, seed, mine, hyper)
        results.append((bits(work.train(x)), bits(work.buffers), bits(work.full_gradient(x))))
    assert results[0] == results[1] == results[2]


def test_two_clients_may_take_turns_on_one_learner(blobs, start):
    learner = TorchLearner(batch_norm, cross_entropy)
    seed = learner.init(blobs(), Key.root(1))
    work, x = start(learner, seed, blobs(20), Hyper(batch_size=8))
    other, _ = start(learner, seed, blobs(30, seed=9), Hyper(batch_size=8), key=6)
    alone = bits(work.train(x)), bits(work.buffers)
    work, x = start(learner, seed, blobs(20), Hyper(batch_size=8))
    other.train(x)
    assert (bits(work.train(x)), bits(work.buffers)) == alone


def test_dropout_depends_on_the_key_alone_and_leaves_the_users_generators(blobs, start):
    learner = TorchLearner(dropout, cross_entropy)
    seed = learner.init(blobs(), Key.root(1))
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    results = []
    for key in (5, 5, 6):
        work, x = start(learner, seed, blobs(), Hyper(batch_size=None), key=key)
        results.append((bits(work.train(x)), bits(work.gradient(x)), bits(work.gradient(x))))
        learner.evaluate(seed.params, blobs())
    assert results[0] == results[1]
    assert results[0][0] != results[2][0]
    assert results[0][1] != results[0][2], "both gradients used one mask"
    assert torch.equal(torch.rand(3), expected)


def test_the_seed_model_depends_on_the_key_alone():
    learner = TorchLearner(mlp, cross_entropy)
    one, same, other = (learner.init(None, Key.root(seed)).params for seed in (1, 1, 2))
    assert one == same
    assert one != other


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_trains_on_a_float32_vector(dtype, blobs, start):
    def make():
        return Softmax().to(dtype)

    data, hyper = blobs(20), Hyper(epochs=2, batch_size=8, lr=0.01)
    learner = TorchLearner(make, cross_entropy)
    seed = learner.init(data, Key.root(1))
    assert set(seed.params.layout.dtypes) == {"BF16" if dtype is torch.bfloat16 else "F16"}
    work, x = start(learner, seed, data, hyper)
    assert x.dtype is torch.float32
    trained = work.train(x + torch.linspace(-1, 0.7, 15))

    net, master = make(), torch.linspace(-1, 0.7, 15)
    for rows in batches(20, hyper, Key.root(5).child("train")):
        weight, bias = master[:12].view(4, 3), master[12:]
        net.load_state_dict({"layer0.weight": weight, "layer0.bias": bias})
        net.zero_grad()
        inputs = torch.from_numpy(data.x[rows]).to(dtype)
        F.cross_entropy(net(inputs), torch.from_numpy(data.y[rows])).backward()
        gradients = [p.grad.float().flatten() for p in net.parameters()]
        master -= 0.01 * torch.cat(gradients)
    np.testing.assert_allclose(trained, master, rtol=1e-6)


def test_mixed_precision_keeps_each_tensors_dtype(blobs, start):
    def make():
        net = mlp()
        net[0].to(torch.float64)
        net[2].to(torch.bfloat16)
        return net

    def loss(model, batch):
        x, y = batch
        return F.cross_entropy(model[2](model[1](model[0](x)).bfloat16()), y)

    learner = TorchLearner(make, loss)
    seed = learner.init(None, Key.root(1))
    assert [s.dtype for s in seed.params.layout.specs] == ["F64", "F64", "BF16", "BF16"]
    work, x = start(learner, seed, blobs())
    trained = work.train(x)
    assert x.dtype is torch.float64
    assert (trained != x).all()
    assert bits(seed.layout.join(work.lower(x), work.buffers).body) == bits(seed.params.body)


@pytest.mark.parametrize("own", [False, True])
def test_optimizers_of_the_user_are_called_afresh_with_the_corrected_gradient(own, blobs, start):
    made = []

    def optimizer(model, hyper):
        made.append(hyper.lr)
        groups = [{"params": [p]} for p in model.parameters()]
        return torch.optim.SGD(groups, lr=hyper.lr, momentum=0.5)

    hyper = Hyper(batch_size=8, lr=0.2, options={} if own else {"momentum": 0.5})
    learner = TorchLearner(mlp, cross_entropy, optimizer=optimizer if own else None)
    seed = learner.init(None, Key.root(1))
    results = []
    for _ in range(2):
        work, x = start(learner, seed, blobs(), hyper)
        results.append(work.train(x, lambda x, g: g + 0.1 * x))
    assert made == ([0.2, 0.2] if own else [])
    assert torch.equal(*results)
    plain = TorchLearner(mlp, cross_entropy)
    work, x = start(plain, seed, blobs(), hyper._replace(options={"momentum": 0.5}))
    torch.testing.assert_close(results[0], work.train(x, lambda x, g: g + 0.1 * x))


def test_an_optimizer_of_the_user_moves_half_precision_tensors(blobs, start):
    learner = TorchLearner(
        lambda: Softmax().bfloat16(),
        cross_entropy,
        optimizer=lambda m, h: torch.optim.SGD(m.parameters(), lr=h.lr),
    )
    seed = learner.init(None, Key.root(1))
    work, x = start(learner, seed, blobs(), Hyper(steps=1, batch_size=None, lr=0.5))
    g = work.full_gradient(x)
    trained = work.train(x, lambda x, g: 2 * g)
    torch.testing.assert_close(trained, (-0.5 * 2 * g).bfloat16().float())


def test_capabilities_follow_the_optimizer():
    every = {*Capability}
    assert TorchLearner(mlp, cross_entropy).capabilities == every
    assert TorchLearner(mlp, cross_entropy, plain_sgd=False).capabilities == every - {
        Capability.PLAIN_SGD
    }
    own = TorchLearner(mlp, cross_entropy, optimizer=torch.optim.SGD)
    assert own.capabilities == every - {Capability.PLAIN_SGD, Capability.CHAIN}


def test_full_gradient_is_that_of_the_mean_over_many_batches(monkeypatch, blobs, start):
    monkeypatch.setattr("hansa.learners.torch_work.UNTRAINED_BATCH", 16)
    data = blobs(43)
    learner = TorchLearner(mlp, cross_entropy)
    seed = learner.init(data, Key.root(1))
    work, x = start(learner, seed, data)
    net = mlp()
    net.load_state_dict(state_dict(seed.params))
    cross_entropy(net, (torch.from_numpy(data.x), torch.from_numpy(data.y))).backward()
    expected = torch.cat([p.grad.flatten() for p in net.parameters()])
    torch.testing.assert_close(work.full_gradient(x), expected)
    by_batch = [work.gradient(x) * n / 43 for n in (32, 11)]
    torch.testing.assert_close(sum(by_batch), expected)


@pytest.mark.parametrize("examples", [17, 33, 49])
def test_batch_norm_has_a_full_gradient_whatever_the_number_of_examples(
    monkeypatch, blobs, start, examples: int
) -> None:
    monkeypatch.setattr("hansa.learners.torch_work.UNTRAINED_BATCH", 16)
    learner = TorchLearner(batch_norm, cross_entropy)
    data = blobs(examples)
    work, x = start(learner, learner.init(data, Key.root(1)), data)
    assert bool(work.full_gradient(x).isfinite().all())


@pytest.mark.parametrize("examples", [0, 1, 2, 15, 16, 17, 31, 33, 48, 49, 250])
def test_parts_hold_every_example_once_and_none_is_left_alone(monkeypatch, examples: int) -> None:
    monkeypatch.setattr("hansa.learners.torch_work.UNTRAINED_BATCH", 16)
    cut = [range(examples)[rows] for rows in parts(examples)]
    assert [i for part in cut for i in part] == list(range(examples))
    assert all(len(part) <= 16 for part in cut)
    assert examples == 1 or all(len(part) > 1 for part in cut)


def test_evaluation_totals_are_those_of_all_examples(monkeypatch, blobs):
    monkeypatch.setattr("hansa.learners.torch_work.UNTRAINED_BATCH", 16)
    data = blobs(43)

    def metrics(model, batch):
        x, y = batch
        logits = model(x)
        assert not model.training
        assert not logits.requires_grad
        per_example = F.cross_entropy(logits, y, reduction="none")
        return {
            "by_example": per_example,
            "mean": per_example.mean(),
            "number": per_example.mean().item(),
            "hit": logits.argmax(1) == y,
        }

    learner = TorchLearner(dropout, cross_entropy, metrics=metrics)
    seed = learner.init(data, Key.root(1))
    totals = learner.evaluate(seed.params, data)
    net = dropout().eval()
    net.load_state_dict(state_dict(seed.params))
    logits = net(torch.from_numpy(data.x))
    loss = F.cross_entropy(logits, torch.from_numpy(data.y)).item()
    assert {m.weight for m in totals.values()} == {43.0}
    for name in ("by_example", "mean", "number"):
        assert totals[name].value == pytest.approx(loss, rel=1e-6)
    assert totals["hit"].total == (logits.argmax(1).numpy() == data.y).sum()
    without = TorchLearner(dropout, cross_entropy).evaluate(seed.params, data)
    assert without["loss"].value == pytest.approx(loss, rel=1e-6)


def test_a_loss_that_is_nan_is_reported_as_such(blobs, start):
    def loss(model, batch):
        return cross_entropy(model, batch) * float("nan")

    learner = TorchLearner(mlp, loss)
    seed = learner.init(None, Key.root(1))
    work, x = start(learner, seed, blobs())
    assert work.train(x).isnan().all()
    assert np.isnan(work.metrics["loss"].total)
    assert np.isnan(learner.evaluate(seed.params, blobs())["loss"].total)


@pytest.mark.parametrize(
    ("loss", "code"),
    [
        (lambda m, b: 1.0, "learner-loss"),
        (lambda m, b: F.cross_entropy(m(b[0]), b[1], reduction="none"), "learner-loss"),
        (lambda m, b: cross_entropy(m, b).detach(), "learner-loss"),
        (lambda m, b: (m.zero_grad(), cross_entropy(m, b))[1], "learner-gradient"),
    ],
)
def test_a_loss_that_cannot_be_minimised_is_refused(loss, code, blobs, start):
    learner = TorchLearner(mlp, loss)
    work, x = start(learner, learner.init(None, Key.root(1)), blobs())
    with pytest.raises(LearnerError, match=code):
        work.train(x)


@pytest.mark.parametrize("returned", [0.5, {"accuracy": "high"}])
def test_metrics_that_are_none_are_refused(returned, blobs):
    learner = TorchLearner(mlp, cross_entropy, metrics=lambda m, b: returned)
    with pytest.raises(LearnerError, match="learner-metrics"):
        learner.evaluate(learner.init(None, Key.root(1)).params, blobs())


def test_a_model_that_changes_its_shape_is_refused(blobs, start):
    sizes = iter([4, 5])
    learner = TorchLearner(lambda: nn.Linear(next(sizes), 3), cross_entropy)
    with pytest.raises(LearnerError, match="learner-params"):
        start(learner, learner.init(None, Key.root(1)), blobs())


def test_vectors_are_lifted_without_a_copy_unless_they_are_read_only(blobs, start):
    learner = TorchLearner(mlp, cross_entropy)
    work, x = start(learner, learner.init(None, Key.root(1)), blobs())
    array = np.arange(3.0, dtype=np.float32)
    assert work.lift(array).data_ptr() == array.ctypes.data
    assert np.shares_memory(work.lower(work.lift(array)), array)
    array.flags.writeable = False
    work.lift(array)[0] = 7
    assert array[0] == 0
    before = x.clone()
    trained = work.train(x)
    again = trained.clone()
    work.train(x + 1)
    assert torch.equal(x, before), "the message was changed"
    assert torch.equal(trained, again), "a result was overwritten"


def test_the_device_is_named_by_the_environment(monkeypatch):
    monkeypatch.setenv("HANSA_DEVICE", "meta")
    assert choose_device().type == "meta"
    monkeypatch.delenv("HANSA_DEVICE")
    assert choose_device().type in ("cpu", "cuda", "mps")
    for name in ("abacus", "cuda:99"):
        monkeypatch.setenv("HANSA_DEVICE", name)
        with pytest.raises(LearnerError, match="learner-device") as error:
            choose_device()
        assert name in str(error.value)


def test_before_training_there_is_nothing_to_report(blobs, start):
    learner = TorchLearner(mlp, cross_entropy)
    work, _ = start(learner, learner.init(None, Key.root(1)), blobs(20), Hyper(batch_size=8))
    assert (work.weight, work.steps, work.lr, work.metrics) == (None, 3, 0.1, {})
