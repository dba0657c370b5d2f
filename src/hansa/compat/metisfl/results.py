"""What a driver returns: MetisFL's log of a run, with what it leaves out.

    global_iteration   rounds done
    tasks              id, learner_id, sent_at, received_at, completed_at of every task
    train_results      by task: metrics and metadata
    evaluation_results by task: metrics
    model_metadata     by round: seconds, digest of the model, bytes, learners counted

and beside these: `run`, `ended` with its reason, `rounds` as Hansa records them, and `problems`.
"""

from __future__ import annotations

from typing import Any

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
    for event in folder.log.events:
        match event["kind"]:
            case "opened":
                opened[event["phase"], event["round"]] = event
            case "result" if event["state"] == "accepted":
                _task(logs, event, opened.get((event["phase"], event["round"]), {}))
            case "committed" if event["round"]:
                logs["model_metadata"][str(event["round"])] = _round(event)
            case "problem":
                told = ("round", "client", "what", "code", "message")
                problems.append({key: event.get(key) for key in told})
    ended = folder.log.last("ended") or {}
    remote = folder.remote or {}
    return {
        **logs,
        "run": {"name": remote.get("run"), "server": remote.get("url"), "folder": str(folder.path)},
        "ended": {"state": folder.state, "reason": ended.get("reason")},
        "rounds": folder.rows(),
        "problems": problems,
    }


def _task(logs: dict[str, Any], event: dict[str, Any], opened: dict[str, Any]) -> None:
    number, phase, learner = event["round"], event["phase"], event["client"]
    task = f"{number}-{phase}-{learner}"
    logs["tasks"].append(
        {
            "id": task,
            "learner_id": learner,
            "sent_at": opened.get("at"),
            "received_at": event.get("at"),
            "completed_at": event.get("at"),
        }
    )
    metrics = {
        name: total / weight if total is not None and weight else None
        for name, (total, weight) in event.get("metrics", {}).items()
    }
    if phase == "train":
        metadata = {"weight": event["weight"], "bytes": event["size"], "update": event["digest"]}
        logs["train_results"][task] = {"metrics": metrics, "metadata": metadata}
    else:
        logs["evaluation_results"][task] = {"metrics": metrics}


def _round(event: dict[str, Any]) -> dict[str, Any]:
    row = event["row"]
    return {
        "model": event["model"],
        "committed_at": event.get("at"),
        "seconds": row.get("seconds"),
        "learners": row.get("clients"),
        "bytes": row.get("bytes"),
    }
