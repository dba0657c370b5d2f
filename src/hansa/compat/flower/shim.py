"""What stands in for the module `flwr` in the process that runs a Flower project's client code.

`install` is called by that process alone (`hansa.compat.flower.worker`); how it works stands in
`hansa.compat.stand_in`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from hansa.compat import stand_in
from hansa.compat.flower import client_app, clients, messages, mods, records

NAME = "flwr"
VERSION = "0+hansa"
_SERVER = ("flwr.server", "flwr.serverapp", "flwr.simulation")


class Started(BaseException):
    """Leaves a script at its call of `start_client`; carries the client."""

    def __init__(self, client: Any) -> None:
        super().__init__()
        self.client = client


def start_client(*args: Any, client: Any = None, client_fn: Any = None, **options: Any) -> None:
    """Hand the script's client over, in place of connecting to a server."""
    raise Started(client if client is not None else client_fn)


_logger = logging.getLogger(NAME)


def log(level: int, message: object, *args: Any, **options: Any) -> None:
    """Write a line to the log."""
    _logger.log(level, message, *args, **options)


def configure(*args: Any, **options: Any) -> None:
    """Do nothing: where lines of the log go is Hansa's."""


def unflatten_dict(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run_config, whose keys have dots, as nested dicts.

    >>> unflatten_dict({"train.lr": 0.1, "seed": 3})
    {'train': {'lr': 0.1}, 'seed': 3}
    """
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, last = key.split(".")
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return nested


def _of(module: ModuleType, *names: str) -> dict[str, Any]:
    return {name: getattr(module, name) for name in names}


_RECORDS = {
    **_of(records, "Array", "ArrayRecord", "MetricRecord", "ConfigRecord", "RecordDict"),
    "ParametersRecord": records.ArrayRecord,  # names before 1.18
    "MetricsRecord": records.MetricRecord,
    "ConfigsRecord": records.ConfigRecord,
    "RecordSet": records.RecordDict,
    "array_from_numpy": records.Array.from_numpy_ndarray,
}
_MESSAGES = _of(messages, "Context", "Message", "MessageType", "Metadata", "Error", "DEFAULT_TTL")
_SCALAR = bool | bytes | float | int | str
_TYPES: dict[str, Any] = {
    **_of(clients, "Code", "Status", "Parameters", "FitIns", "FitRes", "EvaluateIns"),
    **_of(clients, "EvaluateRes", "GetParametersIns", "GetParametersRes"),
    **_of(clients, "GetPropertiesIns", "GetPropertiesRes"),
    **{name: np.ndarray for name in ("NDArray", "NDArrayInt", "NDArrayFloat")},
    "NDArrays": list[np.ndarray],
    **{name: _SCALAR for name in ("Scalar", "Value", "UserConfigValue", "ConfigScalar")},
    **{n: dict[str, _SCALAR] for n in ("Config", "Metrics", "Properties", "UserConfig")},
    "MetricsAggregationFn": Any,
    **{n: Any for n in ("ConfigRecordValues", "MetricRecordValues", "MetricScalar")},
    **{n: Any for n in ("ConfigScalarList", "MetricScalarList")},
}
_PARAMETERS = {
    **_of(clients, "ndarrays_to_parameters", "parameters_to_ndarrays"),
    "ndarray_to_bytes": records.array_to_bytes,
    "bytes_to_ndarray": records.bytes_to_array,
}
_LOGGER = {"log": log, "logger": _logger, "configure": configure}
_MODS = _of(
    mods, "message_size_mod", "arrays_size_mod", "parameters_size_mod", "fixedclipping_mod",
    "adaptiveclipping_mod", "LocalDpMod", "secagg_mod", "secaggplus_mod",
)  # fmt: skip
_CLIENT = {
    **_of(clients, "Client", "NumPyClient"),
    "ClientApp": client_app.ClientApp,
    "start_client": start_client,
    "start_numpy_client": start_client,
    "ClientFn": Any,
    "ClientFnExt": Any,
}
_PARTS: Mapping[str, Mapping[str, Any]] = {
    "flwr": {"__version__": VERSION},
    "flwr.app": {**_RECORDS, **_MESSAGES, **_TYPES},
    "flwr.app.typing": _TYPES,
    "flwr.app.message_type": _MESSAGES,
    "flwr.app.metadata": _MESSAGES,
    "flwr.app.error": _MESSAGES,
    "flwr.app.user_config": _TYPES,
    "flwr.app.message": {**_RECORDS, **_MESSAGES},
    "flwr.client": _CLIENT,
    "flwr.client.app": _CLIENT,
    "flwr.client.client": _CLIENT,
    "flwr.client.client_app": _CLIENT,
    "flwr.client.numpy_client": _CLIENT,
    "flwr.client.typing": {**_CLIENT, "ClientAppCallable": Any, "Mod": Any},
    "flwr.client.mod": _MODS,
    "flwr.clientapp": _CLIENT,
    "flwr.clientapp.client_app": _CLIENT,
    "flwr.clientapp.mod": _MODS,
    "flwr.clientapp.typing": {"ClientAppCallable": Any, "Mod": Any},
    "flwr.common": {**_RECORDS, **_MESSAGES, **_TYPES, **_PARAMETERS, **_LOGGER},
    "flwr.common.config": {"unflatten_dict": unflatten_dict},
    "flwr.common.constant": {**_MESSAGES, "MessageTypeLegacy": messages.MessageType},
    "flwr.common.context": _MESSAGES,
    "flwr.common.logger": _LOGGER,
    "flwr.common.message": _MESSAGES,
    "flwr.common.parameter": _PARAMETERS,
    "flwr.common.record": _RECORDS,
    "flwr.common.recordset": _RECORDS,
    "flwr.common.typing": _TYPES,
}
"""Every module of the client's side and what is in it."""


def install() -> None:
    """Let `flwr` mean this, in this process, from now on.

    Raises:
      LearnerError: the real one has been imported already.
    """
    stand_in.install(NAME, _PARTS, _SERVER)
