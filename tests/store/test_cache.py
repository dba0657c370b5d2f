"""Folders of what can be made again: nobody else looks into them or puts something there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hansa.store.cache import cache_folder

pytestmark = pytest.mark.skipif(os.name == "nt", reason="has no such rights")


def test_every_folder_that_is_made_is_this_users_alone(home: Path) -> None:
    before = os.umask(0o002)
    try:
        folder = cache_folder("things")
    finally:
        os.umask(before)
    assert folder == home / ".cache" / "hansa" / "things"
    for made in (folder, folder.parent, folder.parent.parent):
        assert made.stat().st_mode & 0o777 == 0o700


def test_nothing_is_made_below_a_folder_that_others_may_write_to_or_that_is_a_link(
    home: Path,
) -> None:
    for mode in (0o777, None):
        cache = home / ".cache"
        if mode is not None:
            cache.mkdir()
            cache.chmod(mode)
        else:
            cache.rmdir()
            cache.symlink_to(home)
        with pytest.raises(PermissionError, match="is not this user's alone"):
            cache_folder("things")
        assert not (cache / "hansa").exists()
