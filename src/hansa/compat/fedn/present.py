"""The callbacks of this process's `FednClient`, as the functions that a Hansa project is made of.

A run's project says `functions(SETTINGS)`, and no more; what trains is what `bring` has brought.
Models are handed over as the files that FEDn hands over, in memory.
"""

from __future__ import annotations

import inspect
import io
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from hansa.compat.fedn.formats import FORMS, Form, fitted, read_model, write_model
from hansa.compat.fedn.said import examples_of, metadata_of, metrics_of, wrong
from hansa.compat.hand_over import HandOver
from hansa.errors import LearnerError, PlanError
from hansa.learners.command_answers import PREDICT, VALIDATE
from hansa.learners.named_tasks import task
from hansa.limits import UPDATE_SLACK_BYTES
from hansa.metrics import Mean
from hansa.params import Params

if TYPE_CHECKING:
    from hansa.compat.fedn.fedn_client import FednClient


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a run's project says."""

    helper: str = "numpyhelper"


HAND_OVER = HandOver(
    '''"""Trains in the processes of FEDn clients; written by hansa.compat.fedn."""

from hansa.compat.fedn.present import functions

data, init, train, evaluate, validated, predicted = functions(''',
    Settings,
    "FednClient",
    "Submit it with start_session of hansa.compat.fedn.APIClient and without a compute package, "
    "or ask sites that run packages.",
)


class _Rows:
    """Stands for the data of a client, which only its callbacks can read."""

    def __len__(self) -> int:
        """Return 1: how many there are, each update says itself."""
        return 1


class _Here:
    """What this process has."""

    client: FednClient | None = None


def bring(client: FednClient | None) -> None:
    """Let runs of this process call a client's callbacks."""
    _Here.client = client


def functions(settings: str) -> tuple[Callable[..., Any], ...]:
    """Return data, init, train, evaluate and the tasks validate and predict of this process.

    Args:
      settings: JSON of `Settings`.
    """
    form = FORMS[msgspec.json.decode(settings, type=Settings).helper]

    def data(client: str) -> dict[str, _Rows]:
        return {"train": _Rows(), "validation": _Rows()}

    def init(rng: np.random.Generator, sample: Any) -> Any:
        raise PlanError(
            "plan-impossible",
            "Clients in their own processes have no code that makes a first model.",
            "Give the run one: client.set_active_model(path), or --from FILE.",
        )

    def train(params: dict[str, np.ndarray], data: Any, ctx: Any) -> Any:
        client, given = _client(), Params.of(params)
        with client.at_work() as logged:
            model, said = _trained(client, given, form, dict(ctx.settings))
        ctx.examples = examples_of(said)
        ctx.weight = float(ctx.examples)
        return dict(model.items()), metrics_of(said) | logged

    def measured(params: dict[str, np.ndarray]) -> tuple[dict[str, Mean], Any]:
        client = _client()
        if client.validate_callback is None:
            return {}, None
        with client.at_work() as logged:
            said = client.validate_callback(_file(Params.of(params), form))
        counted = isinstance(said, Mapping) and "num_examples" in said
        # Else each client's word weighs the same: how many rows it looked at nobody says.
        examples = float(examples_of(said)) if counted else 1.0
        numbers = metrics_of(_plain(said, "validate")) | logged
        return {n: Mean(v * examples, examples) for n, v in numbers.items()}, said

    def evaluate(params: dict[str, np.ndarray], data: Any) -> dict[str, Mean]:
        return measured(params)[0]

    @task(VALIDATE)
    def validated(params: dict[str, np.ndarray], data: Any, ctx: Any) -> dict[str, Any]:
        metrics, said = measured(params)
        totals = {name: [m.total, m.weight] for name, m in metrics.items()}
        return {"metrics": totals, "report": _plain(said, "validate")}

    @task(PREDICT)
    def predicted(params: dict[str, np.ndarray], data: Any, ctx: Any) -> dict[str, Any]:
        client = _client()
        if client.predict_callback is None:
            raise _without("predict")
        with client.at_work():
            said = client.predict_callback(_file(Params.of(params), form))
        return {"predictions": _plain(said, "predict")}

    return data, init, train, evaluate, validated, predicted


def _trained(
    client: FednClient, given: Params, form: Form, settings: dict[str, Any]
) -> tuple[Params, dict[str, Any]]:
    """Return the model and the metadata that the train callback gave.

    Raises:
      LearnerError: it gave something else.
      Exception: whatever the callback raises.
    """
    if client.train_callback is None:
        raise _without("train")
    words: list[Any] = [_file(given, form)]
    if _takes_settings(client.train_callback):
        words.append(settings)
    returned = client.train_callback(*words)
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise wrong(
            f"The train callback returned {type(returned).__name__}, not (model, metadata)."
        )
    model, metadata = returned
    said = metadata_of(_plain(metadata, "train"))
    most = 2 * given.nbytes + UPDATE_SLACK_BYTES
    return fitted(read_model(_bytes(model, 2 * most), form, most=most), given), said


def _client() -> FednClient:
    if _Here.client is None:
        raise LearnerError(
            "learner-incomplete",
            "This run trains in the processes of FEDn clients, and this is none.",
            "Start the script that calls run() of its FednClient.",
        )
    return _Here.client


def _file(params: Params, form: Form) -> io.BytesIO:
    return io.BytesIO(write_model(params, form))


def _bytes(model: Any, most: int) -> bytes:
    """Return what a callback gave as a model, from its beginning wherever it was left."""
    if isinstance(model, bytes | bytearray):
        found = bytes(model)
    elif isinstance(model, io.BytesIO):
        found = model.getvalue()
    elif hasattr(model, "read"):
        found = model.read(most + 1)
    else:
        raise wrong(f"The train callback gave {type(model).__name__} as model, not a BytesIO.")
    if not isinstance(found, bytes) or not 0 < len(found) <= most:
        raise wrong(f"The train callback gave a model of no or more than {most:,} bytes.")
    return found


def _plain(said: Any, which: str) -> Any:
    """Return what a callback said as JSON data; numbers of NumPy are numbers.

    Raises:
      LearnerError: command-result, it is something else.
    """

    def number(value: Any) -> Any:
        if isinstance(value, np.ndarray | np.generic):
            return value.tolist()
        raise TypeError(f"it holds {type(value).__name__}")

    try:
        return json.loads(json.dumps(said, default=number))
    except (TypeError, ValueError, RecursionError) as error:
        raise wrong(f"What the {which} callback said is no JSON: {error}.") from None


def _takes_settings(callback: Callable[..., Any]) -> bool:
    """Tell whether a train callback takes client settings: before 0.20 it got the model alone."""
    try:
        inspect.signature(callback).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # nothing is known of it
        return True
    return True


def _without(which: str) -> LearnerError:
    return LearnerError(
        "learner-incomplete",
        f"The client has no {which} callback.",
        f"Set it before run(): client.set_{which}_callback(function)",
    )
