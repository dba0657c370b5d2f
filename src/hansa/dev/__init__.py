"""Rehearsal: a whole federation on one machine, in real processes, for people and for tests."""

from hansa.dev.chaos import Chaos
from hansa.dev.children import Child
from hansa.dev.rehearsal import ADMIN, SERVER, Rehearsal, free_port

__all__ = ["ADMIN", "SERVER", "Chaos", "Child", "Rehearsal", "free_port"]
