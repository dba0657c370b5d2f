"""One simulated run from start, or from its last commit, to its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import msgspec

from hansa.code import identity, make_current
from hansa.errors import HansaError, PlanError, RunError, StoreError
from hansa.learners.learner import close
from hansa.limits import MESSAGE_CHARS_MAX
from hansa.params.model import ModelLayout
from hansa.plan.schema import KeepPlan
from hansa.project import Project, client_of
from hansa.runs import RunFolder, all_runs
from hansa.runs.lineage import is_wanted, lineage_key, open_lineage, redis_address
from hansa.runs.making import Clients, make_run, seed_file
from hansa.runs.start import Start, as_seed, begins_with
from hansa.seeds import Key
from hansa.simulation.chosen import chosen
from hansa.simulation.engine import Engine, Inline
from hansa.simulation.federation import SimulatedFederation
from hansa.simulation.population import Population, project_population
from hansa.simulation.runner import Runner
from hansa.store.client_states import ClientStates
from hansa.text import nearest
from hansa.workflows import Problem, Progress, Watcher, drive, from_files, to_files
from hansa.workflows.sampling import cohort_size

EngineName = Literal["inline", "processes"]


class Unwatched:
    """A watcher that does not look."""

    def working(self, what: str, done: int, total: int) -> None: ...

    def committed(self, row: dict[str, Any], problems: Sequence[Problem]) -> None: ...


class Simulation(NamedTuple):
    """How and where a project is simulated."""

    runs: Path = Path("runs")
    engine: EngineName = "inline"
    workers: int | None = None  # of the processes engine; None is one for each core
    new: bool = False  # start anew even if an unfinished run of the same plan is there


def open_run(
    project: Project,
    simulation: Simulation,
    population: Population | None = None,
    *,
    start: Start | None = None,
) -> tuple[RunFolder, Population]:
    """Return the unfinished run of this very plan and code, or a new one with its seed model.

    Args:
      project: what to run.
      simulation: where and how.
      population: the clients, where the project does not say who they are.
      start: model to start from; an unfinished run goes on only if it began with this one.

    Raises:
      HansaError: data is missing, the learner cannot make a seed model, or the given model does
        not fit.
    """
    if simulation.engine not in get_args(EngineName):
        raise PlanError(
            "plan-unknown-name",
            f"There is no engine {simulation.engine!r}. Nothing was started.",
            nearest(str(simulation.engine), get_args(EngineName)),
        )
    if simulation.engine == "processes" and project.folder is None:
        raise PlanError(
            "engine-needs-project",
            "The processes engine starts fresh processes, which need the code as files.",
            "Make a project folder with hansa init, or use engine='inline'.",
        )
    _check_keep(project.plan.keep, simulation)
    digest = identity(project.plan, project.code)
    if not simulation.new and project.folder is not None:
        for run in reversed(list(all_runs(simulation.runs))):
            same = run.about["identity"] == digest and run.remote is None
            same = same and (start is None or begins_with(run, start))
            if same and run.state == "running" and run.commits():
                return run, population or project_population(project)
    population = population or project_population(project)
    cohort, there = project.plan.cohort, len(chosen(population, project.plan).names)
    asked = cohort_size(there, fraction=cohort.fraction, count=cohort.count)
    if asked < cohort.minimum:
        raise PlanError(
            "plan-impossible",
            f"The plan's cohort.minimum is {cohort.minimum}; a round asks {asked} of {there} "
            "clients. Nothing was started.",
            "Lower the minimum, ask more clients, or split the data among more of them.",
        )
    aggregator = project.method.aggregator
    if asked < aggregator.needs:
        raise PlanError(
            "plan-impossible",
            f"{aggregator.name} needs {aggregator.needs} updates with these settings; a round "
            f"asks {asked} clients. Nothing was started.",
            "Ask more clients, or withstand fewer faulty ones.",
        )
    return _create(project, simulation, population, start), population


def continue_run(
    folder: RunFolder,
    project: Project,
    population: Population,
    *,
    simulation: Simulation,
    watcher: Watcher | None = None,
) -> Progress:
    """Work on a run until it ends.

    An interruption (Ctrl-C, a kill) leaves it unfinished; calling this again goes on from the last
    commit and gives the same bytes as if nothing had happened.

    Raises:
      RunError: the run has failed; the reason is kept in its folder.
      HansaError: something else that a person must mend.
    """
    with folder.locked():
        folder.reload()
        if folder.state != "running":
            raise RunError(
                "run-ended",
                f"Another process has brought {folder.name} to its end meanwhile: it has "
                f"{folder.state}.",
                "Look at it with hansa show, or start another with: hansa run --new",
            )
        _check_data(folder, population)
        population = chosen(population, project.plan)
        folder.sweep()
        if project.folder is not None:
            make_current(project.folder, project.code)
        first = not any(e["kind"] == "started" for e in folder.log.events)
        folder.log.append("started" if first else "resumed", engine=simulation.engine)
        try:
            progress = _work(folder, project, population, simulation, watcher or Unwatched())
        except StoreError:
            raise  # it may be there again tomorrow: the run goes on from its last commit
        except HansaError as error:
            folder.log.append("ended", state="failed", reason=str(error), code=error.code)
            raise
        except OSError:
            raise  # a full disk, a lost mount: the run can go on from its last commit
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"[:MESSAGE_CHARS_MAX]
            folder.log.append("ended", state="failed", reason=reason, code="user-code")
            raise
        assert progress.ended is not None  # a workflow returns when it is over
        folder.log.append("ended", state="finished", reason=progress.ended)
        return progress


def _check_keep(keep: KeepPlan, simulation: Simulation) -> None:
    """Refuse a place for models that this simulation does not have.

    Raises:
      PlanError: plan-impossible; StoreError: store-redis.
    """
    if keep.store == "redis" and is_wanted(keep):
        redis_address()
    if keep.store == "memory" and keep.clients is not None and simulation.engine != "inline":
        raise PlanError(
            "plan-impossible",
            'keep.store is "memory", and worker processes have one each. Nothing was started.',
            'Use --engine inline, or keep.store = "disk".',
        )


def _check_data(folder: RunFolder, population: Population) -> None:
    """Refuse to go on with other data than the run began with."""
    began, now_there = folder.about["data"], population.fingerprint()
    if began is not None and began != now_there:
        raise RunError(
            "run-changed",
            f"The data of {folder.name} has changed since it began ({began[:19]} then). "
            "Nothing was run.",
            "Put the old data back, or start anew with: hansa run --new",
        )


def _work(
    folder: RunFolder,
    project: Project,
    population: Population,
    simulation: Simulation,
    watcher: Watcher,
) -> Progress:
    seed = folder.about["seed_model"]
    model = folder.load(folder.commits()[-1])[0]
    layout = ModelLayout(model.layout, seed["buffers"], seed["constants"]).holding(model)
    states = ClientStates(folder.path / "clients")
    client = client_of(project, layout)
    lineage = open_lineage(project.plan.keep, folder.path, lineage_key(folder.about))
    runner = Runner(project, population, client=client, states=states, lineage=lineage)
    engine = _engine(folder, project, runner, states, simulation)
    try:
        federation = SimulatedFederation(
            project,
            population,
            engine=engine,
            folder=folder,
            layout=layout,
            states=states,
            watcher=watcher,
            lineage=lineage,
        )
        return drive(project.workflow.run(federation, project.plan, project.method.algorithm))
    finally:
        states.clear()
        engine.close()
        close(project.learner)


def _engine(
    folder: RunFolder,
    project: Project,
    runner: Runner,
    states: ClientStates,
    simulation: Simulation,
) -> Engine:
    if simulation.engine == "inline":
        return Inline(runner)
    import os

    from hansa.simulation.processes import Processes
    from hansa.simulation.wire import Setup

    assert project.folder is not None  # `open_run` has seen to it
    setup = Setup(
        project=str(project.folder.resolve()),
        data_folder=str((project.data_folder or project.folder).resolve()),
        plan=msgspec.to_builtins(project.plan),
        states=str((folder.path / "clients").resolve()),
        identity=folder.about["identity"],
        tensors=tuple(spec[:3] for spec in runner.layout.layout.specs),
        buffers=runner.layout.buffers.names,
        constants=runner.layout.constants.names,
        folder=str(folder.path.resolve()),
        key=lineage_key(folder.about),
    )
    workers = simulation.workers or os.cpu_count() or 1
    return Processes(setup, workers, runner=runner, states=states, folder=folder.path)


def _create(
    project: Project, simulation: Simulation, population: Population, start: Start | None
) -> RunFolder:
    plan = project.plan
    seed = project.learner.init(population.sample(), Key.root(plan.seed).child("model"))
    seed = seed if start is None else as_seed(start, seed)
    clients = Clients(len(population.names), population.fingerprint(), population.table())
    folder = make_run(
        simulation.runs,
        project,
        seed_file(seed),
        engine=simulation.engine,
        clients=clients,
        origin=start.origin if start is not None else "",
    )
    algorithm = project.method.algorithm
    state = from_files(algorithm, seed.layout, model=seed.params, extra=None)
    _, extra = to_files(seed.layout, state)
    folder.commit(0, seed.params, extra, row={}, progress=Progress()._asdict(), elapsed=0.0)
    return folder
