"""Plans: their types, how they are read, and what they build."""

from hansa.plan.build import (
    Import,
    Method,
    build_method,
    build_named,
    check_capabilities,
    check_chain,
    hyper_at,
    weighting_of,
)
from hansa.plan.load import PLAN_FILE, LoadedPlan, flatten, load_plan, read_plan
from hansa.plan.rules import check_plan
from hansa.plan.schema import Plan
from hansa.plan.weights import weight_limit
from hansa.text import nearest

__all__ = [
    "PLAN_FILE",
    "Import",
    "LoadedPlan",
    "Method",
    "Plan",
    "build_method",
    "build_named",
    "check_capabilities",
    "check_chain",
    "check_plan",
    "flatten",
    "hyper_at",
    "load_plan",
    "nearest",
    "read_plan",
    "weight_limit",
    "weighting_of",
]
