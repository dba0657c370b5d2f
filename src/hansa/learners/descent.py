"""The local optimizer of one client's round: a chain of modules, stepped.

It works on NumPy vectors and torch tensors alike, and leaves taking the step to the learner, whose
memory the parameters are.
"""

from __future__ import annotations

from hansa.algorithms import Vector
from hansa.learners.learner import Task
from hansa.optimizers import Need, Point
from hansa.optimizers.named import OPTIMIZERS


class Descent:
    """Says where the next step goes; its state begins anew with each round.

    Args:
      task: names the optimizer, and holds the key of its random numbers.
      start: `[..., D]`, the parameters that the round begins with; they must stay as they are.
    """

    def __init__(self, task: Task, start: Vector) -> None:
        hyper = task.hyper
        self._module = hyper.chain or OPTIMIZERS[hyper.optimizer](**hyper.options)
        self._state = self._module.init(start)
        starts = task.layout.trained.float_starts() if Need.TENSORS in self._module.needs else ()
        key = task.key.child("optimizer")
        self._at = Point(
            start, start, step=0, round=hyper.scheduled or hyper.round, key=key, starts=starts
        )

    def direction(self, x: Vector, g: Vector) -> Vector:
        """Return u of the next step, x - lr * u; it may be `g` itself, which is not changed."""
        self._at = self._at._replace(x=x, step=self._at.step + 1)
        u, self._state = self._module.update(g, self._state, self._at)
        return u
