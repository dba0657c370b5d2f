"""What the code in a FEDn package imports from `fedn`, in one file that needs NumPy alone.

It runs in the package's own Python, which may know nothing of Hansa.  Names of all generations
are there: `fedn.utils.helpers.helpers` (since 0.8), `fedn.utils.helpers` (0.5 to 0.7) and
`fedn.utils.kerashelper` with its neighbours (before).  Files are as FEDn writes them; no array of
objects is read or written, for those carry pickled code.
"""

from __future__ import annotations

import io
import json
import logging
import os
import random
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

logger = logging.getLogger("fedn")


def save_metadata(metadata: Mapping[str, Any], filename: str) -> None:
    """Write what a client says of its update beside the update's file."""
    _write_json(metadata, f"{filename}-metadata")


def load_metadata(filename: str) -> Any:
    """Read what lies beside a model's file."""
    with open(f"{filename}-metadata", encoding="utf-8") as file:
        return json.load(file)


def save_metrics(metrics: Mapping[str, Any], filename: str) -> None:
    """Write the outcome of a validation."""
    _write_json(metrics, filename)


def _write_json(value: Any, filename: str) -> None:
    with open(filename, "w", encoding="utf-8") as file:
        json.dump(value, file)


class _Npz:
    """Arrays in order, as the keys "0", "1" and so on of an .npz file."""

    def save(self, weights: Any, path: Any = None, file_type: str = "npz") -> Any:
        """Write weights to a path, by default a new temporary one, and return it."""
        path = self.get_tmp_path() if path is None else path
        np.savez_compressed(path, **self._named(weights))
        return path

    def load(self, path: Any, file_type: str = "npz") -> Any:
        """Read weights from a path or an open file."""
        with np.load(path, allow_pickle=False) as found:
            return self._weights({name: found[name] for name in found.files})

    def get_tmp_path(self, suffix: str = ".npz") -> str:
        """Return the path of a new temporary file."""
        number, path = tempfile.mkstemp(suffix=suffix)
        os.close(number)
        return path

    def increment_average(self, m1: Any, m2: Any, n: Any, N: Any = None) -> Any:
        """Return m1 + (m2 - m1) * n / N; of the older kind with three, m1 + (m2 - m1) / n."""
        share = 1.0 / n if N is None else n / N
        return self._each(lambda a, b: a + (b - a) * share, m1, m2)

    # What packages of 0.4 and before call it:
    def save_model(self, weights: Any, path: Any = None) -> Any:
        """Write weights."""
        return self.save(weights, path)

    def load_model(self, path: Any) -> Any:
        """Read weights."""
        return self.load(path)

    def get_model(self, path: Any) -> Any:
        """Read weights."""
        return self.load(path)

    def serialize_model_to_BytesIO(self, weights: Any) -> io.BytesIO:  # noqa: N802
        """Write weights to memory."""
        buffer = io.BytesIO()
        self.save(weights, buffer)
        buffer.seek(0)
        return buffer

    # Arithmetic of lists of arrays:
    def add(self, m1: Any, m2: Any, a: float = 1.0, b: float = 1.0) -> Any:
        """Return a * m1 + b * m2."""
        return self._each(lambda x, y: a * x + b * y, m1, m2)

    def subtract(self, m1: Any, m2: Any, a: float = 1.0, b: float = 1.0) -> Any:
        """Return a * m1 - b * m2."""
        return self.add(m1, m2, a, -b)

    def multiply(self, m1: Any, m2: Any) -> Any:
        """Return m1 * m2."""
        return self._each(lambda x, y: np.multiply(x, y), m1, m2)

    def divide(self, m1: Any, m2: Any) -> Any:
        """Return m1 / m2."""
        return self._each(lambda x, y: np.divide(x, y), m1, m2)

    def sqrt(self, m1: Any) -> Any:
        """Return the square root."""
        return self._each(lambda x, _: np.sqrt(x), m1, m1)

    def power(self, m1: Any, a: float) -> Any:
        """Return m1 to the power of a."""
        return self._each(lambda x, _: np.power(x, a), m1, m1)

    def sign(self, m1: Any) -> Any:
        """Return signs."""
        return self._each(lambda x, _: np.sign(x), m1, m1)

    def ones(self, m1: Any, a: float = 1.0) -> Any:
        """Return arrays of these shapes that are a everywhere."""
        return self._each(lambda x, _: a * np.ones(np.shape(x)), m1, m1)

    def norm(self, m1: Any) -> float:
        """Return the sum of the arrays' norms."""
        arrays = m1.values() if isinstance(m1, Mapping) else m1
        return float(sum(np.linalg.norm(np.asarray(array)) for array in arrays))

    def _named(self, weights: Any) -> dict[str, Any]:
        return {str(i): _plain(array) for i, array in enumerate(weights)}

    def _weights(self, arrays: dict[str, Any]) -> Any:
        if all(name.removeprefix("arr_").isdigit() for name in arrays):
            return [arrays[k] for k in sorted(arrays, key=lambda k: int(k.removeprefix("arr_")))]
        return list(arrays.values())

    def _each(self, change: Callable[[Any, Any], Any], m1: Any, m2: Any) -> Any:
        return [change(np.asarray(a), np.asarray(b)) for a, b in zip(m1, m2, strict=True)]


