"""One client's data as batches of tensors: arrays, tensors, or any torch Dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hansa.errors import LearnerError
from hansa.learners.optional import optional
from hansa.learners.torch_arrays import to_tensor
from hansa.limits import DEVICE_DATA_BYTES_MAX

if TYPE_CHECKING:
    import torch
else:
    torch = optional("torch")

Rows = np.ndarray | slice


class Examples:
    """Examples that can be fetched by their numbers.

    What a batch is:
      `hansa.data.Dataset`, `(x, y)`   a tuple of tensors
      a dict of arrays                 a dict of tensors
      a torch Dataset, or a list       what `default_collate` makes of the examples
      a torch DataLoader               what its own `collate_fn` makes of them; its batch size,
                                       order and workers are not used

    NumPy floats become `dtype`, NumPy integers int64 (uint8 stays, for images); tensors stay.

    Args:
      data: any of these.
      device: where batches go.
      dtype: floating dtype of the model.

    Raises:
      LearnerError: the data is of another kind, or its parts differ in length.
    """

    def __init__(self, data: Any, device: torch.device, dtype: torch.dtype) -> None:
        self._device = device
        columns = _columns(data)
        if columns is None:
            dataset, collate = _dataset(data)
            self._size = len(dataset)
            self._fetch: Callable[[Rows], Any] = lambda rows: collate(_items(dataset, rows))
            return
        tensors = {name: _column(column, dtype, device) for name, column in columns.items()}
        sizes = {len(tensor) for tensor in tensors.values()}
        if len(sizes) != 1:
            raise _bad_data(f"arrays of {' and '.join(map(str, sorted(sizes)))} examples")
        self._size = sizes.pop()
        as_dict = isinstance(data, Mapping)

        def fetch(rows: Rows) -> Any:
            batch = {name: _take(tensor, rows) for name, tensor in tensors.items()}
            return batch if as_dict else tuple(batch.values())

        self._fetch = fetch

    def __len__(self) -> int:
        return self._size

    def batch(self, rows: Rows) -> Any:
        """Return these examples on the device."""
        return _move(self._fetch(rows), self._device)


def count(data: Any) -> int:
    """Return the number of examples."""
    columns = _columns(data)
    if columns is None:
        return len(_dataset(data)[0])
    return len(next(iter(columns.values())))


def _columns(data: Any) -> dict[str, Any] | None:
    """Return arrays by name, or None for data that is fetched example by example."""
    if hasattr(data, "x") and hasattr(data, "y"):
        return {"x": data.x, "y": data.y}
    if isinstance(data, torch.utils.data.TensorDataset):
        data = data.tensors
    if isinstance(data, tuple) and data:
        data = {str(i): column for i, column in enumerate(data)}
    if not isinstance(data, Mapping) or not data:
        return None
    return {str(name): column for name, column in data.items()}


def _column(column: Any, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return one array as a tensor, on the device unless it is too large for it."""
    if not isinstance(column, torch.Tensor):
        array = np.asarray(column)
        if array.dtype.kind not in "fiub" or array.ndim == 0:
            raise _bad_data(f"an array of dtype {array.dtype} and shape {array.shape}")
        if array.dtype.kind in "iu" and array.dtype != np.uint8:
            array = array.astype(np.int64, copy=False)
        column = to_tensor(array)
        if column.dtype.is_floating_point:
            column = column.to(dtype)
    fits = column.element_size() * column.numel() <= DEVICE_DATA_BYTES_MAX
    return column.to(device) if fits else column


def _take(tensor: torch.Tensor, rows: Rows) -> torch.Tensor:
    if isinstance(rows, slice):
        return tensor[rows]
    return tensor[torch.from_numpy(rows).to(tensor.device)]


def _dataset(data: Any) -> tuple[Any, Callable[[list[Any]], Any]]:
    collate = torch.utils.data.default_collate
    if isinstance(data, torch.utils.data.DataLoader):
        data, collate = data.dataset, data.collate_fn
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return data, collate
    raise _bad_data(f"a {type(data).__name__}")


def _items(dataset: Any, rows: Rows) -> list[Any]:
    if isinstance(rows, slice):
        rows = np.arange(rows.start, min(rows.stop, len(dataset)))
    indices: list[int] = rows.tolist()
    if hasattr(dataset, "__getitems__"):
        items: list[Any] = dataset.__getitems__(indices)
        return items
    return [dataset[index] for index in indices]


def _move(batch: Any, device: torch.device) -> Any:
    if hasattr(batch, "to"):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {name: _move(part, device) for name, part in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_move(part, device) for part in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(_move(part, device) for part in batch)
    return batch


def _bad_data(what: str) -> LearnerError:
    return LearnerError(
        "learner-data",
        f"A client's data is {what}, which the torch learner cannot use.",
        "Return a hansa.data.Dataset, arrays (x, y), a dict of arrays, or a torch Dataset "
        "with a length.",
    )
