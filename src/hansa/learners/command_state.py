"""The files that a client's commands keep for themselves, as tensors of bytes by their paths."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from hansa.errors import LearnerError
from hansa.limits import CODE_FILES_MAX, STATE_BYTES_MAX


def put_files(folder: Path, state: Mapping[str, Any]) -> None:
    """Write files into a folder.

    Args:
      folder: of the command.
      state: bytes (uint8) by path, as `files_in` has returned them.

    Raises:
      LearnerError: command-result, a path leads out of the folder.
    """
    for name, content in state.items():
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts:
            raise _bad(f"leads out of its folder: {name!r:.80}")
        path = folder / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(np.asarray(content, np.uint8).tobytes())


def files_in(folder: Path) -> dict[str, np.ndarray]:
    """Return the plain files of a folder: bytes (uint8) by path.

    Raises:
      LearnerError: command-result, they are more than is kept.
    """
    paths = sorted(
        Path(here) / name for here, _, names in os.walk(folder) for name in names
    )  # links to folders are not followed
    plain = [path for path in paths if path.is_file() and not path.is_symlink()]
    size = sum(path.stat().st_size for path in plain)
    if len(plain) > CODE_FILES_MAX or size > STATE_BYTES_MAX:
        raise _bad(f"has {len(plain):,} files of {size:,} bytes")
    return {
        path.relative_to(folder).as_posix(): np.frombuffer(path.read_bytes(), np.uint8)
        for path in plain
    }


def _bad(what: str) -> LearnerError:
    return LearnerError(
        "command-result",
        f"What a command keeps in its folder {{state}} {what}. Nothing of it was kept.",
        f"Keep up to {CODE_FILES_MAX:,} files and {STATE_BYTES_MAX >> 20} MiB.",
    )
