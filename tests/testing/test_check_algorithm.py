"""The conformance check finds the faults it is for: one broken algorithm for each law."""

from __future__ import annotations

import numpy as np
import pytest

from hansa.algorithms import (
    ALGORITHMS,
    Algorithm,
    Capability,
    Vectors,
    fed_avg,
    fed_avg_m,
    fed_prox,
    scaffold,
)
from hansa.errors import HansaError
from hansa.testing import LawBroken, check_algorithm

AVG = fed_avg()


def client(change) -> Algorithm:
    """FedAvg whose client half returns `change(update, mine)`."""

    def half(work, message, mine, key):
        return change(*AVG.client(work, message, mine, key))

    return AVG._replace(client=half)


def server(change) -> Algorithm:
    """FedAvgM whose server half returns `change(state before, state after)`."""
    momentum = fed_avg_m()

    def half(state, mean, share):
        return change(state, momentum.server(state, mean, share))

    return momentum._replace(server=half)


def writes_in_place() -> Algorithm:
    def half(state, mean, share):
        x = state.x
        x += mean.delta
        return Vectors(x=x)

    return AVG._replace(server=half)


def trains_in_place() -> Algorithm:
    def half(work, message, mine, key):
        update, mine = AVG.client(work, message, mine, key)
        message.x[0] = 0
        return update, mine

    return AVG._replace(client=half)


def remembers() -> Algorithm:
    calls = []

    def half(state, mean, share):
        calls.append(1)
        return Vectors(x=state.x + mean.delta / len(calls))

    return AVG._replace(server=half)


def draws_without_its_key() -> Algorithm:
    draw = np.random.default_rng(0)

    def noisy(update, mine):
        noise = draw.normal(size=update.delta.shape).astype(update.delta.dtype)
        return Vectors(delta=update.delta + noise), mine

    return client(noisy)


def widens_float32() -> Algorithm:
    return client(lambda update, mine: (Vectors(delta=update.delta * np.float64(0.5)), mine))


def norm_of_the_whole_stack() -> Algorithm:
    def half(work, message, mine, key):
        update, mine = AVG.client(work, message, mine, key)
        return Vectors(delta=update.delta / (1 + float((update.delta**2).sum()))), mine

    return AVG._replace(client=half)


def divides_by_zero() -> Algorithm:
    def half(state, mean, share):
        with np.errstate(all="ignore"):
            return Vectors(x=state.x + 0 * mean.delta / (0 * mean.delta))

    return AVG._replace(server=half)


BROKEN = {
    "server writes to what it is given": writes_in_place(),
    "the client half writes to what it is given": trains_in_place(),
    "server gives other bytes": remembers(),
    "the client half gives other bytes": draws_without_its_key(),
    "init returns .* instead of Vectors with x": AVG._replace(init=lambda x: Vectors(w=x)),
    "init returns dict with .'x'.": AVG._replace(init=lambda x: {"x": x}),
    "init starts from another model": AVG._replace(init=lambda x: Vectors(x=0 * x)),
    "broadcast returns Vectors with": AVG._replace(broadcast=lambda s: Vectors(w=s.x)),
    "the message's x is float16": AVG._replace(
        broadcast=lambda s: Vectors(x=s.x.astype("float16"))
    ),
    "sends .'delta'., and `sends` says .'dc', 'delta'.": AVG._replace(sends=("delta", "dc")),
    "the update's delta is float32.3.": client(lambda u, m: (Vectors(delta=u.delta[:3]), m)),
    "the update's delta is float64": widens_float32(),
    "the update's delta is float,": client(lambda u, m: (Vectors(delta=0.5), m)),
    "the update's delta holds NaN": client(lambda u, m: (Vectors(delta=u.delta * np.nan), m)),
    "a client's state was": client(lambda u, m: (u, Vectors(last=u.delta))),
    "server returns Vectors with .'v'.": server(lambda old, new: Vectors(v=new.v)),
    "the server's state was": server(lambda old, new: Vectors(x=new.x)),
    "the server's state was .*float32.*float64": server(
        lambda old, new: Vectors(x=new.x, v=new.v * np.ones(7))
    ),
    "x after server holds NaN": divides_by_zero(),
    "changes the local gradient, and `needs`": fed_prox()._replace(needs=frozenset()),
    "asks for a gradient, and `needs`": ALGORITHMS["fed_sgd"]()._replace(
        needs=frozenset({Capability.CORRECT})
    ),
    "a stack of clients gets other updates": norm_of_the_whole_stack(),
}


@pytest.mark.parametrize("sentence", BROKEN)
def test_a_broken_law_is_named(sentence: str) -> None:
    with pytest.raises(LawBroken, match=sentence) as caught:
        check_algorithm(BROKEN[sentence])
    assert isinstance(caught.value, HansaError)
    assert caught.value.code == "law-broken"
    assert caught.value.hint


def test_a_stack_with_other_states_is_found() -> None:
    """One state for all clients of the stack, where each has its own alone."""

    def half(work, message, mine, key):
        x = work.train(message.x)
        seen = 0 * mine.seen + (x - message.x).mean(axis=tuple(range(x.ndim - 1)))
        return Vectors(delta=x - message.x), Vectors(seen=seen)

    keeps = AVG._replace(client=half, client_init=lambda x: Vectors(seen=0 * x))
    with pytest.raises(LawBroken, match="gets other states"):
        check_algorithm(keeps)
    check_algorithm(keeps, stacks=False)


def test_a_client_half_that_draws_from_its_key_keeps_the_laws() -> None:
    def half(work, message, mine, key):
        update, mine = AVG.client(work, message, mine, key)
        noise = key.generator().normal(size=update.delta.shape).astype(update.delta.dtype)
        return Vectors(delta=update.delta + noise), mine

    check_algorithm(AVG._replace(client=half), stacks=False)


@pytest.mark.parametrize("seed", range(5))
def test_lawful_algorithms_pass_whatever_the_problems(seed: int) -> None:
    check_algorithm(scaffold(), seed=seed)
    check_algorithm(ALGORITHMS["fed_yogi"](), seed=seed)