class _NamedNpz(_Npz):
    """Arrays by their names, as a state_dict has them."""

    def _named(self, weights: Any) -> dict[str, Any]:
        return {name: _plain(array) for name, array in weights.items()}

    def _weights(self, arrays: dict[str, Any]) -> Any:
        return OrderedDict(arrays)

    def _each(self, change: Callable[[Any, Any], Any], m1: Any, m2: Any) -> Any:
        return OrderedDict((k, change(np.asarray(m1[k]), np.asarray(m2[k]))) for k in m1)


class _Flat(_Npz):
    """All numbers one after the other, without a header."""

    dtype = "<f8"
    listed = True  # what is loaded is a list of one array

    def save(self, weights: Any, path: Any = None, file_type: str = "") -> Any:
        """Write weights; their shapes are not kept."""
        path = self.get_tmp_path(".bin") if path is None else path
        arrays = weights if isinstance(weights, list | tuple) else [weights]
        flat = np.concatenate([np.ravel(_plain(array)) for array in arrays]).astype(self.dtype)
        _write_bytes(path, flat.tobytes())
        return path

    def load(self, path: Any, file_type: str = "") -> Any:
        """Read them as one flat array."""
        flat = np.frombuffer(_read_bytes(path), self.dtype).copy()
        return [flat] if self.listed else flat

    def _each(self, change: Callable[[Any, Any], Any], m1: Any, m2: Any) -> Any:
        if self.listed:
            return super()._each(change, m1, m2)
        return change(np.asarray(m1), np.asarray(m2))


class _Single(_Flat):
    """The same in float32, as one array."""

    dtype = "<f4"
    listed = False


class _Text(_Flat):
    """One array as text."""

    listed = False

    def save(self, weights: Any, path: Any = None, file_type: str = "") -> Any:
        """Write an array of one or two dimensions."""
        path = self.get_tmp_path(".txt") if path is None else path
        np.savetxt(path, _plain(weights))
        return path

    def load(self, path: Any, file_type: str = "") -> Any:
        """Read it."""
        return np.loadtxt(path)


HELPERS: dict[str, type[_Npz]] = {
    "numpyhelper": _Npz,
    "kerashelper": _Npz,
    "pytorchhelper": _NamedNpz,
    "splitlearninghelper": _NamedNpz,
    "binaryhelper": _Flat,
    "androidhelper": _Single,
    "numpyarrayhelper": _Text,
}


def get_helper(helper_module_name: str) -> _Npz:
    """Return what reads and writes models, by its name with or without its package."""
    name = helper_module_name.rpartition(".")[2].lower()
    if name not in HELPERS:
        raise ImportError(
            f"Hansa's stand-in for fedn has no helper {helper_module_name!r}; "
            f"it has {', '.join(HELPERS)}."
        )
    return HELPERS[name]()


def _plain(array: Any) -> Any:
    """Return an array of numbers; tensors of other libraries are converted."""
    made = np.asarray(array)
    if made.dtype.hasobject:
        raise ValueError("An array of Python objects cannot be a model's; give arrays of numbers.")
    return made


