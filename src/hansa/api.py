"""The Python side of the command line: `hansa.run`, `hansa.split` and what belongs to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, Literal, cast

from hansa.data import Dataset, load, partition
from hansa.data.schemes import scheme_of
from hansa.errors import DataError, HansaError, PlanError
from hansa.learners import FunctionLearner, Learner, NumPyLearner
from hansa.params import Params
from hansa.plan import read_plan
from hansa.project import open_project, with_learner
from hansa.runs.record import write_report
from hansa.runs.result import Result
from hansa.runs.start import read_start
from hansa.seeds import Key
from hansa.simulation import Asked, Partitioned, Population, Simulation, continue_run, open_run
from hansa.store.files import load_params


def run(
    project: str | Path | None = None,
    *,
    learner: Learner | Mapping[str, Any] | None = None,
    data: Population | Mapping[str, Any] | None = None,
    engine: Literal["inline", "processes"] = "inline",
    workers: int | None = None,
    runs: str | Path = "runs",
    new: bool = False,
    start: str | Path | None = None,
    show: bool = False,
    sets: Iterable[str] = (),
    **plan: Any,
) -> Result:
    """Run a project folder, or a learner on data, in simulation.

    Args:
      project: a folder with plan.toml; or leave it out and pass `learner` and `data`.
      learner: what trains, for example `hansa.torch(model, loss)` or `hansa.numpy_learner()`; with
        a project folder, keys of the plan's learner table, such as {"epochs": 2}.
      data: the clients, from `hansa.split(...)` or `hansa.clients(...)`; with a project folder,
        keys of the plan's data table, such as {"validation": 0.2}.
      engine: "inline", or "processes" for a project folder.
      workers: worker processes; by default one a core.
      runs: folder of runs.
      new: start anew although an unfinished run of the same project is there.
      start: model to start from: a file of tensors, or "RUN" or "RUN:ROUND" of that folder.
      show: print a line a round.
      sets: changes such as "learner.epochs=2", as `--set` takes them.
      plan: keys of the plan: rounds=20, seed=7, algorithm="scaffold", cohort={"fraction": 0.1},
        and epochs, steps, batch_size, lr and optimizer of local training.  A table changes the
        keys that it has; one with a name or scheme replaces the whole.

    Raises:
      HansaError: the plan cannot run, or the run failed; the message says what to do.
    """
    if project is not None:
        tables = _tables_only(learner=learner, data=data)
        opened = open_project(Path(project), sets, changes=_with_local_keys(plan | tables))
        clients = None
    else:
        learner, clients = _objects_only(learner, data)
        changes = _with_local_keys(plan)
        opened = with_learner(read_plan({}, sets, changes=changes).plan, learner)
    simulation = Simulation(Path(runs), engine, workers, new)
    folder, population = open_run(
        opened,
        simulation,
        clients,
        start=None if start is None else read_start(str(start), Path(runs)),
    )
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
    held = test if isinstance(test, Dataset) else None
    share = 0.0 if test is None or held is not None else _share("test", test)
    kept = _share("validation", validation)
    rows = dataset if isinstance(dataset, Dataset) else load(dataset)
    key = Key.root(seed).child("data")
    if share:
        rows, held = rows.holdout(share, key.child("test"))
    parts = partition(scheme_of({"scheme": scheme, **options}), rows, key.child("split"))
    return Partitioned(rows, parts, test=held, validation=kept, key=key)


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
    kept = _share("validation", validation)
    return Asked(data, clients=number, validation=kept, test=test, key=key)


def _share(what: str, value: Any) -> float:
    """Return a share of rows, in [0, 1)."""
    if isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) < 1:
        return float(value)
    raise DataError(
        "data-option",
        f"{what}={value!r} is not a share of the rows.",
        f"Give at least 0 and less than 1, such as {what}=0.2.",
    )


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
    *,
    predict: Callable[..., Any] | None = None,
    tasks: Mapping[str, Callable[..., Any]] | None = None,
) -> FunctionLearner:
    """Return a learner made of plain functions; see `hansa.learners.function`."""
    return FunctionLearner(init, train, evaluate, predict=predict, tasks=tasks)


def torch(model: Callable[..., Any], loss: Callable[..., Any], **options: Any) -> Learner:
    """Return a learner for a function that makes an nn.Module, and a loss of (model, batch).

    Args:
      model: called without arguments; returns the module.
      loss: `loss(model, batch)` returns the mean loss of a batch.
      options: metrics=..., a function of (model, batch) that returns values by example;
        predict=..., one that returns (probabilities, targets), for metrics by name.

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


def _tables_only(**given: Any) -> dict[str, Mapping[str, Any]]:
    """Return what changes the plan of a project, which brings its own learner and data."""
    tables = {name: value for name, value in given.items() if value is not None}
    for name, value in tables.items():
        if not isinstance(value, Mapping):
            raise PlanError(
                "plan-impossible",
                f"hansa.run was given {name} together with a project, which has its own. "
                "Nothing was started.",
                f"Give keys of the plan, as in {name}={{...}}, or leave out the project and pass "
                "learner=... and data=...",
            )
    return tables


def _objects_only(
    learner: Learner | Mapping[str, Any] | None, data: Population | Mapping[str, Any] | None
) -> tuple[Learner, Population]:
    """Return the learner and the clients of a run without a project."""
    for name, value in (("learner", learner), ("data", data)):
        if value is None or isinstance(value, Mapping):
            what = f"no {name}" if value is None else f"keys of a plan as {name}"
            raise PlanError(
                "plan-impossible",
                f"hansa.run was given no project folder and {what}. Nothing was started.",
                'For example: hansa.run("my-study"), or hansa.run(learner=..., '
                'data=hansa.split("digits", "dirichlet", clients=5))',
            )
    return cast(Learner, learner), cast(Population, data)


_LOCAL = ("epochs", "steps", "batch_size", "optimizer")


def _with_local_keys(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Move the keys of local training, and lr, to where the plan has them: the learner table."""
    changes = dict(plan)
    learner = dict(changes.pop("learner", {}))
    learner |= {key: changes.pop(key) for key in _LOCAL if key in changes}
    if "lr" in changes:
        optimizer = learner.get("optimizer", {})
        table = optimizer if isinstance(optimizer, Mapping) else {"name": optimizer}
        learner["optimizer"] = {**table, "lr": changes.pop("lr")}
    return {**changes, "learner": learner} if learner else changes
