"""What a driver returns: MetisFL's log of a run, with what it leaves out.

    global_iteration   rounds done
    tasks              id, learner_id, sent_at, received_at, completed_at of every task
    train_results      by task: metrics and metadata
    evaluation_results by task: metrics
    model_metadata     by round: seconds, digest of the model, bytes, learners counted, and the
                       durations, blocks and zeros of `metadata`

and beside these: what `hansa.compat.metisfl.metadata` says, `run`, `ended` with its reason,
`rounds` as Hansa records them, and `problems`.
"""

from __future__ import annotations

from typing import Any

from hansa.compat.metisfl.metadata import metadata_of, task_times
from hansa.runs import RunFolder


def results_of(folder: RunFolder) -> dict[str, Any]:
    """Return the results of a run that has ended, as plain JSON data."""
    logs: dict[str, Any] = {
        "global_iteration": len(folder.rows()),
        "tasks": [],
        "train_results": {},
        "evaluation_results": {},
        "model_metadata": {},
    }
    opened: dict[tuple[str, int], dict[str, Any]] = {}
    problems = []
    metadata, times = metadata_of(folder), task_times(folder)
    runtime = {m["global_iteration"]: m for m in metadata["federated_task_runtime_metadata"]}
    tasks = metadata["learner_local_tasks"]
    local = {(t["global_iteration"], c): t for c, of_c in tasks.items() for t in of_c}
    for event in folder.log.events:
        match event["kind"]:
            case "opened":
                opened[event["phase"], event["round"]] = event
            case "result" if event["state"] == "accepted":
                where = event["phase"], event["round"]
                moments = times.get((event["round"], event["phase"], event["client"]), {})
                work = local.get((event["round"], event["client"]), {})
                _task(logs, event, opened.get(where, {}), moments=moments, work=work)
            case "committed" if event["round"]:
                more = runtime.get(event["round"], {})
                logs["model_metadata"][str(event["round"])] = _round(event, more)
            case "problem":
                told = ("round", "client", "what", "code", "message")
                problems.append({key: event.get(key) for key in told})
    ended = folder.log.last("ended") or {}
    remote = folder.remote or {}
    return {
        **logs,
        **metadata,
        "run": {"name": remote.get("run"), "server": remote.get("url"), "folder": str(folder.path)},
        "ended": {"state": folder.state, "reason": ended.get("reason")},
        "rounds": folder.rows(),
        "problems": problems,
    }


def _task(
    logs: dict[str, Any],
    event: dict[str, Any],
    opened: dict[str, Any],
    *,
    moments: dict[str, Any],
    work: dict[str, Any],
) -> None:
    number, phase, learner = event["round"], event["phase"], event["client"]
    task = f"{number}-{phase}-{learner}"
    logs["tasks"].append(
        {
            "id": task,
            "learner_id": learner,
            # MetisFL's received_at is when the learner has begun, its completed_at the end here.
            "sent_at": moments.get("submitted_at") or opened.get("at"),
            "received_at": moments.get("started_at") or opened.get("at"),
            "completed_at": moments.get("received_at") or event.get("at"),
        }
    )
    metrics = {
        name: total / weight if total is not None and weight else None
        for name, (total, weight) in event.get("metrics", {}).items()
    }
    if phase == "train":
        metadata = {"weight": event["weight"], "bytes": event["size"], "update": event["digest"]}
        metadata |= {key: work[key] for key in _WORK if key in work}
        logs["train_results"][task] = {"metrics": metrics, "metadata": metadata}
    else:
        logs["evaluation_results"][task] = {"metrics": metrics}


_WORK = (
    "completed_epochs",
    "completed_batches",
    "batch_size",
    "processing_ms_per_epoch",
    "processing_ms_per_batch",
)


def _round(event: dict[str, Any], runtime: dict[str, Any]) -> dict[str, Any]:
    row = event["row"]
    return {
        **{key: value for key, value in runtime.items() if key.startswith("model_")},
        "model": event["model"],
        "committed_at": event.get("at"),
        "seconds": row.get("seconds"),
        "learners": row.get("clients"),
        "bytes": row.get("bytes"),
    }
