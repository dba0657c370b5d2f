"""Conformance checks for people who extend Hansa: each states which law is broken, and how."""

from hansa.testing.aggregators import check_aggregator
from hansa.testing.algorithms import check_algorithm
from hansa.testing.federation import check_federation
from hansa.testing.laws import LawBroken
from hansa.testing.modules import check_module
from hansa.testing.transforms import check_transform

__all__ = [
    "LawBroken",
    "check_aggregator",
    "check_algorithm",
    "check_federation",
    "check_module",
    "check_transform",
]
