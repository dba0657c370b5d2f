"""Which clients a plan wants, by what they say of themselves: attributes, text by name."""

from __future__ import annotations

from collections.abc import Mapping

Where = Mapping[str, str | tuple[str, ...]]
"""What each attribute must be: one value, or any of several."""


def fits(attributes: Mapping[str, str], where: Where) -> bool:
    """Return whether a client has every attribute that is asked for.

    >>> site = {"region": "eu", "gpu": "no"}
    >>> fits(site, {"region": ("eu", "us")}), fits(site, {"gpu": "yes"}), fits(site, {"ward": "3"})
    (True, False, False)
    >>> fits({}, {})
    True
    """
    return all(
        attributes.get(name) in ((wanted,) if isinstance(wanted, str) else wanted)
        for name, wanted in where.items()
    )
