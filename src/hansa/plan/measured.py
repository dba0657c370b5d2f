"""The metrics that a plan asks for by name."""

from __future__ import annotations

from hansa.errors import PlanError
from hansa.learners.learner import Learner
from hansa.metrics import MEASURES, Asked
from hansa.plan.schema import Plan
from hansa.text import nearest


def asked_of(plan: Plan) -> Asked:
    """Return what is measured beside the learner's own metrics."""
    return Asked(plan.evaluate.metrics, plan.evaluate.roc_bins)


def check_stop(plan: Plan, learner: Learner) -> None:
    """Refuse to stop by a metric that nobody measures, where the learner says what it measures.

    Of others it shows at the first evaluation.

    Raises:
      PlanError: plan-bad-value.
    """
    measures: frozenset[str] | None = getattr(learner, "measures", None)
    stop, asked = plan.stop, plan.evaluate.metrics
    if measures is None or (stop.target is None and stop.patience is None):
        return
    derived = any(stop.metric.startswith(name.removesuffix("_per_class")) for name in asked)
    if stop.metric not in measures and not derived:
        raise PlanError(
            "plan-bad-value",
            f"The plan stops by {stop.metric!r}, which nobody measures. Nothing was started.",
            f"Set stop.metric to one of: {', '.join(sorted({*measures, *asked}))}.",
        )


def check_measured(plan: Plan, learner: Learner) -> None:
    """Refuse metrics that nobody knows, or that cannot be had together or from this learner.

    Raises:
      PlanError: names the metric, and what would work.
    """
    check_stop(plan, learner)
    kinds: dict[str, str] = {}
    for name in plan.evaluate.metrics:
        if name not in MEASURES:
            raise PlanError(
                "plan-unknown-name",
                f"The plan's evaluate.metrics has {name!r}, which does not exist. "
                "Nothing was started.",
                f"{nearest(name, MEASURES)} All: {', '.join(sorted(MEASURES))}.",
            )
        kinds.setdefault(MEASURES[name].of, name)
    if len(kinds) > 1:
        raise PlanError(
            "plan-impossible",
            f"The plan's evaluate.metrics has {kinds['classes']}, which is of classes, and "
            f"{kinds['numbers']}, which is of numbers. Nothing was started.",
            "Ask for those of one sort.",
        )
    if kinds and not getattr(learner, "can_predict", False):
        raise PlanError(
            "plan-impossible",
            f"The plan's evaluate.metrics needs predictions, which this {plan.learner.kind} "
            "learner does not offer. Nothing was started.",
            "Define predict() in the module; scripts and commands cannot, and return means from "
            "their own evaluation.",
        )
