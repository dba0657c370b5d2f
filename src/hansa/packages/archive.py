"""Archives of code: a ZIP file of one exact form, so that the same files are the same bytes.

Any unzip program opens one, and none but `build_archive` can make one that `read_archive` takes:
files in order of their names, stored without compression, gap or overlap, each field as it is
written here.  What cannot vary cannot lie: there is no second size, second name or second
directory to believe, and nothing unfolds to more than its own size.
"""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from hansa.errors import PackageError
from hansa.limits import CODE_BYTES_MAX, CODE_FILES_MAX, PACKAGE_NAME_BYTES_MAX
from hansa.packages.names import check_names
from hansa.store.files import write_durably

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_LOCAL_MARK, _CENTRAL_MARK, _END_MARK = b"PK\3\4", b"PK\1\2", b"PK\5\6"

_VERSION = 20  # of the format that a reader must know
_MADE_BY = (3 << 8) | _VERSION  # 3: Unix, so that the attributes are a file mode
_UTF8 = 0x800
_STORED = 0
_TIME, _DATE = 0, 0x21  # 1980-01-01, the first day of the format
_REGULAR = 0o100644 << 16

ARCHIVE_BYTES_MAX = (
    CODE_BYTES_MAX
    + CODE_FILES_MAX * (_LOCAL.size + _CENTRAL.size + 2 * PACKAGE_NAME_BYTES_MAX)
    + _END.size
)
"""Bytes of the largest archive that keeps all limits."""


class _Entry(NamedTuple):
    """Where a file's content lies in an archive."""

    name: str
    start: int
    size: int
    crc: int


def build_archive(files: Mapping[str, bytes]) -> bytes:
    """Return an archive; the same files in any order give the same bytes.

    Args:
      files: contents by path below the package's folder, with / between folders; may be empty.

    Raises:
      PackageError: a name is not allowed, or there is too much.

    >>> read_archive(build_archive({"model.py": b"x = 1"}))
    {'model.py': b'x = 1'}
    """
    _check_amount(len(files), sum(map(len, files.values())))
    check_names(files)
    body, directory = bytearray(), bytearray()
    for name, content in sorted(files.items()):
        path, crc = name.encode(), zlib.crc32(content)
        local, central = _heads(path, crc, len(content), offset=len(body))
        directory += central + path
        body += local + path + content
    end = _END.pack(
        _END_MARK, 0, 0, len(files), len(files), len(directory), len(body), 0
    )  # fmt: skip
    return bytes(body + directory + end)


def _heads(path: bytes, crc: int, size: int, *, offset: int) -> tuple[bytes, bytes]:
    """Return the only two heads that a file may have."""
    local = _LOCAL.pack(
        _LOCAL_MARK, _VERSION, _UTF8, _STORED, _TIME, _DATE, crc, size, size, len(path), 0
    )  # fmt: skip
    central = _CENTRAL.pack(
        _CENTRAL_MARK, _MADE_BY, _VERSION, _UTF8, _STORED, _TIME, _DATE, crc, size, size,
        len(path), 0, 0, 0, 0, _REGULAR, offset,
    )  # fmt: skip
    return local, central


def read_archive(data: bytes | Path) -> dict[str, bytes]:
    """Return the files of an archive that may come from anyone; sorted by name.

    Everything is checked before any content is copied.

    Args:
      data: the archive, or the path of its file.

    Raises:
      PackageError: it is not exactly what `build_archive` makes of some files.
    """
    view = memoryview(_bytes_of(data))
    entries = list(_entries(view))
    names = [entry.name for entry in entries]
    check_names(names)
    if names != sorted(names):
        raise _damaged("its files are not in order")
    for entry in entries:
        if zlib.crc32(view[entry.start : entry.start + entry.size]) != entry.crc:
            raise _damaged(f"the content of file {entry.name!r} is damaged")
    return {e.name: bytes(view[e.start : e.start + e.size]) for e in entries}


