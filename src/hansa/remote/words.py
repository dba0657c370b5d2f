"""Events of a run in plain words: one line each."""

from __future__ import annotations

from typing import Any

from hansa.text import TEXT_CHARS, clean

Event = dict[str, Any]


def notice(event: Event) -> str:
    """Return what one who looks on should know at once, or nothing: the rounds say the rest."""
    match event["kind"]:
        case "waiting" | "standing" | "started" | "resumed":
            return sentence(event)
        case "result" if event["state"] in ("lost", "returned"):
            return sentence(event)
    return ""


def sentence(event: Event) -> str:
    """Return what an event of a simulation or a federation says, without its time."""
    match event["kind"]:
        case "submitted":
            return f"handed over by {clean(event['submitter'])}"
        case "standing":
            return _standing(event)
        case "waiting":
            return f"waiting: {_text(event.get('reason'))}"
        case "committed":
            return _committed(event)
        case "opened":
            verb = "train" if event["phase"] == "train" else "evaluate"
            return f"{_round(event)}: {len(event['cohort'])} sites asked to {verb}"
        case "result" | "merged":
            return _merged(event) if event["kind"] == "merged" else _result(event)
        case "closed":
            what = "results" if event["phase"] == "evaluate" else "updates"
            return f"{_round(event)}: closed with {len(event['accepted'])} {what}"
        case "problem":
            who, what = clean(event["client"]), clean(event["what"])
            return f"{_round(event)}: {who} {what}: {_text(event['message'])} [{event['code']}]"
        case "baseline":
            return f"{clean(event['name'])}, alone: {clean(event['metric'])} {event['value']:.4g}"
        case "raised":
            lines = [clean(line, TEXT_CHARS) for line in str(event["trace"]).splitlines()]
            return "\n    ".join(["the project's code raised, at the server:", *lines])
        case "ended":
            reason, code = _text(event.get("reason")), f"[{clean(event.get('code') or '')}]"
            told = code == "[]" or code in reason  # a reason that is an error's text ends with it
            return f"{clean(event['state'])}: {reason}" + ("" if told else f" {code}")
    return _PLAIN.get(event["kind"]) or clean(event["kind"])


_PLAIN = {
    "started": "started",
    "resumed": "resumed after an interruption",
}


def _standing(event: Event) -> str:
    site, reason = clean(event["site"]), _text(event.get("reason"))
    match event["state"]:
        case "ready":
            examples = event.get("examples", 0)
            if not examples:
                return f"{site} takes part; its data are read and counted by the run's code alone"
            return f"{site} takes part with {examples:,} example{'s' * (examples != 1)}"
        case "refused":
            return f"{site} does not take part: {reason or 'it gives no reason'}"
    return f"{site} has not decided yet" + (f": {reason}" if reason else "")


def _merged(event: Event) -> str:
    size = f" of {event['size']:,} bytes" if event.get("size") else ""
    what = "the partial sum" if event["phase"] == "train" else "the evaluation"
    return (
        f"{_round(event)}: {what} of {clean(event['combiner'])}{size} counts, "
        f"with {len(event['clients'])} clients in it"
    )


def _result(event: Event) -> str:
    client, where = clean(event["client"]), _round(event)
    match event["state"]:
        case "accepted":
            size = f" of {event['size']:,} bytes" if event.get("size") else ""
            what = "the update" if event["phase"] == "train" else "the evaluation"
            via = f", through {clean(event['via'])}" if event.get("via") else ""
            return f"{where}: {what} of {client}{size} counts{via}"
        case "lost":
            return f"{where}: {client} is not heard of any more"
        case "returned":
            return f"{where}: {client} is back"
    reason = _text(event.get("reason"))
    code = f" [{clean(event['code'])}]" if event.get("code") else ""
    return f"{where}: {client} {clean(event['state'])}" + (f": {reason}" if reason else "") + code


def _committed(event: Event) -> str:
    if event["round"] == 0:
        return f"the seed model is {event['model'][:19]}"
    counts = event["row"].get("clients") or {}
    told = f"{counts.get('accepted', 0)} of {counts.get('asked', 0)} clients"
    return f"{_round(event)}: committed, {told}, model {event['model'][:19]}"


def _round(event: Event) -> str:
    return f"round {event['round']}"


def _text(text: Any) -> str:
    return clean(text or "", TEXT_CHARS)
