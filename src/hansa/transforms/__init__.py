"""What is done to an update between a client and the aggregator."""

from hansa.transforms.cast import cast
from hansa.transforms.clip import clip
from hansa.transforms.transform import Transform, Wire, chain

TRANSFORMS = {"clip": clip, "cast": cast}
"""What `transforms = [...]` in a plan may name."""

__all__ = ["TRANSFORMS", "Transform", "Wire", "cast", "chain", "clip"]
