"""From the plan's learner table to a learner."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import cast

from hansa.algorithms import Capability
from hansa.errors import LearnerError, PlanError
from hansa.learners.function import FunctionLearner, no_training
from hansa.learners.learner import Learner
from hansa.learners.named_tasks import tasks_in
from hansa.learners.numpy import NumPyLearner, NumPyModel
from hansa.learners.numpy_models import Perceptron
from hansa.optimizers.named import OPTIMIZERS
from hansa.plan.build import named_options
from hansa.plan.schema import LearnerPlan, Optimizer, Schedule


def build_learner(
    plan: LearnerPlan,
    module: ModuleType | None,
    folder: Path | None,
    code: Mapping[str, bytes] | None = None,
) -> Learner:
    """Return the learner that a plan describes.

    Args:
      plan: the learner's table.
      module: the user's code, imported.
      folder: of the project.
      code: the project's files, which a command runs.

    Raises:
      LearnerError: the module lacks a function, or a package is not installed.
      PlanError: the learner kind does not know the optimizer or one of its options.
    """
    match plan.kind:
        case "numpy":
            return _numpy(plan, module)
        case "function":
            # Code that answers named tasks, as in split learning, need not train by itself.
            apart = not hasattr(module, "train") and bool(tasks_in(module))
            needed = _functions(module, plan.kind, "init", *(() if apart else ("train",)))
            return FunctionLearner(
                needed.init,
                no_training if apart else needed.train,
                evaluate=getattr(needed, "evaluate", None),
                close=getattr(needed, "close", None),
                predict=getattr(needed, "predict", None),
            )
        case "torch":
            return _torch(plan, _functions(module, plan.kind, "model", "loss"))
        case "sklearn":
            return _sklearn(plan, _functions(module, plan.kind, "model"))
        case "script":
            from hansa.learners.script import ScriptLearner

            if plan.module is None or folder is None:
                raise _no_module(plan.kind)
            return ScriptLearner(folder / plan.module)
        case "command":
            from hansa.learners.command import CommandLearner, Commands

            return CommandLearner(
                Commands(plan.commands, code or {}, plan.rows, plan.time_s, plan.requirements)
            )
        case "python":
            raise PlanError(
                "plan-impossible",
                'The plan\'s learner.kind is "python", which only hansa.run(learner=...) makes.',
                "Use numpy, torch, sklearn, function, script or command.",
            )


def check_made_learner(plan: LearnerPlan, learner: Learner) -> None:
    """Refuse an option of the optimizer that a learner made in Python would not use.

    Raises:
      PlanError: the optimizer does not know one of its options.
    """
    if Capability.CHAIN in learner.capabilities:
        _check_optimizer(plan.optimizer)


def _check_optimizer(optimizer: Optimizer) -> None:
    """Refuse an option that the optimizer does not take."""
    known = inspect.signature(OPTIMIZERS[optimizer.name]).parameters
    for option in named_options(optimizer):
        if option not in known:
            raise PlanError(
                "plan-unknown-key",
                f"The optimizer {optimizer.name} has no {option}. Nothing was started.",
                f"Valid: {', '.join(sorted([*known, 'lr']))}.",
            )
    if optimizer.nesterov and not optimizer.momentum:
        raise PlanError(
            "plan-impossible",
            "The plan's learner.optimizer.nesterov has no momentum to look ahead with.",
            "Add for example momentum = 0.9.",
        )


def _numpy(plan: LearnerPlan, module: ModuleType | None) -> NumPyLearner:
    _check_optimizer(plan.optimizer)
    model: NumPyModel = Perceptron(plan.hidden if plan.model == "mlp" else ())
    if module is not None:
        model = cast(NumPyModel, _functions(module, plan.kind, "init", "loss", "metrics"))
    return NumPyLearner(model, plain_sgd=is_plain_sgd(plan.optimizer))


def _torch(plan: LearnerPlan, module: ModuleType) -> Learner:
    from hansa.learners.torch import TorchLearner

    own = getattr(module, "optimizer", None)
    if own is None:
        _check_optimizer(plan.optimizer)
    return TorchLearner(
        module.model,
        module.loss,
        metrics=getattr(module, "metrics", None),
        optimizer=own,
        predict=getattr(module, "predict", None),
        plain_sgd=is_plain_sgd(plan.optimizer),
    )


def _sklearn(plan: LearnerPlan, module: ModuleType) -> Learner:
    from hansa.learners.sklearn import SklearnLearner

    learner = SklearnLearner(module.model)
    changes_rate = any(change.lr is not None for change in plan.change)
    asked = plan.optimizer != Optimizer() or plan.schedule != Schedule() or changes_rate
    if asked and not learner.takes_hyper:
        raise PlanError(
            "plan-impossible",
            "The plan sets a learning rate or optimizer, and model() of the sklearn learner does "
            "not ask for it. Nothing was started.",
            "Write model(hyper) and use hyper.lr, or set the rate in model() alone.",
        )
    return learner


def is_plain_sgd(optimizer: Optimizer) -> bool:
    """Return whether local steps are x - lr * g."""
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
