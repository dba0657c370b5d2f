"""A run's times as OpenTelemetry reads them; what is expected is worked out by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hansa.runs.otlp import otlp_lines

SPANS = [
    {"span": "round", "round": 7, "at": "2026-11-22T15:05:28.250+00:00", "begin_s": 0.0,
     "seconds": 2.5},
    {"span": "exchange", "round": 7, "at": "2026-11-22T15:05:28.375+00:00", "begin_s": 0.125,
     "seconds": 2.0, "phase": "train", "clients": 2},
    {"span": "save", "round": 7, "at": "2026-11-22T15:05:30.500+00:00", "begin_s": 2.25,
     "seconds": 0.25, "bytes": 142, "tensors": [["w", 3, 0, 6]]},
    {"span": "task", "round": 7, "at": "2026-11-22T15:05:28.375+00:00", "begin_s": 0.125,
     "phase": "train", "client": "north", "seconds": 1.5, "state": "done", "work_s": 0.75},
    {"span": "task", "round": 7, "at": "2026-11-22T15:05:28.375+00:00", "begin_s": 0.125,
     "phase": "train", "client": "south", "seconds": 1.0, "state": "failed", "memory_kb": None},
    {"span": "task", "round": 7, "at": "2026-11-22T15:05:28.500+00:00", "begin_s": 0.25,
     "phase": "train", "client": "west"},
]  # fmt: skip
BEGAN = 1_795_359_928_250_000_000
"""The round's `at` in nanoseconds: date -d 2026-11-22T15:05:28.250Z +%s%N."""


def lines() -> list[list[dict[str, Any]]]:
    about = {"identity": "blake3:12", "created": "2026-11-22"}
    folder: Any = SimpleNamespace(name="study-1", about=about, spans=lambda: SPANS)
    found = []
    for line in otlp_lines(folder):
        assert line.endswith(b"\n") and line.count(b"\n") == 1 and b"null" not in line
        (resource,) = json.loads(line)["resourceSpans"]
        named = {"key": "service.name", "value": {"stringValue": "hansa"}}
        assert named in resource["resource"]["attributes"]
        (scope,) = resource["scopeSpans"]
        found.append(scope["spans"])
    return found


def test_a_run_is_a_trace_whose_spans_hold_each_other() -> None:
    [root], spans = lines()
    by_id = {span["spanId"]: span for span in [root, *spans]}
    assert len(by_id) == 7 and "parentSpanId" not in root
    above = {s["name"]: by_id[s["parentSpanId"]]["name"] for s in spans}
    assert above == {
        "round 7": "run study-1",
        "train": "round 7",
        "save": "round 7",
        "train north": "train",
        "train south": "train",
        "train west": "train",
    }
    assert len({s["traceId"] for s in [root, *spans]}) == 1
    for span in [root, *spans]:
        assert len(bytes.fromhex(span["traceId"])) == 16 and len(bytes.fromhex(span["spanId"])) == 8
        assert span["kind"] == 1


def test_times_are_nanoseconds_as_decimal_strings_and_add_up_from_the_round() -> None:
    [root], spans = lines()
    times = {s["name"]: (s["startTimeUnixNano"], s["endTimeUnixNano"]) for s in [root, *spans]}
    whole = (str(BEGAN), str(BEGAN + 2_500_000_000))
    assert times["run study-1"] == times["round 7"] == whole
    assert times["train"] == (str(BEGAN + 125_000_000), str(BEGAN + 2_125_000_000))
    assert times["save"] == (str(BEGAN + 2_250_000_000), str(BEGAN + 2_500_000_000))
    assert times["train west"] == (str(BEGAN + 250_000_000),) * 2, "its result never came"


def test_facts_are_attributes_by_type_and_only_what_failed_is_an_error() -> None:
    spans = {span["name"]: span for span in lines()[1]}

    def facts(name: str) -> dict[str, Any]:
        return {a["key"]: a["value"] for a in spans[name]["attributes"]}

    assert facts("train north") == {
        "hansa.round": {"intValue": "7"},
        "hansa.phase": {"stringValue": "train"},
        "hansa.client": {"stringValue": "north"},
        "hansa.state": {"stringValue": "done"},
        "hansa.work_s": {"doubleValue": 0.75},
    }
    tensor = [{"stringValue": "w"}, {"intValue": "3"}, {"intValue": "0"}, {"intValue": "6"}]
    tensors = {"arrayValue": {"values": [{"arrayValue": {"values": tensor}}]}}
    assert facts("save")["hansa.tensors"] == tensors
    assert "hansa.memory_kb" not in facts("train south")
    assert spans["train north"]["status"] == {"code": 1}
    assert spans["train south"]["status"] == {"code": 2, "message": "failed"}
    assert "status" not in spans["train west"] and "status" not in spans["round 7"]


def test_the_command_writes_the_file_and_belongs_to_timing(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(
        'name = "few"\nrounds = 2\n[learner]\nkind = "numpy"\n'
        '[data]\nset = "digits"\nsplit = { scheme = "iid", clients = 2 }\n'
    )

    def hansa(*words: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "hansa", *words], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    hansa("run")
    assert "2 rounds of few-1" in hansa("show", "few-1", "--timing", "--otlp", "few.jsonl")
    written = (tmp_path / "few.jsonl").read_text().splitlines()
    assert len(written) == 3 and all("resourceSpans" in json.loads(line) for line in written)
    assert "--timing" in hansa("show", "few-1", "--otlp", "few.jsonl", status=2)
    told = hansa("show", "few-1", "--timing", "--otlp", "nowhere/few.jsonl", status=1)
    assert "Traceback" not in told and "nowhere" in told
