import asyncio
import errno
import os
import threading
import time

import faulty_disk
import msgspec
import numpy as np
import pytest
from blake3 import blake3
from small_server import SmallServer, code_of

import hansa.server.blobs
from hansa.limits import CHUNK_BYTES, DISK_SLOW_S, UPLOAD_PIECE_BYTES
from hansa.protocol.messages import BlobChunks
from hansa.server.blobs import _Disk, _File, _take
from hansa.server.turns import Turns

DATA = np.random.default_rng(4).bytes(4096)
BIG = np.random.default_rng(5).bytes(CHUNK_BYTES + 5000)  # names of tests are made of it
PIECES = [BIG[:CHUNK_BYTES], BIG[CHUNK_BYTES:]]


def address(data: bytes) -> str:
    return f"blake3:{blake3(data).hexdigest()}"


@pytest.fixture
def server(tmp_path) -> SmallServer:
    return SmallServer(tmp_path / "server")


def state(server: SmallServer) -> dict[str, bytes]:
    """Every file of the stores."""
    folders = (server.blobs.folder, server.messages.folder, server.updates.folder)
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files}


def put(server: SmallServer, data: bytes, *, who: str = "submitter", to: str = "blobs", **kw):
    return server.call(who, "PUT", f"/v1/{to}/{kw.pop('digest', address(data))}", data, **kw)


def chunk(server: SmallServer, n: int, data: bytes, *, who: str = "site", size: int = len(BIG)):
    return server.call(who, "PUT", f"/v1/updates/{address(BIG)}/chunks/{n}?size={size}", data)


def chunks(server: SmallServer, what: str, *, who: str = "site", to: str = "updates") -> BlobChunks:
    answer = server.call(who, "GET", f"/v1/{to}/{what}")
    assert answer.status == 200, answer.body
    return msgspec.json.decode(answer.body, type=BlobChunks)


def test_what_a_submitter_puts_every_member_can_fetch(server):
    assert put(server, DATA).status == 200
    assert put(server, DATA).status == 200
    for who in ("site", "viewer", "submitter", "admin"):
        answer = server.call(who, "GET", f"/v1/blobs/{address(DATA)}")
        assert (answer.status, answer.body) == (200, DATA)
        assert answer.headers["etag"] == f'"{address(DATA)}"'
        assert answer.headers["content-length"] == "4096"
    head = server.call("site", "HEAD", f"/v1/blobs/{address(DATA)}")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "4096")
    known = {"if-none-match": f'"{address(DATA)}"'}
    assert server.call("site", "GET", f"/v1/blobs/{address(DATA)}", headers=known).status == 304


@pytest.mark.parametrize(
    ("asked", "status", "start", "end"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=10-19", 206, 10, 20),
        ("bytes=4000-", 206, 4000, 4096),
        ("bytes=4000-9999", 206, 4000, 4096),
        ("bytes=-5", 200, 0, 4096),
        ("bytes=0-1,5-6", 200, 0, 4096),
        ("lines=0-1", 200, 0, 4096),
        ("bytes=4096-", 416, 0, 0),
        ("bytes=5-4", 416, 0, 0),
    ],
)
def test_one_range_is_served_and_others_are_ignored(server, asked, status, start, end):
    put(server, DATA)
    answer = server.call("site", "GET", f"/v1/blobs/{address(DATA)}", headers={"range": asked})
    assert (answer.status, answer.body) == (status, DATA[start:end])
    if status == 206:
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/4096"


def test_a_range_is_no_longer_than_a_chunk(server):
    server.messages.put_bytes(BIG)
    headers = {"range": f"bytes=0-{len(BIG)}"}
    answer = server.call("site", "GET", f"/v1/blobs/{address(BIG)}", headers=headers)
    assert answer.status == 206 and answer.body == PIECES[0]


def test_updates_can_be_sent_and_never_read(server):
    assert put(server, DATA, who="site", to="updates").status == 200
    assert server.updates.has(address(DATA))
    for who in ("site", "viewer", "submitter", "admin"):
        for suffix in ("", "/chunks"):
            answer = server.call(who, "GET", f"/v1/blobs/{address(DATA)}{suffix}")
            assert answer.status == 404
        assert server.call(who, "GET", f"/v1/updates/{address(DATA)}").status == 405
    assert chunks(server, f"{address(DATA)}/chunks").digests == []


@pytest.mark.parametrize(
    ("who", "to"),
    [("site", "blobs"), ("viewer", "blobs"), ("submitter", "updates"), ("admin", "updates")],
)
def test_who_may_not_send_there_changes_nothing_and_is_not_read(server, who, to):
    for suffix in ("", "/chunks/0?size=4096"):
        answer = server.call(who, "PUT", f"/v1/{to}/{address(DATA)}{suffix}", DATA)
        assert (answer.status, answer.taken) == (403, 0)
    assert state(server) == {}


