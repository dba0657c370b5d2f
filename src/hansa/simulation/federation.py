"""The simulated federation: the handle of `hansa.workflows`, over an engine and a run folder."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from hansa.aggregators.aggregator import Vector
from hansa.algorithms import Vectors
from hansa.clock import monotonic
from hansa.errors import HansaError, LearnerError
from hansa.learners.learner import evaluate
from hansa.limits import SPAN_TASKS_MAX
from hansa.metrics import Metrics
from hansa.params import Params
from hansa.params.model import ModelLayout
from hansa.plan import weight_limit
from hansa.plan.measured import asked_of
from hansa.project import Project
from hansa.rounds import BUFFERS, Terms
from hansa.rounds.questions import asking, once, unpacked
from hansa.runs import RunFolder
from hansa.simulation.engine import Engine, Exchange
from hansa.simulation.population import Population
from hansa.simulation.runner import Report, encoded_bytes
from hansa.simulation.virtual_time import begun, in_order, later
from hansa.spans import Spans, effort, memory_kb
from hansa.store.client_states import ClientStates
from hansa.store.files import load_params
from hansa.store.held import Held
from hansa.store.lineage import Lineage
from hansa.workflows import (
    ANYBODY,
    NO_SETTINGS,
    Answered,
    Arrival,
    Arrived,
    AtWork,
    Commit,
    Evaluated,
    GlobalState,
    Problem,
    Trained,
    Watcher,
    as_stored,
    from_files,
    problem_events,
    rounded,
    to_files,
)

_WORDS = {"train": "training", "evaluate": "evaluating"}

_NO_STEPS: Mapping[str, int] = MappingProxyType({})


class SimulatedFederation:
    """All clients of a population, on this machine.

    Args:
      project: plan, method and learner.
      population: the clients.
      engine: runs them.
      folder: where the run is kept.
      layout: of the model.
      states: client states, for clearing up after a round.
      watcher: is told what happens.
      lineage: where models are kept beside the trail on disk, if the plan wants that.
    """

    def __init__(
        self,
        project: Project,
        population: Population,
        *,
        engine: Engine,
        folder: RunFolder,
        layout: ModelLayout,
        states: ClientStates,
        watcher: Watcher,
        lineage: Lineage | None = None,
    ) -> None:
        self._lineage = lineage
        self._project, self._population, self._engine = project, population, engine
        self._folder, self.layout, self._states = folder, layout, states
        self._watcher = watcher
        self._held = Held(folder.path / "held")
        self._began = monotonic()
        self._before = 0.0  # seconds of work before this process
        self._asked: frozenset[tuple[int, str]] = frozenset()  # rounds and named tasks
        self._noted: set[Problem] = set()  # of this round, already among its events
        self._spans = Spans()

    def resume(self) -> Commit:
        """Return the last commit, read back from the run folder."""
        event = self._folder.commits()[-1]
        model, extra = self._folder.load(event)
        algorithm = self._project.method.algorithm
        state = from_files(algorithm, self.layout, model=model, extra=extra)
        self._before = event["elapsed"]
        self._folder.rewrite_metrics()
        return Commit(event["round"], state, event["row"], event["progress"])

    def elapsed(self) -> float:
        """Return seconds of work, those before an interruption included."""
        return self._before + monotonic() - self._began

    def recall(self, round_number: int) -> GlobalState:
        """Return a model that was kept, read back from the run folder or the lineage."""
        model = None
        if self._lineage is not None and not self._folder.model_path(round_number).is_file():
            model = self._lineage.get("", round_number)
        if model is None or model.digest() != self._folder.digest(round_number):
            self._folder.check_model(round_number)
            model = load_params(self._folder.model_path(round_number))
        return from_files(self._project.method.algorithm, self.layout, model=model, extra=None)

    async def roster(self, round_number: int) -> Sequence[str]:
        """Return everybody: simulated clients are always there."""
        return self._population.names

    async def train(
        self,
        round_number: int,
        state: GlobalState,
        cohort: Sequence[str],
        *,
        terms: Terms,
        steps: Mapping[str, int] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Trained:
        """Run the cohort on the engine and aggregate what it folded.

        Nobody is slow here, so no more clients are asked than are wanted.
        """
        cohort = cohort[: terms.goal]
        self._spans.open(round_number)
        exchange = self._exchange(round_number, state, len(cohort), steps=steps or {})
        exchange = exchange._replace(settings=settings or {})
        reports = _Reports(self._watcher, "train", cohort, self._spans)
        partial = self._engine.train(exchange, cohort, reports)
        reports.end()
        done = {name: r for name, r in reports.by_client.items() if r.kind == "done"}
        began = monotonic()
        aggregate = self._project.method.aggregator.finish(partial) if done else None
        self._spans.note("aggregate", began, blocks=len(done), memory_kb=memory_kb())
        problems = self._problems(round_number, reports, phase="train")
        return Trained(
            rounded(self.layout, aggregate),
            {name: report.means() for name, report in sorted(done.items())},
            problems,
            bytes_down=len(cohort) * self._message_bytes(exchange.message),
            bytes_up=sum(report.bytes_up for report in done.values()),
            asked=len(cohort),
        )

    async def arrivals(
        self,
        round_number: int,
        state: GlobalState,
        cohort: Sequence[str],
        *,
        at_work: Mapping[str, AtWork],
        count: int,
    ) -> Arrived:
        """Train those who come next by their drawn speeds; the others train when they come."""
        waiting = begun(
            self._project, self._population, round_number, cohort=cohort, at_work=at_work
        )
        updates: list[Arrival] = []
        metrics: dict[str, Metrics] = {}
        problems: list[Problem] = []
        down = up = 0
        passed = 0.0
        for client in in_order(waiting):
            if len(updates) == count:
                break
            asked, passed = waiting.pop(client)
            self._watcher.working("training", len(updates), count)
            given = state if asked == round_number else self.recall(asked - 1)
            trained = await self.train(asked, given, [client], terms=Terms())
            down, up = down + trained.bytes_down, up + trained.bytes_up
            metrics |= trained.metrics
            problems += trained.problems
            if trained.aggregate is not None:
                vectors = self._apart(client, round_number, trained.aggregate.vectors, count)
                updates.append(Arrival(client, asked, vectors, trained.aggregate.weight))
        updates.sort()
        return Arrived(updates, later(waiting, passed), metrics, problems, down, up)

    def _apart(
        self, client: str, number: int, vectors: Mapping[str, Vector], count: int
    ) -> Mapping[str, Vector]:
        """Return an update; where there are several, from a file, for they may be many."""
        if count == 1:
            return vectors
        self._held.put(client, -number, vectors)  # until the commit, which names none of these
        return self._held.get(client, -number)

    def hold(self, client: str, number: int, vectors: Mapping[str, Vector]) -> None:
        """Keep vectors in the run folder."""
        self._held.put(client, number, vectors)

    def held(self, client: str, number: int) -> Mapping[str, Vector]:
        """Return what was held."""
        return self._held.get(client, number)

    def stored(self, state: GlobalState) -> GlobalState:
        """Return a state as it is once it has been committed and read back."""
        return as_stored(self.layout, state)

    async def evaluate(
        self, round_number: int, state: GlobalState, clients: Sequence[str]
    ) -> Evaluated:
        """Have clients evaluate on their validation parts."""
        if not clients:
            return Evaluated({}, [])
        self._spans.open(round_number)
        exchange = self._exchange(round_number, state, len(clients))
        reports = _Reports(self._watcher, "evaluate", clients, self._spans)
        self._engine.evaluate(exchange, clients, reports)
        reports.end()
        problems = self._problems(round_number, reports, phase="evaluate")
        metrics = {name: r.means() for name, r in sorted(reports.by_client.items()) if r.metrics}
        return Evaluated(metrics, problems)

    async def ask(
        self,
        round_number: int,
        task: str,
        clients: Sequence[str],
        *,
        message: Mapping[str, Params] | Params | None = None,
        settings: Mapping[str, Any] = NO_SETTINGS,
        terms: Terms = ANYBODY,
        step: int = 0,
    ) -> Answered:
        """Have clients answer a named task; no more of them than are wanted."""
        clients = clients[: terms.goal]
        asked = asking(round_number, task, clients, message=message, settings=settings, step=step)
        self._asked = once(asked, self._asked)
        reports = _Reports(self._watcher, task, clients, Spans())  # there may be very many
        self._engine.ask(asked, reports)
        done = {name: r for name, r in sorted(reports.by_client.items()) if r.kind == "done"}
        return Answered(
            {name: unpacked(report.answer) for name, report in done.items()},
            self._problems(round_number, reports, phase=asked.phase),
            bytes_down=sum(question.nbytes for question in asked.questions.values()),
            bytes_up=sum(report.bytes_up for report in done.values()),
        )

    async def test(self, round_number: int, state: GlobalState) -> Metrics:
        """Evaluate on the rows that were held out at the server.

        Raises:
          LearnerError: the user's evaluation raised; there is no client to blame.
        """
        if self._population.test is None:
            return {}
        model = self.layout.join(state.algorithm.x, state.buffers)
        try:
            asked = asked_of(self._project.plan)
            return evaluate(self._project.learner, model, self._population.test, asked)
        except HansaError:
            raise
        except Exception as error:
            raise LearnerError(
                "client-failed",
                f"Evaluating round {round_number} on the server's test part raised "
                f"{type(error).__name__}: {error}.",
                "Correct metrics() or evaluate() of the project, and run again.",
            ) from error

    async def commit(self, commit: Commit, problems: Sequence[Problem]) -> None:
        """Write the round to the run folder."""
        if own := [p for p in problems if p not in self._noted]:  # the workflow's word alone
            self._folder.log.extend(problem_events(own, "round"))
        model, extra = to_files(self.layout, commit.state)
        keep = self._project.plan.keep
        if self._lineage is not None and keep.store != "disk":
            self._lineage.add(commit.round, [("", model)], newest=keep.lineage)
        self._folder.commit(
            commit.round,
            model,
            extra,
            row=commit.row,
            progress=commit.progress,
            elapsed=self.elapsed(),
            spans=self._spans,
            needs=commit.needs,
        )
        self._held.keep(commit.holds)
        self._states.clear()  # what the round's rule may have read until now
        self._asked, self._noted = frozenset(), set()
        self._watcher.committed(commit.row, problems)

    def _message_bytes(self, message: Vectors) -> int:
        """Return what a client gets: beside the vectors, what never changes."""
        return encoded_bytes(message) + self.layout.constants.nbytes

    def _exchange(
        self,
        number: int,
        state: GlobalState,
        clients: int,
        *,
        steps: Mapping[str, int] = _NO_STEPS,
    ) -> Exchange:
        message = Vectors(self._project.method.algorithm.broadcast(state.algorithm))
        if len(state.buffers):
            message[BUFFERS] = state.buffers
        limit = weight_limit(
            self._project.plan,
            self._project.method.algorithm,
            number,
            clients=clients,
            examples=self._population.examples,
            steps=sum(steps.values()),
        )
        return Exchange(number, message, limit, steps)

    def _problems(self, number: int, reports: _Reports, *, phase: str) -> list[Problem]:
        """Log who dropped out at once: the round may never be committed."""
        problems = []
        for name, kind, code, message, trace in reports.problems():
            save = self._folder.save_failure
            file = save(number, name, trace, phase=phase) if trace else None
            problems.append(Problem(number, name, kind, code, message, file))
        if problems:
            self._folder.log.extend(problem_events(problems, phase))
        self._noted.update(problems)
        return problems


class _Reports:
    """Collects reports by client; a client that is run twice reports twice, and once counts."""

    def __init__(self, watcher: Watcher, phase: str, clients: Sequence[str], spans: Spans) -> None:
        self._watcher, self._phase, self._total = watcher, phase, len(clients)
        self._what, self._spans, self._began = _WORDS.get(phase, phase), spans, monotonic()
        self.by_client: dict[str, Report] = {}
        watcher.working(self._what, 0, self._total)
        for client in itertools.islice(clients, SPAN_TASKS_MAX):
            spans.handed(phase, client)

    def __call__(self, report: Report) -> None:
        self.by_client[report.client] = report
        self._watcher.working(self._what, len(self.by_client), self._total)
        wait_s = monotonic() - self._began - report.seconds
        facts = effort(max(0.0, wait_s), report.seconds, report.steps, report.epoch_steps)
        if self._phase == "train" and report.kind == "done":
            facts["fold_s"] = round(report.fold_s, 6)
        self._spans.received(self._phase, report.client, report.kind, **facts)

    def end(self) -> None:
        """Note that nobody is waited for any more."""
        self._spans.note("exchange", self._began, phase=self._phase, clients=self._total)

    def problems(self) -> list[tuple[str, str, str, str, str]]:
        """Return name, kind, code, message and traceback of those that dropped out, by name."""
        dropped = [r for _, r in sorted(self.by_client.items()) if r.kind != "done"]
        return [(r.client, r.kind, r.code, r.message, r.trace) for r in dropped]
