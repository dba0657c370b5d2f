"""What FLARE's components hand each other: Shareable, DXO, Learnable."""

from __future__ import annotations

import copy
from typing import Any, NoReturn

from hansa.compat.nvflare.names import DataKind, ReservedHeaderKey, ReturnCode

_DXO = "DXO"


def _no_bytes() -> NoReturn:
    raise NotImplementedError("Hansa has no pickle: send the object, not its bytes.")


class Shareable(dict[str, Any]):
    """A dict with headers, a return code and cookies."""

    def __init__(self, data: dict[str, Any] | None = None) -> None:
        super().__init__(data or {})
        self.setdefault(ReservedHeaderKey.HEADERS, {})

    @property
    def _headers(self) -> dict[str, Any]:
        headers: dict[str, Any] = self.setdefault(ReservedHeaderKey.HEADERS, {})
        return headers

    def set_header(self, key: str, value: Any) -> None:
        """Set a header."""
        self._headers[key] = value

    def get_header(self, key: str, default: Any = None) -> Any:
        """Return a header."""
        return self._headers.get(key, default)

    def get_return_code(self, default: str = ReturnCode.OK) -> Any:
        """Return how the task went."""
        return self.get_header(ReservedHeaderKey.RC, default)

    def set_return_code(self, rc: str) -> None:
        """Say how the task went."""
        self.set_header(ReservedHeaderKey.RC, rc)

    def add_cookie(self, name: str, data: Any) -> None:
        """Keep something that comes back with the reply."""
        jar = self.get_cookie_jar() or {}
        jar[name] = data
        self.set_cookie_jar(jar)

    def get_cookie_jar(self) -> Any:
        """Return all cookies, or None."""
        return self.get_header(ReservedHeaderKey.COOKIE_JAR)

    def set_cookie_jar(self, jar: Any) -> None:
        """Replace all cookies."""
        self.set_header(ReservedHeaderKey.COOKIE_JAR, jar)

    def get_cookie(self, name: str, default: Any = None) -> Any:
        """Return one cookie."""
        return (self.get_cookie_jar() or {}).get(name, default)

    def set_peer_props(self, props: dict[str, Any]) -> None:
        """Say what the other side's public properties are."""
        self.set_header(ReservedHeaderKey.PEER_PROPS, props)

    def get_peer_props(self) -> Any:
        """Return the other side's public properties."""
        return self.get_header(ReservedHeaderKey.PEER_PROPS)

    def get_peer_prop(self, key: str, default: Any) -> Any:
        """Return one of the other side's public properties."""
        return (self.get_peer_props() or {}).get(key, default)

    def to_bytes(self) -> bytes:
        """Refuse: FLARE 2.0 pickles here."""
        _no_bytes()


def make_reply(rc: str, headers: dict[str, Any] | None = None) -> Shareable:
    """Return a Shareable that says how a task went, and nothing else."""
    reply = Shareable()
    for key, value in (headers or {}).items():
        reply.set_header(key, value)
    reply.set_return_code(rc)
    return reply


class DXO:
    """Data of a kind, with what is said of it.

    Args:
      data_kind: one of DataKind.
      data: by name.
      meta: by MetaKey.
    """

    def __init__(
        self, data_kind: str, data: dict[str, Any] | None = None, meta: dict[str, Any] | None = None
    ) -> None:
        self.data_kind = data_kind
        self.data: Any = {} if data is None else data
        self.meta: Any = {} if meta is None else meta
        if problem := self.validate():
            raise ValueError(f"invalid DXO: {problem}")

    def get_meta_prop(self, key: str, default: Any = None) -> Any:
        """Return one thing that is said of the data."""
        return self.meta.get(key, default)

    def set_meta_prop(self, key: str, value: Any) -> None:
        """Say something of the data."""
        self.meta[key] = value

    def remove_meta_props(self, keys: list[str]) -> None:
        """Unsay things of the data."""
        for key in keys or ():
            self.meta.pop(key, None)

    def get_meta_props(self) -> Any:
        """Return all that is said of the data."""
        return self.meta

    def update_meta_props(self, meta: dict[str, Any]) -> None:
        """Say more of the data."""
        self.meta.update(copy.deepcopy(meta))

    def update_shareable(self, s: Shareable) -> Shareable:
        """Put this into a Shareable."""
        s.set_header(ReservedHeaderKey.CONTENT_TYPE, _DXO)
        s[_DXO] = {"kind": self.data_kind, "data": self.data, "meta": self.meta}
        return s

    def to_shareable(self) -> Shareable:
        """Return a Shareable that holds this."""
        return self.update_shareable(Shareable())

    def to_bytes(self) -> bytes:
        """Refuse: FLARE 2.0 pickles here."""
        _no_bytes()

    def validate(self) -> str:
        """Return what is wrong, or an empty text."""
        if not isinstance(self.data, dict):
            return f"data must be a dict, and is {type(self.data).__name__}"
        if not isinstance(self.meta, dict):
            return f"meta must be a dict, and is {type(self.meta).__name__}"
        return ""


def from_shareable(s: Shareable) -> DXO:
    """Return the DXO that a Shareable holds.

    Raises:
      ValueError: it holds none.
    """
    kind = s.get_header(ReservedHeaderKey.CONTENT_TYPE)
    content = s.get(_DXO)
    if kind != _DXO or not isinstance(content, dict):
        raise ValueError(f"the shareable holds no DXO; its content type is {kind!r}")
    return DXO(content.get("kind", ""), content.get("data"), content.get("meta"))


def from_bytes(data: bytes) -> DXO:
    """Refuse: FLARE 2.0 unpickles here."""
    _no_bytes()


class Learnable(dict[str, Any]):
    """What is learnt."""

    def to_bytes(self) -> bytes:
        """Refuse: FLARE 2.0 pickles here."""
        _no_bytes()


class ModelLearnable(Learnable):
    """A model that is learnt: weights by name, and what is said of them."""


class ModelLearnableKey:
    """Keys of a ModelLearnable."""

    WEIGHTS = "weights"
    META = "meta"


def make_model_learnable(weights: Any, meta_props: Any = None) -> ModelLearnable:
    """Return a ModelLearnable."""
    made = {ModelLearnableKey.WEIGHTS: weights, ModelLearnableKey.META: meta_props or {}}
    return ModelLearnable(made)


def validate_model_learnable(model_learnable: Any) -> str:
    """Return what is wrong with a ModelLearnable, or an empty text."""
    if not isinstance(model_learnable, Learnable):
        return f"expected a ModelLearnable, got {type(model_learnable).__name__}"
    lacks = {ModelLearnableKey.WEIGHTS, ModelLearnableKey.META} - model_learnable.keys()
    return f"the model learnable lacks {', '.join(sorted(lacks))}" if lacks else ""


def model_learnable_to_dxo(ml: ModelLearnable) -> DXO:
    """Return a ModelLearnable as a DXO of weights.

    Raises:
      ValueError: it is none.
    """
    if problem := validate_model_learnable(ml):
        raise ValueError(problem)
    return DXO(DataKind.WEIGHTS, ml[ModelLearnableKey.WEIGHTS], ml[ModelLearnableKey.META])
