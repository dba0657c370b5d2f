"""Compressed tar archives that may come from anyone, read into memory and never unpacked."""

from __future__ import annotations

import bz2
import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from hansa.errors import PackageError
from hansa.limits import CODE_BYTES_MAX, CODE_FILES_MAX, PACKAGE_BYTES_MAX, PACKAGE_NAME_BYTES_MAX
from hansa.packages.names import check_names

_BLOCK = 512
_UNPACKED_MAX = CODE_BYTES_MAX + CODE_FILES_MAX * (PACKAGE_NAME_BYTES_MAX + 4 * _BLOCK)


def read_tar(path: Path) -> dict[str, bytes]:
    """Return the plain files of a .tar.gz, .tar.bz2 or .tar archive; sorted by name.

    Hidden files and compiled code are left out.  Nothing is written to a disk, so that no name can
    lead out of a folder; and what the archive unfolds to is counted while it does.

    Raises:
      PackageError: package-archive, it is damaged or holds a link or a device; package-name;
        package-too-large.
      OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(PACKAGE_BYTES_MAX + 1)
    if len(data) > PACKAGE_BYTES_MAX:
        raise _too_large(path)
    try:
        with tarfile.open(fileobj=io.BytesIO(_unfolded(path, data)), mode="r:") as archive:
            found = list(_files(path, archive))
    except (tarfile.TarError, EOFError, zlib.error, ValueError) as error:
        raise _damaged(path, str(error)) from None
    except OSError as error:  # gzip and bz2 say so of damaged files
        raise _damaged(path, str(error)) from None
    check_names(name for name, _ in found)
    return dict(sorted(found))


def _unfolded(path: Path, data: bytes) -> bytes:
    """Return the archive without its compression."""
    stream: io.BytesIO | gzip.GzipFile | bz2.BZ2File = io.BytesIO(data)
    if data.startswith(b"\x1f\x8b"):
        stream = gzip.GzipFile(fileobj=stream)
    elif data.startswith(b"BZh"):
        stream = bz2.BZ2File(stream)
    unfolded = stream.read(_UNPACKED_MAX + 1)
    if len(unfolded) > _UNPACKED_MAX:
        raise _too_large(path)
    return unfolded


def _files(path: Path, archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    count = size = 0
    for member in archive:
        name = member.name.removeprefix("./")
        if member.isdir() or _is_aside(name):
            continue
        if not member.isreg():
            raise _damaged(path, f"{name!r:.80} is a link or a device, and no plain file")
        count, size = count + 1, size + member.size
        if count > CODE_FILES_MAX or size > CODE_BYTES_MAX:
            raise _too_large(path)
        content = archive.extractfile(member)
        assert content is not None  # it is a plain file
        yield name, content.read()


def _is_aside(name: str) -> bool:
    parts = name.split("/")
    hidden = any(part.startswith(".") and part not in (".", "..") for part in parts)
    return hidden or "__pycache__" in parts or name.endswith((".pyc", ".pyo"))


def _damaged(path: Path, how: str) -> PackageError:
    return PackageError(
        "package-archive",
        f"{path.name} is no archive that can be taken: {how}. Nothing was written.",
        "Make it with: tar -czf package.tgz client",
    )


def _too_large(path: Path) -> PackageError:
    return PackageError(
        "package-too-large",
        f"{path.name} holds more than {CODE_FILES_MAX:,} files, or more than "
        f"{CODE_BYTES_MAX >> 20} MiB of them. Nothing was written.",
        "Keep data and models out of the package.",
    )
