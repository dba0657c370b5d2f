"""The `processes` engine: warm worker processes that fold their clients locally.

Clients are handed out one by one, so a slow one holds up nobody else.  A worker that dies (out of
memory, a crash in native code) is replaced, and what it had folded is done again elsewhere; a
client that takes two workers with it counts as failed.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import hansa.errors
from hansa.aggregators import Contribution
from hansa.errors import RunError
from hansa.learners.generators import local_threads
from hansa.limits import WORKER_DEATHS_MAX
from hansa.params import Params, encode
from hansa.pipes import Closed, receive, send
from hansa.rounds.questions import Asking
from hansa.simulation.engine import Exchange, OnReport
from hansa.simulation.runner import Report, Runner
from hansa.simulation.wire import (
    Ask,
    Evaluate,
    Finish,
    Open,
    Ready,
    Refused,
    Reply,
    Reported,
    Request,
    Setup,
    Train,
)
from hansa.store.client_states import ClientStates
from hansa.store.files import load_params

_FAREWELL_S = 2  # what a worker gets to end by itself
_POLL_S = 0.5  # how soon Ctrl-C is seen on systems where waiting cannot be interrupted


class Processes:
    """Runs clients in worker processes.

    Args:
      setup: what each worker works on.
      workers: how many.
      runner: the simulation's own, for the partial sums.
      states: where updates of rules that are not sums are kept.
      folder: of the run; messages and partial sums pass through `scratch` below it.
    """

    name = "processes"

    def __init__(
        self, setup: Setup, workers: int, *, runner: Runner, states: ClientStates, folder: Path
    ) -> None:
        self._runner, self._states = runner, states
        self._scratch = folder / "scratch"
        self._scratch.mkdir(exist_ok=True)
        self._fixed = self._scratch / "constants.safetensors"
        if runner.layout.constants.names:
            self._fixed.write_bytes(b"".join(encode(Params.of(runner.layout.fixed))))
            setup = msgspec.structs.replace(setup, fixed=str(self._fixed))
        self._setup = setup
        self._log = open(folder / "workers.log", "ab")  # noqa: SIM115 - closed by close()
        self._threads = local_threads()
        self._workers: list[_Worker] = []
        try:
            for _ in range(workers):
                self._workers.append(self._start())
            for worker in self._workers:
                worker.wait_until_ready()
        except BaseException:
            self.close()
            raise

    def train(self, exchange: Exchange, clients: Sequence[str], on_report: OnReport) -> Any:
        """Have the clients train; return the sum of the workers' partial sums."""
        return self._run(exchange, clients, on_report, kind=Train)

    def evaluate(self, exchange: Exchange, clients: Sequence[str], on_report: OnReport) -> None:
        """Have the clients evaluate."""
        self._run(exchange, clients, on_report, kind=Evaluate)

    def ask(self, asking: Asking, on_report: OnReport) -> None:
        """Have the clients answer a named task."""
        files: dict[int, Path] = {}  # by question: most often there is one for all
        requests: dict[str, Request] = {}
        for n, (client, question) in enumerate(asking.questions.items()):
            if id(question) not in files:
                file = files[id(question)] = self._scratch / f"question-{n}.safetensors"
                file.write_bytes(b"".join(encode(question)))
            told = (client, asking.number, asking.task, asking.step, str(files[id(question)]))
            requests[client] = Ask(*told, str(self._scratch / f"answer-{n}.safetensors"))

        def taken(report: Report) -> None:
            if report.answer is not None:
                path = Path(report.answer)
                report = report._replace(answer=load_params(path).copy())
                path.unlink(missing_ok=True)
            on_report(report)

        job = _Job(None, requests, deque(requests), queue.SimpleQueue(), None)
        try:
            self._perform(job, taken)
        finally:
            for file in files.values():
                with contextlib.suppress(OSError):
                    file.unlink()

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.close()
        self._fixed.unlink(missing_ok=True)
        self._log.close()

    def _start(self) -> _Worker:
        return _Worker(self._setup, threads=self._threads, log=self._log)

    def _run(
        self, exchange: Exchange, clients: Sequence[str], on_report: OnReport, *, kind: Any
    ) -> Any:
        # A file of its own: workers still have the one before mapped into memory.
        message = self._scratch / f"message-{exchange.number}-{kind.__name__}.safetensors"
        message.write_bytes(b"".join(encode(Params.of(dict(exchange.message)))))
        try:
            return self._exchange(exchange, clients, on_report, kind=kind, message=message)
        finally:
            with contextlib.suppress(OSError):  # Windows keeps what is mapped; swept later
                message.unlink()

    def _exchange(
        self,
        exchange: Exchange,
        clients: Sequence[str],
        on_report: OnReport,
        *,
        kind: Any,
        message: Path,
    ) -> Any:
        self._runner.open(*exchange)
        steps = exchange.steps
        requests: dict[str, Request] = {
            name: Train(name, steps.get(name)) if kind is Train else Evaluate(name)
            for name in clients
        }
        job = _Job(
            Open(exchange.number, str(message), exchange.weight_limit, dict(exchange.settings)),
            requests,
            deque(clients),
            queue.SimpleQueue(),
            self._scratch if kind is Train and self._runner.aggregator.streaming else None,
        )

        def taken(report: Report) -> None:
            on_report(report)
            self._collect(report, exchange, kind)

        self._perform(job, taken)
        return self._runner.partial

    def _perform(self, job: _Job, on_report: OnReport) -> None:
        """Have the workers do a job, and wait until it is done."""
        deaths: Counter[str] = Counter()
        running = [self._launch(worker, job) for worker in self._workers]
        active = len(running)
        while active:
            try:
                event = job.events.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            match event:
                case Report():
                    on_report(event)
                case _Ended(partial=partial):
                    active -= 1
                    if partial is not None:
                        self._merge(partial)
                case _Lost(client=client):
                    deaths[client] += 1
                    self._recover(event, job, deaths[client], on_report)
                case _Broken(error):
                    raise error

    def _launch(self, worker: _Worker, job: _Job) -> threading.Thread:
        thread = threading.Thread(target=_drive, args=(worker, job), daemon=True)
        thread.start()
        return thread

    def _replace(self, worker: _Worker, job: _Job) -> None:
        worker.close()
        fresh = self._start()
        self._workers[self._workers.index(worker)] = fresh
        fresh.wait_until_ready()
        self._launch(fresh, job)

    def _recover(self, lost: _Lost, job: _Job, deaths: int, on_report: OnReport) -> None:
        """Hand the lost worker's clients to a new one."""
        if lost.client and deaths < WORKER_DEATHS_MAX:
            job.todo.append(lost.client)
        elif lost.client:
            on_report(_lost(lost.client, deaths))
        elif deaths >= WORKER_DEATHS_MAX:
            raise RunError(
                "client-lost",
                f"Worker processes died {deaths} times without a client to blame.",
                "See workers.log in the run folder, or try --engine inline.",
            )
        if job.partials is not None:
            job.todo.extend(lost.folded)
        self._replace(lost.worker, job)

    def _merge(self, partial: Path) -> None:
        aggregator, runner = self._runner.aggregator, self._runner
        loaded = aggregator.load(runner.spec, load_params(partial))
        runner.partial = aggregator.merge(runner.partial, loaded)
        partial.unlink()

    def _collect(self, report: Report, exchange: Exchange, kind: Any) -> None:
        """Add an update that a worker has written to disk for a rule that needs them all."""
        if kind is not Train or self._runner.aggregator.streaming or report.kind != "done":
            return
        vectors = self._states.spilled(report.client, exchange.number)
        contribution = Contribution(report.client, vectors, report.weight)
        self._runner.partial = self._runner.aggregator.add(self._runner.partial, contribution)


