"""The process that runs one run's code on a site's data: `python -m hansa.site.worker`.

It is spoken to through its standard streams, limits itself before it touches the code, and ends
when its input does, so a killed site leaves no orphan.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec
import numpy as np

from hansa.algorithms import Vectors
from hansa.client import Client, failure_of, plain
from hansa.clock import monotonic
from hansa.code import identity
from hansa.errors import RunError
from hansa.hosting.confined import limit
from hansa.learners.learner import ClientData, close, evaluate
from hansa.params import Layout, Params, encode
from hansa.params.dtypes import is_float
from hansa.params.model import ModelLayout
from hansa.pipes import Closed, receive, send, worker_streams
from hansa.plan import Plan, hyper_at
from hansa.plan.measured import asked_of
from hansa.project import build_project, client_of
from hansa.rounds import BUFFERS
from hansa.rounds.messages import from_message, with_constants
from hansa.rounds.questions import unpacked
from hansa.seeds import Key
from hansa.site.data import count, site_data
from hansa.site.worker_messages import (
    Ask,
    Done,
    Evaluate,
    Failed,
    Ready,
    Request,
    Setup,
    Train,
)
from hansa.store.client_states import ClientStates
from hansa.store.files import load_params
from hansa.workflows.pace import with_pace


class Work(NamedTuple):
    """What a worker has once it is set up."""

    client: Client
    data: ClientData
    name: str
    states: ClientStates
    timed: bool = False  # the workflow wants to know how fast this site is


class Result(NamedTuple):
    """What came of a task: a frame, and the bytes that follow it."""

    done: Done
    chunks: tuple[bytes | memoryview, ...] = ()


def main() -> None:
    """Serve one run until the site closes the pipe."""
    requests, replies = worker_streams()
    work: Work | None = None
    while True:
        try:
            request = receive(requests, Request)
            try:
                if isinstance(request, Setup):
                    limit(request.limits)
                    work = set_up(request)
                    send(replies, Ready(count(work.client.learner, work.data)))
                else:
                    assert work is not None  # Setup comes first
                    _answer(replies, serve(work, request))
            except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the user's code
                send(replies, Failed(*failure_of(error)))
        except Closed:
            break
    if work is not None:
        close(work.client.learner)


def set_up(setup: Setup) -> Work:
    """Import the run's code and load the site's data.

    Raises:
      RunError: run-changed, the code is not what was approved.
      Exception: whatever the code raises.
    """
    project = build_project(msgspec.convert(setup.plan, Plan), Path(setup.package))
    if identity(project.plan, project.code) != setup.identity:
        raise RunError(
            "run-changed",
            "The unpacked code is not what the run's identity names.",
            "Nothing was trained; remove the request and fetch it again.",
        )
    layout = ModelLayout(Layout.of(setup.tensors), setup.buffers, setup.constants)
    client = client_of(project, layout)
    data = site_data(project, setup.data, name=setup.name)
    states = ClientStates(Path(setup.states))
    return Work(client, data, setup.name, states, project.workflow.timed)


def serve(work: Work, request: Any) -> Result:
    """Do one task.

    Raises:
      Exception: whatever the code raises.
    """
    if isinstance(request, Ask):
        return _answered(work, request)
    params = load_params(request.message)
    message = from_message(work.client.layout, params)
    layout = with_constants(work.client.layout, params)
    work = work._replace(client=work.client._replace(layout=layout))
    match request:
        case Evaluate():
            return Result(_evaluated(work, message))
        case Train():
            return _trained(work, message, request)
    raise AssertionError(f"no such task: {type(request).__name__}")


def _evaluated(work: Work, message: Vectors) -> Done:
    if work.data.validation is None:
        return Done({})
    learner = work.client.learner
    model = work.client.layout.join(message.x, message.get(BUFFERS, np.empty(0)))
    asked = asked_of(work.client.plan)
    metrics = evaluate(learner, model, work.data.validation, asked)
    return Done(plain(metrics), examples=learner.examples(work.data.validation))


def _trained(work: Work, message: Vectors, asked: Train) -> Result:
    plan, number = work.client.plan, asked.number
    hyper = hyper_at(plan, number).told(asked.settings)
    if asked.steps is not None:
        hyper = hyper._replace(steps=asked.steps)
    began = monotonic()
    update, mine = work.client.train(
        message,
        work.data.train,
        work.states.load(work.name, before=number),
        name=work.name,
        hyper=hyper,
        key=Key.root(plan.seed).child("client", number, work.name),
    )
    metrics = update.metrics
    if work.timed:
        metrics = with_pace(
            metrics,
            seconds=monotonic() - began,
            steps=update.steps,
            epoch_steps=update.epoch_steps,
        )
    header, body = encode(Params.of(dict(update.vectors)))
    chunks: tuple[bytes | memoryview, ...] = (header, body)
    size, state = len(header) + body.nbytes, 0
    if mine and all(_finite(vector) for vector in update.vectors.values()):
        # An update that the server will refuse leaves no state behind, as in simulation.
        header, body = encode(Params.of(dict(mine)))
        chunks, state = (*chunks, header, body), len(header) + body.nbytes
    weight = float(update.weight)
    done = Done(plain(metrics), weight, update.examples, size, state)
    done = msgspec.structs.replace(done, steps=update.steps, epoch_steps=update.epoch_steps)
    return Result(done, chunks)


def _answered(work: Work, ask: Ask) -> Result:
    question = load_params(ask.message)
    found, left = work.client.answer(
        ask.task,
        question,
        work.data,
        name=work.name,
        number=ask.number,
        step=ask.step,
        mine=work.states.of_tasks().load(work.name, unpacked(question).state),
    )
    chunks: tuple[bytes | memoryview, ...] = encode(found)
    size, state = sum(map(len, chunks)), 0
    if left is not None:
        header, body = encode(left)
        chunks, state = (*chunks, header, body), len(header) + body.nbytes
    return Result(Done({}, update=size, state=state), chunks)


def _finite(vector: np.ndarray) -> bool:
    return not is_float(vector.dtype) or bool(np.isfinite(vector).all())


def _answer(replies: BinaryIO, result: Result) -> None:
    send(replies, result.done)
    try:
        for chunk in result.chunks:
            replies.write(chunk)
        replies.flush()
    except OSError as error:
        raise Closed from error


if __name__ == "__main__":
    main()
