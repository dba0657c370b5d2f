"""A site that holds a simulated client's rows, under its name, is that client, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from site_cases import Case, make_case, make_workers

from hansa.algorithms import Vectors
from hansa.data import Dataset, load, partition, write_split
from hansa.data.schemes import Dirichlet
from hansa.errors import DataError, LearnerError, SiteError
from hansa.learners.learner import ClientData
from hansa.params import Params, encode
from hansa.project import open_project
from hansa.seeds import Key
from hansa.simulation import project_population
from hansa.simulation.population import write_client_rows
from hansa.simulation.runner import Runner
from hansa.site.data import site_data
from hansa.site.settings import DataSource
from hansa.site.worker_messages import Declared
from hansa.store.client_states import ClientStates
from hansa.store.files import load_params

DIGITS = """
seed = 11
{top}
[data]
set = "{set}"
split = {{ scheme = "{scheme}"{more} }}
"""
DIRICHLET = {"set": "digits", "scheme": "dirichlet", "more": ", clients = 6, alpha = 0.2"}


def write_project(folder: Path, *, top: str = "", **changes: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "plan.toml").write_text(DIGITS.format(top=top, **(DIRICHLET | changes)))
    return folder


def assert_same(one: ClientData, other: ClientData) -> None:
    for mine, theirs in zip(one, other, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert mine.x.tobytes() == theirs.x.tobytes() and mine.x.dtype == theirs.x.dtype
            assert mine.y.tobytes() == theirs.y.tobytes() and mine.y.dtype == theirs.y.dtype
            assert mine.classes == theirs.classes and mine.name == theirs.name


def simulated_updates(case: Case, name: str, folder: Path) -> list[bytes]:
    """Return what the simulation's Runner folds for a client in rounds 1 and 2, as files."""
    caught: list[Any] = []

    class Catcher:
        streaming = True

        def zero(self, spec: Any) -> None:
            return None

        def add(self, partial: Any, contribution: Any) -> None:
            caught.append(contribution)

    population = project_population(case.project)
    runner = Runner(case.project, population, client=case.client, states=ClientStates(folder))
    runner.aggregator = Catcher()  # type: ignore[assignment]
    for number in (1, 2):
        runner.open(number, Vectors(load_params(case.message).to_dict()), 1e6)
        report = runner.train(name)
        assert report.kind == "done", report
    return [b"".join(encode(Params.of(dict(c.vectors)))) for c in caught]


@pytest.mark.parametrize("algorithm", ["fed_avg", "scaffold"])
def test_a_site_with_a_clients_rows_sends_that_clients_bytes(
    tmp_path: Path, algorithm: str
) -> None:
    package = write_project(tmp_path / "code", top=f'algorithm = "{algorithm}"')
    case = make_case(package)
    population = project_population(case.project)
    for name in ("client-0", "client-4"):
        assert write_client_rows(population, name, tmp_path / name)
        source = Declared(str(tmp_path / name))
        assert_same(site_data(case.project, {"digits": source}, name=name), population.data(name))
        site = make_workers(
            tmp_path / f"site-{name}", {"digits": DataSource(path=source.path)}, name=name
        )
        expected = simulated_updates(case, name, tmp_path / f"states-{name}")
        assert expected[0] != expected[1]
        try:
            for number in (1, 2, 2):  # a task that is done again after a crash gives the same
                update = tmp_path / f"{name}-{number}"
                result = site.train(case.offer, package, number, case.message, update)
                assert result.state == "done", result
                assert update.read_bytes() == expected[number - 1]
                assert result.digest == f"blake3:{blake3(update.read_bytes()).hexdigest()}"
                assert result.examples == population.data(name).train.examples
        finally:
            site.close_all()


def test_rows_under_another_name_are_cut_otherwise(tmp_path: Path) -> None:
    case = make_case(write_project(tmp_path / "code"))
    population = project_population(case.project)
    write_client_rows(population, "client-0", tmp_path / "rows")
    other = site_data(case.project, {"digits": Declared(str(tmp_path / "rows"))}, name="north")
    own = population.data("client-0")
    assert other.train.examples == own.train.examples
    assert other.train.x.tobytes() != own.train.x.tobytes()


def test_folders_of_hansa_split_keep_their_own_validation_parts(tmp_path: Path) -> None:
    digits = load("digits")
    parts = partition(Dirichlet(clients=4, alpha=0.3), digits, Key.root(1))
    split = write_split(digits, parts, tmp_path / "split", validation=0.3, key=Key.root(2))
    (tmp_path / "split" / split.clients[3] / "valid.npz").unlink()
    package = write_project(tmp_path / "code", set=str(tmp_path / "split"), scheme="files", more="")
    project = open_project(package)
    population = project_population(project)
    for name in population.names[:3]:
        declared = {str(tmp_path / "split"): Declared(str(tmp_path / "split" / name))}
        assert_same(site_data(project, declared, name=name), population.data(name))
    for name in population.names:  # also the one without: written, it says that it has none
        write_client_rows(population, name, tmp_path / "written" / name)
        declared = {str(tmp_path / "split"): Declared(str(tmp_path / "written" / name))}
        assert_same(site_data(project, declared, name=name), population.data(name))
    assert population.data(population.names[3]).validation is None


