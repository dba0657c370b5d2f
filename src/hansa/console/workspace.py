"""What a console remembers, in a folder: uploaded apps, run numbers, and the runs they became.

    console.json     which number is current, which app and run each number has
    transfer/NAME/   apps to upload; the console only reads here
    staged/NAME/     an uploaded app as it was
    run_N/app/       the app of run number N as it was deployed
    run_N/NAME-1/    its run folder, once it was started; models and events come into it

Each number has a folder of runs of its own, so a start that is repeated after a crash finds the
run that it had begun, and never that of another number.
"""

from __future__ import annotations

import os
import re
import shutil
from itertools import count
from pathlib import Path

import msgspec

from hansa.errors import ConsoleError
from hansa.limits import RUN_NUMBER_MAX
from hansa.runs import RunFolder, all_runs
from hansa.store.files import write_durably

FILE = "console.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Numbered(msgspec.Struct, kw_only=True):
    """A run number."""

    app: str = ""  # that is deployed in it


class Memory(msgspec.Struct, kw_only=True):
    """What console.json holds."""

    url: str = ""  # of the server that it is about
    number: int = 0  # the current one; 0: none was set
    runs: dict[str, Numbered] = {}


class Workspace:
    """The folder; made when something is first put into it.

    Args:
      folder: where.
      url: of the server; a workspace is about one.

    Raises:
      ConsoleError: console-workspace, the folder is damaged or of another server.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder.absolute()
        self.memory = self._read(url)

    @property
    def number(self) -> int:
        """The current run number; 0: none was set."""
        return self.memory.number

    def set_number(self, number: int) -> bool:
        """Make a run number current; return whether it is new."""
        new = str(number) not in self.memory.runs
        self.memory.runs.setdefault(str(number), Numbered())
        self.memory.number = number
        self.place(number).mkdir(parents=True, exist_ok=True)
        self._write()
        return new

    def next_number(self) -> int:
        """Return the lowest number above all that were used, or that was left out if none is."""
        highest = max(map(int, self.memory.runs), default=0)
        if highest < RUN_NUMBER_MAX:
            return highest + 1
        return next(n for n in count(1) if str(n) not in self.memory.runs)

    def forget(self, number: int) -> None:
        """Remove a run number and its folder."""
        shutil.rmtree(self.place(number), ignore_errors=True)
        self.memory.runs.pop(str(number), None)
        if self.memory.number == number:
            self.memory.number = 0
        self._write()

    def app(self, number: int) -> str:
        """Return the app that is deployed under a number, or nothing."""
        known = self.memory.runs.get(str(number))
        return known.app if known else ""

    def place(self, number: int) -> Path:
        """Return the folder of a run number."""
        return self.folder / f"run_{number}"

    def apps(self) -> list[str]:
        """Return the names of the apps that were uploaded."""
        return sorted(p.name for p in self.folder.glob("staged/*") if p.is_dir())

    def staged(self, name: str) -> Path:
        """Return where an uploaded app is.

        Raises:
          ConsoleError: console-order, it was not uploaded.
        """
        path = self.folder / "staged" / name
        if not _NAME.fullmatch(name) or not path.is_dir():
            raise ConsoleError(
                "console-order",
                f"App {name[:80]} does not exist. Nothing was done.",
                f"Please upload it first: upload_app {name[:80]}",
            )
        return path

    def app_name(self, folder: Path) -> str:
        """Return the name under which a folder is uploaded, which is its own.

        Raises:
          ConsoleError: console-app, no app can have it.
        """
        name = folder.resolve().name
        if not _NAME.fullmatch(name):
            raise ConsoleError(
                "console-app",
                f"{name!r} cannot be an app's name. Nothing was uploaded.",
                "Rename the folder: letters, digits, . _ and -, up to 64 of them.",
            )
        return name

    def stage(self, name: str, files: dict[str, bytes]) -> Path:
        """Keep a copy of an app's files, by what `app_name` has returned; return where."""
        return _replace(self.folder / "staged" / name, files)

    def deploy(self, number: int, name: str, source: Path) -> Path:
        """Make what lies in a folder the app of a run number; return where it is."""
        found = [path for path in source.rglob("*") if path.is_file()]
        files = {path.relative_to(source).as_posix(): path.read_bytes() for path in found}
        place = _replace(self.place(number) / "app", files)
        self.memory.runs.setdefault(str(number), Numbered()).app = name
        self._write()
        return place

    def run(self, number: int) -> RunFolder | None:
        """Return the run that a number has become, if it was started."""
        found = list(all_runs(self.place(number)))
        return found[-1] if found else None

    def find(self, run: str) -> tuple[int, RunFolder] | None:
        """Return the number and folder of a run by its name at the server, if it began here."""
        for number in map(int, self.memory.runs):
            folder = self.run(number)
            if folder is not None and (folder.remote or {}).get("run") == run:
                return number, folder
        return None

    def _read(self, url: str) -> Memory:
        path = self.folder / FILE
        try:
            memory = msgspec.json.decode(path.read_bytes(), type=Memory)
            if any(not text.isdecimal() for text in memory.runs) or memory.number < 0:
                raise msgspec.ValidationError("a run number is a whole number above 0")
        except FileNotFoundError:
            return Memory(url=url)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ConsoleError(
                "console-workspace",
                f"{path} is damaged: {error}. Nothing was done.",
                "Remove that file: runs go on at the server, and list_jobs shows them; "
                "or use another folder with --workspace.",
            ) from None
        if memory.url != url:
            raise ConsoleError(
                "console-workspace",
                f"{self.folder} is the workspace of a console at {memory.url}, not at {url}.",
                "Give this one a folder of its own with --workspace FOLDER",
            )
        return memory

    def _write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        text = msgspec.json.format(msgspec.json.encode(self.memory), indent=2)
        write_durably(self.folder / FILE, [text, b"\n"])


def _replace(place: Path, files: dict[str, bytes]) -> Path:
    """Make a folder hold exactly these files."""
    beside = place.with_name(f".{place.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    for relative, content in files.items():
        path = beside / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    beside.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(place, ignore_errors=True)
    os.replace(beside, place)
    return place
