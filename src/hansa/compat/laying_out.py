"""A new project folder made from one of another system: how values are written, and where.

Nothing that exists is written over, and nothing of the other project is executed.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hansa.errors import PlanError
from hansa.text import toml


class Written(NamedTuple):
    """A project that was made."""

    folder: Path
    facts: list[tuple[str, str]]  # what it says, and where that was taken from
    left: list[str]  # files that are not code, which were not copied


def new_folder(source: Path, target: Path | None) -> Path:
    """Return the folder that a project is to be written to, which is not there yet.

    Raises:
      PlanError: project-exists.
    """
    target = target or source.with_name(f"{source.name}-hansa")
    if target.exists() or target.is_symlink():
        raise PlanError(
            "project-exists",
            f"{target} is there already. Nothing was written.",
            "Choose another folder with --to.",
        )
    return target


@contextlib.contextmanager
def whole(target: Path) -> Iterator[Path]:
    """Give an empty folder beside `target` that takes its place; an error leaves nothing there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".import-", dir=target.parent) as work:
        fresh = Path(work) / "fresh"
        fresh.mkdir()
        yield fresh
        fresh.rename(target)


def lay_out(
    target: Path,
    code: Mapping[str, bytes],
    texts: Mapping[str, str],
    *,
    more: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Write the other project's code as it is, the new files, and what `more` writes."""
    with whole(target) as folder:
        for name, content in code.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        more(folder)


def not_code(source: Path, target: Path, known: tuple[str, ...]) -> Iterator[str]:
    """Yield files that a client might read and that were not copied, but for known ones."""
    for here, folders, files in os.walk(source):
        at = Path(here)
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__")) and f != "runs")
        if at.resolve() == target.resolve():
            folders[:] = []
            continue
        for name in sorted(files):
            if not name.endswith((".py", ".pyc")) and name not in known and name[0] != ".":
                yield (at / name).relative_to(source).as_posix()


def line(key: str, value: Any, comment: str = "") -> str:
    """Return a line of plan.toml."""
    return f"{key} = {toml(value)}{f'  # {comment}' if comment else ''}"


def python(value: Any) -> str:
    """Return a value as Python writes it, with the quotes that formatters like."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{python(k)}: {python(v)}' for k, v in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(python(v) for v in value)}]"
    plain = (
        value is None
        or isinstance(value, int)
        or (isinstance(value, float) and math.isfinite(value))
    )
    return repr(value) if plain else json.dumps(str(value), ensure_ascii=False)
