"""Share out the rows of a dataset among clients, each row to exactly one client.

A partition is one permutation of the rows and one offset per client, so a million clients cost
two flat arrays.  It is a function of the scheme, the labels or natural keys, and the key alone.
Every client has at least one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from hansa import limits
from hansa.data import dealing
from hansa.data.dataset import Array, Dataset
from hansa.data.groups import by_group
from hansa.data.schemes import (
    Biased,
    Dirichlet,
    Files,
    Iid,
    Labels,
    Natural,
    Quantity,
    Scheme,
)
from hansa.errors import DataError
from hansa.seeds import Key

BALANCE_SWEEPS = 20
"""Row and column scalings of a biased mix; what remains uneven is evened out row by row."""


class ClientNames(Sequence[str]):
    """The names client-0, client-1 ... of many clients, made when asked for."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [f"client-{i}" for i in range(self._count)[index]]
        return f"client-{range(self._count)[index]}"


@dataclass(frozen=True, eq=False, slots=True)
class Partition:
    """Which rows belong to which client.

    order: shape [rows], a permutation of the row numbers
    offsets: shape [clients + 1]; client i holds order[offsets[i]:offsets[i + 1]]
    names: the clients' identifiers; natural keys are data and never a path
    scheme: what the partition was made from
    """

    order: Array
    offsets: Array
    names: Sequence[str]
    scheme: Scheme

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> Array:
        """Return the number of rows of each client."""
        return np.diff(self.offsets)

    def indices(self, client: int) -> Array:
        """Return the row numbers of one client, a view."""
        client = range(len(self))[client]
        return self.order[self.offsets[client] : self.offsets[client + 1]]

    def counts(self, labels: Array, classes: int) -> Array:
        """Return the table [clients, classes] of rows per label.

        Raises:
          DataError: the labels do not fit the partition, or the table would be too large.

        """
        _check_table(len(self), classes)
        if labels.shape != self.order.shape or labels.dtype.kind not in "iu":
            raise DataError(
                "data-mismatch",
                f"A partition of {len(self.order)} rows was given labels of shape {labels.shape} "
                f"and dtype {labels.dtype}.",
                "Give one integer label per row of the dataset that was partitioned.",
            )
        owner = np.repeat(np.arange(len(self)), self.sizes)
        cells = np.bincount(owner * classes + labels[self.order], minlength=len(self) * classes)
        return cells.reshape(len(self), classes)


def partition(scheme: Scheme, dataset: Dataset, key: Key) -> Partition:
    """Share out the rows of `dataset` as `scheme` says; the same key gives the same partition.

    Rows of one client come in random order, except for natural keys and files, which keep theirs.

    Raises:
      DataError: too few rows, no class labels, or no natural keys for this scheme.

    >>> from hansa.data import Iid, load
    >>> split = partition(Iid(clients=5), load("digits"), Key.root(7))
    >>> split.sizes.tolist(), split.names[4]
    ([359, 359, 360, 359, 360], 'client-4')

    """
    match scheme:
        case Natural() | Files():
            order, offsets, names = by_group(dataset)
            return Partition(order, offsets, names, scheme)
        case Iid():
            order, offsets = _iid(scheme, dataset, key)
        case Quantity():
            order, offsets = _quantity(scheme, dataset, key)
        case Dirichlet() | Labels() | Biased():
            owner = _owners(scheme, dataset, key)
            order, offsets = dealing.by_owner(owner, scheme.clients, key.child("order"))
    return Partition(order, offsets, ClientNames(scheme.clients), scheme)


def _iid(scheme: Iid, dataset: Dataset, key: Key) -> tuple[Array, Array]:
    _check_rows(scheme, dataset, scheme.clients)
    order = key.child("order").generator().permutation(dataset.examples)
    return order, np.arange(scheme.clients + 1) * dataset.examples // scheme.clients


def _quantity(scheme: Quantity, dataset: Dataset, key: Key) -> tuple[Array, Array]:
    _check_rows(scheme, dataset, scheme.clients)
    order = key.child("order").generator().permutation(dataset.examples)
    logs = scheme.sigma * key.child("sizes").generator().standard_normal(scheme.clients)
    ends = dealing.cuts(np.exp(logs - logs.max()), dataset.examples - scheme.clients)
    # One row for everybody first, so that nobody is left without.
    return order, np.concatenate([[0], ends + np.arange(1, scheme.clients + 1)])


