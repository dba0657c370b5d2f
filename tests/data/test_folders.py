from pathlib import Path

import numpy as np
import pytest

from hansa.data import Files, load, load_test, partition
from hansa.errors import DataError
from hansa.seeds import Key


def client(folder: Path, name: str, *, rows: int = 2, part: str = "train", **arrays) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    first = int(name.split("-")[-1]) * 100
    values = {"x": np.arange(first, first + rows)[:, None], "y": np.arange(rows) % 2} | arrays
    np.savez(folder / name / f"{part}.npz", **values)


def test_one_npz_file_is_a_dataset(tmp_path):
    np.savez(
        tmp_path / "cats.npz",
        x=np.array([[1.5], [-2.0]]),
        y=np.array([1, 0]),
        groups=np.array(["n", "s"]),
        classes=np.array(["tabby", "tiger", "lynx"]),
    )
    data = load(tmp_path / "cats.npz")
    assert data.name == "cats"
    assert data.x.tolist() == [[1.5], [-2.0]]
    assert data.y.tolist() == [1, 0]
    assert data.classes == ("tabby", "tiger", "lynx")
    assert data.groups is not None and data.groups.tolist() == ["n", "s"]


def test_a_path_is_relative_to_the_folder_that_is_given(tmp_path):
    (tmp_path / "deep").mkdir()
    np.savez(tmp_path / "deep" / "d.npz", x=np.eye(2), y=np.eye(2))
    assert load("deep/d.npz", folder=tmp_path).classes is None


def test_sub_folders_become_groups_in_natural_order_and_files_gives_them_back(tmp_path):
    for i in (10, 2, 0):
        client(tmp_path, f"client-{i}", rows=i + 1)
    (tmp_path / ".DS_Store").write_bytes(b"")
    (tmp_path / "notes").mkdir()
    (tmp_path / "split.json").write_text("{}")
    data = load(tmp_path)
    parts = partition(Files(), data, Key.root(1))
    assert list(parts.names) == ["client-0", "client-2", "client-10"]
    assert parts.sizes.tolist() == [1, 3, 11]
    assert data.x[parts.indices(1), 0].tolist() == [200, 201, 202]
    assert data.x[parts.indices(2), 0].tolist() == list(range(1000, 1011))


def test_validation_parts_are_the_folder_s_test_set_by_client(tmp_path):
    for i in range(3):
        client(tmp_path, f"client-{i}")
    assert load_test(tmp_path) is None
    client(tmp_path, "client-2", rows=1, part="valid")
    held = load_test(tmp_path)
    assert held is not None and held.groups is not None
    assert held.groups.tolist() == ["client-2"]
    assert held.x.tolist() == [[200]]


def test_csv_files_share_one_numbering_of_their_labels(tmp_path):
    (tmp_path / "north.csv").write_text("a,y\n1,oak\n2,elm\n")
    (tmp_path / "south.csv").write_text("a,y\n3,ash\n4,oak\n")
    data = load(tmp_path, target="y")
    assert data.classes == ("ash", "elm", "oak")
    assert data.y.tolist() == [2, 1, 0, 2]
    assert data.groups is not None
    assert data.groups.tolist() == ["north", "north", "south", "south"]
    assert load_test(tmp_path) is None


def test_npz_files_with_text_labels_share_one_numbering(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.eye(2), y=np.array(["q", "p"]))
    np.savez(tmp_path / "b.npz", x=np.eye(2), y=np.array(["longer", "q"]))
    data = load(tmp_path)
    assert data.classes == ("longer", "p", "q")
    assert data.y.tolist() == [2, 1, 0, 2]


def test_labels_that_one_client_lacks_do_not_shift_the_others(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.eye(2), y=np.array([0, 3]))
    np.savez(tmp_path / "b.npz", x=np.eye(2), y=np.array([3, 3]))
    assert load(tmp_path).y.tolist() == [0, 3, 3, 3]
    assert load(tmp_path / "b.npz").y.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("what", "arrays"),
    [
        ("rows of x", {"x": np.zeros((2, 2))}),
        ("rows of y", {"y": np.zeros((2, 2), int)}),
        ("kind of y", {"y": np.array([0.5, 1.5])}),
        ("classes", {"classes": np.array(["a", "b"])}),
    ],
)
def test_clients_that_differ_are_refused_by_name(tmp_path, what, arrays):
    client(tmp_path, "client-0")
    client(tmp_path, "client-1", **arrays)
    with pytest.raises(DataError, match=f"{what}.*client-0.*client-1") as error:
        load(tmp_path)
    assert error.value.code == "data-mismatch"


def test_csv_files_with_other_columns_are_refused(tmp_path):
    (tmp_path / "north.csv").write_text("a,b,y\n1,2,p\n")
    (tmp_path / "south.csv").write_text("b,a,y\n1,2,p\n")
    with pytest.raises(DataError, match="columns") as error:
        load(tmp_path, target="y")
    assert error.value.code == "data-mismatch"


def test_an_empty_a_mixed_and_an_ambiguous_folder_are_refused(tmp_path):
    for name in ("empty", "mixed", "twins"):
        (tmp_path / name).mkdir()
    client(tmp_path / "mixed", "client-0")
    np.savez(tmp_path / "mixed" / "b.npz", x=np.eye(2), y=np.eye(2))
    np.savez(tmp_path / "twins" / "a.npz", x=np.eye(2), y=np.eye(2))
    (tmp_path / "twins" / "a.csv").write_text("a,y\n1,p\n")
    for name, why in (("empty", "no client"), ("mixed", "sub-folders"), ("twins", "two files")):
        with pytest.raises(DataError, match=why) as error:
            load(tmp_path / name)
        assert error.value.code == "data-missing"


@pytest.mark.parametrize(
    ("code", "arrays"),
    [
        ("data-bad-file", {"x": np.eye(2)}),
        ("data-bad-file", {"y": np.eye(2)}),
        ("data-bad-file", {"x": np.array(1.0), "y": np.array(1.0)}),
        ("data-bad-file", {"x": np.eye(2), "y": np.zeros(2, int), "classes": np.array([1, 2])}),
        ("data-bad-file", {"x": np.eye(2), "y": np.zeros(2, int), "classes": np.array(["a", "a"])}),
        ("data-bad-file", {"x": np.eye(2), "y": np.zeros(2, int), "classes": np.array("a")}),
        ("data-labels", {"x": np.eye(2), "y": np.array([0, 1]), "classes": np.array(["a"])}),
        ("data-mismatch", {"x": np.eye(2), "y": np.zeros(3, int)}),
    ],
)
def test_an_npz_file_that_is_no_dataset_is_refused(tmp_path, code, arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError) as error:
        load(tmp_path / "a.npz")
    assert error.value.code == code


def test_columns_cannot_be_chosen_where_there_are_none(tmp_path):
    client(tmp_path, "client-0")
    for given in ({"target": "y"}, {"group": "who"}):
        for path in (tmp_path, tmp_path / "client-0" / "train.npz"):
            with pytest.raises(DataError) as error:
                load(path, **given)
            assert error.value.code == "data-option"


def test_a_folder_of_more_data_than_the_limit_is_refused(tmp_path, monkeypatch):
    for i in range(4):
        client(tmp_path, f"client-{i}", rows=10)
    monkeypatch.setattr("hansa.limits.DATA_BYTES_MAX", 300)
    with pytest.raises(DataError) as error:
        load(tmp_path)
    assert error.value.code == "data-too-large"
