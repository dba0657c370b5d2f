"""Programs in a folder, each a process with a log there."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any


class Started:
    """Programs that run, by a key that names their logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: dict[str, subprocess.Popen[Any]] = {}

    def log(self, key: str) -> Path:
        return self.folder / f"{key}.log"

    def wait(self, key: str, seconds: float = 60.0) -> int:
        return self._running[key].wait(seconds)

    def kill(self, key: str) -> None:
        """Kill -9, and wait until it is gone."""
        self._running[key].kill()
        self._running[key].wait()

    def said(self, key: str) -> str:
        return self.log(key).read_text(encoding="utf-8")

    def close(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()