def _owners(scheme: Dirichlet | Labels | Biased, dataset: Dataset, key: Key) -> Array:
    labels = dataset.labels
    if labels is None:
        raise DataError(
            "data-labels",
            f"Scheme {type(scheme).__name__.lower()!r} needs one class label per row; "
            f"{dataset.name} has none.",
            "Use the scheme iid, quantity, natural or files.",
        )
    # Classes that no row has would only be empty columns.
    present = np.bincount(labels) > 0
    labels = (np.cumsum(present) - 1)[labels]
    match scheme:
        case Dirichlet():
            return _dirichlet(scheme, dataset, labels, key=key)
        case Biased():
            return _biased(scheme, dataset, labels, key=key)
        case Labels():
            deal = _exclusive if scheme.exclusive else _shards
            return deal(scheme, dataset, labels, key=key)


def _dirichlet(scheme: Dirichlet, dataset: Dataset, labels: Array, *, key: Key) -> Array:
    _check_rows(scheme, dataset, scheme.clients * scheme.minimum)
    classes = int(labels.max()) + 1
    _check_table(scheme.clients, classes)
    draw = key.child("shares").generator()
    shares = draw.dirichlet(np.full(scheme.clients, float(scheme.alpha)), size=classes)
    owner = dealing.deal(labels, shares, key.child("deal"))
    have = np.bincount(owner, minlength=scheme.clients)
    return dealing.resize(owner, dealing.raised(have, scheme.minimum), key.child("minimum"))


def _biased(scheme: Biased, dataset: Dataset, labels: Array, *, key: Key) -> Array:
    _check_rows(scheme, dataset, scheme.clients)
    columns = np.bincount(labels)
    _check_table(scheme.clients, len(columns))
    sizes = np.diff(np.arange(scheme.clients + 1) * len(labels) // scheme.clients)
    logs = key.child("mix").generator().standard_normal((scheme.clients, len(columns)))
    mix = np.exp(scheme.sigma * logs)
    for _ in range(BALANCE_SWEEPS):
        mix *= (sizes / mix.sum(axis=1))[:, None]
        mix *= columns / mix.sum(axis=0)
    owner = dealing.deal(labels, np.ascontiguousarray(mix.T), key.child("deal"))
    return dealing.resize(owner, sizes, key.child("even"))


def _exclusive(scheme: Labels, dataset: Dataset, labels: Array, *, key: Key) -> Array:
    classes = int(labels.max(initial=-1)) + 1
    if scheme.clients > classes:
        raise DataError(
            "data-labels",
            f"{dataset.name} has rows of {classes} labels, which cannot be dealt to "
            f"{scheme.clients} clients without sharing one.",
            f"Use at most {classes} clients, or exclusive = false.",
        )
    holder = np.empty(classes, np.int64)
    dealt = key.child("deal").generator().permutation(classes)
    holder[dealt] = np.arange(classes) * scheme.clients // classes
    return np.asarray(holder[labels])


def _shards(scheme: Labels, dataset: Dataset, labels: Array, *, key: Key) -> Array:
    shards = scheme.clients * scheme.per_client
    _check_rows(scheme, dataset, shards)
    have = np.bincount(labels)
    if shards < len(have):
        raise DataError(
            "data-labels",
            f"{dataset.name} has rows of {len(have)} labels, but {scheme.clients} clients with "
            f"{scheme.per_client} labels each can hold only {shards}.",
            f"Set per_client to {-(-len(have) // scheme.clients)} or more, or use more clients.",
        )
    per_label = 1 + dealing.apportioned(shards - len(have), have - 1)
    rows, rank = dealing.ranked(labels, key.child("deal"))
    label = labels[rows]
    shard = (np.cumsum(per_label) - per_label)[label] + rank * per_label[label] // have[label]
    holder = key.child("shards").generator().permutation(shards) // scheme.per_client
    owner = np.empty(len(labels), np.int64)
    owner[rows] = holder[shard]
    return owner


def _check_rows(scheme: Scheme, dataset: Dataset, needed: int) -> None:
    if dataset.examples < needed:
        raise DataError(
            "data-too-few",
            f"{dataset.name} has {dataset.examples:,} rows; {scheme} needs at least {needed:,}.",
            "Use fewer clients or more data.",
        )


def _check_table(clients: int, classes: int) -> None:
    if clients * classes > limits.PARTITION_CELLS_MAX:
        raise DataError(
            "data-too-large",
            f"{clients:,} clients times {classes:,} classes is beyond the limit of "
            f"{limits.PARTITION_CELLS_MAX:,} counts.",
            "Use fewer clients, or a scheme that does not look at labels.",
        )