def test_a_single_file_of_hansa_split_is_cut_like_a_simulated_clients_rows(tmp_path: Path) -> None:
    case = make_case(write_project(tmp_path / "code"))
    population = project_population(case.project)
    write_client_rows(population, "client-2", tmp_path / "rows")
    file = Declared(str(tmp_path / "rows" / "train.npz"))
    assert_same(
        site_data(case.project, {"digits": file}, name="client-2"), population.data("client-2")
    )


def test_the_classes_that_a_client_lacks_are_known_all_the_same(tmp_path: Path) -> None:
    case = make_case(write_project(tmp_path / "code"))
    population = project_population(case.project)
    lacking = [n for n in population.names if len(np.unique(population.rows(n).train.y)) < 10]
    assert lacking  # alpha = 0.2 leaves gaps
    write_client_rows(population, lacking[0], tmp_path / "rows")
    declared = {"digits": Declared(str(tmp_path / "rows"))}
    assert len(site_data(case.project, declared, name=lacking[0]).train.classes) == 10


TABLE = "age,label\n1,{}\n2,{}\n3,{}\n4,{}\n"


def data_of(tmp_path: Path, labels: list[str], **declared: Any) -> Dataset:
    folder = tmp_path / "code"
    if not folder.exists():
        write_project(folder)
    project = open_project(folder, ["data.target=label", "data.validation=0"])
    path = tmp_path / "table.csv"
    path.write_text(TABLE.format(*labels))
    return site_data(project, {"digits": Declared(str(path), **declared)}, name="north").train


def test_whole_numbers_of_a_table_keep_their_values(tmp_path: Path) -> None:
    assert data_of(tmp_path, ["2", "0", "2", "4"]).y.tolist() == [2, 0, 2, 4]


def test_text_labels_of_a_table_need_the_names_of_all_classes(tmp_path: Path) -> None:
    labels = ["sick", "well", "sick", "sick"]
    with pytest.raises(DataError, match="classes") as raised:
        data_of(tmp_path, labels)
    assert raised.value.code == "data-labels"
    found = data_of(tmp_path, labels, classes=("dead", "sick", "well"))
    assert found.y.tolist() == [1, 2, 1, 1] and found.classes == ("dead", "sick", "well")


def test_fractions_of_a_table_are_numbers_to_predict(tmp_path: Path) -> None:
    found = data_of(tmp_path, ["0.5", "1", "2", "3"])
    assert found.classes is None and found.y.tolist() == [0.5, 1, 2, 3]


def both_sides(
    tmp_path: Path, north: list[str], south: list[str], *sets: str, classes: tuple[str, ...] = ()
) -> tuple[dict[str, Dataset], dict[str, Dataset]]:
    """Return what simulated clients get of a folder of tables, and sites each of their own one."""
    tables, code = tmp_path / "tables", tmp_path / "code"
    tables.mkdir(exist_ok=True)
    if not code.exists():
        write_project(code, set=str(tables), scheme="files", more="")
    for name, cells in (("north", north), ("south", south)):
        rows = (f"{i}.5,{-i},{cell}" for i, cell in enumerate(cells))
        (tables / f"{name}.csv").write_text("\n".join(["a,b,grade", *rows]) + "\n")
    every = ("data.target=grade", "data.test=0", "data.validation=0")
    project = open_project(code, [*every, *sets])
    population = project_population(project)
    own = {
        name: site_data(
            project,
            {str(tables): Declared(str(tables / f"{name}.csv"), classes=classes)},
            name=name,
        )
        for name in ("north", "south")
    }
    simulated = {name: population.data(name).train for name in own}
    return simulated, {name: data.train for name, data in own.items()}


