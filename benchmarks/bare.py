"""The least that could move the same bytes: granian with TLS, long polls, and http.client.

No proofs, no hashing, no disk, no journal, no sums: a server gives N bytes to each client of a
round, takes N bytes from each, and opens the next round.  What Hansa's rounds are compared with.

`kept` adds what no federation can leave out: what arrives, on either side, is hashed and written
over the file of the round before, without waiting for the disk.

    python -m benchmarks.bare serve FOLDER PORT KEPT CLIENTS BYTES ROUNDS
    python -m benchmarks.bare fetch FOLDER PORT KEPT BYTES
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from blake3 import blake3

PIECE = 2**20


def rounds(
    folder: Path, *, clients: int, size: int, rounds: int, kept: bool = False
) -> list[float]:
    """Return the milliseconds of each round, the first one left out."""
    certificates(folder)
    port = free_port()
    here = [sys.executable, "-m", "benchmarks.bare"]
    words = [str(folder), str(port), str(int(kept))]
    serving = subprocess.Popen([*here, "serve", *words, str(clients), str(size), str(rounds)])
    try:
        _until_open(port)
        fetch = [*here, "fetch", *words, str(size)]
        fetching = [subprocess.Popen(fetch) for _ in range(clients)]
        if any(process.wait(300) for process in fetching):
            raise RuntimeError("a client of the bare server failed")
    finally:
        serving.terminate()
        serving.wait()
    times: list[float] = json.loads((folder / "times.json").read_text())
    return [1e3 * (b - a) for a, b in itertools.pairwise(times)]


def certificates(folder: Path) -> None:
    """Make an authority and a server's certificate, of the kind that Hansa uses."""
    from hansa.identity import create_authority, load_authority

    if not (folder / "tls.pem").exists():
        folder.mkdir(parents=True, exist_ok=True)
        create_authority(folder, federation="bare")
        load_authority(folder).issue_tls(folder, ["localhost", "127.0.0.1"])


def free_port() -> int:
    """Return a port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _until_open(port: int) -> None:
    until = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


class Taken:
    """What arrives: dropped, or hashed and written over what came before."""

    def __init__(self, path: Path | None) -> None:
        self._file = None
        if path is not None:
            path.touch()
            self._file = path.open("r+b", buffering=0)
        self._hash = blake3()

    def write(self, piece: bytes | memoryview) -> None:
        """Take a piece."""
        if self._file is not None:
            self._hash.update(piece)
            self._file.write(piece)

    def close(self) -> None:
        """Have all of it."""
        if self._file is not None:
            self._hash.digest()
            self._file.close()


class App:
    """The ASGI application: GET /N waits for round N and gives the bytes; PUT takes some."""

    def __init__(self, folder: Path, kept: bool, clients: int, size: int, rounds: int) -> None:
        self.folder, self.kept, self.clients, self.rounds = folder, kept, clients, rounds
        self.size, self.piece = size, bytes(min(PIECE, size))
        self.open, self.left = 1, clients
        self.changed = asyncio.Condition()
        self.times: list[float] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        if scope["method"] == "PUT":
            await self._take(scope["path"], receive)
            await self._taken()
            await self._answer(send, 0)
            return
        number = int(scope["path"][1:])
        async with self.changed:
            await self.changed.wait_for(lambda: self.open >= number)
        await self._answer(send, self.size if number <= self.rounds else 0)

    async def _take(self, path: str, receive: Any) -> None:
        taken, held = (
            Taken(self.folder / path.replace("/", "-") if self.kept else None),
            bytearray(),
        )
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            if self.kept:
                held += message["body"]
                if len(held) >= PIECE or not more:
                    await asyncio.to_thread(taken.write, bytes(held))
                    held.clear()
        taken.close()

    async def _taken(self) -> None:
        async with self.changed:
            self.left -= 1
            if self.left:
                return
            self.times.append(time.monotonic())
            self.open, self.left = self.open + 1, self.clients
            if self.open > self.rounds:
                (self.folder / "times.json").write_text(json.dumps(self.times))
            self.changed.notify_all()

    async def _answer(self, send: Any, size: int) -> None:
        headers = [(b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for at in range(0, size, PIECE):
            piece = self.piece[: size - at]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _serve(folder: Path, port: int, app: App) -> None:
    from granian.constants import HTTPModes, Interfaces
    from granian.server.embed import Server

    await Server(
        app,
        address="127.0.0.1",
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        log_enabled=False,
        ssl_cert=folder / "tls.pem",
        ssl_key=folder / "tls-key.pem",
    ).serve()


def _fetch(folder: Path, port: int, kept: bool, size: int) -> None:
    """Be a client until the server has no more rounds."""
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    connection = http.client.HTTPSConnection("localhost", port, context=context, blocksize=PIECE)
    body, into = bytes(size), memoryview(bytearray(PIECE))
    number = 1
    while True:
        connection.request("GET", f"/{number}")
        answer = connection.getresponse()
        got, taken = 0, Taken(folder / f"got-{os.getpid()}" if kept else None)
        while count := answer.readinto(into):
            got += count
            taken.write(into[:count])
        taken.close()
        if not got:
            return
        assert got == size
        connection.request("PUT", f"/{os.getpid()}", body=body)
        connection.getresponse().read()
        number += 1


async def _main(folder: Path, port: int, kept: bool, clients: int, size: int, rounds: int) -> None:
    await _serve(folder, port, App(folder, kept, clients, size, rounds))


if __name__ == "__main__":
    _folder, _port, _kept, *_numbers = Path(sys.argv[2]), *map(int, sys.argv[3:])
    if sys.argv[1] == "serve":
        asyncio.run(_main(_folder, _port, bool(_kept), *_numbers))
    else:
        _fetch(_folder, _port, bool(_kept), *_numbers)
