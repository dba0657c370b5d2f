import errno
import mmap
import os
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from blake3 import blake3

from hansa.errors import ServerError
from hansa.limits import SPARE_BYTES_MIN, SPARES_BYTES_MAX
from hansa.store import blobs, partials
from hansa.store import spares as module
from hansa.store.blobs import BlobStore
from hansa.store.files import load_params, save_params
from hansa.store.spares import NO_SPARES, Spares

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux grants leases")
SIZE = 2 * SPARE_BYTES_MIN + 1000


@pytest.fixture
def spares(tmp_path: Path) -> Spares:
    return Spares(tmp_path / "spare")


def made(path: Path, size: int = SIZE, fill: bytes = b"o") -> int:
    """Write a file; return its number in the file system."""
    path.write_bytes(fill * size)
    return path.stat().st_ino


def written(spares: Spares, path: Path, data: bytes) -> int:
    with spares.open(path, len(data)) as file:
        file.write(data)
    assert path.read_bytes() == data
    return path.stat().st_ino


@LINUX
@pytest.mark.parametrize("size", [SIZE, SIZE // 2 + 1, 2 * SIZE - 1])
def test_a_file_that_nobody_needs_is_written_over(
    tmp_path: Path, spares: Spares, size: int
) -> None:
    was = made(tmp_path / "old")
    spares.give(tmp_path / "old")
    assert not (tmp_path / "old").exists()
    assert written(spares, tmp_path / "new", b"n" * size) == was
    assert os.listdir(tmp_path / "spare") == []


@LINUX
@pytest.mark.parametrize("size", [SIZE // 2 - 1, 2 * SIZE + 2])
def test_a_file_of_quite_another_size_is_not(tmp_path: Path, spares: Spares, size: int) -> None:
    was = made(tmp_path / "old")
    spares.give(tmp_path / "old")
    assert written(spares, tmp_path / "new", b"n" * size) != was


@LINUX
def test_the_nearest_size_is_taken_first(tmp_path: Path, spares: Spares) -> None:
    for name, size in (("far", SIZE + 900), ("near", SIZE + 5), ("small", SIZE - 500)):
        made(tmp_path / name, size)
    near = (tmp_path / "near").stat().st_ino
    for name in ("far", "near", "small"):
        spares.give(tmp_path / name)
    assert written(spares, tmp_path / "new", b"n" * SIZE) == near


@LINUX
@pytest.mark.parametrize("reader", ["open", "mapped", "written", "linked"])
def test_who_reads_a_file_that_was_given_reads_what_it_held(
    tmp_path: Path, spares: Spares, reader: str
) -> None:
    """An aggregator has last round's update mapped, a slow member its model half sent."""
    was = made(tmp_path / "old")
    second = tmp_path / "second"
    file = (tmp_path / "old").open("r+b" if reader == "written" else "rb")
    held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if reader == "mapped" else None
    spares.give(tmp_path / "old")
    if reader == "linked":  # as somebody could who knows the name
        (spare,) = (tmp_path / "spare").iterdir()
        os.link(spare, second)
    if reader in ("mapped", "linked"):
        file.close()
    assert written(spares, tmp_path / "new", b"n" * SIZE) != was
    if held is not None:
        assert bytes(held) == b"o" * SIZE
        held.close()
    if not file.closed:
        assert file.read() == b"o" * SIZE
        file.close()
    second.unlink(missing_ok=True)
    # Now nobody has it any more.
    assert written(spares, tmp_path / "newer", b"m" * SIZE) == was


@LINUX
def test_of_a_file_with_two_names_the_last_one_is_kept(tmp_path: Path, spares: Spares) -> None:
    was = made(tmp_path / "old")
    os.link(tmp_path / "old", tmp_path / "message")
    spares.give(tmp_path / "old")
    assert not (tmp_path / "old").exists() and (tmp_path / "message").exists()
    assert written(spares, tmp_path / "new", b"n" * SIZE) != was
    assert (tmp_path / "message").read_bytes() == b"o" * SIZE
    spares.give(tmp_path / "message")
    assert written(spares, tmp_path / "newer", b"m" * SIZE) == was


def test_small_files_and_too_many_bytes_are_not_kept(
    tmp_path: Path, spares: Spares, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path / "small", SPARE_BYTES_MIN - 1)
    spares.give(tmp_path / "small")
    assert not (tmp_path / "small").exists() and not (tmp_path / "spare").exists()
    monkeypatch.setattr(module, "SPARES_BYTES_MAX", 3 * SIZE)
    for n in range(5):
        made(tmp_path / f"{n}")
        spares.give(tmp_path / f"{n}")
    assert sum(p.stat().st_size for p in (tmp_path / "spare").glob("*")) <= 3 * SIZE
    made(tmp_path / "large", 3 * SIZE + 1)
    spares.give(tmp_path / "large")
    assert not (tmp_path / "large").exists()
    spares.clear()
    assert [*(tmp_path / "spare").glob("*")] == []
    assert SPARE_BYTES_MIN < SPARES_BYTES_MAX


def test_what_an_earlier_process_has_left_is_removed(tmp_path: Path, spares: Spares) -> None:
    """After a `kill -9`, nobody knows any more what is in there."""
    made(tmp_path / "old")
    spares.give(tmp_path / "old")
    other = Spares(tmp_path / "spare")
    assert [*(tmp_path / "spare").glob("*")] == []
    # The first one goes on, as with a second process that should not be there.
    written(spares, tmp_path / "new", b"n" * SIZE)
    written(other, tmp_path / "newer", b"n" * SIZE)


def test_without_leases_files_are_removed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    for spares in (Spares(tmp_path / "spare"), NO_SPARES):
        made(tmp_path / "old")
        spares.give(tmp_path / "old")
        spares.give(tmp_path / "old")  # it is gone, which is as well
        assert not (tmp_path / "old").exists() and not (tmp_path / "spare").exists()
        written(spares, tmp_path / "new", b"n" * SIZE)
        (tmp_path / "new").unlink()


@pytest.mark.parametrize("granted", ["always", "never"])
def test_a_file_system_that_does_not_know_who_reads_a_file_gets_no_spares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, granted: str
) -> None:
    """Such as one of layers, whose mappings are of a file in another layer; or one on a network."""
    spares = Spares(tmp_path / "spare")
    monkeypatch.setattr(module, "_is_ours_alone", lambda _: granted == "always")
    made(tmp_path / "old")
    spares.give(tmp_path / "old")
    assert not (tmp_path / "old").exists() and [*(tmp_path / "spare").iterdir()] == []


@pytest.mark.parametrize("spare", [False, True])
def test_a_file_that_is_there_is_never_written_over(
    tmp_path: Path, spares: Spares, spare: bool
) -> None:
    if spare:
        made(tmp_path / "old", fill=b"s")
        spares.give(tmp_path / "old")
    made(tmp_path / "new")
    with pytest.raises(FileExistsError):
        spares.open(tmp_path / "new", SIZE)
    assert (tmp_path / "new").read_bytes() == b"o" * SIZE


@LINUX
def test_what_a_link_leads_to_is_not_ours(tmp_path: Path, spares: Spares) -> None:
    """An operator has moved a large file to another disk, and left a link in its place."""
    made(tmp_path / "elsewhere")
    (tmp_path / "old").symlink_to(tmp_path / "elsewhere")
    spares.give(tmp_path / "old")
    written(spares, tmp_path / "new", b"n" * SIZE)
    assert not (tmp_path / "old").is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == b"o" * SIZE


@LINUX
@pytest.mark.parametrize("call", ["link", "open"])
def test_what_is_interrupted_leaves_no_file_of_another_size(
    tmp_path: Path, spares: Spares, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Too many open files, or the end of the process, between any two steps."""
    made(tmp_path / "old", SIZE + 1000)
    spares.give(tmp_path / "old")
    named: list[int] = []

    def failing(spare: Path, *_: object, **__: object) -> int:
        if call == "link":
            named.append(spare.stat().st_size)
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as armed:
        armed.setattr(os, call, failing)
        written(spares, tmp_path / "new", b"n" * SIZE)
    assert set(named) <= {SIZE}, "it would have had its name before its size"
    spares.clear()
    assert [*(tmp_path / "spare").iterdir()] == []


@LINUX
def test_on_a_disk_that_is_nearly_full_nothing_is_kept(
    tmp_path: Path, spares: Spares, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path / "first")
    spares.give(tmp_path / "first")
    assert len([*(tmp_path / "spare").iterdir()]) == 1
    usage = shutil.disk_usage(tmp_path)._replace(free=SPARES_BYTES_MAX - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    made(tmp_path / "second")
    spares.give(tmp_path / "second")
    assert [*(tmp_path / "spare").iterdir()] == []


@pytest.mark.parametrize("wrong", [9 * 2**20 - 1, 10 * 2**20])
def test_a_part_of_another_length_is_begun_anew(tmp_path: Path, wrong: int) -> None:
    """However it came to be there: a blob has the bytes of its digest and no others."""
    store = BlobStore(tmp_path / "blobs", durable=False)
    data = b"n" * (9 * 2**20)
    digest = f"blake3:{blake3(data).hexdigest()}"
    with store.chunks(digest, len(data)).stream() as writer:
        writer.write(data[:1000])
    (part,) = store.folder.glob("partial/*.part")
    os.truncate(part, wrong)
    again = BlobStore(tmp_path / "blobs", durable=False)
    with again.chunks(digest, len(data)).stream() as writer:
        writer.write(data)
        writer.commit()
    assert again.intact(digest) and again.size(digest) == len(data)


def test_many_threads_never_get_the_same_file(tmp_path: Path, spares: Spares) -> None:
    begun = threading.Barrier(8)

    def work(n: int) -> None:
        begun.wait()
        for turn in range(30):
            path, data = tmp_path / f"{n}-{turn}", bytes([n]) * (SIZE + turn)
            with spares.open(path, len(data)) as file:
                for at in range(0, len(data), 2**15):
                    file.write(data[at : at + 2**15])
            assert path.read_bytes() == data
            spares.give(path)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    if sys.platform == "linux":
        assert 1 <= len(os.listdir(tmp_path / "spare")) <= 8


@LINUX
@pytest.mark.parametrize("durable", [False, True])
def test_a_stores_blobs_are_written_over_and_are_what_their_digests_say(
    tmp_path: Path, spares: Spares, durable: bool
) -> None:
    store, inodes = BlobStore(tmp_path / "blobs", durable=durable, spares=spares), set()
    sizes = [SIZE, SIZE + 7, SIZE - 300, 9 * 2**20 + 1, 9 * 2**20]
    for turn, size in enumerate(sizes * 3):
        data = bytes([turn]) * size
        digest = f"blake3:{blake3(data).hexdigest()}"
        if size > 8 * 2**20:
            with store.chunks(digest, size).stream() as writer:
                writer.write(data)
                writer.commit()
        elif turn % 2:
            store.put_bytes(data)
        else:
            store.put(digest, [data[:1000], data[1000:]], size=size)
        assert store.path(digest).read_bytes() == data and store.intact(digest)
        inodes.add(store.path(digest).stat().st_ino)
        store.remove(digest)
        assert not store.has(digest)
    assert len(inodes) == 2
    assert BlobStore(store.folder, durable=durable).sweep_partials(older_s=0) == 0


def test_a_blob_that_did_not_come_whole_leaves_nothing(tmp_path: Path, spares: Spares) -> None:
    store = BlobStore(tmp_path / "blobs", durable=False, spares=spares)
    store.remove(store.put_bytes(b"o" * SIZE)[0])
    data = b"n" * SIZE
    with store.writer(f"blake3:{blake3(data).hexdigest()}", SIZE) as writer:
        writer.write(data[:-1])
    assert [*store.folder.iterdir()] == []


@LINUX
@pytest.mark.parametrize("size", [SIZE, 9 * 2**20])
def test_on_a_full_disk_spares_make_room_for_what_is_wanted(
    tmp_path: Path, spares: Spares, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    store = BlobStore(tmp_path / "blobs", durable=False, spares=spares)
    made(tmp_path / "old", 5 * size)
    spares.give(tmp_path / "old")
    data = b"n" * size
    digest = f"blake3:{blake3(data).hexdigest()}"

    def full(file: object, part: bytes) -> None:
        if [*(tmp_path / "spare").iterdir()]:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file, part)

    for where in (blobs, partials):
        real = where.write_all
        monkeypatch.setattr(where, "write_all", full)

    def put() -> None:
        if size > 8 * 2**20:
            with store.chunks(digest, size).stream() as writer:
                writer.write(data)
                writer.commit()
        else:
            store.put(digest, [data], size=size)

    with pytest.raises(ServerError, match="server-disk-full"):
        put()
    put()
    assert store.intact(digest)


def test_tensors_that_were_mapped_stay_what_they_were(tmp_path: Path, spares: Spares) -> None:
    import numpy as np

    from hansa.params import Params

    save_params(tmp_path / "update", Params.of({"w": np.full(2**18, -1.5, np.float32)}))
    size = (tmp_path / "update").stat().st_size
    mapped = load_params(tmp_path / "update")
    spares.give(tmp_path / "update")
    for n in range(3):
        written(spares, tmp_path / f"{n}", bytes(size))
    assert (mapped.to_dict()["w"] == -1.5).all()
