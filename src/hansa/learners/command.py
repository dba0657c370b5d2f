"""A learner made of commands, in any language: tensors go in and come out as files.

    [learner]
    kind     = "command"
    train    = ["python", "train.py", "{model_in}", "{update_out}"]
    validate = ["python", "train.py", "--validate", "{model_in}", "{result_out}"]
    init     = ["python", "train.py", "--init", "{model_out}"]

A command is a list of arguments that no shell reads.  It runs in an empty folder of its own, in
which the project's files are shown, and knows what it needs from its arguments, from variables and
from a small JSON file; see `hansa.learners.command_call`.  Only training and evaluation are
offered, so algorithms that reach into the local steps are refused when the plan is read.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from hansa.algorithms import Capability
from hansa.errors import LearnerError
from hansa.learners.command_answers import answers
from hansa.learners.command_call import (
    Call,
    Result,
    check_ended,
    own_python,
    read_facts,
    read_params,
    read_result,
    settings_of,
)
from hansa.learners.command_environment import environment_python
from hansa.learners.command_places import PLACES
from hansa.learners.command_process import Ended, Place
from hansa.learners.command_rows import DataPath, Rows
from hansa.learners.command_state import files_in, put_files
from hansa.learners.function import (
    FunctionWork,
    TrainContext,
    as_metrics,
    count_examples,
    statistics,
)
from hansa.learners.learner import ClientData, Hyper, Seed, Task, seed_of
from hansa.learners.named_tasks import NamedTask, TaskContext
from hansa.limits import (
    ANSWER_SLACK_BYTES,
    BLOB_BYTES_MAX,
    UPDATE_SLACK_BYTES,
    UPDATE_TIMES_MAX,
)
from hansa.metrics import Metrics
from hansa.params import Params, encode
from hansa.seeds import Key

_PROGRAMS = (b"#!", b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")


_SEED = Key.root(0)
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Commands(NamedTuple):
    """What a command learner is made of."""

    words: Mapping[str, Sequence[str]]
    """By task: train, and perhaps validate, init, predict; others answer named tasks."""
    code: Mapping[str, bytes]  # the files that commands find in their folder
    rows: str = "npz"  # how rows are written: npz, csv, safetensors
    time_s: float = 3600.0  # seconds that one command may take
    requirements: str | None = None  # file of the code that lists Python packages


class CommandLearner:
    """Trains by running programs, a new process for each call.

    Args:
      commands: what to run.  They find as `python` the one that runs Hansa, or that of their own
        environment where they have requirements.
    """

    capabilities: frozenset[Capability] = frozenset()

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._place, self._rows = Place(), Rows(commands.rows)
        self._numbers = itertools.count()
        self._built: Path | None = None  # the interpreter of its own environment
        self.last: Ended | None = None  # how the last command ended, for who looks on

    def init(self, sample: Any, key: Key) -> Seed:
        if "init" not in self._commands.words:
            raise LearnerError(
                "learner-incomplete",
                "The plan has no command that makes the seed model.",
                'Add init = ["python", "init.py", "{model_out}"] under [learner]; or '
                'init = ["cp", "seed.safetensors", "{model_out}"] with a file of the project.',
            )
        call = self._call("init", None, client="", seed=key.child("init").integer(31))
        try:
            self._run(call)
            params = read_params("init", call.place("model_out"), most=BLOB_BYTES_MAX)
        finally:
            shutil.rmtree(call.folder, ignore_errors=True)
        return seed_of(params, statistics(list(params)))

    def begin(self, task: Task, data: Any) -> FunctionWork:
        if "train" not in self._commands.words:
            raise LearnerError(
                "learner-incomplete",
                "The plan has commands for named tasks and none that trains.",
                'Name the workflow that asks for the tasks, such as workflow = "split"; or add '
                'train = ["python", "train.py", "{model_in}", "{update_out}"] under [learner].',
            )
        return FunctionWork(functools.partial(self._train, task, task.hyper), task, data)

    def evaluate(self, params: Params, data: Any) -> Metrics:
        if "validate" not in self._commands.words:
            return {}
        return self._measured(params, data)[0]

    def _measured(self, params: Params, data: Any) -> tuple[Metrics, Any]:
        """Run the validate command; return its metrics, and what else it says."""
        call = self._call("validate", data, client="", seed=_SEED.child("evaluate").integer(31))
        try:
            _write(call.place("model_in"), params)
            self._run(call)
            result = read_result("validate", call.place("result_out"), needed=True)
        finally:
            shutil.rmtree(call.folder, ignore_errors=True)
        examples = result.examples or self.examples(data)
        return as_metrics(result.metrics, examples, "validate"), result.report

    def predict(self, params: Params, data: Any, target: Path) -> None:
        """Run the predict command and move what it wrote, a file of any kind, to a path.

        Raises:
          LearnerError: there is no such command, it failed, or it wrote nothing.
        """
        if "predict" not in self._commands.words:
            raise LearnerError(
                "learner-incomplete",
                "The plan has no command that predicts.",
                'Add predict = ["python", "predict.py", "{model_in}", "{predictions_out}"].',
            )
        call = self._call("predict", data, client="", seed=_SEED.child("predict").integer(31))
        try:
            _write(call.place("model_in"), params)
            self._run(call)
            made = call.place("predictions_out")
            if made.is_symlink() or not made.is_file():
                raise LearnerError(
                    "command-result",
                    "The command of predict ended well and wrote no predictions.",
                    "Write them to the path in {predictions_out}.",
                )
            shutil.move(made, target)
        finally:
            shutil.rmtree(call.folder, ignore_errors=True)

    @property
    def tasks(self) -> dict[str, NamedTask]:
        """What it answers besides training: predict and validate, and named tasks of its own."""
        named = self._commands.words.keys() - PLACES.keys()
        own = {name: functools.partial(self._answer, name) for name in sorted(named)}
        usual = answers(self._commands.words, predict=self.predict, measure=self._measured)
        return {**own, **usual}

    def _answer(
        self, task: str, params: dict[str, Any] | None, data: ClientData, ctx: TaskContext
    ) -> tuple[Params | None, dict[str, Any]]:
        """Run the command of a named task.

        It finds tensors in {model_in}, if there are some, and the settings of the question in
        settings.json; it may write tensors to {update_out}, and facts to {result_out}.  Files in
        the folder {state} are there again in this client's next task.
        """
        seed = int(ctx.rng.integers(2**31))
        asked = {"round": ctx.round, "step": ctx.step, "settings": dict(ctx.settings)}
        call = self._call(task, data.train, client=ctx.client, seed=seed, asked=asked)
        try:
            given = None if params is None else Params.of(params)
            if given is not None:
                _write(call.place("model_in"), given)
            put_files(call.place("state"), ctx.state)
            self._run(call)
            ctx.state = files_in(call.place("state"))
            facts, update = read_facts(task, call.place("result_out")), call.place("update_out")
            if not os.path.lexists(update):
                return None, facts
            most = UPDATE_TIMES_MAX * (given.nbytes if given else 0) + ANSWER_SLACK_BYTES
            return read_params(task, update, most=most), facts
        finally:
            shutil.rmtree(call.folder, ignore_errors=True)

    def examples(self, data: Any) -> int:
        return count_examples(data)

    def close(self) -> None:
        """End a command that still runs, and remove all files."""
        self._place.close()
        self._rows = Rows(self._commands.rows)

    def _train(
        self, task: Task, hyper: Hyper, params: dict[str, Any], data: Any, ctx: TrainContext
    ) -> tuple[Any, dict[str, float]]:
        seed = task.key.child("command").integer(31)
        call = self._call("train", data, client=task.client, seed=seed, hyper=hyper)
        model = Params.of(params)
        try:
            _write(call.place("model_in"), model)
            self._run(call)
            result = read_result("train", call.place("result_out"), needed=False)
            most = 2 * model.nbytes + UPDATE_SLACK_BYTES
            trained = read_params("train", call.place("update_out"), most=most)
        finally:
            shutil.rmtree(call.folder, ignore_errors=True)
        ctx.weight = _weight(result)
        ctx.examples = result.examples
        return trained.to_dict(), result.metrics

    def _call(
        self,
        task: str,
        data: Any,
        *,
        client: str,
        seed: int,
        hyper: Hyper | None = None,
        asked: Mapping[str, Any] = _NOTHING,
    ) -> Call:
        """Return a call with its folder, in which the project's files are shown."""
        place = self._place.folder
        rows = None if data is None else self._rows.file(data, place / "rows")
        about: dict[str, Any] = dict(asked)
        if rows is not None and not isinstance(data, DataPath):
            classes = getattr(data, "classes", None)
            about |= {"examples": count_examples(data), "classes": list(classes or ())}
        if rows is not None:
            about["data"] = str(rows)
        who = re.sub(r"[^\w.-]+", "-", client)[:40]
        name = "-".join(filter(None, [f"{next(self._numbers)}", who, task]))
        settings = settings_of(task, client=client, seed=seed, hyper=hyper, about=about)
        call = Call(task, place / "calls" / name, rows, settings)
        call.prepare()
        self._show_files(call.work)
        return call

    def _show_files(self, work: Path) -> None:
        """Show the project's files in a command's folder: links to one copy, which is read-only."""
        for path in self._package().iterdir():
            try:
                (work / path.name).symlink_to(path, target_is_directory=path.is_dir())
            except OSError:  # not everybody may make links on Windows
                copy = shutil.copytree if path.is_dir() else shutil.copy2
                copy(path, work / path.name)

    def _package(self) -> Path:
        """Return the folder of the one copy."""
        package = self._place.folder / "package"
        if not package.is_dir():
            _unpack(self._commands.code, package)
        return package

    def _python(self) -> Path:
        """Return the interpreter that commands find as `python`."""
        if self._commands.requirements is None:
            return own_python()
        if self._built is None:
            needed, code = self._commands.requirements, self._commands.code
            self._built = environment_python(needed, code, self._package(), self._place)
        return self._built

    def _run(self, call: Call) -> None:
        words, seconds = self._commands.words[call.task], self._commands.time_s
        python = self._python()
        self.last = self._place.run(
            call.words(words, python),
            folder=call.work,
            environment=call.environment(python),
            seconds=seconds,
        )
        check_ended(call.task, words, self.last, seconds)


def _unpack(code: Mapping[str, bytes], folder: Path) -> None:
    """Write the project's files; those that are programs may be started."""
    folder.mkdir()
    for name, content in code.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o555 if content.startswith(_PROGRAMS) else 0o444)


def _write(path: Path, params: Params) -> None:
    with path.open("wb") as file:
        for part in encode(params):
            file.write(part)
    os.chmod(path, 0o444)


def _weight(result: Result) -> float | None:
    """Return the weight that the command asks for, as a script's: or else its examples."""
    if result.weight is not None or result.examples is None:
        return result.weight
    return float(result.examples)
