"""Who the simulated clients are and what data each has: addressed by name, loaded when picked.

A million clients cost two flat arrays until one of them takes part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from blake3 import blake3

from hansa.client_data import answered, as_dataset, check_fits, data_key, validation_rows
from hansa.data import Dataset, Files, Partition, load, load_test, partition
from hansa.data.groups import natural_order
from hansa.data.partitioner import ClientNames
from hansa.data.sources import NAMES
from hansa.data.split import save_part
from hansa.errors import DataError, PlanError
from hansa.learners.command_rows import DataPath
from hansa.learners.learner import ClientData
from hansa.limits import PARTITION_ROWS_SHOWN
from hansa.plan.schema import DataPlan
from hansa.project import Project, project_data
from hansa.seeds import Key


class Population(Protocol):
    """The clients of a simulation."""

    @property
    def names(self) -> Sequence[str]:
        """The clients; may be long and lazy."""

    @property
    def test(self) -> Any:
        """The server's own data, or None."""

    @property
    def examples(self) -> int | None:
        """Of all clients together, or None when only the clients know."""

    def data(self, name: str) -> ClientData:
        """Return one client's data."""

    def sample(self) -> Any:
        """Return some training data, for its shapes and classes."""

    def table(self) -> dict[str, Any] | None:
        """Return label counts by client for the report, as plain JSON data."""

    def fingerprint(self) -> str | None:
        """Return a digest of all data and of who has what, or None where only clients know."""


class Partitioned:
    """A dataset divided among clients by a partition.

    Args:
      dataset: all training rows.
      parts: whose row is whose.
      test: rows held out at the server, or None.
      validation: share of each client's rows kept for evaluation, or a dataset whose groups are
        the clients' names.
      key: decides which rows those are.
    """

    def __init__(
        self,
        dataset: Dataset,
        parts: Partition,
        *,
        test: Dataset | None = None,
        validation: float | Dataset = 0.1,
        key: Key,
    ) -> None:
        self._dataset, self._parts, self._key = dataset, parts, key
        self._validation = validation
        self._valid: dict[str, np.ndarray] = {}
        if isinstance(validation, Dataset):
            own = partition(Files(), validation, key)
            self._valid = {name: own.indices(i) for i, name in enumerate(own.names)}
        self.names = parts.names
        self.test = test
        self.examples: int | None = dataset.examples
        self._index: dict[str, int] | None = None

    def data(self, name: str) -> ClientData:
        """Return one client's rows, split into a training and a validation part."""
        rows = self._parts.indices(self._position(name))
        if isinstance(self._validation, Dataset):
            valid = self._valid.get(name)
            own = None if valid is None else self._validation.take(valid)
            return ClientData(self._dataset.take(rows), own)
        labels = None if self._dataset.labels is None else self._dataset.labels[rows]
        fraction = self._validation
        held = validation_rows(labels, len(rows), fraction, key=self._key, name=name)
        validation = self._dataset.take(rows[held]) if held.any() else None
        return ClientData(self._dataset.take(rows[~held]), validation)

    @property
    def own_validation(self) -> bool:
        """Return whether clients have brought their own validation parts."""
        return isinstance(self._validation, Dataset)

    def rows(self, name: str) -> ClientData:
        """Return one client's rows before any of them are kept for validation.

        The validation part is one that the client has brought itself, in a folder of `hansa split`.
        """
        if self.own_validation:
            return self.data(name)
        return ClientData(self._dataset.take(self._parts.indices(self._position(name))))

    def sample(self) -> Dataset:
        """Return one row; it knows the classes of all."""
        return self._dataset.take([0])

    def table(self) -> dict[str, Any] | None:
        """Return label counts of the first clients."""
        shown = min(len(self._parts), PARTITION_ROWS_SHOWN)
        rows = [self._parts.indices(i) for i in range(shown)]
        labels, classes = self._dataset.labels, self._dataset.classes or ()
        if labels is None or not classes:
            counts = [[len(r)] for r in rows]
        else:
            counts = [np.bincount(labels[r], minlength=len(classes)).tolist() for r in rows]
        return {
            "scheme": type(self._parts.scheme).__name__.lower(),
            "total": len(self._parts),
            "clients": [self.names[i] for i in range(shown)],
            "classes": list(classes) if labels is not None else [],
            "counts": counts,
        }

    def fingerprint(self) -> str:
        """Return a digest of every row, of whose it is, and of what it is used for."""
        parts, key = self._parts, self._key.child("validation")
        arrays = [*_arrays(self._dataset), parts.order, parts.offsets]
        arrays += [part for data in (self.test, self._validation) for part in _arrays(data)]
        facts: list[Any] = [self._dataset.classes, key, type(parts.scheme).__name__]
        if not isinstance(self._validation, Dataset):
            facts.append(float(self._validation))
        if not isinstance(self.names, ClientNames):
            facts.append(tuple(self.names))
        hasher = blake3(repr(facts).encode())
        for array in arrays:
            hasher.update(f"\0{array.dtype.str}{array.shape}\0".encode())
            hasher.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return f"blake3:{hasher.hexdigest()}"

    def _position(self, name: str) -> int:
        if isinstance(self.names, ClientNames):
            return int(name.removeprefix("client-"))
        if self._index is None:
            self._index = {client: i for i, client in enumerate(self.names)}
        return self._index[name]


