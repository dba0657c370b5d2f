"""A chain encodes forwards, decodes backwards, and gives each step a key of its own."""

from __future__ import annotations

import numpy as np

from hansa.seeds import Key
from hansa.transforms import TRANSFORMS, Transform, cast, chain, clip, percentile, sparse_vector

KEY = Key.root(1)


def add(amount: float) -> Transform:
    return Transform(
        f"add-{amount}",
        lambda vs, key: {n: v + amount for n, v in vs.items()},
        lambda vs: {n: v - amount for n, v in vs.items()},
    )


def times(factor: float) -> Transform:
    return Transform(
        f"times-{factor}",
        lambda vs, key: {n: v * factor for n, v in vs.items()},
        lambda vs: {n: v / factor for n, v in vs.items()},
    )


def remembering(seen: list[Key], name: str = "see") -> Transform:
    def encode(vectors, key):
        seen.append(key)
        return vectors

    return Transform(name, encode, lambda vs: vs)


def test_a_chain_encodes_in_order_and_decodes_in_reverse() -> None:
    """(v + 1) * 4 is not v * 4 + 1, and only the reverse order undoes it."""
    both = chain(add(1), times(4))
    wire = both.encode({"delta": np.array([2.0, -3.0])}, KEY)
    np.testing.assert_array_equal(wire["delta"], [12, -8])
    np.testing.assert_array_equal(both.decode(wire)["delta"], [2, -3])
    three = chain(times(2), add(-3), times(8))
    wire = three.encode({"delta": np.array([2.0, -3.0])}, KEY)
    np.testing.assert_array_equal(wire["delta"], [8, -72])
    np.testing.assert_array_equal(three.decode(wire)["delta"], [2, -3])


def test_clip_and_cast_do_not_commute() -> None:
    update = {"delta": np.array([3.001, -4.003], np.float32)}
    clip_first = chain(clip(1.0), cast("fp16")).encode(update, KEY)["delta"]
    assert clip_first.dtype == np.float16
    expected = (update["delta"] / np.hypot(3.001, 4.003)).astype(np.float16)
    np.testing.assert_array_equal(clip_first, expected)


def test_equal_steps_at_two_positions_have_two_keys() -> None:
    seen: list[Key] = []
    chain(remembering(seen), remembering(seen)).encode({}, KEY)
    chain(remembering(seen, "other")).encode({}, KEY)
    chain(remembering(seen)).encode({}, Key.root(2))
    assert len(set(seen)) == 4
    chain(remembering(seen)).encode({}, KEY)
    assert seen[4] == seen[0]
    assert KEY not in seen


def test_no_steps_change_nothing() -> None:
    update = {"delta": np.array([1.0])}
    nothing = chain()
    assert nothing.name == "identity"
    assert nothing.decode(nothing.encode(update, KEY)) == update
    assert chain(clip(1.0), cast("bf16")).name == "clip > cast-bf16"


def test_a_chain_of_chains_is_a_chain() -> None:
    nested = chain(chain(add(1), times(4)), add(0.5))
    flat = chain(add(1), times(4), add(0.5))
    update = {"delta": np.array([0.25, -7.0])}
    np.testing.assert_array_equal(
        nested.encode(update, KEY)["delta"], flat.encode(update, KEY)["delta"]
    )
    np.testing.assert_array_equal(nested.decode(flat.encode(update, KEY))["delta"], [0.25, -7])


def test_a_plan_may_name_each_transform() -> None:
    named = {"clip": clip, "cast": cast, "percentile": percentile, "sparse_vector": sparse_vector}
    assert named == TRANSFORMS
