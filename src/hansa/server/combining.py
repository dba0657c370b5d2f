"""Which plans can work through a combiner: those whose rounds are sums, and of which all is known.

A combiner sees its clients' updates, and the server above it only their sum.
"""

from __future__ import annotations

from typing import Any

from msgspec import convert

from hansa.errors import PlanError
from hansa.own import own_parts
from hansa.plan import Method, Plan
from hansa.server.submissions import read_method
from hansa.workflows import Workflow

WORKFLOWS = ("synchronous", "semi_synchronous", "evaluate_only")
"""Those whose exchanges are with a cohort as a whole."""


def fault(plan: Plan, method: Method, workflow: Workflow) -> str:
    """Say why a plan cannot work through a combiner; empty if it can."""
    aggregator, algorithm, cohort = method.aggregator, method.algorithm, plan.cohort
    if not aggregator.linear:
        return f"{aggregator.name} must see each client's update, and a combiner passes on a sum"
    if plan.server_functions.file is not None:
        return "its server functions see each client's update, and a combiner passes on a sum"
    if plan.initial != "server":
        return f'the first model is the clients\' own (initial = "{plan.initial}")'
    if algorithm.needs_mean:
        return (
            f"{algorithm.name} keeps at each client what it believes to have counted, and a "
            "combiner's sum may come too late for its round"
        )
    if workflow.name not in WORKFLOWS:
        return f"the workflow {workflow.name} asks clients one by one, or in another order"
    if cohort.over > 1:
        return f"cohort.over is {cohort.over:g}, and what is too much cannot leave a sum again"
    if cohort.late == "discount":
        return 'cohort.late is "discount", and a sum of several rounds cannot be discounted'
    return ""


def judged(table: dict[str, Any]) -> tuple[Plan, Method | None, str]:
    """Return a submitted plan, its method, and why it cannot work through a combiner, if so.

    There is no method of a plan with parts of its own: their code runs at one server only.

    Raises:
      PlanError: it cannot run, or not on a federation.
    """
    plan = convert(table, Plan)
    if any(own := own_parts(plan)):
        what = f"{own.told()}, code of the project, which runs beside the sites' updates"
        return plan, None, f"{what}; a combiner runs none, and passes on a sum"
    plan, method, workflow = read_method(table)
    return plan, method, fault(plan, method, workflow)


def check_combiners(table: dict[str, Any], combiners: list[str]) -> None:
    """Refuse a plan that cannot work with the combiners that a federation has (law L11).

    Raises:
      PlanError: plan-impossible, with the combiner and the reason.
    """
    why = judged(table)[2] if combiners else ""
    if why:
        raise PlanError(
            "plan-impossible",
            f"This federation has the combiner {combiners[0]}, and the plan cannot work through "
            f"one: {why}. Nothing was recorded.",
            'Use aggregator = "mean", an algorithm without client state and a synchronous '
            "workflow; or a federation whose sites join the server itself.",
        )
