"""A federation in thirty lines, so that learners are tested apart from the simulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hansa.algorithms import Algorithm, Vectors
from hansa.data import Dataset
from hansa.learners.learner import Hyper, Learner, LocalWork, Seed, Task
from hansa.seeds import Key


def blobs(examples: int = 60, *, features: int = 4, classes: int = 3, seed: int = 0) -> Dataset:
    """Return signed, asymmetric points whose class depends on them, float32."""
    rng = Key.root(seed).child("blobs").generator()
    x = rng.standard_normal((examples, features)) * 2 - 0.5
    y = (x @ rng.standard_normal((features, classes)) + 0.3).argmax(axis=1)
    names = tuple(str(c) for c in range(classes))
    return Dataset.of(x.astype(np.float32), y, classes=names, name="blobs")


def start(
    learner: Learner, seed: Seed, data: Any, hyper: Hyper | None = None, *, key: int = 5
) -> tuple[LocalWork, Any]:
    """Return one client's work and the seed model as its learner's own vector."""
    x, buffers = seed.layout.split(seed.params)
    task = Task("client-0", seed.layout, buffers, hyper or Hyper(), Key.root(key))
    work = learner.begin(task, data)
    return work, work.lift(x)


def federate(
    learner: Learner,
    algorithm: Algorithm,
    parts: list[Any],
    hyper: Hyper,
    *,
    rounds: int,
    x0: np.ndarray | None = None,
) -> np.ndarray:
    """Return the global vector after some rounds with all clients, weighted by examples."""
    seed = learner.init(parts[0], Key.root(0))
    x, buffers = seed.layout.split(seed.params)
    state = algorithm.init(np.array(x if x0 is None else x0))
    states: dict[int, Vectors] = {}
    weights = np.array([learner.examples(part) for part in parts], np.float64)
    for number in range(1, rounds + 1):
        updates = []
        for i, part in enumerate(parts):
            key = Key.root(0).child("client", number, i)
            work = learner.begin(Task(f"client-{i}", seed.layout, buffers, hyper, key), part)
            message = Vectors({k: work.lift(v) for k, v in algorithm.broadcast(state).items()})
            mine = states.get(i)
            mine = algorithm.client_init(message.x) if mine is None else mine
            update, states[i] = algorithm.client(work, message, mine, key)
            updates.append({name: work.lower(v) for name, v in update.items()})
        mean = {
            name: np.average([u[name] for u in updates], axis=0, weights=weights).astype(x.dtype)
            for name in algorithm.sends
        }
        state = algorithm.server(state, Vectors(mean), 1.0)
    return np.asarray(state.x)


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANSA_DEVICE", "cpu")


@pytest.fixture(name="federate")
def _federate() -> Callable[..., np.ndarray]:
    return federate


@pytest.fixture(name="blobs")
def _blobs() -> Callable[..., Dataset]:
    return blobs


@pytest.fixture(name="start")
def _start() -> Callable[..., tuple[LocalWork, Any]]:
    return start
