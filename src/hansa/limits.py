"""Every limit in one place: a value, its unit, and the reason.

Raise one by editing the plan where the plan has a key for it; the rest are guards.
"""

HEADER_BYTES_MAX = 100 * 2**20
"""Bytes of a tensor file's JSON header; the limit of the safetensors format itself."""

TENSORS_MAX = 1_000_000
"""Tensors in one file; the largest published models have tens of thousands."""

NAME_CHARS_MAX = 1_024
"""Characters of a tensor name; longer names are an attack on memory or terminals."""

RANK_MAX = 64
"""Dimensions of one tensor; NumPy's own limit."""

ACCUMULATOR_BITS = 62
"""Bits of one fixed-point sum; one is the sign, one is kept free so that a check can see overflow."""
