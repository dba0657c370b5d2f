"""From the plan's learner table to a learner."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from hansa.errors import LearnerError, PlanError
from hansa.learners.function import FunctionLearner
from hansa.learners.learner import Learner
from hansa.learners.numpy import NumPyLearner
from hansa.learners.numpy_models import Perceptron
from hansa.plan.schema import LearnerPlan, Optimizer


def build_learner(plan: LearnerPlan, module: ModuleType | None, folder: Path | None) -> Learner:
    """Return the learner that a plan describes.

    Raises:
      LearnerError: the module lacks a function, or a package is not installed.
      PlanError: the learner kind does not know the optimizer or one of its options.
    """
    match plan.kind:
        case "numpy":
            return _numpy(plan, module)
        case "function":
            needed = _functions(module, plan.kind, "init", "train")
            return FunctionLearner(
                needed.init, needed.train, evaluate=getattr(needed, "evaluate", None)
            )
        case "torch":
            from hansa.learners.torch import TorchLearner

            needed = _functions(module, plan.kind, "model", "loss")
            return TorchLearner(
                needed.model,
                needed.loss,
                metrics=getattr(needed, "metrics", None),
                optimizer=getattr(needed, "optimizer", None),
                plain_sgd=_is_plain_sgd(plan.optimizer),
            )
        case "sklearn":
            from hansa.learners.sklearn import SklearnLearner

            return SklearnLearner(_functions(module, plan.kind, "model").model)
        case "script":
            from hansa.learners.script import ScriptLearner

            if plan.module is None or folder is None:
                raise _no_module(plan.kind)
            return ScriptLearner(folder / plan.module)


_OPTIONS = {
    "sgd": {"momentum", "weight_decay"},
    "adam": {"beta1", "beta2", "eps", "weight_decay"},
}


def _numpy(plan: LearnerPlan, module: ModuleType | None) -> NumPyLearner:
    optimizer = plan.optimizer
    known = _OPTIONS.get(optimizer.name)
    if known is None:
        raise PlanError(
            "plan-unknown-name",
            f"The numpy learner has no optimizer {optimizer.name!r}. Nothing was started.",
            "Use sgd or adam, or a torch learner.",
        )
    for option in ("momentum", "nesterov", "weight_decay", "beta1", "beta2", "eps"):
        if getattr(optimizer, option) is not None and option not in known:
            raise PlanError(
                "plan-unknown-key",
                f"{optimizer.name} of the numpy learner has no {option}. Nothing was started.",
                f"Valid: {', '.join(sorted(known))}.",
            )
    model = Perceptron(plan.hidden if plan.model == "mlp" else ())
    if module is not None:
        model = _functions(module, plan.kind, "init", "loss", "metrics")
    return NumPyLearner(model, plain_sgd=_is_plain_sgd(optimizer))


def _is_plain_sgd(optimizer: Optimizer) -> bool:
    return optimizer.name == "sgd" and not optimizer.momentum


def _functions(module: ModuleType | None, kind: str, *names: str) -> ModuleType:
    """Return the module once it is known to have these functions."""
    if module is None:
        raise _no_module(kind)
    if missing := [name for name in names if not callable(getattr(module, name, None))]:
        raise LearnerError(
            "learner-incomplete",
            f"{module.__file__} lacks {', '.join(f'{name}()' for name in missing)}, "
            f"which a {kind} learner needs.",
            f"See a complete example with: hansa init my-study --template {kind}",
        )
    return module


def _no_module(kind: str) -> PlanError:
    return PlanError(
        "plan-impossible",
        f"A {kind} learner needs the user's code, and the plan has no learner.module.",
        'Add module = "model.py" under [learner].',
    )
