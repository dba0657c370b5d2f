"""Bodies that come in faster than they are written take turns, so that memory stays flat."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from starlette.requests import Request

from hansa.clock import monotonic
from hansa.limits import (
    RECEIVING_AT_ONCE,
    RECEIVING_LARGE_BYTES,
    RECEIVING_STALLED_S,
    RECEIVING_TURN_S,
    RECEIVING_WAIT_S,
)


class _Turn:
    __slots__ = ("asked", "began")

    def __init__(self) -> None:
        self.began = self.asked = monotonic()  # the turn; its last part was asked for


class Turns:
    """Who may have its next part taken off the network; for one event loop.

    A part that was large shows that more of its body waits in the system, which tells the sender to
    wait.  So few go on at once, and each for a while, since a body that is whole can be worked on.
    Whoever sends slowly waits for nobody, for its parts are small; and while the disk is slow, all
    that come share what there is, lest a sender take its wait for silence.
    """

    def __init__(self) -> None:
        self._taking: dict[object, _Turn] = {}
        self._waiting: deque[tuple[object, asyncio.Future[None]]] = deque()
        self._looking = False

    async def parts(self, request: Request, size: int) -> AsyncGenerator[bytes, None]:
        """Give the parts of a body of `size` bytes.

        Raises:
          ClientDisconnect: it ends too soon.
        """
        mine, left = object(), size
        try:
            async for part in request.stream():
                came = monotonic()
                left -= len(part)
                yield part
                slow = monotonic() - came >= RECEIVING_STALLED_S  # the disk, which may stay so
                if slow or left <= 0 or len(part) < RECEIVING_LARGE_BYTES:
                    self._leave(mine)
                else:
                    await self._go_on(mine)
        finally:
            self._leave(mine)

    async def _go_on(self, mine: object) -> None:
        """Wait until it is this body's turn, or still is."""
        now = monotonic()
        if (turn := self._taking.get(mine)) is not None:
            if not self._waiting or now - turn.began < self._turn_s():
                turn.asked = now
                return
            self._leave(mine)
        if len(self._taking) < RECEIVING_AT_ONCE:
            self._taking[mine] = _Turn()
            return
        free = asyncio.get_running_loop().create_future()
        self._waiting.append((mine, free))
        self._look_later()
        await free

    def _turn_s(self) -> float:
        """Return how long a turn is: short enough that no sender takes its wait for silence."""
        of_each = RECEIVING_WAIT_S * RECEIVING_AT_ONCE / len(self._waiting)
        return min(RECEIVING_TURN_S, of_each)

    def _leave(self, mine: object) -> None:
        if self._taking.pop(mine, None) is not None:
            self._admit()

    def _admit(self) -> None:
        """Give what is free to those who have waited longest."""
        while self._waiting and len(self._taking) < RECEIVING_AT_ONCE:
            other, free = self._waiting.popleft()
            if not free.done():  # its request was not given up
                self._taking[other] = _Turn()
                free.set_result(None)

    def _look_later(self) -> None:
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(RECEIVING_STALLED_S, self._look)

    def _look(self) -> None:
        """Let those go whose senders have paused: they hold up nobody."""
        now = monotonic()
        for mine, turn in list(self._taking.items()):
            if now - turn.asked >= RECEIVING_STALLED_S:
                del self._taking[mine]
        self._admit()
        self._looking = False
        if self._waiting:
            self._look_later()
