import errno
import os
import threading

import faulty_disk
import pytest
from blake3 import blake3

from hansa.errors import ServerError
from hansa.limits import BLOB_BYTES_MAX, CHUNK_BYTES, PARTIAL_UPLOADS_MAX
from hansa.store import partials
from hansa.store.addresses import digest_of, digest_of_file
from hansa.store.blobs import BlobStore

DATA = bytes(range(256)) * 40


def address(data: bytes) -> str:
    return f"blake3:{blake3(data).hexdigest()}"


@pytest.fixture
def store(tmp_path) -> BlobStore:
    return BlobStore(tmp_path / "blobs", durable=True)


@pytest.fixture
def light(tmp_path) -> BlobStore:
    return BlobStore(tmp_path / "updates", durable=False)


@pytest.fixture
def disk(monkeypatch):
    return faulty_disk.FaultyDisk(monkeypatch)


def refused(code: str):
    return pytest.raises(ServerError, match=rf"\[{code}\]$")


def write(store: BlobStore, data: bytes, *, digest: str | None = None, size: int | None = None,
          durable: bool | None = None):  # fmt: skip
    parts = [data[:100], memoryview(data)[100:5000], data[5000:]]
    size = len(data) if size is None else size
    store.put(digest or address(data), parts, size=size, durable=durable)


def test_what_is_put_in_comes_out_under_the_digest_of_its_bytes(store):
    write(store, DATA)
    assert store.path(address(DATA)).read_bytes() == DATA
    assert store.size(address(DATA)) == len(DATA) and store.has(address(DATA))
    assert store.put_bytes(b"abc") == (address(b"abc"), 3)
    assert store.put_bytes([b"a", memoryview(b"bc")]) == (address(b"abc"), 3)
    assert store.put_bytes(b"") == (address(b""), 0)
    assert list(store.digests()) == sorted(map(address, [DATA, b"abc", b""]))
    assert all(store.intact(d) for d in store.digests())
    assert digest_of(b"ab", b"c") == address(b"abc")
    assert digest_of_file(store.path(address(DATA))) == (address(DATA), len(DATA))


def test_a_blob_that_is_not_there_or_was_removed_is_missing(store):
    with refused("blob-missing"):
        store.size(address(b"x"))
    with refused("blob-missing"):
        store.chunk_digests(address(b"x"))
    write(store, DATA)
    store.remove(address(DATA))
    store.remove(address(DATA))
    assert not store.has(address(DATA)) and not store.intact(address(DATA))
    assert os.listdir(store.folder) == []


HEX = "0" * 64
BAD = ["", HEX, f"blake3:{HEX[1:]}", f"blake3:{HEX}0", f"blake3:{HEX}\n", f"blake3:../../{HEX[6:]}",
       f"sha256:{HEX}", f"blake3:{HEX[1:]}G", f"blake3:{HEX[1:]}/", f"BLAKE3:{HEX}",
       f"blake3:{HEX[1:]}٣", "blake3:" + "A" * 64, f"blake3:{HEX[1:]}\0"]  # fmt: skip


@pytest.mark.parametrize("digest", BAD)
def test_only_an_address_becomes_a_path(store, digest):
    for call in (store.path, store.has, store.size, store.remove, store.chunk_digests):
        with refused("blob-address"):
            call(digest)
    for call in (store.writer, store.chunks, store.have):
        with refused("blob-address"):
            call(digest, 10)


@pytest.mark.parametrize("wrong", [{"digest": address(b"other")}, {"size": len(DATA) + 1}])
def test_bytes_that_are_not_those_announced_leave_nothing(store, wrong):
    with refused("blob-digest"):
        write(store, DATA, **wrong)
    assert not list(store.digests()) and not os.listdir(store.folder)


def test_more_bytes_than_announced_are_refused_before_they_are_written(store):
    with refused("blob-too-large"):
        write(store, DATA, size=len(DATA) - 1)
    for size in (-1, BLOB_BYTES_MAX + 1):
        with refused("blob-too-large"):
            store.writer(address(DATA), size)
        with refused("blob-too-large"):
            store.chunks(address(DATA), size)
    assert not list(store.digests()) and not os.listdir(store.folder)


