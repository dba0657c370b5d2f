"""Simulation: all clients of a federation on one machine."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hansa.simulation.population import (
        Asked,
        Partitioned,
        Placed,
        Population,
        project_population,
    )
    from hansa.simulation.simulate import Simulation, Unwatched, continue_run, open_run

__all__ = [
    "Asked",
    "Partitioned",
    "Placed",
    "Population",
    "Simulation",
    "Unwatched",
    "continue_run",
    "open_run",
    "project_population",
]


_WHERE = dict.fromkeys(("Simulation", "Unwatched", "continue_run", "open_run"), "simulate")


def __getattr__(name: str) -> Any:
    """Load what runs a simulation when it is first asked for: its clients have other uses."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    where = importlib.import_module(f"{__name__}.{_WHERE.get(name, 'population')}")
    return getattr(where, name)


def __dir__() -> list[str]:
    return sorted(__all__)
