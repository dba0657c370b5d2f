"""A Redis small enough to read: RESP2 over a real socket, with the commands that Hansa uses.

It counts round trips, and can be made to die.  Nothing of a client library is replaced.
"""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

Answer = Any


class FakeRedis:
    """Serves until `stop`; `trips` counts batches of commands that were answered at once."""

    def __init__(self, password: str = "") -> None:
        self.hashes: dict[bytes, dict[bytes, bytes]] = {}
        self.sorted: dict[bytes, dict[bytes, float]] = {}
        self.sets: dict[bytes, set[bytes]] = {}
        self.commands: list[list[bytes]] = []
        self.transactions = 0
        self.lock = threading.Lock()
        owner = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                queued: list[list[bytes]] | None = None
                while words := read(self.rfile):
                    name = words[0].upper()
                    if name == b"MULTI":
                        queued, answer = [], "OK"
                    elif name == b"EXEC":
                        assert queued is not None
                        with owner.lock:
                            owner.transactions += 1
                            answer, queued = [owner.run(each) for each in queued], None
                    elif queued is not None:
                        queued.append(words)
                        answer = "QUEUED"
                    else:
                        with owner.lock:
                            answer = owner.run(words)
                    self.wfile.write(encoded(answer))
                    self.wfile.flush()

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"redis://:secret@127.0.0.1:{self.server.server_address[1]}/0"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def run(self, words: list[bytes]) -> Answer:
        name = words[0].decode().upper()
        self.commands.append(words)
        known: dict[str, Callable[..., Answer]] = {
            "PING": lambda: "PONG",
            "AUTH": lambda *_: "OK",
            "SELECT": lambda _: "OK",
            "CLIENT": lambda *_: "OK",
            "DEL": self.delete,
            "HSET": self.hset,
            "HGETALL": lambda key: [b for pair in self.hashes.get(key, {}).items() for b in pair],
            "ZADD": self.zadd,
            "ZRANGE": self.zrange,
            "ZREM": lambda key, member: int(self.sorted.get(key, {}).pop(member, None) is not None),
            "SADD": lambda key, *members: self.sets.setdefault(key, set()).update(members) or 1,
        }
        if name not in known:
            return ValueError(f"ERR unknown command '{name}'")
        return known[name](*words[1:])

    def delete(self, *keys: bytes) -> int:
        return sum(self.hashes.pop(key, None) is not None for key in keys)

    def hset(self, key: bytes, *pairs: bytes) -> int:
        table = self.hashes.setdefault(key, {})
        table.update(zip(pairs[::2], pairs[1::2], strict=True))
        return len(pairs) // 2

    def zadd(self, key: bytes, score: bytes, member: bytes) -> int:
        self.sorted.setdefault(key, {})[member] = float(score)
        return 1

    def zrange(self, key: bytes, start: bytes, stop: bytes) -> list[bytes]:
        table = self.sorted.get(key, {})
        members = sorted(table, key=lambda member: (table[member], member))
        last = int(stop) + len(members) if int(stop) < 0 else int(stop)
        return members[int(start) : max(0, last + 1)]


def read(file: BinaryIO) -> list[bytes]:
    """Return the words of one command; none at the end."""
    line = file.readline()
    if not line:
        return []
    assert line[:1] == b"*", line
    words = []
    for _ in range(int(line[1:])):
        size = int(file.readline()[1:])
        words.append(file.read(size))
        file.read(2)
    return words


def encoded(answer: Answer) -> bytes:
    match answer:
        case str():
            return f"+{answer}\r\n".encode()
        case bool() | int():
            return f":{int(answer)}\r\n".encode()
        case bytes():
            return b"$%d\r\n%s\r\n" % (len(answer), answer)
        case list():
            return b"*%d\r\n%s" % (len(answer), b"".join(map(encoded, answer)))
        case Exception():
            return f"-{answer}\r\n".encode()
    raise AssertionError(answer)