def test_a_durable_blob_and_its_name_are_synchronised_before_it_counts(store, disk):
    write(store, DATA)
    assert faulty_disk.inode(store.path(address(DATA))) in disk.synchronised
    assert disk.calls.index("fsync") < disk.calls.index("replace")
    assert "fsync" in disk.calls[disk.calls.index("replace") :]  # of the folder


def test_a_light_blob_is_not_synchronised_and_a_durable_one_takes_its_place(light, disk):
    write(light, DATA)
    assert "fsync" not in disk.calls
    light.put_bytes(DATA, durable=True)
    assert faulty_disk.inode(light.path(address(DATA))) in disk.synchronised
    assert len(os.listdir(light.folder)) == 1 and light.intact(address(DATA))


def test_a_blob_that_becomes_durable_can_be_read_by_the_path_it_had(store, disk):
    write(store, DATA, durable=False)
    before = store.path(address(DATA))
    assert "fsync" not in disk.calls
    assert store.harden(address(DATA)) and store.harden(address(DATA))
    after = store.path(address(DATA))
    assert faulty_disk.inode(after) in disk.synchronised and disk.calls[-1] == "fsync"  # the folder
    assert before != after and before.read_bytes() == after.read_bytes() == DATA
    store.settle(address(DATA))
    assert not before.exists() and store.intact(address(DATA))
    assert len(os.listdir(store.folder)) == 1


def test_a_blob_that_is_not_there_does_not_become_durable(store, disk):
    assert not store.harden(address(DATA))
    write(store, DATA, durable=False)
    store.settle(address(DATA))
    assert store.has(address(DATA))  # the only name that it has stays


def test_a_blob_that_could_not_be_synchronised_is_as_it_was(store, disk):
    write(store, DATA, durable=False)
    n, spent, failed = 0, True, 0
    while spent:
        disk.arm(n := n + 1, errno.EIO)
        try:
            assert store.harden(address(DATA))
        except ServerError as error:
            failed += 1
            assert error.code == "server-disk"
            assert not (store.folder / address(DATA).removeprefix("blake3:")).exists()
        spent = disk.spent
        disk.arm(0, 0)
        assert store.intact(address(DATA)) and not [*store.folder.glob("*.tmp")]
        if (store.folder / address(DATA).removeprefix("blake3:")).exists():
            (store.folder / address(DATA).removeprefix("blake3:")).unlink()
    assert failed >= 3  # a link that fails is a copy


def test_after_a_crash_a_durable_blob_has_one_name(store):
    write(store, DATA, durable=False)
    light = store.path(address(DATA))
    store.harden(address(DATA))
    again = BlobStore(store.folder, durable=True)
    assert again.sweep_partials() == 1
    assert not light.exists() and again.intact(address(DATA))


def test_what_a_loss_of_power_did_to_light_blobs_is_found_before_they_count(light, tmp_path):
    for data in (b"good", b"torn", b"lost"):
        light.put_bytes(data)
    light.path(address(b"torn")).write_bytes(b"to")
    light.path(address(b"lost")).write_bytes(b"\0\0\0\0")
    again = BlobStore(light.folder, durable=False)
    (again.folder / "0123456789abcdef.tmp").write_bytes(b"left by a crash")
    assert again.sweep_partials() == 3
    assert list(again.digests()) == [address(b"good")]
    assert again.sweep_partials() == 0


def test_sweeping_leaves_what_is_being_written_alone(store):
    writer = store.writer(address(DATA), len(DATA))
    writer.write(DATA)
    upload = store.chunks(address(b"x" * 9), 9)
    with upload.writer(0, blake3(b"x" * 9).hexdigest()):
        assert store.sweep_partials() == 0
    writer.commit()
    assert store.intact(address(DATA))
    assert store.sweep_partials(older_s=-60.0) == 1  # the upload, once nobody goes on with it


