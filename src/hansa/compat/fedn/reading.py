"""A FEDn compute package as its files describe it; nothing of it is executed."""

from __future__ import annotations

import fnmatch
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hansa.compat.fedn.formats import FORMS
from hansa.compat.fedn.small_yaml import read_yaml
from hansa.errors import PackageError, PlanError
from hansa.limits import CODE_BYTES_MAX, CODE_FILES_MAX, PROJECT_FILE_BYTES_MAX
from hansa.packages.names import check_names
from hansa.packages.tar import read_tar
from hansa.text import clean

DESCRIPTION = "fedn.yaml"
_IGNORE = ".fednignore"
_ENTRIES = {  # Hansa's task: the names that FEDn has had for it
    "init": ("build",),
    "startup": ("startup",),
    "train": ("train",),
    "validate": ("validate",),
    "predict": ("predict", "infer"),
    "forward": ("forward",),
    "backward": ("backward",),
}
_SPLIT = frozenset({"forward", "backward"})
_FEDN = re.compile(r"fedn(?![\w.-])|.*#egg=fedn\b|(git\+)?https?://\S*/fedn(\.git)?\b", re.I)
_HELPER = re.compile(
    rb"(numpyarray|numpy|binary|android|keras|pytorch|splitlearning)_?helper", re.I
)


class FednPackage(NamedTuple):
    """What a package is made of."""

    name: str
    files: Mapping[str, bytes]  # by path below the archive's top
    folder: str  # which holds fedn.yaml; "" is the top
    lines: Mapping[str, str]  # its own command lines, by Hansa's task; also startup
    described: bool  # by fedn.yaml; or else by the names of its files, as once was usual
    needs: tuple[str, ...]  # Python packages, without fedn
    environment: str | None  # the file that lists them
    helper: str  # of its model files
    left: tuple[str, ...]  # entry points without a counterpart

    @property
    def splits(self) -> bool:
        """Whether it holds a part of a split model, and does not train by itself."""
        return "train" not in self.lines and self.lines.keys() >= _SPLIT


def read_package(path: Path, helper: str | None = None) -> FednPackage:
    """Read a package: a folder, or a .tgz, .tar.gz or .tar.bz2 in either layout.

    Args:
      path: of it.
      helper: name of the helper of its model files; by default what its code names.

    Raises:
      PlanError: import-refused, it is no compute package, or says something that has no meaning
        here.
      PackageError: an archive is damaged or too large.
    """
    if path.is_dir():
        name = path.resolve().name
        files = {f"{name}/{inside}": content for inside, content in _folder_files(path)}
        check_names(files)
    elif path.is_file():
        name = re.sub(r"\.(tgz|tar(\.\w+)?)$", "", path.name)
        files = read_tar(path)
    else:
        raise _refused(f"There is no {path}.", "Name a folder with fedn.yaml, or a .tgz of one.")
    folder = _project_folder(files, path)
    own = {_below(folder, f): c for f, c in files.items() if _is_below(folder, f)}
    described = DESCRIPTION in own
    table = _described(own[DESCRIPTION]) if described else {}
    lines, left = _lines(table) if described else (_fallback(own), ())
    needs, environment = _environment(table, own)
    return FednPackage(
        name, files, folder, lines, described, needs, environment,
        helper or _named_helper(own), left,
    )  # fmt: skip


