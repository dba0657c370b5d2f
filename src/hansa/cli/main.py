"""The entry point: which verbs there are, and how errors reach a person or a program."""

from __future__ import annotations

import errno
import gc
import json
import os
import re
import shlex
import sys
import traceback
from typing import Any

import click

from hansa import __version__
from hansa.cli.lazy import LazyGroup, Verb
from hansa.errors import HansaError
from hansa.text import ERROR_CHARS, clean

VERBS = {
    "hello": Verb("hello", "Train a first federated model: five clients, real digits, seconds."),
    "init": Verb("init", "Make a project folder: plan.toml, model.py, README.md."),
    "import": Verb("import_flower", "Make a project from one of another system."),
    "run": Verb("run", "Run a project, or continue where it was interrupted."),
    "ls": Verb("ls", "List runs."),
    "show": Verb("show", "Show one run, round by round, and write its report page."),
    "log": Verb("log", "Tell what happened in a run and why, one line an event."),
    "stop": Verb("stop", "End a run of a federation for good."),
    "console": Verb("console", "Administer a federation from a prompt, in NVIDIA FLARE's words."),
    "compare": Verb("compare", "Compare runs: what differed, and which was better."),
    "split": Verb("split", "Divide a data set among clients, into files."),
    "reproduce": Verb("reproduce", "Run a run's plan and code again; the model must be the same."),
    "export": Verb("export", "Write a run's model for torch, NumPy or safetensors."),
    "predict": Verb("predict", "Have each client predict with a model, on its own data."),
    "models": Verb("models", "Look at the trail of models: what was made from what."),
    "package": Verb("package", "Make, check and try the package of code that clients execute."),
    "join": Verb("join", "Become a member of a federation, with its operator's invitation."),
    "config": Verb("config", "Explain every value of a plan and where it came from."),
    "server": Verb("server", "Operate a federation's server: start, invite, look after it."),
    "combiner": Verb("combiner", "Operate a middle tier: fold sites' updates, pass one sum on."),
    "dev": Verb("dev", "Rehearse a federation here: a server and sites as real processes."),
    "poc": Verb("poc", "Lay out a server, sites and an admin's kit here, to be started by hand."),
    "site": Verb("site", "Hold a data owner's part of a federation: join, decide, see what left."),
}
"""Every verb, in the order in which a person meets them."""


@click.group(
    cls=LazyGroup,
    verbs=VERBS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: hansa hello",
)
@click.version_option(__version__, message="hansa %(version)s")
def cli() -> None:
    """Federated learning that starts in seconds, runs offline and survives any crash."""


def main(arguments: list[str] | None = None) -> None:
    """Run a command; exit with 0, 1 (an error with a code), 2 (usage) or 130 (interrupted)."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        status = cli.main(words, prog_name="hansa", standalone_mode=False)
    except click.exceptions.Exit as done:
        status = done.exit_code
    except click.ClickException as error:
        status = _usage(error, words)
    except HansaError as error:
        facts = error.as_dict()
        status = _tell(facts | {"hint": _in_folder(facts["hint"], words)}, words)
    except (click.Abort, KeyboardInterrupt):
        click.echo("\nInterrupted; nothing that was committed is lost.", err=True)
        status = 130
    except BrokenPipeError:
        # The reader has gone, as in `hansa ls | head`; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except OSError as error:
        status = _tell(_system_error(error), words)
    except (Exception, SystemExit) as error:
        facts = _unexpected(error)
        ours = isinstance(error, SystemExit) and facts["code"] == "defect"  # a verb's own end
        if ours or os.environ.get("HANSA_DEBUG"):
            raise
        status = _tell(facts, words)
    if arguments is None and not _has_run_a_project():
        gc.freeze()  # searching a process that ends for garbage costs a tenth of a command
    sys.exit(status if isinstance(status, int) else 0)


def _has_run_a_project() -> bool:
    """Tell whether a project's code is here: files that it left open are garbage to be found."""
    code = sys.modules.get("hansa.code")
    return code is not None and any(name.startswith(code.MODULE_PREFIX) for name in sys.modules)


def _in_folder(hint: str, words: list[str]) -> str:
    """Return a hint whose last words are a command for the folder that was named."""
    command = re.search(r"\bhansa (site|server) [^:;]*[^:;.]$", hint)
    if command is None or "--folder" in hint or words[:1] != [command[1]]:
        return hint
    for i, word in enumerate(words):
        if word == "--folder" and i + 1 < len(words):
            return f"{hint} --folder {shlex.quote(words[i + 1])}"
        if word.startswith("--folder="):
            return f"{hint} {word}"
    return hint


def _usage(error: click.ClickException, words: list[str]) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":  # a group alone; known since click 8.2
        click.echo(error.format_message(), err=True)
        return 2
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "hansa"
    hint = f"See: {path} --help"
    _tell({"code": "usage", "message": error.format_message(), "hint": hint}, words)
    return 2


def _system_error(error: OSError) -> dict[str, Any]:
    """Return what the operating system refused, in our form."""
    path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    folder, name = os.path.split(path)
    if name.startswith(".hansa-"):  # half a file: its folder is what a person knows
        path = folder or "."
    where = f" ({path})" if path else ""
    hints = {
        errno.ENOSPC: "Free some space; a run continues from its last committed round.",
        errno.EACCES: "Let yourself write there, or name another place in the command.",
        errno.EROFS: "Let yourself write there, or name another place in the command.",
        errno.EMFILE: "Close programs, or raise the limit on open files (ulimit -n).",
    }
    return {
        "code": "system",
        "message": f"The system refused: {error.strerror or error}{where}.",
        "hint": hints.get(error.errno or 0, "Correct that and run the command again."),
        "doc": "docs/errors/system.md",
    }


def _unexpected(error: Exception | SystemExit) -> dict[str, Any]:
    """Tell an error of the user's own code from one of ours."""
    what = f"{type(error).__name__}: {error}"
    debug = "For the whole traceback: HANSA_DEBUG=1 hansa ..."
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _is_installed(f.filename)]
    if frames:
        where = f"{frames[-1].filename}, line {frames[-1].lineno}"
        return {
            "code": "user-code",
            "message": f"{where} raised {what}.",
            "hint": f"Correct it and run again. {debug}",
            "doc": "docs/errors/user-code.md",
        }
    return {
        "code": "defect",
        "message": f"Hansa itself failed: {what}. Nothing that was committed is lost.",
        "hint": f"Please report this. {debug}",
        "doc": "docs/errors/defect.md",
    }


def _is_installed(filename: str) -> bool:
    """Return whether a file belongs to Hansa, another package, or Python itself."""
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    library = os.path.dirname(os.__file__)
    return filename.startswith(("<", ours, library)) or f"{os.sep}site-packages{os.sep}" in filename


def _tell(facts: dict[str, Any], words: list[str]) -> int:
    """Print an error, as JSON on standard output if that was asked for; return the status."""
    if "--json" in words:
        click.echo(json.dumps({"error": facts}))
    else:
        head = click.style("Error:", fg="red", bold=True)
        click.echo(f"{head} {clean(facts['message'], ERROR_CHARS)}", err=True)
        click.echo(f"{clean(facts['hint'], ERROR_CHARS)}  [{facts['code']}]", err=True)
    return 1
