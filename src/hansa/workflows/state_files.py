"""The server's state between two rounds as tensor files, and back, bit for bit.

A commit is a model file, which people use, and a file of what the algorithm keeps besides; the
second is absent where the first holds all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hansa.aggregators import Aggregate
from hansa.algorithms import Algorithm, Vectors
from hansa.params import Params
from hansa.params.model import ModelLayout
from hansa.rounds import BUFFERS, largest_parameter
from hansa.workflows.federation import GlobalState


def to_files(layout: ModelLayout, state: GlobalState) -> tuple[Params, Params | None]:
    """Return the model, and what the algorithm keeps besides it, or None."""
    vectors = state.algorithm
    model = layout.join(vectors.x, state.buffers)
    extra = {name: v for name, v in vectors.items() if name != "x" or not layout.exact()}
    return model, Params.of(extra) if extra else None


def from_files(
    algorithm: Algorithm, layout: ModelLayout, *, model: Params, extra: Params | None
) -> GlobalState:
    """Return the state that `to_files` was given; of a seed model, the state before round 1."""
    x, buffers = layout.split(model)
    vectors = algorithm.init(np.array(x))
    if extra is not None:
        vectors |= extra.copy().to_dict()
    return GlobalState(vectors, buffers)


def own_model(
    layout: ModelLayout, x: np.ndarray, buffers: np.ndarray, update: Mapping[str, Any]
) -> Params:
    """Return the model that a client's training came to.

    Args:
      layout: of the model.
      x: what the round began with, trained values.
      buffers: as the round began with them, where the update has none.
      update: decoded; its `delta` is the change of x.
    """
    mine = np.asarray(update.get(BUFFERS, buffers), np.float64)
    trained = np.asarray(x + np.asarray(update["delta"]), x.dtype)
    return layout.join(trained, layout.rounded(mine) if len(mine) else mine)


def rounded(layout: ModelLayout, aggregate: Aggregate | None) -> Aggregate | None:
    """Round averaged buffers to their own dtypes, as they are when read back from disk."""
    if aggregate is None or BUFFERS not in aggregate.vectors:
        return aggregate
    buffers = layout.rounded(aggregate.vectors[BUFFERS])
    return aggregate._replace(vectors={**aggregate.vectors, BUFFERS: buffers})


def as_stored(layout: ModelLayout, state: GlobalState) -> GlobalState:
    """Return a state whose model is as it is when it is read back from its file.

    What the file rounds, such as float16, is rounded: those that a run goes back to are the same
    before and after a restart.

    Raises:
      RunError: run-diverged, the file cannot hold its values.
    """
    if layout.exact():
        return state._replace(buffers=layout.rounded(state.buffers))
    x, buffers = layout.split(layout.join(state.algorithm.x, state.buffers))
    largest_parameter(x)
    return GlobalState(Vectors(state.algorithm | {"x": np.array(x)}), buffers)
