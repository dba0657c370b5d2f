"""What is done to an update between a client and the aggregator."""

from hansa.transforms.cast import cast
from hansa.transforms.clip import clip
from hansa.transforms.percentile import percentile
from hansa.transforms.sparse_vector import sparse_vector
from hansa.transforms.transform import Transform, Wire, chain

TRANSFORMS = {
    "clip": clip,
    "cast": cast,
    "percentile": percentile,
    "sparse_vector": sparse_vector,
}
"""What `transforms = [...]` in a plan may name."""

__all__ = [
    "TRANSFORMS",
    "Transform",
    "Wire",
    "cast",
    "chain",
    "clip",
    "percentile",
    "sparse_vector",
]
