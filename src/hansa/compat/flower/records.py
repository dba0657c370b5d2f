"""What a message of a Flower app carries: arrays, metrics and settings, by name.

The names and the meaning of each class are Flower's; user code builds and reads them.
"""

from __future__ import annotations

import io
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, TypeVar

import numpy as np

V = TypeVar("V")

NUMPY = "numpy.ndarray"
"""How the bytes of an `Array` are written: NumPy's own .npy format."""


class Array:
    """One array as bytes, with its dtype and shape.

    Args:
      args: a NumPy array, a torch tensor, or dtype, shape, stype and data.
      dtype: name of NumPy's dtype.
      shape: of the array.
      stype: how `data` is written; only `NUMPY` is known.
      data: the bytes.
      ndarray: in place of the first argument.
      torch_tensor: in place of the first argument.

    Raises:
      TypeError: it is something else.
    """

    def __init__(
        self,
        *args: Any,
        dtype: str | None = None,
        shape: tuple[int, ...] | None = None,
        stype: str | None = None,
        data: bytes | None = None,
        ndarray: Any = None,
        torch_tensor: Any = None,
    ) -> None:
        given = next((v for v in (ndarray, torch_tensor, *args[:1]) if v is not None), None)
        if isinstance(given, np.ndarray | np.generic) or _is_tensor(given):
            array = _of_tensor(given) if _is_tensor(given) else np.asarray(given)
            self.dtype, self.shape, self.stype = str(array.dtype), tuple(array.shape), NUMPY
            self.data = array_to_bytes(array)
            return
        said = dict(zip(("dtype", "shape", "stype", "data"), args, strict=False))
        said |= {
            k: v
            for k, v in {"dtype": dtype, "shape": shape, "stype": stype, "data": data}.items()
            if v is not None
        }
        if len(said) < 4:
            raise TypeError(
                "Array takes a NumPy array, a torch tensor, or dtype, shape, stype and data."
            )
        self.dtype, self.shape = str(said["dtype"]), tuple(said["shape"])
        self.stype, self.data = str(said["stype"]), bytes(said["data"])

    @classmethod
    def from_numpy_ndarray(cls, ndarray: Any) -> Array:
        """Return a NumPy array as one of these."""
        return cls(np.asarray(ndarray))

    @classmethod
    def from_torch_tensor(cls, tensor: Any) -> Array:
        """Return a torch tensor as one of these."""
        return cls(tensor)

    def numpy(self) -> np.ndarray:
        """Return a NumPy array that is nobody else's.

        Raises:
          TypeError: the bytes are not written as NumPy writes them.
        """
        if self.stype != NUMPY:
            raise TypeError(f"The array is written as {self.stype!r}; only {NUMPY!r} is known.")
        return bytes_to_array(self.data)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Array):
            return NotImplemented
        mine = (self.dtype, self.shape, self.stype, self.data)
        return mine == (other.dtype, other.shape, other.stype, other.data)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Array(dtype={self.dtype!r}, shape={self.shape!r}, stype={self.stype!r})"


def array_to_bytes(array: Any) -> bytes:
    """Return an array in NumPy's own format, which carries no code."""
    file = io.BytesIO()
    np.save(file, np.asarray(array), allow_pickle=False)
    return file.getvalue()


def bytes_to_array(data: bytes) -> np.ndarray:
    """Return an array from NumPy's own format.

    Raises:
      ValueError: it holds objects, or is no array.
    """
    array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    return array


class Record(MutableMapping[str, V]):
    """A dict of text to values of one kind."""

    def __init__(self, values: Mapping[str, V] | None = None) -> None:
        self._values: dict[str, V] = {}
        for name, value in (values or {}).items():
            self[name] = value

    def _checked(self, value: Any) -> V:
        """Return a value that may stand here; raise TypeError otherwise."""
        accepted: V = value
        return accepted

    def __setitem__(self, name: str, value: V) -> None:
        if not isinstance(name, str):
            raise TypeError(f"A {type(self).__name__} has names of type str, not {type(name)}.")
        self._values[name] = self._checked(value)

    def __getitem__(self, name: str) -> V:
        return self._values[name]

    def __delitem__(self, name: str) -> None:
        del self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Record):
            return self._values == other._values
        return self._values == other if isinstance(other, dict) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._values!r})"

    def copy(self) -> Any:
        """Return another with the same values."""
        made = type(self)()
        made._values = dict(self._values)
        return made


