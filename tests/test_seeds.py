"""Streams of random numbers belong to their purpose, and never change by accident."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from hansa.seeds import Key, global_generators

ROOT = Key.root(7)
purposes = st.lists(st.integers() | st.text(max_size=6), max_size=4).map(tuple)

GOLDEN = {  # changing one of these changes every run that anybody has recorded
    (): "fb6536ab439953c7d2e9d886456f46d0",
    ("cohort", 3): "461c876204fe5f5e014053280d840c71",
    ("client", 3, "north"): "cb597aecae1159b781c8f9bd9b376099",
    ("client", 3, "nörth\0"): "89b33d81dcdd3310764324451d9f60d2",
    ("model",): "25fe554d5dd481df2944427238a68eac",
    (-1, "1", 1): "dcafaeb0756c3c6a5550045097c78317",
}


def test_keys_are_what_they_always_were() -> None:
    assert {purpose: ROOT.child(*purpose).material.hex() for purpose in GOLDEN} == GOLDEN
    assert Key.root(7).material.hex() == "22aa69dcf4682dd26ed50b8723efa69e"
    assert Key.root(-7).material.hex() == "7fad9d0c3742d4baa348a6f1a9d53f44"
    assert Key.root(2**62).material.hex() == "6ca05b5cc2c02c0292d6ddad1d491561"


def test_a_key_is_blake3_of_tagged_parts() -> None:
    assert ROOT.material == blake3(b"hansa run seed\x007").digest(16)
    parts = b"str:6:cohort\0int:1:3"
    assert ROOT.child("cohort", 3).material == blake3(ROOT.material + parts).digest(16)


def test_streams_are_what_they_always_were() -> None:
    generator = ROOT.child("cohort", 3).generator()
    raw = generator.bit_generator.random_raw(3)
    assert [int(word) for word in raw] == [
        4216012374795596717,
        13648277183352595671,
        3051084545342628217,
    ]
    assert ROOT.child("cohort", 3).integer() == 4073015509026185216
    assert ROOT.child("cohort", 3).integer(32) == 1896645645


def test_streams_are_philoxs() -> None:
    key = ROOT.child("a")
    philox = np.random.Philox(key=int.from_bytes(key.material, "little"))
    expected = np.random.Generator(philox).standard_normal(5)
    np.testing.assert_array_equal(key.generator().standard_normal(5), expected)
    np.testing.assert_array_equal(key.generator().standard_normal(5), expected)


@given(st.lists(purposes, min_size=2, max_size=12, unique=True))
def test_distinct_purposes_give_distinct_streams(many) -> None:
    keys = {ROOT.child(*purpose) for purpose in many}
    assert len(keys) == len(many)
    assert len({key.generator().integers(2**63) for key in keys}) == len(many)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab",), ("a", "b")),
        ((1,), ("1",)),
        ((12,), (1, 2)),
        (("a\0int:1:2",), ("a", 2)),
        (("", "a"), ("a", "")),
        ((), ("",)),
        (("a", "b"), ("b", "a")),
        ((True,), (1,)),
    ],
)
def test_purposes_that_read_alike_are_kept_apart(one, other) -> None:
    assert ROOT.child(*one) != ROOT.child(*other)


def test_a_grandchild_is_not_a_child_of_two_words() -> None:
    assert ROOT.child("a").child("b") != ROOT.child("a", "b")
    assert Key.root(1).child("a") != Key.root(2).child("a")


def test_a_round_is_the_same_round_as_a_numpy_integer() -> None:
    assert ROOT.child("cohort", np.int64(3)) == ROOT.child("cohort", 3)
    assert ROOT.child("client", np.str_("north")) == ROOT.child("client", "north")


def test_integers_have_the_bits_that_were_asked_for() -> None:
    keys = [ROOT.child(i) for i in range(400)]
    for bits in (1, 8, 32, 63, 128):
        values = [key.integer(bits) for key in keys]
        assert all(0 <= value < 2**bits for value in values)
        ones = sum(value.bit_count() for value in values) / (bits * len(values))
        assert abs(ones - 0.5) < 0.1
    assert {key.integer(1) for key in keys} == {0, 1}


def test_sibling_streams_are_not_correlated() -> None:
    draws = np.stack([ROOT.child("client", i).generator().normal(size=500) for i in range(40)])
    correlations = np.corrcoef(draws) - np.eye(40)
    assert np.abs(correlations).max() < 0.25
    assert abs(draws.mean()) < 0.05


def test_global_generators_are_seeded_for_a_while_and_then_restored() -> None:
    random.seed(1)
    np.random.seed(1)
    random.random(), np.random.random()
    before = random.getstate(), np.random.get_state()
    with global_generators(ROOT.child("train")):
        first = random.random(), np.random.random()
    assert random.getstate() == before[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1][1])
    assert np.random.get_state()[2:] == before[1][2:]
    with global_generators(ROOT.child("train")):
        assert (random.random(), np.random.random()) == first
    with global_generators(ROOT.child("other")):
        assert (random.random(), np.random.random()) != first


def test_global_generators_are_restored_when_the_code_raises() -> None:
    random.seed(2)
    np.random.seed(2)
    before = random.getstate(), np.random.get_state()[1].tolist()
    with pytest.raises(ZeroDivisionError), global_generators(ROOT):
        random.random(), np.random.random()
        raise ZeroDivisionError
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_keys_do_not_depend_on_the_process() -> None:
    """Python's own hashes differ from process to process; keys must not."""
    code = "from hansa.seeds import Key; print(Key.root(7).child('cohort', 3).material.hex())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == GOLDEN["cohort", 3]