def put_in_chunks(store: BlobStore, data: bytes) -> None:
    upload = store.chunks(address(data), len(data))
    with upload.writer(0, blake3(data).hexdigest()) as writer:
        writer.write(data)
        writer.commit()
    assert upload.complete()


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EMFILE])
@pytest.mark.parametrize("way", ["put", "bytes", "chunks"])
def test_whatever_call_fails_once_nothing_counts_that_is_not_durable(tmp_path, disk, way, code):
    ways = {
        "put": lambda store: write(store, DATA),
        "bytes": lambda store: store.put_bytes(DATA),
        "chunks": lambda store: put_in_chunks(store, DATA),
    }
    failed = 0
    for n in range(1, 100):
        store = BlobStore(tmp_path / f"{n}", durable=True)
        disk.synchronised.clear()
        disk.arm(n, code)
        try:
            ways[way](store)
        except ServerError as error:
            failed += 1
            full = code == errno.ENOSPC
            assert error.code == ("server-disk-full" if full else "server-disk")
            assert not store.has(address(DATA))
            ways[way](store)  # without a restart
        except OSError:
            assert way == "file" and not store.has(address(DATA))  # the source cannot be read
        else:
            assert faulty_disk.inode(store.path(address(DATA))) in disk.synchronised
            assert faulty_disk.inode(store.folder) in disk.synchronised
        if not disk.spent:
            break
        ways[way](store)
        assert store.intact(address(DATA))
        assert not [p for p in os.listdir(store.folder) if p.endswith(".tmp")]
    assert not disk.spent and failed >= 3


def test_a_store_that_cannot_be_made_says_so(tmp_path, disk):
    disk.arm(1, errno.ENOSPC)
    with refused("server-disk-full"):
        BlobStore(tmp_path / "new", durable=True)


def test_a_backup_has_every_durable_blob(store, tmp_path):
    write(store, DATA)
    store.put_bytes(b"light", durable=False)
    assert store.backup(tmp_path / "backup") == 1
    assert store.backup(tmp_path / "backup") == 1
    store.remove(address(DATA))
    restored = BlobStore(tmp_path / "backup", durable=True)
    assert list(restored.digests()) == [address(DATA)] and restored.intact(address(DATA))


BIG = os.urandom(2 * CHUNK_BYTES + 1000)
PIECES = [BIG[:CHUNK_BYTES], BIG[CHUNK_BYTES : 2 * CHUNK_BYTES], BIG[2 * CHUNK_BYTES :]]


def send(store: BlobStore, n: int, data: bytes, *, owner: str = "", signed: bytes | None = None):
    upload = store.chunks(address(BIG), len(BIG), owner=owner)
    digest = blake3(data if signed is None else signed).hexdigest()
    with upload.writer(n, digest) as writer:
        for i in range(0, len(data), 2**20):
            writer.write(data[i : i + 2**20])
        writer.commit()
    return upload


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 1, 2, 0]])
def test_chunks_in_any_order_make_the_blob_once_all_are_there(light, order):
    for n in order:
        upload = send(light, n, PIECES[n])
        assert upload.complete() == (n == order[-1])
    assert light.path(address(BIG)).read_bytes() == BIG
    assert os.listdir(light.folder / "partial") == []
    assert light.chunk_digests(address(BIG)) == [blake3(p).hexdigest() for p in PIECES]
    assert upload.complete()


def test_an_upload_goes_on_where_another_process_left_it(light):
    send(light, 2, PIECES[2])
    send(light, 0, PIECES[0])
    again = BlobStore(light.folder, durable=False)
    again.sweep_partials()
    assert again.have(address(BIG), len(BIG)) == [0, 2]
    assert send(again, 1, PIECES[1]).complete()
    assert again.intact(address(BIG))


def stream(store: BlobStore, data: bytes, *, at_once: int = 2**20 + 3):
    """Write bytes as they come from a socket, the whole announced."""
    upload = store.chunks(address(BIG), len(BIG))
    with upload.stream() as writer:
        for i in range(0, len(data), at_once):
            writer.write(data[i : i + at_once])
        writer.commit()
    return upload


