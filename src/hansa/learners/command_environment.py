"""A Python environment made of a package's requirements: once for each content of the file.

    ~/.cache/hansa/environments/<digest>/         a virtual environment
    ~/.cache/hansa/environments/<digest>/ready    it is whole

The digest is that of the requirements, of the wheels in the package, and of this Python, so what
changes is built anew and what does not is there at once.  pip does the work, with its own settings:
a package that brings its wheels is built without a network, as in a site's sandbox.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from blake3 import blake3

from hansa.errors import PackageError
from hansa.learners.command_call import last_lines
from hansa.learners.command_process import Place
from hansa.limits import ENVIRONMENT_BUILD_S
from hansa.store.cache import cache_folder

_READY = "ready"
_PATHS = re.compile(rb"^\s*(-e\b|--editable\b|\.|/)|@\s*file:", re.MULTILINE)
"""Lines of requirements that name a folder or a file."""


def environment_python(
    requirements: str, code: Mapping[str, bytes], folder: Path, place: Place
) -> Path:
    """Return the interpreter of the environment that a package asks for; build it if needed.

    Args:
      requirements: name of the file that lists packages.
      code: the package's files.
      folder: where they lie; paths in the requirements start there.
      place: runs the programs that build it.

    Raises:
      PackageError: package-environment, it cannot be built.
    """
    if requirements not in code:
        raise _not_built(
            f"the project has no file {requirements}", "Write it, or correct its name."
        )
    import filelock  # slow to import

    target = _cache() / _digest(requirements, code)
    with filelock.FileLock(target.with_suffix(".lock")):
        if not (target / _READY).is_file():
            shutil.rmtree(target, ignore_errors=True)
            _build(target, requirements, folder, place)
            (target / _READY).touch()
    return _python(target)


def _digest(requirements: str, code: Mapping[str, bytes]) -> str:
    hasher = blake3(f"{sys.version}\0{sys.platform}\0{sys.base_prefix}".encode())
    # What is installed from a folder of the package may be any of its files.
    whole = any(_PATHS.search(text) for name, text in code.items() if name.endswith(".txt"))
    whole |= bool(_PATHS.search(code[requirements]))
    for name, content in sorted(code.items()):
        if whole or not name.endswith(".py"):
            hasher.update(f"\0{name}\0{len(content)}\0".encode() + content)
    return hasher.hexdigest()[:32]


def _cache() -> Path:
    """Return the folder of environments; others must not be able to put code there.

    Raises:
      PackageError: package-environment, it is somebody else's, or others may write to it.
    """
    try:
        return cache_folder("environments")
    except PermissionError as error:
        raise _not_built(str(error), "Remove it, or take others' rights away.") from None


def _build(target: Path, requirements: str, folder: Path, place: Place) -> None:
    pip = ["-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--quiet"]
    steps = [
        [sys.executable, "-m", "venv", str(target)],
        [str(_python(target)), *pip, "--requirement", requirements],
    ]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    for words in steps:
        ended = place.run(
            words, folder=folder, environment=environment, seconds=ENVIRONMENT_BUILD_S
        )
        if ended.status != 0:
            shutil.rmtree(target, ignore_errors=True)
            said = last_lines(ended.output) or f"status {ended.status}"
            raise _not_built(
                f"{' '.join(words[1:3])} failed: {said}",
                "Where there is no network, put wheels into the package, name their folder in "
                f"learner.files, and begin {requirements} with: --no-index --find-links FOLDER",
            )


def _python(target: Path) -> Path:
    return target / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _not_built(why: str, hint: str) -> PackageError:
    what = f"The environment of the package cannot be built: {why}. Nothing was run."
    return PackageError("package-environment", what, hint)
