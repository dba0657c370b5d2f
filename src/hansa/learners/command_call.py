"""What one command gets and gives back: its files, its variables, and their words.

    in/model.safetensors     {model_in}         HANSA_MODEL_IN         train, validate, predict
    in/settings.json         {settings}         HANSA_SETTINGS         all
    the client's rows        {data}             HANSA_DATA_PATH        all but init
    out/update.safetensors   {update_out}       HANSA_UPDATE_OUT       train
    out/result.json          {result_out}       HANSA_RESULT_OUT       train, validate
    out/model.safetensors    {model_out}        HANSA_MODEL_OUT        init
    out/predictions          {predictions_out}  HANSA_PREDICTIONS_OUT  predict
    state/                   {state}            HANSA_STATE            named tasks

What comes back is as little trusted as any file: it must be a plain file of bounded size, and hold
what was asked for.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hansa.errors import LearnerError, ParamsError
from hansa.learners.command_places import PLACES, places_of
from hansa.learners.command_process import Ended
from hansa.learners.generators import local_threads
from hansa.learners.learner import Hyper
from hansa.limits import COMMAND_LINES_SHOWN, COMMAND_RESULT_BYTES_MAX, COMMAND_SHOWN_CHARS
from hansa.params import Params
from hansa.store.files import load_params
from hansa.text import clean

_FILES = {
    "model_in": "in/model.safetensors",
    "settings": "in/settings.json",
    "update_out": "out/update.safetensors",
    "result_out": "out/result.json",
    "model_out": "out/model.safetensors",
    "predictions_out": "out/predictions",
    "state": "state",
}
_VARIABLES = {"data": "HANSA_DATA_PATH"}  # others: HANSA_ and the name
_KEPT = ("HANSA_THREADS", "HANSA_DEVICE")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Call(NamedTuple):
    """One command with all that it is told."""

    task: str  # a key of PLACES, or the name of a named task
    folder: Path  # of this call alone
    data: Path | None  # the client's rows; None for init
    settings: dict[str, Any]  # as in settings.json

    @property
    def work(self) -> Path:
        """Return the folder that the command runs in."""
        return self.folder / "work"

    def place(self, name: str) -> Path:
        """Return where a file of this call lies."""
        if name == "data":
            assert self.data is not None
            return self.data
        return self.folder / _FILES[name]

    def places(self) -> dict[str, str]:
        """Return the files of this call by the names that its arguments use."""
        return {name: str(self.place(name)) for name in places_of(self.task)}

    def prepare(self) -> None:
        """Make the folders and write the settings."""
        for name in ("in", "out", "work", "state"):
            (self.folder / name).mkdir(parents=True)
        text = json.dumps(self.settings, indent=2, ensure_ascii=False)
        self.place("settings").write_text(text + "\n", encoding="utf-8")

    def words(self, command: Sequence[str], python: Path) -> list[str]:
        """Return the command with paths in the place of names in braces, and of `python`."""
        # Systems differ in which of the two names they have.
        own = [command[0]]
        if command[0] in ("python", "python3"):
            # An environment of the package's own knows nothing of Hansa.
            ours = " ".join(command[1:3]).startswith("-m hansa.")
            own = [str(own_python() if ours else python)]
        filled = [*own, *command[1:]]
        for name, path in self.places().items():
            filled = [word.replace(f"{{{name}}}", path) for word in filled]
        return filled

    def environment(self, python: Path) -> dict[str, str]:
        """Return all variables of the command: this process's, and those of the call.

        Args:
          python: the interpreter that `python` means; its folder comes first on the PATH.
        """
        outer = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("HANSA_") or name in _KEPT or name.startswith("HANSA_SLOTS_")
        }
        path = os.pathsep.join([str(python.parent), outer.get("PATH", os.defpath)])
        threads = {name: str(local_threads()) for name in _THREADS}
        # Without a fixed seed of its hashes the order of Python's sets differs between rounds.
        fixed = {"PATH": path, "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1", **threads}
        told = {
            f"HANSA_{name.upper()}": str(value)
            for name, value in self.settings.items()
            if isinstance(value, str | int | float)
        }
        files = {
            _VARIABLES.get(name, f"HANSA_{name.upper()}"): path
            for name, path in self.places().items()
        }
        return outer | fixed | told | files


def settings_of(
    task: str, *, client: str, seed: int, hyper: Hyper | None, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a command is told beside its files; None stands for what does not apply."""
    told: dict[str, Any] = {"task": task, "client": client, "seed": seed}
    if hyper is not None:
        told |= {
            "round": hyper.round,
            "epochs": hyper.epochs,
            "steps": hyper.steps,
            "batch_size": hyper.batch_size,
            "lr": hyper.lr,
            "optimizer": hyper.optimizer,
            "options": dict(hyper.options),
            "given": dict(hyper.settings),
        }
    return told | dict(about)


class Result(NamedTuple):
    """What result.json says."""

    metrics: dict[str, float] = {}  # noqa: RUF012 - means over the examples; read only
    examples: int | None = None
    weight: float | None = None
    report: Any = None  # of validate: any JSON, which leaves only where the plan asks for it