@pytest.mark.parametrize(
    ("north", "south", "sets", "classes", "expected"),
    [
        (["1", "2", "1"], ["2", "3", "3"], [], (), ([1, 2, 1], [2, 3, 3])),
        (["1", "2", "1"], ["2", "3", "3"], ["data.classes=4"], (), ([1, 2, 1], [2, 3, 3])),
        (["2.0", "1"], ["0.5", "-3.0"], [], (), ([2, 1], [0.5, -3])),
        (
            [*map(str, range(60))],
            [*map(str, range(59, 130))],
            ["data.classes=130"],
            (),
            ([*range(60)], [*range(59, 130)]),
        ),
        (
            ["low", "mid"],
            ["mid", "high"],
            ["data.classes=['low', 'mid', 'high']"],
            (),
            ([0, 1], [1, 2]),
        ),
        (
            ["1", "2"],
            ["2", "3"],
            ["data.classes=['1', '2', '3']"],
            ("1", "2", "3"),
            ([0, 1], [1, 2]),
        ),
        (["oak", "elm"], ["ash", "oak"], [], ("ash", "elm", "oak"), ([2, 1], [0, 2])),
    ],
    ids=["whole", "counted", "decimal", "many", "named by the plan", "named twice", "by name"],
)
def test_a_table_has_the_same_labels_at_its_site_as_in_a_simulation(
    tmp_path: Path,
    north: list[str],
    south: list[str],
    sets: list[str],
    classes: tuple[str, ...],
    expected: tuple[list[float], list[float]],
) -> None:
    simulated, own = both_sides(tmp_path, north, south, *sets, classes=classes)
    for name, y in zip(("north", "south"), expected, strict=True):
        assert simulated[name].y.tolist() == own[name].y.tolist() == y
        assert simulated[name].y.dtype == own[name].y.dtype
        assert simulated[name].x.tobytes() == own[name].x.tobytes()


@pytest.mark.parametrize(
    ("north", "south", "sets", "classes"),
    [
        (["1", "2"], ["0.5", "2"], [], ()),  # north alone would be classes
        (["1", "2"], ["1", "ill"], [], ()),  # north alone would keep its numbers
        (["low"], ["high"], [], ("low", "high")),  # simulated, high comes first
        (["1", "2"], ["2", "3"], [], ("1", "2", "3")),  # simulated, 1 is 1
        (["low"], ["high"], ["data.classes=['low', 'high']"], ("high", "low")),
        (["low"], ["high"], ["data.classes=['low', 'mid']"], ()),
        ([*map(str, range(60))], [*map(str, range(59, 170))], [], ()),
    ],
)
def test_labels_that_could_differ_between_a_site_and_a_simulation_are_refused(
    tmp_path: Path, north: list[str], south: list[str], sets: list[str], classes: tuple[str, ...]
) -> None:
    with pytest.raises(DataError) as error:
        both_sides(tmp_path, north, south, *sets, classes=classes)
    assert error.value.code in ("data-mismatch", "data-labels")


def test_a_site_tells_nobody_the_order_of_classes_that_it_has_declared(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="an order of its own") as error:
        both_sides(tmp_path, ["benign"], ["acute"], classes=("benign", "acute"))
    assert "benign" not in str(error.value)
    assert "data.classes" in error.value.hint


def test_data_that_is_not_declared_is_refused(tmp_path: Path) -> None:
    project = open_project(write_project(tmp_path / "code"))
    with pytest.raises(SiteError) as raised:
        site_data(project, {}, name="north")
    assert raised.value.code == "site-data"


def test_a_folder_without_train_npz_and_parts_that_differ_are_refused(tmp_path: Path) -> None:
    project = open_project(write_project(tmp_path / "code"))
    folder = tmp_path / "rows"
    folder.mkdir()
    declared = {"digits": Declared(str(folder))}
    with pytest.raises(DataError, match="holds no train"):
        site_data(project, declared, name="north")
    np.savez(folder / "train.npz", x=np.zeros((3, 2)), y=np.arange(3))
    np.savez(folder / "valid.npz", x=np.zeros((3, 4)), y=np.arange(3))
    with pytest.raises(DataError) as raised:
        site_data(project, declared, name="north")
    assert raised.value.code == "data-mismatch"


def test_a_project_with_its_own_data_function_is_asked_by_the_sites_name(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text('[learner]\nmodule = "model.py"\n[data]\nclients = 2\n')
    (tmp_path / "model.py").write_text(
        "import numpy as np\n"
        "def data(client):\n"
        "    number = int(client[-1])\n"
        "    return np.arange(20.0).reshape(10, 2) * number, np.arange(10) % 2\n"
        "def init(rng, sample):\n    return {}\n"
        "def loss(params, x, y):\n    return 0.0, {}\n"
        "def metrics(params, x, y):\n    return {}\n"
    )
    project = open_project(tmp_path)
    population = project_population(project)
    own = site_data(project, {}, name="client-1")
    assert own.train.x.tobytes() == population.data("client-1").train.x.tobytes()
    assert not write_client_rows(population, "client-1", tmp_path / "none")
    (tmp_path / "model.py").write_text(
        "def init(rng, sample): ...\ndef loss(p, x, y): ...\ndef metrics(p, x, y): ...\n"
    )
    with pytest.raises(LearnerError):
        site_data(open_project(tmp_path), {}, name="client-1")
