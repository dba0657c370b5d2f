"""From a plan's words to the values they name, refusing what cannot work together (law L11)."""

from __future__ import annotations

import functools
import inspect
import json
import math
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from hansa.aggregators import AGGREGATORS, Aggregator
from hansa.algorithms import ALGORITHMS, Algorithm, Capability
from hansa.errors import PlanError
from hansa.learners.learner import Hyper
from hansa.limits import CHAIN_MODULES_MAX
from hansa.optimizers import MODULES, REGULARIZERS, Module
from hansa.optimizers import chain as joined
from hansa.optimizers.module import checked
from hansa.optimizers.named import OPTIMIZERS
from hansa.optimizers.schedules import cosine_factor, step_factor
from hansa.plan.rules import check_cohort, check_keep
from hansa.plan.schema import Named, Optimizer, Plan
from hansa.seeds import Key
from hansa.text import nearest
from hansa.transforms import TRANSFORMS, Transform, chain

Import = Callable[[str], Any]
"""Return the project's module of that file name."""

Made = TypeVar("Made")


class Method(NamedTuple):
    """The pure parts that a plan names."""

    algorithm: Algorithm
    aggregator: Aggregator
    transform: Transform
    chain: Module | None = None  # of the learner's local steps, if the plan has one


def build_method(plan: Plan, import_module: Import) -> Method:
    """Return the algorithm, aggregator and transforms of a plan.

    Args:
      plan: the plan.
      import_module: gives a file of the project, for methods of the user's own.

    Raises:
      PlanError: an unknown name or option, a wrong type, or parts that cannot work together.
    """
    build = functools.partial(build_named, import_module=import_module)
    key = Key.root(plan.seed).child("server")
    algorithm = build("algorithm", plan.algorithm, ALGORITHMS, kind=Algorithm, key=key)
    aggregator = build("aggregator", plan.aggregator, AGGREGATORS, kind=Aggregator)
    steps = [
        build(f"transforms[{i}]", named, TRANSFORMS, kind=Transform)
        for i, named in enumerate(plan.transforms)
    ]
    if algorithm.needs_mean and not aggregator.linear:
        raise PlanError(
            "plan-impossible",
            f"{algorithm.name} needs the mean of its clients' updates; "
            f"{aggregator.name} is not a mean. Nothing was started.",
            'Use aggregator = "mean", or an algorithm such as fed_avg.',
        )
    if algorithm.needs_mean and steps:
        raise PlanError(
            "plan-impossible",
            f"{algorithm.name} keeps at each client what it believes to have sent; "
            f"{steps[0].name} would send something else. Nothing was started.",
            "Leave transforms out, or use an algorithm without client state such as fed_avg.",
        )
    if algorithm.uniform and weighting_of(plan, algorithm) != "uniform":
        raise PlanError(
            "plan-impossible",
            f"{algorithm.name} weighs all clients equally; the plan's weighting is "
            f"{plan.weighting!r}. Nothing was started.",
            "Leave weighting out, or use an algorithm such as fed_avg, which takes any.",
        )
    check_cohort(plan.cohort, algorithm, aggregator)
    check_keep(plan, algorithm)
    local = _local_chain(plan.learner.optimizer, import_module)
    if local is not None and not algorithm.local_steps:
        raise PlanError(
            "plan-impossible",
            f"{algorithm.name} takes no local steps; the plan has learner.optimizer chain or "
            "regularizers, which nothing would use. Nothing was started.",
            "Leave them out, or use fed_avg; a server's chain is algorithm = "
            '{ name = "fed_opt", chain = [...] }.',
        )
    return Method(algorithm, aggregator, chain(*steps), local)


def _local_chain(optimizer: Optimizer, import_module: Import) -> Module | None:
    """Return the modules of local steps; None if the optimizer's name says it all."""
    if not optimizer.chain and not optimizer.regularizers:
        return None
    where = "learner.optimizer"
    parts = _modules(f"{where}.regularizers", optimizer.regularizers, import_module)
    options = named_options(optimizer)
    if not optimizer.chain:
        named: Named = {"name": optimizer.name, **options}
        made = build_named(where, named, OPTIMIZERS, kind=Module, import_module=import_module)
        return joined(*parts, made)
    if options or optimizer.name != "sgd":
        told = ", ".join(sorted(options)) or f"name = {optimizer.name!r}"
        raise PlanError(
            "plan-impossible",
            f"The plan's {where} has a chain, and {told} beside it. Nothing was started.",
            'Write it into the chain, as { name = "momentum", beta = 0.9 }, or set the whole of '
            "learner.optimizer, as { lr = 0.1, chain = [...] }.",
        )
    return joined(*parts, *_modules(f"{where}.chain", optimizer.chain, import_module))