@pytest.mark.parametrize("at_once", [777_777, CHUNK_BYTES, len(BIG)])
def test_a_stream_makes_the_blob_and_is_hashed_once(light, monkeypatch, at_once):
    monkeypatch.setattr("hansa.store.partials.digest_of_file", None)  # not read again
    assert stream(light, BIG, at_once=at_once).complete()
    assert light.path(address(BIG)).read_bytes() == BIG
    assert os.listdir(light.folder / "partial") == []


@pytest.mark.parametrize("came", [0, 5, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 999])
def test_a_stream_that_was_cut_leaves_the_chunks_that_came(light, came):
    with refused("blob-digest"):
        stream(light, BIG[:came])
    whole = came // CHUNK_BYTES
    again = BlobStore(light.folder, durable=False)
    again.sweep_partials()
    assert again.have(address(BIG), len(BIG)) == list(range(whole))
    for n in range(whole, 3):
        upload = send(again, n, PIECES[n])
    assert upload.complete() and again.intact(address(BIG))


def test_a_stream_of_other_bytes_or_more_of_them_becomes_nothing(light):
    with refused("blob-digest"):
        stream(light, BIG[:-1] + bytes([BIG[-1] ^ 1]))
    assert not light.has(address(BIG)) and os.listdir(light.folder / "partial") == []
    with refused("blob-too-large"):
        stream(light, BIG + b"?")
    assert not light.has(address(BIG))


def test_a_stream_over_chunks_that_others_sent_is_hashed_as_it_lies_in_the_file(light):
    send(light, 1, PIECES[0])  # its sender signed these bytes; they are not the blob's
    with refused("blob-digest"):
        stream(light, BIG)
    assert not light.has(address(BIG)) and os.listdir(light.folder / "partial") == []
    assert stream(light, BIG).complete() and light.intact(address(BIG))


def test_asking_what_is_there_begins_nothing(light):
    assert light.have(address(BIG), len(BIG)) == []
    assert os.listdir(light.folder) == []


@pytest.mark.parametrize("n", [-1, 3, 10**9])
def test_a_chunk_that_the_blob_does_not_have_is_refused(light, n):
    with refused("blob-address"):
        light.chunks(address(BIG), len(BIG)).writer(n, "0" * 64)


def test_a_damaged_or_short_chunk_does_not_count_and_a_long_one_is_not_written(light):
    with refused("blob-digest"):
        send(light, 2, PIECES[2][:-1] + b"?", signed=PIECES[2])
    with refused("blob-digest"):
        send(light, 2, PIECES[2][:-1])
    with refused("blob-too-large"):
        send(light, 2, PIECES[2] + b"?")
    assert light.have(address(BIG), len(BIG)) == []
    with pytest.raises(ZeroDivisionError), light.chunks(address(BIG), len(BIG)).writer(0, "0") as w:
        w.write(PIECES[0])
        raise ZeroDivisionError
    assert light.have(address(BIG), len(BIG)) == []


def test_chunks_that_do_not_make_the_whole_are_dropped(light):
    for n, piece in enumerate([PIECES[1], PIECES[1], PIECES[2]]):  # each what its sender signed
        upload = send(light, n, piece)
    with refused("blob-digest"):
        upload.complete()
    assert not light.has(address(BIG)) and light.have(address(BIG), len(BIG)) == []
    assert os.listdir(light.folder / "partial") == []
    for n, piece in enumerate(PIECES):
        upload = send(light, n, piece)
    assert upload.complete()


def test_nobody_can_spoil_what_another_is_sending(light):
    send(light, 0, PIECES[0], owner="honest")
    send(light, 0, PIECES[1], owner="mallory")
    for n in (1, 2):
        upload = send(light, n, PIECES[n], owner="honest")
    assert upload.complete() and light.intact(address(BIG))


