"""The project that a driver submits: a plan, and two lines that hand over to the learner."""

from __future__ import annotations

from hansa.compat.hand_over import MODULE, HandOver
from hansa.compat.metisfl.present import Settings

__all__ = ["HAND_OVER", "MODULE", "is_ours", "module_text", "write_project"]

HAND_OVER = HandOver(
    '''"""Trains in the processes of MetisFL learners; written by hansa.compat.metisfl."""

from hansa.compat.metisfl.present import functions

data, init, train, evaluate = functions(''',
    Settings,
    "MetisFL learner",
    "Submit it with hansa.compat.metisfl.DriverSession, or ask sites that are no learners.",
)
module_text, is_ours, write_project = HAND_OVER.text, HAND_OVER.is_ours, HAND_OVER.write
