"""The values that a plan's keys may have, beyond their types."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from hansa.aggregators import Aggregator
from hansa.algorithms import Algorithm
from hansa.data import Files
from hansa.errors import PlanError
from hansa.learners.command_places import places_of, unknown_places
from hansa.learners.named_tasks import is_name
from hansa.limits import (
    COMMAND_S_MAX,
    FUNCTION_S_MAX,
    LATE_ROUNDS_MAX,
    METRICS_MAX,
    OVER_MAX,
    RESOURCES_MAX,
    SLOTS_MAX,
    SPEC_EXPONENT_MAX,
)
from hansa.plan.criteria import chosen
from hansa.plan.schema import COMMANDS, CohortPlan, KeepPlan, LearnerPlan, Plan

_NAME = re.compile(r"[^\W_][\w-]{0,63}")  # begins with a letter or digit, of any language
_CLIENT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")  # as a site's in `hansa.protocol.messages`
_CLIENTS_ARE = "at least 1, or different names of small letters, digits, '.', '_' and '-'"
_RESOURCE = re.compile(r"[a-z][a-z0-9_-]{0,31}")  # as in `hansa.protocol.messages`
_NUMPY_FILE = re.compile(r"([A-Za-z0-9_-]{1,64}/){0,3}[A-Za-z0-9_-]{1,64}\.np[yz]")

Rule = tuple[str, Any, bool, str]
"""Key, value, whether that holds, and what it may be."""


def check_plan(plan: Plan) -> None:
    """Refuse values that are out of range.

    Raises:
      PlanError: names the first key that is wrong, and what it may be.
    """
    cohort, stop = plan.cohort, plan.stop
    limits = f"between 2^-{SPEC_EXPONENT_MAX} and 2^{SPEC_EXPONENT_MAX}"
    rules: list[Rule] = [
        ("name", plan.name, bool(_NAME.fullmatch(plan.name)), "64 letters, digits, - or _ at most"),
        ("rounds", plan.rounds, plan.rounds >= 1, "at least 1"),
        ("weight_limit", plan.weight_limit, _summable(plan.weight_limit), limits),
        ("bound", plan.bound, _summable(plan.bound), limits),
        ("data.test", plan.data.test, 0 <= plan.data.test < 1, "at least 0 and below 1"),
        ("data.validation", plan.data.validation, 0 <= plan.data.validation < 1, "in [0, 1)"),
        ("data.clients", plan.data.clients, _clients(plan.data.clients), _CLIENTS_ARE),
        ("data.shape", plan.data.shape, all(n >= 1 for n in plan.data.shape or ()), "sizes"),
        ("data.classes", plan.data.classes, _at_least_1(plan.data.classes), "at least 1"),
        *_cohort_rules(cohort),
        *_resource_rules(plan.resources),
        ("evaluate.every", plan.evaluate.every, plan.evaluate.every >= 1, "at least 1"),
        ("evaluate.clients", plan.evaluate.clients, plan.evaluate.clients >= 0, "at least 0"),
        (
            "evaluate.roc_bins",
            plan.evaluate.roc_bins,
            2 <= plan.evaluate.roc_bins <= METRICS_MAX // 2,
            f"from 2 to {METRICS_MAX // 2}",
        ),
        ("stop.target", stop.target, math.isfinite(stop.target or 0), "finite"),
        ("stop.patience", stop.patience, _at_least_1(stop.patience), "at least 1"),
        ("stop.minutes", stop.minutes, _positive(stop.minutes), "positive"),
        *_keep_rules(plan.keep),
    ]
    rules += _learner_rules(plan.learner) + _data_rules(plan) + _function_rules(plan)
    rules += [(key, value, False, "a finite number") for key, value in _infinite("", plan)]
    for key, value, holds, allowed in rules:
        if not holds:
            raise PlanError(
                "plan-bad-value",
                f"The plan's {key} is {value!r}. Nothing was started.",
                f"It must be {allowed}.",
            )


def _cohort_rules(cohort: CohortPlan) -> list[Rule]:
    most = cohort.minimum if cohort.count is None else cohort.count
    names = chosen(cohort.where)
    return [
        ("cohort.fraction", cohort.fraction, 0 < cohort.fraction <= 1, "above 0, at most 1"),
        ("cohort.count", cohort.count, _at_least_1(cohort.count), "at least 1"),
        ("cohort.minimum", cohort.minimum, cohort.minimum >= 1, "at least 1"),
        ("cohort.minimum", cohort.minimum, cohort.minimum <= most, "at most cohort.count"),
        (
            "cohort.grace_s",
            cohort.grace_s,
            cohort.grace_s == 0 or _positive(cohort.grace_s),
            "0 or more",
        ),
        ("cohort.deadline_s", cohort.deadline_s, _positive(cohort.deadline_s), "positive"),
        ("cohort.over", cohort.over, 1 <= cohort.over <= OVER_MAX, f"from 1 to {OVER_MAX}"),
        (
            "cohort.late_discount",
            cohort.late_discount,
            0 < cohort.late_discount <= 1,
            "above 0, at most 1",
        ),
        (
            "cohort.late_rounds",
            cohort.late_rounds,
            1 <= cohort.late_rounds <= LATE_ROUNDS_MAX,
            f"from 1 to {LATE_ROUNDS_MAX}",
        ),
        (
            "cohort.mandatory",
            cohort.mandatory,
            len({*cohort.mandatory}) == len(cohort.mandatory) <= (cohort.count or math.inf),
            "different names, and no more than cohort.count",
        ),
        (
            "cohort.where",
            cohort.where,
            names is None or (len(names) >= cohort.minimum and names >= {*cohort.mandatory}),
            f"cohort.minimum names at least ({cohort.minimum}), cohort.mandatory among them",
        ),
    ]


def _keep_rules(keep: KeepPlan) -> list[Rule]:
    return [
        ("keep.every", keep.every, keep.every >= 0, "at least 0"),
        ("keep.lineage", keep.lineage, keep.lineage >= 0, "at least 0"),
        ("keep.clients", keep.clients, (keep.clients or 0) >= 0, "at least 0"),
        (
            "keep.as_numpy",
            keep.as_numpy,
            keep.as_numpy is None or bool(_NUMPY_FILE.fullmatch(keep.as_numpy)),
            'a file name in the run folder that ends in .npy or .npz, such as "models/server.npy"',
        ),
    ]


def _function_rules(plan: Plan) -> list[Rule]:
    functions = plan.server_functions
    return [
        (
            "server_functions.time_s",
            functions.time_s,
            0 < functions.time_s <= FUNCTION_S_MAX,
            f"above 0, at most {FUNCTION_S_MAX:g}",
        ),
        (
            "server_functions.file",
            functions.file,
            _is_module(functions.file),
            "the name of a .py file in the project folder",
        ),
    ]


def check_keep(plan: Plan, algorithm: Algorithm) -> None:
    """Refuse to keep clients' models where the server cannot know them.

    Raises:
      PlanError: plan-impossible, names the reason.
    """
    if plan.keep.clients is None:
        return
    why = "" if algorithm.sends[:1] == ("delta",) else f"{algorithm.name} does not send that"
    if plan.cohort.late == "discount":
        why = 'with cohort.late = "discount" an update may belong to an older model'
    if why:
        raise PlanError(
            "plan-impossible",
            f"keep.clients keeps each client's model, the round's and its own change; {why}. "
            "Nothing was started.",
            "Leave keep.clients out, or use an algorithm such as fed_avg.",
        )


def check_cohort(cohort: CohortPlan, algorithm: Algorithm, aggregator: Aggregator) -> None:
    """Refuse a way to end rounds that cannot work with the method.

    Raises:
      PlanError: names both, and what would work (plan-impossible).
    """
    if cohort.over > 1 and cohort.count is None and cohort.fraction == 1:
        raise PlanError(
            "plan-impossible",
            f"The plan's cohort.over is {cohort.over:g}, and its rounds ask all clients already. "
            "Nothing was started.",
            "Set cohort.fraction or cohort.count to what a round shall wait for.",
        )
    if algorithm.needs_mean and (cohort.over > 1 or cohort.late == "discount"):
        key = f"over is {cohort.over:g}" if cohort.over > 1 else 'late is "discount"'
        raise PlanError(
            "plan-impossible",
            f"{algorithm.name} keeps at each client what it believes to have counted; the plan's "
            f"cohort.{key}, so that some updates would not, or not in their round. "
            "Nothing was started.",
            "Leave it out, or use an algorithm without client state such as fed_avg.",
        )
    if cohort.late == "discount" and not aggregator.linear:
        raise PlanError(
            "plan-impossible",
            f'The plan\'s cohort.late is "discount", which lowers weights; {aggregator.name} is '
            "not a weighted sum. Nothing was started.",
            'Use cohort.late = "refuse", or aggregator = "mean".',
        )


def _learner_rules(learner: LearnerPlan) -> list[Rule]:
    optimizer, schedule = learner.optimizer, learner.schedule
    rules: list[Rule] = [
        ("learner.epochs", learner.epochs, learner.epochs >= 1, "at least 1"),
        ("learner.steps", learner.steps, _at_least_1(learner.steps), "at least 1"),
        ("learner.batch_size", learner.batch_size, _at_least_1(learner.batch_size), "at least 1"),
        ("learner.hidden", learner.hidden, all(n >= 1 for n in learner.hidden), "positive widths"),
        ("learner.optimizer.lr", optimizer.lr, _positive(optimizer.lr), "positive"),
        ("learner.optimizer.eps", optimizer.eps, _positive(optimizer.eps), "positive"),
        ("learner.schedule.every", schedule.every, schedule.every >= 1, "at least 1"),
        ("learner.schedule.gamma", schedule.gamma, 0 < schedule.gamma <= 1, "above 0, at most 1"),
    ]
    for name in ("momentum", "beta1", "beta2"):
        value = getattr(optimizer, name)
        rules.append((f"learner.optimizer.{name}", value, 0 <= (value or 0) < 1, "in [0, 1)"))
    decay = optimizer.weight_decay or 0
    rules.append(("learner.optimizer.weight_decay", decay, 0 <= decay < math.inf, "at least 0"))
    rules += _command_rules(learner)
    for i, change in enumerate(learner.change):
        where = f"learner.change[{i}]"
        rules += [
            (f"{where}.round", change.round, change.round >= 1, "at least 1"),
            (f"{where}.lr", change.lr, _positive(change.lr), "positive"),
            (f"{where}.epochs", change.epochs, _at_least_1(change.epochs), "at least 1"),
            (f"{where}.steps", change.steps, _at_least_1(change.steps), "at least 1"),
            (f"{where}.batch_size", change.batch_size, _at_least_1(change.batch_size), ">= 1"),
        ]
    return rules


def _command_rules(learner: LearnerPlan) -> list[Rule]:
    """Return what holds of a command learner, and of the keys that only it has."""
    command = learner.kind == "command"
    of_commands = 'a key of learner.kind = "command" alone'
    rules: list[Rule] = [
        ("learner.time_s", learner.time_s, 0 < learner.time_s <= COMMAND_S_MAX,
         f"above 0 and at most {COMMAND_S_MAX:g}"),
        ("learner.train", learner.train, bool(learner.train or learner.tasks) or not command,
         'a program and its arguments, such as ["python", "train.py"]'),
        ("learner.rows", learner.rows, command or learner.rows == "npz", of_commands),
        ("learner.module", learner.module, not (command and learner.module),
         "left out: a command learner runs the program that learner.train names"),
    ]  # fmt: skip
    all_words = {task: (f"learner.{task}", getattr(learner, task)) for task in COMMANDS}
    named = {task: (f"learner.tasks.{task}", words) for task, words in learner.tasks.items()}
    for task, (where, words) in (named | all_words).items():
        sound = not words or (bool(words[0]) and not any("\0" in word for word in words))
        rules.append((where, words, command or not words, of_commands))
        rules.append((where, words, sound, "words without a zero byte"))
        if unknown := unknown_places(task, words):
            known = ", ".join(f"{{{name}}}" for name in places_of(task))
            rules.append((where, unknown[0], False, f"one of {known}"))
    for task, words in learner.tasks.items():
        rules.append(
            (f"learner.tasks.{task}", words, bool(words) and task not in COMMANDS and is_name(task),
             "a program and its arguments, under a name of letters, digits, - and _ that is no "
             "other key of [learner]")
        )  # fmt: skip
    for key in ("files", "requirements"):
        value = getattr(learner, key)
        rules.append((f"learner.{key}", value, command or not value, of_commands))
        given = (value,) if isinstance(value, str) else value or ()
        rules.append((f"learner.{key}", value, all(map(_is_inside, given)), "below the project"))
    return rules


def _data_rules(plan: Plan) -> list[Rule]:
    """Return what commands need of the data, which they get as files."""
    if plan.learner.kind != "command":
        return []
    data, unread = plan.data, plan.learner.rows == "path"
    named = "the name of a data set, or of a folder"
    said = 'left out, "uniform" or "user" where learner.rows is "path": only commands count rows'
    split = '{ scheme = "files" }, or left out, where learner.rows is "path"'
    return [
        ("data.set", data.set, data.set is not None, named),
        ("weighting", plan.weighting, not unread or plan.weighting not in ("examples", "steps"),
         said),
        ("data.split", data.split, not unread or data.split in (None, Files()), split),
    ]  # fmt: skip


def _resource_rules(asks: Mapping[str, int]) -> list[Rule]:
    rules: list[Rule] = [
        ("resources", asks, len(asks) <= RESOURCES_MAX, f"up to {RESOURCES_MAX} resources")
    ]
    for name, count in asks.items():
        named, counted = bool(_RESOURCE.fullmatch(name)), 1 <= count <= SLOTS_MAX
        rules += [
            ("resources", name, named, "a name of small letters, digits, - and _, such as gpu"),
            (f"resources.{name}", count, counted, f"from 1 to {SLOTS_MAX}"),
        ]
    return rules


def _is_inside(path: str) -> bool:
    """Return whether a path of a plan is one below the project folder, on every system."""
    parts = path.removesuffix("/").split("/")
    return bool(path) and not {"", ".", ".."} & set(parts) and not set(path) & set("\\:\0")


def _positive(value: float | None) -> bool:
    return value is None or (math.isfinite(value) and value > 0)


def _is_module(name: str | None) -> bool:
    return name is None or bool(re.fullmatch(r"[A-Za-z_]\w*\.py", name))


def _at_least_1(value: int | str | tuple[str, ...] | None) -> bool:
    return value != () and (not isinstance(value, int) or value >= 1)


def _infinite(where: str, value: Any) -> Iterator[tuple[str, float]]:
    """Yield numbers that a run folder's JSON could not hold, among options that have no rule."""
    if isinstance(value, float) and not math.isfinite(value):
        yield where, value
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _infinite(where, inner)
    else:
        fields = msgspec.structs.asdict(value) if isinstance(value, msgspec.Struct) else value
        for key, inner in fields.items() if isinstance(fields, Mapping) else ():
            yield from _infinite(f"{where}.{key}".lstrip("."), inner)


def _clients(value: int | tuple[str, ...]) -> bool:
    if isinstance(value, int):
        return value >= 1
    return 1 <= len(value) == len({*value}) and all(map(_CLIENT.fullmatch, value))


def _summable(value: float | None) -> bool:
    return value is None or 2.0**-SPEC_EXPONENT_MAX <= value <= 2.0**SPEC_EXPONENT_MAX