def _write_bytes(path: Any, data: bytes) -> None:
    if hasattr(path, "write"):
        path.write(data)
        return
    with open(path, "wb") as file:
        file.write(data)


def _read_bytes(path: Any) -> bytes:
    if hasattr(path, "read"):
        return bytes(path.read())
    with open(path, "rb") as file:
        return file.read()


class ServerFunctionsBase:
    """What a class `ServerFunctions` derives from; methods that it leaves out are the default."""

    def __init__(self) -> None:
        """Do nothing."""

    def client_selection(self, client_ids: Any) -> Any:
        """Choose clients."""

    def client_settings(self, global_model: Any) -> Any:
        """Say something to the clients of a round."""

    def aggregate(self, previous_global: Any, client_updates: Any) -> Any:
        """Combine models."""

    def incremental_aggregate(
        self, client_id: Any, model: Any, client_metadata: Any, previous_global: Any
    ) -> Any:
        """Take one model."""

    def get_incremental_aggregate_model(self) -> Any:
        """Return the model of those that were taken."""


class _NoNetwork:
    """What FEDn's server functions ask the controller through; ours run without a network."""

    def __getattr__(self, name: str) -> Any:
        raise ConnectionError(f"api_client.{name}: server functions have no network in Hansa.")


class _Absent:
    """Finds no module of fedn, and says why."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Refuse what a package's commands have no use for here."""
        if name.startswith("fedn."):
            raise ModuleNotFoundError(
                f"Hansa's stand-in for fedn has no module {name}. It has what train, validate and "
                "predict need: fedn.utils.helpers.helpers and fedn.common.log_config.",
                name=name,
            )


def _module(name: str, **names: Any) -> None:
    made = ModuleType(name)
    made.__dict__.update(names, __path__=[])
    sys.modules[name] = made
    parent, _, last = name.rpartition(".")
    setattr(sys.modules[parent], last, made)


_CLIENTS = ("APIClient", "FednClient", "ConnectToApiResult", "GrpcConnectionOptions")


def _client(name: str) -> Any:
    """Give what scripts use, where Hansa is installed; packages have no use for it."""
    if name not in _CLIENTS:
        raise AttributeError(f"Hansa's stand-in for fedn has no {name}.")
    import hansa.compat.fedn as ours

    return getattr(ours, name)


def _offer() -> None:
    """Make the modules that packages import."""
    names = {
        "get_helper": get_helper,
        "save_metadata": save_metadata,
        "load_metadata": load_metadata,
        "save_metrics": save_metrics,
    }
    _module("fedn.common")
    _module("fedn.common.log_config", logger=logger)
    _module("fedn.utils")
    _module("fedn.utils.helpers", **names)
    _module("fedn.utils.helpers.helpers", **names)
    _module("fedn.utils.helpers.plugins")
    _module("fedn.utils.plugins")
    for name, kind in HELPERS.items():
        for parent in ("fedn.utils.helpers.plugins", "fedn.utils.plugins"):
            _module(f"{parent}.{name}", Helper=kind)
    clients = ("fedn.network.clients", "fedn.network.clients.fedn_client")
    for name in ("fedn.network", "fedn.network.api", "fedn.network.api.client", *clients):
        _module(name, __getattr__=_client)
    _module("fedn.utils.kerashelper", KerasHelper=_Npz)
    _module("fedn.utils.pytorchhelper", PytorchHelper=_NamedNpz)
    _module("fedn.utils.numpyarrayhelper", NumpyArrayHelper=_Text)
    hooks = "fedn.network.combiner.hooks"
    for parent in ("fedn.network.combiner", hooks):
        _module(parent)
    _module(f"{hooks}.serverfunctionsbase", ServerFunctionsBase=ServerFunctionsBase)
    _module(
        f"{hooks}.allowed_import",
        ServerFunctionsBase=ServerFunctionsBase,
        api_client=_NoNetwork(),
        logger=logger,
        print=logger.info,
        np=np,
        random=random,
        Dict=dict,
        List=list,
        Tuple=tuple,
    )
    sys.meta_path.append(_Absent())


if __name__ == "fedn":  # elsewhere it is a file to read, and no stand-in
    __path__: list[str] = []
    __getattr__ = _client
    _offer()
