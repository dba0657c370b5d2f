"""A run that trains nothing: each client answers, once, what a model predicts of its own data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from hansa.learners.command_answers import PREDICT
from hansa.plan import Plan
from hansa.plan.schema import (
    CohortPlan,
    EvaluatePlan,
    KeepPlan,
    ServerFunctionsPlan,
    StopPlan,
)
from hansa.store.files import write_durably

FOLDER = "predictions"
"""In the run folder: what each client has predicted, a file of JSON each."""


def prediction_plan(plan: Plan) -> Plan:
    """Return the plan that asks the clients of another for predictions.

    >>> prediction_plan(Plan(name="study", rounds=40)).name
    'study-predict'
    """
    return msgspec.structs.replace(
        plan,
        name=f"{plan.name[:55]}-{PREDICT}",
        rounds=1,
        workflow={"name": "broadcast_and_process", "task": PREDICT},
        algorithm="fed_avg",
        aggregator="mean",
        transforms=(),
        server_functions=ServerFunctionsPlan(),
        cohort=CohortPlan(where=plan.cohort.where, deadline_s=plan.cohort.deadline_s),
        evaluate=EvaluatePlan(),
        stop=StopPlan(),
        keep=KeepPlan(),
    )


def predictions_of(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what clients have predicted, JSON by client; empty for a run of another kind."""
    for event in events:
        row = event["row"] if event["kind"] == "committed" else {}
        if row.get("task") == PREDICT:
            return {client: facts.get("predictions") for client, facts in row["report"].items()}
    return {}


def write_predictions(folder: Path, predictions: Mapping[str, Any]) -> dict[str, Path]:
    """Write each client's predictions to a file of its own; return where they are.

    Args:
      folder: made if need be.
      predictions: JSON by client.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for number, (client, found) in enumerate(sorted(predictions.items())):
        name = client if re.fullmatch(r"[A-Za-z0-9_][\w.-]{0,63}", client) else f"client-{number}"
        files[client] = folder / f"{name}.json"
        write_durably(files[client], [json.dumps(found).encode(), b"\n"])
    return files
