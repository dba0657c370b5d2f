"""The worker processes of a site: one stays warm for each run, and none can take the site down.

Everything that a run's code does comes back as a `WorkerResult`; a process that has died, was
cancelled or ran out of time is replaced at the next task.
"""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from hansa.errors import HansaError, RunError, SiteError
from hansa.hosting.confined import Limits
from hansa.hosting.process import Log, Lost
from hansa.hosting.sandbox import environment, sandbox_command, trouble
from hansa.limits import (
    MESSAGE_CHARS_MAX,
    METRIC_NAME_CHARS_MAX,
    METRICS_MAX,
    UPDATE_SLACK_BYTES,
    UPDATE_TIMES_MAX,
    WORKER_PROCESSES_MAX,
)
from hansa.protocol.messages import Offer
from hansa.rounds.questions import Answer as Unpacked
from hansa.rounds.questions import phase_of, unpacked
from hansa.site.data import not_declared
from hansa.site.failures import keep_failure
from hansa.site.settings import DataSource, SiteSettings
from hansa.site.slots import Lent, SlotDesk, asked_for, slot_environment
from hansa.site.states import OwnStates
from hansa.site.worker_messages import (
    Ask,
    Declared,
    Done,
    Evaluate,
    Failed,
    Ready,
    Setup,
    Train,
)
from hansa.site.worker_process import Answer, Files, Worker, WorkerProcess
from hansa.store.files import link_or_copy, load_params
from hansa.store.spares import Spares
from hansa.text import clean

_WORKER = (sys.executable, "-P", "-s", "-m", "hansa.site.worker")
_log = logging.getLogger(__name__)


Tensors = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Names, dtypes and shapes."""


class WorkerResult(NamedTuple):
    """What came of a task."""

    state: Literal["done", "failed"]
    metrics: dict[str, tuple[float, float]] = {}  # noqa: RUF012 - totals and weights; read only
    weight: float = 0.0
    examples: int = 0
    code: str = ""  # of `failed`
    reason: str = ""  # of `failed`: a sentence that may leave the site
    trace_file: Path | None = None  # of `failed`: stays here
    tensors: Tensors = ()  # of the update
    digest: str = ""  # of the update
    size: int = 0  # bytes of the update
    steps: int = 0  # local steps that were taken
    epoch_steps: int = 0  # of one pass over the examples


class _Slot:
    """One run's worker."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # held during a task
        self.identity = ""
        self.worker: Worker | None = None
        self.examples = 0
        self.busy = self.cancelled = False
        self.lent: Lent = {}  # that its worker was started with

    def cancel(self) -> None:
        """End the task under way, also when its worker is only just being started."""
        self.cancelled = True
        if self.worker is not None:
            self.worker.cancel()


