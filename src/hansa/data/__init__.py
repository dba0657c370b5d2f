"""Data without a hub: datasets, ways to share them out among clients, and folders of parts."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hansa.data.schemes import (
    Biased,
    Dirichlet,
    Files,
    Iid,
    Labels,
    Natural,
    Quantity,
    Scheme,
)

if TYPE_CHECKING:
    from hansa.data.dataset import Dataset
    from hansa.data.partitioner import Partition, partition
    from hansa.data.sources import NAMES, load, load_test
    from hansa.data.split import SplitSummary, write_split

__all__ = [
    "NAMES",
    "Biased",
    "Dataset",
    "Dirichlet",
    "Files",
    "Iid",
    "Labels",
    "Natural",
    "Partition",
    "Quantity",
    "Scheme",
    "SplitSummary",
    "load",
    "load_test",
    "partition",
    "write_split",
]


def __getattr__(name: str) -> Any:
    """Load what holds arrays when it is first asked for: a plan names schemes, and no rows."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    where = {
        "Dataset": "dataset",
        "Partition": "partitioner",
        "SplitSummary": "split",
        "partition": "partitioner",
        "write_split": "split",
    }.get(name, "sources")
    return getattr(importlib.import_module(f"{__name__}.{where}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
