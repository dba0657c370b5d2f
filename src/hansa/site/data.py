"""A site's own data, as a plan asks for it by a declared name.

Who has these rows in a simulation, under the same name, trains on the same ones: they are divided
into training and validation by the same key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hansa.client_data import answered, check_fits, cut, data_key
from hansa.data import Dataset
from hansa.data.folders import in_own_order, load_own
from hansa.errors import DataError, SiteError
from hansa.learners.command_rows import DataPath
from hansa.learners.learner import ClientData, Learner
from hansa.plan import Plan
from hansa.project import Project, project_data
from hansa.site.worker_messages import Declared


def site_data(project: Project, sources: Mapping[str, Declared], *, name: str) -> ClientData:
    """Return the data of this site that a project asks for, once it is known to fit.

    A plan's `data.set` names declared data: a .csv or .npz file, of which a part is kept for
    validation, or a folder with train.npz and perhaps valid.npz, which is then the validation
    part; or anything, where the plan's commands read it themselves.  Without a `data.set` the
    project's `data(client)` is asked.

    Args:
      project: of the run.
      sources: what the site's owner has declared, by name.
      name: of the site.

    Raises:
      SiteError: site-data, nothing is declared by that name.
      DataError: a file is missing or cannot be used, or the data are not what the plan asks for.
      LearnerError: the plan names no data, and the project has no `data(client)`.
    """
    data = _site_data(project, sources, name=name)
    check_fits(project.plan.data, data, name)
    return data


def _site_data(project: Project, sources: Mapping[str, Declared], *, name: str) -> ClientData:
    plan = project.plan
    key, fraction = data_key(plan.seed), plan.data.validation
    if plan.data.set is None:
        return answered(project_data(project)(name), fraction, key=key, name=name)
    source = sources.get(plan.data.set)
    if source is None:
        raise not_declared(plan.data.set)
    if plan.learner.rows == "path":
        place = DataPath(Path(source.path))
        return ClientData(place, place)  # the command divides it
    train, validation = _load(source, plan)
    if validation is None:
        return cut(train, fraction, key=key, name=name)
    return ClientData(train, validation if validation.examples else None)


def not_declared(name: str) -> SiteError:
    """Return the error for a name that the site's owner has not declared, or does not allow."""
    return SiteError(
        "site-data",
        f"The plan asks for the data {name!r}, which this site has not declared, or does not "
        "allow to be used.",
        f"Its owner declares it under [data.{name}] in site.toml.",
    )


def count(learner: Learner, data: ClientData) -> int:
    """Return how many examples there are for training and validation; 0: only commands can tell."""
    if isinstance(data.train, DataPath):
        return 0
    apart = data.validation is not None and data.validation is not data.train
    own = learner.examples(data.validation) if apart else 0
    return learner.examples(data.train) + own


def _load(source: Declared, plan: Plan) -> tuple[Dataset, Dataset | None]:
    """Return all rows, or those of training and validation where a folder has both."""
    path = Path(source.path)
    if not path.is_dir():
        return _read(path, source, plan), None
    if not (path / "train.npz").is_file():
        raise DataError(
            "data-missing",
            f"The folder {path} holds no train.npz.",
            "Declare a file, or the folder of one client that hansa split has written.",
        )
    train, valid = _read(path / "train.npz", source, plan), path / "valid.npz"
    if not valid.is_file():
        return train, None
    validation = _read(valid, source, plan)
    if (train.x.shape[1:], train.classes) != (validation.x.shape[1:], validation.classes):
        raise DataError(
            "data-mismatch",
            f"{path.name}: train.npz and valid.npz differ in the shape of a row, or in classes.",
            "Write both with hansa split, or with the same array classes.",
        )
    return train, validation


def _own_order(source: Declared) -> DataError:
    """Return the error of classes whose order nobody else can know; it does not tell them."""
    error = DataError(
        "data-labels",
        "The site declares its classes in an order of its own, and the plan does not name them; "
        "elsewhere the same labels would have other numbers.",
        "Name all classes in the plan's data.classes, in the order of site.toml; or declare them "
        "in alphabetical order, and numbers from 0 up.",
    )
    error.__cause__ = ValueError(f"{source.classes}")
    return error


def _read(path: Path, source: Declared, plan: Plan) -> Dataset:
    table = path.suffix.lower() == ".csv"  # only a table has columns that the plan can name
    named = isinstance(plan.data.classes, tuple)
    if table and source.classes and not named and not in_own_order(source.classes):
        raise _own_order(source)
    found = load_own(
        path,
        target=source.target or (plan.data.target if table else None),
        group=source.group or (plan.data.group if table else None),
        classes=source.classes or None,
        asked=plan.data.classes,
    )
    return found._replace(name=Path(str(plan.data.set)).stem)  # as in simulation
