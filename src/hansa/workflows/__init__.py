"""The order of exchanges between a server and its clients."""

from hansa.workflows.federation import (
    Commit,
    Evaluated,
    Federation,
    GlobalState,
    Problem,
    Trained,
)
from hansa.workflows.stopping import Progress
from hansa.workflows.synchronous import synchronous

__all__ = [
    "Commit",
    "Evaluated",
    "Federation",
    "GlobalState",
    "Problem",
    "Progress",
    "Trained",
    "synchronous",
]
