"""Flower's `ClientApp`: functions by message type, or a function that makes clients.

Both end in one way to be asked: `app(message, context) -> message`, with mods around it.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from hansa.compat.flower.clients import (
    Client,
    Code,
    EvaluateIns,
    FitIns,
    GetParametersIns,
    NumPyClient,
    Parameters,
)
from hansa.compat.flower.messages import Context, Message, MessageType
from hansa.compat.flower.records import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hansa.errors import LearnerError

Handler = Callable[[Message, Context], Message]
Mod = Callable[[Message, Context, Handler], Message]
GET_PARAMETERS = "get_parameters"
"""Type of the message that asks a client made by a `client_fn` for its arrays."""


class ClientApp:
    """What handles a client's messages.

    Args:
      client_fn: makes a client from the context, or in older code from the client's number.
      mods: wrap every handler; the first is the outermost.
    """

    def __init__(
        self, client_fn: Callable[..., Any] | None = None, mods: list[Mod] | None = None
    ) -> None:
        self._mods = list(mods or [])
        self._handlers: dict[str, Handler] = {}
        self._lifespan: Callable[[Context], Any] | None = None
        self.client_fn = client_fn
        self._ask = None
        if client_fn is not None:
            self._ask = wrapped(partial(handle_by_client, client_fn), self._mods)

    def train(self, action: str = "default", *, mods: list[Mod] | None = None) -> Any:
        """Return a decorator for the function that trains."""
        return self._decorator(MessageType.TRAIN, action, mods)

    def evaluate(self, action: str = "default", *, mods: list[Mod] | None = None) -> Any:
        """Return a decorator for the function that evaluates."""
        return self._decorator(MessageType.EVALUATE, action, mods)

    def query(self, action: str = "default", *, mods: list[Mod] | None = None) -> Any:
        """Return a decorator for a function that answers questions; Hansa never asks any."""
        return self._decorator(MessageType.QUERY, action, mods)

    def lifespan(self) -> Any:
        """Return a decorator for a generator that runs around every message."""

        def keep(function: Callable[[Context], Iterator[None]]) -> Any:
            self._lifespan = contextlib.contextmanager(function)
            return function

        return keep

    def handles(self, message_type: str) -> bool:
        """Return whether there is a function for messages of a type."""
        return self._ask is not None or f"{message_type}.default" in self._handlers

    def __call__(self, message: Message, context: Context) -> Message:
        """Handle a message.

        Raises:
          LearnerError: no function was registered for its type.
        """
        around = self._lifespan(context) if self._lifespan else contextlib.nullcontext()
        with around:
            kind = message.metadata.message_type
            handler = self._ask or self._handlers.get(kind if "." in kind else f"{kind}.default")
            if handler is None:
                raise LearnerError(
                    "learner-incomplete",
                    f"The ClientApp has no function for {kind}.",
                    f"Decorate one with @app.{kind}().",
                )
            return handler(message, context)

    def _decorator(self, kind: str, action: str, mods: list[Mod] | None) -> Any:
        def keep(function: Handler) -> Handler:
            self._handlers[f"{kind}.{action}"] = wrapped(function, [*self._mods, *(mods or [])])
            return function

        return keep


def wrapped(handler: Handler, mods: list[Mod]) -> Handler:
    """Return a handler inside its mods, the first of which is the outermost."""
    for mod in reversed(mods):
        handler = partial(_through, mod, handler)
    return handler


def _through(mod: Mod, inner: Handler, message: Message, context: Context) -> Message:
    return mod(message, context, inner)


def make_client(client_fn: Callable[..., Any], context: Context) -> Client:
    """Return the client of a context, from either generation of `client_fn`.

    Raises:
      LearnerError: the function takes something else, or returned no client.
    """
    parameters = list(inspect.signature(client_fn).parameters.values())
    if len(parameters) != 1:
        raise LearnerError(
            "learner-incomplete",
            f"client_fn takes {len(parameters)} arguments.",
            "Let it take one: client_fn(context), or in older code client_fn(cid).",
        )
    by_number = parameters[0].name == "cid" or parameters[0].annotation in (str, "str")
    cid = str(context.node_config.get("partition-id", context.node_id))
    made = client_fn(cid if by_number else context)
    if isinstance(made, NumPyClient):  # older code forgets to_client()
        made = made.to_client()
    if not isinstance(made, Client):
        raise LearnerError(
            "learner-incomplete",
            f"client_fn returned {type(made).__name__}, which is not a Flower client.",
            "Return MyClient(...).to_client().",
        )
    made.set_context(context)
    return made


def handle_by_client(client_fn: Callable[..., Any], message: Message, context: Context) -> Message:
    """Answer a message by asking a client; the records have the names that mods look for."""
    client = make_client(client_fn, context)
    content = message.content
    match message.metadata.message_type:
        case "train":
            arrays, config = _asked(content, "fitins")
            fitted = client.fit(FitIns(arrays, config))
            _check(fitted.status.code, "fit")
            answer = {
                "fitres.parameters": _record(fitted.parameters),
                "fitres.num_examples": MetricRecord({"num_examples": int(fitted.num_examples)}),
                "fitres.metrics": _settings(fitted.metrics),
            }
        case "evaluate":
            arrays, config = _asked(content, "evaluateins")
            told = client.evaluate(EvaluateIns(arrays, config))
            if told.status.code is Code.EVALUATE_NOT_IMPLEMENTED:
                return Message(RecordDict(), reply_to=message)
            _check(told.status.code, "evaluate")
            answer = {
                "evaluateres.loss": MetricRecord({"loss": float(told.loss)}),
                "evaluateres.num_examples": MetricRecord({"num_examples": int(told.num_examples)}),
                "evaluateres.metrics": _settings(told.metrics),
            }
        case _:
            seed = client.get_parameters(GetParametersIns({}))
            answer = {"getparametersres.parameters": _record(seed.parameters)}
    return Message(RecordDict(answer), reply_to=message)


def _asked(content: RecordDict, prefix: str) -> tuple[Parameters, dict[str, Any]]:
    arrays = content[f"{prefix}.parameters"]
    parameters = Parameters([array.data for array in arrays.values()])
    return parameters, dict(content[f"{prefix}.config"])


def _record(parameters: Parameters) -> ArrayRecord:
    from hansa.compat.flower.clients import parameters_to_ndarrays

    arrays = parameters_to_ndarrays(parameters)
    return ArrayRecord({str(i): Array(array) for i, array in enumerate(arrays)})


def _settings(metrics: dict[str, Any]) -> ConfigRecord:
    """Return a client's metrics as a record; NumPy's numbers become Python's."""
    return ConfigRecord({n: v.item() if hasattr(v, "item") else v for n, v in metrics.items()})


def _check(code: Code, method: str) -> None:
    if code is not Code.OK:
        raise LearnerError(
            "learner-incomplete",
            f"{method} of the Flower client ended with the status {code.name}.",
            f"Let the client define {method}, and return a status of Code.OK.",
        )
