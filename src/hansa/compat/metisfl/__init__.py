"""MetisFL's controller, learners and driver, on a Hansa server and its sites.

The three programs of a MetisFL project run as they stand once their import lines name this module.
The controller is a Hansa server over TLS, a learner's process is a site whose worker is the process
itself, and the driver submits a run and follows it.  See docs/howto/coming-from-metisfl.md.
"""

from hansa.compat.metisfl.config import (
    ClientParams,
    ControllerConfig,
    GlobalTrainConfig,
    ModelStoreConfig,
    ServerParams,
    TerminationSignals,
    TerminationSingals,
)
from hansa.compat.metisfl.controller import Controller
from hansa.compat.metisfl.driver import DriverSession
from hansa.compat.metisfl.learner import Learner
from hansa.compat.metisfl.partition import iid_partition
from hansa.compat.metisfl.taking_part import app

__all__ = [
    "ClientParams",
    "Controller",
    "ControllerConfig",
    "DriverSession",
    "GlobalTrainConfig",
    "Learner",
    "ModelStoreConfig",
    "ServerParams",
    "TerminationSignals",
    "TerminationSingals",
    "app",
    "iid_partition",
]
