"""Chaos for a rehearsal: every few moments something is killed, cut, held up or silenced.

What is killed is started again at once; what is silenced speaks again a little later.  None of it
may change the model: that is what a rehearsal with chaos shows.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from hansa.dev.rehearsal import SERVER, Rehearsal
from hansa.errors import HansaError
from hansa.seeds import Key

T = TypeVar("T")

_PAUSE_S = (0.5, 2.5)  # between two deeds: at least, at most


class Chaos:
    """Does bad things to a rehearsal in a thread of its own, from `__enter__` to `__exit__`.

    Args:
      rehearsal: with proxies, for deeds to connections.
      told: is called with one line for each deed.
    """

    def __init__(self, rehearsal: Rehearsal, told: Callable[[str], None]) -> None:
        self._rehearsal, self._told = rehearsal, told
        seed = int.from_bytes(os.urandom(4), "little")
        self._chance = Key.root(seed).child("chaos").generator()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Chaos:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop, and let everything be well again."""
        self._ending.set()
        self._thread.join()
        for proxy in self._rehearsal.proxies.values():
            proxy.heal()

    def _work(self) -> None:
        while not self._ending.wait(self._chance.uniform(*_PAUSE_S)):
            try:
                self._one_of(self._possible())()
            except HansaError as error:
                self._told(f"chaos: {error}")

    def _possible(self) -> Sequence[Callable[[], None]]:
        kills = [self._kill]
        if not self._rehearsal.proxies:
            return kills
        return [*kills, self._kill, self._reset, self._silence, self._delay, self._cut]

    def _one_of(self, choices: Sequence[T]) -> T:
        return choices[int(self._chance.integers(len(choices)))]

    def _site(self) -> str:
        return self._one_of(self._rehearsal.names)

    def _kill(self) -> None:
        who = self._one_of([SERVER, *self._rehearsal.combiners.names, *self._rehearsal.names])
        self._rehearsal.kill(who)
        seconds = self._chance.uniform(0.0, 1.0)
        self._told(f"chaos: kill -9 {who}, started again after {seconds:.1f} s")
        self._ending.wait(seconds)
        self._rehearsal.start(who)

    def _reset(self) -> None:
        site = self._site()
        count = self._rehearsal.proxies[site].reset()
        self._told(f"chaos: reset the {count} connections of {site}")

    def _silence(self) -> None:
        site, seconds = self._site(), self._chance.uniform(0.5, 2.0)
        self._told(f"chaos: {site} is cut off for {seconds:.1f} s, half-open")
        self._rehearsal.proxies[site].set(held="both")
        self._ending.wait(seconds)
        self._rehearsal.proxies[site].set(held="")

    def _delay(self) -> None:
        site, delay_s = self._site(), self._one_of((0.05, 0.2, 0.5))
        self._told(f"chaos: {site} has {1000 * delay_s:.0f} ms of delay for a while")
        self._rehearsal.proxies[site].set(delay_s=delay_s)
        self._ending.wait(2.0)
        self._rehearsal.proxies[site].set(delay_s=0.0)

    def _cut(self) -> None:
        site, count = self._site(), int(self._chance.integers(1, 4_000))
        up = bool(self._chance.integers(2))
        self._told(
            f"chaos: {site}'s connection breaks after {count} bytes {'up' if up else 'down'}"
        )
        proxy = self._rehearsal.proxies[site]
        proxy.cut_after(up=count if up else None, down=None if up else count)
