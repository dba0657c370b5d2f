import numpy as np
import pytest

from hansa.data import NAMES, load, load_test
from hansa.errors import DataError


def test_digits_equal_scikit_learn_s():
    datasets = pytest.importorskip("sklearn.datasets")
    data, theirs = load("digits"), datasets.load_digits()
    assert data.x.dtype == np.float32
    assert np.array_equal(data.x * 16, theirs.data)
    assert np.array_equal(data.y, theirs.target)
    assert data.classes == tuple(map(str, theirs.target_names))
    assert data.name == "digits"


def test_breast_cancer_equals_scikit_learn_s():
    datasets = pytest.importorskip("sklearn.datasets")
    from hansa.data.archives import read_npz
    from hansa.data.sources import SHIPPED_FOLDER

    theirs = datasets.load_breast_cancer()
    shipped = read_npz(SHIPPED_FOLDER / "breast_cancer.npz", ("x", "y"))
    assert shipped["x"].dtype == np.float64
    assert np.array_equal(shipped["x"], theirs.data)
    data = load("breast_cancer")
    standard = (theirs.data - theirs.data.mean(axis=0)) / theirs.data.std(axis=0)
    assert np.allclose(data.x, standard, atol=1e-6)
    assert np.array_equal(data.y, theirs.target)
    assert data.classes == tuple(theirs.target_names)


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "mnist5k"])
def test_where_no_test_set_comes_along_there_is_none(name):
    assert load_test(name) is None


@pytest.mark.parametrize(
    ("name", "hint"),
    [("digit", "'digits'"), ("MNIST", "'mnist'"), ("breast-cancer", "'breast_cancer'")],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, hint):
    with pytest.raises(DataError) as error:
        load(name)
    assert error.value.code == "data-unknown-name"
    assert error.value.hint == f"Did you mean {hint}?"


def test_a_name_near_to_none_is_answered_with_all():
    with pytest.raises(DataError) as error:
        load("xyzzy")
    assert all(name in error.value.hint for name in NAMES)


@pytest.mark.parametrize("path", ["absent.csv", "absent.npz", "some/where", "../absent"])
def test_a_path_that_is_not_there_is_missing_data(tmp_path, path):
    with pytest.raises(DataError, match="There is no file or folder") as error:
        load(path, folder=tmp_path)
    assert error.value.code == "data-missing"


def test_a_file_of_another_format_is_refused(tmp_path):
    (tmp_path / "data.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="suffix") as error:
        load(tmp_path / "data.parquet")
    assert error.value.code == "data-bad-file"


def test_a_folder_that_is_called_like_a_dataset_is_reached_by_its_path(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    np.savez(tmp_path / "digits" / "a.npz", x=np.eye(2), y=np.eye(2))
    monkeypatch.chdir(tmp_path)
    assert load("digits").examples == 1797
    assert load("./digits").examples == 2


def test_a_named_dataset_has_no_columns_to_choose():
    for given in ({"target": "y"}, {"group": "who"}):
        with pytest.raises(DataError) as error:
            load("digits", **given)
        assert error.value.code == "data-option"


def test_the_shipped_files_are_small_enough_for_a_wheel():
    from hansa.data.sources import SHIPPED_FOLDER

    assert sum(path.stat().st_size for path in SHIPPED_FOLDER.iterdir()) < 200_000


def test_the_package_exports_what_it_says():
    import hansa.data

    assert set(hansa.data.__all__) <= set(dir(hansa.data))