class Asked:
    """Clients whose data the project's own `data(client)` returns.

    Args:
      data: the user's function.
      clients: how many there are, or their names.
      validation: share of a `Dataset` or `(x, y)` kept for evaluation.
      test: the server's own data, or None.
      key: decides which rows are kept.
      plan: what every client's data must be.
    """

    examples: int | None = None

    def __init__(
        self,
        data: Callable[[str], Any],
        *,
        clients: int | Sequence[str],
        validation: float = 0.1,
        test: Any = None,
        key: Key,
        plan: DataPlan | None = None,
    ) -> None:
        self._data, self._validation, self._key = data, validation, key
        self._plan = plan or DataPlan()
        self.names = ClientNames(clients) if isinstance(clients, int) else clients
        self.test = as_dataset(test, "the test part")

    def data(self, name: str) -> ClientData:
        """Ask the project for one client's data.

        Raises:
          DataError: the function returned nothing, labels that clients would number apart, or
            data that do not fit the plan.
        """
        own = answered(self._data(name), self._validation, key=self._key, name=name)
        check_fits(self._plan, own, name)
        return own

    def sample(self) -> Any:
        """Return the first client's training data."""
        return self.data(self.names[0]).train

    def table(self) -> None:
        """Return nothing: the counts are the clients' own business."""
        return None

    def fingerprint(self) -> None:
        """Return nothing: the data is the clients' own business."""
        return None


class Placed:
    """Clients each of whom has a file or a folder that Hansa does not read.

    Args:
      folder: holds one file or sub-folder for each client; its name, a file's without the suffix,
        is the client's.

    Raises:
      DataError: data-missing, there is no such folder, or it holds no client, or two of one name.
    """

    test = None
    examples: int | None = None

    def __init__(self, folder: Path) -> None:
        try:
            found = [path for path in folder.iterdir() if not path.name.startswith(".")]
        except OSError as error:
            raise _no_places(folder, f"cannot be read: {error.strerror or error}") from None
        self._places = {(p.name if p.is_dir() else p.stem): p.resolve() for p in found}
        if len(self._places) < max(len(found), 1):
            raise _no_places(folder, "holds two clients of one name" if found else "is empty")
        self.names = sorted(self._places, key=natural_order)

    def place(self, name: str) -> Path:
        """Return where a client's data lie."""
        return self._places[name]

    def data(self, name: str) -> ClientData:
        """Return one client's place for training and for validation: its command divides it."""
        place = DataPath(self.place(name))
        return ClientData(place, place)

    def sample(self) -> DataPath:
        """Return the first client's place."""
        return DataPath(self.place(self.names[0]))

    def table(self) -> None:
        """Return nothing: nobody has counted."""
        return None

    def fingerprint(self) -> None:
        """Return nothing: the files may be of any size."""
        return None


def _no_places(folder: Path, how: str) -> DataError:
    return DataError(
        "data-missing",
        f"The folder {folder} {how}.",
        'With learner.rows = "path" data.set names a folder with one file or folder per client.',
    )


def project_population(project: Project, *, test: bool = True) -> Population:
    """Return the population that a project's plan describes.

    Args:
      test: whether to ask a project that makes its own data for its test set, too.

    Raises:
      DataError: data is missing or cannot be split as asked.
      PlanError: a data set without a split.
      LearnerError: the plan names no data set, and the project has no `data(client)`.
    """
    plan = project.plan
    key = data_key(plan.seed)
    if plan.data.set is None:
        test_data = getattr(project.module, "test_data", None)
        return Asked(
            project_data(project),
            clients=plan.data.clients,
            validation=plan.data.validation,
            test=test_data() if test and callable(test_data) else None,
            key=key,
            plan=plan.data,
        )
    if plan.learner.rows == "path":
        return Placed((data_place(plan.data.set, project.data_folder) or Path()) / plan.data.set)
    if plan.data.split is None:
        raise PlanError(
            "plan-impossible",
            f"The plan's data.set is {plan.data.set!r}, and no data.split says who gets what.",
            'Add split = { scheme = "iid", clients = 10 } under [data].',
        )
    folder = data_place(plan.data.set, project.data_folder)
    asked = plan.data
    dataset = load(
        plan.data.set,
        folder=folder,
        target=asked.target,
        group=asked.group,
        classes=asked.classes,
    )
    validation: float | Dataset = plan.data.validation
    test_part = load_test(plan.data.set, folder=folder, classes=asked.classes)
    if test_part is not None and isinstance(plan.data.split, Files):
        validation, test_part = test_part, None  # the clients' own valid parts stay theirs
    elif test_part is None and plan.data.test:
        dataset, test_part = dataset.holdout(plan.data.test, key.child("test"))
    check_fits(plan.data, ClientData(dataset, test_part), plan.data.set)
    parts = partition(plan.data.split, dataset, key.child("split"))
    return Partitioned(dataset, parts, test=test_part, validation=validation, key=key)


def data_place(name: str, folder: Path | None) -> Path | None:
    """Return the folder that a relative path starts at, or None for the current one."""
    if name in NAMES or folder is None:
        return None
    return folder if (folder / name).exists() or not Path(name).exists() else None


def _arrays(data: Any) -> Iterator[np.ndarray]:
    if isinstance(data, Dataset):
        yield from (part for part in (data.x, data.y, data.groups) if part is not None)


def write_client_rows(population: Population, name: str, folder: Path) -> bool:
    """Write all that a client has into a folder that a site may declare as its data.

    A site of the client's name that declares this folder trains on the rows that the simulated
    client trains on.

    Args:
      population: of a project.
      name: of the client.
      folder: is made; gets train.npz, and valid.npz where clients bring their own validation part.

    Returns:
      False, and nothing is written, where only the project's own `data(client)` knows the rows.
    """
    if not isinstance(population, Partitioned):
        return False
    rows = population.rows(name)
    folder.mkdir(parents=True, exist_ok=True)
    save_part(folder / "train.npz", rows.train)
    if population.own_validation:
        none = rows.train.take([])  # says that there is none, and none is to be cut off
        save_part(folder / "valid.npz", none if rows.validation is None else rows.validation)
    return True
