"""What happens to optimizers in declearn 2.9 and must not happen here."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from hansa.algorithms import Vectors
from hansa.data import Dataset
from hansa.errors import PlanError
from hansa.learners import NumPyLearner, Perceptron
from hansa.optimizers import MODULES, Point, amsgrad, chain, clip_tensor, decoupled_decay, momentum
from hansa.plan import build_method, hyper_at, read_plan
from hansa.project import client_of, with_learner
from hansa.seeds import Key


def factors(name: str, *, rounds: int, **options: object) -> list[float]:
    """Return the factors of a schedule by round, in rounds 1, 2, 3 ..."""
    module, one = MODULES[name](**options, by="round"), np.ones(1)
    return [module.update(one, {}, Point(one, round=n))[0].item() for n in range(1, rounds + 1)]


def test_a_schedule_by_round_begins_in_the_first_round_and_does_not_lag() -> None:
    """It began at -1 and lagged one step behind."""
    assert factors("step_decay", every=2, gamma=0.5, rounds=5) == [1, 1, 0.5, 0.5, 0.25]
    assert factors("linear", length=4, rounds=6) == [1, 0.75, 0.5, 0.25, 0, 0]


def test_an_inverse_schedule_does_not_divide_by_zero() -> None:
    assert factors("inverse", gamma=1.0, rounds=4) == [1, 1 / 2, 1 / 3, 1 / 4]


def test_warm_restarts_restart() -> None:
    rates = factors("cosine_restarts", length=2, growth=2, rounds=8)
    assert [n for n, rate in enumerate(rates, start=1) if rate == 1] == [1, 3, 7]


def test_the_servers_schedule_counts_its_rounds_also_after_a_restart() -> None:
    """The server's optimizer never heard of a round; a restored one had a stale rate."""
    halves = {"name": "exponential_decay", "gamma": 0.5, "by": "round"}
    plan = read_plan({"algorithm": {"name": "fed_opt", "chain": [halves]}}).plan
    before = after = build_method(plan, NotImplemented).algorithm.init(np.zeros(1))
    steps = []
    for _ in range(4):
        restarted = build_method(plan, NotImplemented).algorithm  # with nothing but the state
        after = restarted.server(before, Vectors(delta=np.ones(1)), 1.0)
        steps.append((after.x - before.x).item())
        before = after
    assert steps == [1, 0.5, 0.25, 0.125]


def test_amsgrad_starts_anew_in_each_run() -> None:
    """Its reset was misspelt, and the maximum of another run stayed."""
    module, x = amsgrad(), np.zeros(2)
    first, state = module.update(np.array([1.0, -9.0]), module.init(x), Point(x))
    assert state["top"].max() > 0
    again, _ = module.update(np.array([1.0, -9.0]), module.init(x), Point(x))
    np.testing.assert_array_equal(first, again)


def trained(number: int) -> np.ndarray:
    """Return one client's delta in a round, with momentum, after other rounds or none."""
    table = {"optimizer": {"chain": ["momentum"], "lr": 1}, "steps": 3, "batch_size": "all"}
    project = with_learner(read_plan({"learner": table}).plan, NumPyLearner(Perceptron()))
    draw = Key.root(2).generator()
    data = Dataset.of(draw.normal(size=(9, 4)).astype(np.float32), np.arange(9) % 3)
    seed = project.learner.init(data, Key.root(0))
    client = client_of(project, seed.layout)
    x, _ = seed.layout.split(seed.params)
    message, key = Vectors(x=x + 0.1), Key.root(5)
    for n in range(1, number + 1):
        hyper = hyper_at(project.plan, n)
        update, _ = client.train(message, data, None, name="a", hyper=hyper, key=key)
    delta: np.ndarray = update.vectors["delta"]
    return delta


def test_a_clients_state_begins_anew_in_each_round() -> None:
    """`round_reset` was lost on the way to clients."""
    np.testing.assert_array_equal(trained(1), trained(3))


def test_a_chain_reaches_a_site_whole() -> None:
    """Options vanished when configurations were sent."""
    noisy = {"name": "gaussian_noise", "std": 0.25}
    table = {"chain": ["momentum", noisy], "regularizers": ["ridge"], "lr": 1}
    plan = read_plan({"learner": {"optimizer": table}}).plan
    received = read_plan(msgspec.json.decode(msgspec.json.encode(msgspec.to_builtins(plan)))).plan
    assert received == plan
    local = build_method(received, NotImplemented).chain
    assert local is not None and local.name == "ridge > momentum > gaussian_noise"


def test_an_unknown_option_of_an_optimizer_is_refused() -> None:
    """A mistyped key was ignored without a word."""
    for table in ({"chain": [{"name": "momentum", "bta": 0.5}]}, {"momentun": 0.5}):
        with pytest.raises(PlanError) as error:
            build_method(read_plan({"learner": {"optimizer": table}}).plan, NotImplemented)
        assert error.value.code == "plan-unknown-key"


def test_a_whole_number_is_a_learning_rate() -> None:
    """`lrate = 1` was a TypeError."""
    assert np.isfinite(trained(1)).all()


def test_decoupled_decay_is_multiplied_by_the_learning_rate() -> None:
    """As in torch's AdamW; it was taken as it stood, and a schedule did not lower it."""
    x, u = np.array([2.0, -4.0]), np.zeros(2)
    after = x - 0.1 * decoupled_decay(0.5).update(u, {}, Point(x))[0]
    np.testing.assert_allclose(after, x * (1 - 0.1 * 0.5))


def test_one_module_twice_keeps_two_states() -> None:
    """The second silently took the place of the first."""
    both, x = chain(momentum(0.5), momentum(0.25)), np.zeros(1)
    state = both.init(x)
    for _ in range(2):
        u, state = both.update(np.ones(1), state, Point(x))
    assert (state["0.v"].item(), u.item()) == (1.5, 0.25 + 1.5)


@pytest.mark.torch
def test_clipping_of_float64_keeps_its_precision() -> None:
    """torch's was done in float32."""
    torch = pytest.importorskip("torch")
    u = torch.tensor([1.0, 1e-9, -3.0, 7.0], dtype=torch.float64)
    found = clip_tensor(1.0).update(u, {}, Point(u, starts=(0, 2)))[0]
    expected = np.concatenate([u[:2] / np.sqrt(1 + 1e-18), u[2:] / np.sqrt(58)])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-15)
