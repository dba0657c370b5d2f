"""Conformance checks for people who extend Hansa: each states which law is broken, and how."""

from hansa.testing.aggregators import check_aggregator
from hansa.testing.laws import LawBroken

__all__ = ["LawBroken", "check_aggregator"]
