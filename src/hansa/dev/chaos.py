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

PAUSE_S = (0.5, 2.5)
"""Between two deeds: at least, at most; before the first one at most the least of it."""


class Chaos:
    """Does bad things to a rehearsal in a thread of its own, from `__enter__` to `__exit__`.

    Args:
      rehearsal: with proxies, for deeds to connections.
      told: is called with one line for each deed.
      pause_s: seconds between deeds, at least and at most.
      seed: the same one chooses the same deeds; by default it is drawn.
    """

    def __init__(
        self,
        rehearsal: Rehearsal,
        told: Callable[[str], None],
        *,
        pause_s: tuple[float, float] = PAUSE_S,
        seed: int | None = None,
    ) -> None:
        self._rehearsal, self._told, self._pause_s = rehearsal, told, pause_s
        seed = int.from_bytes(os.urandom(4), "little") if seed is None else seed
        self._chance = Key.root(seed).child("chaos").generator()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.deeds = 0

    def __enter__(self) -> Chaos:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop, and let everything be well again; say so if there was no time for a deed."""
        self._ending.set()
        self._thread.join()
        for proxy in self._rehearsal.proxies.values():
            proxy.heal()
        if not self.deeds:
            self._told("chaos: the run ended before anything was done to it; give it more --rounds")

    def _work(self) -> None:
        pause = self._chance.uniform(0.0, self._pause_s[0])  # a short run shall meet it too
        while not self._ending.wait(pause):
            pause = self._chance.uniform(*self._pause_s)
            try:
                self._one_of(self._possible())()
                self.deeds += 1
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
