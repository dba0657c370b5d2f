"""Named tasks: functions of the user's that answer what a workflow asks besides training.

    @hansa.task("histogram")
    def histogram(params, data, ctx):
        edges = np.linspace(0, 1, ctx.settings["bins"] + 1)
        return {"counts": np.histogram(data.train.x, edges)[0].tolist()}     # facts, JSON

`params` is a dict of writable NumPy arrays, or None where the workflow sends no tensors.  `data`
has this client's `train` and `validation` parts.  What is returned are facts, or tensors and facts.
What lies in `ctx.state` at the end is there again in the client's next task, where the workflow
goes on from it, and never leaves the client.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from hansa.errors import LearnerError
from hansa.params import Params

NamedTask = Callable[..., Any]
"""(params, data, ctx) -> facts, or (tensors, facts)."""

F = TypeVar("F", bound=NamedTask)

_MARK = "__hansa_task__"


@dataclass
class TaskContext:
    """What a function that answers a named task may want to know."""

    client: str
    round: int
    step: int  # tells apart several exchanges of the task in one round
    settings: Mapping[str, Any]  # JSON, from the workflow
    rng: np.random.Generator  # of this client, round, task and step alone
    state: dict[str, Any] = field(default_factory=dict)  # arrays by name, kept here


def is_name(name: str) -> bool:
    """Tell whether a task may be called so."""
    return re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name, re.ASCII) is not None


def task(name: str) -> Callable[[F], F]:
    """Let a function of the project answer the task of this name.

    Args:
      name: letters, digits, - and _; as the workflow asks for it.

    Example:
      >>> @task("count")
      ... def count(params, data, ctx):
      ...     return {"rows": len(data.train)}
    """

    def marked(function: F) -> F:
        setattr(function, _MARK, name)
        return function

    return marked


def tasks_in(*places: Any) -> dict[str, NamedTask]:
    """Return the named tasks of modules, by their marks, and of a learner, by its `tasks`.

    Raises:
      LearnerError: task-unknown, two functions answer one task.
    """
    found: dict[str, NamedTask] = {}
    for place in places:
        values = getattr(place, "__dict__", {}).values()
        marked = [(getattr(f, _MARK, None), f) for f in values if callable(f)]
        own = getattr(place, "tasks", None)
        answered = [*marked, *(own.items() if isinstance(own, Mapping) else ())]
        for name, function in answered:
            if not isinstance(name, str):
                continue
            if found.setdefault(name, function) is not function:
                raise LearnerError(
                    "task-unknown",
                    f"Two functions of the project answer the task {name!r}.",
                    "Keep one of them.",
                )
    return found


def perform(
    tasks: Mapping[str, NamedTask], name: str, params: Params | None, data: Any, ctx: TaskContext
) -> tuple[Params | None, Mapping[str, Any]]:
    """Have a function answer, and return its tensors and facts.

    Raises:
      LearnerError: task-unknown, there is no such function; task-answer, it returned what is no
        answer.
      Exception: whatever the function raises.
    """
    if name not in tasks:
        known = ", ".join(sorted(tasks)) or "none"
        raise LearnerError(
            "task-unknown",
            f"The project has no task {name!r}; it has: {known}.",
            f'Write @hansa.task("{name}") before the function that answers it.',
        )
    given = None if params is None else params.copy().to_dict()
    returned = tasks[name](given, data, ctx)
    tensors, facts = returned if isinstance(returned, tuple) else (None, returned)
    if facts is None:
        facts = {}
    if not isinstance(facts, Mapping):
        raise bad_answer(name, f"returned {type(facts).__name__} as its facts")
    if any(isinstance(value, np.ndarray) for value in facts.values()):
        raise bad_answer(name, "returned an array among its facts")
    return (tensors if tensors is None or isinstance(tensors, Params) else Params.of(tensors)), (
        facts
    )


def bad_answer(name: str, what: str) -> LearnerError:
    """Return the error of a function whose answer cannot be sent."""
    return LearnerError(
        "task-answer",
        f"The function of the task {name!r} {what}. Nothing was sent.",
        'Return facts such as {"rows": 12}, or (arrays by name, facts).',
    )
