"""What a server of Hansa says, in the shapes of FEDn's answers: pure functions of facts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from hansa.protocol.messages import ModelFacts, RunFacts
from hansa.remote.words import sentence
from hansa.runs.predicting import predictions_of
from hansa.runs.result import validation_table

Event = Mapping[str, Any]
Entry = dict[str, Any]

STATUS = {
    "waiting": "Created",
    "running": "Started",
    "finished": "Finished",
    "failed": "Terminated",
    "stopped": "Terminated",
}
"""Of a session, by the state of its newest run."""


def listed(entries: Iterable[Entry], n_max: int | None = None, *, newest: bool = True) -> Entry:
    """Return FEDn's shape of a list, the newest first as FEDn sorts them.

    >>> listed([{"id": 1}, {"id": 2}], 1)
    {'count': 2, 'result': [{'id': 2}]}
    """
    found = list(entries)
    ordered = found[::-1] if newest else found
    return {"count": len(found), "result": ordered if n_max is None else ordered[:n_max]}


def client_entry(member: Mapping[str, Any], combiner: str) -> Entry:
    """Return a site as a client; `member` is as the server lists it."""
    online = member["state"] == "active"
    return {
        "client_id": member["name"],
        "id": member["name"],
        "name": member["name"],
        "status": "online" if online else "offline",
        "combiner": combiner,
        "combiner_preferred": False,
        "package": "remote",
        "last_seen": member.get("heard_s"),
        "updated_at": member.get("joined_at", ""),
        "attributes": dict(member.get("attributes") or {}),
    }


def model_entry(model: ModelFacts, parent: ModelFacts | None, session: str) -> Entry:
    """Return a model of the trail."""
    return {
        "id": model.name,
        "model": model.name,
        "model_id": model.name,
        "name": model.name,
        "parent_model": parent.name if parent is not None else model.origin or None,
        "session_id": session,
        "committed_at": model.at,
        "digest": model.digest,
        "size": model.size,
        "kept": model.kept,
    }


def session_entry(session: str, runs: Sequence[RunFacts]) -> Entry:
    """Return a session, of one run or of several that went on from each other."""
    last = runs[-1]
    return {
        "id": session,
        "session_id": session,
        "name": session,
        "status": STATUS[last.state],
        "reason": last.reason,
        "committed_at": runs[0].created,
        "runs": [run.run for run in runs],
        "session_config": {
            "session_id": session,
            "rounds": sum(run.rounds for run in runs),
            "rounds_done": sum(run.rounds_done for run in runs),
        },
    }


def round_entries(
    run: str, session: str, events: Iterable[Event], combiner: str
) -> Iterator[Entry]:
    """Yield a run's committed rounds."""
    for event in events:
        if event["kind"] == "committed" and event["round"] and "clients" in event["row"]:
            row, name = event["row"], f"{run}:{event['round']}"
            before = f"{run}:{event['round'] - 1}"
            yield {
                "id": name,
                "round_id": name,
                "status": "Success",
                "session_id": session,
                "combiners": [{"name": combiner, "status": "Success", "data": row["clients"]}],
                "round_config": {"session_id": session, "model_id": before},
                "round_data": {"time_round": row.get("seconds"), "model_id": name},
            }


def status_entries(run: str, session: str, events: Iterable[Event]) -> Iterator[Entry]:
    """Yield what happened in a run as status messages."""
    for number, event in enumerate(events):
        bad = event["kind"] == "problem" or event.get("state") in ("failed", "refused")
        who = event.get("client") or event.get("site")
        data = {key: value for key, value in event.items() if key not in ("row", "progress")}
        yield {
            "id": f"{run}:{number}",
            "status_id": f"{run}:{number}",
            "type": event["kind"].upper(),
            "log_level": "ERROR" if bad else "INFO",
            "status": sentence(dict(event)),
            "data": json.dumps(data),
            "timestamp": event["at"],
            "session_id": session,
            "sender": _who(who) if who else {"name": "server", "role": "COMBINER"},
        }


def validation_entries(run: str, session: str, events: Iterable[Event]) -> Iterator[Entry]:
    """Yield what each client measured of each model; `data` is JSON text, as in FEDn."""
    for event in events:
        if event["kind"] != "committed":
            continue
        for data in validation_table(run, [event["row"]]):
            name, client = data.pop("model"), data.pop("client")
            data = data.get("report", data)  # what the package itself wrote
            yield {
                "id": f"{name}:{client}",
                "validation_id": f"{name}:{client}",
                "model_id": name,
                "modelId": name,
                "session_id": session,
                "sessionId": session,
                "correlation_id": name,
                "data": json.dumps(data),
                "timestamp": event["at"],
                "sender": _who(client),
                "receiver": {"name": "server", "role": "COMBINER"},
                "meta": "",
            }


def prediction_entries(
    run: str, model: str, session: str, events: Iterable[Event]
) -> Iterator[Entry]:
    """Yield what each client predicted with a model; `data` is JSON text, as in FEDn."""
    events = list(events)
    at = next((e["at"] for e in reversed(events) if e["kind"] == "committed"), "")
    for client, found in sorted(predictions_of(events).items()):
        yield {
            "id": f"{run}:{client}",
            "prediction_id": run,
            "correlation_id": run,
            "model_id": model,
            "modelId": model,
            "session_id": session,
            "data": json.dumps(found),
            "timestamp": at,
            "sender": _who(client),
            "receiver": {"name": "server", "role": "COMBINER"},
        }


def attribute_entries(clients: Iterable[Entry]) -> Iterator[Entry]:
    """Yield what clients say of themselves, one entry an attribute."""
    for client in clients:
        for key, value in client["attributes"].items():
            yield {
                "attribute_id": f"{client['name']}:{key}",
                "key": key,
                "value": value,
                "sender": {**_who(client["name"]), "client_id": client["client_id"]},
            }


def matching(entries: Iterable[Entry], **wanted: Any) -> list[Entry]:
    """Return those entries that have every value that is asked for; None asks for nothing."""
    tests: dict[str, Callable[[Entry], Any]] = {
        "sender_name": lambda e: e["sender"]["name"],
        "sender_role": lambda e: e["sender"]["role"],
        "receiver_name": lambda e: e["receiver"]["name"],
        "receiver_role": lambda e: e["receiver"]["role"],
        "event_type": lambda e: e["type"],
    }
    asked = {key: value for key, value in wanted.items() if value is not None}
    return [
        entry
        for entry in entries
        if all(tests.get(k, lambda e, k=k: e.get(k))(entry) == v for k, v in asked.items())
    ]


def _who(client: str) -> Entry:
    return {"name": client, "role": "CLIENT"}
