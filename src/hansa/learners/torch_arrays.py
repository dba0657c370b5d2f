"""Torch tensors as NumPy arrays and back, on the same memory wherever that is safe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hansa.learners.optional import optional
from hansa.params.dtypes import dtype_name, numpy_dtype

if TYPE_CHECKING:
    import torch
else:
    torch = optional("torch")


def to_array(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor as an array: a view of its memory on the CPU, a copy from other devices."""
    tensor = tensor.detach().cpu()
    if tensor.dtype is torch.bfloat16:  # NumPy knows it only through ml_dtypes
        bits: np.ndarray = tensor.view(torch.int16).numpy()
        return bits.view(numpy_dtype("BF16"))
    array: np.ndarray = tensor.numpy()
    return array


def to_tensor(array: np.ndarray) -> torch.Tensor:
    """Return an array as a CPU tensor: a view of its memory, or a copy of read-only memory."""
    if not array.flags.writeable:
        array = array.copy()  # torch has no read-only tensors, and a write would be a crash
    if dtype_name(array.dtype) == "BF16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def dtype_of(tensor: torch.Tensor) -> str | None:
    """Return the safetensors name of a tensor's dtype; None for one that Hansa does not carry."""
    names: dict[Any, str] = {
        torch.float64: "F64",
        torch.float32: "F32",
        torch.bfloat16: "BF16",
        torch.float16: "F16",
        torch.int64: "I64",
        torch.int32: "I32",
        torch.int16: "I16",
        torch.int8: "I8",
        torch.uint8: "U8",
        torch.bool: "BOOL",
    }
    return names.get(tensor.dtype)
