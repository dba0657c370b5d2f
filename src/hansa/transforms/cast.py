"""Half-size floats on the wire: bfloat16 or IEEE float16."""

from __future__ import annotations

from typing import Literal

import numpy as np

from hansa.seeds import Key
from hansa.transforms.transform import Transform, Wire


def cast(dtype: Literal["bf16", "fp16"] = "bf16") -> Transform:
    """Send vectors as 16-bit floats (nearest, ties to even) and widen them at the server.

    bf16 keeps float32's range with 8 bits of precision; fp16 has 11 bits and a range of 65504,
    beyond which a value becomes infinite and the update is refused.

    Args:
      dtype: "bf16" or "fp16".
    """

    def encode(vectors: Wire, key: Key) -> Wire:
        half = _half(dtype)
        with np.errstate(over="ignore"):  # refused by name at the server, not a warning here
            return {name: v.astype(half) for name, v in vectors.items()}

    def decode(vectors: Wire) -> Wire:
        return {name: v.astype(np.float32) for name, v in vectors.items()}

    return Transform(f"cast-{dtype}", encode, decode)


def _half(dtype: str) -> np.dtype[np.generic]:
    if dtype == "fp16":
        return np.dtype(np.float16)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)
