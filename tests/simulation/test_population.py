"""Who the clients are: fingerprints that notice changed data, and where a plan's data lies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hansa.data import Dataset, Iid, Natural, Partition, partition
from hansa.errors import DataError
from hansa.plan import read_plan
from hansa.project import build_project
from hansa.seeds import Key
from hansa.simulation import Asked, Partitioned, project_population

KEY = Key.root(3)


def make(
    change: Callable[[np.ndarray, np.ndarray], None] = lambda x, y: None,
    *,
    split: Partition | None = None,
    classes: tuple[str, ...] = ("a", "b", "c"),
    **options: object,
) -> Partitioned:
    x = np.arange(40, dtype=np.float32).reshape(20, 2) - 7
    y = np.arange(20) % 3
    change(x, y)
    data = Dataset.of(x, y, classes=classes)
    parts = split or partition(Iid(clients=4), data, KEY)
    return Partitioned(data, parts, key=options.pop("key", KEY), **options)  # type: ignore[arg-type]


def poke(array: int, row: int, value: float) -> Callable[[np.ndarray, np.ndarray], None]:
    return lambda *arrays: arrays[array][row].__setitem__(..., value) if array == 0 else (
        arrays[1].__setitem__(row, value)
    )  # fmt: skip


def other(x: float = 0) -> Dataset:
    groups = np.array([f"client-{i % 4}" for i in range(8)])
    return Dataset.of(np.full((8, 2), x), np.arange(8) % 3, classes=("a", "b", "c"), groups=groups)


def test_the_same_data_shared_out_alike_has_the_same_fingerprint() -> None:
    assert make().fingerprint() == make().fingerprint()
    assert make(validation=other()).fingerprint() == make(validation=other()).fingerprint()


def test_every_change_of_data_or_of_whose_it_is_changes_the_fingerprint() -> None:
    data = Dataset.of(np.zeros((20, 2)), np.zeros(20, int), classes=("a", "b", "c"))
    changed = [
        make(),
        make(poke(0, 0, 1.5)),
        make(poke(0, 19, -1.5)),
        make(poke(1, 4, 0)),
        make(classes=("a", "b", "d")),
        make(split=partition(Iid(clients=4), data, Key.root(4))),
        make(split=partition(Iid(clients=5), data, KEY)),
        make(validation=0.25),
        make(validation=0.0),
        make(validation=other()),
        make(validation=other(1)),
        make(test=other()),
        make(test=other(1)),
        make(key=Key.root(9)),
    ]
    prints = [population.fingerprint() for population in changed]
    assert len(set(prints)) == len(prints)
    assert all(text.startswith("blake3:") and len(text) == 71 for text in prints)


def test_names_of_natural_clients_belong_to_the_fingerprint() -> None:
    prints = set()
    for author in ("ann", "bob"):
        groups = np.array(["x", author] * 2)
        data = Dataset.of(np.zeros((4, 2)), np.zeros(4, int), groups=groups)
        prints.add(Partitioned(data, partition(Natural(), data, KEY), key=KEY).fingerprint())
    assert len(prints) == 2


def test_clients_that_are_asked_have_no_fingerprint() -> None:
    assert Asked(lambda client: None, clients=2, key=KEY).fingerprint() is None


# Where a relative data.set lies


def table(folder: Path, first: float) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{first + i},{i % 2}" for i in range(20)]
    (folder / "own.csv").write_text("\n".join(["x,y", *lines]))
    return folder


def firsts(folder: Path | None, name: str = "own.csv", data_folder: Path | None = None) -> float:
    data = {"set": name, "split": {"scheme": "iid", "clients": 2}, "test": 0.0, "validation": 0.0}
    data |= {"target": "y"} if name.endswith(".csv") else {}
    project = build_project(read_plan({"data": data}).plan, folder)
    if data_folder is not None:
        project = project._replace(data_folder=data_folder)
    population = project_population(project)
    return float(min(population.data(c).train.x.min() for c in population.names))


def test_a_relative_path_is_looked_for_in_the_project_and_then_here(home: Path) -> None:
    project, here = home / "study", table(home / "here", 100)
    project.mkdir()
    (home / "own.csv").write_text((here / "own.csv").read_text())
    assert firsts(project) == 100  # only the current folder has it
    table(project, -50)
    assert firsts(project) == -50
    assert firsts(None) == 100
    assert firsts(project, str(here / "own.csv")) == 100  # an absolute path is one
    copy = home / "copy"
    copy.mkdir()
    assert firsts(copy, data_folder=project) == -50


def test_a_named_set_is_not_looked_for_in_the_project(home: Path) -> None:
    (home / "study" / "digits").mkdir(parents=True)
    assert firsts(home / "study", "digits") == 0


def test_a_path_that_is_nowhere_is_told_with_the_folder(home: Path) -> None:
    (home / "study").mkdir()
    with pytest.raises(DataError, match=r"study/own\.csv.*start at .*study") as error:
        firsts(home / "study")
    assert error.value.code == "data-missing"


def test_a_folder_of_a_split_is_found_in_the_project_with_its_test_parts(home: Path) -> None:
    from hansa.data import load, write_split

    data = load("digits")
    folder = home / "study" / "parts"
    folder.parent.mkdir()
    parts = partition(Iid(clients=3), data, KEY)
    write_split(data, parts, folder, validation=0.2, key=KEY)
    plan = read_plan({"data": {"set": "parts", "split": {"scheme": "files"}}}).plan
    population = project_population(build_project(plan, home / "study"))
    assert len(population.names) == 3
    assert population.data(population.names[0]).validation is not None
