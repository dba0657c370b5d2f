from typing import NamedTuple

import numpy as np
import pytest

from hansa.errors import LearnerError

torch = pytest.importorskip("torch")
from torch.utils.data import DataLoader, IterableDataset, TensorDataset  # noqa: E402

from hansa.learners.torch_data import Examples, count  # noqa: E402

pytestmark = pytest.mark.torch
CPU = torch.device("cpu")
ROWS = np.array([4, 0, 2])
X = np.arange(10.0).reshape(5, 2) - 3
Y = np.array([0, 1, 2, 1, 0], np.int32)


def batch(data, rows=ROWS, dtype=torch.float32):
    examples = Examples(data, CPU, dtype)
    assert len(examples) == count(data) == 5
    return examples.batch(rows)


class Pairs:
    """A dataset in the manner of torch: examples by number."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return {"x": torch.from_numpy(X[index]), "y": int(Y[index]), "id": f"row {index}"}


class ManyAtOnce(Pairs):
    def __getitems__(self, indices):
        return [Pairs.__getitem__(self, i) for i in indices]

    def __getitem__(self, index):
        raise AssertionError("fetched one by one")


def test_numpy_arrays_take_the_models_dtype_and_labels_become_int64(blobs):
    x, y = batch((X, Y))
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert x.tolist() == X[ROWS].tolist()
    assert y.tolist() == Y[ROWS].tolist()
    data = blobs(5)
    x, y = batch(data, slice(1, 3), torch.bfloat16)
    assert x.dtype is torch.bfloat16
    assert y.tolist() == data.y[1:3].tolist()


def test_images_stay_bytes():
    x, _ = batch((np.zeros((5, 2, 2), np.uint8), Y))
    assert (x.dtype, x.shape) == (torch.uint8, (3, 2, 2))


def test_tensors_stay_what_they_are():
    x, y = batch((torch.from_numpy(X), torch.from_numpy(Y)))
    assert (x.dtype, y.dtype) == (torch.float64, torch.int32)
    x, y = batch(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)))
    assert x.tolist() == X[ROWS].tolist()


def test_a_dict_of_arrays_gives_dicts():
    found = batch({"ids": Y, "mask": Y > 0})
    assert found["ids"].tolist() == [0, 0, 2]
    assert found["mask"].tolist() == [False, False, True]


@pytest.mark.parametrize("data", [Pairs(), ManyAtOnce(), [Pairs()[i] for i in range(5)]])
@pytest.mark.parametrize("rows", [ROWS, slice(1, 9)])
def test_a_torch_dataset_is_collated(data, rows):
    found = batch(data, rows)
    assert found["x"].tolist() == X[rows].tolist()
    assert found["y"].tolist() == Y[rows].tolist()
    assert found["id"] == [f"row {i}" for i in np.arange(5)[rows]]


class Batch(NamedTuple):
    x: object
    names: list


def test_a_loader_lends_its_dataset_and_collate_function():
    def collate(items):
        return Batch(torch.stack([item["x"] for item in items]), [item["id"] for item in items])

    found = batch(DataLoader(Pairs(), batch_size=1, collate_fn=collate))
    assert isinstance(found, Batch)
    assert found.x.tolist() == X[ROWS].tolist()
    assert found.names == ["row 4", "row 0", "row 2"]


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (Stream(), "Stream"),
        (3, "int"),
        ((X, Y[:3]), "3 and 5 examples"),
        ((X, np.array(list("abcde"))), "<U1"),
    ],
)
def test_other_data_is_refused(data, said):
    with pytest.raises(LearnerError, match="learner-data") as error:
        Examples(data, CPU, torch.float32)
    assert said in str(error.value)


def test_large_arrays_stay_behind_on_the_host(monkeypatch):
    monkeypatch.setattr("hansa.learners.torch_data.DEVICE_DATA_BYTES_MAX", 30)
    x, y = Examples((X, Y), torch.device("meta"), torch.float32).batch(ROWS)
    assert x.device.type == y.device.type == "meta"  # the batch moves, whatever its origin
    examples = Examples((X, Y), CPU, torch.float32)
    assert examples.batch(ROWS)[0].tolist() == X[ROWS].tolist()
