"""One command of a FEDn package, called as a FEDn client calls it.

    python -m hansa.compat.fedn.call train --folder package/client --run "python entrypoint train"
        --model {model_in} --out {update_out} --result {result_out}

A shell in a writable copy of the package gets the package's own line with the paths of its files
at the end: a model in the helper's format, and an empty file for what it shall write.  What it has
written becomes Hansa's tensors, metrics and weight.  The module name `fedn` is ours in there.

Commands of split learning keep a part of the model in files beside the package's own.  Such files
are the client's state: they are put back before a command, and taken after it.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from hansa.compat.fedn.formats import FORMS, Form, fitted, read_model, write_model
from hansa.compat.fedn.said import examples_of, metadata_of, metrics_of
from hansa.errors import HansaError, LearnerError
from hansa.learners.command_state import files_in, put_files
from hansa.limits import (
    ANSWER_SLACK_BYTES,
    BLOB_BYTES_MAX,
    COMMAND_RESULT_BYTES_MAX,
    UPDATE_SLACK_BYTES,
)
from hansa.params import Params
from hansa.store.files import load_params, save_params
from hansa.text import clean

SHIM = Path(__file__).with_name("shim")
"""The folder that stands for FEDn on the path of a process."""

_REFUSED = 65  # status of a command whose files were wrong, as sysexits.h has it


def main(words: Sequence[str] | None = None) -> None:
    """Run one command; its status is the package's own, or 65 with a sentence."""
    asked = _parser().parse_args(words)
    try:
        if asked.task == "seed":  # which came with the package
            save_params(asked.out, load_params(asked.model))
        else:
            _TASKS[asked.task](_Call(asked))
    except HansaError as error:
        print(error.sentences, file=sys.stderr)
        sys.exit(_REFUSED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hansa.compat.fedn.call")
    parser.add_argument("task", choices=[*_TASKS, "seed"])
    parser.add_argument("--folder", type=Path, help="of the package, where its line is run")
    parser.add_argument("--run", help="the package's own line")
    parser.add_argument("--startup", help="a line that is run first; its status is ignored")
    parser.add_argument("--helper", choices=sorted(FORMS), default="numpyhelper")
    parser.add_argument("--data", type=Path, help="the client's own file or folder")
    parser.add_argument("--model", type=Path, help="tensors to begin with")
    parser.add_argument("--out", type=Path, help="where to write what comes out")
    parser.add_argument("--result", type=Path, help="where to write metrics")
    parser.add_argument("--state", type=Path, help="folder of files that the client keeps")
    parser.add_argument("-e", "--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--setting", action="append", default=[], metavar="KEY=VALUE")
    return parser


class _Call:
    """The files and the process of one call."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.form: Form = FORMS[asked.helper]
        self.tree = Path.cwd() / "unpacked"  # what FEDn unpacks into a folder `package`
        self.files = Path.cwd() / "files"
        self.files.mkdir()
        self.folder = self._prepared()
        if asked.state is not None:
            put_files(self.tree, files_in(asked.state))

    def _prepared(self) -> Path:
        """Copy the package, so that what it writes is its own; show the data beside it."""
        inside = self.asked.folder.parts
        tree = self.tree / inside[0]
        shutil.copytree(inside[0], tree)
        for path in (tree, *tree.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)
        folder = self.tree.joinpath(*inside)
        beside = folder.parent / "data"
        if self.asked.data is not None and not beside.exists():
            if self.asked.data.is_dir():
                beside.symlink_to(self.asked.data, target_is_directory=True)
            else:
                beside.mkdir()
                (beside / self.asked.data.name).symlink_to(self.asked.data)
        return folder

    def model(self) -> tuple[Params, Path]:
        """Return the tensors to begin with, and the file from which the package reads them."""
        params = load_params(self.asked.model)
        path = self.files / "model_in.npz"  # NumPy adds the suffix to any other name
        path.write_bytes(write_model(params, self.form))
        settings = dict(setting.split("=", 1) for setting in self.asked.setting)
        told = {key: _value(text) for key, text in settings.items()} | _of_the_round()
        path.with_name(f"{path.name}-metadata").write_text(json.dumps(told), encoding="utf-8")
        return params, path

    def empty(self, name: str) -> Path:
        """Return a new, empty file for the package to write to."""
        path = self.files / name
        path.touch()
        return path

    def run(self, *words: Path | str) -> None:
        """Run the package's line with words at its end; leave with its status if that is not 0."""
        if self.asked.startup:
            self._shell(self.asked.startup)
        line = " ".join([self.asked.run, *(shlex.quote(str(word)) for word in words)])
        status = self._shell(line)
        if status:
            sys.exit(128 - status if status < 0 else status)
        if self.asked.state is not None:
            self._keep()

    def _keep(self) -> None:
        """Take the files that are not as they came with the package."""
        shutil.rmtree(self.asked.state)
        kept = {
            name: content
            for name, content in files_in(self.tree).items()
            if "__pycache__" not in Path(name).parts
            and not ((own := Path(name)).is_file() and own.read_bytes() == content.tobytes())
        }
        put_files(self.asked.state, kept)
        self.asked.state.mkdir(exist_ok=True)

    def _shell(self, line: str) -> int:
        # A shell is FEDn's contract: lines hold $VARIABLES and assignments.
        shell = shutil.which("bash") or "sh"
        environment = dict(os.environ) | dict(s.split("=", 1) for s in self.asked.env)
        path = [str(SHIM), *filter(None, [environment.get("PYTHONPATH")])]
        environment |= {"PYTHONPATH": os.pathsep.join(path), "PWD": str(self.folder)}
        options = environment.get("ENTRYPOINT_OPTS")  # of the client's owner
        if options is not None and self.asked.data is not None:
            environment["ENTRYPOINT_OPTS"] = options.replace("{data}", str(self.asked.data))
        sys.stdout.flush()
        words = [shell, "-c", line]
        return subprocess.run(words, cwd=self.folder, env=environment, check=False).returncode


def _train(call: _Call) -> None:
    given, model = call.model()
    out = call.empty("model_out.npz")
    call.run(model, out)
    most = 2 * given.nbytes + UPDATE_SLACK_BYTES
    trained = fitted(read_model(_content(out, 2 * most), call.form, most=most), given)
    said = _metadata(out.with_name(f"{out.name}-metadata"))
    save_params(call.asked.out, trained)
    _write_result(call.asked.result, metrics_of(said), examples_of(said))


def _validate(call: _Call) -> None:
    _, model = call.model()
    out = call.empty("validation")
    call.run(model, out)
    said = _json(out, "validation")
    metrics = metrics_of(said)
    examples = examples_of(said) if isinstance(said, dict) and "num_examples" in said else None
    rest = sorted(set(said) - set(metrics)) if isinstance(said, dict) else [type(said).__name__]
    if rest:
        told = ", ".join(map(clean, rest[:20]))
        print(f"Not numbers, and sent only where the plan says evaluate.reports: {told}")
    _write_result(call.asked.result, metrics, examples, report=said)


def _predict(call: _Call) -> None:
    _, model = call.model()
    out = call.empty("predictions")
    call.run(model, out)
    shutil.copyfile(out, call.asked.out)


def _init(call: _Call) -> None:
    """Run the line that builds the seed model, and find what it has written."""
    before = {path: path.stat().st_mtime_ns for path in call.tree.rglob("*")}
    call.run()
    new = [
        path
        for path in sorted(call.tree.rglob("*"))
        if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts
        and before.get(path) != path.stat().st_mtime_ns
    ]  # fmt: skip
    models = [p for p in new if p.name == "seed.npz"] or [p for p in new if p.suffix == ".npz"]
    models = models or new
    if len(models) != 1:
        names = ", ".join(clean(path.name) for path in models) or "no file"
        raise LearnerError(
            "command-result",
            f"The package's line for the seed model wrote {names}; one model file is needed.",
            "Make the seed yourself and name it with: hansa import fedn ... --seed-model FILE",
        )
    content = _content(models[0], BLOB_BYTES_MAX)
    save_params(call.asked.out, read_model(content, call.form, most=BLOB_BYTES_MAX))


def _forward(call: _Call) -> None:
    """Run the line that embeds the client's rows: CLIENT, the file to write, whether it counts."""
    client, out = os.environ["HANSA_CLIENT"], call.empty("embeddings.npz")
    call.run(client, out, str(_told()["settings"]["part"] != "train"))
    most = ANSWER_SLACK_BYTES
    found = read_model(_content(out, most), call.form, most=most)
    if client not in found and len(found) != 1:
        _refuse(f"The package wrote embeddings of {', '.join(map(clean, found))}, not of {client}.")
    embedding = found[client] if client in found else next(iter(found.values()))
    save_params(call.asked.out, Params.of({"embedding": embedding}))


def _backward(call: _Call) -> None:
    """Run the line that takes the client's step: the file with its gradient, and CLIENT."""
    client, path = os.environ["HANSA_CLIENT"], call.files / "gradients.npz"
    gradient = load_params(call.asked.model)["gradient"]
    path.write_bytes(write_model(Params.of({client: gradient}), call.form))
    call.run(path, client)


_TASKS = {
    "train": _train,
    "validate": _validate,
    "predict": _predict,
    "init": _init,
    "forward": _forward,
    "backward": _backward,
}


def _content(path: Path, most: int) -> bytes:
    if not path.is_file() or path.is_symlink():
        _refuse(f"The package removed {path.name}, which it should write.")
    if path.stat().st_size > most:
        _refuse(f"The package wrote more than {most:,} bytes to {path.name}.")
    data = path.read_bytes()
    if not data:
        _refuse(f"The package ended well and wrote nothing to {path.name}.")
    return data


def _json(path: Path, what: str) -> Any:
    try:
        return json.loads(_content(path, COMMAND_RESULT_BYTES_MAX))
    except (ValueError, RecursionError) as error:
        _refuse(f"The {what} that the package wrote is not JSON: {error}.")


def _metadata(path: Path) -> dict[str, Any]:
    """Return what a package says of its update; those before 0.5 say nothing, and count one."""
    if not path.exists():
        return {"num_examples": 1}
    return metadata_of(_json(path, "metadata"))


def _write_result(
    path: Path, metrics: dict[str, float], examples: int | None, *, report: Any = None
) -> None:
    made = {"metrics": metrics} | ({} if examples is None else {"examples": examples})
    made |= {} if report is None else {"report": report}
    path.write_text(json.dumps(made), encoding="utf-8")


def _of_the_round() -> dict[str, Any]:
    """Return what the run's server functions say to the clients of this round."""
    return dict(_told().get("given", {}))


def _told() -> dict[str, Any]:
    """Return what the command is told beside its files."""
    path = os.environ.get("HANSA_SETTINGS")
    return dict(json.loads(Path(path).read_bytes())) if path else {}


def _value(text: str) -> Any:
    """Return a setting as the JSON value that it is, or else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _refuse(what: str) -> NoReturn:
    raise LearnerError("command-result", what, "Correct the package, and import it again.")


if __name__ == "__main__":
    main()
