"""From the name of a workflow in a plan to the workflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa.plan import Import, Method, Plan, build_named
from hansa.workflows.asynchronous import asynchronous
from hansa.workflows.broadcast_and_process import broadcast_and_process
from hansa.workflows.cross_site import cross_site_evaluation
from hansa.workflows.cyclic import cyclic
from hansa.workflows.evaluate_only import EVALUATE_ONLY
from hansa.workflows.initial import TASK as INITIAL
from hansa.workflows.initial import initialised
from hansa.workflows.reports import VALIDATE
from hansa.workflows.semi_synchronous import semi_synchronous
from hansa.workflows.split import TASKS, split
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


def named_tasks(plan: Plan) -> frozenset[str] | None:
    """Return the named tasks that a plan asks for; None where a workflow of the project decides.

    >>> sorted(named_tasks(Plan(initial="mean")) or ())
    ['initial_weights']
    """
    if of_project(plan):
        return None
    said = _said(plan)
    found = {VALIDATE} if plan.evaluate.reports else set()
    found |= {INITIAL} if plan.initial != "server" else set()
    found |= set(TASKS) if said["name"] == "split" else set()
    found |= {str(said.get("task"))} if said["name"] == "broadcast_and_process" else set()
    return frozenset(found)


def steps_told(plan: Plan) -> bool:
    """Return whether a plan lets its server say how many local steps each client takes.

    >>> steps_told(Plan()), steps_told(Plan(workflow="semi_synchronous"))
    (False, True)
    """
    return of_project(plan) or _said(plan).get("name") == "semi_synchronous"


def of_project(plan: Plan) -> bool:
    """Return whether a plan's workflow is the project's own, which may do what its code says."""
    return _said(plan).get("name") not in WORKFLOWS


def _said(plan: Plan) -> Mapping[str, Any]:
    return plan.workflow if isinstance(plan.workflow, Mapping) else {"name": plan.workflow}


_TELLS = "Weights that are made from your data alone are sent before the first round."
