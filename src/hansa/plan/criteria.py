"""Which clients a plan wants, by what they say of themselves: attributes, text by name."""

from __future__ import annotations

from collections.abc import Mapping

Where = Mapping[str, str | tuple[str, ...]]
"""What each attribute must be: one value, or any of several."""


NAME = "name"
"""The attribute that every client has: its own name, whatever it says."""


def fits(client: str, attributes: Mapping[str, str], where: Where) -> bool:
    """Return whether a client has every attribute that is asked for.

    >>> site = {"region": "eu", "gpu": "no"}
    >>> fits("a", site, {"region": ("eu", "us")}), fits("a", site, {"gpu": "yes"})
    (True, False)
    >>> fits("a", {"name": "b"}, {"name": "a"}), fits("a", {}, {"ward": "3"}), fits("a", {}, {})
    (True, False, True)
    """
    said = {**attributes, NAME: client}
    return all(
        said.get(name) in ((wanted,) if isinstance(wanted, str) else wanted)
        for name, wanted in where.items()
    )


def chosen(where: Where) -> set[str] | None:
    """Return the clients that are asked for by their names; None: names do not matter."""
    wanted = where.get(NAME)
    return {wanted} if isinstance(wanted, str) else None if wanted is None else {*wanted}
