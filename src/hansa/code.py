"""A project as it is written, and its own files: what is recorded of a run is what runs.

Python imports a module once a process, by its name, and may take compiled code from a cache.  A
notebook edits a file and runs again, and two projects may each have a `net.py`.  So a project's
modules are compiled from the bytes that were read for the record, and each state of each project
keeps modules of its own, which are put in place when it is its turn.
"""

from __future__ import annotations

import importlib.util
import os
import posixpath
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
)
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

import msgspec
from blake3 import blake3

from hansa.errors import LearnerError, RunError
from hansa.limits import CODE_BYTES_MAX, CODE_FILES_MAX
from hansa.plan import PLAN_FILE, Plan, load_plan
from hansa.plan.schema import LearnerPlan

MADE_IN_PYTHON = "python"
"""The learner kind of a run whose plan alone does not say what was trained."""

MODULE_PREFIX = "hansa_project_"
"""Names of modules that are a project's begin so."""

Code = Mapping[str, bytes]
"""Contents of a project's files by path below its folder, with / between folders; sorted."""


class Draft(NamedTuple):
    """A project folder as it was read: nothing of it was checked against the rest, or imported."""

    plan: Plan
    folder: Path
    sources: dict[str, str]  # where each value of the plan came from
    code: dict[str, bytes]  # the project's files, by path below the folder


def read_draft(
    folder: Path, sets: Iterable[str] = (), *, changes: Mapping[str, Any] | None = None
) -> Draft:
    """Read a project folder; `sets` and `changes` are those of `hansa.plan.read_plan`.

    Raises:
      PlanError: there is no plan, or it is none.
      LearnerError: there is too much code.
    """
    loaded = load_plan(folder / PLAN_FILE, sets, changes=changes)
    return Draft(loaded.plan, folder, loaded.sources, read_code(folder, loaded.plan.learner))


def read_code(folder: Path, learner: LearnerPlan | None = None) -> dict[str, bytes]:
    """Return all Python files of a project, and those that its commands are made of.

    Of a `command` learner these are the files that its arguments name, and the files and folders
    of `learner.files`.  Left out are hidden files, caches, virtual environments, runs with their
    copies of code, and the plan itself.

    Args:
      folder: of the project.
      learner: the plan's; None takes the Python files alone.

    Raises:
      LearnerError: there are too many of them, or they are too large.
    """
    code: dict[str, bytes] = {}
    size = 0
    for path in _files(folder, named_files(learner) if learner else Named()):
        size += path.stat().st_size
        if len(code) == CODE_FILES_MAX or size > CODE_BYTES_MAX:
            raise LearnerError(
                "learner-module",
                f"{folder} holds more than {CODE_FILES_MAX:,} files of code, or more than "
                f"{CODE_BYTES_MAX >> 20} MiB of them; all are kept with each run.",
                "Give the project a folder of its own, without other programs or data in it.",
            )
        code[path.relative_to(folder).as_posix()] = path.read_bytes()
    return dict(sorted(code.items()))


class Named(NamedTuple):
    """What a plan names of the project folder, as normal paths, there or not."""

    files: frozenset[str] = frozenset()  # by an argument of a command; never a whole folder
    parts: frozenset[str] = frozenset()  # by learner.files: files, and folders with all in them


def named_files(learner: LearnerPlan) -> Named:
    """Return what a `command` learner is made of, beside Python files."""
    if learner.kind != "command":
        return Named()
    words = (word for command in learner.commands.values() for word in command)
    return Named(_paths(words), _paths((*learner.files, learner.requirements or "")))


def _paths(words: Iterable[str]) -> frozenset[str]:
    named = {posixpath.normpath(word) for word in words if word}
    return frozenset(name for name in named if name[0] not in "./")


def _files(folder: Path, named: Named) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        at = Path(here)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name != "__pycache__"
            and not (name == "runs" and at == folder)
            and not any((at / name / mark).is_file() for mark in ("pyvenv.cfg", "run.json"))
        )
        for name in sorted(files):
            path = at / name
            if not path.is_file():  # a link to nothing, a socket
                continue
            if name.endswith(".py") or (_is_named(path, folder, named) and not _is_aside(name)):
                yield path


