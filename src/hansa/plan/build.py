"""From a plan's words to the values they name, refusing what cannot work together (law L11)."""

from __future__ import annotations

import inspect
import math
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from hansa.aggregators import AGGREGATORS, Aggregator
from hansa.algorithms import ALGORITHMS, Algorithm, Capability
from hansa.errors import PlanError
from hansa.learners.learner import Hyper
from hansa.plan.load import nearest
from hansa.plan.schema import Named, Plan
from hansa.transforms import TRANSFORMS, Transform, chain

Import = Callable[[str], Any]
"""Return the project's module of that file name."""


class Method(NamedTuple):
    """The pure parts that a plan names."""

    algorithm: Algorithm
    aggregator: Aggregator
    transform: Transform


def build_method(plan: Plan, import_module: Import) -> Method:
    """Return the algorithm, aggregator and transforms of a plan.

    Args:
      plan: the plan.
      import_module: gives a file of the project, for methods of the user's own.

    Raises:
      PlanError: an unknown name or option, a wrong type, or parts that cannot work together.
    """
    algorithm = _build("algorithm", plan.algorithm, ALGORITHMS, import_module)
    aggregator = _build("aggregator", plan.aggregator, AGGREGATORS, import_module)
    steps = [
        _build(f"transforms[{i}]", named, TRANSFORMS, import_module)
        for i, named in enumerate(plan.transforms)
    ]
    if algorithm.needs_mean and not aggregator.linear:
        raise PlanError(
            "plan-impossible",
            f"{algorithm.name} needs the mean of its clients' updates; "
            f"{aggregator.name} is not a mean. Nothing was started.",
            'Use aggregator = "mean", or an algorithm such as fed_avg.',
        )
    return Method(algorithm, aggregator, chain(*steps))


_NEEDS = {
    Capability.CORRECT: "changes every local gradient",
    Capability.GRADIENT: "asks for gradients",
    Capability.PLAIN_SGD: "is derived for plain SGD steps (no momentum, no Adam)",
}


def check_capabilities(
    algorithm: Algorithm, capabilities: frozenset[Capability], kind: str
) -> None:
    """Refuse an algorithm that needs more than the learner offers."""
    for need in sorted(algorithm.needs - capabilities):
        raise PlanError(
            "plan-impossible",
            f"{algorithm.name} {_NEEDS[need]}; this {kind} learner cannot do that. "
            "Nothing was started.",
            "Change the learner's optimizer or kind, or use fed_avg, which only trains.",
        )


def check_plan(plan: Plan) -> None:
    """Refuse values that are out of range.

    Raises:
      PlanError: names the first key that is wrong, and what it may be.
    """
    learner, cohort, stop = plan.learner, plan.cohort, plan.stop
    rules: list[tuple[str, Any, bool, str]] = [
        ("name", plan.name, bool(re.fullmatch(r"[A-Za-z0-9][\w-]{0,63}", plan.name)), "a word"),
        ("rounds", plan.rounds, plan.rounds >= 1, "at least 1"),
        ("weight_limit", plan.weight_limit, _positive(plan.weight_limit), "positive"),
        ("bound", plan.bound, _positive(plan.bound), "positive"),
        ("learner.epochs", learner.epochs, learner.epochs >= 1, "at least 1"),
        ("learner.steps", learner.steps, (learner.steps or 1) >= 1, "at least 1"),
        ("learner.batch_size", learner.batch_size, _batch_ok(learner.batch_size), "at least 1"),
        ("learner.hidden", learner.hidden, all(n >= 1 for n in learner.hidden), "positive widths"),
        ("learner.optimizer.lr", learner.optimizer.lr, _positive(learner.optimizer.lr), "positive"),
        ("learner.schedule.every", learner.schedule.every, learner.schedule.every >= 1, ">= 1"),
        ("data.test", plan.data.test, 0 <= plan.data.test < 1, "at least 0 and below 1"),
        ("data.validation", plan.data.validation, 0 <= plan.data.validation < 1, "in [0, 1)"),
        ("data.clients", plan.data.clients, plan.data.clients >= 1, "at least 1"),
        ("cohort.fraction", cohort.fraction, 0 < cohort.fraction <= 1, "above 0, at most 1"),
        ("cohort.count", cohort.count, (cohort.count or 1) >= 1, "at least 1"),
        ("cohort.minimum", cohort.minimum, cohort.minimum >= 1, "at least 1"),
        ("evaluate.every", plan.evaluate.every, plan.evaluate.every >= 1, "at least 1"),
        ("evaluate.clients", plan.evaluate.clients, plan.evaluate.clients >= 0, "at least 0"),
        ("stop.patience", stop.patience, (stop.patience or 1) >= 1, "at least 1"),
        ("stop.minutes", stop.minutes, _positive(stop.minutes), "positive"),
        ("keep.every", plan.keep.every, plan.keep.every >= 0, "at least 0"),
    ]
    for i, change in enumerate(learner.change):
        where = f"learner.change[{i}]"
        rules += [
            (f"{where}.round", change.round, change.round >= 1, "at least 1"),
            (f"{where}.lr", change.lr, _positive(change.lr), "positive"),
            (f"{where}.epochs", change.epochs, (change.epochs or 1) >= 1, "at least 1"),
            (f"{where}.batch_size", change.batch_size, _batch_ok(change.batch_size), ">= 1"),
        ]
    for key, value, holds, allowed in rules:
        if not holds:
            raise PlanError(
                "plan-bad-value",
                f"The plan's {key} is {value!r}. Nothing was started.",
                f"It must be {allowed}.",
            )


