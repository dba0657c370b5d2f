"""The laws of algorithms, tried on a small federation of quadratic problems.

>>> from hansa.algorithms import fed_avg, scaffold
>>> check_algorithm(fed_avg())
>>> check_algorithm(scaffold())
>>> check_algorithm(fed_avg()._replace(sends=("gradient",)))
Traceback (most recent call last):
...
hansa.testing.laws.LawBroken: Algorithm 'fed_avg' breaks a law: the client half sends ['delta'], \
and `sends` says ['gradient']. Name in `sends` every vector of the update.  [law-broken]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from hansa.algorithms import Algorithm, Capability, Correct, Vectors
from hansa.seeds import Key
from hansa.testing.laws import form, law

SIZE = 7  # parameters
CLIENTS, COHORT = 5, 3
ROUNDS = 4

Array = np.ndarray[Any, np.dtype[Any]]


class Quadratic:
    """One client's work on f(x) = sum(a * (x - b)^2) / 2, or a stack of clients' with leading axes.

    Offers what the algorithm `needs` and refuses the rest.

    Args:
      algorithm: says what it needs.
      a: curvatures, `[..., D]`.
      b: optima, `[..., D]`.
      steps: local steps, a number or `[..., 1]`.
      lr: local learning rate, a number or `[..., 1]`.
    """

    def __init__(self, algorithm: Algorithm, a: Array, b: Array, *, steps: Any, lr: Any) -> None:
        self._algorithm, self._a, self._b = algorithm, a, b
        self.steps, self.lr = steps, lr

    def train(self, x: Array, correct: Correct | None = None) -> Array:
        """Return the model after this client's steps of gradient descent."""
        if correct is not None:
            self._need(Capability.CORRECT, "changes the local gradient")
        for step in range(int(np.max(self.steps))):
            g = self._a * (x - self._b)
            g = g if correct is None else correct(x, g)
            x = np.where(step < np.asarray(self.steps), x - self.lr * g, x)
        return x

    def gradient(self, x: Array) -> Array:
        """Return the gradient at `x`."""
        self._need(Capability.GRADIENT, "asks for a gradient")
        gradient: Array = self._a * (x - self._b)
        return gradient

    def full_gradient(self, x: Array) -> Array:
        """Return the gradient at `x`; there are no batches here."""
        return self.gradient(x)

    def _need(self, capability: Capability, what: str) -> None:
        law(
            capability in self._algorithm.needs,
            f"Algorithm {self._algorithm.name!r}",
            f"the client half {what}, and `needs` does not say so",
            hint=f"Add Capability.{capability.name}, so that learners without it are refused.",
        )


class _Trial(NamedTuple):
    """One federation and the algorithm under test; every call of a half is watched."""

    algorithm: Algorithm
    works: Sequence[Quadratic]
    stacked: Quadratic  # the cohort of every round at once: the first clients
    x: Array
    key: Key

    def require(self, holds: bool, sentence: str, *, hint: str) -> None:
        law(holds, f"Algorithm {self.algorithm.name!r}", sentence, hint=hint)

    def watched(self, what: str, half: Callable[..., Any], *inputs: Any) -> Any:
        """Call one function twice: inputs must stay as they are, and results must agree."""
        before = _image(inputs)
        first, second = half(*inputs), half(*inputs)
        self.require(
            _image(inputs) == before,
            f"{what} writes to what it is given",
            hint="Return new vectors: x + step, not x += step.",
        )
        self.require(
            _image(first) == _image(second),
            f"{what} gives other bytes when it is called again",
            hint="Keep nothing between calls; draw from key.generator().",
        )
        return first


def check_algorithm(algorithm: Algorithm, *, stacks: bool = True, seed: int = 0) -> None:
    """Check that an algorithm keeps its laws.

    The laws: every function leaves its input alone and gives the same bytes for the same input;
    state and message have `x`; an update has the vectors that `sends` names, each like `x`; states
    keep their names, shapes and precision from round to round; the client half asks the learner
    for nothing that `needs` does not name, and gives the same for a stack of clients as for each.

    Tried with float32 and float64, some clients taking part in each round.  Whether the method is
    the one that it claims to be is for your own test, on a problem whose answer you know.

    Args:
      algorithm: the value under test.
      stacks: whether the client half must work on a stack of clients; say False if it draws
        random numbers, which a stack draws otherwise.
      seed: of the problems; the same seed gives the same ones.

    Raises:
      LawBroken: which law, and what to look for.

    """
    for dtype in ("float32", "float64"):
        trial = _trial(algorithm, dtype, Key.root(seed).child("check_algorithm", dtype))
        _run(trial)
        if stacks:
            _check_stack(trial)


def _trial(algorithm: Algorithm, dtype: str, key: Key) -> _Trial:
    draw = key.child("problem").generator()
    a = draw.uniform(0.5, 2.0, (CLIENTS, SIZE)).astype(dtype)
    b = draw.normal(0.4, 1.0, (CLIENTS, SIZE)).astype(dtype)
    steps = np.arange(1, CLIENTS + 1, dtype=dtype)[:, None]
    works = [
        Quadratic(algorithm, a[i], b[i], steps=int(steps[i, 0]), lr=0.05) for i in range(CLIENTS)
    ]
    lr = np.full((COHORT, 1), 0.05, dtype)
    stacked = Quadratic(algorithm, a[:COHORT], b[:COHORT], steps=steps[:COHORT], lr=lr)
    return _Trial(algorithm, works, stacked, draw.normal(-0.2, 1.0, SIZE).astype(dtype), key)


