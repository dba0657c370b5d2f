"""Apps of another system that were read before: the project made of one is taken again as it is."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

import hansa
from hansa.console.seat import Importer
from hansa.consulted import files_below
from hansa.store.files import write_durably


class _Import(msgspec.Struct, frozen=True):
    """What was read of which app, and by what."""

    app: str | None
    project: str | None
    hansa: str
    read: list[tuple[str, str]]


def imported(importer: Importer, source: Path, target: Path) -> Sequence[tuple[str, str]]:
    """Make a project of an app, unless it was made and neither has changed; return what was read.

    Raises:
      HansaError: as the importer.
    """
    mark = target.with_name(f".{target.name}.json")
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
        known = msgspec.json.decode(mark.read_bytes(), type=_Import)
        if known.app is not None and known == _import(source, target, known.read):
            return known.read
    shutil.rmtree(target, ignore_errors=True)
    mark.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    before = files_below(source)
    read = [(what, told) for what, told in importer(source, target)]
    made = _import(source, target, read)
    if made.app == before:  # nobody has edited it meanwhile
        write_durably(mark, [msgspec.json.encode(made)])
    return read


def _import(source: Path, target: Path, read: list[tuple[str, str]]) -> _Import:
    release = f"{hansa.__version__} {files_below(Path(hansa.__file__).parent / 'compat')}"
    return _Import(files_below(source), files_below(target), release, read)
