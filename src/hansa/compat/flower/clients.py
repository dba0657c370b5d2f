"""Flower's client classes: what user code derives from, and how they are asked.

`NumPyClient` speaks lists of NumPy arrays; `Client` speaks `FitIns`, `FitRes` and their like.  A
`NumPyClient` is turned into a `Client` by `to_client`, so the rest of the adapter knows one kind.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hansa.compat.flower.messages import Context
from hansa.compat.flower.records import array_to_bytes, bytes_to_array
from hansa.errors import LearnerError


class Code(enum.Enum):
    """How a call went."""

    OK = 0
    GET_PROPERTIES_NOT_IMPLEMENTED = 1
    GET_PARAMETERS_NOT_IMPLEMENTED = 2
    FIT_NOT_IMPLEMENTED = 3
    EVALUATE_NOT_IMPLEMENTED = 4


@dataclass
class Status:
    """How a call went, with a word about it."""

    code: Code = Code.OK
    message: str = ""


@dataclass
class Parameters:
    """Arrays as bytes, in order."""

    tensors: list[bytes]
    tensor_type: str = "numpy.ndarray"


@dataclass
class GetParametersIns:
    """A request for the client's arrays."""

    config: dict[str, Any]


@dataclass
class GetParametersRes:
    """The client's arrays."""

    status: Status
    parameters: Parameters


@dataclass
class GetPropertiesIns:
    """A request for what a client says of itself."""

    config: dict[str, Any]


@dataclass
class GetPropertiesRes:
    """What a client says of itself."""

    status: Status
    properties: dict[str, Any]


@dataclass
class FitIns:
    """A request to train."""

    parameters: Parameters
    config: dict[str, Any]


@dataclass
class FitRes:
    """What came of training."""

    status: Status
    parameters: Parameters
    num_examples: int
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass
class EvaluateIns:
    """A request to evaluate."""

    parameters: Parameters
    config: dict[str, Any]


@dataclass
class EvaluateRes:
    """What came of evaluation; `loss` is a mean over `num_examples`."""

    status: Status
    loss: float
    num_examples: int
    metrics: dict[str, Any] = field(default_factory=dict)


def ndarrays_to_parameters(ndarrays: Any) -> Parameters:
    """Return arrays as bytes."""
    return Parameters([array_to_bytes(array) for array in ndarrays])


def parameters_to_ndarrays(parameters: Parameters) -> list[np.ndarray]:
    """Return arrays from bytes."""
    return [bytes_to_array(data) for data in parameters.tensors]


class Client:
    """What user code derives from to speak `FitIns` and `FitRes`."""

    context: Context

    def get_context(self) -> Context:
        """Return the context of the message that is being handled."""
        return self.context

    def set_context(self, context: Context) -> None:
        """Keep the context of the message that is being handled."""
        self.context = context

    def get_properties(self, ins: GetPropertiesIns) -> GetPropertiesRes:
        """Return what the client says of itself; nothing, unless user code does."""
        return GetPropertiesRes(Status(Code.GET_PROPERTIES_NOT_IMPLEMENTED), {})

    def get_parameters(self, ins: GetParametersIns) -> GetParametersRes:
        """Return the client's arrays; none, unless user code does."""
        return GetParametersRes(Status(Code.GET_PARAMETERS_NOT_IMPLEMENTED), Parameters([]))

    def fit(self, ins: FitIns) -> FitRes:
        """Train; user code does."""
        return FitRes(Status(Code.FIT_NOT_IMPLEMENTED), Parameters([]), 0)

    def evaluate(self, ins: EvaluateIns) -> EvaluateRes:
        """Evaluate; nothing, unless user code does."""
        return EvaluateRes(Status(Code.EVALUATE_NOT_IMPLEMENTED), 0.0, 0)

    def to_client(self) -> Client:
        """Return itself."""
        return self


