"""Packages that this Python imports from elsewhere: those of `pip install -e`.

Such an install leaves a line or a finder in site-packages that names the sources.  A sandbox has
the packages and modules that are found there, and nothing that lies beside them: a folder of
sources is often one of data, too.
"""

from __future__ import annotations

import ast
import importlib.machinery
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from hansa.limits import PATH_FILE_BYTES_MAX

_SUFFIXES = tuple(importlib.machinery.all_suffixes())


def linked_packages(folders: Sequence[str]) -> Iterator[Path]:
    """Yield the packages and modules outside that site-packages folders lead to.

    Namespace packages, folders without `__init__.py`, are left out: nothing tells them from data.

    Args:
      folders: as `site.getsitepackages()` returns them.
    """
    for folder in map(Path, folders):
        for file in sorted(folder.glob("*.pth")):
            for line in _text(file).splitlines():
                if line.strip() and not line.startswith(("#", "import ", "import\t")):
                    yield from _modules(Path(os.path.abspath(folder / line.strip())))
        for file in sorted(folder.glob("__editable__*_finder.py")):
            yield from _mapped(_text(file))


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(PATH_FILE_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return ""


def _modules(folder: Path) -> Iterator[Path]:
    try:
        inside = sorted(folder.iterdir())
    except (OSError, ValueError):
        return  # it was moved since, or never was one
    yield from filter(_is_code, inside)


def _is_code(path: Path) -> bool:
    """Return whether a path is a package's, or a module's; a whole home is neither."""
    if (path / "__init__.py").is_file():
        return not Path(os.path.realpath(os.path.expanduser("~"))).is_relative_to(path.resolve())
    return path.name.endswith(_SUFFIXES) and path.is_file()


def _mapped(finder: str) -> Iterator[Path]:
    """Yield what setuptools' finder names: a dict of the packages' names and their places."""
    try:
        lines = ast.parse(finder).body
    except (SyntaxError, ValueError):
        return
    for line in lines:
        if isinstance(line, ast.AnnAssign | ast.Assign) and isinstance(line.value, ast.Dict):
            target = line.target if isinstance(line, ast.AnnAssign) else line.targets[0]
            if isinstance(target, ast.Name) and target.id == "MAPPING":
                yield from _places(line.value)


def _places(mapping: ast.Dict) -> Iterator[Path]:
    for value in mapping.values:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            place = Path(value.value)  # of a module: without its suffix
            found = [place, *(Path(f"{place}{suffix}") for suffix in _SUFFIXES)]
            if place.is_absolute():
                yield from filter(_is_code, found)
