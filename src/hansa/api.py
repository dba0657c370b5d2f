"""The Python side of the command line: `hansa.run`, `hansa.split` and what belongs to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from hansa.data import Dataset, load, partition
from hansa.data.schemes import scheme_of
from hansa.errors import HansaError, PlanError
from hansa.learners import FunctionLearner, Learner, NumPyLearner
from hansa.params import Params
from hansa.plan import read_plan
from hansa.project import Project, open_project, with_learner
from hansa.runs.record import write_report
from hansa.runs.result import Result
from hansa.seeds import Key
from hansa.simulation import Asked, Partitioned, Population, Simulation, continue_run, open_run
from hansa.store.files import load_params


def run(
    project: str | Path | None = None,
    *,
    learner: Learner | None = None,
    data: Population | None = None,
    engine: Literal["inline", "processes"] = "inline",
    workers: int | None = None,
    runs: str | Path = "runs",
    new: bool = False,
    show: bool = False,
    sets: Iterable[str] = (),
    **plan: Any,
) -> Result:
    """Run a project folder, or a learner on data, in simulation.

    Args:
      project: a folder with plan.toml; or leave it out and pass `learner` and `data`.
      learner: what trains, for example `hansa.torch(model, loss)` or `hansa.numpy_learner()`.
      data: the clients, from `hansa.split(...)` or `hansa.clients(...)`.
      engine: "inline", or "processes" for a project folder.
      workers: worker processes; by default one a core.
      runs: folder of runs.
      new: start anew although an unfinished run of the same project is there.
      show: print a line a round.
      sets: changes such as "learner.epochs=2", as `--set` takes them; for a project folder.
      plan: keys of the plan: rounds=20, seed=7, algorithm="scaffold", cohort={"fraction": 0.1},
        and epochs, steps, batch_size, lr and optimizer of local training.

    Raises:
      HansaError: the plan cannot run, or the run failed; the message says what to do.
    """
    if (project is None) == (learner is None):
        raise PlanError(
            "plan-impossible",
            "hansa.run needs either a project folder or a learner, not both and not neither.",
            'For example: hansa.run("my-study"), or hansa.run(learner=..., data=...)',
        )
    opened = _opened(project, learner, data, sets, plan)
    simulation = Simulation(Path(runs), engine, workers, new)
    folder, population = open_run(opened, simulation, data)
    watcher = None
    if show:
        from hansa.watch import PlainLines

        watcher = PlainLines(opened.plan.rounds, opened.plan.stop.metric)
    try:
        continue_run(folder, opened, population, simulation=simulation, watcher=watcher)
    except HansaError:
        write_report(folder)
        raise
    write_report(folder)
    return Result(folder)


def split(
    dataset: Dataset | str | Path,
    scheme: str = "iid",
    *,
    test: float | Dataset | None = 0.2,
    validation: float = 0.1,
    seed: int = 0,
    **options: Any,
) -> Partitioned:
    """Divide a data set among simulated clients.

    Args:
      dataset: a `hansa.Dataset`, or what `hansa.load_data` takes.
      scheme: iid, dirichlet, labels, biased, quantity, natural or files.
      test: share of the rows held out at the server, or a dataset of its own, or None.
      validation: share of each client's rows kept for evaluation at the client.
      seed: of the division.
      options: of the scheme, such as clients=10, alpha=0.5.

    Raises:
      DataError: data is missing, or cannot be divided like that.
    """
    rows = dataset if isinstance(dataset, Dataset) else load(dataset)
    key = Key.root(seed).child("data")
    held = test if isinstance(test, Dataset) else None
    if isinstance(test, float) and test:
        rows, held = rows.holdout(test, key.child("test"))
    parts = partition(scheme_of({"scheme": scheme, **options}), rows, key.child("split"))
    return Partitioned(rows, parts, test=held, validation=validation, key=key)


def clients(
    data: Callable[[str], Any],
    number: int,
    *,
    test: Any = None,
    validation: float = 0.1,
    seed: int = 0,
) -> Asked:
    """Return `number` clients, client-0 and so on, whose data a function returns by name.

    Args:
      data: returns a `hansa.Dataset`, arrays (x, y), {"train": ..., "validation": ...}, or
        whatever else the learner understands.
      number: of clients.
      test: the server's own data.
      validation: share of each client's rows kept for evaluation.
      seed: decides which rows those are.
    """
    key = Key.root(seed).child("data")
    return Asked(data, clients=number, validation=validation, test=test, key=key)


def numpy_learner(model: Any = "softmax", *, hidden: tuple[int, ...] = (64,)) -> NumPyLearner:
    """Return a learner for "softmax", "mlp", or an object or module with init, loss, metrics."""
    from hansa.learners import Perceptron

    if model in ("softmax", "mlp"):
        model = Perceptron(hidden if model == "mlp" else ())
    return NumPyLearner(model)


def function_learner(
    init: Callable[..., Any],
    train: Callable[..., Any],
    evaluate: Callable[..., Any] | None = None,
) -> FunctionLearner:
    """Return a learner made of plain functions; see `hansa.learners.function`."""
    return FunctionLearner(init, train, evaluate)


def torch(model: Callable[..., Any], loss: Callable[..., Any], **options: Any) -> Learner:
    """Return a learner for a function that makes an nn.Module, and a loss of (model, batch).

    Args:
      model: called without arguments; returns the module.
      loss: `loss(model, batch)` returns the mean loss of a batch.
      options: metrics=..., a function of (model, batch) that returns values by example.

    Raises:
      LearnerError: PyTorch is not installed.
    """
    from hansa.learners.torch import TorchLearner

    return TorchLearner(model, loss, **options)


def sklearn(model: Callable[[], Any]) -> Learner:
    """Return a learner for a function that makes a scikit-learn estimator.

    Raises:
      LearnerError: scikit-learn is not installed.
    """
    from hansa.learners.sklearn import SklearnLearner

    return SklearnLearner(model)


def load_model(path: str | Path) -> Params:
    """Return a model file's tensors by name, memory-mapped.

    Raises:
      ParamsError: there is no such file, or it is not a tensor file.
    """
    return load_params(path)


def _opened(
    project: str | Path | None,
    learner: Learner | None,
    data: Population | None,
    sets: Iterable[str],
    plan: Mapping[str, Any],
) -> Project:
    table = _with_local_keys(plan)
    if project is not None:
        changes = [f"{key}={_toml(value)}" for key, value in _flat(table)]
        return open_project(Path(project), [*changes, *sets])
    assert learner is not None  # `run` has seen to it
    if data is None:
        raise PlanError(
            "plan-impossible",
            "hansa.run was given a learner and no data.",
            'For example: data=hansa.split("digits", "dirichlet", clients=5)',
        )
    return with_learner(read_plan(table, sets, origin="hansa.run").plan, learner)


_LOCAL = ("epochs", "steps", "batch_size", "optimizer")


def _with_local_keys(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Move the keys of local training, and lr, to where the plan has them."""
    table = dict(plan)
    learner = dict(table.pop("learner", {}))
    learner |= {key: table.pop(key) for key in _LOCAL if key in table}
    if "lr" in table:
        optimizer = learner.get("optimizer", {})
        name = {"name": optimizer} if isinstance(optimizer, str) else dict(optimizer)
        learner["optimizer"] = {**name, "lr": table.pop("lr")}
    return {**table, "learner": learner} if learner else table


def _flat(table: Mapping[str, Any]) -> list[tuple[str, Any]]:
    from hansa.plan import flatten

    return list(flatten(table).items())


def _toml(value: Any) -> str:
    """Return a plain value as TOML; JSON is TOML for all that a plan holds but tables in lists."""
    import json

    return json.dumps(value)
