import errno
import os
import pathlib

import numpy as np
import pytest

from hansa.errors import ParamsError
from hansa.params import Params, encode
from hansa.store.files import load_params, save_params, write_durably


@pytest.fixture
def model() -> Params:
    return Params.of({"w": np.float32([[1.5, -2]]), "n": np.int64(-7)}, {"round": "3"})


@pytest.fixture
def path(tmp_path) -> pathlib.Path:
    return tmp_path / "model.safetensors"


def break_fsync(monkeypatch, *, fail_at: int, code: int = errno.EIO) -> list[int]:
    """Let one call of os.fsync fail; return the growing list of calls."""
    calls, fsync = [], os.fsync

    def broken(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == fail_at:
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", broken)
    return calls


def test_chunks_of_any_kind_are_written_one_after_the_other(path):
    write_durably(str(path), iter([b"ab", bytearray(b"c"), memoryview(b"de")[1:], b""]))
    assert path.read_bytes() == b"abce"
    write_durably(path, [])
    assert path.read_bytes() == b""
    assert os.listdir(path.parent) == [path.name]


def test_a_file_is_synchronised_before_it_takes_its_name_and_the_folder_after(path, monkeypatch):
    events, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("replace"), replace(a, b)))
    write_durably(path, [b"new"])
    assert events == ["fsync", "replace", "fsync"] if os.name != "nt" else ["fsync", "replace"]


def test_a_failed_fsync_is_an_error_is_not_tried_again_and_leaves_the_old_file(path, monkeypatch):
    write_durably(path, [b"old"])
    calls = break_fsync(monkeypatch, fail_at=1)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write_durably(path, [b"new"])
    assert len(calls) == 1
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be synchronised there")
def test_a_failed_fsync_of_the_folder_is_an_error_and_leaves_the_new_file_whole(path, monkeypatch):
    write_durably(path, [b"old"])
    calls = break_fsync(monkeypatch, fail_at=2)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write_durably(path, [b"new"])
    assert len(calls) == 2
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be synchronised there")
def test_a_file_system_that_cannot_synchronise_folders_is_no_error(path, monkeypatch):
    calls = break_fsync(monkeypatch, fail_at=2, code=errno.EINVAL)
    write_durably(path, [b"new"])
    assert len(calls) == 2


def test_an_error_while_chunks_are_made_leaves_the_old_file_and_nothing_else(path):
    def chunks():
        yield b"half of the"
        raise KeyboardInterrupt

    write_durably(path, [b"old"])
    with pytest.raises(KeyboardInterrupt):
        write_durably(path, chunks())
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]


def test_a_failed_rename_leaves_no_temporary_file(path, monkeypatch):
    def refuse(*_):
        raise PermissionError("held by another program")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError):
        write_durably(path, [b"new"])
    assert os.listdir(path.parent) == []


def test_a_new_file_has_the_usual_permissions(path, tmp_path):
    write_durably(path, [b"new"])
    (tmp_path / "usual").write_bytes(b"new")
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_name_of_the_greatest_length_can_be_written(tmp_path):
    path = tmp_path / ("\U0001f984" * 63 + "xyz")
    write_durably(path, [b"new"])
    assert path.read_bytes() == b"new"


def test_what_is_saved_is_loaded_bit_for_bit_as_a_read_only_map(path, model):
    save_params(path, model)
    assert path.read_bytes() == b"".join(encode(model))
    loaded = load_params(path)
    assert loaded == model and loaded.metadata == {"round": "3"}
    assert not loaded["w"].flags.writeable and not loaded["w"].flags.owndata
    loaded.copy()["w"][0, 0] = 9


def test_no_tensors_are_saved_and_loaded_too(path):
    save_params(path, Params.of([]))
    assert load_params(path) == Params.of([])


@pytest.mark.skipif(os.name == "nt", reason="a mapped file cannot be replaced there")
def test_a_loaded_model_keeps_its_values_when_its_file_is_replaced(path, model):
    save_params(path, model)
    loaded = load_params(path)
    save_params(path, Params.of({"w": np.float32([9])}))
    assert loaded == model


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_a_file_that_is_not_there_is_an_error_with_a_hint(tmp_path, kind):
    with pytest.raises(ParamsError, match=r"Cannot open .*\. Check the path") as caught:
        load_params(tmp_path / "nothing" if kind == "missing" else tmp_path)
    assert caught.value.code == "params-missing"


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_file_cut_off_is_refused_by_its_name(path, model, kept):
    save_params(path, model)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ParamsError, match=path.name) as caught:
        load_params(path)
    assert caught.value.code == "params-truncated"


def test_the_safetensors_library_opens_our_file_and_we_open_its(path, model):
    library = pytest.importorskip("safetensors.numpy")
    save_params(path, model)
    opened = library.load_file(path)
    assert {name: array.tolist() for name, array in opened.items()} == {"w": [[1.5, -2]], "n": -7}
    library.save_file(dict(model), path, {"round": "3"})
    loaded = load_params(path)
    assert loaded.metadata == {"round": "3"} and loaded["n"] == -7
    assert loaded["w"].tolist() == [[1.5, -2]]