class NumPyClient:
    """What user code derives from to speak lists of NumPy arrays."""

    context: Context

    def get_context(self) -> Context:
        """Return the context of the message that is being handled."""
        return self.context

    def set_context(self, context: Context) -> None:
        """Keep the context of the message that is being handled."""
        self.context = context

    def get_properties(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return what the client says of itself."""
        return {}

    def get_parameters(self, config: dict[str, Any]) -> list[np.ndarray]:
        """Return the client's arrays."""
        return []

    def fit(
        self, parameters: list[np.ndarray], config: dict[str, Any]
    ) -> tuple[list[np.ndarray], int, dict[str, Any]]:
        """Train on arrays; return the trained ones, how many examples, and metrics."""
        return [], 0, {}

    def evaluate(
        self, parameters: list[np.ndarray], config: dict[str, Any]
    ) -> tuple[float, int, dict[str, Any]]:
        """Evaluate arrays; return the mean loss, over how many examples, and metrics."""
        return 0.0, 0, {}

    def to_client(self) -> Client:
        """Return this as a client that speaks `FitIns` and `FitRes`."""
        return _Wrapped(self)


class _Wrapped(Client):
    """A `NumPyClient` as a `Client`."""

    def __init__(self, inner: NumPyClient) -> None:
        self.numpy_client = inner

    def set_context(self, context: Context) -> None:
        self.context = context
        self.numpy_client.set_context(context)

    def get_properties(self, ins: GetPropertiesIns) -> GetPropertiesRes:
        return GetPropertiesRes(Status(), self.numpy_client.get_properties(ins.config))

    def get_parameters(self, ins: GetParametersIns) -> GetParametersRes:
        if not _defines(self.numpy_client, "get_parameters"):
            return super().get_parameters(ins)
        arrays = self.numpy_client.get_parameters(ins.config)
        return GetParametersRes(Status(), ndarrays_to_parameters(_arrays(arrays)))

    def fit(self, ins: FitIns) -> FitRes:
        if not _defines(self.numpy_client, "fit"):
            return super().fit(ins)
        returned = self.numpy_client.fit(parameters_to_ndarrays(ins.parameters), ins.config)
        if not isinstance(returned, tuple) or len(returned) != 3:
            raise _not_three("fit", "the arrays, the number of examples, and a dict of metrics")
        arrays, examples, metrics = returned
        made = ndarrays_to_parameters(_arrays(arrays))
        return FitRes(Status(), made, _count(examples, "fit"), dict(metrics or {}))

    def evaluate(self, ins: EvaluateIns) -> EvaluateRes:
        if not _defines(self.numpy_client, "evaluate"):
            return super().evaluate(ins)
        returned = self.numpy_client.evaluate(parameters_to_ndarrays(ins.parameters), ins.config)
        if not isinstance(returned, tuple) or len(returned) != 3:
            raise _not_three("evaluate", "the loss, the number of examples, and a dict of metrics")
        loss, examples, metrics = returned
        count = _count(examples, "evaluate")
        return EvaluateRes(Status(), float(loss), count, dict(metrics or {}))


def _defines(client: NumPyClient, method: str) -> bool:
    """Return whether user code has a method of its own."""
    return getattr(type(client), method) is not getattr(NumPyClient, method)


def _arrays(values: Any) -> list[np.ndarray]:
    """Return a list of arrays; numbers in it become arrays without dimensions."""
    if not isinstance(values, list | tuple):
        raise LearnerError(
            "learner-params",
            f"The Flower client returned {type(values).__name__} in place of a list of arrays.",
            "Return a list of NumPy arrays.",
        )
    return [np.asarray(value) for value in values]


def _count(value: Any, method: str) -> int:
    """Return a number of examples, which some code gives as a float or a NumPy integer."""
    try:
        return int(value)
    except (TypeError, ValueError):
        raise LearnerError(
            "learner-metrics",
            f"{method} of the Flower client returned {value!r:.100} as its number of examples.",
            "Return a whole number as the second of the three.",
        ) from None


def _not_three(method: str, parts: str) -> LearnerError:
    return LearnerError(
        "learner-params",
        f"{method} of the Flower client did not return three things.",
        f"Return {parts}.",
    )
