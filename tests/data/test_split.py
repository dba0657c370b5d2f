import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.data import (
    Dataset,
    Dirichlet,
    Files,
    Iid,
    Labels,
    Natural,
    load,
    load_test,
    partition,
    write_split,
)
from hansa.data.split import folder_names
from hansa.errors import DataError
from hansa.seeds import Key

KEY = Key.root(3)


def toy(rows: int = 120, groups=None) -> Dataset:
    x = np.arange(rows, dtype=np.float32)[:, None] * np.float32([1, -1])
    return Dataset.of(x, np.arange(rows) % 4, classes=tuple("abcd"), name="toy", groups=groups)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


FIVE = Iid(5)


def write(out: Path, scheme=FIVE, *, data: Dataset | None = None, validation: float = 0.25):
    data = toy() if data is None else data
    return write_split(data, partition(scheme, data, KEY), out, validation=validation, key=KEY)


def test_every_row_is_written_once_and_read_back_with_its_label(tmp_path):
    summary = write(tmp_path / "out", Dirichlet(5, alpha=0.3, minimum=4))
    train, valid = load(tmp_path / "out"), load_test(tmp_path / "out")
    assert valid is not None
    rows = np.concatenate([train.x, valid.x])
    labels = np.concatenate([train.y, valid.y])
    order = np.argsort(rows[:, 0])
    assert np.array_equal(rows[order], toy().x)
    assert np.array_equal(labels[order], toy().y)
    assert train.classes == ("a", "b", "c", "d")
    assert train.x.dtype == np.float32
    assert (train.examples, valid.examples) == (summary.train.sum(), summary.valid.sum())


def test_clients_are_read_back_as_they_were_split(tmp_path):
    data, scheme = toy(), Labels(12, per_client=1)
    parts = partition(scheme, data, KEY)
    summary = write_split(data, parts, tmp_path / "out", validation=0, key=KEY)
    back = load(tmp_path / "out")
    again = partition(Files(), back, Key.root(99))
    assert tuple(again.names) == summary.clients == tuple(f"client-{i}" for i in range(12))
    for i in range(12):
        mine, theirs = data.x[parts.indices(i)], back.x[again.indices(i)]
        assert mine.tolist() == theirs.tolist()
    assert load_test(tmp_path / "out") is None
    assert not list((tmp_path / "out").rglob("valid.npz"))


def test_the_validation_part_is_the_asked_fraction_of_each_client_stratified(tmp_path):
    summary = write(tmp_path / "out", Iid(1), data=toy(400), validation=0.25)
    assert summary.valid.tolist() == [100]
    held = load_test(tmp_path / "out")
    assert held is not None
    assert np.bincount(held.y).tolist() == [25, 25, 25, 25]


def test_each_client_s_validation_rows_are_drawn_for_itself(tmp_path):
    data = Dataset.of(np.arange(200.0)[:, None], np.linspace(-1, 1, 200), name="line")
    parts = partition(Iid(5), data, KEY)
    write_split(data, parts, tmp_path / "out", validation=0.25, key=KEY)
    chosen = set()
    for i in range(5):
        held = load(tmp_path / "out" / f"client-{i}" / "valid.npz").x[:, 0]
        chosen.add(tuple(np.flatnonzero(np.isin(parts.indices(i), held)).tolist()))
    assert len(chosen) == 5
    assert all(len(places) == 10 for places in chosen)


def test_a_client_keeps_one_row_to_train_on_whatever_the_fraction(tmp_path):
    summary = write(tmp_path / "out", Iid(60), data=toy(90), validation=0.99)
    assert summary.train.min() == 1
    assert summary.valid.sum() + summary.train.sum() == 90


def test_the_description_says_what_was_done(tmp_path):
    data, scheme = toy(), Dirichlet(3, alpha=0.7)
    parts = partition(scheme, data, KEY)
    summary = write_split(data, parts, tmp_path / "o", validation=0.1, key=KEY, seed=42)
    told = json.loads((tmp_path / "o" / "split.json").read_text())
    assert told["scheme"] == {"scheme": "dirichlet", "clients": 3, "alpha": 0.7, "minimum": 1}
    assert (told["data"], told["seed"], told["validation"]) == ("toy", 42, 0.1)
    assert told["classes"] == ["a", "b", "c", "d"]
    counts = [client["counts"] for client in told["clients"]]
    assert counts == summary.counts.tolist()
    assert np.sum(counts, axis=0).tolist() == [30, 30, 30, 30]
    assert [c["train"] + c["valid"] for c in told["clients"]] == parts.sizes.tolist()


