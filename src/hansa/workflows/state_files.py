"""The server's state between two rounds as tensor files, and back, bit for bit.

A commit is a model file, which people use, and a file of what the algorithm keeps besides; the
second is absent where the first holds all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hansa.aggregators import Aggregate
from hansa.algorithms import Algorithm
from hansa.errors import RunError
from hansa.params import Params
from hansa.params.model import ModelLayout
from hansa.rounds import BUFFERS
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
    """Return a state whose buffers are as they are when they are read back from disk."""
    return state._replace(buffers=layout.rounded(state.buffers))


def check_exact(layout: ModelLayout) -> None:
    """Refuse a model that its own file does not hold as the algorithm has it.

    Raises:
      RunError: plan-impossible.
    """
    if not layout.exact():
        raise RunError(
            "plan-impossible",
            f"The model's trained tensors are {', '.join(layout.trained.dtypes)}; an asynchronous "
            "run goes on from models read back from their files, which must be float32 or float64 "
            "throughout. Nothing was trained.",
            "Train in one of these, or use another workflow.",
        )
