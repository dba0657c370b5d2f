"""The script's side of the exchange between a run and a user's training script.

A script runs in a thread that the run has started; the thread finds its run in a thread-local
variable, and outside of any run there is none.  See `hansa.script` for what a user sees.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from hansa.errors import LearnerError

Evaluate = Callable[[Any, Any], Any]
"""The script's own `evaluate(params, data)`; returns means over the data by name."""


class Sent(NamedTuple):
    """What a script handed over in one round."""

    params: Any  # a dict or a list of arrays
    weight: float | None
    metrics: dict[str, float]
    examples: float | None = None  # that its metrics are means over; by default the client's


@dataclass
class ScriptTask:
    """One round's work for a script."""

    params: Any  # the global model, of the same kind as what the script gave to `tasks`
    round: int = 1
    client: str = "local"
    epochs: int = 1  # what the plan asks for; a script may look at it or not
    steps: int | None = None
    batch_size: int | None = None
    lr: float = 0.1
    options: Mapping[str, float] = field(default_factory=dict)
    sent: Sent | None = None

    def send(
        self,
        params: Any,
        *,
        examples: float | None = None,
        weight: float | None = None,
        **metrics: float,
    ) -> None:
        """Hand over the trained model; once for each task.

        Args:
          params: a state_dict, or whatever `tasks` was given; copied.
          examples: how many the script trained on; by default all that the client has.
          weight: counts, or else `examples`, when the plan says weighting = "user".
          metrics: means over those examples, such as loss=0.3.

        Raises:
          LearnerError: something was sent for this task before, or `examples` is no number of them.
        """
        if self.sent is not None:
            raise script_error(
                f"The script sent two results for round {self.round}.",
                "Call task.send once in each turn of the loop.",
            )
        if examples is not None and not 0 < examples < 2**53:
            raise script_error(
                f"The script sent examples={examples!r} for round {self.round}.",
                "Give how many examples it trained on, above 0, or leave examples out.",
            )
        weight = examples if weight is None else weight
        weight = None if weight is None else float(weight)
        self.sent = Sent(as_arrays(params), weight, metrics, examples)


class Channel(Protocol):
    """A run, as its script's thread sees it."""

    client: str
    data: Any  # of the client, or what is evaluated on

    def tasks(self, initial: Any, evaluate: Evaluate | None) -> Iterator[ScriptTask]:
        """Say that the script is ready, and yield its tasks."""


class _Here(threading.local):
    channel: Channel | None = None


here = _Here()
"""Where the current thread's run is, if it is a script's."""


def as_arrays(params: Any) -> Any:
    """Return a dict or list of tensors or arrays as one of NumPy arrays, copied.

    Raises:
      LearnerError: it is neither.
    """
    if isinstance(params, Mapping):
        return {str(name): _array(value) for name, value in params.items()}
    if isinstance(params, Sequence) and not isinstance(params, str | bytes):
        return [_array(value) for value in params]
    raise script_error(
        f"The script gave {type(params).__name__} where a model's tensors are needed.",
        "Give net.state_dict(), a dict of arrays, or a list of arrays.",
    )


def is_tensor(value: Any) -> bool:
    """Tell whether a value is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def script_error(happened: str, hint: str) -> LearnerError:
    """Return the error for a script that does not keep to the exchange."""
    return LearnerError("learner-script", happened, hint)


def _array(value: Any) -> Any:
    if is_tensor(value):
        from hansa.learners.torch_arrays import to_array

        return to_array(value).copy()
    return np.array(value) if hasattr(value, "__array__") else value