def test_regression_is_split_and_read_back(tmp_path):
    data = Dataset.of(np.arange(20.0)[:, None], np.linspace(-1, 1, 20), name="line")
    summary = write(tmp_path / "out", Iid(4), data=data)
    assert summary.classes is None
    assert summary.counts.tolist() == [[5], [5], [5], [5]]
    back = load(tmp_path / "out")
    assert back.classes is None
    assert np.array_equal(back.y, np.linspace(-1, 1, 20)[back.x[:, 0].astype(int)])


def test_the_same_split_again_changes_nothing_and_says_so(tmp_path):
    first = write(tmp_path / "out")
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "partition.svg").write_text("<svg/>")
    again = write(tmp_path / "out")
    assert (first.unchanged, again.unchanged) == (False, True)
    assert contents(tmp_path / "out") == before | {"partition.svg": b"<svg/>"}
    assert sorted(os.listdir(tmp_path)) == ["out"]


def test_two_writes_of_one_split_are_the_same_bytes(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def damage_a_byte(out: Path) -> None:
    path = out / "client-2" / "valid.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"x")


CHANGES = {
    "a byte changed": damage_a_byte,
    "a file missing": lambda out: (out / "client-0" / "train.npz").unlink(),
    "a client more": lambda out: (
        (out / "client-9").mkdir(),
        np.savez(out / "client-9" / "train.npz", x=np.eye(2)),
    ),
    "another seed": lambda out: (out / "split.json").write_text("{}"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_folder_with_anything_else_is_refused_and_left_alone(tmp_path, change):
    write(tmp_path / "out")
    change(tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(DataError) as error:
        write(tmp_path / "out")
    assert error.value.code == "data-folder-not-empty"
    assert contents(tmp_path / "out") == before
    assert sorted(os.listdir(tmp_path)) == ["out"]


def test_a_folder_of_other_things_and_a_file_are_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name in ("out", "file"):
        with pytest.raises(DataError) as error:
            write(tmp_path / name)
        assert error.value.code == "data-folder-not-empty"
    assert (tmp_path / "out" / "thesis.tex").read_text() == "precious"


def test_an_empty_folder_and_a_deep_new_one_are_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    write(tmp_path / "new" / "deep")
    assert contents(tmp_path / "empty") == contents(tmp_path / "new" / "deep")


def test_a_split_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(DataError, match="No space left") as error:
        write(tmp_path / "out")
    assert error.value.code == "data-unwritable"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("validation", [-0.1, 1.0, 2, float("nan")])
def test_a_fraction_out_of_range_is_refused(tmp_path, validation):
    with pytest.raises(DataError) as error:
        write(tmp_path / "out", validation=validation)
    assert error.value.code == "data-option"
    assert list(tmp_path.iterdir()) == []


def test_a_partition_of_another_dataset_is_refused(tmp_path):
    parts = partition(Iid(3), toy(30), KEY)
    with pytest.raises(DataError) as error:
        write_split(toy(31), parts, tmp_path / "out", validation=0, key=KEY)
    assert error.value.code == "data-mismatch"


HOSTILE = ["../up", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "a\0b", "CON", "nul.txt", "a b",
           "café", "x" * 300, "A", "a", ".hidden", "split.json", "C:\\x", "end.", "-rf", "é", "è",
           "train.npz"]  # fmt: skip


def test_hostile_natural_keys_never_become_paths(tmp_path):
    groups = np.array([name.rstrip("\0") for name in HOSTILE] * 2)
    data = toy(len(groups), groups=groups)
    summary = write(tmp_path / "in" / "out", Natural(), data=data, validation=0)
    assert sorted(os.listdir(tmp_path)) == ["in"]
    assert os.listdir(tmp_path / "in") == ["out"]
    made = {path for path in (tmp_path / "in" / "out").iterdir() if path.is_dir()}
    assert {path.name for path in made} == set(summary.clients)
    assert len(made) == len(set(HOSTILE))
    assert load(tmp_path / "in" / "out").examples == len(groups)
    told = json.loads((tmp_path / "in" / "out" / "split.json").read_text())
    assert {client["name"] for client in told["clients"]} == set(HOSTILE)


@given(st.lists(st.text(max_size=12) | st.sampled_from(HOSTILE), unique=True, max_size=12))
def test_folder_names_are_plain_distinct_on_every_system_and_keep_plain_names(names):
    folders = folder_names(names)
    assert len({folder.casefold() for folder in folders}) == len(names)
    for folder in folders:
        assert folder.replace("-", "").replace("_", "").replace(".", "").isalnum()
        assert folder.isascii()
        assert folder[0] not in ".-" and folder[-1] != "."
        assert folder.casefold() != "split.json"
        assert folder.casefold().split(".")[0] not in ("con", "nul")
    assert folder_names(["north", "client-3", "b.2_x"]) == ["north", "client-3", "b.2_x"]


def test_a_name_made_to_collide_with_a_digest_still_gets_its_own_folder():
    made = folder_names(["a/b"])[0]
    assert len(set(folder_names([made, "a/b"]))) == 2
