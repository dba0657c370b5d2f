"""What a module of an optimizer is: a value made of two pure functions.

    g --ridge--> g --momentum--> u --clip_global--> u         x <- x - lr * u

A module changes the direction of a step; a chain of modules is a module.  Client and server use
the same ones.  Vectors are flat, `[..., D]`, NumPy's or torch's, and a leading axis is a stack of
clients; nothing loops over tensors, and nothing that a function is given is changed.

    >>> import numpy as np
    >>> double = Module("double", lambda u, state, at: (2 * u, state))
    >>> def add(u, state, at):                          # everything so far
    ...     total = state["total"] + u
    ...     return total, {"total": total}
    >>> total = Module("total", add, init=lambda x: {"total": 0 * x})
    >>> both, x = chain(double, total), np.array([1.0, -1.0])
    >>> u, state = both.update(np.array([1.0, 2.0]), both.init(x), Point(x))
    >>> u, state = both.update(np.array([1.0, 2.0]), state, Point(x, step=2))
    >>> u.tolist(), list(state)
    ([4.0, 8.0], ['1.total'])

Source: the shape is optax's (a named tuple of `init` and `update`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from hansa.errors import PlanError
from hansa.seeds import Key

Vector = Any
"""A flat array `[..., D]`, NumPy's or torch's."""

State = Mapping[str, Vector]
"""Named vectors that a module keeps from step to step."""


class Need(StrEnum):
    """What a module looks at besides the direction; the server does not know all of it."""

    PARAMS = "params"  # the parameters, `Point.x`
    START = "start"  # the model that the round began with, `Point.start`
    COUNT = "count"  # the number of the step or of the round
    KEY = "key"  # random numbers
    TENSORS = "tensors"  # where tensors begin in the vector, `Point.starts`


class Point(NamedTuple):
    """Where and when a step is taken; only what the chain `needs` has to be right."""

    x: Vector  # [..., D], the parameters
    start: Vector = None  # [..., D], the parameters at the beginning of the round
    step: int = 1  # from 1: of this round at a client; since the run began at the server
    round: int = 1  # from 1
    key: Key = Key(b"")
    starts: tuple[int, ...] = ()  # the first element of each tensor that is not empty


class Module(NamedTuple):
    """One link of a chain.

    `init(x)` returns the state before the first step, `update(u, state, at)` the direction that
    the step takes instead of `u` and the state after it.  Neither changes what it is given.
    """

    name: str
    update: Callable[[Vector, State, Point], tuple[Vector, State]]
    init: Callable[[Vector], State] = lambda x: {}
    needs: frozenset[Need] = frozenset()
    plain: bool = False  # a step remains x - lr * (the gradient at x of some objective)


def checked(module: Module, where: str) -> Module:
    """Return a module of somebody's own that is refused once it returns something else.

    Raises:
      PlanError: from its `update`, plan-wrong-type.
    """

    def update(u: Vector, state: State, at: Point) -> tuple[Vector, State]:
        made = module.update(u, state, at)
        pair = isinstance(made, tuple) and len(made) == 2
        given = tuple(getattr(u, "shape", ()))
        shape = tuple(getattr(made[0], "shape", ())) if pair else None
        if shape != given:
            told = f"a direction of shape {shape}" if pair else type(made).__name__
            raise PlanError(
                "plan-wrong-type",
                f"The update of {where} returned {told}, for a direction of shape {given}.",
                "Return (u, state), with u of the shape that it was given.",
            )
        return made

    return module._replace(update=update)


def chain(*modules: Module) -> Module:
    """Return modules as one: each is given what the one before it returns.

    The state's names get the position of their module in front, `1.m`; one module stays as it is.
    """
    if len(modules) == 1:
        return modules[0]

    def init(x: Vector) -> State:
        return {
            f"{i}.{name}": vector
            for i, module in enumerate(modules)
            for name, vector in module.init(x).items()
        }

    def update(u: Vector, state: State, at: Point) -> tuple[Vector, State]:
        after: dict[str, Vector] = {}
        for i, module in enumerate(modules):
            own = f"{i}."
            mine = {k.removeprefix(own): v for k, v in state.items() if k.startswith(own)}
            here = at
            if Need.KEY in module.needs:  # two modules of one name draw other numbers
                here = at._replace(key=at.key.child(i, module.name))
            u, mine_after = module.update(u, mine, here)
            after |= {own + name: vector for name, vector in mine_after.items()}
        return u, after

    return Module(
        " > ".join(module.name for module in modules) or "sgd",
        update,
        init=init,
        needs=frozenset().union(*(module.needs for module in modules)),
        plain=all(module.plain for module in modules),
    )
