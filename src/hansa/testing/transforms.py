"""The laws of transforms, tried on random updates.

>>> from hansa.transforms import cast, chain, clip
>>> check_transform(clip(1.0))
>>> check_transform(chain(clip(1.0), cast("bf16")))
>>> check_transform(cast("bf16")._replace(decode=lambda vectors: vectors))
Traceback (most recent call last):
...
hansa.testing.laws.LawBroken: Transform 'cast-bf16' breaks a law: an update of float32 vectors is \
decoded to {'delta': 'bfloat16', 'dc': 'bfloat16', 'nothing': 'bfloat16'}. decode returns what \
the round asks for: float32 for what was float32.  [law-broken]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from hansa.seeds import Key
from hansa.testing.laws import law
from hansa.transforms import Transform, Wire

SIZES = {"delta": 13, "dc": 3, "nothing": 0}
"""Vectors of an update: a long one, a short one and an empty one."""


class _Trial(NamedTuple):
    """One random update and the transform under test."""

    transform: Transform
    update: dict[str, np.ndarray]
    key: Key

    def encoded(self) -> Wire:
        return self.transform.encode(self.update, self.key)

    def decoded(self) -> Wire:
        return self.transform.decode(self.encoded())

    def require(self, holds: bool, sentence: str, *, hint: str) -> None:
        law(holds, f"Transform {self.transform.name!r}", sentence, hint=hint)


def check_transform(transform: Transform, *, trials: int = 10, seed: int = 0) -> None:
    """Check that a transform keeps its laws, on updates of zeros and random ones of any size.

    The laws: both halves leave their input alone; the same key gives the same bytes; what comes
    back has the names, shapes and precision of the update, and is finite where the update was;
    NaN and infinity are never made to look like numbers, so that the server still refuses them.

    Args:
      transform: the value under test; a chain is one too.
      trials: random updates.
      seed: of the updates; the same seed gives the same updates.

    Raises:
      LawBroken: which law, and what to look for.

    """
    for trial in _trials(transform, trials, seed):
        for check in LAWS:
            check(trial)


def _trials(transform: Transform, number: int, seed: int) -> Iterator[_Trial]:
    yield _Trial(transform, _update(np.zeros), Key.root(seed).child("zero"))
    for i in range(number):
        key = Key.root(seed).child("check_transform", i)
        draw = key.child("update").generator()
        # Signed, off centre, and of any magnitude from 1e-4 to 1e3.
        values = partial(draw.normal, 0.3 * 10.0 ** (i % 8 - 4), 10.0 ** (i % 8 - 4))
        yield _Trial(transform, _update(values), key.child("transform"))


def _update(values: Callable[[int], Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(values(size), np.float32) for name, size in SIZES.items()}


def _wire(trial: _Trial) -> None:
    wire = trial.encoded()
    arrays = {n: v for n, v in wire.items() if isinstance(v, np.ndarray) and v.ndim == 1}
    kinds = {n: v.dtype.kind for n, v in arrays.items() if v.dtype.name != "bfloat16"}
    trial.require(
        len(arrays) == len(wire) and set(kinds.values()) <= set("fiub"),
        "what it encodes holds something else than flat arrays of numbers",
        hint="Send 1-D NumPy arrays of floats, integers or booleans; they travel as tensors.",
    )


def _pure(trial: _Trial) -> None:
    before = _image(trial.update)
    wire = trial.encoded()
    trial.require(
        _image(trial.update) == before,
        "encode writes to the vectors that it is given",
        hint="Return new arrays: v * factor, not v *= factor.",
    )
    encoded = _image(wire)
    trial.transform.decode(wire)
    trial.require(
        _image(wire) == encoded,
        "decode writes to the vectors that it is given",
        hint="Return new arrays; the server may still need the update as it came.",
    )


def _deterministic(trial: _Trial) -> None:
    trial.require(
        _image(trial.encoded()) == _image(trial.encoded()),
        "encoding the same update twice with the same key gives other bytes",
        hint="Draw from key.generator(), never from a generator that lives longer than one call.",
    )
    wire = trial.encoded()
    trial.require(
        _image(trial.transform.decode(wire)) == _image(trial.transform.decode(wire)),
        "decoding the same update twice gives other bytes",
        hint="Keep nothing between calls.",
    )


def _form(trial: _Trial) -> None:
    decoded = trial.decoded()
    shapes = {name: np.shape(v) for name, v in decoded.items()}
    trial.require(
        shapes == {name: v.shape for name, v in trial.update.items()},
        f"an update with vectors {SIZES} is decoded to {shapes}",
        hint="decode returns the names and lengths that encode was given.",
    )
    dtypes = {name: str(v.dtype) for name, v in decoded.items()}
    trial.require(
        set(dtypes.values()) == {"float32"},
        f"an update of float32 vectors is decoded to {dtypes}",
        hint="decode returns what the round asks for: float32 for what was float32.",
    )
    trial.require(
        all(np.isfinite(v).all() for v in decoded.values()),
        "a finite update is decoded to NaN or infinity",
        hint="Look for a division by zero, as for an update of zeros, and for overflow.",
    )


def _honest(trial: _Trial) -> None:
    for value in (np.nan, np.inf, -np.inf):
        spoilt = {name: v.copy() for name, v in trial.update.items()}
        spoilt["delta"][1] = value
        with np.errstate(all="ignore"):
            decoded = trial.transform.decode(trial.transform.encode(spoilt, trial.key))
        trial.require(
            not all(np.isfinite(v).all() for v in decoded.values()),
            f"an update that holds {value} is decoded to finite numbers",
            hint="Let NaN and infinity pass; the server refuses the update and says why.",
        )


LAWS: tuple[Callable[[_Trial], None], ...] = (_wire, _pure, _deterministic, _form, _honest)


def _image(vectors: Wire) -> dict[str, tuple[str, bytes]]:
    return {name: (str(v.dtype), v.tobytes()) for name, v in vectors.items()}
