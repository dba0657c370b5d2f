"""The order of exchanges between a server and its clients."""

from hansa.workflows.driving import drive
from hansa.workflows.federation import (
    Commit,
    Evaluated,
    Federation,
    GlobalState,
    Problem,
    Trained,
)
from hansa.workflows.state_files import from_files, rounded, to_files
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
    "drive",
    "from_files",
    "rounded",
    "synchronous",
    "to_files",
]
