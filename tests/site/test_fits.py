"""What a plan may ask about a site's data: whether they fit, and nothing more is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from site_cases import make_case, make_workers

from hansa.errors import DataError, PlanError, SiteError
from hansa.plan import check_plan, read_plan
from hansa.project import open_project
from hansa.simulation import project_population
from hansa.site.data import site_data
from hansa.site.settings import DataSource
from hansa.site.worker_messages import Declared

PLAN = """
[data]
set = "digits"
split = { scheme = "iid", clients = 2 }
"""


def project(folder: Path, *sets: str):
    folder.mkdir(exist_ok=True)
    (folder / "plan.toml").write_text(PLAN)
    return open_project(folder, sets)


def rows(path: Path, *, shape: tuple[int, ...] = (64,), labels: int = 10) -> Path:
    x = np.arange(20.0 * np.prod(shape)).reshape(20, *shape)
    np.savez(path, x=x, y=np.arange(20) % labels)
    return path


def told(tmp_path: Path, *sets: str, **own: object) -> str | None:
    source = Declared(str(rows(tmp_path / "rows.npz", **own)))  # type: ignore[arg-type]
    try:
        site_data(project(tmp_path / "code", *sets), {"digits": source}, name="north")
    except DataError as error:
        assert error.code == "data-mismatch"
        return f"{error.happened} {error.hint}"
    return None


@pytest.mark.parametrize(
    ("sets", "own", "fits"),
    [
        (["data.shape=[64]", "data.classes=10"], {}, True),
        (["data.shape=[8, 8]"], {}, False),
        (["data.shape=[8, 8]"], {"shape": (8, 8)}, True),
        (["data.shape=[7, 8]"], {"shape": (8, 7)}, False),
        (["data.classes=9"], {}, False),
        (["data.classes=10"], {"labels": 7}, True),
        (['data.classes=["0", "1", "2"]'], {"labels": 3}, True),
        (['data.classes=["0", "2", "1"]'], {"labels": 3}, False),
        (['data.classes=["0", "1", "2", "3"]'], {"labels": 3}, False),
    ],
)
def test_data_fit_or_the_site_is_named(tmp_path: Path, sets: list, own: dict, fits: bool) -> None:
    words = told(tmp_path, *sets, **own)
    assert (words is None) == fits
    assert words is None or "north" in words


def test_nothing_is_asked_by_default(tmp_path: Path) -> None:
    assert told(tmp_path, shape=(3, 5), labels=2) is None


def test_a_site_says_that_it_does_not_fit_and_keeps_to_itself_what_it_has(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    project(folder)
    case = make_case(folder, "data.shape=[64]", "data.classes=10")
    path = rows(tmp_path / "rows.npz", shape=(31, 17))
    workers = make_workers(tmp_path / "site", {"digits": DataSource(path=str(path))}, name="north")
    with pytest.raises(SiteError) as raised:
        workers.examples(case.offer, case.package)
    sent = f"{raised.value.happened}"
    assert "The examples of north have another shape than 64" in sent
    assert "31" not in sent and "17" not in sent
    kept = list((tmp_path / "site" / "failures").iterdir())
    assert any("(31, 17)" in file.read_text() for file in kept)  # for its owner


def test_a_simulation_is_refused_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="digits have another shape"):
        project_population(project(tmp_path / "code", "data.shape=[28, 28]"))
    assert project_population(project(tmp_path / "code", "data.shape=[64]")).names


def test_data_whose_shape_nobody_knows_are_no_fit(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "def data(client): return [client]\n"
        "def init(rng, sample): return {}\n"
        "def train(params, data, ctx): return params\n"
    )
    (tmp_path / "plan.toml").write_text('[learner]\nkind = "function"\nmodule = "model.py"\n')
    opened = open_project(tmp_path, ["data.shape=[4]"])
    with pytest.raises(DataError, match="cannot be compared"):
        project_population(opened).data("client-0")
    with pytest.raises(DataError, match="cannot be compared"):
        site_data(opened, {}, name="north")


@pytest.mark.parametrize("bad", ["data.shape=[0, 3]", "data.classes=0", "data.classes=[]"])
def test_values_that_no_data_have_are_refused(bad: str) -> None:
    with pytest.raises(PlanError) as raised:
        check_plan(read_plan({}, [bad]).plan)
    assert raised.value.code == "plan-bad-value"
