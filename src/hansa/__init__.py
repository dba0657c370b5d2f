"""Hansa: federated learning that starts in seconds, runs offline and survives any crash.

    >>> import hansa
    >>> result = hansa.run(                                       # doctest: +SKIP
    ...     learner=hansa.numpy_learner("mlp"),
    ...     data=hansa.split("digits", "dirichlet", alpha=0.5, clients=5),
    ...     rounds=10,
    ... )

Names are imported when they are first used, so `import hansa` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hansa.api import clients, function_learner, load_model, numpy_learner, run, sklearn, split
    from hansa.api import torch as torch
    from hansa.data import Dataset
    from hansa.data import load as load_data
    from hansa.errors import HansaError
    from hansa.learners.named_tasks import task
    from hansa.params import Params
    from hansa.runs.result import Result
    from hansa.script import local_client, local_data, tasks

_WHERE = {
    "Dataset": ("hansa.data", "Dataset"),
    "HansaError": ("hansa.errors", "HansaError"),
    "Params": ("hansa.params", "Params"),
    "Result": ("hansa.runs.result", "Result"),
    "clients": ("hansa.api", "clients"),
    "function_learner": ("hansa.api", "function_learner"),
    "load_data": ("hansa.data", "load"),
    "load_model": ("hansa.api", "load_model"),
    "local_client": ("hansa.script", "local_client"),
    "local_data": ("hansa.script", "local_data"),
    "numpy_learner": ("hansa.api", "numpy_learner"),
    "run": ("hansa.api", "run"),
    "sklearn": ("hansa.api", "sklearn"),
    "split": ("hansa.api", "split"),
    "task": ("hansa.learners.named_tasks", "task"),
    "tasks": ("hansa.script", "tasks"),
    "torch": ("hansa.api", "torch"),
}

__all__ = [
    "Dataset",
    "HansaError",
    "Params",
    "Result",
    "__version__",
    "clients",
    "function_learner",
    "load_data",
    "load_model",
    "local_client",
    "local_data",
    "numpy_learner",
    "run",
    "sklearn",
    "split",
    "task",
    "tasks",
    "torch",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'hansa' has no attribute {name!r}")
    module, attribute = _WHERE[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