def hyper_at(plan: Plan, round_number: int) -> Hyper:
    """Return the hyper-parameters of local training in a round (from 1).

    The learning rate is that of the optimizer, or of the last change that has begun, times the
    schedule's factor for this round.
    """
    learner = plan.learner
    optimizer = msgspec.structs.asdict(learner.optimizer)
    options = {k: v for k, v in optimizer.items() if v is not None}
    values: dict[str, Any] = {
        "epochs": learner.epochs,
        "steps": learner.steps,
        "batch_size": learner.batch_size,
        "lr": options.pop("lr"),
    }
    for change in sorted(learner.change, key=lambda c: c.round):
        if change.round <= round_number:
            changed = msgspec.structs.asdict(change)
            values |= {k: v for k, v in changed.items() if k != "round" and v is not None}
            if change.epochs is not None and change.steps is None:
                values["steps"] = None
    values["lr"] *= _factor(plan, round_number)
    if values["batch_size"] == "all":
        values["batch_size"] = None
    return Hyper(round=round_number, optimizer=options.pop("name"), options=options, **values)


def _factor(plan: Plan, round_number: int) -> float:
    schedule, past = plan.learner.schedule, round_number - 1
    match schedule.name:
        case "step":
            return schedule.gamma ** (past // schedule.every)
        case "exponential":
            return schedule.gamma**past
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * past / plan.rounds))
        case _:
            return 1.0


def _positive(value: float | None) -> bool:
    return value is None or (math.isfinite(value) and value > 0)


def _batch_ok(value: int | str | None) -> bool:
    return not isinstance(value, int) or value >= 1


def _build(where: str, named: Named, table: Mapping[str, Any], import_module: Import) -> Any:
    """Call the factory that `named` names, with its options checked against its types."""
    options = {"name": named} if isinstance(named, str) else dict(named)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise PlanError(
            "plan-wrong-type",
            f"The plan's {where} has no name: {named!r}.",
            f'For example: {where} = "{next(iter(table))}"',
        )
    file, colon, function = name.partition(":")
    factory = getattr(import_module(file), function, None) if colon else table.get(name)
    if factory is None:
        raise PlanError(
            "plan-unknown-name",
            f"The plan's {where} is {name!r}, which does not exist. Nothing was started.",
            f"Define {function} in {file}." if colon else nearest(name, table),
        )
    if not callable(factory):  # a value that takes no options
        if options:
            raise PlanError(
                "plan-unknown-key",
                f"The plan's {where} has options {sorted(options)}; {name} takes none.",
                f'For example: {where} = "{name}"',
            )
        return factory
    return factory(**_checked(where, factory, options))


def _checked(where: str, factory: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(factory).parameters
    hints = typing.get_type_hints(factory)
    for key, value in options.items():
        if key not in parameters:
            raise PlanError(
                "plan-unknown-key",
                f"The plan's {where} has an option {key!r} that {factory.__name__} does not take.",
                nearest(key, parameters) if parameters else "It takes no options.",
            )
        try:
            options[key] = msgspec.convert(value, hints.get(key, Any))
        except msgspec.ValidationError as error:
            raise PlanError(
                "plan-wrong-type",
                f"The plan's {where}.{key} is {value!r}: {error}.",
                "Nothing was started.",
            ) from None
    missing = [
        p.name for p in parameters.values() if p.default is p.empty and p.name not in options
    ]
    if missing:
        raise PlanError(
            "plan-bad-value",
            f"The plan's {where} lacks {', '.join(missing)}. Nothing was started.",
            f'For example: {{ name = "{factory.__name__}", {missing[0]} = 1.0 }}',
        )
    return options