class Workers:
    """Runs the code of runs on this site's data; may be used by several threads.

    Args:
      folder: of the site.
      settings: of the site; what is assigned later holds for workers that are started from then.
    """

    def __init__(self, folder: Path, settings: SiteSettings) -> None:
        self.settings = settings
        self._folder = folder.resolve()
        self.states = OwnStates(self._folder, settings.name)
        self.spares = Spares(self._folder / "spare")
        self._log = Log(self._folder / "workers.log")
        self._slots: dict[str, _Slot] = {}
        self._lock = threading.Lock()
        self._warned = False
        self._desk = SlotDesk()
        # Processes that end with their parent take the thread that has started them for it.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="worker-starter")

    def ready(self, offer: Offer, package_folder: Path) -> WorkerResult:
        """Have a run's worker import the code and load the data, and say how many examples.

        Args:
          offer: the run.
          package_folder: where its code has been unpacked.
        """
        return self._guarded(offer, "ready", lambda slot: self._ready(slot, offer, package_folder))

    def examples(self, offer: Offer, package_folder: Path) -> int:
        """Return `ready(...).examples`.

        Raises:
          SiteError: the code or the data cannot be used; with the result's code and reason.
        """
        result = self.ready(offer, package_folder)
        if result.state == "failed":
            raise SiteError(result.code, result.reason, "What it printed is in workers.log.")
        return result.examples

    def train(
        self,
        offer: Offer,
        package_folder: Path,
        round: int,
        message: Path,
        update: Path,
        steps: int | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> WorkerResult:
        """Train in a round, and write the update.

        Args:
          offer: the run.
          package_folder: where its code has been unpacked.
          round: number, from 1.
          message: file with what the server broadcast; verified.
          update: file to write; it appears whole, and only when the result is `done`.
          steps: local steps; None leaves them to the plan.
          settings: what the cohort is told besides.
        """

        def work(slot: _Slot) -> WorkerResult:
            limit = UPDATE_TIMES_MAX * message.stat().st_size + UPDATE_SLACK_BYTES
            files = Files.beside(update, limit, self.spares)
            try:
                request = Train(round, str(message), steps, dict(settings or {}))
                answer = self._ask(slot, offer, package_folder, request=request, files=files)
                result = _result(answer)
                if result.state == "done":
                    result = result._replace(tensors=_tensors(files.update))
                    self._keep_state(offer, round, answer, files)
                    os.replace(files.update, update)
                return result
            finally:
                files.remove()

        return self._guarded(offer, f"{round}-train", work)

    def evaluate(
        self, offer: Offer, package_folder: Path, round: int, message: Path
    ) -> WorkerResult:
        """Evaluate a round's model on the validation part; arguments as those of `train`."""

        def work(slot: _Slot) -> WorkerResult:
            request = Evaluate(round, str(message))
            return _result(self._ask(slot, offer, package_folder, request=request))

        return self._guarded(offer, f"{round}-evaluate", work)

    def answer(
        self, offer: Offer, package_folder: Path, ask: Ask, *, answer: Path, limit: int
    ) -> WorkerResult:
        """Have a run's worker answer a named task, and write the answer.

        Args:
          offer: the run.
          package_folder: where its code has been unpacked.
          ask: what is asked; its message is a file here.
          answer: file to write; it appears whole, and only when the result is `done`.
          limit: bytes that it may have.
        """

        def work(slot: _Slot) -> WorkerResult:
            files = Files.beside(answer, limit, self.spares)
            try:
                given = self._ask(slot, offer, package_folder, request=ask, files=files)
                result = _result(given)
                if result.state == "done":
                    _unpacked(files.update, "What the code answered")
                    result = result._replace(tensors=_tensors(files.update))
                    if isinstance(given.reply, Done) and given.reply.state:
                        begun = _unpacked(Path(ask.message), "What the server asked").state
                        self.states.keep_of_task(offer.run, ask.number, files.state, begun=begun)
                    os.replace(files.update, answer)
                return result
            finally:
                files.remove()

        return self._guarded(offer, f"{ask.number}-{phase_of(ask.task, ask.step)}", work)

    def cancel(self, run: str) -> None:
        """End a run's task that is under way; its result is `failed`, with `site-cancelled`."""
        slot = self._slots.get(run)
        if slot is not None and slot.busy:
            slot.cancel()
            self._desk.stir()

    def close(self, run: str) -> None:
        """End a run's worker; what the site keeps of the run between rounds stays."""
        with self._lock:
            slot = self._slots.pop(run, None)
        if slot is not None:
            if slot.busy:
                slot.cancel()
                self._desk.stir()
            with slot.lock:
                if slot.worker is not None:
                    slot.worker.close()
        self._desk.give_back(run)
        shutil.rmtree(self._folder / "exchange" / run, ignore_errors=True)

    def forget(self, run: str) -> None:
        """End a run's worker, and remove what the site keeps between its rounds."""
        self.close(run)
        self.states.forget(run)

    def close_all(self) -> None:
        """End all workers; this object cannot be used any more."""
        for run in list(self._slots):
            self.close(run)
        self._starter.shutdown()

    def _guarded(
        self, offer: Offer, what: str, work: Callable[[_Slot], WorkerResult]
    ) -> WorkerResult:
        """Do something with a run's worker, one thing at a time, and let no error out."""
        with self._lock:
            slot = self._slots.setdefault(offer.run, _Slot())
        with slot.lock:
            slot.cancelled, slot.busy = False, True
            try:
                return work(slot)
            except _Refused as refused:
                return self._failed(offer, what, refused.failed)
            except Lost as lost:
                words = slot.worker.last_words() if slot.worker is not None else ""
                return self._failed(offer, what, Failed(lost.args[0], lost.args[1], words))
            except HansaError as error:
                told = Failed(error.code, error.sentences, "")
                return self._failed(offer, what, told)
            except OSError as error:
                return self._failed(offer, what, Failed("system", f"{error}", ""))
            finally:
                slot.busy = False
                self._desk.stir()

    def _ready(self, slot: _Slot, offer: Offer, package: Path) -> WorkerResult:
        # Slots that it does not have now are another's by then: it counts examples without.
        lent = slot.lent or dict.fromkeys(asked_for(offer.plan), ())
        self._worker(slot, offer, package, lent=lent)
        return WorkerResult("done", examples=slot.examples)

    def _ask(
        self,
        slot: _Slot,
        offer: Offer,
        package: Path,
        *,
        request: Train | Evaluate | Ask,
        files: Files | None = None,
    ) -> Answer:
        """Hand a task to the run's worker.

        Raises:
          Lost, _Refused, HansaError, OSError: there is no result.
        """
        worker = self._worker(slot, offer, package, lent=self._lent(slot, offer))
        place = self._exchange(offer.run)
        name = f"{request.number}-{type(request).__name__.lower()}.safetensors"
        inside = place / "in" / name
        link_or_copy(Path(request.message), inside)
        path = f"/hansa/in/{name}" if self._sandboxed() else str(inside)
        try:
            asked = msgspec.structs.replace(request, message=path)
            answer = worker.ask(asked, seconds=self.settings.limits.task_s, files=files)
        finally:
            inside.unlink(missing_ok=True)
        if isinstance(answer.reply, Failed):
            raise _Refused(answer.reply)
        return answer

    def _lent(self, slot: _Slot, offer: Offer) -> Lent:
        """Return the slots that a task of a run has, once they are free.

        Raises:
          SiteError: site-busy.
        """
        if not (asks := asked_for(offer.plan)):
            return {}
        return self._desk.take(
            offer.run,
            asks,
            self.settings.resources,
            idle=self._put_to_rest,
            over=lambda: slot.cancelled,
            patience_s=self.settings.limits.task_s,
        )

    def _put_to_rest(self, run: str) -> bool:
        """End the worker of a run that does nothing, which frees its slots; its next task waits."""
        slot = self._slots.get(run)
        if slot is None:
            return True
        if not slot.lock.acquire(blocking=False):
            return False
        try:
            if slot.worker is not None:
                slot.worker.close()
                slot.worker, slot.lent = None, {}
            return True
        finally:
            slot.lock.release()

    def _worker(self, slot: _Slot, offer: Offer, package: Path, *, lent: Lent) -> Worker:
        """Return the run's worker, set up, and started with the slots that it has now."""
        if slot.cancelled:
            raise Lost("site-cancelled", "The task was cancelled before it had begun.")
        same = slot.identity == offer.identity and slot.lent == lent
        if slot.worker is not None and slot.worker.alive and same:
            return slot.worker
        if slot.worker is not None:
            slot.worker.close()
        command, folder, setup = self._prepare(offer, package)
        slot.lent = lent  # told to the process when it starts
        worker = slot.worker = self.start_worker(command, folder, slot_environment(lent))
        slot.identity = offer.identity
        if slot.cancelled:
            worker.cancel()
        answer = worker.ask(setup, seconds=self.settings.limits.task_s)
        if isinstance(answer.reply, Failed):
            worker.kill()
            raise _Refused(answer.reply)
        assert isinstance(answer.reply, Ready)  # `ask` has seen to it
        slot.examples = answer.reply.examples
        return worker

    def start_worker(
        self, command: list[str], folder: Path | None, more: Mapping[str, str]
    ) -> Worker:
        """Start what runs the code of one run: a process, unless a subclass has another way.

        Args:
          command: of the process.
          folder: to run it in; None in a sandbox, which has its own.
          more: of the process's environment.
        """
        start = self._starter.submit(
            WorkerProcess,
            command,
            environment={**environment(), **more},
            folder=folder,
            log=self._log,
            counted=folder is None and hasattr(os, "geteuid") and os.geteuid() == 0,
        )
        return start.result()

    def _prepare(self, offer: Offer, package: Path) -> tuple[list[str], Path | None, Setup]:
        """Return the command, the folder to run it in where there is no sandbox, and the setup."""
        sandboxed = self._sandboxed()
        place, states = self._exchange(offer.run), self.states.folder(offer.run)
        data = self._data(offer)
        outside = {"/hansa/package": package, "/hansa/in": place / "in", "/hansa/states": states}
        readable = outside | {_inside(name, path): path for name, (_, path) in data.items()}
        folder = None if sandboxed else _linked(place / "data", data)
        limits = self.settings.limits
        setup = Setup(
            limits=Limits(
                limits.memory_mb, limits.cpu_s, WORKER_PROCESSES_MAX if sandboxed else None
            ),
            package="/hansa/package" if sandboxed else str(package.resolve()),
            plan=offer.plan,
            identity=offer.identity,
            name=self.settings.name,
            data={
                name: Declared(
                    _inside(name, path) if sandboxed else str(path),
                    source.target,
                    source.group,
                    source.classes,
                )
                for name, (source, path) in data.items()
            },
            states="/hansa/states" if sandboxed else str(states),
            tensors=tuple((name, dtype, tuple(shape)) for name, dtype, shape in offer.tensors),
            buffers=tuple(offer.buffers),
            constants=tuple(offer.constants),
        )
        if not sandboxed:
            return list(_WORKER), folder, setup
        command = sandbox_command(
            _WORKER,
            readable=readable,
            hidden=[self._folder],
            private=self._declared(),
            folder="/data" if data else "/tmp",
        )
        return command, None, setup

    def _sandboxed(self) -> bool:
        """Return whether workers run in a sandbox.

        Raises:
          SiteError: site-no-sandbox.
        """
        policy = self.settings.policy
        wish = "required" if policy is None else policy.sandbox
        if wish == "none":
            return False
        why = trouble()
        if why is None:
            return True
        if not self._warned:  # once, not at each task
            self._warned = True
            so = "nothing runs" if wish == "required" else "code runs without a sandbox"
            _log.warning("There is no sandbox here (%s): %s.", why, so)
        if wish == "required":
            why = re.sub(r"(?<![\w<])/[^\s:]+", "...", why)  # this sentence leaves the site
            raise SiteError(
                "site-no-sandbox",
                f"This site runs code in a sandbox only, and there is none: {why}. "
                "Nothing was run.",
                "Its owner sees more with hansa site status; bubblewrap must be installed and "
                'work, or the policy say sandbox = "preferred".',
            )
        return False

    def _data(self, offer: Offer) -> dict[str, tuple[DataSource, Path]]:
        """Return the data that a run gets to see: what its plan names, or all that is allowed.

        Raises:
          SiteError: site-data, the plan's is not declared, or not there.
        """
        policy, declared = self.settings.policy, self.settings.data
        allowed = declared if policy is None or policy.data is None else policy.data
        wanted = offer.plan.get("data")
        named = wanted.get("set") if isinstance(wanted, dict) else None
        if named is not None and (named not in declared or named not in allowed):
            raise not_declared(str(named))
        found = {}
        for name, source in declared.items():
            if name in allowed and named in (None, name):
                path = (self._folder / source.path).resolve()
                if not path.exists():
                    raise SiteError(
                        "site-data",
                        f"The data {name!r} that this site has declared is not there.",
                        "Its owner corrects the path in site.toml.",
                    )
                found[name] = (source, path)
        return found

    def _declared(self) -> list[Path]:
        """Return where all declared data are that are there, whoever may see them."""
        places = [self._folder / source.path for source in self.settings.data.values()]
        return [place for place in places if place.exists()]

    def _exchange(self, run: str) -> Path:
        place = self._folder / "exchange" / run
        (place / "in").mkdir(parents=True, exist_ok=True)
        return place

    def _keep_state(self, offer: Offer, round: int, answer: Answer, files: Files) -> None:
        if isinstance(answer.reply, Done) and answer.reply.state:
            self.states.keep(offer.run, round, files.state, update=answer.digest)

    def _failed(self, offer: Offer, what: str, failed: Failed) -> WorkerResult:
        """Make the result of a task that failed, and keep what its owner may want to read."""
        reason, file = clean(self.without_paths(failed.message), MESSAGE_CHARS_MAX), None
        if failed.trace:
            file = keep_failure(self._folder, f"{offer.run}-{what}", failed.trace)
        _log.warning("Run %s, %s: %s", offer.run, what, reason)
        return WorkerResult("failed", code=failed.code[:80], reason=reason, trace_file=file)

    def without_paths(self, text: str) -> str:
        """Return a message without the places where this site keeps its data and itself."""
        places = {
            str(path): name
            for name, source in self.settings.data.items()
            for path in (Path(source.path), (self._folder / source.path).resolve())
            if path.is_absolute()
        }
        places |= {str(self._folder): "site", str(Path.home()): "~"}
        for place in sorted(places, key=len, reverse=True):
            if len(place) > 1:
                text = text.replace(place, places[place])
        return text


class _Refused(Exception):  # noqa: N818 - carries a worker's own word
    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.failed = failed


def _result(answer: Answer) -> WorkerResult:
    """Return a worker's answer, which may hold anything, as a result.

    Raises:
      RunError: it weighs nothing that can be weighed, or brings too many metrics.
    """
    done = answer.reply
    assert isinstance(done, Done)  # `ask` has seen to it
    if not (math.isfinite(done.weight) and done.weight >= 0):
        raise RunError(
            "update-weight",
            f"The update weighs {done.weight!r}, which is no positive finite number.",
            "Nothing was sent; see what sets the weight.",
        )
    longest = max(map(len, done.metrics), default=0)
    if len(done.metrics) > METRICS_MAX or longest > METRIC_NAME_CHARS_MAX:
        raise RunError(
            "learner-metrics",
            f"There are {len(done.metrics)} metrics, the longest name with {longest} characters; "
            f"up to {METRICS_MAX} of {METRIC_NAME_CHARS_MAX} characters can be sent.",
            "Nothing was sent; return fewer metrics, under shorter names.",
        )
    return WorkerResult(
        "done",
        done.metrics,
        done.weight,
        done.examples,
        digest=answer.digest,
        size=done.update,
        steps=done.steps,
        epoch_steps=done.epoch_steps,
    )


def _tensors(update: Path) -> Tensors:
    """Return names, dtypes and shapes of an update.

    Raises:
      ParamsError: it is no file of tensors.
    """
    return tuple((s.name, s.dtype, tuple(s.shape)) for s in load_params(update).layout.specs)


def _unpacked(file: Path, what: str) -> Unpacked:
    """Return what a named task's question or answer says.

    Raises:
      RunError: it is none.
    """
    try:
        return unpacked(load_params(file))
    except ValueError as error:
        raise RunError(
            "task-answer",
            f"{what} cannot be read: {error}.",
            "Nothing was sent; see what else writes to the worker's output.",
        ) from None


def _inside(name: str, path: Path) -> str:
    """Return where data lies in a sandbox; a file keeps its suffix, which says what it is."""
    suffix = "" if path.is_dir() or name.endswith(path.suffix) else path.suffix
    return f"/data/{name}{suffix}"


def _linked(folder: Path, data: dict[str, tuple[DataSource, Path]]) -> Path:
    """Return a folder with links to data under its names, as a sandbox shows it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, (_, path) in data.items():
        (folder / Path(_inside(name, path)).name).symlink_to(path)
    return folder
