"""The conformance check finds the faults it is for: one broken transform for each law."""

from __future__ import annotations

import numpy as np
import pytest

from hansa.errors import HansaError
from hansa.seeds import Key
from hansa.testing import LawBroken, check_transform
from hansa.transforms import Transform, cast, chain, clip


def same(vectors):
    return dict(vectors)


def encoding(change) -> Transform:
    """A transform that changes each vector and undoes nothing."""
    return Transform("mine", lambda vs, key: {n: change(v) for n, v in vs.items()}, same)


def decoding(change) -> Transform:
    return Transform("mine", lambda vs, key: same(vs), lambda vs: change(dict(vs)))


def in_place(vectors, key=None):
    for v in vectors.values():
        v *= np.float32(0.5)
    return vectors


def noise(draw: np.random.Generator):
    return encoding(lambda v: v + draw.normal(size=v.shape).astype("float32"))


def remembers() -> Transform:
    seen = []

    def decode(vectors):
        seen.append(1)
        return {name: v / np.float32(len(seen)) for name, v in vectors.items()}

    return Transform("mine", lambda vs, key: same(vs), decode)


def unit_length(v):
    with np.errstate(all="ignore"):
        return v / np.float32(np.linalg.norm(v))


BROKEN = {
    "something else than flat arrays": encoding(lambda v: v.tolist()),
    "something else than flat arrays ": encoding(lambda v: v[:, None]),
    "something else than flat arrays  ": encoding(lambda v: v.astype(complex)),
    "encode writes to": Transform("mine", in_place, same),
    "decode writes to": Transform("mine", lambda vs, key: same(vs), in_place),
    "encoding the same update twice": noise(np.random.default_rng(0)),
    "decoding the same update twice": remembers(),
    "an update with vectors .* is decoded to": decoding(lambda vs: {"delta": vs["delta"]}),
    "an update with vectors .* is decoded to ": decoding(lambda vs: {**vs, "dc": vs["delta"]}),
    "float32 vectors is decoded to .*float64": decoding(
        lambda vs: {n: v.astype("float64") for n, v in vs.items()}
    ),
    "decoded to NaN or infinity": encoding(unit_length),
    "holds nan is decoded to finite": encoding(np.nan_to_num),
    "holds inf is decoded to finite": encoding(lambda v: np.minimum(v, np.float32(1e6))),
    "holds -inf is decoded to finite": encoding(lambda v: np.maximum(v, np.float32(-1e6))),
}


@pytest.mark.parametrize("sentence", BROKEN)
def test_a_broken_law_is_named(sentence: str) -> None:
    with pytest.raises(LawBroken, match=sentence.strip()) as caught:
        check_transform(BROKEN[sentence])
    assert isinstance(caught.value, HansaError)
    assert caught.value.code == "law-broken"
    assert caught.value.hint


@pytest.mark.parametrize(
    "transform",
    [
        clip(0.5),
        clip(1e3),
        cast("bf16"),
        cast("fp16"),
        chain(),
        chain(clip(1.0), cast("fp16")),
        chain(cast("bf16"), clip(2.0)),
    ],
    ids=lambda transform: transform.name,
)
def test_what_is_shipped_keeps_the_laws(transform: Transform) -> None:
    check_transform(transform, trials=16)


def test_noise_from_its_key_keeps_the_laws() -> None:
    def encode(vectors, key: Key):
        draw = key.generator()
        return {n: v + draw.normal(size=v.shape).astype("float32") for n, v in vectors.items()}

    check_transform(Transform("noise", encode, same))
