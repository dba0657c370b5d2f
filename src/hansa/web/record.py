"""What a page is made from: one run as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from hansa import metrics
from hansa.errors import RunError
from hansa.plan import flatten
from hansa.web.words import clean

Part = Literal["train", "validation", "test"]

PARTS: tuple[Part, ...] = ("train", "validation", "test")

WHERE: dict[str, str] = {
    "train": "on the clients' training data",
    "validation": "on the clients' validation data",
    "test": "on held-out data",
}
"""Each part as the end of a sentence."""


class Summary(msgspec.Struct, frozen=True):
    """One metric of one round over all clients; null stands for NaN or infinity."""

    mean: float | None
    weight: float | None = None
    min: float | None = None
    q25: float | None = None
    median: float | None = None
    q75: float | None = None
    max: float | None = None
    by_client: dict[str, float | None] = {}


class Attendance(msgspec.Struct, frozen=True):
    """How many clients one round asked, and what became of their updates."""

    asked: int = 0
    accepted: int = 0
    failed: int = 0
    refused: int = 0


class Traffic(msgspec.Struct, frozen=True):
    """Bytes to the clients and back."""

    down: int = 0
    up: int = 0


class Round(msgspec.Struct, frozen=True):
    """One committed round; a part without evaluation is empty."""

    round: int
    seconds: float = 0.0
    clients: Attendance = Attendance()
    bytes: Traffic = Traffic()
    train: dict[str, Summary] = {}
    validation: dict[str, Summary] = {}
    test: dict[str, Summary] = {}
    digest: str = ""

    def part(self, part: Part) -> dict[str, Summary]:
        """Return the metrics of one part."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[part]


class Problem(msgspec.Struct, frozen=True):
    """One client whose update did not count in one round."""

    round: int
    client: str
    kind: Literal["failed", "refused"]
    code: str = ""
    message: str = ""
    file: str | None = None


class Partition(msgspec.Struct, frozen=True):
    """Examples by client (rows) and class (columns); one column when there are no classes."""

    scheme: str
    clients: list[str]
    classes: list[str]
    counts: list[list[int]]
    total: int | None = None  # clients in all, when only the first are listed


class Best(msgspec.Struct, frozen=True):
    """The best value of the metric that the run was judged by."""

    round: int
    metric: str
    value: float | None


class Baseline(msgspec.Struct, frozen=True):
    """What there is to beat, such as the best client that trains alone."""

    name: str
    metric: str
    value: float | None
    by_client: dict[str, float | None] = {}


class CrossSite(msgspec.Struct, frozen=True):
    """Every model at every client: by metric, rows of models and columns of clients."""

    models: list[str]
    clients: list[str]
    metrics: dict[str, list[list[float | None]]]


class RoundTimes(msgspec.Struct, frozen=True):
    """Seconds of one round, and of its parts."""

    round: int
    seconds: float = 0.0
    train: float = 0.0
    aggregate: float = 0.0
    evaluate: float = 0.0
    save: float = 0.0
    between: float = 0.0


class Timing(msgspec.Struct, frozen=True):
    """Where the time went; of a long run the oldest rounds may be missing."""

    rounds: list[RoundTimes] = []
    work: dict[str, float] = {}  # mean seconds of a client's training


class RunRecord(msgspec.Struct, frozen=True):
    """One run as its folder tells it."""

    run: str
    state: Literal["running", "finished", "stopped", "failed"]
    reason: str = ""
    final: bool = False  # whether it has ended; a run that is stopped and has not can go on
    started: str = ""
    seconds: float = 0.0
    plan: dict[str, Any] = {}
    plan_digest: str = ""
    sources: dict[str, str] = {}
    environment: dict[str, str] = {}
    engine: str = ""
    model_digest: str = ""
    best: Best | None = None
    rounds: list[Round] = []
    problems: list[Problem] = []
    cross_site: CrossSite | None = None
    timing: Timing = Timing()
    partition: Partition | None = None
    baseline: Baseline | None = None


def read_record(record: RunRecord | Mapping[str, Any]) -> RunRecord:
    """Return `record` checked against the types above; unknown keys are ignored.

    Raises:
      RunError: `run-record-invalid`, a key is missing or holds something else.

    """
    if isinstance(record, RunRecord):
        return record
    try:
        return msgspec.convert(record, RunRecord)
    except msgspec.ValidationError as wrong:
        name = clean(record.get("run", "?"))
        raise RunError(
            "run-record-invalid",
            f"The record of run {name!r} cannot be read: {clean(wrong, 200)}. No page was written.",
            "Write it again from the run's events with: hansa show RUN",
        ) from wrong


def parts_of(record: RunRecord, metric: str) -> list[Part]:
    """Return the parts in which `metric` was measured in some round."""
    return [part for part in PARTS if any(metric in row.part(part) for row in record.rounds)]


def metrics_of(record: RunRecord) -> list[str]:
    """Return the names of all metrics, the one that matters most first."""
    names: dict[str, None] = {record.best.metric: None} if record.best else {}
    for part in reversed(PARTS):
        for row in record.rounds:
            names |= dict.fromkeys(row.part(part))
    return list(names) if record.best else sorted(names, key=lambda n: lower_is_better(record, n))


def lower_is_better(record: RunRecord, metric: str) -> bool:
    """Return whether a metric counts mistakes: what the plan says, or else by its name."""
    settings = flatten(record.plan)
    said = settings.get("stop.lower_is_better")
    if isinstance(said, bool) and settings.get("stop.metric") == metric:
        return said
    return metrics.lower_is_better(metric)


def values_of(record: RunRecord, metric: str, part: Part) -> list[tuple[int, Summary]]:
    """Return the rounds in which `metric` was measured, with what was found."""
    return [
        (row.round, row.part(part)[metric]) for row in record.rounds if metric in row.part(part)
    ]


def client_count(record: RunRecord) -> int:
    """Return how many clients there are in all, as far as the record knows."""
    if record.partition:
        return record.partition.total or len(record.partition.clients)
    seen = {
        client
        for row in record.rounds
        for part in (row.train, row.validation)
        for summary in part.values()
        for client in summary.by_client
    }
    return max([len(seen), *(row.clients.asked for row in record.rounds)])


def rounds_planned(record: RunRecord) -> int | None:
    """Return how many rounds the plan asks for."""
    rounds = flatten(record.plan).get("rounds")
    return rounds if isinstance(rounds, int) and not isinstance(rounds, bool) else None