@pytest.mark.parametrize(("most", "status"), [(0, 409), (4095, 413), (4096, 200)])
def test_a_site_may_send_what_its_round_takes(server, most, status):
    server.most = most
    answer = put(server, DATA, who="site", to="updates")
    assert answer.status == status and (answer.taken == 0 or status == 200)
    server.most = min(most, 1) and len(BIG) - 1
    assert chunk(server, 1, PIECES[1]).status == (413 if most else 409)
    assert server.updates.have(address(BIG), len(BIG), owner="site") == []


def test_every_corrupt_byte_of_a_body_is_found_and_changes_nothing(server):
    """Promise D6: 4,096 positions, one flipped bit each, in a body of one piece."""
    before = state(server)
    target = f"/v1/blobs/{address(DATA)}"
    for position in range(len(DATA)):
        bad = bytearray(DATA)
        bad[position] ^= 1 << position % 8
        answer = server.call("submitter", "PUT", target, bytes(bad), signed=DATA)
        assert answer.status == 422 and code_of(answer) == "blob-digest"
    assert state(server) == before == {}
    assert put(server, DATA).status == 200


def test_a_body_that_is_not_the_one_in_the_path_or_the_proof_is_refused_unread(server):
    answer = put(server, DATA, digest=address(b"other"))
    assert (answer.status, code_of(answer), answer.taken) == (422, "blob-digest", 0)
    put(server, DATA)
    again = server.call("submitter", "PUT", f"/v1/blobs/{address(DATA)}", b"x" * 4096, signed=DATA)
    assert (again.status, code_of(again)) == (422, "blob-digest")


def endless():
    while True:
        yield b"x" * 65_536


@pytest.mark.parametrize(
    "announced", [{"content-length": "4096"}, {"content-length": str(10**12)}, {}]
)
@pytest.mark.parametrize("path", ["", "/chunks/0?size=4096", "/chunks/0?size=8400000"])
def test_a_body_without_end_is_refused_soon(server, announced, path):
    """Promise L7: no more than 64 KiB beyond the limit are read."""
    headers = {"content-length": "", **announced}
    target = f"/v1/blobs/{address(DATA)}{path}"
    answer = server.call("admin", "PUT", target, endless(), signed=DATA, headers=headers)
    assert answer.status in (413, 422) and answer.taken <= 4096 + 65_536
    assert not any(server.blobs.digests()) and not list(server.blobs.folder.glob("*.tmp"))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("blake3:XYZ", 404),
        ("..%2f..%2fserver.toml", 404),
        (f"{address(BIG)}/chunks/2?size={len(BIG)}", 404),
        (f"{address(BIG)}/chunks/-1?size={len(BIG)}", 404),
        (f"{address(BIG)}/chunks/99999999999999999999?size={len(BIG)}", 404),
        (f"{address(BIG)}/chunks/0?size=0", 413),
        (f"{address(BIG)}/chunks/0?size=-1", 404),
        (f"{address(BIG)}/chunks/0?size=1e9", 404),
        (f"{address(BIG)}/chunks/0?size={10**15}", 413),
        (f"{address(BIG)}/chunks/0?size={len(PIECES[1]) - 1}", 413),
        (f"{address(BIG)}/chunks/0?size={len(PIECES[1]) + 1}", 422),
        (f"{address(BIG)}/chunks/0", 404),
    ],
)
def test_addresses_numbers_and_sizes_that_lie_are_refused_unread(server, path, status):
    answer = server.call("site", "PUT", f"/v1/updates/{path}", PIECES[1])
    assert (answer.status, answer.taken) == (status, 0), answer.body
    assert state(server) == {}


def test_an_upload_in_chunks_tells_what_is_there_and_when_it_is_whole(server):
    where = f"{address(BIG)}/chunks?size={len(BIG)}"
    assert chunks(server, where).have == []
    answer = chunk(server, 1, PIECES[1])
    assert not msgspec.json.decode(answer.body, type=BlobChunks).complete
    assert chunks(server, where).have == [1] and not chunks(server, where).complete
    assert chunks(server, where, who="site-b").have == []  # it is another's upload
    assert msgspec.json.decode(chunk(server, 0, PIECES[0]).body, type=BlobChunks).complete
    assert chunks(server, where).complete and server.updates.intact(address(BIG))
    assert chunk(server, 0, PIECES[0]).status == 200
    assert chunk(server, 0, PIECES[1]).status == 200  # signed as it is, and not needed
    assert server.updates.intact(address(BIG))


