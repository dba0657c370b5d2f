"""What a command learner answers to named tasks: predictions, and validations with any JSON."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hansa.errors import LearnerError
from hansa.learners.named_tasks import NamedTask, TaskContext
from hansa.limits import FACTS_BYTES_MAX
from hansa.metrics import Metrics
from hansa.params import Params

PREDICT, VALIDATE = "predict", "validate"
"""The named tasks; commands of the plan have the same names."""


def answers(
    words: Mapping[str, Any],
    *,
    predict: Callable[[Params, Any, Path], None],
    measure: Callable[[Params, Any], tuple[Metrics, Any]],
) -> dict[str, NamedTask]:
    """Return the functions that answer for a package's commands.

    Args:
      words: the commands that it has.
      predict: writes what the model predicts of a client's data to a file.
      measure: returns the metrics of the model on a client's data, and what else was said of it.
    """

    def predicted(params: dict[str, Any], data: Any, ctx: TaskContext) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="hansa-predict-") as place:
            path = Path(place) / "predictions"
            predict(Params.of(params), data.train, path)
            return {"predictions": _json(path)}

    def validated(params: dict[str, Any], data: Any, ctx: TaskContext) -> dict[str, Any]:
        rows = data.train if data.validation is None else data.validation
        metrics, report = measure(Params.of(params), rows)
        return {"metrics": {n: [m.total, m.weight] for n, m in metrics.items()}, "report": report}

    found: dict[str, NamedTask] = {PREDICT: predicted, VALIDATE: validated}
    return {name: function for name, function in found.items() if name in words}


def _json(path: Path) -> Any:
    """Return what a command has predicted.

    Raises:
      LearnerError: command-result, it is no JSON, or more than an answer may hold.
    """
    size = path.stat().st_size
    if size > FACTS_BYTES_MAX:
        raise LearnerError(
            "command-result",
            f"The command of predict wrote {size:,} bytes; an answer has up to "
            f"{FACTS_BYTES_MAX:,}. Nothing was sent.",
            "Write less, such as a summary; or predict where the data are: "
            "hansa package run predict",
        )
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise LearnerError(
            "command-result",
            f"The command of predict wrote what is no JSON: {error}. Nothing was sent.",
            "Write JSON to the path in {predictions_out}.",
        ) from None
