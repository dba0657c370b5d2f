"""The model that a run starts from, made where the submitter is.

The server runs no project code, so it cannot make one.
"""

from __future__ import annotations

from typing import Any

from hansa.data import load
from hansa.errors import DataError, HansaError, LearnerError, PlanError
from hansa.learners.learner import Seed, close, seed_of
from hansa.project import Project
from hansa.runs.start import Start, as_seed
from hansa.seeds import Key
from hansa.simulation.population import data_place, project_population
from hansa.text import TEXT_CHARS, clean

_NOT_HERE = ("data-missing", "data-unknown-name")
"""Codes of data that lie at the sites and not here."""

_NEEDS_NONE = ("torch", "command")
"""Kinds of learners that make their model without any data."""


def seed_model(project: Project, start: Start | None = None) -> Seed:
    """Return the seed model of a project, the very one that a simulation starts from.

    Args:
      project: makes it, from some of its data if these are here.
      start: a model to start from instead.

    Raises:
      PlanError: the learner needs data for it, and these are not here; or the given model has
        other tensors than the project's.
    """
    try:
        return _made(project) if start is None else given_model(project, start)
    finally:
        close(project.learner)


def _made(project: Project) -> Seed:
    sample, absent = _sample(project)
    key = Key.root(project.plan.seed).child("model")
    if sample is not None or project.plan.learner.kind in _NEEDS_NONE:
        return project.learner.init(sample, key)
    try:
        return project.learner.init(None, key)
    except Exception as error:
        raise PlanError(
            "plan-impossible",
            f"Making the seed model of a {project.plan.learner.kind} learner takes some data, and "
            f"those of the plan are not here: {absent} "
            f"Without them it failed: {_said(error)} Nothing was sent.",
            "Correct data.set if it is wrong. If only the sites have the data, give a model to "
            "start from with --from RUN:ROUND or --from FILE; a simulation on data of the same "
            "shape makes one: hansa export --to safetensors",
        ) from error


def _said(error: Exception) -> str:
    words = error.happened if isinstance(error, HansaError) else f"{type(error).__name__}: {error}"
    return f"{clean(words, TEXT_CHARS).removesuffix('.')}."


def given_model(project: Project, start: Start) -> Seed:
    """Return a given model as the one to start from.

    Raises:
      PlanError: plan-impossible, the project's model has other tensors.
    """
    try:
        own = _made(project)
    except (PlanError, LearnerError) as error:
        if error.code not in ("plan-impossible", "learner-incomplete"):
            raise
        names = _buffers(project.plan.learner.kind, list(start.params))
        own = seed_of(start.params, names)
    return as_seed(start, own)


def _buffers(kind: str, names: list[str]) -> list[str]:
    """Return which tensors the learners of a kind average without training them."""
    if kind == "sklearn":
        from hansa.learners.sklearn import COUNTER

        return [name for name in names if name == COUNTER]
    if kind in ("script", "function", "command"):
        from hansa.learners.function import statistics

        return statistics(names)
    return []


def _sample(project: Project) -> tuple[Any, str]:
    """Return some training data for its shapes; where only the sites have it None, and why."""
    data = project.plan.data
    try:
        if data.set is None or data.split is not None or project.plan.learner.rows == "path":
            return project_population(project, test=False).sample(), ""
        folder = data_place(data.set, project.data_folder)
        rows = load(
            data.set,
            folder=folder,
            target=data.target,
            group=data.group,
            classes=data.classes,
        )
        return rows.take([0]), ""
    except DataError as error:
        if error.code not in _NOT_HERE:
            raise
        return None, f"{error.happened.removesuffix('.')} ({error.hint.removesuffix('.')})."
    except HansaError:
        raise
    except Exception as error:
        if data.set is not None:
            raise
        return None, f"data(client) of the project raised {type(error).__name__}: {error}."