def named_options(optimizer: Optimizer) -> dict[str, Any]:
    """Return the options that belong to the optimizer's name, where the plan has them."""
    options = msgspec.structs.asdict(optimizer)
    apart = ("name", "lr", "chain", "regularizers")
    return {k: v for k, v in options.items() if k not in apart and v is not None}


def weighting_of(plan: Plan, algorithm: Algorithm) -> str:
    """Return what updates weigh: the plan's word, or else the default of algorithm and data."""
    if plan.weighting or algorithm.uniform:
        return plan.weighting or "uniform"
    return "user" if plan.learner.rows == "path" else "examples"


def check_chain(method: Method, capabilities: frozenset[Capability], kind: str) -> None:
    """Refuse a chain of local modules that the learner would not use.

    Raises:
      PlanError: names the learner (plan-impossible).
    """
    if method.chain is None or Capability.CHAIN in capabilities:
        return
    raise PlanError(
        "plan-impossible",
        f"The plan's learner.optimizer has a chain or regularizers ({method.chain.name}); this "
        f"{kind} learner takes its steps in code of its own. Nothing was started.",
        "Use a numpy learner, or a torch one without optimizer(); at the server any learner has "
        'algorithm = { name = "fed_opt", chain = [...] }.',
    )


_NEEDS = {
    Capability.CORRECT: "changes every local gradient",
    Capability.GRADIENT: "asks for gradients",
    Capability.PLAIN_SGD: "is derived for plain SGD steps (no momentum, no Adam)",
    Capability.CHAIN: "changes the chain of local steps",
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
            "Use sgd with learner.optimizer.momentum = 0 and without a chain in a numpy or torch "
            "learner, or fed_avg, which only trains.",
        )


def hyper_at(plan: Plan, round_number: int) -> Hyper:
    """Return the hyper-parameters of local training in a round (from 1).

    The learning rate is that of the optimizer, or of the last change that has begun, times the
    schedule's factor for this round.  Rounds beyond the plan's, as a workflow may add them, train
    as its last one does.
    """
    learner = plan.learner
    scheduled = min(round_number, plan.rounds)
    values: dict[str, Any] = {
        "epochs": learner.epochs,
        "steps": learner.steps,
        "batch_size": learner.batch_size,
        "lr": learner.optimizer.lr,
    }
    for change in sorted(learner.change, key=lambda c: c.round):
        if change.round <= scheduled:
            changed = msgspec.structs.asdict(change)
            values |= {k: v for k, v in changed.items() if k != "round" and v is not None}
            if change.epochs is not None and change.steps is None:
                values["steps"] = None
    values["lr"] *= _factor(plan, scheduled)
    if values["batch_size"] == "all":
        values["batch_size"] = None
    options = named_options(learner.optimizer)
    return Hyper(
        round=round_number,
        scheduled=scheduled,
        optimizer=learner.optimizer.name,
        options=options,
        **values,
    )


def _factor(plan: Plan, round_number: int) -> float:
    schedule, past = plan.learner.schedule, round_number - 1
    match schedule.name:
        case "step":
            return step_factor(past, schedule.every, schedule.gamma)
        case "exponential":
            return schedule.gamma**past
        case "cosine":
            return cosine_factor(past, plan.rounds)
        case _:
            return 1.0


def _modules(where: str, named: Any, import_module: Import) -> tuple[Module, ...]:
    """Return the modules of an optimizer that a list names."""
    if not isinstance(named, list | tuple):
        raise PlanError(
            "plan-wrong-type",
            f"The plan's {where} is {named!r}, which is no list. Nothing was started.",
            'For example ["momentum", { name = "clip_global", norm = 1.0 }].',
        )
    if len(named) > CHAIN_MODULES_MAX:
        raise PlanError(
            "plan-bad-value",
            f"The plan's {where} has {len(named)} modules. Nothing was started.",
            f"It must have at most {CHAIN_MODULES_MAX}.",
        )
    table = REGULARIZERS if where.endswith(".regularizers") else MODULES
    made = []
    for i, one in enumerate(named):
        here = f"{where}[{i}]"
        module = build_named(here, one, table, kind=Module, import_module=import_module)
        name = one.get("name") if isinstance(one, dict) else one
        made.append(module if name in table else checked(module, f"{name} in {here}"))
    return tuple(made)


