"""T5: what hospitals put between a site and the world."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from federations import FAST, check_books, digest, project

from hansa.dev import Rehearsal


class ConnectProxy:
    """An HTTP proxy that knows CONNECT alone, and remembers to where it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refused: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = client.recv(4096)
            if not piece:
                return
            head += piece
        verb, target, _ = head.split(b"\r\n", 1)[0].split(b" ", 2)
        if verb != b"CONNECT":
            self.refused.append(head)
            client.sendall(b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n")
            client.close()
            return
        self.asked.append(target.decode())
        host, _, port = target.decode().rpartition(":")
        server = socket.create_connection((host, int(port)))
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        threading.Thread(target=_pump, args=(server, client), daemon=True).start()
        _pump(client, server)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def connect_proxy() -> Iterator[ConnectProxy]:
    proxy = ConnectProxy()
    try:
        yield proxy
    finally:
        proxy.close()


def test_sites_enrol_and_train_through_a_connect_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = project(tmp_path / "study")
    with connect_proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        for name in ("NO_PROXY", "no_proxy", "https_proxy"):
            monkeypatch.delenv(name, raising=False)
        with Rehearsal(tmp_path / "r", study, settings=FAST) as rehearsal:
            folder = rehearsal.run()
            check_books(rehearsal, folder)
            assert digest(folder) == digest(rehearsal.simulate())
            wanted = rehearsal.url.removeprefix("https://")
    assert set(proxy.asked) == {wanted}
    assert not proxy.refused, "nothing travels in the clear"


def test_a_line_that_is_closed_when_idle_changes_nothing(tmp_path: Path) -> None:
    """A firewall forgets silent connections before a poll is answered."""
    study = project(tmp_path / "study")
    settings = {**FAST, "heartbeat_s": 2.0}
    with Rehearsal(tmp_path / "r", study, settings=settings, proxied=True) as rehearsal:
        for proxy in rehearsal.proxies.values():
            proxy.set(idle_s=0.5)
        folder = rehearsal.run()
        check_books(rehearsal, folder)
        assert digest(folder) == digest(rehearsal.simulate())
