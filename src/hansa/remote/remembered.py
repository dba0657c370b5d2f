"""Seed models of projects that were handed over before: nothing of such a project runs again.

    ~/.cache/hansa/seed-models/DIGEST    of the project and of what surrounds it

Making one imports the project's code, and with it a framework: seconds.  What was made is used
again where making it would come to the same: the plan, the code, every other file of the project,
the packages that are installed and the environment are as they were, and so is all else that was
looked at (`hansa.consulted`).  Of code that asks a network or starts programs nothing is kept.
All of it was checked when it was made; the server checks it again.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from blake3 import blake3

import hansa
from hansa.code import MODULE_PREFIX, Draft, identity
from hansa.consulted import Consulted, files_below, holds, is_inside
from hansa.limits import SEED_KEPT_BYTES, SEEDS_KEPT_BYTES, SEEDS_KEPT_MAX
from hansa.plan import PLAN_FILE
from hansa.runs.making import SeedFile, seed_file
from hansa.store.addresses import digest_of
from hansa.store.cache import cache_folder

if TYPE_CHECKING:
    from hansa.project import Project
    from hansa.runs.start import Start

_OF_A_SHELL = ("_", "OLDPWD", "PWD", "SHLVL")
"""Environment variables that differ from line to line, and say nothing."""


class _Kept(msgspec.Struct, frozen=True):
    """What is kept beside the bytes of a seed model."""

    folder: str  # of the project
    digest: str
    tensors: list[tuple[str, str, list[int]]]
    buffers: list[str]
    environment: dict[str, str]
    consulted: dict[str, str]


def seed_of(project: Project | Draft, start: Start | None = None) -> SeedFile:
    """Return the model that a run starts from, made now or at an earlier time.

    Args:
      project: one that is only written is built and checked here, unless it was before.
      start: a model to start from instead.

    Raises:
      HansaError: as `open_project` and `seed_model`; what has failed is not kept.
    """
    if start is not None or not isinstance(project, Draft):
        from hansa.remote.seed import seed_model

        built = _built(project) if isinstance(project, Draft) else project
        return seed_file(seed_model(built, start))
    files = _files(project)
    place = _place(project, files)
    found = _read(place, project) if place is not None else None
    if found is not None:
        return found
    seed, consulted = _made(project)
    if place is not None and consulted is not None and files == _files(project):
        _keep(place, project, seed, consulted)
    return seed


def check_whole(project: Draft) -> None:
    """Build and check a project, unless its seed model was made before.

    Raises:
      HansaError: as `open_project`.
    """
    place = _place(project, _files(project))
    if place is None or _read(place, project) is None:
        _built(project)


def _built(project: Draft) -> Project:
    from hansa.project import build_draft

    with _noting(project):  # a module is loaded once, and the seed model may be made later
        return build_draft(project)


def _made(project: Draft) -> tuple[SeedFile, dict[str, str] | None]:
    """Make the seed model; return also what that depended on, None if that is not known."""
    from hansa.project import build_draft
    from hansa.remote.seed import seed_model

    with _noting(project) as seen:
        seed = seed_file(seed_model(build_draft(project)))
    consulted = seen.facts()
    if consulted is None or not _project_modules() <= _noted:
        return seed, None
    # A copy of a project loads its own files, whatever was loaded of another one.
    others = _folders - {_folder(project)}
    return seed, {
        path: state
        for path, state in consulted.items()
        if is_inside(path, _folder(project)) or not any(is_inside(path, o) for o in others)
    }


_noted: set[str] = set()
"""Modules of projects that were loaded while notes were taken."""

_folders: set[str] = set()
"""Where those projects are."""


@contextlib.contextmanager
def _noting(project: Draft) -> Iterator[Consulted]:
    """Take notes; what was loaded before anybody did stays unknown."""
    unknown = _project_modules() - _noted
    with Consulted() as seen:
        yield seen
    _noted.update(_project_modules() - unknown)
    _folders.add(_folder(project))


def _folder(project: Draft) -> str:
    return str(project.folder.resolve())


def _project_modules() -> set[str]:
    return {name for name in list(sys.modules) if name.startswith(MODULE_PREFIX)}


def _files(project: Draft) -> str | None:
    """Return what tells the project's files apart that are no code; None: there are too many."""
    return files_below(project.folder, {PLAN_FILE, *project.code})


def _place(project: Draft, files: str | None) -> Path | None:
    """Return where the seed model of a project in these surroundings is kept, if it can be."""
    if files is None:
        return None
    try:
        surroundings = {
            "project": identity(project.plan, project.code),
            "current": os.getcwd(),
            "files": files,
            "hansa": hansa.__version__,
            "python": f"{sys.version} {sys.prefix}",
            "installed": list(_installed()),
            "environment": {k: v for k, v in os.environ.items() if k not in _OF_A_SHELL},
        }
        text = msgspec.json.encode(surroundings, order="sorted")
        return cache_folder("seed-models") / blake3(text).hexdigest()
    except (OSError, UnicodeEncodeError):  # no home, one that others may write to, or odd names
        return None


def _installed() -> Iterator[str]:
    """Tell the folders of packages apart from what they are once something is installed."""
    for folder in sys.path:
        if folder.endswith("-packages"):
            with contextlib.suppress(OSError):
                yield f"{folder} {os.stat(folder).st_mtime_ns}"


def _read(place: Path, project: Draft) -> SeedFile | None:
    """Return a seed model as it was kept; one that is damaged is removed."""
    try:
        whole = place.read_bytes()
    except OSError:
        return None
    digest, _, rest = whole.partition(b"\n")
    facts, _, model = rest.partition(b"\n")
    try:
        kept = msgspec.json.decode(facts, type=_Kept)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        kept = None
    sound = kept is not None and blake3(rest).hexdigest().encode() == digest
    if kept is None or not sound or digest_of(model) != kept.digest:
        _remove(place)
        return None
    if not holds(kept.consulted, was=kept.folder, now=_folder(project)):
        return None
    with contextlib.suppress(OSError):
        os.utime(place)  # those that are not used go first
    return SeedFile(kept.digest, [model], kept.tensors, kept.buffers, kept.environment)


def _keep(place: Path, project: Draft, seed: SeedFile, consulted: dict[str, str]) -> None:
    """Keep a seed model; a disk that is full keeps none, and a crash leaves none that is read."""
    if seed.size > SEED_KEPT_BYTES:
        return
    facts = _Kept(
        _folder(project), seed.digest, seed.tensors, seed.buffers, seed.environment, consulted
    )
    temporary = place.with_name(f".hansa-{os.urandom(8).hex()}.tmp")
    try:
        parts = [msgspec.json.encode(facts), b"\n", *seed.parts]
        hasher = blake3()
        for part in parts:
            hasher.update(part)
        temporary.write_bytes(b"".join([hasher.hexdigest().encode(), b"\n", *parts]))
        os.replace(temporary, place)
        _make_room(place.parent)
    except (OSError, UnicodeEncodeError):
        _remove(temporary)


def _make_room(folder: Path) -> None:
    """Remove what was not used for longest, beyond what may be kept."""
    entries = [(path.stat(), path) for path in folder.iterdir()]
    entries.sort(key=lambda entry: entry[0].st_mtime_ns, reverse=True)
    size = 0
    for number, (about, path) in enumerate(entries):
        size += about.st_size
        if number >= SEEDS_KEPT_MAX or size > SEEDS_KEPT_BYTES:
            _remove(path)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