def _is_named(path: Path, folder: Path, named: Named) -> bool:
    inside = path.relative_to(folder)
    if inside.as_posix() == PLAN_FILE:  # which travels by itself
        return False
    above = {parent.as_posix() for parent in (inside, *inside.parents)}
    return inside.as_posix() in named.files or not above.isdisjoint(named.parts)


def _is_aside(name: str) -> bool:
    return name.startswith(".") or name.endswith((".pyc", ".pyo"))


def code_digest(code: Code) -> bytes:
    """Return a digest of names and contents."""
    hasher = blake3()
    for name, content in code.items():
        hasher.update(f"\0{name}\0{len(content)}\0".encode())
        hasher.update(content)
    return hasher.digest()


def code_changed(folder: Path | str) -> RunError:
    """Return the error for files that are not those that a run was opened with."""
    return RunError(
        "run-changed",
        f"The code in {folder} has changed since the run was opened.",
        "Run again: changed code is another run.",
    )


def identity(plan: Plan, code: Code) -> str:
    """Return the digest of what will run: the plan with every default, and the code."""
    hasher = blake3(msgspec.json.encode(msgspec.to_builtins(plan), order="deterministic"))
    hasher.update(code_digest(code))
    return f"blake3:{hasher.hexdigest()}"


class _State(NamedTuple):
    """One state of one project's code."""

    folder: Path
    digest: bytes


_current: _State | None = None
_sources: dict[str, bytes] = {}  # of the current state, by absolute path
_folders: set[str] = set()  # which hold them, and those between them and the project folder
_shelf: dict[_State, dict[str, ModuleType]] = {}  # modules of the states that are not current


def make_current(folder: Path, code: Code) -> None:
    """Let imports find this code, and no other project's.

    Modules of other projects, and of this one before it was edited, leave `sys.modules`; those
    of this very code return, if it has been current before.  One project folder is on `sys.path`.
    """
    global _current
    folder = folder.resolve()
    state = _State(folder, code_digest(code))
    if _current is None:
        sys.path_hooks.insert(0, _finder)
    elif state != _current:
        _shelf[_current] = _taken_out()
        if str(_current.folder) in sys.path:
            sys.path.remove(str(_current.folder))
    if state != _current or str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    if state != _current:
        _sources.clear()
        _sources.update({str(folder / name): content for name, content in code.items()})
        _set_folders(folder, code)
        _taken_out()  # what somebody imported from here without us may be older than the code
        sys.modules.update(_shelf.pop(state, {}))
        _current = state


def import_path(path: Path, name: str) -> ModuleType:
    """Import one file of the current project under a name of its own.

    Raises:
      Exception: whatever the file raises.
    """
    loader = _Recorded(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None  # a loader was given
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class _Recorded(SourceFileLoader):
    """Compiles the bytes that were read for the record; a .pyc may be older than an edit."""

    def get_code(self, fullname: str) -> CodeType | None:
        path = self.get_filename(fullname)
        source = _sources.get(path) or self.get_data(path)
        code: CodeType = self.source_to_code(source, path)
        return code


def _finder(path: str) -> FileFinder:
    """Find modules in the folders of the current code; `sys.path_hooks` calls this."""
    if path not in _folders:
        raise ImportError
    kinds: list[tuple[type[Any], list[str]]] = [
        (ExtensionFileLoader, EXTENSION_SUFFIXES),
        (_Recorded, SOURCE_SUFFIXES),
    ]
    return FileFinder(path, *kinds)


def _set_folders(folder: Path, code: Code) -> None:
    """Make the finders of the code's folders anew, and forget those of the state before."""
    old = set(_folders)
    _folders.clear()
    _folders.update(str(folder / parent) for name in code for parent in Path(name).parents)
    for stale in old | _folders:
        sys.path_importer_cache.pop(stale, None)


def _taken_out() -> dict[str, ModuleType]:
    """Remove the current code's modules from `sys.modules` and return them."""
    taken = {
        name: module
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] not in ("__main__", "hansa") and _is_ours(module)
    }
    for name in taken:
        del sys.modules[name]
    return taken


def _is_ours(module: ModuleType) -> bool:
    facts = getattr(module, "__dict__", {})  # asking a lazy module might import it
    if isinstance(facts.get("__file__"), str):
        return facts["__file__"] in _sources
    # A folder without __init__.py is a package too, and has no file.
    path = list(facts.get("__path__") or ())
    return bool(path) and all(part in _folders for part in path)
