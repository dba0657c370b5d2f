"""Write files so that a crash leaves the old one or the new one, never half of one."""

from __future__ import annotations

import contextlib
import errno
import io
import mmap
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from hansa.errors import ParamsError

if TYPE_CHECKING:
    from hansa.params import Params

_NOT_SUPPORTED = (errno.EINVAL, errno.ENOTSUP)


def write_durably(
    path: str | os.PathLike[str], chunks: Iterable[bytes | bytearray | memoryview]
) -> None:
    """Write a file whole, and return only when it would survive a loss of power.

    The bytes go to a temporary file in the same folder, which is synchronised and then takes the
    final name.  After an error the old file, if any, is as it was; only when the folder itself
    cannot be synchronised is the new file already in place, whole.

    A failed fsync is never tried again: the system may have dropped the pages, and a second call
    would report success for data that is lost.

    Args:
      path: its folder must exist.
      chunks: the contents, written one after the other.

    Raises:
      OSError: as the system reports it, for example when the disk is full.
    Source: Rebello et al. 2020, "Can applications recover from fsync failures?".
    """
    path = Path(path)
    temporary = path.with_name(f".hansa-{os.urandom(8).hex()}.tmp")
    try:
        with temporary.open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # it is gone when all went well
            temporary.unlink()
    sync_folder(path.parent)


def write_all(file: io.FileIO, data: bytes | bytearray | memoryview | mmap.mmap) -> None:
    """Write every byte to a file without a buffer, which may take fewer at a time."""
    view = memoryview(data).cast("B")
    while view:
        view = view[file.write(view) :]


def append_durably(file: BinaryIO, content: bytes, whole: int) -> None:
    """Write to the end of a file of `whole` bytes and synchronise it, or leave it as it was.

    Raises:
      OSError: as the system reports it; a failed fsync is not tried again.
    """
    try:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    except OSError:
        # Not acknowledged, so it must not be there.
        with contextlib.suppress(OSError):
            file.truncate(whole)
        raise


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file another name, or copy it where it cannot have one: another disk, or no links.

    Raises:
      OSError: as the system reports it.
    """
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def link_or_copy_whole(source: Path, target: Path) -> None:
    """Give a file another name, durably, or copy it; a crash leaves it whole or not there.

    Raises:
      OSError: as the system reports it.
    """
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        link_or_copy(source, temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):  # it is gone when all went well
            temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder durable, where folders can be synchronised."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
    finally:
        os.close(descriptor)


def save_params(path: str | os.PathLike[str], params: Params) -> None:
    """Write Params durably, as a file that any reader of safetensors can open.

    Raises:
      OSError: as the system reports it.
    """
    from hansa.params import encode  # NumPy, which only whoever holds tensors needs

    write_durably(path, encode(params))


def load_params(path: str | os.PathLike[str]) -> Params:
    """Map a file of tensors into memory, read-only: pages are read when they are touched.

    Use `.copy()` for tensors to write to.  The file must not be changed in place meanwhile;
    `save_params` may replace it, except on Windows, which keeps a mapped file.

    Raises:
      ParamsError: params-missing, the file cannot be opened; and all that `decode` raises.
    """
    from hansa.params import decode

    try:
        with Path(path).open("rb") as file:
            data = _mapped(file)
    except OSError as error:
        raise ParamsError(
            "params-missing",
            f"Cannot open {path}: {error.strerror}.",
            "Check the path; a file of tensors usually ends in .safetensors.",
        ) from error
    return decode(memoryview(data), source=str(path))


def _mapped(file: BinaryIO) -> bytes | mmap.mmap:
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:  # it is empty: the size is not asked before, for it could change meanwhile
        return b""