def _bytes_of(data: bytes | Path) -> bytes:
    if isinstance(data, Path):
        with data.open("rb") as file:
            data = file.read(ARCHIVE_BYTES_MAX + 1)
    if len(data) > ARCHIVE_BYTES_MAX:
        raise PackageError(
            "package-too-large",
            f"The package is larger than {ARCHIVE_BYTES_MAX:,} bytes. Nothing was written.",
            "Keep data and models out of the project's Python files.",
        )
    return data


def _entries(view: memoryview) -> Iterator[_Entry]:
    """Walk through heads and contents, which must fill the archive without a gap.

    Raises:
      PackageError: a field has another value than it must have.
    """
    if len(view) < _END.size:
        raise _damaged(f"it has {len(view)} bytes")
    mark, disk, first, here, count, size, at, comment = _END.unpack(view[-_END.size :])
    last = len(view) - _END.size
    if (mark, disk, first, comment) != (_END_MARK, 0, 0, 0) or here != count:
        raise _damaged("it does not end with a plain directory")
    _check_amount(count, 0)
    if at + size != last:
        raise _damaged("its directory is not where it says")
    offset = total = 0
    for _ in range(count):
        entry, at = _entry(view, at, last=last, offset=offset)
        total += entry.size
        _check_amount(count, total)
        offset = entry.start + entry.size
        yield entry
    if at != last or offset + size != last:
        raise _damaged("there are bytes that belong to no file")


def _entry(view: memoryview, at: int, *, last: int, offset: int) -> tuple[_Entry, int]:
    """Read one entry of the directory, and compare both of its heads with those it must have."""
    named = at + _CENTRAL.size
    if named > last:
        raise _damaged("its directory ends too early")
    head = _CENTRAL.unpack(view[at:named])
    crc, size, length = head[7], head[9], head[10]
    after = named + length
    start = offset + _LOCAL.size + length
    if length > PACKAGE_NAME_BYTES_MAX or after > last or start + size > last:
        raise _damaged("a file is longer than the archive, or its name than allowed")
    path = bytes(view[named:after])
    local, central = _heads(path, crc, size, offset=offset)
    if bytes(view[at:named]) != central:
        raise _damaged(f"the directory's entry of {path!r} is not that of a plain, stored file")
    if bytes(view[offset:start]) != local + path:
        raise _damaged(f"the head of file {path!r} is not what the directory says")
    try:
        return _Entry(path.decode(), start, size, crc), after
    except UnicodeDecodeError:
        raise _damaged(f"the name {path!r} is not UTF-8") from None


def _check_amount(files: int, size: int) -> None:
    if files > CODE_FILES_MAX or size > CODE_BYTES_MAX:
        raise PackageError(
            "package-too-large",
            f"The package holds more than {CODE_FILES_MAX:,} files, or more than "
            f"{CODE_BYTES_MAX >> 20} MiB of them. Nothing was written.",
            "Keep data, models and other programs out of the project folder.",
        )


def extract(data: bytes | Path, folder: Path) -> None:
    """Write an archive's files below a folder, whole or not at all.

    The archive is read wholly first.  A folder that already holds exactly these files stays as it
    is; one that holds anything else is replaced, so that what runs is what the archive holds.

    Args:
      data: as for `read_archive`.
      folder: its parent must exist.

    Raises:
      PackageError: as `read_archive`; nothing is written then.
      OSError: as the system reports it.
    """
    files = read_archive(data)
    if holds(folder, files):
        return
    temporary = folder.with_name(f".hansa-{os.urandom(8).hex()}.tmp")
    try:
        temporary.mkdir()
        for name, content in files.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(path, [content])
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
        elif folder.is_symlink() or folder.exists():
            folder.unlink()
        os.rename(temporary, folder)  # a crash before it: the next call does it again
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def holds(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Return whether a folder holds exactly these files, and no link."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    expected = {Path(name) for name in files}
    found = set()
    for path in folder.rglob("*"):
        if path.is_symlink():
            return False
        if not path.is_dir():
            found.add(path.relative_to(folder))
    return found == expected and all(
        (folder / name).read_bytes() == content for name, content in files.items()
    )


def _damaged(how: str) -> PackageError:
    return PackageError(
        "package-archive",
        f"The package is not an archive as Hansa makes them: {how}. Nothing was written.",
        "Ask its submitter to submit the project again with: hansa run --on SERVER",
    )
