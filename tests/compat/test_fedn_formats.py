"""Model files of FEDn's helpers, written by hand byte for byte, and the stand-in for `fedn`."""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fedn_packages import npz

from hansa.compat.fedn.formats import FORMS, fitted, read_model, write_model
from hansa.compat.fedn.shim import fedn as shim
from hansa.errors import LearnerError
from hansa.params import Params

MODEL = Params.of({"0": np.array([[1.5, -2.0, 0.25]], np.float32), "1": np.array(7, np.int64)})


def npy(shape: str, dtype: str, body: bytes, order: str = "False") -> bytes:
    """Return an .npy file, as the format's description has it."""
    head = f"{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + body


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_an_npz_file_written_by_hand():
    data = zipped(
        **{
            "fc.weight.npy": npy("(2, 3)", "<f4", struct.pack("<6f", 1, 2, 3, -4, 5, 6)),
            "columns.npy": npy("(2, 2)", ">f8", struct.pack(">4d", 1, 3, 2, 4), order="True"),
            "count.npy": npy("()", "<i8", struct.pack("<q", -9)),
        }
    )
    params = read_model(data, "npz", most=1000)
    assert list(params) == ["fc.weight", "columns", "count"]
    assert params["fc.weight"].tolist() == [[1, 2, 3], [-4, 5, 6]]
    assert params["columns"].tolist() == [[1, 2], [3, 4]]
    assert params["count"].shape == () and params["count"].item() == -9
    with np.load(io.BytesIO(write_model(params, "npz")), allow_pickle=False) as again:
        assert again.files == list(params) and again["fc.weight"].dtype == np.float32


@pytest.mark.parametrize(
    ("form", "data", "values"),
    [
        ("float64", struct.pack("<3d", 0.1, -2.0, 1e300), [0.1, -2.0, 1e300]),
        ("float32", struct.pack("<2f", 0.5, -8.0), [0.5, -8.0]),
        ("text", b"1.0e+00 -2.5e-01\n3.0e+00 4.0e+00\n", [[1.0, -0.25], [3.0, 4.0]]),
    ],
)
def test_files_without_names(form, data, values):
    params = read_model(data, form, most=1000)
    assert list(params) == ["0"] and params["0"].tolist() == values
    again = write_model(params, form)
    assert again == data or form == "text"
    assert read_model(again, form, most=1000)["0"].tolist() == values


def test_several_tensors_become_one_row_of_numbers():
    assert write_model(MODEL, "float64") == struct.pack("<4d", 1.5, -2.0, 0.25, 7.0)


@pytest.mark.parametrize(
    ("form", "data", "words"),
    [
        ("npz", pickle.dumps([1.0]), "a pickle"),
        ("npz", zipped(**{"archive/data.pkl": b"x", "archive/version": b"3"}), "torch.save"),
        ("npz", b"\x89HDF\r\n", "HDF5"),
        ("npz", zipped(**{"0.npy": npy("(1,)", "|O", pickle.dumps(1))}), "objects"),
        ("npz", zipped(**{"0.npy": npy("(9999999,)", "<f4", b"\0" * 8)}), "cut off"),
        ("npz", zipped(**{"0.npy": npy("(1,)", "<f4", b"\0" * 8)}), "longer than it says"),
        ("npz", zipped(**{"0.npy": npy("(4000,)", "<f8", b"\0" * 32000)}), "more than the 1,000"),
        ("npz", zipped(**{"readme.txt": b"hello"}), "no array"),
        ("npz", zipped(), "no arrays"),
        ("npz", b"PK\3\4 and no more", "no .npz file"),
        ("float64", b"1234567", "no whole number"),
        ("float32", b"", "no whole number"),
        ("text", b"one two", "no rows of numbers"),
    ],
)
def test_what_is_refused(form, data, words):
    with pytest.raises(LearnerError, match=words) as error:
        read_model(data, form, most=1000)
    assert error.value.code == "command-result"


def test_trained_arrays_get_the_names_and_dtypes_of_those_that_were_given():
    back = Params.of({"arr_0": np.array([[0.1, 0.2, 0.3]]), "arr_1": np.array(8.0)})
    trained = fitted(back, MODEL)
    assert list(trained) == ["0", "1"] and trained["1"].dtype == np.int64
    assert trained["0"].tobytes() == np.array([0.1, 0.2, 0.3], np.float32).tobytes()
    swapped = Params.of({"1": np.array(8), "0": np.array([[1.0, 2.0, 3.0]])})
    assert fitted(swapped, MODEL)["1"].item() == 8
    for bad, words in (
        ({"0": np.zeros((3, 2)), "1": np.array(1)}, r"\[3, 2\]"),
        ({"0": np.zeros((1, 3))}, "1 tensors"),
        ({"0": np.zeros((1, 3)), "1": np.array(0.5)}, "float64"),
    ):
        with pytest.raises(LearnerError, match=words):
            fitted(Params.of(bad), MODEL)


