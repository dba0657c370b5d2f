"""Simulation: all clients of a federation on one machine."""

from hansa.simulation.population import Asked, Partitioned, Placed, Population, project_population
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
