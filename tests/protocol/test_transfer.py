import contextlib
import os
import socket
import threading

import pytest
from blake3 import blake3
from small_server import SmallServer

from hansa.errors import HansaError, RequestRefused, ServerError
from hansa.limits import CHUNK_BYTES
from hansa.protocol.messages import BlobRef
from hansa.protocol.transfer import Known, download, upload

SMALL = os.urandom(300_000)
BIG = os.urandom(5 * CHUNK_BYTES + 12_345)


def address(data: bytes) -> str:
    return f"blake3:{blake3(data).hexdigest()}"


REF = BlobRef(digest=address(BIG), size=len(BIG))


@pytest.fixture
def server(tmp_path) -> SmallServer:
    return SmallServer(tmp_path / "server")


@pytest.fixture
def site(server):
    with server.running() as url, server.connect(url, "site") as connection:
        yield connection


class Cutter:
    """A proxy that lets so many bytes pass to the server, and then cuts every connection."""

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("https://").partition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self.left: int | None = None  # None: no end
        self.passed = 0  # bytes that reached the server's side
        self.cuts = 0  # connections that were cut
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Cutter":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
            except OSError:
                return
            with self._lock:
                self._open += [client, server]
            threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        try:
            while data := source.recv(65_536):
                if counted:
                    with self._lock:
                        self.passed += len(data)
                        if self.left is not None:
                            self.left -= len(data)
                            if self.left <= 0:
                                break
                sink.sendall(data)
        except OSError:
            pass
        self._cut()

    def _cut(self) -> None:
        with self._lock:
            ends, self._open = self._open, []
            self.cuts += len(ends) // 2
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.mark.parametrize("data", [b"", b"x", SMALL, BIG], ids=len)
@pytest.mark.parametrize("kind", ["bytes", "path"])
def test_what_goes_up_comes_down(server, tmp_path, data, kind):
    path = tmp_path / "file"
    path.write_bytes(data)
    with server.running() as url, server.connect(url, "admin") as connection:
        ref = upload(connection, path if kind == "path" else data, to="blobs")
        assert ref == BlobRef(digest=address(data), size=len(data))
        download(connection, ref, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == data
        assert not (tmp_path / "copy.part").exists()
        sent: list[int] = []
        upload(connection, path, to="blobs", on_sent=sent.append)
        assert sum(sent) == (0 if data is BIG else len(data))  # it is there: only asked for


def test_an_upload_cut_at_each_chunk_sends_at_most_one_chunk_more_for_each_cut(server):
    """Promise D5, counted in bytes on the wire; TLS and headers take less than 1%."""
    with server.running() as url, Cutter(url) as cutter:
        failures = 0
        for left in (1000, CHUNK_BYTES // 2, CHUNK_BYTES + 9, 2 * CHUNK_BYTES, 10_000, None):
            cutter.left = left
            connection = server.connect(cutter.url, "site")  # from another port each time
            try:
                upload(connection, BIG, to="updates")
            except ServerError as error:
                assert error.code == "server-unreachable"
                failures += 1
            connection.close()
        assert failures == 5
        assert server.updates.intact(REF.digest)
        # From the second try on, several chunks travel at once, each on a connection of its own.
        assert cutter.passed <= 1.01 * len(BIG) + cutter.cuts * CHUNK_BYTES


def test_a_download_that_was_cut_goes_on_with_what_it_has(server, tmp_path):
    server.messages.put_bytes(BIG)
    target = tmp_path / "message"
    damaged = bytearray(BIG[: 3 * CHUNK_BYTES + 77])
    damaged[CHUNK_BYTES + 5] ^= 1
    (tmp_path / "message.part").write_bytes(damaged)
    seen = []
    with server.running() as url, server.connect(url, "site") as connection:
        _watch(connection, seen)
        download(connection, REF, target)
    assert target.read_bytes() == BIG
    assert sorted(seen) == [1, 3, 4, 5]


def _watch(connection, seen: list[int]) -> None:
    """Note which chunks are fetched."""
    stream = connection.stream

    def watched(method, path, **kw):
        asked = (kw.get("headers") or {}).get("Range", "")
        if asked:
            seen.append(int(asked.removeprefix("bytes=").partition("-")[0]) // CHUNK_BYTES)
        return stream(method, path, **kw)

    connection.stream = watched


def test_chunks_that_an_older_file_has_are_not_fetched(server, tmp_path):
    old = bytearray(BIG)
    old[2 * CHUNK_BYTES] ^= 1
    (tmp_path / "old").write_bytes(old)
    server.messages.put_bytes(BIG)
    seen: list[int] = []
    with server.running() as url, server.connect(url, "site") as connection:
        _watch(connection, seen)
        known = [Known(tmp_path / "old"), Known(tmp_path / "absent")]
        digests = download(connection, REF, tmp_path / "new", known=known)
    assert (tmp_path / "new").read_bytes() == BIG and seen == [2]
    assert (tmp_path / "old").read_bytes() == old
    starts = range(0, len(BIG), CHUNK_BYTES)
    assert digests == [blake3(BIG[at : at + CHUNK_BYTES]).hexdigest() for at in starts]


@pytest.mark.parametrize("told", [True, False], ids=["digests known", "digests unknown"])
def test_a_file_that_shares_no_chunk_is_no_reason_to_fetch_in_chunks(server, tmp_path, told):
    old = bytes(byte ^ 255 for byte in BIG[: 2 * CHUNK_BYTES])
    (tmp_path / "old").write_bytes(old)
    chunks = [blake3(old[at : at + CHUNK_BYTES]).hexdigest() for at in (0, CHUNK_BYTES)]
    server.messages.put_bytes(BIG)
    seen: list[int] = []
    with server.running() as url, server.connect(url, "site") as connection:
        _watch(connection, seen)
        known = [Known(tmp_path / "old", chunks if told else ())]
        download(connection, REF, tmp_path / "new", known=known)
    assert (tmp_path / "new").read_bytes() == BIG and seen == []


def test_digests_that_lie_of_a_known_file_spoil_nothing(server, tmp_path):
    """They are a hint: what is copied is hashed."""
    (tmp_path / "old").write_bytes(bytes(len(BIG)))
    starts = range(0, len(BIG), CHUNK_BYTES)
    chunks = [blake3(BIG[at : at + CHUNK_BYTES]).hexdigest() for at in starts]
    server.messages.put_bytes(BIG)
    with server.running() as url, server.connect(url, "site") as connection:
        download(connection, REF, tmp_path / "new", known=[Known(tmp_path / "old", chunks)])
    assert (tmp_path / "new").read_bytes() == BIG


def test_a_proxy_that_takes_no_large_body_gets_chunks(server):
    server.body_max = 2 * CHUNK_BYTES
    with server.running() as url, server.connect(url, "site") as connection:
        left: list[int] = []
        upload(connection, BIG, to="updates", on_chunk=left.append)
    assert server.updates.intact(REF.digest) and set(left) == set(range(6))


@pytest.mark.parametrize("data", [SMALL, BIG], ids=len)
def test_bytes_that_the_server_has_spoilt_never_become_the_file(server, site, tmp_path, data):
    server.messages.put_bytes(data)
    ref = BlobRef(digest=address(data), size=len(data))
    target = tmp_path / "message"
    target.write_bytes(b"old")
    bad = bytearray(data)
    bad[-1] ^= 1
    server.messages.path(ref.digest).write_bytes(bad)
    for _ in range(2):
        with pytest.raises(ServerError, match=r"\[blob-digest\]"):
            download(site, ref, target)
        (tmp_path / "message.part").write_bytes(b"")  # so that the second try is by chunks
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("size", [len(SMALL) - 1, len(SMALL) + 1, len(BIG), 2**63])
def test_a_size_that_does_not_fit_is_refused_before_it_fills_the_disk(server, site, tmp_path, size):
    server.messages.put_bytes(SMALL)
    ref = BlobRef(digest=address(SMALL), size=size)
    with pytest.raises(ServerError, match=r"\[blob-digest\]"):
        download(site, ref, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_what_is_not_there_or_not_wanted_is_a_refusal_with_its_code(server, site, tmp_path):
    with pytest.raises(RequestRefused) as refused:
        download(site, REF, tmp_path / "x")
    assert (refused.value.code, refused.value.status) == ("blob-missing", 404)
    server.most = 0
    for data in (SMALL, BIG):
        sent: list[int] = []
        with pytest.raises(RequestRefused) as refused:
            upload(site, data, to="updates", on_sent=sent.append)
        assert (refused.value.said, refused.value.status) == ("upload-unwanted", 409)
    with pytest.raises(RequestRefused) as refused:
        upload(site, SMALL, to="blobs")
    assert refused.value.status == 403


def test_a_full_disk_at_the_client_is_not_taken_for_trouble_of_the_network(
    server, site, tmp_path, monkeypatch
):
    import errno

    from hansa.protocol import transfer

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    server.messages.put_bytes(SMALL)
    monkeypatch.setattr(transfer, "write_all", full)
    with pytest.raises(HansaError, match=r"\[server-disk-full\]"):
        download(site, BlobRef(digest=address(SMALL), size=len(SMALL)), tmp_path / "x")
