"""Every random draw comes from a key, and a key comes from its parent and a purpose.

A run has one root key; `key.child("cohort", 3)` is the key of round 3's cohort.  No draw depends
on how many draws were made before it, so a run can resume at any round, and clients can be
simulated in any order on any number of workers.  This is the only module that may touch
`numpy.random`.

Source: counter-based generators, Salmon et al. 2011 (Philox); the keys are BLAKE3 derivations.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from blake3 import blake3


class Key(NamedTuple):
    """128 bits from which one stream of random numbers, or more keys, are derived.

    >>> root = Key.root(7)
    >>> root.child("cohort", 3) == Key.root(7).child("cohort", 3)
    True
    >>> root.child("cohort", 3) == root.child("cohort", 4)
    False
    """

    material: bytes

    @classmethod
    def root(cls, seed: int) -> Key:
        """Return the key of a whole run."""
        return cls(blake3(b"hansa run seed\0" + str(seed).encode()).digest(16))

    def child(self, *purpose: str | int) -> Key:
        """Return the key of one purpose below this one, such as `("train", round, client)`."""
        # Type tags and lengths keep ("a", "b") apart from ("ab",) and 1 apart from "1".
        # NumPy's integers are tagged as Python's: a round is the same round in either.
        parts = [f"{'str' if isinstance(p, str) else 'int'}:{len(str(p))}:{p}" for p in purpose]
        return Key(blake3(self.material + "\0".join(parts).encode()).digest(16))

    def integer(self, bits: int = 63) -> int:
        """Return this key as one integer in [0, 2**bits), for generators that take a seed."""
        return int.from_bytes(self.material, "little") >> (128 - bits)

    def generator(self) -> np.random.Generator:
        """Return a fresh NumPy generator; the same key gives the same numbers."""
        return np.random.Generator(np.random.Philox(key=int.from_bytes(self.material, "little")))


@contextlib.contextmanager
def global_generators(key: Key) -> Iterator[None]:
    """Seed Python's and NumPy's global generators for user code, and restore them afterwards.

    Hansa never draws from them; a user's own training code may, and should still be reproducible.
    """
    import random

    # As a dict, NumPy's state takes a quarter less time; a small client would notice.
    python_state, numpy_state = random.getstate(), np.random.get_state(legacy=False)
    random.seed(key.integer())
    np.random.seed(key.integer(32))
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
