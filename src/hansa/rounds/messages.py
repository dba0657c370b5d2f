"""What a cohort gets, as a tensor file.

Most methods broadcast the model and nothing else.  Such a message is the model's own file, so that
the model that a round has committed is written, stored and sent once.
"""

from __future__ import annotations

import numpy as np

from hansa.algorithms import Vectors
from hansa.params import Params
from hansa.params.model import ModelLayout
from hansa.rounds.opening import BUFFERS


def to_message(layout: ModelLayout, message: Vectors) -> Params:
    """Return the file of a message; `from_message` gives back the same bits."""
    x, buffers = message.x, message.get(BUFFERS, np.empty(0))
    alone = message.keys() <= {"x", BUFFERS} and layout.exact()
    if alone and layout.trained.dtypes and np.array_equal(layout.rounded(buffers), buffers):
        model = layout.join(x, buffers)
        if layout.split(model)[0].dtype == x.dtype:
            return model
    return Params.of(dict(message))


def from_message(layout: ModelLayout, params: Params) -> Vectors:
    """Return a message's vectors; they may be views of the file."""
    if params.layout != layout.layout:
        return Vectors(params.to_dict())
    x, buffers = layout.split(params)
    return Vectors({"x": x, BUFFERS: buffers} if len(buffers) else {"x": x})
