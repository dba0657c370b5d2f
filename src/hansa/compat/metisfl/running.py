"""`hansa run ENV.yaml`: the programs of a federation environment, started on this machine.

The older driver logged in everywhere and started everything.  Here the controller, the driver and
those learners that the file places on this machine are processes of one command; a learner of
another machine is started by whoever is there, with the invitation that is printed for it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from hansa.compat.metisfl.config import ServerParams
from hansa.compat.metisfl.environment import (
    Environment,
    import_folder,
    read_environment,
    refused,
    write_programs,
)
from hansa.compat.metisfl.place import Place, is_here, learner_name, place_at, wait_until
from hansa.compat.metisfl.taking_part import invitation
from hansa.dev.children import printed_last
from hansa.errors import HansaError, ServerError

_LOOK_S = 0.2
_END_S = 10.0

Say = Callable[[str], None]


class _Process(NamedTuple):
    name: str
    process: subprocess.Popen[bytes]
    log: Path


def run_environment(path: Path, say: Say, *, new: bool = False) -> Path:
    """Run a federation environment to its end.

    Args:
      path: of the YAML file; `learner.py` lies beside it or in the folder of its import, and
        `results.json` will lie beside it.
      say: is told what is started, and what is for others to start.
      new: start anew although an unfinished run of the same file is there.

    Returns:
      The folder of the programs that were made and run, and of what they printed.

    Raises:
      PlanError: the file cannot be read, asks for what Hansa does not do, or has no learner.py.
      ServerError: dev-process, a program has ended with an error.
    """
    environment = read_environment(path)
    script = _script(path, environment)
    place = place_at(environment.controller)
    folder, modules = path.parent.resolve(), place.programs.resolve()
    logs = modules / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    write_programs(environment, modules)
    started: list[_Process] = []
    with _ended(started):
        words = [str(modules / "controller.py")]
        started.append(_start("controller", words, logs, folder=folder, modules=modules))
        elsewhere = []
        for index, learner in enumerate(environment.learners):
            name = learner_name(learner)
            if not is_here(learner):
                elsewhere.append((index, learner))
                continue
            words = [str(script), "-l", str(index + 1)]
            around = environment.around[index]
            more = _start(name, words, logs, folder=folder, modules=modules, around=around)
            started.append(more)
            say(f"{name} runs here; it prints to {more.log}")
        before = place.ended()

        def check() -> None:
            _check(started, over=place.ended() != before)

        _invite(elsewhere, place, check, say)
        words = [str(modules / "driver.py"), *(["--new"] if new else [])]
        driver = _start("driver", words, None, folder=folder, modules=modules)
        started.append(driver)
        _wait(driver, check, logs)
    return modules


def _script(path: Path, environment: Environment) -> Path:
    """Return the learner's program; nothing is written before.

    Raises:
      PlanError: import-refused, there is none, or the controller is for another machine.
    """
    if not is_here(environment.controller):
        raise refused(
            f"The controller of {path} is at {environment.controller.hostname}, which is no "
            "address of this machine.",
            "Run the same command there; nobody logs in to other machines.",
        )
    imported = import_folder(path)
    for folder in (path.parent, imported):
        if (folder / "learner.py").is_file():
            return folder.resolve() / "learner.py"  # a link to it keeps its neighbours
    raise refused(
        f"There is no learner.py beside {path}, nor in {imported}: the file says where learners "
        "are, and not what they train.",
        "Write one with a class derived from hansa.compat.metisfl.Learner; the page on coming "
        "from MetisFL has one to begin with.",
    )


def _invite(
    others: Sequence[tuple[int, ServerParams]], place: Place, check: Callable[[], None], say: Say
) -> None:
    """Say what is to be done on other machines, once the controller can invite.

    Args:
      others: number from 0, and address, of each learner that is for another machine.
      place: of the controller.
      check: is called while the controller is waited for.
      say: is told.
    """
    if not others:
        return

    def there() -> bool:
        check()
        return (place.server / "server.toml").exists() and _answers(place)

    wait_until(there, f"Waiting for the controller at {place.url}.")
    for index, learner in others:
        name = learner_name(learner)
        try:
            line = invitation(place, name)
        except HansaError as error:
            if error.code != "member-exists":
                raise
            say(
                f"{name} has joined before; on {learner.hostname}: python learner.py -l {index + 1}"
            )
            continue
        say(
            f"{name}: on {learner.hostname}, with learner.py, and controller.py and driver.py of "
            f"{place.programs}, put this line into {place.invite(name).name} where the learner "
            f"says that it looks, and run: python learner.py -l {index + 1}\n  {line}"
        )


def _answers(place: Place) -> bool:
    from hansa.remote import asking
    from hansa.remote.connecting import connected

    try:
        with connected(place.admin()) as connection:
            asking.members(connection)
    except HansaError as error:
        if error.code == "server-unreachable":
            return False
        raise
    return True


def _start(
    name: str,
    words: Sequence[str],
    logs: Path | None,
    *,
    folder: Path,
    modules: Path,
    around: Mapping[str, str] | None = None,
) -> _Process:
    """Start a Python program; without a folder of logs it prints where this one does.

    It finds the programs that were made before any of the same names beside it: a learner of the
    tutorial imports its addresses from `controller` and `driver`, and the file says where they are.
    """
    script = str(Path(words[0]).parent)
    paths = [str(modules), script, os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        **(around or {}),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONUNBUFFERED": "1",
    }
    log = Path(os.devnull) if logs is None else logs / f"{name}.log"
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "hansa.compat.metisfl.child", *words],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,  # never written to: its end tells that this process is gone
            stdout=None if logs is None else file,
            stderr=None if logs is None else subprocess.STDOUT,
            start_new_session=True,
        )
    return _Process(name, process, log)


def _wait(driver: _Process, check: Callable[[], None], logs: Path) -> None:
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = driver.process.wait(_LOOK_S)
            if status:
                raise ServerError(
                    "dev-process",
                    f"The driver ended with status {status}; what it printed stands above.",
                    f"All that the others printed is in {logs}",
                )
            return
        check()


def _check(started: Sequence[_Process], *, over: bool) -> None:
    """See that nobody has failed, or has ended before the driver's run is over.

    Raises:
      ServerError: dev-process, with the last lines that it printed.
    """
    for one in started:
        status = one.process.poll()
        if status or (status == 0 and not over):
            tail = printed_last(one.log)
            early = "" if status else ", and the run had not ended; a learner calls app(...)"
            last = f"Its last lines:\n{tail}" if tail else "It printed nothing."
            raise ServerError(
                "dev-process",
                f"{one.name} ended with status {status}{early}. {last}",
                f"All that it printed is in {one.log}",
            )


@contextlib.contextmanager
def _ended(started: Sequence[_Process]) -> Iterator[None]:
    """Let those that were started end by themselves when all is well, or end them."""
    try:
        yield
    except BaseException:
        for one in started:
            one.process.terminate()
        raise
    finally:
        for one in started:
            try:
                one.process.wait(_END_S)
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
            if one.process.stdin is not None:
                one.process.stdin.close()
