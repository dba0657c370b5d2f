"""The model that a run starts from, made where the submitter is.

The server runs no project code, so it cannot make one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hansa.data import load
from hansa.errors import DataError, HansaError, PlanError
from hansa.learners.learner import Seed, close
from hansa.params.model import ModelLayout
from hansa.project import Project
from hansa.seeds import Key
from hansa.simulation import project_population
from hansa.simulation.population import data_place
from hansa.store.files import load_params

_NOT_HERE = ("data-missing", "data-unknown-name")
"""Codes of data that lie at the sites and not here."""


def seed_model(project: Project, model: Path | None = None) -> Seed:
    """Return the seed model of a project, the very one that a simulation starts from.

    Args:
      project: makes it, from some of its data if these are here.
      model: a file of tensors to start from instead.

    Raises:
      PlanError: the learner needs data for it, and these are not here.
      ParamsError: the file is not one of tensors, or has others than the project's model.
    """
    try:
        return _made(project) if model is None else given_model(project, model)
    finally:
        close(project.learner)


def _made(project: Project) -> Seed:
    sample = _sample(project)
    key = Key.root(project.plan.seed).child("model")
    if sample is not None or project.plan.learner.kind == "torch":  # which needs none
        return project.learner.init(sample, key)
    try:
        return project.learner.init(None, key)
    except Exception as error:
        raise PlanError(
            "plan-impossible",
            f"Making the seed model of a {project.plan.learner.kind} learner takes some data, and "
            f"those of the plan are not here ({type(error).__name__}). Nothing was sent.",
            "Give a model to start from with --model FILE; a simulation on data of the same shape "
            "makes one: hansa export --to safetensors",
        ) from error


def given_model(project: Project, model: Path) -> Seed:
    """Return the tensors of a file as a model to start from.

    Raises:
      PlanError: plan-impossible, the project's model has others.
      ParamsError: the file is not one of tensors.
    """
    params = load_params(model).copy()
    try:
        own = _made(project).layout
    except PlanError:
        own = ModelLayout(params.layout, _buffers(project.plan.learner.kind, list(params)))
    if own.layout != params.layout:
        raise PlanError(
            "plan-impossible",
            f"The tensors of {model} are not those of the project's model. Nothing was sent.",
            "Give a file that was exported from a run of this project: "
            "hansa export --to safetensors",
        )
    return Seed(params, own)


def _buffers(kind: str, names: list[str]) -> list[str]:
    """Return which tensors the learners of a kind average without training them."""
    if kind == "sklearn":
        from hansa.learners.sklearn import COUNTER

        return [name for name in names if name == COUNTER]
    if kind in ("script", "function", "command"):
        from hansa.learners.function import statistics

        return statistics(names)
    return []


def _sample(project: Project) -> Any:
    """Return some training data for its shapes, or None where only the sites have data."""
    data = project.plan.data
    try:
        if data.set is None or data.split is not None:
            return project_population(project).sample()
        folder = data_place(data.set, project.data_folder)
        return load(data.set, folder=folder, target=data.target, group=data.group).take([0])
    except DataError as error:
        if error.code not in _NOT_HERE:
            raise
    except HansaError:
        raise
    except Exception:
        if data.set is not None:
            raise
    return None
