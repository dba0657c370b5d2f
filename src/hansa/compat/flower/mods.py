"""Flower's built-in mods: those that only watch do nothing; those that protect are refused.

A mod that clips or masks has a server's half, which Hansa's server would not do.
"""

from __future__ import annotations

from typing import Any

from hansa.errors import LearnerError


def message_size_mod(message: Any, context: Any, handler: Any) -> Any:
    """Pass a message on; Hansa counts bytes itself."""
    return handler(message, context)


arrays_size_mod = parameters_size_mod = message_size_mod


def _refused(name: str, instead: str) -> Any:
    def mod(*args: Any, **options: Any) -> Any:
        raise LearnerError(
            "learner-capability",
            f"The client app uses Flower's {name}, whose other half is in Flower's server.",
            instead,
        )

    return mod


_CLIP = 'Remove it from mods, and clip with transforms = [{ name = "clip", norm = 1.0 }].'
_MASK = "Remove it from mods; Hansa has no secure aggregation yet."

fixedclipping_mod = _refused("fixedclipping_mod", _CLIP)
adaptiveclipping_mod = _refused("adaptiveclipping_mod", _CLIP)
LocalDpMod = _refused("LocalDpMod", "Remove it from mods; Hansa adds no noise at clients yet.")
secagg_mod = _refused("secagg_mod", _MASK)
secaggplus_mod = _refused("secaggplus_mod", _MASK)
