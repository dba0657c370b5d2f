"""Waking requests that wait in the event loop: polls of sites, and those who follow a run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection


class Bell:
    """Wakes one request; as a context, for as long as that waits for news.

    An `asyncio.Event` with its timeout would keep a queue for many who wait: 1 KB an idle site.
    """

    __slots__ = ("_bells", "_name", "_rung", "_timer", "_waiting")

    def __init__(self, bells: Bells, name: str) -> None:
        self._bells, self._name = bells, name
        self._rung = False
        self._waiting: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Bell:
        self._bells.add(self._name, self)
        return self

    def __exit__(self, *error: object) -> None:
        self._bells.remove(self._name, self)
        if self._timer is not None:
            self._timer.cancel()

    def ring(self) -> None:
        """Wake the request, or let it not fall asleep; in the event loop."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
        else:
            self._rung = True

    def rung(self, seconds: float) -> asyncio.Future[None]:
        """Return what is done once it has been rung since the last wait, or after some seconds."""
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        self._timer = loop.call_later(0.0 if self._rung else seconds, self.ring)
        self._rung = False
        return self._waiting


class Bells:
    """The bells of those who wait, by what they wait for; rung from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: dict[str, list[Bell]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Name the event loop in which requests wait."""
        self._loop = loop

    def add(self, name: str, bell: Bell) -> None:
        """Let a bell be rung from now on."""
        with self._lock:
            self._of.setdefault(name, []).append(bell)

    def remove(self, name: str, bell: Bell) -> None:
        """Let it be rung no more."""
        with self._lock:
            self._of[name].remove(bell)
            if not self._of[name]:
                del self._of[name]

    def ring(self, names: Collection[str] | None = None) -> None:
        """Let those look again who wait for some names, or all."""
        with self._lock:
            wanted = self._of if names is None else names
            bells = [bell for name in wanted for bell in self._of.get(name, ())]
        if bells and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_ring, bells)


def _ring(bells: list[Bell]) -> None:
    for bell in bells:
        bell.ring()
