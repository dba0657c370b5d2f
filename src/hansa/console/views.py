"""Views of a run's own files, as they are in the workspace here; nothing else is ever opened.

FLARE's look into a folder of the server or of a client.  Here `server` is the run's workspace on
this machine, with what the server has told; a site's files stay with its owner.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path

from hansa.clock import date_of
from hansa.console.parsing import Command
from hansa.console.seat import Seat
from hansa.errors import ConsoleError
from hansa.limits import CONSOLE_VIEW_BYTES, CONSOLE_VIEW_LINES
from hansa.text import ERROR_CHARS, clean

_LINES = 10
"""That head and tail show, as the commands of those names do."""


def ls(seat: Seat, command: Command) -> Iterator[str]:
    """List files: -a also hidden ones, -l long, -R below, -t newest first, -S largest first."""
    root = _root(seat, command)
    here = _within(root, command.words[1] if len(command.words) > 1 else ".")
    if not here.is_dir():
        raise _no_file(command.words[1], "is no folder")
    options = command.options
    found = []
    for path in here.rglob("*") if "-R" in options else here.iterdir():
        hidden = any(part.startswith(".") for part in path.relative_to(here).parts)
        if (not hidden or "-a" in options) and not path.is_symlink():
            found.append((path, path.lstat()))
        if len(found) > CONSOLE_VIEW_LINES:
            break
    found.sort(key=lambda pair: pair[0].relative_to(here).as_posix())
    if "-t" in options:
        found.sort(key=lambda pair: -pair[1].st_mtime_ns)
    if "-S" in options:
        found.sort(key=lambda pair: -pair[1].st_size)
    for path, about in found[:CONSOLE_VIEW_LINES]:
        name = clean(path.relative_to(here).as_posix(), ERROR_CHARS) + "/" * path.is_dir()
        at = date_of(about.st_mtime).isoformat()
        yield f"{about.st_size:>12,}  {at}  {name}" if "-l" in options else name
    if len(found) > CONSOLE_VIEW_LINES:
        yield f"... more than {CONSOLE_VIEW_LINES} files"


def cat(seat: Seat, command: Command) -> Iterator[str]:
    """Show a file: -n numbers its lines, -b those that are not empty, -s squeezes empty ones."""
    number, before = 0, "x"
    for line in _shown(_lines(seat, command)):
        if "-s" in command.options and not line and not before:
            continue
        before = line
        counted = "-n" in command.options or ("-b" in command.options and bool(line))
        number += counted
        yield f"{number:>6}  {line}" if counted else line


def head(seat: Seat, command: Command) -> Iterator[str]:
    """Show the first lines."""
    yield from _lines(seat, command)[: _count(command)]


def tail(seat: Seat, command: Command) -> Iterator[str]:
    """Show the last lines."""
    count = _count(command)
    yield from _lines(seat, command)[-count:] if count else []


def grep(seat: Seat, command: Command) -> Iterator[str]:
    """Show lines that hold a text as it stands: -i any case, -n numbers, -c only their count."""
    options, wanted = command.options, command.words[1]
    pattern = re.compile(re.escape(wanted), re.IGNORECASE if "-i" in options else 0)
    lines = enumerate(_lines(seat, command), 1)
    found = [(number, line) for number, line in lines if pattern.search(line)]
    if "-c" in options:
        yield str(len(found))
        return
    yield from _shown([f"{n}:{line}" if "-n" in options else line for n, line in found])


def pwd(seat: Seat, command: Command) -> Iterator[str]:
    """Tell where the files are."""
    yield str(_root(seat, command))


def files(seat: Seat) -> list[str]:
    """Return names for completion: the files of the current run number."""
    root = seat.workspace.place(seat.workspace.number)
    if not seat.workspace.number or not root.is_dir():
        return []
    found = (p for p in root.rglob("*") if p.is_file() and not p.is_symlink())
    names = (p.relative_to(root).as_posix() for p, _ in zip(found, range(500), strict=False))
    return sorted(names)


def _root(seat: Seat, command: Command) -> Path:
    """Return the run's workspace, with what the server has told since the last look."""
    if command.words[0] != "server":
        who = clean(command.words[0])
        raise ConsoleError(
            "console-refused",
            f"Files of {who} are not shown: what is at a site stays with its owner. Nothing was "
            "done.",
            f"Type {command.verb} server ...; a run's failures at sites are told by show_errors.",
        )
    number = seat.workspace.number
    if not number:
        raise ConsoleError(
            "console-order",
            "Please set a run number: files are those of a run. Nothing was done.",
            "Type: set_run_number 1",
        )
    folder = seat.workspace.run(number)
    if folder is not None:
        seat.bring_events(folder)
    return seat.workspace.place(number).resolve()


def _within(root: Path, name: str) -> Path:
    """Return a path below the run's workspace that no link leads out of."""
    try:
        path = (root / name).resolve()
    except (OSError, ValueError, RuntimeError):
        raise _no_file(name, "is no name of a file") from None
    if path != root and root not in path.parents:
        raise _no_file(name, "is not one of the run's own files")
    if not path.exists():
        raise _no_file(name, "does not exist in the run's folder")
    return path


def _lines(seat: Seat, command: Command) -> list[str]:
    """Return a text file's lines, made harmless for a terminal."""
    name = command.words[-1]
    path = _within(_root(seat, command), name)
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise _no_file(name, "is no file")
    if about.st_size > CONSOLE_VIEW_BYTES:
        raise _no_file(name, f"has {about.st_size:,} bytes, more than {CONSOLE_VIEW_BYTES:,}")
    with open(path, "rb") as file:
        content = file.read(CONSOLE_VIEW_BYTES)
    if b"\0" in content:
        raise _no_file(name, "holds no text")
    return [_harmless(line) for line in content.decode("utf-8", "replace").splitlines()]


def _harmless(line: str) -> str:
    """Return a line with its indentation; what would act on a terminal is spelt out."""
    indent = line[: len(line) - len(line.lstrip(" "))][:80]
    return indent + clean(line, ERROR_CHARS)


def _shown(lines: list[str]) -> list[str]:
    more = [f"... {len(lines):,} lines in all; see more with: tail -n, grep"]
    return lines if len(lines) <= CONSOLE_VIEW_LINES else lines[:CONSOLE_VIEW_LINES] + more


def _count(command: Command) -> int:
    text = command.options.get("-n", str(_LINES))
    if not (text.isascii() and text.isdecimal() and len(text) < 7):
        raise ConsoleError(
            "console-verb",
            f"{clean(text)!r} is no number of lines. Nothing was done.",
            f"Type: {command.verb} -n {_LINES} server FILE",
        )
    return min(int(text), CONSOLE_VIEW_LINES)


def _no_file(name: str, why: str) -> ConsoleError:
    return ConsoleError(
        "console-file",
        f"{clean(name)} {why}. Nothing was shown.",
        "ls -R server lists what there is; pwd server tells where, for other programs.",
    )
