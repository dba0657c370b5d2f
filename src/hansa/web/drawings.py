"""From a run to its charts, and to the sentence that says what each of them shows."""

from __future__ import annotations

from typing import NamedTuple

from hansa.web.charts import Band, ReferenceLine, Series, columns, heat_map, line_chart, strip
from hansa.web.record import (
    Part,
    Partition,
    RunRecord,
    Summary,
    lower_is_better,
    metrics_of,
    parts_of,
    values_of,
)
from hansa.web.words import byte_unit, clean, count, number, titled

METRICS_MAX = 6
"""Metrics with a chart of their own; the others are in the table of rounds."""

POINTS_MAX = 200
"""Points of all curves together, so that a page stays small."""

CLIENTS_MAX = 40
"""Clients shown in the partition."""

LINES = {"train": ("training", 3), "validation": ("validation", 1), "test": ("held-out", 2)}
"""The name and the colour of each part, the same in all charts."""


class Drawing(NamedTuple):
    """A chart with what it says in words."""

    svg: str
    caption: str = ""


def curves(record: RunRecord, *, standalone: bool = False) -> list[Drawing]:
    """Return one chart per metric, the most important first."""
    metrics = metrics_of(record)[:METRICS_MAX]
    resolution = max(25, min(100, POINTS_MAX // max(1, len(metrics))))
    return [_curve(record, metric, resolution, standalone=standalone) for metric in metrics]


def _curve(record: RunRecord, metric: str, resolution: int, *, standalone: bool) -> Drawing:
    series, spread = [], _spread_part(record, metric)
    for part in parts_of(record, metric):
        label, slot = LINES[part]
        values = values_of(record, metric, part)
        series.append(Series(label, [(at, summary.mean) for at, summary in values], slot))
    bands = _spread(record, metric, spread) if spread else []
    drawn = [value for one in series for _, value in one.points if value is not None]
    baseline = record.baseline
    lines = []
    if baseline and baseline.metric == metric and baseline.value is not None:
        lines.append(ReferenceLine(baseline.name, baseline.value))
    svg = line_chart(
        series,
        title=titled(metric),
        x_label="round",
        y_label=metric,
        bands=bands,
        reference_lines=lines,
        # A loss that explodes would flatten everything before it.
        log=bool(drawn) and min(drawn) > 0 and max(drawn) > 1000 * min(drawn),
        resolution=resolution,
        standalone=standalone,
    )
    return Drawing(svg)


def spread_words(record: RunRecord) -> str:
    """Return what the bands of the curves show, if there are any."""
    parts = (_spread_part(record, metric) for metric in metrics_of(record)[:METRICS_MAX])
    names = [LINES[part][0] for part in dict.fromkeys(parts) if part]
    if not names:
        return ""
    return (
        f"The bands show the spread of {' and '.join(names)} over the clients: all of them in "
        "the light part, the middle half in the dark part."
    )


def _spread_part(record: RunRecord, metric: str) -> Part | None:
    """Return the part whose spread is shown: validation, or else training."""
    for part in ("validation", "train"):
        if any(len(summary.by_client) > 1 for _, summary in values_of(record, metric, part)):
            return part
    return None


def _spread(record: RunRecord, metric: str, part: Part) -> list[Band]:
    values = values_of(record, metric, part)
    slot = LINES[part][1]
    whole = [(at, summary.min, summary.max) for at, summary in values]
    middle = [(at, summary.q25, summary.q75) for at, summary in values]
    return [
        Band("all clients", whole, slot),
        Band("middle half", middle, slot, inner=True),
    ]


def fairness(record: RunRecord) -> list[Drawing]:
    """Return what the model is worth to each client, and what each reaches without the others."""
    drawings = []
    for metric in metrics_of(record)[:1]:
        if part := _spread_part(record, metric):
            known = [s for _, s in values_of(record, metric, part) if len(s.by_client) > 1]
            drawings.append(_by_client(record, metric, known[-1], label=LINES[part][0]))
    baseline = record.baseline
    if baseline and len(baseline.by_client) > 1:
        best = record.best
        together = best.value if best and best.metric == baseline.metric else None
        lines = [ReferenceLine("together", together)] if together is not None else []
        svg = strip(
            baseline.by_client,
            title="Each client on its own",
            x_label=baseline.metric,
            reference_lines=lines,
        )
        drawings.append(Drawing(svg, "What each client reaches with its own data only."))
    return drawings


def _by_client(record: RunRecord, metric: str, last: Summary, *, label: str) -> Drawing:
    lines = [ReferenceLine("mean", last.mean)] if last.mean is not None else []
    svg = strip(
        last.by_client,
        title=f"{titled(metric)} by client",
        x_label=f"{label} {metric}",
        reference_lines=lines,
    )
    known = [(value, name) for name, value in last.by_client.items() if value is not None]
    if not known or last.q25 is None or last.q75 is None:
        return Drawing(svg)
    worst, name = max(known) if lower_is_better(record, metric) else min(known)
    if min(known)[0] == max(known)[0]:
        return Drawing(svg, f"In the last evaluation, each of them has {number(worst)}.")
    caption = (
        f"In the last evaluation, the middle half of the clients lies between {number(last.q25)} "
        f"and {number(last.q75)}; {clean(name, 30)} is worst off with {number(worst)}."
    )
    return Drawing(svg, caption)


def partition(split: Partition | None, *, standalone: bool = False) -> Drawing | None:
    """Return who holds how much of what."""
    if split is None or not split.clients:
        return None
    names, counts = split.clients[:CLIENTS_MAX], split.counts[:CLIENTS_MAX]
    if split.classes:
        svg = heat_map(
            counts,
            rows=names,
            columns=split.classes,
            title="Examples by client and class",
            x_label="class",
            y_label="client",
            standalone=standalone,
        )
    else:
        sizes = {name: float(sum(row)) for name, row in zip(names, counts, strict=False)}
        svg = strip(
            sizes,
            title="Examples by client",
            x_label="examples",
            from_zero=True,
            standalone=standalone,
        )
    return Drawing(svg, _partition_words(split))


def _partition_words(split: Partition) -> str:
    sizes = [sum(row) for row in split.counts]
    more = len(split.clients) - CLIENTS_MAX
    return (
        f"Split {clean(split.scheme)}: {count(sum(sizes), 'example')} over "
        f"{count(len(split.clients), 'client')}, {min(sizes, default=0):,} to "
        f"{max(sizes, default=0):,} each."
        + (f" The first {CLIENTS_MAX} are shown, {more:,} more are not." if more > 0 else "")
    )


def timeline(record: RunRecord) -> list[Drawing]:
    """Return time, traffic and attendance by round."""
    rows = record.rounds
    if not rows:
        return []
    scale, unit = byte_unit(max(row.bytes.down + row.bytes.up for row in rows))
    down = [(float(row.round), row.bytes.down / scale) for row in rows]
    up = [(float(row.round), row.bytes.up / scale) for row in rows]
    return [
        Drawing(columns(_time(record), title="Time", x_label="round", y_label="seconds")),
        Drawing(
            columns(
                [Series("to the clients", down, 1), Series("back", up, 4)],
                title="Traffic",
                x_label="round",
                y_label=unit,
            )
        ),
        Drawing(_attendance(record)),
        *_work(record),
    ]


def _time(record: RunRecord) -> list[Series]:
    """Return the seconds of each round, by its parts where these are known."""
    known = record.timing.rounds
    if not known:
        return [Series("whole round", [(row.round, row.seconds) for row in record.rounds], 1)]
    parts = {
        "training": [(row.round, row.train) for row in known],
        "evaluation": [(row.round, row.evaluate) for row in known],
        "aggregation": [(row.round, row.aggregate) for row in known],
        "saving": [(row.round, row.save) for row in known],
        "between": [(row.round, row.between) for row in known],
    }
    slots = {"training": 3, "evaluation": 1, "aggregation": 4, "saving": 5, "between": 6}
    return [Series(name, points, slots[name]) for name, points in parts.items()]


def _work(record: RunRecord) -> list[Drawing]:
    """Return how long each client works in a round, on average."""
    if len(record.timing.work) < 2:
        return []
    busiest = sorted(record.timing.work.items(), key=lambda pair: (-pair[1], pair[0]))
    shown = dict(busiest[:CLIENTS_MAX])
    svg = strip(shown, title="Work by client", x_label="seconds a round", from_zero=True)
    left = len(busiest) - len(shown)
    return [Drawing(svg, f"The {CLIENTS_MAX} slowest; {left:,} more are left out." if left else "")]


def _attendance(record: RunRecord) -> str:
    """Return the updates that counted and those that did not; only the latter if they are few."""
    rows = record.rounds
    asked = sum(row.clients.asked for row in rows)
    counted = Series("counted", [(row.round, row.clients.accepted) for row in rows], 6)
    failed = Series("failed", [(row.round, row.clients.failed) for row in rows], 7)
    refused = Series("refused", [(row.round, row.clients.refused) for row in rows], 5)
    lost = [one for one in (failed, refused) if any(value for _, value in one.points)]
    missing = sum(value or 0 for one in lost for _, value in one.points)
    few = 0 < missing < asked / 10
    title = f"Updates lost, {missing:,.0f} of {asked:,}" if few else "Updates"
    series = lost if few else [counted, *lost]
    return columns(series, title=title, x_label="round", y_label="clients")
