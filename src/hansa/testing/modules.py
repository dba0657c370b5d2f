"""The laws of an optimizer's modules, tried on a few steps.

>>> from hansa.optimizers import Module, momentum
>>> check_module(momentum())
>>> check_module(Module("double", lambda u, state, at: (u * np.float64(2), state)))
Traceback (most recent call last):
...
hansa.testing.laws.LawBroken: Module 'double' breaks a law: given float32[7], it returns \
float64[7]. Keep shape and dtype; NumPy's own numbers widen float32.  [law-broken]
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hansa.optimizers import Module, Need, Point
from hansa.seeds import Key
from hansa.testing.laws import form, law

SIZE, STEPS = 7, 5
STARTS = (0, 3, 4)  # three tensors
STACK = np.array([[1.0], [-3.0], [0.25]])

Array = np.ndarray[Any, np.dtype[Any]]


def check_module(module: Module, *, seed: int = 0) -> None:
    """Check that a module of an optimizer keeps its laws.

    The laws: nothing that it is given is changed, the same input gives the same bytes, nothing is
    looked at that `needs` does not name (so that it is refused where that is not known), the
    direction and each vector of the state keep their shape and dtype, the state keeps its names,
    and a stack of clients goes the way of each client alone (unless it draws random numbers).

    Whether the module is the one that it claims to be is for your own test, on numbers that you
    know.

    Args:
      module: the value under test.
      seed: of the gradients; the same seed gives the same ones.

    Raises:
      LawBroken: which law, and what to look for.
    """
    key = Key.root(seed).child("check_module")
    draw = key.child("problem").generator()
    x = draw.normal(0.3, 2.0, SIZE)
    gradients = draw.normal(-0.4, 1.0, (STEPS, SIZE))
    for dtype in ("float32", "float64"):
        _walk(module, x.astype(dtype), gradients.astype(dtype), key)
    if Need.KEY not in module.needs:
        stacked = _walk(module, x * STACK, gradients[:, None] * STACK, key)
        alone = [_walk(module, x * s, gradients * s, key) for s in STACK[:, 0]]
        law(
            np.allclose(stacked, np.stack(alone, axis=1), rtol=1e-9, atol=1e-12),
            f"Module {module.name!r}",
            "a stack of clients goes another way than each client alone",
            hint="Use operators on [..., D] only; sums and norms need axis=-1, keepdims=True.",
        )


def _walk(module: Module, x: Array, gradients: Array, key: Key) -> Array:
    """Take a few steps, each twice and with arrays that cannot be written to."""
    start, state, steps = _frozen(x), module.init(_frozen(x)), []
    for step, g in enumerate(gradients, start=1):
        at = Point(_frozen(x), start, step=step, round=step, key=key, starts=STARTS)
        kept = {name: _frozen(vector) for name, vector in state.items()}
        try:
            (u, state), (again, _) = (module.update(_frozen(g), kept, at) for _ in range(2))
        except ValueError as error:
            law(
                "read-only" not in str(error),
                f"Module {module.name!r}",
                "it writes to what it is given",
                hint="Return new vectors: v = beta * v + u, not v += u.",
            )
            raise
        _check_forms(module, (g, kept), (u, state))
        law(
            u.tobytes() == again.tobytes(),
            f"Module {module.name!r}",
            "it gives other bytes when it is called again",
            hint="Keep nothing between calls but the state; draw from at.key.",
        )
        _check_needs(module, _frozen(g), kept, at, u)
        x = x - (0.1 * u).astype(x.dtype)
        steps.append(u)
    return np.stack(steps)


def _check_needs(module: Module, g: Array, kept: Any, at: Point, u: Array) -> None:
    """Take the step again with a point that has nothing but what the module says it needs."""
    needs, counts = module.needs, Need.COUNT in module.needs
    bare = Point(
        at.x if Need.PARAMS in needs else None,
        at.start if Need.START in needs else None,
        step=at.step if counts else at.step + 100,
        round=at.round if counts else at.round + 200,
        key=at.key if Need.KEY in needs else at.key.child("another"),
        starts=at.starts if Need.TENSORS in needs else (),
    )
    try:
        same = module.update(g, kept, bare)[0].tobytes() == u.tobytes()
    except (TypeError, AttributeError, LookupError, ValueError):
        same = False
    law(
        same,
        f"Module {module.name!r}",
        "it looks at something that its `needs` do not name",
        hint="Add for example needs=frozenset({Need.PARAMS}) for at.x.",
    )


def _check_forms(module: Module, given: tuple[Any, Any], after: tuple[Any, Any]) -> None:
    (g, kept), (u, state) = given, after
    law(
        form(u) == form(g),
        f"Module {module.name!r}",
        f"given {form(g)}, it returns {form(u)}",
        hint="Keep shape and dtype; NumPy's own numbers widen float32.",
    )
    forms = [{name: form(vector) for name, vector in s.items()} for s in (kept, state)]
    law(
        forms[0] == forms[1],
        f"Module {module.name!r}",
        f"its state was {forms[0]} and is {forms[1]} after a step",
        hint="Return every vector that init(x) returns, in its shape and dtype.",
    )


def _frozen(vector: Any) -> Array:
    array = np.array(vector)
    array.flags.writeable = False
    return array
