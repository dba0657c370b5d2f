"""What a federated optimisation method is: a value made of pure functions.

    server                                   client i of the cohort
    ------                                   ----------------------
    state = init(x)
    message = broadcast(state)      ---->    update, mine = client(work, message, mine, key)
    state = server(state, mean, share)  <--  (the aggregator makes `mean` of the updates)

`x` is the trained part of the model as one flat vector `[..., D]`.  The functions use only
arithmetic operators, so the same few lines run on NumPy arrays, on torch tensors on a GPU, and on
a stack of clients with a leading axis.

A whole algorithm, FedAvg without a learning rate at the server:

    >>> def client(work, message, mine, key):
    ...     x = work.train(message.x)
    ...     return Vectors(delta=x - message.x), mine
    >>> def server(state, mean, share):
    ...     return Vectors(x=state.x + mean.delta)
    >>> fed_avg = Algorithm("fed_avg", client=client, server=server)
    >>> class Halve:                                     # a learner that halves every weight
    ...     def train(self, x, correct=None):
    ...         return x / 2
    >>> state = fed_avg.init(8.0)
    >>> update, _ = fed_avg.client(Halve(), fed_avg.broadcast(state), Vectors(), None)
    >>> fed_avg.server(state, update, 1.0)
    {'x': 4.0}

Source: the shape is optax's (a named tuple of pure functions) and FedJAX's, with both halves.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from hansa.seeds import Key

Vector = Any
"""A flat array `[..., D]` of the learner's own kind: NumPy, torch; only operators are used."""

Correct = Callable[[Vector, Vector], Vector]
"""`correct(x, g)`: the gradient a local step uses instead of `g`, at the point `x`."""


class Vectors(dict[str, Vector]):
    """Named vectors: a message, an update, a mean of updates, a state.  `v.x` is `v["x"]`."""

    def __getattr__(self, name: str) -> Vector:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Capability(StrEnum):
    """What a learner can do besides training; an algorithm names what it needs."""

    CORRECT = "correct"  # local steps whose gradient passes through `correct(x, g)`
    GRADIENT = "gradient"  # `gradient(x)` of the next batch and `full_gradient(x)`
    PLAIN_SGD = "plain_sgd"  # local steps are x - lr * g, without momentum or preconditioning
    CHAIN = "chain"  # local steps go through the chain of modules in `Hyper.chain`


class Work(Protocol):
    """The primitives that a learner offers the client half, on one client's local data."""

    steps: Any  # K, local steps that `train` takes in this round; [..., 1] when stacked
    lr: Any  # the local learning rate in this round; [..., 1] when stacked

    def train(self, x: Vector, correct: Correct | None = None) -> Vector:
        """Return the model after this round's local steps from `x`."""

    def gradient(self, x: Vector) -> Vector:
        """Return the loss gradient at `x` on the next local batch."""

    def full_gradient(self, x: Vector) -> Vector:
        """Return the gradient at `x` of the mean loss over all local examples."""


Init = Callable[[Vector], Vectors]
Broadcast = Callable[[Vectors], Vectors]
Client = Callable[[Work, Vectors, Vectors, Key], tuple[Vectors, Vectors]]
Server = Callable[[Vectors, Vectors, float], Vectors]


def _only_x(x: Vector) -> Vectors:
    return Vectors(x=x)


def _message_x(state: Vectors) -> Vectors:
    return Vectors(x=state.x)


def _no_state(x: Vector) -> Vectors:
    return Vectors()


class Algorithm(NamedTuple):
    """Client half and server half of one method.

    `server(state, mean, share)`: `mean` holds the aggregated update vectors, `share` is the
    number of clients whose updates were accepted divided by all clients of the federation.
    """

    name: str
    client: Client
    server: Server
    init: Init = _only_x  # server state; always has "x"
    broadcast: Broadcast = _message_x  # message to the cohort; always has "x"
    client_init: Init = _no_state  # state of a client that takes part for the first time
    sends: tuple[str, ...] = ("delta",)  # names of the vectors in an update, each [..., D]
    needs: frozenset[Capability] = frozenset()
    needs_mean: bool = False  # the server half is wrong for an aggregate that is not a mean
    uniform: bool = False  # the method weighs all clients equally
    local_steps: bool = True  # clients step by the learner's optimizer; if not, none is of use
