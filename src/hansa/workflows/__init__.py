"""The order of exchanges between a server and its clients."""

from hansa.workflows.asynchronous import asynchronous
from hansa.workflows.broadcast_and_process import broadcast_and_process
from hansa.workflows.building import WORKFLOWS, build_workflow
from hansa.workflows.cross_site import cross_site_evaluation
from hansa.workflows.cyclic import cyclic
from hansa.workflows.driving import drive
from hansa.workflows.federation import (
    ANYBODY,
    NO_SETTINGS,
    Answered,
    Arrival,
    Arrived,
    AtWork,
    Commit,
    Evaluated,
    Federation,
    GlobalState,
    Problem,
    Trained,
    Watcher,
    problem_events,
)
from hansa.workflows.semi_synchronous import semi_synchronous
from hansa.workflows.state_files import (
    as_stored,
    from_files,
    rounded,
    to_files,
)
from hansa.workflows.stopping import Progress
from hansa.workflows.synchronous import one_round, synchronous
from hansa.workflows.workflow import Workflow

__all__ = [
    "ANYBODY",
    "NO_SETTINGS",
    "WORKFLOWS",
    "Answered",
    "Arrival",
    "Arrived",
    "AtWork",
    "Commit",
    "Evaluated",
    "Federation",
    "GlobalState",
    "Problem",
    "Progress",
    "Trained",
    "Watcher",
    "Workflow",
    "as_stored",
    "asynchronous",
    "broadcast_and_process",
    "build_workflow",
    "cross_site_evaluation",
    "cyclic",
    "drive",
    "from_files",
    "one_round",
    "problem_events",
    "rounded",
    "semi_synchronous",
    "synchronous",
    "to_files",
]