def _folder_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield a folder's files; hidden ones, caches and environments are not the package's."""
    ignored = _ignored(folder / _IGNORE)
    count = size = 0
    for here, folders, names in os.walk(folder):
        at = Path(here)
        folders[:] = sorted(
            f
            for f in folders
            if not f.startswith(".") and f != "__pycache__"
            and not (at / f / "pyvenv.cfg").is_file() and not (at / f).is_symlink()
        )  # fmt: skip
        for name in sorted(names):
            path = at / name
            inside = path.relative_to(folder).as_posix()
            aside = name.startswith(".") or name.endswith((".pyc", ".pyo"))
            if aside or not path.is_file() or path.is_symlink() or _matches(inside, ignored):
                continue
            count, size = count + 1, size + path.stat().st_size
            if count > CODE_FILES_MAX or size > CODE_BYTES_MAX:
                raise PackageError(
                    "package-too-large",
                    f"{folder} holds more than {CODE_FILES_MAX:,} files, or more than "
                    f"{CODE_BYTES_MAX >> 20} MiB of them. Nothing was written.",
                    f"Name data and models in {_IGNORE}, or move them out of the folder.",
                )
            yield inside, path.read_bytes()


def _ignored(path: Path) -> list[str]:
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _matches(inside: str, patterns: list[str]) -> bool:
    names = (inside, posixpath.basename(inside), *inside.split("/")[:-1])
    return any(fnmatch.fnmatch(n, p.removesuffix("/")) for n in names for p in patterns)


def _project_folder(files: Mapping[str, bytes], path: Path) -> str:
    """Return the topmost folder with fedn.yaml, or else with train.py."""
    for wanted in (DESCRIPTION, "train.py"):
        found = [posixpath.dirname(f) for f in files if posixpath.basename(f) == wanted]
        if found:
            return min(found, key=lambda folder: (len(folder.split("/")) if folder else 0, folder))
    raise _refused(
        f"{path} holds neither {DESCRIPTION} nor train.py.",
        "Name the compute package: the folder with fedn.yaml, or a .tgz of it.",
    )


def _is_below(folder: str, name: str) -> bool:
    return not folder or name.startswith(f"{folder}/")


def _below(folder: str, name: str) -> str:
    return name[len(folder) + 1 :] if folder else name


def _described(content: bytes) -> dict[str, Any]:
    table = _yaml(content, DESCRIPTION)
    if not isinstance(table, dict) or not isinstance(table.get("entry_points"), dict):
        raise _refused(f"{DESCRIPTION} has no entry_points.", "Add them, with train at least.")
    return table


def _yaml(content: bytes, name: str) -> Any:
    if len(content) > PROJECT_FILE_BYTES_MAX:
        raise _refused(f"{name} has more than {PROJECT_FILE_BYTES_MAX >> 20} MiB.", "Correct it.")
    try:
        return read_yaml(content.decode("utf-8"), name)
    except UnicodeDecodeError:
        raise _refused(f"{name} is not UTF-8.", "Save it as UTF-8.") from None


def _lines(table: Mapping[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    entries, lines = table["entry_points"], {}
    for task, names in _ENTRIES.items():
        for name in names:
            entry = entries.get(name)
            line = entry.get("command") if isinstance(entry, dict) else entry
            if isinstance(line, str):
                lines[task] = line
    if "train" not in lines and not lines.keys() >= _SPLIT:
        raise _refused(
            f"{DESCRIPTION} has no command under entry_points.train, and not both forward and "
            "backward, which split learning needs.",
            "Add one, such as: command: python entrypoint.py train",
        )
    known = {name for names in _ENTRIES.values() for name in names}
    left = entries.keys() - known | (lines.keys() & _SPLIT if "train" in lines else set())
    return lines, tuple(sorted(map(clean, left)))


def _fallback(own: Mapping[str, bytes]) -> dict[str, str]:
    """Return the lines that FEDn ran up to 0.9 for a package without a description."""
    return {
        task: f"python3 {task}.py" for task in ("train", "validate", "predict")
        if f"{task}.py" in own
    }  # fmt: skip


def _environment(
    table: Mapping[str, Any], own: Mapping[str, bytes]
) -> tuple[tuple[str, ...], str | None]:
    name = table.get("python_env")
    if name is None:
        return (), None
    if not isinstance(name, str) or name not in own:
        raise _refused(f"{DESCRIPTION} names {name!r:.80}, which is not there.", "Add the file.")
    found = _yaml(own[name], name)
    listed = found.get("dependencies") if isinstance(found, dict) else None
    needs = tuple(str(need) for need in listed or () if need and not _FEDN.match(str(need)))
    return needs, name


def _named_helper(own: Mapping[str, bytes]) -> str:
    """Return the one helper, or kind of file, that a package's code names."""
    sources = b"\n".join(c for f, c in own.items() if f.endswith(".py") or "." not in f)
    found = {f"{m[1].decode().lower()}helper" for m in _HELPER.finditer(sources)}
    if len({FORMS[name] for name in found}) > 1:
        raise _refused(
            f"The package names several helpers: {', '.join(sorted(found))}.",
            "Say which one its model files are of, with --helper.",
        )
    return min(found, default="numpyhelper")


def _refused(what: str, hint: str) -> PlanError:
    return PlanError("import-refused", f"{what} Nothing was written.", hint)
