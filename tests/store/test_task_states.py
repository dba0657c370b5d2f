"""A client keeps three states of named tasks, in whatever order a server asks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hansa.errors import SiteError
from hansa.params import Params, encode
from hansa.store.addresses import digest_of
from hansa.store.task_states import TaskStates


def state(value: float) -> Params:
    return Params.of({"w": np.array([value, -2 * value], np.float32)})


def digest(value: float) -> str:
    return digest_of(*encode(state(value)))


def files(folder: Path) -> int:
    return len(list(folder.rglob("*.safetensors")))


def test_a_round_goes_on_from_its_beginning_and_from_each_step(tmp_path: Path) -> None:
    states = TaskStates(tmp_path)
    states.save("north", 1, state(1), begun="")
    for step in range(2, 6):
        states.save("north", 2, state(step), begun=digest(step - 1))
        for there in {1, step - 1, step}:
            assert states.load("north", digest(there)) == state(there)
    assert files(tmp_path) == 3
    states.save("north", 2, state(2), begun=digest(1))  # the round is repeated
    assert states.load("north", digest(1)) == state(1)
    with pytest.raises(SiteError, match="is not here"):
        states.load("north", digest(9))


@pytest.mark.parametrize("way", ["back", "aside", "back from each"])
def test_a_server_that_asks_out_of_order_fills_no_disk(tmp_path: Path, way: str) -> None:
    states = TaskStates(tmp_path)
    states.save("north", 99, state(0), begun="")
    for step in range(1, 30):
        number = 100 if way == "aside" else 100 - step
        begun = {"back": "", "aside": digest(0), "back from each": digest(step - 1)}[way]
        states.save("north", number, state(step), begun=begun)
        assert states.load("north", digest(step)) == state(step)
    assert files(tmp_path) <= 3
