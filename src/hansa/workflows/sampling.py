"""Choosing the cohort of a round; a function of (seed, round), so a run can resume anywhere."""

from __future__ import annotations

from collections.abc import Sequence

from hansa.seeds import Key


def cohort_size(clients: int, *, fraction: float = 1.0, count: int | None = None) -> int:
    """Return m = max(C * K, 1) of McMahan et al. 2017, rounded, or the plan's count.

    >>> cohort_size(100, fraction=0.1), cohort_size(5, fraction=0.01), cohort_size(5, count=9)
    (10, 1, 5)
    """
    return min(clients, count if count is not None else max(1, round(fraction * clients)))


def sample(clients: Sequence[str], size: int, key: Key) -> list[str]:
    """Draw `size` different clients, each set equally likely, listed in the clients' own order.

    Costs memory and time for `size` clients, not for all of them.
    """
    if size >= len(clients):
        return list(clients)
    chosen = key.generator().choice(len(clients), size, replace=False, shuffle=False)
    return [clients[i] for i in sorted(chosen.tolist())]


def spare(clients: Sequence[str], cohort: Sequence[str], size: int, *, key: Key) -> list[str]:
    """Draw `size` clients beside a cohort, each set equally likely; the cohort stays as it is.

    >>> clients, key = ["a", "b", "c", "d", "e"], Key.root(1)
    >>> cohort = sample(clients, 2, key)
    >>> sorted(cohort + spare(clients, cohort, 3, key=key)) == clients
    True
    """
    # So many clients hold at least `size` that are not of the cohort, whatever is drawn.
    drawn = sample(clients, len(cohort) + size, key.child("spare"))
    taken = set(cohort)
    rest = [client for client in drawn if client not in taken]
    return sample(rest, size, key.child("spare of those"))
