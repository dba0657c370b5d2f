"""Half-size floats on the wire: bfloat16 or IEEE float16."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from hansa.params.dtypes import Array, assign
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
        return {name: _rounded(v, _half(dtype)) for name, v in vectors.items()}

    def decode(vectors: Wire) -> Wire:
        return {name: v.astype(np.float32) for name, v in vectors.items()}

    return Transform(f"cast-{dtype}", encode, decode)


def _rounded(vector: Array, dtype: np.dtype[Any]) -> Array:
    """Round once; overflow is silent here, because the server refuses it by name."""
    rounded = np.empty(vector.shape, dtype)
    assign(rounded, vector)
    return rounded


def _half(dtype: str) -> np.dtype[np.generic]:
    if dtype == "fp16":
        return np.dtype(np.float16)
    import ml_dtypes

    half: np.dtype[np.generic] = np.dtype(ml_dtypes.bfloat16)
    return half