class ArrayRecord(Record[Array]):
    """Named arrays in their order: a model.

    Args:
      values: a dict of `Array`, a list of NumPy arrays (named "0", "1", ...), or a torch
        state_dict.
      numpy_ndarrays: in place of the first argument.
      torch_state_dict: in place of the first argument.
      array_dict: in place of the first argument.
      keep_input: False empties what was given.

    Raises:
      TypeError: it is something else.
    """

    def __init__(
        self,
        values: Any = None,
        *,
        numpy_ndarrays: Any = None,
        torch_state_dict: Any = None,
        array_dict: Any = None,
        keep_input: bool = True,
    ) -> None:
        super().__init__()
        others = (values, numpy_ndarrays, torch_state_dict, array_dict)
        given: Any = next((v for v in others if v is not None), {})
        if isinstance(given, list):
            pairs = [(str(i), array) for i, array in enumerate(given)]
        elif isinstance(given, Mapping):
            pairs = list(given.items())
        else:
            raise TypeError(f"An ArrayRecord is not made from {type(given).__name__}.")
        for name, value in pairs:
            self[name] = value if isinstance(value, Array) else Array(value)
        if not keep_input:
            given.clear()

    def _checked(self, value: Any) -> Array:
        if not isinstance(value, Array):
            raise TypeError(f"An ArrayRecord holds Array, not {type(value).__name__}.")
        return value

    @classmethod
    def from_array_dict(cls, array_dict: Any, *, keep_input: bool = True) -> ArrayRecord:
        """Return a record of a dict of `Array`."""
        return cls(array_dict, keep_input=keep_input)

    @classmethod
    def from_numpy_ndarrays(cls, ndarrays: Any, *, keep_input: bool = True) -> ArrayRecord:
        """Return a record of a list of NumPy arrays."""
        return cls(ndarrays, keep_input=keep_input)

    @classmethod
    def from_torch_state_dict(cls, state_dict: Any, *, keep_input: bool = True) -> ArrayRecord:
        """Return a record of a torch state_dict."""
        return cls(state_dict, keep_input=keep_input)

    def to_numpy_ndarrays(self, *, keep_input: bool = True) -> list[np.ndarray]:
        """Return the arrays in order; `keep_input=False` empties the record."""
        arrays = [array.numpy() for array in self.values()]
        if not keep_input:
            self.clear()
        return arrays

    def to_torch_state_dict(self, *, keep_input: bool = True) -> OrderedDict[str, Any]:
        """Return the arrays as torch tensors by name; `keep_input=False` empties the record.

        Raises:
          RuntimeError: torch has not been imported.
        """
        torch = sys.modules.get("torch")
        if torch is None:
            raise RuntimeError("to_torch_state_dict needs torch, which was not imported.")
        # from_numpy keeps zero-dimensional arrays only if they are arrays, not NumPy scalars.
        pairs = [(name, torch.from_numpy(np.asarray(a.numpy()))) for name, a in self.items()]
        if not keep_input:
            self.clear()
        return OrderedDict(pairs)

    def count_bytes(self) -> int:
        """Return the bytes of all arrays and names."""
        return sum(len(array.data) + len(name) for name, array in self.items())


class MetricRecord(Record[Any]):
    """Numbers, or lists of them, by name.

    Args:
      metric_dict: int, float, or a list of one of them, by name.
      keep_input: False empties what was given.

    Raises:
      TypeError: a value is something else.
    """

    def __init__(
        self, metric_dict: dict[str, Any] | None = None, *, keep_input: bool = True
    ) -> None:
        super().__init__(metric_dict)
        if not keep_input and metric_dict is not None:
            metric_dict.clear()

    def _checked(self, value: Any) -> Any:
        return _scalar_or_list(value, (int, float), "A MetricRecord", booleans=False)

    def count_bytes(self) -> int:
        """Return the bytes of all numbers and names, eight for each number."""
        return _count_bytes(self)