def test_a_crash_between_the_last_chunk_and_the_end_costs_nothing(server):
    for n, piece in enumerate(PIECES):
        upload = server.updates.chunks(address(BIG), len(BIG), owner="site")
        with upload.writer(n, blake3(piece).hexdigest()) as writer:
            writer.write(piece)
            writer.commit()
    assert not server.updates.has(address(BIG))
    assert chunks(server, f"{address(BIG)}/chunks?size={len(BIG)}").complete
    assert server.updates.intact(address(BIG))


def test_a_size_that_does_not_fit_the_digest_is_found_at_the_end(server):
    size = len(BIG) + 1
    target = f"/v1/updates/{address(BIG)}/chunks"
    server.call("site", "PUT", f"{target}/0?size={size}", PIECES[0])
    answer = server.call("site", "PUT", f"{target}/1?size={size}", PIECES[1] + b"?")
    assert (answer.status, code_of(answer)) == (422, "blob-digest")
    assert state(server) == {}


def test_chunk_digests_are_those_of_the_ranges(server):
    server.messages.put_bytes(BIG)
    told = chunks(server, f"{address(BIG)}/chunks", to="blobs")
    assert told.size == len(BIG) and told.complete
    assert told.digests == [blake3(piece).hexdigest() for piece in PIECES]
    answer = server.call("site", "GET", f"/v1/blobs/{address(b'none')}/chunks")
    assert (answer.status, code_of(answer)) == (404, "blob-missing")


@pytest.mark.parametrize("moment", ["has", "size"])
@pytest.mark.parametrize("what", ["", "/chunks"])
def test_a_message_that_goes_meanwhile_is_given_from_the_other_store(
    server, monkeypatch, moment, what
):
    """Equal bytes may be a message of an open round and a model that stays."""
    server.messages.put_bytes(DATA)
    put(server, DATA)
    look = getattr(server.messages, moment)

    def gone(digest: str):
        found = look(digest)
        server.messages.remove(digest)
        return found

    monkeypatch.setattr(server.messages, moment, gone)
    answer = server.call("site", "GET", f"/v1/blobs/{address(DATA)}{what}")
    assert answer.status == 200 and (what or answer.body == DATA), answer.body


def test_a_connection_that_ends_within_a_body_leaves_nothing(server):
    headers = {"content-length": "4096"}
    target = f"/v1/blobs/{address(DATA)}"
    server.call("admin", "PUT", target, iter([DATA[:100], None]), signed=DATA, headers=headers)
    assert state(server) == {}


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EMFILE])
@pytest.mark.parametrize("way", ["whole", "chunk"])
def test_whatever_call_of_the_system_fails_the_answer_is_true(tmp_path, monkeypatch, code, way):
    """Promise C5, at the route: no acknowledgement without durability; 507, and on it goes."""
    server = SmallServer(tmp_path / "server")
    disk = faulty_disk.FaultyDisk(monkeypatch)
    failed = 0
    for n in range(1, 60):
        data = b"%d" % n + DATA
        suffix = f"/chunks/0?size={len(data)}" if way == "chunk" else ""
        target = f"/v1/blobs/{address(data)}{suffix}"
        disk.synchronised.clear()
        disk.arm(n, code)
        answer = server.call("admin", "PUT", target, data)
        spent = disk.spent
        disk.arm(10**9, code)
        if answer.status == 200:
            path = server.blobs.path(address(data))
            assert faulty_disk.inode(path) in disk.synchronised
            assert path.read_bytes() == data
        else:
            failed += 1
            assert answer.status == (507 if code == errno.ENOSPC else 503), answer.body
            assert not server.blobs.has(address(data))
            assert server.call("admin", "PUT", target, data).status == 200
        assert server.blobs.intact(address(data))
        if not spent:
            break
    assert not spent and failed >= 3


def test_a_file_that_cannot_be_opened_is_an_answer_not_a_crash(server, monkeypatch):
    put(server, DATA)
    disk = faulty_disk.FaultyDisk(monkeypatch)
    disk.arm(1, errno.EMFILE)
    assert server.call("site", "GET", f"/v1/blobs/{address(DATA)}").status == 503
    server.blobs.path(address(DATA)).unlink()
    assert server.call("site", "GET", f"/v1/blobs/{address(DATA)}").status == 404


