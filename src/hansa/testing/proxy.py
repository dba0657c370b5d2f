"""A TCP proxy that does to connections what networks do: delays, trickles, cuts, falls silent.

It knows nothing of what travels through it, TLS included, and is told what to do while it runs:

    with FaultProxy(port) as proxy:
        connect_to(f"https://localhost:{proxy.port}")
        proxy.set(delay_s=0.2)  # from now on, each way
        proxy.cut_after(up=10_000_000)  # once, in the middle of an upload
        proxy.set(held="both")  # half-open: sockets stay, nothing arrives
        proxy.heal()
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Self, TypeVar

from hansa.clock import monotonic

T = TypeVar("T")

Way = Literal["up", "down"]
"""`up`: from who connects to the target; `down`: back."""

_PIECE_BYTES = 2**16
_LOOK_S = 0.01  # between two looks whether a held or idle connection may go on
_START_S = 10.0


class Faults(NamedTuple):
    """What is done to every connection; each takes effect at once, for open ones too."""

    delay_s: float = 0.0
    """seconds that each piece waits before it goes on, each way"""
    bytes_per_s: float = 0.0
    """of each connection, each way; 0 does not limit"""
    piece: int = _PIECE_BYTES
    """bytes sent at once; 1 makes segments of one byte"""
    held: Literal["", "up", "down", "both"] = ""
    """half-open: nothing goes on this way, and no socket is closed"""
    refuse: bool = False
    """new connections are reset as soon as they are made"""
    idle_s: float = 0.0
    """a connection on which nothing has moved for so long is closed; 0 never"""


class Link:
    """One connection through the proxy."""

    def __init__(self, client: asyncio.StreamWriter, target: asyncio.StreamWriter) -> None:
        self.client, self.target = client, target
        self.moved = monotonic()  # when something last did


class FaultProxy:
    """A proxy on loopback in a thread of its own.

    Args:
      target: port to connect on to.
      host: of the target.
      faults: to begin with.
    """

    def __init__(self, target: int, *, host: str = "127.0.0.1", faults: Faults | None = None):
        self._target, self._host = target, host
        self._faults = faults or Faults()
        self._links: set[Link] = set()
        self._cuts: dict[Way, int] = {}
        self.moved: dict[Way, int] = {"up": 0, "down": 0}
        self.connections = 0
        self.cuts = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._ending: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self) -> None:
        """Listen on a free port, which is `port` from then on."""
        self._thread.start()
        if not self._ready.wait(_START_S) or not self.port:
            raise OSError("the proxy could not listen on loopback")

    def close(self) -> None:
        """Reset every connection and stop listening."""
        if self._thread.is_alive():
            ending = self._ending
            if ending is not None:
                self._loop.call_soon_threadsafe(ending.set)
            self._thread.join(_START_S)

    # ---- what it is told

    @property
    def faults(self) -> Faults:
        """What is being done."""
        return self._faults

    def set(self, **changes: Any) -> None:
        """Change some of the faults."""
        self._faults = self._faults._replace(**changes)

    def heal(self) -> None:
        """Do nothing bad from now on; what was held goes on."""
        self._faults = Faults()
        self._cuts.clear()

    def cut_after(self, *, up: int | None = None, down: int | None = None) -> None:
        """Reset, once, the connection that carries the n-th byte from now on.

        Args:
          up: bytes towards the target, of all connections together.
          down: bytes back.
        """
        wanted: dict[Way, int | None] = {"up": up, "down": down}
        for way, count in wanted.items():
            if count is not None:
                self._cuts[way] = count

    def reset(self) -> int:
        """Reset all open connections (RST, not an orderly end); return how many there were."""
        return self._called(self._reset_all)

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return len(self._links)

    def count_anew(self) -> None:
        """Set the counters of bytes and connections to zero."""
        self.moved = {"up": 0, "down": 0}
        self.connections = 0

    # ---- inside

    def _called(self, function: Callable[[], T]) -> T:
        """Call something in the loop's thread and return what it returns."""
        done: list[T] = []
        ready = threading.Event()

        def call() -> None:
            done.append(function())
            ready.set()

        self._loop.call_soon_threadsafe(call)
        if not ready.wait(_START_S):
            raise OSError("the proxy has ended")
        return done[0]

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self) -> None:
        self._ending = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        idle = asyncio.create_task(self._close_idle())
        await self._ending.wait()
        server.close()
        idle.cancel()
        self._reset_all()
        tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._faults.refuse:
            _reset(writer)
            return
        try:
            onward, target = await asyncio.open_connection(self._host, self._target)
        except OSError:
            _reset(writer)
            return
        link = Link(writer, target)
        self._links.add(link)
        try:
            await asyncio.gather(
                self._forward(reader, target, "up", link),
                self._forward(onward, writer, "down", link),
            )
        except OSError:
            _reset(writer)
            _reset(target)
        finally:
            self._links.discard(link)
            for end in (writer, target):
                end.close()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way, link: Link
    ) -> None:
        """Carry bytes one way until their end."""
        while data := await reader.read(_PIECE_BYTES):
            rest = memoryview(data)
            while rest:
                piece, rest = rest[: self._faults.piece], rest[self._faults.piece :]
                await self._wait(len(piece), way)
                left = self._cuts.get(way)
                if left is not None and left < len(piece):
                    await self._write(piece[:left], writer, way, link)
                    self._cut(way)
                if left is not None:
                    self._cuts[way] = left - len(piece)
                await self._write(piece, writer, way, link)
        await self._wait(0, way)  # the end of a held connection is held too
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()

    async def _write(
        self, piece: memoryview, writer: asyncio.StreamWriter, way: Way, link: Link
    ) -> None:
        self.moved[way] += len(piece)  # before the other side can have it, and look
        writer.write(bytes(piece))
        await writer.drain()
        link.moved = monotonic()

    def _cut(self, way: Way) -> None:
        """End this connection; the error reaches `_accept`, which resets both sides."""
        del self._cuts[way]
        self.cuts += 1
        raise ConnectionResetError  # as if the network had done it

    async def _wait(self, size: int, way: Way) -> None:
        faults = self._faults
        pause = faults.delay_s + (size / faults.bytes_per_s if faults.bytes_per_s else 0.0)
        if pause:
            await asyncio.sleep(pause)
        while self._faults.held in (way, "both"):
            await asyncio.sleep(_LOOK_S)

    async def _close_idle(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            limit = self._faults.idle_s
            if limit:
                for link in [k for k in self._links if monotonic() - k.moved > limit]:
                    link.client.close()
                    link.target.close()

    def _reset_all(self) -> int:
        links = list(self._links)
        for link in links:
            _reset(link.client)
            _reset(link.target)
        return len(links)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST: the other side loses what it has not read, as when a router forgets."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
