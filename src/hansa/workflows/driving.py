"""Running a workflow in the thread that it is called in, without an event loop."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from hansa.errors import RunError

Result = TypeVar("Result")


def drive(workflow: Coroutine[Any, Any, Result]) -> Result:
    """Run a workflow to its end; the handles that Hansa gives it never really wait.

    Their methods block instead: a simulation computes, a deployed run has a thread of its own.
    No event loop is started, so this works inside a notebook's, and Ctrl-C is an ordinary
    KeyboardInterrupt.

    Raises:
      RunError: the workflow awaited something that is not its federation.
    """
    try:
        workflow.send(None)
    except StopIteration as end:
        result: Result = end.value
        return result
    workflow.close()
    raise RunError(
        "plan-impossible",
        "The workflow awaited something other than its federation.",
        "A workflow awaits only the methods of the federation it was given.",
    )
