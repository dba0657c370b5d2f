"""Ways to share out one dataset among clients: values that a plan can carry.

    iid        rows dealt at random, equal sizes
    dirichlet  each class spread over the clients by a Dirichlet draw; sizes vary
    labels     each client holds few labels, or no label is held by two clients
    biased     each client has its own mix of labels; equal sizes
    quantity   the same mix of labels; sizes vary
    natural    by a key that the rows carry, such as the author
    files      by the files that the rows came from

In a plan: `{ scheme = "dirichlet", clients = 10, alpha = 0.5 }`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from hansa import limits
from hansa.errors import DataError


class _Scheme(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="scheme", tag=str.lower
):
    """What all schemes share: the tag in a plan is the class name in lower case."""

    def _whole(self, field: str, most: int) -> None:
        value = getattr(self, field)
        if type(value) is not int or not 1 <= value <= most:
            raise self._refusal(field, f"must be a whole number from 1 to {most:,}")

    def _real(self, field: str, least: float, most: float) -> None:
        value = getattr(self, field)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not least <= value <= most:
            raise self._refusal(field, f"must be a number from {least:g} to {most:g}")

    def _refusal(self, field: str, rule: str) -> DataError:
        name = type(self).__name__.lower()
        return DataError(
            "data-scheme",
            f"Scheme {name!r} was given {field} = {getattr(self, field)!r}; nothing was split.",
            f"{field} {rule}.",
        )


class _Numbered(_Scheme, frozen=True):
    clients: int

    def __post_init__(self) -> None:
        self._whole("clients", limits.CLIENTS_MAX)


class Iid(_Numbered, frozen=True):
    """Deal the rows at random; sizes differ by at most one.

    >>> Iid(clients=3)
    Iid(clients=3)
    """


class Dirichlet(_Numbered, frozen=True):
    """Spread each class over the clients in proportions drawn from Dirichlet(alpha, ..., alpha).

    A small alpha gives each class to few clients; a large one approaches equal shares.  Client
    sizes vary.  A client with fewer than `minimum` rows receives rows of the largest clients.

    Source: Yurochkin et al. 2019, section 4; Li et al. 2022 (NIID-Bench), section 3.  Ours
    differs: a minimum is met by moving rows, not by drawing again until it happens.
    """

    alpha: float = 0.5
    minimum: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._real("alpha", 1e-6, 1e6)
        self._whole("minimum", limits.CLIENTS_MAX)


class Labels(_Numbered, frozen=True):
    """Give each client rows of at most `per_client` labels (pathological non-IID).

    Each class is cut into shards, classes with more rows into more of them; each client gets
    `per_client` shards at random, possibly two of one label.  With `exclusive` no label is held by
    two clients: whole classes are dealt out, as evenly as they go, and `per_client` has no effect;
    this is what declearn calls labels.

    Source: McMahan et al. 2017, section 3.  Ours differs: a shard never holds two labels, so
    shards of different labels differ in size.
    """

    per_client: int = 2
    exclusive: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._whole("per_client", limits.CLASSES_MAX)


class Biased(_Numbered, frozen=True):
    """Give each client its own random mix of labels and an equal number of rows.

    Client i's odds of label c are exp(sigma * z_ic), z standard normal: sigma = 0 is IID, 1 a
    moderate bias, 3 a strong one.  The odds are then scaled by row and by column until sizes are
    equal and every row is used.  With sigma = 1 this does the job of declearn's biased; there,
    clients choose one after the other, and the last is left with what the others did not want.
    """

    sigma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._real("sigma", 0, 10)


class Quantity(_Numbered, frozen=True):
    """Give every client the same mix of labels, but log-normal sizes.

    The logarithm of a client's size has standard deviation `sigma`; no client is empty.
    """

    sigma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._real("sigma", 0, 10)


class Natural(_Scheme, frozen=True):
    """Make one client of each value of the dataset's `groups`, rows in their order."""


class Files(_Scheme, frozen=True):
    """Make one client of each file, or sub-folder, that the dataset was read from."""


Scheme: TypeAlias = Iid | Dirichlet | Labels | Biased | Quantity | Natural | Files


def scheme_of(options: Mapping[str, Any]) -> Scheme:
    """Return a scheme from the table that a plan would hold.

    Raises:
      DataError: an unknown scheme, an option that it does not have, or a value out of range.

    >>> scheme_of({"scheme": "dirichlet", "clients": 10, "alpha": 0.1})
    Dirichlet(clients=10, alpha=0.1, minimum=1)
    """
    try:
        scheme: Scheme = msgspec.convert(dict(options), Scheme)
    except msgspec.ValidationError as error:
        raise DataError(
            "data-scheme",
            f"The split {dict(options)} is not usable: {error}. Nothing was split.",
            "For example: scheme dirichlet with clients and alpha, or iid with clients.",
        ) from None
    return scheme
