"""What a workflow is: a value with an async function over a federation, and what it refuses.

    >>> from hansa.workflows import Progress
    >>> async def nothing(federation, plan, algorithm):
    ...     return Progress(ended="there was nothing to do")
    >>> idle = Workflow("idle", nothing)

A project's own is named in its plan as `workflow = "my_module.py:idle"`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from hansa.algorithms import Algorithm
from hansa.plan import Method, Plan
from hansa.workflows.federation import Federation
from hansa.workflows.stopping import Progress

Run = Callable[[Federation, Plan, Algorithm], Coroutine[Any, Any, Progress]]
"""Works on a run from its last commit until `Progress.ended` says that it is over."""

Check = Callable[[Plan, Method], None]
"""Refuses with a PlanError what this workflow cannot do."""


def _refuses_nothing(plan: Plan, method: Method) -> None:
    """Any plan will do."""


class Workflow(NamedTuple):
    """The order of a run's exchanges.

    `tells`: what data owners must know before they approve, in one sentence.  `timed`: clients
    report how long their local steps take; see `hansa.workflows.pace`.  Where clients are
    simulated these times are drawn instead, and `spread` is the standard deviation of their
    logarithm: 0 makes all clients equally fast.  `raced`: who comes first decides what the model
    is, so that a federation's is not a simulation's.
    """

    name: str
    run: Run
    check: Check = _refuses_nothing
    tells: str = ""
    timed: bool = False
    spread: float = 0.0
    raced: bool = False
