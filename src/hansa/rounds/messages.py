"""What a cohort gets, as a tensor file.

Most methods broadcast the model and nothing else.  Such a message is the model's own file, so that
the model that a round has committed is written, stored and sent once.  Others have the tensors
that never change beside their vectors.
"""

from __future__ import annotations

import numpy as np

from hansa.algorithms import Vectors
from hansa.params import Params
from hansa.params.dtypes import dtype_name
from hansa.params.model import ModelLayout, from_vector
from hansa.rounds.opening import BUFFERS

_CONSTANT = "constant/"
"""Before the names of constants in the file of a message that is no model."""


def to_message(layout: ModelLayout, message: Vectors) -> Params:
    """Return the file of a message; `from_message` gives back the same bits."""
    if is_model(layout, message):
        return layout.join(message.x, message.get(BUFFERS, np.empty(0)))
    constants = {f"{_CONSTANT}{name}": tensor for name, tensor in layout.fixed.items()}
    return Params.of({**message, **constants})


def is_model(layout: ModelLayout, message: Vectors) -> bool:
    """Return whether the file of a message is that of its model."""
    buffers = message.get(BUFFERS, np.empty(0))
    return (
        message.keys() <= {"x", BUFFERS}
        and _holds(layout, np.asarray(message.x))
        and np.array_equal(layout.rounded(buffers), buffers)
    )


def _holds(layout: ModelLayout, x: np.ndarray) -> bool:
    """Return whether a model's file gives `x` back as it is."""
    if layout.exact():
        return layout.trained.dtypes == (dtype_name(x.dtype),)
    back = from_vector(layout.trained, x).vector()
    return back.dtype == x.dtype and np.array_equal(back, x)


def from_message(layout: ModelLayout, params: Params) -> Vectors:
    """Return a message's vectors; they may be views of the file."""
    if params.layout != layout.layout:
        found = {n: v for n, v in params.to_dict().items() if not n.startswith(_CONSTANT)}
        return Vectors(found)
    x, buffers = layout.split(params)
    return Vectors({"x": x, BUFFERS: buffers} if len(buffers) else {"x": x})


def with_constants(layout: ModelLayout, params: Params) -> ModelLayout:
    """Return a layout that holds the constants of a message's file."""
    if params.layout == layout.layout:
        return layout.holding(params)
    named = {name: params[f"{_CONSTANT}{name}"] for name in layout.constants.names}
    return layout.holding(named)
