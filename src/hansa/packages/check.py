"""What is wrong with a package's files, found without running any of them."""

from __future__ import annotations

import ast
import itertools
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

PLAN = "plan.toml"


class Fault(NamedTuple):
    """Something that a person should mend, or know."""

    file: str
    line: int | None
    what: str
    grave: bool = True  # it cannot work; or else it may be meant so

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.what}"


class Made(NamedTuple):
    """A package's files, and what its plan says of them."""

    files: Mapping[str, bytes]  # plan.toml and all code
    commands: Mapping[str, Sequence[str]]  # of a command learner, by task
    named: Sequence[str] = ()  # paths that the plan names beside its commands


def check_files(made: Made) -> list[Fault]:
    """Return all faults, by file and line.

    Args:
      made: the package.
    """
    found = [*_sources(made.files), *_commands(made), *_unused(made)]
    return sorted(found, key=lambda fault: (fault.file, fault.line or 0, fault.what))


def line_of(text: bytes | None, key: str) -> int | None:
    r"""Return the line of a plan on which the last part of a dotted key is given, if it is found.

    >>> line_of(b'rounds = 3\n[learner]\ntrain = ["sh"]', "learner.train")
    3
    """
    if text is None:
        return None
    word = re.escape(key.rpartition(".")[2].partition("[")[0])
    table = key.rpartition(".")[0]
    inside = not table
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), start=1):
        if head := re.match(r"\s*\[\[?\s*([\w.]+)\s*\]", line):
            inside = head[1] == table
        elif inside and re.match(rf"\s*{word}\s*[=.]", line):
            return number
    return None


def _sources(files: Mapping[str, bytes]) -> Iterator[Fault]:
    """Yield what no interpreter would take."""
    for name, content in files.items():
        head = content.split(b"\n", 1)[0]
        if head.startswith(b"#!") and head.endswith(b"\r"):
            yield Fault(name, 1, "ends its lines as Windows does; no system starts such a program")
        if not name.endswith(".py"):
            continue
        try:
            ast.parse(content)
        except SyntaxError as error:
            yield Fault(name, error.lineno, f"is not valid Python: {error.msg}")
        except (ValueError, RecursionError, MemoryError) as error:
            yield Fault(name, None, f"is not valid Python: {error}")


def _commands(made: Made) -> Iterator[Fault]:
    """Yield what a command names that is not there."""
    for task, words in made.commands.items():
        line = line_of(made.files.get(PLAN), f"learner.{task}")
        program = words[0]
        if "/" in program and not program.startswith("/"):
            own = program.removeprefix("./")
            if own not in made.files:
                yield Fault(PLAN, line, f"{task} starts {program}, which the package lacks")
            elif not made.files[own].startswith((b"#!", b"\x7fELF")):
                yield Fault(own, 1, f"{task} starts it, and it does not begin with #!")
        elif program not in ("python", "python3") and shutil.which(program) is None:
            what = f"{task} starts {program}, which is not installed on this machine"
            yield Fault(PLAN, line, what, grave=False)
        for before, word in itertools.pairwise(words):
            if before != "-m" and _is_file(word) and word.removeprefix("./") not in made.files:
                yield Fault(PLAN, line, f"{task} names {word}, which the package lacks")
    if made.commands and "init" not in made.commands:
        told = "[learner] has no init: runs start only with --from"
        yield Fault(PLAN, line_of(made.files.get(PLAN), "learner.train"), told, grave=False)


def _is_file(word: str) -> bool:
    """Return whether a word looks like a file of the package: a relative path with a suffix."""
    return bool(re.fullmatch(r"[\w][\w./-]*\.[A-Za-z]\w{0,11}", word)) and ".." not in word


def _unused(made: Made) -> Iterator[Fault]:
    """Yield files that a plan names, and outputs that nothing would write."""
    plan = made.files.get(PLAN)
    for name in made.named:
        inside = name.rstrip("/")
        if not any(f == inside or f.startswith(f"{inside}/") for f in made.files):
            line = line_of(plan, "learner.files") or line_of(plan, "learner.requirements")
            yield Fault(PLAN, line, f"it names {name}, which is not there or holds no file")
    for task, place in (("train", "update_out"), ("validate", "result_out"), ("init", "model_out")):
        words = made.commands.get(task)
        if words is None or f"{{{place}}}" in " ".join(words):
            continue
        if not any(f"HANSA_{place.upper()}".encode() in text for text in made.files.values()):
            line = line_of(plan, f"learner.{task}")
            what = f"nothing in {task} mentions {{{place}}} or HANSA_{place.upper()}"
            yield Fault(PLAN, line, what, grave=False)
