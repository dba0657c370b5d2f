"""A run's spans as OpenTelemetry has them: a file that collectors and trace viewers read.

A run is one trace: its span holds those of the rounds, a round's holds its exchanges, the
aggregation and the saving, and an exchange's holds the tasks of its clients.  Names of clients and
metrics of time go with them as attributes, in the names of `spans.jsonl` after `hansa.`.

Source: OpenTelemetry Protocol File Exporter, a line of JSON for each `TracesData`; OTLP, JSON
Protobuf encoding: names in camel case, identifiers in hexadecimal, 64-bit integers as decimal
strings, enumerations as numbers, and no nulls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from blake3 import blake3

import hansa
from hansa.clock import seconds_of
from hansa.runs.folder import RunFolder
from hansa.spans import Span

_INTERNAL, _OK, _ERROR = 1, 1, 2  # SPAN_KIND_INTERNAL, STATUS_CODE_OK, STATUS_CODE_ERROR
_PLACE = ("span", "round", "at", "begin_s", "seconds")  # what OTLP has fields of its own for


def otlp_lines(folder: RunFolder) -> Iterator[bytes]:
    """Give the lines of a file: one for the run, and one for each of its rounds.

    The same run gives the same lines: identifiers are made of its name, plan and beginning.
    """
    about = folder.about
    known = f"{folder.name}|{about['identity']}|{about['created']}".encode()
    trace = blake3(known).hexdigest()[:32]
    resource = {
        "attributes": _attributes(
            {"service.name": "hansa", "service.version": hansa.__version__}, prefix=""
        )
    }

    def line(spans: Sequence[dict[str, Any]]) -> bytes:
        scope = {"name": "hansa", "version": hansa.__version__}
        scoped = [{"scope": scope, "spans": spans}]
        whole = {"resourceSpans": [{"resource": resource, "scopeSpans": scoped}]}
        return msgspec.json.encode(whole) + b"\n"

    rounds: dict[int, list[Span]] = {}
    for span in folder.spans():
        rounds.setdefault(span["round"], []).append(span)
    if not rounds:
        return
    made = {number: _round(spans, trace) for number, spans in rounds.items()}
    root = {
        "traceId": trace,
        "spanId": _id(trace, "run"),
        "name": f"run {folder.name}",
        "kind": _INTERNAL,
        "startTimeUnixNano": min((s[0]["startTimeUnixNano"] for s in made.values()), key=int),
        "endTimeUnixNano": max((s[0]["endTimeUnixNano"] for s in made.values()), key=int),
        "attributes": _attributes({"run": folder.name, "identity": about["identity"]}),
    }
    yield line([root])
    for spans in made.values():
        yield line(spans)


def _round(spans: Sequence[Span], trace: str) -> list[dict[str, Any]]:
    """Return a round's spans; the first is the round itself."""
    whole = next(span for span in spans if span["span"] == "round")
    number, began = whole["round"], round(seconds_of(whole["at"]) * 1e6) * 1000
    exchanges = {
        span["phase"]: _id(trace, number, index)
        for index, span in enumerate(spans)
        if span["span"] == "exchange"
    }
    found = []
    for index, span in enumerate(spans):
        if span is whole:
            above, mine = _id(trace, "run"), _id(trace, number)
        else:
            above, mine = _id(trace, number), _id(trace, number, index)
            if span["span"] == "task":
                above = exchanges.get(span["phase"], above)
        start = began + round((span["begin_s"] - whole["begin_s"]) * 1e9)
        found.append(
            {
                "traceId": trace,
                "spanId": mine,
                "parentSpanId": above,
                "name": _name(span),
                "kind": _INTERNAL,
                "startTimeUnixNano": str(start),
                "endTimeUnixNano": str(start + round(span.get("seconds", 0.0) * 1e9)),
                "attributes": _attributes(
                    {"round": number} | {k: v for k, v in span.items() if k not in _PLACE}
                ),
                **_status(span),
            }
        )
    return sorted(found, key=lambda span: span["parentSpanId"] != _id(trace, "run"))


def _name(span: Span) -> str:
    match span["span"]:
        case "round":
            return f"round {span['round']}"
        case "exchange":
            return str(span["phase"])
        case "task":
            return f"{span['phase']} {span['client']}"
    return str(span["span"])


def _status(span: Span) -> dict[str, Any]:
    """Return how a task went; one without a result has neither succeeded nor failed."""
    if "state" not in span:
        return {}
    done = span["state"] == "done"
    told = {"code": _OK} if done else {"code": _ERROR, "message": str(span["state"])}
    return {"status": told}


def _id(trace: str, *where: object) -> str:
    return blake3("|".join(map(str, (trace, *where))).encode()).hexdigest()[:16]


def _attributes(facts: Mapping[str, Any], prefix: str = "hansa.") -> list[dict[str, Any]]:
    return [
        {"key": f"{prefix}{key}", "value": _value(value)}
        for key, value in facts.items()
        if value is not None
    ]


def _value(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case list():
            return {"arrayValue": {"values": [_value(one) for one in value]}}
    return {"stringValue": str(value)}
