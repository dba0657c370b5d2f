"""A disk that refuses one call: the n-th of those that open, write, synchronise or rename."""

import io
import os
import stat

import pytest

import hansa.store.blobs
import hansa.store.files
import hansa.store.partials


class FaultyDisk:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        self.code = 0
        self.calls: list[str] = []
        self.synchronised: set[int] = set()  # inodes
        for module in (hansa.store.blobs, hansa.store.partials):
            self._patch(monkeypatch, module, "write_all")
        for name in ("replace", "open", "link", "ftruncate"):
            self._patch(monkeypatch, os, name)
        self._patch(monkeypatch, io, "open")
        fsync = os.fsync

        def noted(descriptor: int) -> None:
            fsync(descriptor)
            self.synchronised.add(os.fstat(descriptor).st_ino)

        monkeypatch.setattr(os, "fsync", noted)
        self._patch(monkeypatch, os, "fsync")

    def arm(self, n: int, code: int) -> None:
        self.left, self.code = n, code
        self.calls.clear()

    @property
    def spent(self) -> bool:
        return self.left <= 0

    def _patch(self, monkeypatch: pytest.MonkeyPatch, module, name: str) -> None:
        real = getattr(module, name)

        def call(*args, **kwargs):
            self.calls.append(name)
            self.left -= 1
            if self.left == 0:
                raise OSError(self.code, os.strerror(self.code))
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, call)


def inode(path) -> int:
    status = os.stat(path)
    assert stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    return status.st_ino