def check_ended(task: str, words: Sequence[str], ended: Ended, seconds: float) -> None:
    """Refuse what a command that failed has left.

    Raises:
      LearnerError: command-failed or command-time; what it printed is in a note.
    """
    if ended.status == 0:
        return
    said = last_lines(ended.output)
    words_told = f"It printed last: {said}" if said else "It printed nothing."
    if ended.status is None:
        code = "command-time"
        how = f"took more than {seconds:g} s, its time limit, and was ended"
        hint = "Train less in a round, or raise learner.time_s."
    else:
        code = "command-failed"
        by = f"was killed by signal {-ended.status}" if ended.status < 0 else "ended with status"
        how = by if ended.status < 0 else f"{by} {ended.status}"
        alone = f"Try it alone with: hansa package run {task}"
        hint = alone if task in PLACES else "All that it printed is kept where it ran."
    error = LearnerError(code, f"{_whose(task, words)} {how}. {words_told}", hint)
    if ended.output:
        error.add_note(f"What it printed, {ended.printed:,} bytes, ended with:\n{ended.output}")
    raise error


def last_lines(output: str) -> str:
    """Return the last lines of what was printed, on one line and harmless."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    text = " | ".join(lines[-COMMAND_LINES_SHOWN:])
    return clean(text[-COMMAND_SHOWN_CHARS:], COMMAND_SHOWN_CHARS)


def read_params(task: str, path: Path, *, most: int) -> Params:
    """Return the tensors that a command has written, in memory of their own.

    Args:
      task: what it was asked for.
      path: of the file.
      most: bytes that the file may have.

    Raises:
      LearnerError: command-result, there is none, or it is not one of tensors.
    """
    _check_file(task, path, most)
    try:
        return load_params(path).copy()
    except ParamsError as error:
        raise _bad(
            f"The {path.name} that the command of {task} wrote cannot be used: {error.happened}",
            "Write it in the safetensors format; see docs/howto/command.md.",
        ) from None


def read_result(task: str, path: Path, *, needed: bool) -> Result:
    """Return what a command has said of its work; nothing where it may say nothing.

    Raises:
      LearnerError: command-result, there is no file though it is needed, or it is not such a one.
    """
    if not needed and not os.path.lexists(path):
        return Result()
    _check_file(task, path, COMMAND_RESULT_BYTES_MAX)
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _bad(
            f"The result.json that the command of {task} wrote is not JSON: {error}.", _EXAMPLE
        ) from None
    if not isinstance(found, dict) or (odd := found.keys() - set(Result._fields)):
        what = f"has the key {sorted(odd)[0]!r:.60}" if isinstance(found, dict) else "is no object"
        raise _bad(f"The result.json of {task} {what}.", _EXAMPLE)
    metrics = _metrics(task, found.get("metrics", {}))
    return Result(metrics, *_amounts(task, found), found.get("report"))


def read_facts(task: str, path: Path) -> dict[str, Any]:
    """Return the facts that the command of a named task has written; none where it wrote no file.

    Raises:
      LearnerError: command-result, it is no such file.
    """
    if not os.path.lexists(path):
        return {}
    _check_file(task, path, COMMAND_RESULT_BYTES_MAX)
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _bad(f"The result.json of {task} is not JSON: {error}.", _FACTS) from None
    if not isinstance(found, dict):
        raise _bad(f"The result.json of {task} is no object.", _FACTS)
    return found


_FACTS = 'Write facts by name, for example {"rows": 120}.'
_EXAMPLE = 'Write for example {"metrics": {"loss": 0.3}, "examples": 120}.'


def _metrics(task: str, found: Any) -> dict[str, float]:
    if not isinstance(found, dict):
        raise _bad(f"The metrics of {task} are {found!r:.80} and not an object.", _EXAMPLE)
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _bad(f"The metric {name!r:.60} of {task} is {value!r:.80}.", _EXAMPLE)
    try:
        return {name: float(value) for name, value in found.items()}
    except OverflowError:
        raise _bad(f"A metric of {task} is beyond all numbers.", _EXAMPLE) from None


def _amounts(task: str, found: dict[str, Any]) -> tuple[int | None, float | None]:
    examples, weight = found.get("examples"), found.get("weight")
    whole = examples is None or (type(examples) is int and 0 < examples < 2**53)
    if not whole:
        raise _bad(f"The examples of {task} are {examples!r:.80}.", "Give a whole number above 0.")
    if weight is not None and (type(weight) not in (int, float) or not 0 < weight < 2.0**53):
        raise _bad(f"The weight of {task} is {weight!r:.80}.", "Give a positive number.")
    return examples, None if weight is None else float(weight)


def _check_file(task: str, path: Path, most: int) -> None:
    """Refuse what is not there, no plain file, or too large; a pipe would be read for ever."""
    try:
        about = path.lstat()
    except OSError:
        raise _bad(
            f"The command of {task} ended well and wrote no {path.name}.",
            f"Write it to the path in {{{_name(path)}}}, or in the variable "
            f"HANSA_{_name(path).upper()}.",
        ) from None
    if not stat.S_ISREG(about.st_mode):
        raise _bad(f"The {path.name} of {task} is not a plain file.", "Write a file there.")
    if about.st_size > most:
        raise _bad(
            f"The {path.name} of {task} has {about.st_size:,} bytes; at most {most:,} are taken.",
            "Write what was asked for, and nothing else.",
        )


def _name(path: Path) -> str:
    return next(name for name, file in _FILES.items() if file == f"out/{path.name}")


def _whose(task: str, words: Sequence[str]) -> str:
    program = clean(os.path.basename(words[0]))
    return f"The command of {task}, {program},"


def _bad(happened: str, hint: str) -> LearnerError:
    return LearnerError("command-result", happened, hint)


def own_python() -> Path:
    """Return the interpreter that runs Hansa; a link to it is kept, for it is an environment's."""
    return Path(sys.executable)
