"""The fault proxy does to connections what it is told, and counts what went through it.

Oracle: a server of a few lines that counts what reaches it and sends it back.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from hansa.testing.proxy import FaultProxy, Faults


class Echo:
    """Sends back what it gets; one thread a connection."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.received = 0
        self.pieces: list[int] = []
        self.reset = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    self.received += len(data)
                    self.pieces.append(len(data))
                    connection.sendall(data)
            except ConnectionResetError:
                self.reset += 1
            except OSError:
                pass


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.socket.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultProxy]:
    with FaultProxy(echo.port) as proxy:
        yield proxy


def connected(proxy: FaultProxy) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", proxy.port), timeout=5.0)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def exactly(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (piece := client.recv(count - len(data))):
        data += piece
    return data


def test_bytes_pass_unchanged_and_are_counted_each_way(proxy: FaultProxy, echo: Echo) -> None:
    content = bytes(range(256)) * 4_000
    with connected(proxy) as client:
        threading.Thread(target=client.sendall, args=(content,), daemon=True).start()
        assert exactly(client, len(content)) == content
        assert proxy.open == 1
    assert proxy.moved == {"up": len(content), "down": len(content)}
    assert proxy.connections == 1
    proxy.count_anew()
    assert proxy.moved == {"up": 0, "down": 0} and proxy.connections == 0


def test_an_orderly_end_is_passed_on(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        client.sendall(b"last words")
        client.shutdown(socket.SHUT_WR)
        assert exactly(client, 100) == b"last words"
        assert client.recv(1) == b""


def test_delay_is_felt_each_way_and_ends_when_it_heals(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        proxy.set(delay_s=0.5)
        began = time.monotonic()
        client.sendall(b"x")
        exactly(client, 1)
        assert time.monotonic() - began >= 1.0
        proxy.heal()
        assert proxy.faults == Faults()
        began = time.monotonic()
        client.sendall(b"x")
        exactly(client, 1)
        assert time.monotonic() - began < 1.0


def test_a_narrow_line_takes_its_time(proxy: FaultProxy) -> None:
    proxy.set(bytes_per_s=50_000.0, piece=1_000)
    with connected(proxy) as client:
        began = time.monotonic()
        client.sendall(b"x" * 10_000)
        exactly(client, 10_000)
        assert time.monotonic() - began >= 0.2


def test_a_trickle_makes_segments_of_one_byte(proxy: FaultProxy, echo: Echo) -> None:
    proxy.set(piece=1, delay_s=0.01)
    with connected(proxy) as client:
        client.sendall(b"abcdefgh")
        assert exactly(client, 8) == b"abcdefgh"
    assert echo.pieces == [1] * 8


def test_reset_ends_all_connections_with_rst_on_both_sides(proxy: FaultProxy, echo: Echo) -> None:
    with connected(proxy) as one, connected(proxy) as two:
        for client in (one, two):
            client.sendall(b"x")
            exactly(client, 1)
        assert proxy.reset() == 2
        for client in (one, two):
            with pytest.raises(ConnectionResetError):
                client.recv(1)
    until = time.monotonic() + 5
    while echo.reset < 2:
        assert time.monotonic() < until, "the target must see a reset too"
        time.sleep(0.01)


@pytest.mark.parametrize("way", ["up", "down", "both"])
def test_a_half_open_connection_is_silent_and_not_closed(
    proxy: FaultProxy, echo: Echo, way: str
) -> None:
    with connected(proxy) as client:
        client.sendall(b"a")
        exactly(client, 1)
        proxy.set(held=way)
        client.sendall(b"b")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
        assert echo.received == (2 if way == "down" else 1)
        assert proxy.open == 1
        client.settimeout(5.0)
        proxy.set(held="")
        assert exactly(client, 1) == b"b"


def test_a_connection_is_cut_after_so_many_bytes_and_only_once(
    proxy: FaultProxy, echo: Echo
) -> None:
    proxy.cut_after(up=1_000)
    with connected(proxy) as client, pytest.raises(ConnectionError):
        client.sendall(b"x" * 5_000)
        while client.recv(65536):
            pass
        raise ConnectionResetError  # an end without a reset: the other side had sent all it had
    assert proxy.moved["up"] == 1_000 and proxy.cuts == 1
    with connected(proxy) as client:
        client.sendall(b"x" * 5_000)
        assert len(exactly(client, 5_000)) == 5_000
    proxy.cut_after(down=10)
    with connected(proxy) as client:
        client.sendall(b"y" * 100)
        got = b""
        with contextlib.suppress(ConnectionResetError):
            got = exactly(client, 100)
    assert len(got) <= 10 and proxy.cuts == 2


def test_connections_can_be_refused_and_idle_ones_closed(proxy: FaultProxy) -> None:
    proxy.set(refuse=True)
    with pytest.raises(ConnectionError), connected(proxy) as client:
        client.recv(1)
        raise ConnectionResetError
    proxy.heal()
    proxy.set(idle_s=0.2)
    with connected(proxy) as client:
        client.sendall(b"x")
        exactly(client, 1)
        assert client.recv(1) == b"", "closed although nothing was said"


def test_a_target_that_is_away_is_a_reset_and_the_proxy_lives_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with FaultProxy(port) as proxy:
        for _ in range(2):
            with pytest.raises(ConnectionError), connected(proxy) as client:
                client.recv(1)
                raise ConnectionResetError
        assert proxy.connections == 2


def test_closing_twice_and_closing_with_open_connections_is_no_trouble(echo: Echo) -> None:
    proxy = FaultProxy(echo.port)
    proxy.start()
    with connected(proxy):
        proxy.close()
        proxy.close()