class _Job(NamedTuple):
    opening: Open | None
    requests: Mapping[str, Request]  # by client
    todo: deque[str]
    events: queue.SimpleQueue[Any]
    partials: Path | None  # where partial sums go; None when there are none


class _Ended(NamedTuple):
    worker: _Worker
    partial: Path | None


class _Lost(NamedTuple):
    worker: _Worker
    client: str  # the one it was working on; empty when it was between two
    folded: list[str]  # those that were lost with it


class _Broken(NamedTuple):
    error: BaseException


def _drive(worker: _Worker, job: _Job) -> None:
    """Feed one worker until there is nothing left to do; runs in a thread of its own."""
    folded: list[str] = []
    client = ""
    try:
        if job.opening is not None:
            worker.ask(job.opening)
        while True:
            try:
                client = job.todo.popleft()
            except IndexError:
                break
            reply = worker.ask(job.requests[client])
            job.events.put(Report(*reply.report))
            folded.append(client)
            client = ""
        partial = None
        if job.partials is not None and folded:
            partial = job.partials / f"partial-{worker.pid}.safetensors"
            worker.ask(Finish(str(partial)))
        job.events.put(_Ended(worker, partial))
    except Closed:
        job.events.put(_Lost(worker, client, folded))
    except Exception as error:  # noqa: BLE001 - handed to the thread that waits
        job.events.put(_Broken(error))


class _Worker:
    """One worker process and the pipes to it."""

    def __init__(self, setup: Setup, *, threads: int, log: Any) -> None:
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        environment = dict(os.environ) | {name: str(threads) for name in names}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "hansa.simulation.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
        )
        self.pid = self._process.pid
        send(self._input, setup)

    @property
    def _input(self) -> Any:
        return self._process.stdin

    def wait_until_ready(self) -> None:
        """Wait for the answer to Setup.

        Raises:
          RunError: the process died; HansaError: it refused.
        """
        try:
            self._answer()
        except Closed:
            raise RunError(
                "client-lost",
                f"A worker process ended with status {self._process.wait()} before it had begun.",
                "See workers.log in the run folder, or try --engine inline.",
            ) from None

    def ask(self, request: Request) -> Any:
        """Send a request and return the reply.

        Raises:
          Closed: the process has died.
        """
        send(self._input, request)
        return self._answer()

    def _answer(self) -> Ready | Reported:
        reply: Reply = receive(self._process.stdout, Reply)  # type: ignore[arg-type]
        if isinstance(reply, Refused):
            raise getattr(hansa.errors, reply.error)(reply.code, reply.happened, reply.hint)
        return reply

    def close(self) -> None:
        """End the process; it leaves by itself when its input closes."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):  # what it has not read does not matter any more
            self._process.stdin.close()
        try:
            self._process.wait(timeout=_FAREWELL_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # a client is at work, and may never end
            self._process.wait()
        self._process.stdout.close()  # only now: a thread may be reading from it


def _lost(client: str, deaths: int) -> Report:
    return Report(
        client,
        {},
        kind="failed",
        code="client-lost",
        message=f"its worker process died {deaths} times (out of memory, or a crash in native "
        "code); see workers.log",
    )
