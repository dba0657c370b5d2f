import numpy as np
import pytest

from hansa.errors import LearnerError
from hansa.learners import Hyper
from hansa.seeds import Key

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from hansa.learners.torch import TorchLearner, state_dict  # noqa: E402
from hansa.learners.torch_arrays import to_array, to_tensor  # noqa: E402
from hansa.learners.torch_module import FlatModule  # noqa: E402

pytestmark = pytest.mark.torch
torch.set_num_threads(1)
CPU = torch.device("cpu")


def flat(module):
    return FlatModule(module, CPU)


class Tied(nn.Module):
    """An embedding whose weight is also that of the output layer, between two other layers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.encode = nn.Embedding(5, 2)
        self.middle = nn.Linear(2, 2)
        self.decode = nn.Linear(2, 5, bias=False)
        self.decode.weight = self.encode.weight

    def forward(self, tokens):
        return self.decode(self.middle(self.first(self.encode(tokens)).tanh()))


def next_token(model, batch):
    tokens, targets = batch
    return nn.functional.cross_entropy(model(tokens), targets)


def test_a_model_survives_the_round_trip_bit_for_bit():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(3, 1).bfloat16())
    net[1].num_batches_tracked.fill_(2**53 - 1)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    params = flat(net).params()
    assert list(params) == list(before)
    for name, tensor in state_dict(params).items():
        assert tensor.dtype is before[name].dtype
        assert torch.equal(tensor, before[name]), name


def test_parameters_and_gradients_are_views_of_one_vector():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    module = flat(net)
    module.x.copy_(torch.arange(13.0))
    assert net[1].weight.tolist() == [[9, 10, 11]]
    module.backward((net[1].bias * 3).sum())
    assert module.g.tolist() == [0.0] * 12 + [3.0]
    module.backward((net[0].bias * 2).sum())
    assert module.g.tolist() == [0.0] * 6 + [2.0] * 3 + [0.0] * 4
    net[0].bias.grad.fill_(-1)
    assert module.g[6:9].tolist() == [-1, -1, -1]


def test_tied_weights_train_once_and_are_saved_under_both_names(start):
    rng = Key.root(3).generator()
    data = rng.integers(0, 5, 40), rng.integers(0, 5, 40)
    learner = TorchLearner(Tied, next_token)
    seed = learner.init(None, Key.root(1))
    assert {"encode.weight", "decode.weight"} <= set(seed.params)
    hyper = Hyper(epochs=3, batch_size=None, lr=0.5, options={"momentum": 0.5})
    work, x = start(learner, seed, data, hyper)
    trained = seed.layout.join(work.lower(work.train(x)), work.buffers)

    net = Tied()
    net.load_state_dict(state_dict(seed.params))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.5)
    batch = tuple(map(torch.from_numpy, data))
    for _ in range(3):
        optimizer.zero_grad()
        next_token(net, batch).backward()
        optimizer.step()
    for name, tensor in net.state_dict().items():
        np.testing.assert_allclose(trained[name], tensor.numpy(), atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(trained["encode.weight"], trained["decode.weight"])
    gradient = seed.layout.join(work.lower(work.full_gradient(x)), work.buffers)
    np.testing.assert_array_equal(gradient["encode.weight"], gradient["decode.weight"])
    assert gradient["encode.weight"].any()


def test_tied_weights_stay_tied_with_an_optimizer_of_the_user(start):
    data = np.arange(5), np.arange(5)[::-1].copy()
    own = TorchLearner(
        Tied, next_token, optimizer=lambda m, h: torch.optim.SGD(m.parameters(), lr=h.lr)
    )
    seed = own.init(None, Key.root(1))
    results = []
    for learner in (own, TorchLearner(Tied, next_token)):
        work, x = start(learner, seed, data)
        results.append(work.train(x))
    torch.testing.assert_close(*results)


def test_frozen_parameters_do_not_move_and_are_not_trained(blobs, start):
    def make():
        net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
        net[0].weight.requires_grad_(False)
        return net

    learner = TorchLearner(make, lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1]))
    seed = learner.init(None, Key.root(1))
    assert seed.layout.constants.names == ("0.weight",)
    assert seed.layout.buffers.names == ()
    work, x = start(learner, seed, blobs(), Hyper(lr=0.5, options={"weight_decay": 0.5}))
    trained = seed.layout.join(work.lower(work.train(x)), work.buffers)
    np.testing.assert_array_equal(trained["0.weight"], seed.params["0.weight"])
    for name in ("0.bias", "1.weight", "1.bias"):
        assert (trained[name] != seed.params[name]).all(), name


def test_buffers_that_the_module_assigns_anew_are_followed(blobs, start):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3)
            self.register_buffer("seen", torch.zeros((), dtype=torch.int32))
            self.register_buffer("mean", torch.zeros(4))

        def forward(self, x):
            self.seen = self.seen + len(x)
            self.mean = 0.5 * self.mean + 0.5 * x.mean(0)
            return self.linear(x)

    learner = TorchLearner(Counting, lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1]))
    seed = learner.init(None, Key.root(1))
    data = blobs(20)
    for _ in range(2):  # the second client begins where the first did
        work, x = start(learner, seed, data, Hyper(steps=1, batch_size=None))
        work.train(x)
        model = seed.layout.join(work.lower(x), work.buffers)
        assert model["seen"] == 20
        np.testing.assert_allclose(model["mean"], data.x.mean(0) / 2, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_layers_that_do_not_train_have_a_zero_gradient():
    net = nn.Sequential(nn.Linear(1, 1), nn.Linear(0, 2), nn.Linear(1, 1))
    module = flat(net)
    module.backward(net[0](torch.ones(1, 1)).sum())
    assert module.g.tolist() == [1, 1, 0, 0, 0, 0]
    module.check()


def test_an_unshared_gradient_is_noticed():
    net = nn.Linear(1, 1)
    module = flat(net)
    module.check()
    net.zero_grad(set_to_none=True)
    with pytest.raises(LearnerError, match="learner-gradient"):
        module.check()
    module = flat(nn.Linear(1, 1))
    module.module.bias.data = torch.zeros(1)
    with pytest.raises(LearnerError, match="learner-gradient"):
        module.check()


class Extra(nn.Linear):
    def get_extra_state(self):
        return {"version": 2}


class Secret(nn.Linear):
    def state_dict(self, *args, **kwargs):
        return {n: t for n, t in super().state_dict(*args, **kwargs).items() if n != "bias"}


def with_buffer(tensor):
    net = nn.Linear(1, 1)
    net.register_buffer("extra", tensor)
    return net


def frozen():
    return nn.Linear(1, 1).requires_grad_(False)


@pytest.mark.filterwarnings("ignore:Complex modules", "ignore:Sparse")
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: nn.LazyLinear(3), "has no shape yet"),
        (lambda: nn.Linear(2, 2).to(torch.complex64), "complex64"),
        (lambda: with_buffer(torch.eye(3).to_sparse()), "torch.sparse_coo"),
        (lambda: with_buffer(torch.zeros(1, dtype=torch.complex64)), "'extra' has dtype"),
        (lambda: Extra(1, 1), "'_extra_state'"),
        (lambda: Secret(1, 1), "'bias' is not in its state_dict"),
        (frozen, "requires a gradient"),
    ],
)
def test_modules_that_cannot_travel_are_refused_by_tensor(make, said):
    with pytest.raises(LearnerError, match="learner-model") as error:
        flat(make())
    assert said in str(error.value)


def test_model_must_return_a_module():
    with pytest.raises(LearnerError, match="learner-model"):
        TorchLearner(dict, next_token).init(None, Key.root(0))


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "bfloat16", "int64", "int8", "uint8", "bool"]
)
def test_tensors_and_arrays_share_memory(dtype):
    tensor = torch.tensor([[1, 0], [3, 1]]).to(getattr(torch, dtype))
    array = to_array(tensor)
    assert array.dtype.name == dtype
    assert array.tolist() == tensor.tolist()
    back = to_tensor(array)
    assert back.dtype is tensor.dtype
    back[0, 1] = 1
    assert tensor[0, 1] == 1