def _run(trial: _Trial) -> None:
    """Go through some rounds, every cohort another, and check each step."""
    state = trial.watched("init", trial.algorithm.init, trial.x)
    _check_state(trial, state, "init")
    trial.require(
        _image(state.x) == _image(trial.x),
        "init starts from another model than it is given",
        hint="Let state.x be x.",
    )
    mine: dict[int, Vectors] = {}
    for number in range(ROUNDS):
        message = trial.watched("broadcast", trial.algorithm.broadcast, state)
        _check_message(trial, message)
        cohort = [(number + i) % CLIENTS for i in range(COHORT)]
        updates = [_client(trial, message, mine, number, client) for client in cohort]
        state = _server(trial, state, updates)


def _client(
    trial: _Trial, message: Vectors, mine: dict[int, Vectors], number: int, client: int
) -> Vectors:
    """Let one client take part; its state is kept in `mine`."""
    before = mine.get(client)
    if before is None:
        before = trial.watched("client_init", trial.algorithm.client_init, message.x)
    key = trial.key.child("client", number, client)
    work = trial.works[client]
    update, after = trial.watched(
        "the client half", trial.algorithm.client, work, message, before, key
    )
    trial.require(
        sorted(update) == sorted(trial.algorithm.sends),
        f"the client half sends {sorted(update)}, and `sends` says {sorted(trial.algorithm.sends)}",
        hint="Name in `sends` every vector of the update.",
    )
    for name, vector in update.items():
        _check_like_x(trial, vector, f"the update's {name}")
    _check_kept(trial, before, after, "a client's state")
    mine[client] = after
    return Vectors(update)


def _server(trial: _Trial, state: Vectors, updates: Sequence[Vectors]) -> Vectors:
    mean = Vectors(
        {
            name: np.mean([u[name] for u in updates], axis=0, dtype="float64").astype(trial.x.dtype)
            for name in trial.algorithm.sends
        }
    )
    for share in (1.0, 1 / CLIENTS, COHORT / CLIENTS):
        after: Vectors = trial.watched("server", trial.algorithm.server, state, mean, share)
        _check_state(trial, after, "server")
        _check_kept(trial, state, after, "the server's state")
    return after


def _check_state(trial: _Trial, state: Vectors, what: str) -> None:
    trial.require(
        isinstance(state, Vectors) and "x" in state,
        f"{what} returns {_words(state)} instead of Vectors with x",
        hint="Return Vectors(x=..., ...); x is the model that is kept.",
    )
    _check_like_x(trial, state.x, f"x after {what}")


def _check_message(trial: _Trial, message: Vectors) -> None:
    trial.require(
        isinstance(message, Vectors) and "x" in message,
        f"broadcast returns {_words(message)} instead of Vectors with x",
        hint="Return Vectors(x=state.x, ...); clients start from x.",
    )
    _check_like_x(trial, message.x, "the message's x")


def _check_like_x(trial: _Trial, vector: Any, what: str) -> None:
    trial.require(
        form(vector) == form(trial.x),
        f"{what} is {form(vector)}, and the model is {form(trial.x)}",
        hint="Keep its shape and dtype; NumPy's own numbers and integer arrays widen float32.",
    )
    trial.require(
        bool(np.isfinite(vector).all()),
        f"{what} holds NaN or infinity on a harmless problem",
        hint="Look for a division by zero, such as by a second moment that starts at 0.",
    )


def _check_kept(trial: _Trial, before: Vectors, after: Vectors, what: str) -> None:
    forms = [{name: form(v) for name, v in state.items()} for state in (before, after)]
    trial.require(
        forms[0] == forms[1],
        f"{what} was {forms[0]} and is {forms[1]} after a round",
        hint="Return every vector of the state each time, in its shape and dtype.",
    )


def _check_stack(trial: _Trial) -> None:
    """Run the first clients one by one and all at once."""
    algorithm, works = trial.algorithm, trial.works[:COHORT]
    message = algorithm.broadcast(algorithm.init(trial.x))
    mine = [algorithm.client_init(message.x) for _ in works]
    alone = [
        algorithm.client(work, message, state, trial.key)
        for work, state in zip(works, mine, strict=True)
    ]
    together = algorithm.client(trial.stacked, message, _stack(mine), trial.key)
    for side, what in enumerate(("updates", "states")):
        looped, stacked = _stack([result[side] for result in alone]), together[side]
        trial.require(
            all(np.allclose(stacked[n], looped[n], rtol=1e-4, atol=1e-5) for n in looped),
            f"a stack of clients gets other {what} than each client alone",
            hint="Use operators on [..., D] only; sums and norms need axis=-1, keepdims=True.",
        )


def _stack(states: Sequence[Vectors]) -> Vectors:
    return Vectors({name: np.stack([state[name] for state in states]) for name in states[0]})


def _words(value: Any) -> str:
    return (
        f"{type(value).__name__} with {sorted(value)}" if isinstance(value, dict) else repr(value)
    )


def _image(value: Any) -> Any:
    """Return the bytes of all vectors inside a value; a learner's work and a key have none."""
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, dict):
        return {name: _image(inner) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_image(inner) for inner in value]
    return None
