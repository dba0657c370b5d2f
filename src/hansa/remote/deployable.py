"""What a federation cannot do is refused before anything is sent (law L11)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hansa.code import MADE_IN_PYTHON, Draft
from hansa.errors import PlanError

if TYPE_CHECKING:
    from hansa.project import Project


def check_deployable(project: Project | Draft) -> None:
    """Refuse a project that can be simulated and not deployed.

    Raises:
      PlanError: its code is not in files, or its models would be in a simulation's memory.
    """
    plan = project.plan
    if plan.learner.kind == MADE_IN_PYTHON or project.folder is None:
        raise PlanError(
            "plan-impossible",
            "The learner was made in Python; sites run code that their owners can read, which "
            "comes as files. Nothing was sent.",
            "Make a project folder with: hansa init my-study",
        )
    if plan.keep.store == "memory":
        raise PlanError(
            "plan-impossible",
            'The plan says keep.store = "memory", which is the memory of a simulation. Nothing was '
            "sent.",
            'Use --set keep.store=disk, or "redis" if the server has one.',
        )