def test_a_new_sender_of_a_chunk_cuts_off_the_one_before(light):
    upload = light.chunks(address(BIG), len(BIG))
    digest = blake3(PIECES[2]).hexdigest()
    dead = upload.writer(2, digest)
    dead.write(PIECES[2][:500])
    live = upload.writer(2, digest)
    live.write(PIECES[2])
    dead.write(b"?" * 500)  # a late packet; it must not reach the file
    live.commit()
    with refused("blob-digest"):
        dead.commit()
    late = upload.writer(2, digest)  # the chunk is there: bytes are checked and dropped
    late.write(b"?" * len(PIECES[2]))
    with refused("blob-digest"):
        late.commit()
    send(light, 0, PIECES[0])
    assert send(light, 1, PIECES[1]).complete() and light.intact(address(BIG))


def test_a_member_that_begins_too_many_uploads_loses_its_oldest(light):
    other = light.chunks(address(b"other"), 5, owner="other")
    other.writer(0, "0" * 64)
    for i in range(PARTIAL_UPLOADS_MAX + 3):
        light.chunks(address(b"%d" % i), 5, owner="greedy").writer(0, "0" * 64)
    parts = [p for p in os.listdir(light.folder / "partial") if p.endswith(".part")]
    assert len(parts) == PARTIAL_UPLOADS_MAX + 1


def test_a_failed_fsync_of_a_large_blob_is_not_tried_again_on_the_same_file(store, disk):
    for n in range(3):
        upload = send(store, n, PIECES[n])
    disk.arm(10**9, errno.EIO)
    before = len(disk.calls)
    real, os.fsync = os.fsync, lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error"))
    try:
        with refused("server-disk"):
            upload.complete()
    finally:
        os.fsync = real
    assert not store.has(address(BIG)) and store.have(address(BIG), len(BIG)) == []
    assert not upload.complete() and len(disk.calls) >= before
    for n in range(3):
        upload = send(store, n, PIECES[n])
    assert upload.complete() and store.intact(address(BIG))


def test_what_is_there_of_an_upload_is_told_while_the_whole_is_hashed(store, monkeypatch):
    upload = store.chunks(address(DATA), len(DATA))
    with upload.writer(0, blake3(DATA).hexdigest()) as writer:
        writer.write(DATA)
        writer.commit()
    begun, go = threading.Event(), threading.Event()

    def slow(path):
        begun.set()
        assert go.wait(20.0)
        return digest_of_file(path)

    monkeypatch.setattr(partials, "digest_of_file", slow)
    ending = threading.Thread(target=upload.complete)
    ending.start()
    assert begun.wait(20.0)
    told = []
    asking = threading.Thread(target=lambda: told.append(store.have(address(DATA), len(DATA))))
    asking.start()
    asking.join(10.0)
    late = upload.writer(0, blake3(DATA).hexdigest())  # sent once more: changes nothing
    late.write(DATA)
    late.commit()
    go.set()
    ending.join(20.0)
    asking.join(20.0)
    assert told == [[0]] and store.intact(address(DATA)) and upload.complete()


def test_a_store_remembers_nothing_of_a_blob_that_was_removed(light):
    for n in range(100):
        light.remove(light.put_bytes(b"%d" % n)[0])
    assert not light._written


def test_a_stream_whose_chunks_another_upload_has_dropped_is_no_blob(light):
    """Two connections of one site: the other's bytes were wrong, and all of them were dropped."""
    upload = light.chunks(address(BIG), len(BIG), owner="north")
    with upload.stream() as writer:
        writer.write(BIG[:CHUNK_BYTES])
        upload._drop()
        writer.write(BIG[CHUNK_BYTES:])
        with refused("blob-digest"):
            writer.commit()
    assert not light.has(address(BIG))


def test_a_store_forgets_the_name_of_a_light_blob_that_a_durable_one_replaced(light):
    for n in range(100):
        light.put_bytes(b"%d" % n)
        light.put_bytes(b"%d" % n, durable=True)
    assert not light._written
