"""Folders of what can be made again: environments, and seed models.

~/.cache/hansa/NAME/
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


def cache_folder(name: str) -> Path:
    """Return a folder of the user's own cache, made if need be.

    Raises:
      PermissionError: others can put something there: it is somebody else's, or they may write.
      OSError: it cannot be made.
    """
    cache = Path(os.path.expanduser("~")) / ".cache" / "hansa" / name
    for folder in (cache.parent.parent, cache.parent, cache):
        folder.mkdir(mode=0o700, exist_ok=True)
        if os.name != "nt":
            about = folder.lstat()
            own = about.st_uid == os.geteuid() and stat.S_ISDIR(about.st_mode)
            if not own or about.st_mode & stat.S_IWOTH:
                raise PermissionError(f"{folder} is not this user's alone")
    return cache
