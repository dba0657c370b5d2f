"""What a federation cannot do is refused before anything is sent (law L11)."""

from __future__ import annotations

from typing import Any

from hansa.errors import PlanError
from hansa.plan.schema import Named
from hansa.project import MADE_IN_PYTHON, Project


def check_deployable(project: Project) -> None:
    """Refuse a project that can be simulated and not deployed.

    Raises:
      PlanError: its code is not in files, or would have to run at the server.
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
    parts: dict[str, Named] = {
        "workflow": plan.workflow,
        "algorithm": plan.algorithm,
        "aggregator": plan.aggregator,
    }
    parts |= {f"transforms[{i}]": named for i, named in enumerate(plan.transforms)}
    for key, named in parts.items():
        if ".py:" in (name := _name(named)):
            raise PlanError(
                "plan-impossible",
                f"The plan's {key} is {name!r}, code of the project. A server runs none but "
                "server functions. Nothing was sent.",
                f"Use a built-in {key.partition('[')[0].removesuffix('s')}, or simulate the plan: "
                "hansa run without --on.",
            )


def _name(named: Any) -> str:
    return str(named.get("name", "")) if isinstance(named, dict) else str(named)