def build_named(
    where: str,
    named: Named,
    table: Mapping[str, Any],
    *,
    kind: type[Made],
    import_module: Import,
    key: Key | None = None,
) -> Made:
    """Return what `named` names, with its options checked against its factory's types.

    Args:
      where: key of the plan.
      named: its value.
      table: built-in names, each with a value or with a function that makes one.
      kind: what it must be.
      import_module: gives a file of the project.
      key: of the run, for a factory that has an argument of type `Key`; no option of a plan.

    Raises:
      PlanError: an unknown name or option, a wrong type, or a value that is out of range.
    """
    options = dict(named) if isinstance(named, dict) else {"name": named}
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
            f"Define {function} in {file}."
            if colon
            else f"Name its function, too: {name}:FUNCTION"
            if name.endswith(".py")
            else nearest(name, table),
        )
    made = factory
    if callable(factory):
        keys = {} if key is None else dict.fromkeys(_keys(factory), key)
        checked_options = _checked(
            name, factory, options, where=where, import_module=import_module, given=keys
        )
        made = factory(**checked_options, **keys)
    elif options:
        raise PlanError(
            "plan-unknown-key",
            f"The plan's {where} has options {sorted(options)}; {name} takes none.",
            f'For example: {where} = "{name}"',
        )
    if not isinstance(made, kind):
        raise PlanError(
            "plan-wrong-type",
            f"The plan's {where} is {name!r}, which gives {type(made).__name__} instead of "
            f"{kind.__name__}. Nothing was started.",
            f"Let {function or name} be {kind.__name__}(...), or a function that returns one.",
        )
    return made


def _checked(
    name: str,
    factory: Callable[..., Any],
    options: dict[str, Any],
    *,
    where: str,
    import_module: Import,
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the options in the types that the factory asks for, beside what it is given."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = {
        p.name: p
        for p in inspect.signature(factory).parameters.values()
        if p.kind in named and p.name not in given
    }
    hints = _hints(factory)
    for key, value in options.items():
        if key not in parameters:
            raise PlanError(
                "plan-unknown-key",
                f"The plan's {where} has an option {key!r} that {name} does not take.",
                nearest(key, parameters) if parameters else "It takes no options.",
            )
        if hints.get(key) == tuple[Module, ...]:
            options[key] = _modules(f"{where}.{key}", value, import_module)
            continue
        try:
            options[key] = msgspec.convert(value, hints.get(key, Any))
        except msgspec.ValidationError:
            raise PlanError(
                "plan-wrong-type",
                f"The plan's {where}.{key} is {value!r}. Nothing was started.",
                _wanted(hints.get(key, Any)),
            ) from None
        if isinstance(value, float) and not math.isfinite(value):
            raise PlanError(
                "plan-bad-value",
                f"The plan's {where}.{key} is {value!r}. Nothing was started.",
                "It must be a finite number.",
            )
    missing = [
        p.name for p in parameters.values() if p.default is p.empty and p.name not in options
    ]
    if missing:
        raise PlanError(
            "plan-bad-value",
            f"The plan's {where} lacks {', '.join(missing)}. Nothing was started.",
            f'For example: {{ name = "{name}", {_examples(missing, options, hints)} }}',
        )
    return options


def _examples(missing: list[str], options: dict[str, Any], hints: dict[str, Any]) -> str:
    """Return a plausible value for each missing option, beside those that were given."""
    given = [f"{key} = {json.dumps(value)}" for key, value in options.items()]
    made = [f"{key} = {_EXAMPLES.get(hints.get(key), '0.1')}" for key in missing]
    return ", ".join([*given, *made])


def _wanted(hint: Any) -> str:
    """Say what an option may be."""
    if typing.get_origin(hint) is typing.Literal:
        return f"It is one of: {', '.join(map(repr, typing.get_args(hint)))}."
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
    return (
        f"It must be {words.get(hint, f'like {_EXAMPLES[hint]}' if hint in _EXAMPLES else hint)}."
    )


_EXAMPLES: dict[Any, str] = {
    int: "1",
    str: '"..."',
    bool: "true",
    tuple[int, ...]: "[10, 20]",
    tuple[float, ...]: "[0.5, 0.1]",
}


def _keys(factory: Callable[..., Any]) -> list[str]:
    """Return the names of a factory's arguments that are keys of random numbers."""
    return [name for name, hint in _hints(factory).items() if hint is Key and name != "return"]


def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of a factory's arguments; none where a user's annotations do not resolve."""
    try:
        return typing.get_type_hints(factory)
    except (NameError, TypeError, AttributeError):
        return {}
