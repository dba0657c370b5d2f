"""What an object keeps between rounds, what it may not change, and what is nobody's business."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hansa.compat.attributes import Attributes
from hansa.errors import RunError


class Node:
    def __init__(self, **parts: Any) -> None:
        vars(self).update(parts)


CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "a generator of Python's": (lambda: random.Random(1), lambda part: part.random()),
    "an old one of NumPy's": (lambda: np.random.RandomState(1), lambda part: part.normal()),
    "one that says where it stands in arrays": (
        lambda: np.random.Generator(np.random.MT19937(1)), lambda part: part.normal()),
    "an object in a list": (lambda: [Node(n=1)], lambda part: setattr(part[0], "n", 2)),
    "an array deep inside": (
        lambda: Node(a={"b": Node(c=np.zeros(3))}),
        lambda part: part.a["b"].c.__setitem__(1, -2.5)),
    "an attribute more": (lambda: Node(a=Node()), lambda part: setattr(part.a, "more", 1)),
    "a value that has gone": (lambda: {1: Node(), 2: Node()}, lambda part: part.pop(2)),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_what_no_commit_can_hold_may_not_change(what: str) -> None:
    make, change = CHANGES[what]
    thing = Node(part=make(), n=1)
    attributes = Attributes(thing)
    thing.n = 3
    assert attributes.kept() == {"n": 3}
    change(thing.part)
    with pytest.raises(RunError, match=r"Node\.part has changed") as caught:
        attributes.kept()
    assert caught.value.code == "function-failed"


def test_what_is_made_or_noted_aside_is_no_change() -> None:
    """A logger notes which levels it shows; an object may know itself, and what passes."""
    thing = Node(logger=logging.getLogger("aside"), again=Node(), context=Node(seen=Exception()))
    thing.again.me, thing.again.context, thing.again.zero = thing.again, ValueError(), 0.0
    attributes = Attributes(thing, (Exception,))
    thing.logger.isEnabledFor(logging.DEBUG)
    thing.again.context = KeyError()
    thing.again.zero = float("0")  # as it was, and another object
    assert attributes.kept() == {}


def test_a_generator_goes_on_where_it_stood_and_begins_where_it_began() -> None:
    thing = Node(rng=np.random.default_rng(3))
    attributes, three = Attributes(thing), np.random.default_rng(3).normal(size=3)
    assert attributes.kept() == {}
    attributes.remember({})
    assert thing.rng.normal() == three[0]
    kept = attributes.kept()
    attributes.remember(kept)
    assert [thing.rng.normal(), thing.rng.normal()] == three[1:].tolist()
    attributes.remember({})
    assert thing.rng.normal() == three[0]
    attributes.remember(kept)
    assert thing.rng.normal() == three[1]


def test_a_generator_that_was_replaced_stays_replaced_and_one_that_was_used_goes_on() -> None:
    thing = Node(rng=np.random.default_rng(3), other=np.random.default_rng(4))
    attributes = Attributes(thing)
    attributes.remember({})
    drawn = thing.other.normal(size=2)
    thing.rng = None
    kept = attributes.kept()
    attributes.remember(kept)
    assert thing.rng is None
    expected = np.random.default_rng(4).normal(size=3)
    assert [*drawn, thing.other.normal()] == expected.tolist()
    attributes.remember({})
    assert thing.rng.normal() == np.random.default_rng(3).normal()
