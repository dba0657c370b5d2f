"""Data without a hub: datasets, ways to share them out among clients, and folders of parts."""

from hansa.data.dataset import Dataset
from hansa.data.partition import Partition, partition
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
