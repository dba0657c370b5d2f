"""The process of a run's own parts: `python -m hansa.own.worker`.

It limits itself before it imports the code, and ends when its input does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from hansa.aggregators import Aggregate, AggregationSpec, Contribution
from hansa.algorithms import Vectors
from hansa.code import read_code
from hansa.errors import CODES, HansaError, RunError
from hansa.functions.worker import raised
from hansa.hosting.confined import limit
from hansa.hosting.wire import receive_with, send_with
from hansa.own.handle import RemoteFederation
from hansa.own.messages import (
    Call,
    Denied,
    Facts,
    Given,
    Raised,
    Ready,
    Request,
    Returned,
    Setup,
    Wanted,
)
from hansa.own.naming import at_server
from hansa.own.process import Model
from hansa.own.values import Arrays, Unfit, as_kind, plain, unfit
from hansa.own.wants import WANTS
from hansa.pipes import Closed, worker_streams
from hansa.plan import Plan, build_method, build_named
from hansa.project import import_file
from hansa.store.files import load_params
from hansa.workflows import WORKFLOWS, Workflow, drive


class Inside:
    """One run's own parts, made.

    Args:
      setup: whose they are.
      pipes: what is asked comes on the first, and is answered on the second.
      fixed: the model's constants.
    """

    def __init__(self, setup: Setup, pipes: tuple[BinaryIO, BinaryIO], fixed: Arrays) -> None:
        self._setup, self._pipes, self._fixed = setup, pipes, fixed
        self._plan = plan = msgspec.convert(setup.plan, Plan)
        folder = Path(setup.folder)
        code = read_code(folder)

        def import_module(name: str) -> Any:
            return import_file(folder, name, code)

        self._method = method = build_method(at_server(plan), import_module)
        self._workflow: Workflow = build_named(
            "workflow", plan.workflow, WORKFLOWS, kind=Workflow, import_module=import_module
        )
        self._workflow.check(plan, method)

    def facts(self) -> Facts:
        """Return what a server must know of the parts."""
        algorithm, aggregator, transform = self._method[:3]
        workflow = self._workflow
        return Facts(
            algorithm.name,
            list(algorithm.sends),
            algorithm.needs_mean,
            algorithm.uniform,
            algorithm.local_steps,
            aggregator.name,
            aggregator.linear,
            aggregator.needs,
            transform.name,
            workflow.name,
            workflow.tells,
            workflow.timed,
            workflow.spread,
            workflow.raced,
        )

    def answer(self, call: Call, arrays: Arrays) -> None:
        """Call a part, and say what it returned or raised."""
        try:
            value, back = plain(self._called(call, arrays))
            frame: Returned | Raised = Returned(value)
        except Closed:
            raise
        except Unfit as why:
            frame, back = as_raised(unfit("What it returned", why), Path(self._setup.folder)), {}
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the user's code
            frame, back = as_raised(error, Path(self._setup.folder)), {}
        send_with(self._pipes[1], frame, back)

    def want(self, method: str, arguments: Any) -> Any:
        """Ask the server for something that the workflow wants; answer it meanwhile.

        Raises:
          RunError: why it is not given.
        """
        requests, replies = self._pipes
        try:
            value, arrays = plain(arguments)
        except Unfit as why:
            raise unfit(f"What the workflow gives to {method}", why) from None
        send_with(replies, Wanted(method, value), arrays)
        while True:
            request, back = receive_with(requests, Request)
            if isinstance(request, Call):
                self.answer(request, back)
            elif isinstance(request, Denied):
                raise RunError(request.code, request.happened, request.hint)
            else:
                assert isinstance(request, Given)  # nothing else comes between
                return as_kind(request.value, back, WANTS[method].gives)

    def _called(self, call: Call, arrays: Arrays) -> Any:
        value, algorithm = call.value, self._method.algorithm
        match call.part:
            case "init":
                return _vectors(algorithm.init(as_kind(value, arrays, np.ndarray)))
            case "broadcast":
                return _vectors(algorithm.broadcast(as_kind(value, arrays, Vectors)))
            case "server":
                given = as_kind(value, arrays, tuple[Vectors, Vectors, float])
                return _vectors(algorithm.server(*given))
            case "aggregate":
                return self._aggregated(
                    *as_kind(value, arrays, tuple[AggregationSpec, list[tuple[str, str, float]]])
                )
            case "decode":
                found = self._method.transform.decode(as_kind(value, arrays, dict[str, np.ndarray]))
                return {name: np.asarray(vector) for name, vector in found.items()}
            case "run":
                setup = self._setup
                model = Model(setup.tensors, setup.buffers, setup.constants, self._fixed)
                layout = model.layout()
                handle = RemoteFederation(layout, self.want)
                return drive(self._workflow.run(handle, self._plan, algorithm))

    def _aggregated(self, spec: AggregationSpec, shown: list[tuple[str, str, float]]) -> Aggregate:
        """Aggregate what is shown, in the order in which it is named."""
        aggregator = self._method.aggregator
        acc = aggregator.zero(spec)
        for client, name, weight in shown:
            vectors = load_params(Path(self._setup.shown) / name).to_dict()
            acc = aggregator.add(acc, Contribution(client, vectors, weight))
        return aggregator.finish(acc)


def _vectors(vectors: Any) -> dict[str, Any]:
    return {name: np.asarray(vector) for name, vector in vectors.items()}


def as_raised(error: BaseException, folder: Path) -> Raised:
    """Return what is said of an error of the code in a folder."""
    told = raised(error, folder)
    if isinstance(error, HansaError) and error.code in CODES:
        return Raised(error.code, error.happened, error.hint, told.trace)
    return Raised("", told.what, "", told.trace)


def main() -> None:
    """Serve one run until it closes the pipe."""
    requests, replies = worker_streams()
    inside: Inside | None = None
    while True:
        try:
            request, arrays = receive_with(requests, Request)
            if isinstance(request, Setup):
                try:
                    limit(request.limits)
                    inside = Inside(request, (requests, replies), arrays)
                    frame: Ready | Raised = Ready(inside.facts())
                except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the user's code
                    frame = as_raised(error, Path(request.folder))
                send_with(replies, frame, {})
            else:
                assert inside is not None and isinstance(request, Call)  # in that order
                inside.answer(request, arrays)
        except Closed:
            break


if __name__ == "__main__":
    main()
