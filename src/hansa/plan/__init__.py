"""Plans: their types, how they are read, and what they build."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hansa.plan.load import PLAN_FILE, LoadedPlan, flatten, load_plan, read_plan
from hansa.plan.schema import Plan
from hansa.text import nearest

if TYPE_CHECKING:
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
    from hansa.plan.rules import check_plan
    from hansa.plan.weights import weight_limit

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


def __getattr__(name: str) -> Any:
    """Load what builds a plan's parts when it is first asked for: reading one takes no NumPy."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    where = {"check_plan": "rules", "weight_limit": "weights"}.get(name, "build")
    return getattr(importlib.import_module(f"{__name__}.{where}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
