"""Tracebacks of runs' code: they stay at the site, for its owner, and never fill its disk."""

from __future__ import annotations

import contextlib
from pathlib import Path

from hansa.limits import FAILURE_CHARS_MAX, FAILURES_KEPT


def keep_failure(folder: Path, name: str, trace: str) -> Path:
    """Write the end of a traceback into `failures/` of a site; the oldest of very many go.

    Args:
      folder: of the site.
      name: of the file, without `.txt`.
      trace: as the code's process told it.
    """
    file = folder / "failures" / f"{name}.txt"
    with contextlib.suppress(OSError):
        file.parent.mkdir(exist_ok=True)
        text = trace[-FAILURE_CHARS_MAX:]
        file.write_text(text, encoding="utf-8", errors="backslashreplace")
        kept = sorted(file.parent.glob("*.txt"), key=lambda path: path.stat().st_mtime_ns)
        for old in kept[:-FAILURES_KEPT]:
            old.unlink(missing_ok=True)
    return file
