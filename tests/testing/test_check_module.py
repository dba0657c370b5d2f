"""The check of modules finds each way to break a law, and says what to look for."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from hansa.optimizers import Module, Need
from hansa.testing import LawBroken, check_module

calls = itertools.count()


def in_place(u, state, at):
    u *= 2
    return u, state


def state_in_place(u, state, at):
    state["v"] += u
    return state["v"], state


def forgets(u, state, at):
    return u + state["v"], {}


def widens_its_state(u, state, at):
    return u, {"v": state["v"] + np.float64(1)}


BROKEN = [
    (in_place, "writes to what it is given"),
    (state_in_place, "writes to what it is given"),
    (lambda u, state, at: (u * np.float64(2), state), "it returns float64"),
    (lambda u, state, at: (u.sum(), state), "it returns float32"),
    (forgets, "its state was"),
    (widens_its_state, "its state was"),
    (lambda u, state, at: (u * next(calls), state), "other bytes"),
    (lambda u, state, at: (u / abs(u).max(), state), "a stack of clients"),
    (lambda u, state, at: (u + 0.5 * at.x, state), "`needs` do not name"),
    (lambda u, state, at: (u + 0.5 * (u - at.start), state), "`needs` do not name"),
    (lambda u, state, at: (u / at.step, state), "`needs` do not name"),
    (lambda u, state, at: (u * 0.5**at.round, state), "`needs` do not name"),
    (lambda u, state, at: (u * (1 + len(at.starts)), state), "`needs` do not name"),
    (lambda u, state, at: (u * at.key.integer(8), state), "`needs` do not name"),
]


@pytest.mark.parametrize(("update", "said"), BROKEN)
def test_a_broken_law_is_named(update: Callable, said: str) -> None:
    with pytest.raises(LawBroken, match=said) as error:
        check_module(Module("mine", update, init=lambda x: {"v": 0 * x}))
    assert error.value.code == "law-broken"
    assert "Module 'mine'" in error.value.happened


def test_an_error_of_the_modules_own_comes_out_as_it_is() -> None:
    def fails(u, state, at):
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        check_module(Module("mine", fails))


def test_a_module_that_draws_need_not_stack() -> None:
    def noise(u, state, at):
        return u + at.key.generator().standard_normal(u.shape, u.dtype), state

    check_module(Module("mine", noise, needs=frozenset({Need.KEY})))