@pytest.mark.parametrize("name", sorted(FORMS))
def test_the_stand_in_s_helpers_write_what_is_read_here(tmp_path, name):
    helper = shim.get_helper(f"fedn.utils.helpers.plugins.{name}")
    array = np.array([[1.0, -2.0], [0.5, 4.0]], np.float32)
    named = name in ("pytorchhelper", "splitlearninghelper")
    weights = {"w": array} if named else [array]
    given = array if name == "numpyarrayhelper" else weights
    path = tmp_path / "model.npz"
    assert helper.save(given, path) == path
    params = read_model(path.read_bytes(), FORMS[name], most=1000)
    assert np.concatenate([a.ravel() for a in params.values()]).tolist() == [1.0, -2.0, 0.5, 4.0]
    path.write_bytes(write_model(params, FORMS[name]))
    loaded = helper.load(str(path))
    mean = helper.increment_average(loaded, helper.load(path), 3, 4)
    assert type(mean) is type(loaded) and np.allclose(
        np.ravel(list(mean.values()) if named else mean), array.ravel()
    )


def test_more_than_ten_arrays_keep_their_order(tmp_path):
    path = tmp_path / "m.npz"
    path.write_bytes(npz(**{str(i): np.array(i) for i in (10, 2, 1, 0, *range(3, 10))}))
    assert [int(a) for a in shim.get_helper("numpyhelper").load(path)] == list(range(11))


def test_an_average_is_the_weighted_one():
    helper = shim.get_helper("numpyhelper")
    model = [np.zeros(2)]
    total = 0
    for value, n in (([4.0, 1.0], 2), ([-8.0, 1.0], 6)):
        total += n
        model = helper.increment_average(model, [np.array(value)], n, total)
    assert model[0].tolist() == [-5.0, 1.0]  # (2 * 4 - 6 * 8) / 8
    assert helper.add([np.ones(1)], [np.ones(1)], 2.0, 3.0)[0].tolist() == [5.0]


def test_the_stand_in_is_fedn_only_where_its_folder_is_on_the_path(tmp_path):
    code = """
import fedn.utils.helpers.helpers as new, fedn.utils.helpers as middle
from fedn.utils.kerashelper import KerasHelper
from fedn.utils.pytorchhelper import PytorchHelper
from fedn.utils.numpyarrayhelper import NumpyArrayHelper
from fedn.utils.helpers.plugins.numpyhelper import Helper
from fedn.common.log_config import logger
assert new.get_helper is middle.get_helper
try:
    import fedn.network.combiner.roundhandler
except ModuleNotFoundError as error:
    print(error)
"""
    folder = str(Path(shim.__file__).parent)
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env={"PYTHONPATH": folder}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "stand-in for fedn has no module fedn.network" in done.stdout
    assert "fedn" not in sys.modules and not any("fedn.utils" in name for name in sys.modules)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_damaged_file_is_refused_with_a_sentence_and_never_a_traceback(compressed):
    whole = bytearray((npz if compressed else stored)(a=np.arange(6.0).reshape(2, 3)))
    rng, refused = np.random.default_rng(3), 0
    for _ in range(600):
        data = whole.copy()
        at, kind = rng.integers(len(data)), rng.integers(3)
        if kind == 0:
            data[at] ^= int(rng.integers(1, 256))
        elif kind == 1:
            del data[at : at + int(rng.integers(1, 20))]
        else:
            data[at:at] = rng.bytes(5)
        try:
            read_model(bytes(data), "npz", most=10**6)
        except LearnerError:
            refused += 1
    assert refused > 300


def stored(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("shape", "dtype", "body"),
    [("(-2, -3)", "<f4", bytes(24)), ("(0, -3)", "<f4", b""), ("(5,)", "|S0", b""),
     ("(True,)", "<f4", bytes(4))],
)  # fmt: skip
def test_a_shape_that_cannot_be_is_refused(shape, dtype, body):
    with pytest.raises(LearnerError, match="cannot be"):
        read_model(zipped(**{"a.npy": npy(shape, dtype, body)}), "npz", most=10**6)


@pytest.mark.parametrize(
    ("new", "old"),
    [(np.int64([300]), np.uint8([1])), (np.float64([300.0]), np.int8([1])),
     (np.int64([-1]), np.uint32([7])), (np.float32([np.nan]), np.int64([0]))],
)  # fmt: skip
def test_a_number_that_the_model_s_dtype_does_not_hold_is_refused_and_not_wrapped(new, old):
    with pytest.raises(LearnerError, match="does not hold"):
        fitted(Params.of({"a": new}), Params.of({"a": old}))
    kept = fitted(Params.of({"a": np.float64([200.0])}), Params.of({"a": np.uint8([1])}))
    assert kept["a"].dtype == np.uint8 and kept["a"].tolist() == [200]
