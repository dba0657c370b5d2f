"""What a commit of an asynchronous run makes of the updates that have come; see `asynchronous`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from hansa.aggregators import Contribution, weighted_sum
from hansa.aggregators.aggregator import Vector
from hansa.aggregators.latest import Entry, Latest, largest_of, spec_of
from hansa.algorithms import Algorithm, Vectors
from hansa.errors import RunError
from hansa.limits import AT_WORK_MAX
from hansa.rounds import BUFFERS, largest_parameter
from hansa.workflows.federation import Arrival, Federation, GlobalState, Trained
from hansa.workflows.staleness import Discount
from hansa.workflows.synchronous import step


class Rule(Protocol):
    """Steps the server's state, and says what the run must remember for it."""

    def step(
        self, number: int, state: GlobalState, updates: Sequence[Arrival], *, clients: int
    ) -> GlobalState:
        """Return the state after a round's updates, in a federation of so many clients."""

    def memory(self) -> dict[str, Any]:
        """Return what the commit must remember, as JSON data."""

    def holds(self) -> frozenset[tuple[str, int]]:
        """Return what the federation must hold on to."""


class Forgetful:
    """A rule that needs nothing but the state."""

    def memory(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def holds(self) -> frozenset[tuple[str, int]]:
        """Return nothing."""
        return frozenset()


class FedRec:
    """The model is the exactly weighted mean of the latest model of every client.

    A client's model is that on which it was set to work plus its update.  It is held until its
    next one replaces it; see `hansa.aggregators.latest`.

    Args:
      federation: holds each client's latest model, and recalls those from which they began.
      entries: what the last commit remembered.
    """

    def __init__(self, federation: Federation, entries: Mapping[str, Sequence[Any]]) -> None:
        self._federation = federation
        known = {client: Entry(*fact) for client, fact in entries.items()}
        self._latest = Latest(federation.held, known)

    def step(
        self, number: int, state: GlobalState, updates: Sequence[Arrival], *, clients: int
    ) -> GlobalState:
        """Replace the models of these clients, and return the mean of all."""
        for update in updates:
            model = _model(self._federation, state, update, number=number)
            self._federation.hold(update.client, number, model)
            self._latest.replace(Contribution(update.client, model, update.weight), number)
        if len(self._latest.entries) > AT_WORK_MAX:
            raise RunError(
                "plan-impossible",
                f"{len(self._latest.entries)} clients have sent a model, and FedRec keeps the "
                f"latest of {AT_WORK_MAX} at most.",
                'Use rule = "fed_buff", which keeps none, and run again.',
            )
        mean = self._latest.mean().vectors
        return _state(mean["x"], mean.get(BUFFERS, state.buffers))

    def memory(self) -> dict[str, Any]:
        """Return who is in the mean, with which model and which weight."""
        entries = self._latest.entries
        return {"latest": {client: list(entries[client]) for client in sorted(entries)}}

    def holds(self) -> frozenset[tuple[str, int]]:
        """Return the latest model of each client."""
        return frozenset((c, entry.number) for c, entry in self._latest.entries.items())


class FedBuff(Forgetful):
    """The server steps by sum w_k s(tau_k) delta_k / sum w_k of the buffer; FedBuff, Alg. 1.

    An update from an old model moves the server less; it does not make the others' move it more.

    Args:
      algorithm: its server half steps.
      discount: s, a function of staleness.
    """

    def __init__(self, algorithm: Algorithm, discount: Discount) -> None:
        self._algorithm, self._discount = algorithm, discount

    def step(
        self, number: int, state: GlobalState, updates: Sequence[Arrival], *, clients: int
    ) -> GlobalState:
        """Return the state after one server step."""
        entries = [Entry(0, update.weight, largest_of(update.vectors)) for update in updates]
        acc = weighted_sum.zero(spec_of(updates[0].vectors, entries))
        for update in updates:
            contribution = Contribution(update.client, update.vectors, update.weight)
            factor = self._discount(number - update.asked)
            acc = weighted_sum.add(acc, contribution, shrink=factor)
        trained = Trained(weighted_sum.finish(acc), {}, [], 0, 0)
        return step(self._algorithm, state, trained, clients=clients)


class FedAsync(Forgetful):
    """The model is mixed with one client's: x <- (1 - alpha) x + alpha x_k; FedAsync, Alg. 1.

    Args:
      federation: recalls the model from which a client began.
      discount: s; alpha is `mixing * s(tau)`.
      mixing: alpha of a fresh update.
    """

    def __init__(self, federation: Federation, discount: Discount, mixing: float) -> None:
        self._federation, self._discount, self._mixing = federation, discount, mixing

    def step(
        self, number: int, state: GlobalState, updates: Sequence[Arrival], *, clients: int
    ) -> GlobalState:
        """Return the state with these updates mixed in, one after the other."""
        x, buffers = np.asarray(state.algorithm.x), state.buffers
        for update in updates:
            alpha = self._mixing * self._discount(number - update.asked)
            model = _model(self._federation, state, update, number=number)
            x = _mixed(x, model["x"], alpha)
            buffers = _mixed(buffers, model[BUFFERS], alpha) if BUFFERS in model else buffers
        return _state(x, buffers)


def _model(
    federation: Federation, state: GlobalState, update: Arrival, *, number: int
) -> dict[str, Vector]:
    """Return a client's model: that which it was given, plus its update."""
    given = state if update.asked == number else federation.recall(update.asked - 1)
    x = np.asarray(given.algorithm.x)
    model: dict[str, Vector] = {"x": x + np.asarray(update.vectors["delta"], x.dtype)}
    if BUFFERS in update.vectors:
        model[BUFFERS] = np.asarray(update.vectors[BUFFERS])
    return model


def _mixed(mine: Vector, theirs: Vector, alpha: float) -> Vector:
    """Return (1 - alpha) mine + alpha theirs, in float64, then as precise as it was."""
    mixed = (1.0 - alpha) * mine.astype(np.float64) + alpha * np.asarray(theirs, np.float64)
    return mixed.astype(mine.dtype)


def _state(x: Vector, buffers: Vector) -> GlobalState:
    largest_parameter(x)
    return GlobalState(Vectors(x=x), buffers)
