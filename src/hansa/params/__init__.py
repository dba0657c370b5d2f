"""Named tensors on one contiguous buffer, in the safetensors layout.

`Params` is what travels, is stored and is aggregated.  Files are opened in `hansa.store`.
"""

from hansa.params.codec import decode, encode
from hansa.params.layout import Layout, TensorSpec
from hansa.params.tensors import Params

__all__ = [
    "Layout",
    "Params",
    "TensorSpec",
    "decode",
    "encode",
]