@pytest.mark.parametrize("slow", [0, 1, 3])
def test_once_the_disk_does_not_keep_up_others_write_and_the_server_goes_on(monkeypatch, slow):
    """The first piece that takes long holds the server up; none after it does."""
    monkeypatch.setattr(hansa.server.blobs, "DISK_HERE_S", 0.005)
    pieces = [bytes([n]) * UPLOAD_PIECE_BYTES for n in range(8)]
    wrote: list[tuple[bytes, int]] = []

    class Request:
        async def stream(self):
            for piece in pieces:
                await asyncio.sleep(0)
                yield piece

    class Writer:
        def write(self, data):
            wrote.append((data, threading.get_ident()))
            if slow and len(wrote) >= slow:
                time.sleep(0.01)

        def commit(self):
            wrote.append((b"", threading.get_ident()))

    def upload() -> list[bool]:
        wrote.clear()
        parts = Turns().parts(Request(), size)  # type: ignore[arg-type]
        asyncio.run(_take(parts, Writer(), size=size, disk=disk, light=True))
        assert [data for data, _ in wrote] == [*pieces, b""]
        return [thread == threading.get_ident() for _, thread in wrote]

    size, disk = sum(map(len, pieces)), _Disk()
    assert upload() == ([True] * 9 if not slow else [True] * slow + [False] * (9 - slow))
    # What comes soon after is written by others from the start, and later on here again.
    assert upload() == [not slow] * 9
    monkeypatch.setattr(hansa.server.blobs, "monotonic", lambda: time.monotonic() + DISK_SLOW_S)
    assert upload()[0]


async def _stays():
    """Receive, of a client that does not go."""
    await asyncio.Event().wait()


def test_nothing_more_is_read_for_a_client_that_has_gone(server, monkeypatch):
    """Review: granian takes pieces all the same, and a blob may have many GB."""
    monkeypatch.setattr(hansa.server.blobs, "PIECE_BYTES", 100)
    monkeypatch.setattr(hansa.server.blobs, "CHUNK_BYTES", 100)  # of less it is not looked out for
    put(server, DATA)
    path, there = server.blobs.path(address(DATA)), set()
    response, sent = _File(path, 0, len(DATA), whole=True, headers={}, sending=there), []
    said = [{"type": "http.request", "body": b""}, {"type": "http.disconnect"}]

    async def receive():
        return said.pop(0)

    async def send(message):
        sent.append(message)
        await asyncio.sleep(0)

    asyncio.run(response({"method": "GET"}, receive, send))
    assert 1 <= len(sent) <= 3 and there == set()
    with pytest.raises(OSError):
        os.fstat(response._descriptor)


@pytest.mark.parametrize("slow", [0, 1, 3])
def test_once_the_disk_does_not_give_pieces_at_once_others_read_them(server, monkeypatch, slow):
    """What was removed since it was opened is sent all the same."""
    monkeypatch.setattr(hansa.server.blobs, "DISK_HERE_S", 0.005)
    monkeypatch.setattr(hansa.server.blobs, "PIECE_BYTES", 1000)
    data = bytes(range(250)) * 30
    put(server, data)
    path = server.blobs.path(address(data))
    response = _File(path, 0, len(data), whole=True, headers={}, sending=set())
    path.unlink()
    read, readers, sent = os.pread, [], []

    def pread(*words):
        readers.append(threading.get_ident())
        if slow and len(readers) >= slow:
            time.sleep(0.01)
        return read(*words)

    async def send(message):
        sent.append(message)

    monkeypatch.setattr(os, "pread", pread)
    asyncio.run(response({"method": "GET"}, _stays, send))  # type: ignore[arg-type]
    start, *pieces = sent
    assert start["status"] == 200 and b"".join(p["body"] for p in pieces) == data
    assert [p["more_body"] for p in pieces] == [True] * 7 + [False]
    here = [thread == threading.get_ident() for thread in readers]
    assert here == ([True] * 8 if not slow else [True] * slow + [False] * (8 - slow))


def test_those_who_fetch_at_the_same_time_share_the_memory_for_pieces(server, monkeypatch):
    for name, value in {
        "PIECE_BYTES": 1000,
        "SENDING_BYTES": 4000,
        "SENDING_PIECE_BYTES_MIN": 200,
    }.items():
        monkeypatch.setattr(hansa.server.blobs, name, value)
    data = bytes(range(250)) * 12
    put(server, data)
    path = server.blobs.path(address(data))

    def sizes(others):
        sent, there = (
            [],
            {_File(path, 0, 1, whole=False, headers={}, sending=set()) for _ in range(others)},
        )
        response = _File(path, 0, len(data), whole=True, headers={}, sending=there)

        async def send(message):
            sent.append(message)

        asyncio.run(response({"method": "GET"}, _stays, send))  # type: ignore[arg-type]
        assert len(there) == others, "it is one of them only while it is sent"
        assert b"".join(piece["body"] for piece in sent[1:]) == data
        return {len(piece["body"]) for piece in sent[1:]}

    assert (sizes(0), sizes(7), sizes(99)) == ({1000}, {500}, {200})
