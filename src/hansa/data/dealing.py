"""Deal rows to owners: the array arithmetic under the partition schemes.

Everything works on whole arrays; no loop runs over rows or clients.
"""

from __future__ import annotations

import itertools

import numpy as np

from hansa.data.dataset import Array
from hansa.seeds import Key


def deal(labels: Array, shares: Array, key: Key) -> Array:
    """Return each row's owner, cutting class c in proportion to shares[c] of shape [clients]."""
    rows, rank = ranked(labels, key)
    owner = np.empty(len(labels), np.int64)
    clients = np.arange(shares.shape[1])
    starts = [*np.flatnonzero(rank == 0).tolist(), len(labels)]
    for label, (start, stop) in enumerate(itertools.pairwise(starts)):
        ends = cuts(shares[label], stop - start)
        owner[rows[start:stop]] = np.repeat(clients, np.diff(ends, prepend=0))
    return owner


def ranked(labels: Array, key: Key) -> tuple[Array, Array]:
    """Return the rows sorted by label, at random within it, and each one's rank in its label."""
    rows = key.generator().permutation(len(labels))
    rows = rows[np.argsort(labels[rows], kind="stable")]
    starts = offsets(np.bincount(labels))
    return rows, np.asarray(np.arange(len(labels)) - starts[labels[rows]])


def cuts(weights: Array, total: int) -> Array:
    """Return where `total` rows are cut so that parts are in proportion to the weights."""
    ends = np.cumsum(weights)
    return np.asarray(np.rint(ends * (total / ends[-1])), np.int64)


def apportioned(total: int, weights: Array) -> Array:
    """Return whole numbers that sum to `total`, in proportion to the weights (Hamilton)."""
    whole = max(int(weights.sum()), 1)
    parts = total * weights // whole
    by_remainder = np.argsort(-(total * weights % whole), kind="stable")
    parts[by_remainder[: total - int(parts.sum())]] += 1
    return np.asarray(parts)


def raised(have: Array, minimum: int) -> Array:
    """Return sizes with the same sum, all at least `minimum`; the largest clients give first."""
    short = int(np.maximum(minimum - have, 0).sum())
    low, high = minimum, int(have.max())
    while low < high:
        middle = (low + high + 1) // 2
        enough = int(np.maximum(have - middle, 0).sum()) >= short
        low, high = (middle, high) if enough else (low, middle - 1)
    sizes = np.clip(have, minimum, low)
    too_many = int(np.maximum(have - low, 0).sum()) - short
    sizes[np.flatnonzero(have > low)[:too_many]] += 1
    return np.asarray(sizes)


def resize(owner: Array, sizes: Array, key: Key) -> Array:
    """Move as few rows as possible, chosen at random, so that client i has sizes[i] rows."""
    order, offsets = by_owner(owner, len(sizes), key.child("order"))
    have = np.diff(offsets)
    rank = np.arange(len(order)) - np.repeat(offsets[:-1], have)
    spare = order[rank >= np.repeat(sizes, have)]
    takers = np.repeat(np.arange(len(sizes)), np.maximum(sizes - have, 0))
    owner[key.child("move").generator().permutation(spare)] = takers
    return owner


def by_owner(owner: Array, clients: int, key: Key) -> tuple[Array, Array]:
    """Return the rows sorted by owner, at random within it, and where each owner starts."""
    order = key.generator().permutation(len(owner))
    order = order[np.argsort(owner[order], kind="stable")]
    return order, offsets(np.bincount(owner, minlength=clients))


def offsets(sizes: Array) -> Array:
    """Return where parts of these sizes start, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(sizes)])
