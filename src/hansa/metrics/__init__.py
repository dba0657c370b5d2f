"""Metrics: what clients report, how reports are pooled, and what a plan may ask for."""

from hansa.metrics.mean import Mean, Metrics, lower_is_better, pooled
from hansa.metrics.measures import MEASURES, NONE_ASKED, Asked, Predicted, check_number, shown, sums
from hansa.metrics.summary import confusions, summarise, summarise_all

__all__ = [
    "MEASURES",
    "NONE_ASKED",
    "Asked",
    "Mean",
    "Metrics",
    "Predicted",
    "check_number",
    "confusions",
    "lower_is_better",
    "pooled",
    "shown",
    "summarise",
    "summarise_all",
    "sums",
]
