"""From a task to a Flower message and back, in the process that runs the clients."""

from __future__ import annotations

import importlib
import inspect
import math
import runpy
import shlex
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hansa.compat.arrays import in_given_precision
from hansa.compat.flower.client_app import GET_PARAMETERS, ClientApp
from hansa.compat.flower.clients import Client, NumPyClient, Parameters, parameters_to_ndarrays
from hansa.compat.flower.messages import Context, Message, Metadata
from hansa.compat.flower.records import Array, ArrayRecord, ConfigRecord, RecordDict
from hansa.compat.flower.shim import Started
from hansa.compat.flower.wire import Answer, Setup, Task
from hansa.compat.serving import IMPORT_KEY, take_code
from hansa.errors import LearnerError
from hansa.learners.generators import seeded
from hansa.limits import SCRIPTS_MAX
from hansa.seeds import Key

_ROUND = ("server-round", "server_round")  # under both spellings that Flower's servers use


class Host:
    """The client code of one project.

    Args:
      setup: whose code it is.

    Raises:
      RunError: run-changed, the files are not those that the project was opened with.
      LearnerError: the code cannot be imported, or is no client.
    """

    def __init__(self, setup: Setup) -> None:
        self.folder = Path(setup.folder)
        take_code(self.folder, setup.digest)
        self._setup = setup
        self._states: dict[str, RecordDict] = {}
        self._scripts: OrderedDict[str, ClientApp] = OrderedDict()
        self._app: ClientApp | None = None
        with seeded(IMPORT_KEY):
            if not setup.client.endswith(".py"):
                self._app = _as_app(_named(setup.client), setup.client)
            self._make_model = _named(setup.model) if setup.model is not None else None

    def serve(self, task: Task, arrays: dict[str, np.ndarray]) -> tuple[Answer, dict[str, Any]]:
        """Have a client do a task.

        Raises:
          Exception: whatever the client's code raises.
        """
        with seeded(Key(task.key)):
            if task.kind == "seed" and self._make_model is not None:
                return Answer(0), self._made_model(task)
            app = self._app or self._script_app(task)
            state = self._states.get(task.client) or RecordDict()
            context = Context(
                node_id=task.node_id,
                node_config=task.node_config,
                state=state,
                run_config=task.run_config,
            )
            by_client = app.client_fn is not None
            if task.kind != "train" and not app.handles(task.kind) and not by_client:
                return Answer(0), {}  # a client need not evaluate
            answer, returned = self._ask(app, task, arrays, context)
            if context.state:
                self._states[task.client] = context.state
            return replaced(answer, keeps=bool(context.state)), returned

    def abort(self) -> None:
        """Do nothing: a Flower client has no way to be asked to stop."""

    def close(self) -> None:
        """Do nothing: a Flower client is not told that a run has ended."""

    def _ask(
        self, app: ClientApp, task: Task, arrays: dict[str, np.ndarray], context: Context
    ) -> tuple[Answer, dict[str, np.ndarray]]:
        metadata = Metadata(
            dst_node_id=task.node_id,
            group_id=str(task.round),
            message_type=GET_PARAMETERS if task.kind == "seed" else task.kind,
        )
        by_client = app.client_fn is not None
        records = None if by_client else (self._setup.arrays_in, self._setup.config_in)
        content = _content(task, arrays, records)
        reply = app(Message(content, metadata=metadata), context)
        if not isinstance(reply, Message) or reply.has_error() or not reply.has_content():
            said = reply.error.reason if isinstance(reply, Message) and reply.has_error() else ""
            raise LearnerError(
                "learner-params",
                f"The client app answered {task.kind} without content. {said or ''}".rstrip(),
                "Return Message(content=RecordDict({...}), reply_to=message).",
            )
        if task.kind == "seed":
            return Answer(0), _seed(reply.content)
        returned = in_given_precision(_model(reply.content), arrays) if task.kind == "train" else {}
        if by_client:
            return _told_by_client(task, reply.content), returned
        return _told(reply.content, self._setup.weighted_by), returned

    def _script_app(self, task: Task) -> ClientApp:
        """Return a script's client; the script runs up to `start_client`, once for each client."""
        if task.client not in self._scripts:
            self._scripts[task.client] = self._run_script(task)
            while len(self._scripts) > SCRIPTS_MAX:
                self._scripts.popitem(last=False)
        self._scripts.move_to_end(task.client)
        return self._scripts[task.client]

    def _run_script(self, task: Task) -> ClientApp:
        path = self.folder / self._setup.client
        node = task.node_config
        words = [
            word.format(partition=node.get("partition-id"), partitions=node.get("num-partitions"))
            for word in shlex.split(self._setup.arguments)
        ]
        outer, sys.argv = sys.argv, [str(path), *words]
        try:
            runpy.run_path(str(path), run_name="__main__")
        except Started as started:
            return _as_app(started.client, path.name)
        except SystemExit as end:
            raise _script_ended(path, f"called sys.exit({end.code!r})") from None
        finally:
            sys.argv = outer
        raise _script_ended(path, "ended")

    def _made_model(self, task: Task) -> dict[str, np.ndarray]:
        make: Any = self._make_model
        parameters = inspect.signature(make).parameters.values() if callable(make) else ()
        needed = [p for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
        needed = [p for p in needed if p.kind is not p.VAR_POSITIONAL]
        made = make(*([task.run_config] if needed else [])) if callable(make) else make
        return as_arrays(made, str(self._setup.model))


def replaced(answer: Answer, *, keeps: bool) -> Answer:
    """Return an answer that says whether the client keeps something."""
    return Answer(answer.size, answer.metrics, answer.weight, keeps)


def as_arrays(made: Any, where: str) -> dict[str, np.ndarray]:
    """Return what makes a seed model as named arrays.

    Args:
      made: an ArrayRecord, a torch module or its state_dict, a Keras model, a list of arrays, or a
        dict of them.
      where: what has made it, for the message.

    Raises:
      LearnerError: it is none of these.
    """
    if isinstance(made, Parameters):
        made = parameters_to_ndarrays(made)
    if callable(getattr(made, "state_dict", None)):
        made = made.state_dict()
    elif callable(getattr(made, "get_weights", None)):
        made = made.get_weights()
    try:
        record = made if isinstance(made, ArrayRecord) else ArrayRecord(_listed(made))
    except TypeError:
        raise LearnerError(
            "learner-model",
            f"{where} gives {type(made).__name__}, which is no model.",
            "Let it return a torch module, its state_dict, or a list of NumPy arrays.",
        ) from None
    return {name: array.numpy() for name, array in record.items()}


def _listed(made: Any) -> Any:
    return [np.asarray(value) for value in made] if isinstance(made, list | tuple) else made


def _named(name: str) -> Any:
    """Return the object that "module:object" names."""
    module, _, attribute = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in (attribute or "app").split("."):
        if not hasattr(found, part):
            raise LearnerError(
                "learner-incomplete",
                f"{module} has no {attribute!r}.",
                'Name what there is in model.py, as in client="client_app:app".',
            )
        found = getattr(found, part)
    return found


def _as_app(found: Any, name: str) -> ClientApp:
    """Return a ClientApp for a ClientApp, a client, its class, or a client_fn."""
    if isinstance(found, ClientApp):
        return found
    if isinstance(found, Client | NumPyClient):
        return ClientApp(partial(_itself, found))
    if inspect.isclass(found) and issubclass(found, Client | NumPyClient):
        return ClientApp(partial(_made, found))
    if callable(found):
        return ClientApp(found)
    raise LearnerError(
        "learner-incomplete",
        f"{name} is {type(found).__name__}; a ClientApp or a client_fn is needed.",
        'Name one in model.py, as in client="client_app:app".',
    )


def _itself(client: Any, context: Context) -> Any:
    return client


def _made(kind: Callable[[], Any], context: Context) -> Any:
    return kind()


def _content(
    task: Task, arrays: Mapping[str, np.ndarray], records: tuple[str, str] | None
) -> RecordDict:
    """Return what a message carries, in records of these names, or of those of the older way."""
    record = ArrayRecord({name: Array(np.asarray(a)) for name, a in arrays.items()})
    config = dict(task.config)
    if task.kind != "seed":
        config |= {name: task.round for name in _ROUND}
    if records is not None:
        return RecordDict({records[0]: record, records[1]: ConfigRecord(config)})
    prefix = {"train": "fitins", "evaluate": "evaluateins", "seed": "getparametersins"}[task.kind]
    return RecordDict({f"{prefix}.parameters": record, f"{prefix}.config": ConfigRecord(config)})


def _model(content: RecordDict) -> dict[str, np.ndarray]:
    """Return the one record of arrays in an answer."""
    found = list(content.array_records.values())
    if len(found) != 1:
        raise LearnerError(
            "learner-params",
            f"The client answered with {len(found)} records of arrays; one is needed.",
            'Return RecordDict({"arrays": ArrayRecord(...), "metrics": MetricRecord(...)}).',
        )
    return {name: array.numpy() for name, array in found[0].items()}


def _seed(content: RecordDict) -> dict[str, np.ndarray]:
    arrays = _model(content) if content.array_records else {}
    if not arrays:
        raise LearnerError(
            "learner-incomplete",
            "The client has no get_parameters that returns arrays, so there is no seed model.",
            'Write a function that returns it, and name it: FlowerApp(..., model="file:function").',
        )
    return arrays


def _told_by_client(task: Task, content: RecordDict) -> Answer:
    """Return what a client said in the older way."""
    prefix = "fitres" if task.kind == "train" else "evaluateres"
    if f"{prefix}.num_examples" not in content:
        return Answer(0)
    examples = float(content[f"{prefix}.num_examples"]["num_examples"])
    values = dict(content[f"{prefix}.metrics"])
    if task.kind == "evaluate":
        values["loss"] = content["evaluateres.loss"]["loss"]
    return Answer(0, _totals(values, examples), examples)


def _told(content: RecordDict, weighted_by: str) -> Answer:
    """Return what a message-based client said: its weight is one of its metrics."""
    values: dict[str, Any] = {}
    for record in content.metric_records.values():
        values |= dict(record)
    if weighted_by not in values:
        raise LearnerError(
            "learner-metrics",
            f"The client's metrics have no {weighted_by!r}, which is its weight.",
            f'Return MetricRecord({{"{weighted_by}": number, ...}}) beside the arrays.',
        )
    examples = float(values.pop(weighted_by))
    return Answer(0, _totals(values, examples), examples)


def _totals(values: Mapping[str, Any], examples: float) -> dict[str, tuple[float, float]]:
    """Return the numbers among a client's metrics as totals; text and lists are no metrics."""
    numbers = {name: v for name, v in values.items() if isinstance(v, int | float)}
    # Of no examples there is no mean, whatever the client says it is.
    return {
        name: (float(value) * examples if examples else math.nan, examples)
        for name, value in numbers.items()
    }


def _script_ended(path: Path, how: str) -> LearnerError:
    return LearnerError(
        "learner-script",
        f"{path.name} {how} without calling start_client.",
        "Name the arguments it needs in model.py: "
        'FlowerApp(..., arguments="--partition-id {partition}").',
    )