class ConfigRecord(Record[Any]):
    """Settings by name: numbers, text, booleans, bytes, or lists of one of them.

    Args:
      config_dict: the values.
      keep_input: False empties what was given.

    Raises:
      TypeError: a value is something else.
    """

    def __init__(
        self, config_dict: dict[str, Any] | None = None, *, keep_input: bool = True
    ) -> None:
        super().__init__(config_dict)
        if not keep_input and config_dict is not None:
            config_dict.clear()

    def _checked(self, value: Any) -> Any:
        kinds = (int, float, str, bytes, bool)
        return _scalar_or_list(value, kinds, "A ConfigRecord", booleans=True)

    def count_bytes(self) -> int:
        """Return the bytes of all values and names, eight for each number."""
        return _count_bytes(self)


class RecordDict(Record[Any]):
    """Records by name: what a message carries, and what a client keeps.

    Args:
      records: `ArrayRecord`, `MetricRecord` and `ConfigRecord` by name.
      parameters_records: more of them, under their older name.
      metrics_records: as before.
      configs_records: as before.
    """

    def __init__(
        self,
        records: Mapping[str, Any] | None = None,
        *,
        parameters_records: Mapping[str, Any] | None = None,
        metrics_records: Mapping[str, Any] | None = None,
        configs_records: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(records)
        for older in (parameters_records, metrics_records, configs_records):
            self.update(older or {})

    def _checked(self, value: Any) -> Any:
        if not isinstance(value, ArrayRecord | MetricRecord | ConfigRecord):
            raise TypeError(f"A RecordDict holds records, not {type(value).__name__}.")
        return value

    @property
    def array_records(self) -> Any:
        """The array records alone; what is set here is set in the whole."""
        return _Part(self, ArrayRecord)

    @property
    def metric_records(self) -> Any:
        """The metric records alone; what is set here is set in the whole."""
        return _Part(self, MetricRecord)

    @property
    def config_records(self) -> Any:
        """The config records alone; what is set here is set in the whole."""
        return _Part(self, ConfigRecord)

    parameters_records, metrics_records, configs_records = (
        array_records,
        metric_records,
        config_records,
    )


class _Part(MutableMapping[str, Any]):
    """The records of one kind in a `RecordDict`."""

    def __init__(self, whole: RecordDict, kind: Callable[..., Any]) -> None:
        self._whole, self._kind = whole, kind

    def __setitem__(self, name: str, value: Any) -> None:
        if not isinstance(value, self._kind):  # type: ignore[arg-type]
            raise TypeError(f"{name!r} is not a {self._kind.__name__}.")
        self._whole[name] = value

    def __getitem__(self, name: str) -> Any:
        value = self._whole[name]
        if not isinstance(value, self._kind):  # type: ignore[arg-type]
            raise KeyError(name)
        return value

    def __delitem__(self, name: str) -> None:
        self[name]
        del self._whole[name]

    def __iter__(self) -> Iterator[str]:
        kept = self._whole.items()
        return iter([n for n, v in kept if isinstance(v, self._kind)])  # type: ignore[arg-type]

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _scalar_or_list(value: Any, kinds: tuple[type, ...], where: str, *, booleans: bool) -> Any:
    """Return a scalar of one of these kinds, or a list of scalars of one kind."""
    values = value if isinstance(value, list) else [value]
    for one in values:
        allowed = isinstance(one, kinds) and (booleans or not isinstance(one, bool))
        if not allowed or type(one) is not type(values[0]):
            raise TypeError(f"{where} cannot hold {type(one).__name__}: {one!r:.100}.")
    return value


def _count_bytes(record: Record[Any]) -> int:
    size = 0
    for name, value in record.items():
        for one in value if isinstance(value, list) else [value]:
            size += len(one) if isinstance(one, str | bytes) else 8
        size += len(name)
    return size


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _of_tensor(tensor: Any) -> np.ndarray:
    array: np.ndarray = np.asarray(tensor.detach().cpu().numpy())
    return array
