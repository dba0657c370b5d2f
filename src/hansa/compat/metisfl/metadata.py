"""A run's times and facts in the shape of MetisFL's older generation.

    federated_task_runtime_metadata     one entry a round: when what was asked, came and was done
    learner_local_tasks                 by learner, one entry a round of training
    community_model_evaluations         one entry a round: learner -> part -> metric -> text

Times are ISO 8601 in UTC; a name that ends in `_ms` is in milliseconds.  Three facts differ, for
here no model is fetched from a store before it is added to the sum: a block is one update, its
selection is the reading and checking of it, and its memory is the process's at the end of a round.

Source: the fields of MetisFL's FederatedTaskRuntimeMetadata, LocalTask and ModelEvaluations.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from hansa.clock import iso, seconds_of
from hansa.runs import RunFolder
from hansa.spans import Span

Facts = dict[str, Any]


def metadata_of(folder: RunFolder) -> Facts:
    """Return all three, of a run whose spans are here; plain JSON data."""
    rounds: dict[int, list[Span]] = defaultdict(list)
    for span in folder.spans():
        rounds[span["round"]].append(span)
    rows = {row["round"]: row for row in folder.rows()}
    batch = folder.plan()["learner"]["batch_size"]
    local: dict[str, list[Facts]] = defaultdict(list)
    for number, spans in sorted(rounds.items()):
        for task in _tasks(spans, "train"):
            local[task["client"]].append(_local(task, rows.get(number, {}), batch))
    return {
        "federated_task_runtime_metadata": [
            _runtime(number, spans) for number, spans in sorted(rounds.items())
        ],
        "learner_local_tasks": dict(sorted(local.items())),
        "community_model_evaluations": [
            {"global_iteration": number, "evaluations": _evaluations(row)}
            for number, row in sorted(rows.items())
        ],
    }


def task_times(folder: RunFolder) -> dict[tuple[int, str, str], Facts]:
    """Return by round, phase and learner when a task was sent, received, begun and done."""
    return {
        (task["round"], task["phase"], task["client"]): _times(task)
        for task in folder.spans()
        if task["span"] == "task"
    }


def _runtime(number: int, spans: Sequence[Span]) -> Facts:
    whole = next(s for s in spans if s["span"] == "round")
    train, evaluate = _tasks(spans, "train"), _tasks(spans, "evaluate")
    counted = [task for task in train if "fold_s" in task]
    summed = next((s for s in spans if s["span"] == "aggregate"), None)
    saved = next((s for s in spans if s["span"] == "save"), {})
    first = min((task["begin_s"] + task.get("seconds", 0.0) for task in counted), default=None)
    memory = None if summed is None else summed.get("memory_kb")
    return {
        "global_iteration": number,
        "started_at": whole["at"],
        "completed_at": _later(whole, whole["seconds"]),
        "assigned_to_learner_id": [task["client"] for task in train],
        "completed_by_learner_id": [task["client"] for task in counted],
        **_by_client("train_task", train),
        **_by_client("eval_task", evaluate),
        "model_insertion_duration_ms": _each(counted, "insert_s"),
        "model_selection_duration_ms": _each(counted, "select_s"),
        "model_aggregation_started_at": None if first is None else _later(whole, first),
        "model_aggregation_completed_at": summed and _later(summed, summed["seconds"]),
        "model_aggregation_total_duration_ms": _ms(
            sum(task["fold_s"] for task in counted) + (summed["seconds"] if summed else 0.0)
        ),
        "model_aggregation_block_size": [1] * len(counted),
        "model_aggregation_block_memory_kb": [memory] * len(counted),
        "model_aggregation_block_duration_ms": [_ms(task["fold_s"]) for task in counted],
        "model_size_bytes": saved.get("bytes"),
        "model_tensor_quantifiers": [
            {
                "tensor": name,
                "tensor_non_zeros": values - zeros,
                "tensor_zeros": zeros,
                "tensor_size_bytes": size,
            }
            for name, values, zeros, size in saved.get("tensors", [])
        ],
    }


def _by_client(prefix: str, tasks: Sequence[Span]) -> Facts:
    found: dict[str, Facts] = {f"{prefix}_{what}": {} for what in _MOMENTS}
    for task in tasks:
        for what, at in _times(task).items():
            if at is not None:
                found[f"{prefix}_{what}"][task["client"]] = at
    return found


_MOMENTS = ("submitted_at", "started_at", "completed_at", "received_at")


def _times(task: Span) -> Facts:
    """Return a task's moments: sent, begun, done by the learner's word, and its result here."""
    wait, work = task.get("wait_s"), task.get("work_s")
    return {
        "submitted_at": task["at"],
        "started_at": None if wait is None else _later(task, wait),
        "completed_at": None if wait is None or work is None else _later(task, wait + work),
        "received_at": _later(task, task["seconds"]) if "seconds" in task else None,
    }


def _local(task: Span, row: Mapping[str, Any], batch: Any) -> Facts:
    return {
        "global_iteration": task["round"],
        "completed_epochs": task.get("epochs"),
        "completed_batches": task.get("steps"),
        "batch_size": batch,
        "processing_ms_per_epoch": task.get("epoch_ms"),
        "processing_ms_per_batch": task.get("step_ms"),
        "training": _of_client(row, "train", task["client"]),
        "validation": _of_client(row, "validation", task["client"]),
    }


def _evaluations(row: Mapping[str, Any]) -> dict[str, dict[str, dict[str, str]]]:
    """Return learner -> part -> metric -> value as text, as MetisFL's are."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for part, name in (("train", "training"), ("validation", "validation"), ("test", "test")):
        for metric, summary in row.get(part, {}).items():
            for learner, value in summary.get("by_client", {}).items():
                parts = found.setdefault(learner, {})
                parts.setdefault(name, {})[metric] = "nan" if value is None else repr(value)
    return dict(sorted(found.items()))


def _of_client(row: Mapping[str, Any], part: str, client: str) -> dict[str, float | None]:
    return {
        metric: summary["by_client"][client]
        for metric, summary in row.get(part, {}).items()
        if client in summary.get("by_client", {})
    }


def _tasks(spans: Sequence[Span], phase: str) -> list[Span]:
    return [s for s in spans if s["span"] == "task" and s["phase"] == phase]


def _each(tasks: Sequence[Span], key: str) -> dict[str, float]:
    return {task["client"]: _ms(task[key]) for task in tasks if key in task}


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)


def _later(span: Span, seconds: float) -> str:
    """Return a time so many seconds after a span began."""
    return iso(seconds_of(span["at"]) + seconds)
