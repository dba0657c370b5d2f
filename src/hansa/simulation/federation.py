"""The simulated federation: the handle of `hansa.workflows`, over an engine and a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from hansa.aggregators.aggregator import Vector
from hansa.algorithms import Vectors
from hansa.clock import monotonic
from hansa.errors import HansaError, LearnerError
from hansa.learners.learner import evaluate
from hansa.metrics import Metrics
from hansa.params.model import ModelLayout
from hansa.plan import weight_limit
from hansa.plan.measured import asked_of
from hansa.project import Project
from hansa.rounds import BUFFERS, Terms
from hansa.runs import RunFolder
from hansa.simulation.engine import Engine, Exchange
from hansa.simulation.population import Population
from hansa.simulation.runner import Report, encoded_bytes
from hansa.simulation.virtual_time import begun, in_order, later
from hansa.store.client_states import ClientStates
from hansa.store.files import load_params
from hansa.store.held import Held
from hansa.workflows import (
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
    check_exact,
    from_files,
    rounded,
    to_files,
)

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
    ) -> None:
        self._project, self._population, self._engine = project, population, engine
        self._folder, self._layout, self._states = folder, layout, states
        self._watcher = watcher
        self._held = Held(folder.path / "held")
        self._began = monotonic()
        self._before = 0.0  # seconds of work before this process

    def resume(self) -> Commit:
        """Return the last commit, read back from the run folder."""
        event = self._folder.commits()[-1]
        model, extra = self._folder.load(event)
        algorithm = self._project.method.algorithm
        state = from_files(algorithm, self._layout, model=model, extra=extra)
        self._before = event["elapsed"]
        self._folder.rewrite_metrics()
        return Commit(event["round"], state, event["row"], event["progress"])

    def elapsed(self) -> float:
        """Return seconds of work, those before an interruption included."""
        return self._before + monotonic() - self._began

    def recall(self, round_number: int) -> GlobalState:
        """Return a model that was kept, read back from the run folder."""
        self._folder.check_model(round_number)
        model = load_params(self._folder.model_path(round_number))
        return from_files(self._project.method.algorithm, self._layout, model=model, extra=None)

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
    ) -> Trained:
        """Run the cohort on the engine and aggregate what it folded.

        Nobody is slow here, so no more clients are asked than are wanted.
        """
        cohort = cohort[: terms.goal]
        exchange = self._exchange(round_number, state, len(cohort), steps=steps or {})
        reports = _Reports(self._watcher, "training", len(cohort))
        partial = self._engine.train(exchange, cohort, reports)
        done = {name: r for name, r in reports.by_client.items() if r.kind == "done"}
        aggregate = self._project.method.aggregator.finish(partial) if done else None
        self._states.clear()
        problems = self._problems(round_number, reports, phase="train")
        return Trained(
            rounded(self._layout, aggregate),
            {name: report.means() for name, report in sorted(done.items())},
            problems,
            bytes_down=len(cohort) * encoded_bytes(exchange.message),
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
        check_exact(self._layout)
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
        return as_stored(self._layout, state)

    async def evaluate(
        self, round_number: int, state: GlobalState, clients: Sequence[str]
    ) -> Evaluated:
        """Have clients evaluate on their validation parts."""
        if not clients:
            return Evaluated({}, [])
        exchange = self._exchange(round_number, state, len(clients))
        reports = _Reports(self._watcher, "evaluating", len(clients))
        self._engine.evaluate(exchange, clients, reports)
        problems = self._problems(round_number, reports, phase="evaluate")
        metrics = {name: r.means() for name, r in sorted(reports.by_client.items()) if r.metrics}
        return Evaluated(metrics, problems)

    async def test(self, round_number: int, state: GlobalState) -> Metrics:
        """Evaluate on the rows that were held out at the server.

        Raises:
          LearnerError: the user's evaluation raised; there is no client to blame.
        """
        if self._population.test is None:
            return {}
        model = self._layout.join(state.algorithm.x, state.buffers)
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
        model, extra = to_files(self._layout, commit.state)
        self._folder.commit(
            commit.round,
            model,
            extra,
            row=commit.row,
            progress=commit.progress,
            elapsed=self.elapsed(),
            needs=commit.needs,
        )
        self._held.keep(commit.holds)
        self._watcher.committed(commit.row, problems)

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
        facts = [
            {**p._asdict(), "kind": "problem", "what": p.kind, "phase": phase} for p in problems
        ]
        if facts:
            self._folder.log.extend(facts)
        return problems


class _Reports:
    """Collects reports by client; a client that is run twice reports twice, and once counts."""

    def __init__(self, watcher: Watcher, what: str, total: int) -> None:
        self._watcher, self._what, self._total = watcher, what, total
        self.by_client: dict[str, Report] = {}
        watcher.working(what, 0, total)

    def __call__(self, report: Report) -> None:
        self.by_client[report.client] = report
        self._watcher.working(self._what, len(self.by_client), self._total)

    def problems(self) -> list[tuple[str, str, str, str, str]]:
        """Return name, kind, code, message and traceback of those that dropped out, by name."""
        dropped = [r for _, r in sorted(self.by_client.items()) if r.kind != "done"]
        return [(r.client, r.kind, r.code, r.message, r.trace) for r in dropped]
