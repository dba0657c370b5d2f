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
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in (cache, cache.parent, cache.parent.parent) if os.name != "nt" else ():
        about = folder.lstat()
        own = about.st_uid == os.geteuid() and stat.S_ISDIR(about.st_mode)
        if not own or about.st_mode & stat.S_IWOTH:
            raise PermissionError(f"{folder} is not this user's alone")
    return cache
