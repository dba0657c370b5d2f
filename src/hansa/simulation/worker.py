"""A worker process: `python -m hansa.simulation.worker`, spoken to through its standard streams.

It is started fresh on every system alike, ignores Ctrl-C (the simulation decides), and ends when
its input does, so a killed simulation leaves no orphan.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from hansa.algorithms import Vectors
from hansa.code import code_changed, identity
from hansa.errors import HansaError
from hansa.learners.learner import close
from hansa.params import Layout
from hansa.params.model import ModelLayout
from hansa.pipes import Closed, receive, send, worker_streams
from hansa.plan import Plan
from hansa.project import build_project, client_of
from hansa.rounds.questions import Asking
from hansa.runs.lineage import open_lineage
from hansa.simulation.population import project_population
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
from hansa.store.files import load_params, save_params


def main() -> None:
    """Serve one simulation until it closes the pipe."""
    requests, replies = worker_streams()
    runner: Runner | None = None
    while True:
        try:
            request = receive(requests, Request)
            try:
                if isinstance(request, Setup):
                    runner = make_runner(request)
                    send(replies, Ready())
                else:
                    assert runner is not None  # Setup comes first
                    send(replies, _serve(runner, request))
            except HansaError as error:
                name = type(error).__name__
                send(replies, Refused(name, error.code, error.happened, error.hint))
        except Closed:
            break
    if runner is not None:
        close(runner.learner)


def make_runner(setup: Setup) -> Runner:
    """Build the same runner that the simulation itself has."""
    project = build_project(msgspec.convert(setup.plan, Plan), Path(setup.project))
    project = project._replace(data_folder=Path(setup.data_folder))
    if identity(project.plan, project.code) != setup.identity:
        raise code_changed(setup.project)
    layout = ModelLayout(Layout.of(setup.tensors), setup.buffers, setup.constants)
    if setup.fixed:
        layout = layout.holding(load_params(setup.fixed))
    client = client_of(project, layout)
    return Runner(
        project,
        project_population(project),
        client=client,
        states=ClientStates(Path(setup.states)),
        lineage=open_lineage(project.plan.keep, Path(setup.folder), setup.key),
    )


def _serve(runner: Runner, request: Request) -> Reply:
    match request:
        case Open(number, message, weight_limit, settings):
            vectors = Vectors(load_params(message).to_dict())
            runner.open(number, vectors, weight_limit, settings=settings)
        case Train(client, steps):
            runner.ask_steps(client, steps)
            return _reported(runner.train(client))
        case Evaluate(client):
            return _reported(runner.evaluate(client))
        case Ask():
            return _reported(_answered(runner, request))
        case Finish(partial):
            save_params(partial, runner.aggregator.dump(runner.partial))
    return Ready()


def _answered(runner: Runner, request: Ask) -> Report:
    """Have a client answer a named task; write the answer where the simulation looks for it."""
    asking = Asking(request.number, request.task, request.step, {})
    report = runner.ask(request.client, asking, load_params(request.question))
    if report.answer is not None:
        save_params(request.answer, report.answer)
        report = report._replace(answer=request.answer)
    return report


def _reported(report: Report) -> Reported:
    return Reported(tuple(report))


if __name__ == "__main__":
    main()
