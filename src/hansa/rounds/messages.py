"""What a cohort gets, as a tensor file.

Most methods broadcast the model and nothing else.  Such a message is the model's own file, so that
the model that a round has committed is written, stored and sent once.
"""

from __future__ import annotations

import numpy as np

from hansa.algorithms import Vectors
from hansa.params import Params
from hansa.params.dtypes import dtype_name
from hansa.params.model import ModelLayout, from_vector
from hansa.rounds.opening import BUFFERS


def to_message(layout: ModelLayout, message: Vectors) -> Params:
    """Return the file of a message; `from_message` gives back the same bits."""
    if is_model(layout, message):
        return layout.join(message.x, message.get(BUFFERS, np.empty(0)))
    return Params.of(dict(message))


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
        return Vectors(params.to_dict())
    x, buffers = layout.split(params)
    return Vectors({"x": x, BUFFERS: buffers} if len(buffers) else {"x": x})
