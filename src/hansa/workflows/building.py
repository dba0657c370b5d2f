"""From the name of a workflow in a plan to the workflow."""

from __future__ import annotations

from typing import Any

from hansa.plan import Import, Method, Plan, build_named
from hansa.workflows.asynchronous import asynchronous
from hansa.workflows.broadcast_and_process import broadcast_and_process
from hansa.workflows.cross_site import cross_site_evaluation
from hansa.workflows.cyclic import cyclic
from hansa.workflows.evaluate_only import EVALUATE_ONLY
from hansa.workflows.initial import initialised
from hansa.workflows.semi_synchronous import semi_synchronous
from hansa.workflows.split import split
from hansa.workflows.synchronous import synchronous
from hansa.workflows.workflow import Workflow

WORKFLOWS: dict[str, Any] = {
    "synchronous": Workflow("synchronous", synchronous),
    "semi_synchronous": semi_synchronous,
    "asynchronous": asynchronous,
    "cyclic": cyclic,
    "cross_site_evaluation": cross_site_evaluation,
    "evaluate_only": EVALUATE_ONLY,
    "split": split,
    "broadcast_and_process": broadcast_and_process,
}
"""What `workflow = "..."` in a plan may name."""


def build_workflow(plan: Plan, method: Method, import_module: Import) -> Workflow:
    """Return the workflow of a plan.

    Args:
      plan: the plan.
      method: its algorithm and aggregator.
      import_module: gives a file of the project, for workflows of the user's own.

    Raises:
      PlanError: an unknown name or option, or the rest of the plan does not fit.
    """
    made = build_named(
        "workflow", plan.workflow, WORKFLOWS, kind=Workflow, import_module=import_module
    )
    made.check(plan, method)
    if plan.initial == "server":
        return made
    tells = f"{made.tells} {_TELLS}".strip()
    return made._replace(run=initialised(made.run, plan.initial), tells=tells)


_TELLS = "Weights that are made from your data alone are sent before the first round."
