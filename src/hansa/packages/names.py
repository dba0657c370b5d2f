"""Names of files in a package: those that mean one and the same file on every system."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from hansa.errors import PackageError
from hansa.limits import PACKAGE_DEPTH_MAX, PACKAGE_NAME_BYTES_MAX, PACKAGE_PART_BYTES_MAX
from hansa.text import clean

_RESERVED = {"con", "prn", "aux", "nul", "conin$", "conout$", "clock$"}
_RESERVED |= {f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"}
_NOT_IN_NAMES = set('<>:"|?*\\')
_COMPILED = (".pyc", ".pyo")


def check_names(names: Iterable[str]) -> None:
    """Refuse names that are unsafe, or that are one file on some system and two on another.

    Args:
      names: paths below a package's folder, with / between folders.

    Raises:
      PackageError: package-name.
    """
    spellings: dict[str, tuple[str, bool]] = {}  # folded path -> as written, whether a file
    for name in names:
        _check_name(name)
        parts = name.split("/")
        for length in range(1, len(parts) + 1):
            path = "/".join(parts[:length])
            now = (path, length == len(parts))
            before = spellings.setdefault(_folded(path), now)
            if before != now or (now[1] and before is not now):
                raise _refused(
                    name, f"cannot stand beside {clean(before[0])!r}: one place for both"
                )


def _folded(path: str) -> str:
    """Return what is the same for two names that some file system cannot tell apart."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())


def _check_name(name: str) -> None:
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise _refused(name, "is not valid Unicode") from None
    if size > PACKAGE_NAME_BYTES_MAX:
        raise _refused(name, f"is longer than {PACKAGE_NAME_BYTES_MAX} bytes")
    parts = name.split("/")
    if len(parts) > PACKAGE_DEPTH_MAX:
        raise _refused(name, f"lies more than {PACKAGE_DEPTH_MAX} folders deep")
    if bad := next((c for c in name if _is_odd(c)), None):
        raise _refused(name, f"holds the character U+{ord(bad):04X}")
    for part in parts:
        if fault := _fault(part):
            raise _refused(name, fault)


def _is_odd(char: str) -> bool:
    kind = unicodedata.category(char)
    return kind[0] == "C" or kind in ("Zl", "Zp") or char in _NOT_IN_NAMES


def _fault(part: str) -> str | None:
    """Return what is wrong with one step of a path."""
    if part in ("", ".", ".."):
        return "is absolute, a folder, or leads out of the package"
    if part[-1] in ". " or part[0] == " ":
        return "has a part that begins or ends with a blank, or ends with a dot"
    if len(part.encode()) > PACKAGE_PART_BYTES_MAX:
        return f"has a part longer than {PACKAGE_PART_BYTES_MAX} bytes"
    # Some systems see what folding makes of a part: a full-width dot or slash is one to them.
    folded = _folded(part)
    if set(folded) & (_NOT_IN_NAMES | {"/"}) or folded[-1] in ". " or folded[0] == " ":
        return "has a part that some systems read as another path"
    if folded.partition(".")[0].rstrip() in _RESERVED:
        return "has a part that names a device on Windows"
    if folded == "__pycache__" or folded.endswith(_COMPILED):
        return "is compiled code, which nobody can review"
    return None


def _refused(name: str, fault: str) -> PackageError:
    return PackageError(
        "package-name",
        f"The package's file {clean(name)!r} {fault}. Nothing was written.",
        "Rename it in the project, then submit the project again.",
    )
