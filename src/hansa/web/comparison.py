"""Several runs side by side: what differs, which setting is ahead, and whether one may say so.

Runs whose plans differ only in the seed are one setting; its values are shown as a range.  The
seed decides who gets which rows, so the digest of the data differs with it and is no setting.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import NamedTuple

from hansa.plan import flatten
from hansa.web.charts import Band, Series, line_chart
from hansa.web.drawings import Drawing
from hansa.web.record import (
    PARTS,
    WHERE,
    Part,
    RunRecord,
    lower_is_better,
    metrics_of,
    parts_of,
    values_of,
)
from hansa.web.words import (
    byte_size,
    clean,
    count,
    duration,
    listing,
    number,
    sentence,
    setting,
    titled,
)

DRAWN_MAX = 8
"""Settings with a curve, the best ones; there are as many colours."""

DATA = "data_digest"
"""Key of a plan as a run's record has it: which rows each client had."""

LABEL_CHARS = 34
"""Characters of the name of a setting before the name of its run is used instead."""


class Setup(NamedTuple):
    """Runs of one plan, but for the seed."""

    label: str
    runs: list[RunRecord]
    plan: dict[str, str]  # flat, as text, without the seed


class Yardstick(NamedTuple):
    """What the runs are measured by: a metric on the data that all of them know."""

    metric: str
    part: Part
    lower: bool

    def best(self, record: RunRecord) -> float | None:
        """Return the best value of a run."""
        known = [s.mean for _, s in values_of(record, self.metric, self.part) if s.mean is not None]
        return (min if self.lower else max)(known, default=None)

    def last(self, record: RunRecord) -> float | None:
        """Return the final value of a run."""
        values = values_of(record, self.metric, self.part)
        return values[-1][1].mean if values else None


class Result(NamedTuple):
    """One line of the table of results."""

    label: str
    runs: str
    seeds: str
    state: str
    best: str
    last: str
    rounds: str
    time: str
    sent: str


class Comparison(NamedTuple):
    """Everything that the page shows."""

    headline: str
    remarks: list[str]
    obstacles: list[str]
    setups: list[Setup]
    differences: list[tuple[str, list[str]]]
    sameness: str
    measured: str
    results: list[Result]
    curves: Drawing | None


def compare(records: Sequence[RunRecord]) -> Comparison:
    """Return what can be said about runs side by side."""
    setups, obstacles = group(records), hindrances(records)
    measure = yardstick(records)
    if measure and not obstacles:
        setups.sort(key=lambda setup: _rank(setup, measure))
    return Comparison(
        headline=_headline(setups, measure, obstacles),
        remarks=_remarks(setups, measure, obstacles),
        obstacles=obstacles if len(records) > 1 else [],
        setups=setups,
        differences=differences(setups),
        sameness=_sameness(records),
        measured=f"{clean(measure.metric)} {WHERE[measure.part]}" if measure else "",
        results=[_result(setup, measure) for setup in setups],
        curves=_curves(setups, measure) if measure and not obstacles else None,
    )


def group(records: Sequence[RunRecord]) -> list[Setup]:
    """Return the runs by plan, seeds together, each plan named by what sets it apart."""
    plans: dict[str, Setup] = {}
    flats = [_but_seed(record) for record in records]
    changed = _with_other_data(records, flats)
    for record, flat in zip(records, flats, strict=True):
        if _key(flat, DATA) not in changed:
            flat.pop(DATA, None)
        plans.setdefault(_key(flat), Setup("", [], flat)).runs.append(record)
    setups = list(plans.values())
    keys = [key for key, _ in differences(setups)]
    labels = [_label(setup, keys) for setup in setups]
    if len(set(labels)) < len(labels) or any(len(label) > LABEL_CHARS for label in labels):
        labels = [_run_names(setup, 1) for setup in setups]
    return [setup._replace(label=label) for setup, label in zip(setups, labels, strict=True)]


def _but_seed(record: RunRecord) -> dict[str, str]:
    flat = {clean(key, 80): setting(v) for key, v in flatten(record.plan).items()}
    flat.pop("seed", None)
    return flat


def _key(flat: dict[str, str], without: str = "") -> str:
    return json.dumps({k: v for k, v in flat.items() if k != without}, sort_keys=True)


def _with_other_data(records: Sequence[RunRecord], flats: list[dict[str, str]]) -> set[str]:
    """Return the plans that met other data under one seed: there the seed is not the reason."""
    digests: dict[tuple[str, str], set[str | None]] = {}
    for record, flat in zip(records, flats, strict=True):
        digests.setdefault((_key(flat, DATA), _seed(record)), set()).add(flat.get(DATA))
    return {plan for (plan, _), found in digests.items() if len(found) > 1}


def _seed(record: RunRecord) -> str:
    return setting(flatten(record.plan).get("seed"))


def _label(setup: Setup, keys: list[str]) -> str:
    if not keys:
        return _run_names(setup, 1)
    return ", ".join(f"{key.rpartition('.')[2]} = {setup.plan.get(key, 'not set')}" for key in keys)


def _run_names(setup: Setup, limit: int) -> str:
    return listing([clean(run.run, 28) for run in setup.runs], limit)


def differences(setups: Sequence[Setup]) -> list[tuple[str, list[str]]]:
    """Return the keys whose values are not the same in all plans, with one value per plan."""
    keys = dict.fromkeys(key for setup in setups for key in setup.plan)
    rows = [(key, [setup.plan.get(key, "not set") for setup in setups]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _sameness(records: Sequence[RunRecord]) -> str:
    """Return what to say where no setting differs."""
    if len({_seed(record) for record in records}) > 1:
        return "Nothing but the seed."
    return "Nothing: the plans are the same, and so are their seeds."


def hindrances(records: Sequence[RunRecord]) -> list[str]:
    """Return why the runs cannot be ranked, as sentences; nothing when they can."""
    found = []
    data = _by(records, [_data_of(record) for record in records])
    if len(data) > 1:
        found.append(
            f"They were trained on different data: {_owners(data)}. A better value on one "
            "says nothing about the other."
        )
    if len(records) > 1 and yardstick(records) is None:
        names = _by(records, [", ".join(metrics_of(r)[:3]) or "no metric" for r in records])
        if len(names) > 1:
            found.append(f"They have no metric in common: {_owners(names)}.")
        else:
            found.append("They were not all evaluated on the same kind of data.")
    return found


def _data_of(record: RunRecord) -> str:
    known = flatten(record.plan).get("data.set")
    classes = record.partition.classes if record.partition else []
    own = f"the project's own data with {count(len(classes), 'class').replace('classs', 'classes')}"
    return setting(known) if isinstance(known, str) and known else own


def _by(records: Sequence[RunRecord], keys: list[str]) -> dict[str, list[str]]:
    owners: dict[str, list[str]] = {}
    for record, key in zip(records, keys, strict=True):
        owners.setdefault(key, []).append(clean(record.run, 28))
    return owners


def _owners(groups: dict[str, list[str]]) -> str:
    return "; ".join(f"{clean(what)} ({listing(runs, 3)})" for what, runs in groups.items())


def yardstick(records: Sequence[RunRecord]) -> Yardstick | None:
    """Return the first metric, on the most independent data, that all runs have."""
    if not records:
        return None
    for part in reversed(PARTS):
        for metric in metrics_of(records[0]):
            if all(part in parts_of(record, metric) for record in records):
                return Yardstick(metric, part, lower_is_better(records[0], metric))
    return None


def _bests(setup: Setup, measure: Yardstick) -> list[float]:
    return [best for run in setup.runs if (best := measure.best(run)) is not None]


def _rank(setup: Setup, measure: Yardstick) -> float:
    """Return a key that puts the better setting first, and one without numbers last."""
    bests = _bests(setup, measure)
    if not bests:
        return float("inf")
    return fmean(bests) if measure.lower else -fmean(bests)


def _headline(setups: list[Setup], measure: Yardstick | None, obstacles: list[str]) -> str:
    runs = sum(len(setup.runs) for setup in setups)
    if runs < 2:
        only = f": only {clean(setups[0].runs[0].run)} is here" if setups else ""
        return f"There is nothing to compare yet{only}."
    if obstacles or measure is None:
        return "These runs cannot be ranked against each other."
    metric, where = clean(measure.metric), WHERE[measure.part]
    ranked = [(setup, bests) for setup in setups if (bests := _bests(setup, measure))]
    if not ranked:
        return f"None of these runs has a value of {metric} {where} yet."
    first = f"{metric} {number(fmean(ranked[0][1]))} {where}"
    if len(setups) == 1:
        seeds = _range(ranked[0][1])
        return f"{count(runs, 'run')} of the same plan reached {metric} {seeds} {where}."
    if len(ranked) == 1:
        return f"Only {ranked[0][0].label} has a value yet: {first}."
    if fmean(ranked[0][1]) == fmean(ranked[1][1]):
        return f"{ranked[0][0].label} and {ranked[1][0].label} are level: {first}."
    second = f"{number(fmean(ranked[1][1]))} with {ranked[1][0].label}"
    return f"{ranked[0][0].label} is ahead: {first}, against {second}."


def _range(values: list[float]) -> str:
    if len(values) == 1 or min(values) == max(values):
        return number(fmean(values))
    return f"{number(fmean(values))} ({number(min(values))} to {number(max(values))})"


def _remarks(setups: list[Setup], measure: Yardstick | None, obstacles: list[str]) -> list[str]:
    """Return what a careful reader should keep in mind."""
    remarks = []
    if measure and not obstacles and len(setups) > 1:
        first, second = _bests(setups[0], measure), _bests(setups[1], measure)
        seeds = min(len(setup.runs) for setup in setups[:2])
        if seeds == 1:
            remarks.append(
                "At least one of the two best settings has a single seed, so a small difference "
                "may be chance. Run it again with another: hansa run --seed N"
            )
        elif first and second and max(min(first), min(second)) <= min(max(first), max(second)):
            remarks.append(
                "The seeds of the two best settings overlap, so the order may be chance."
            )
    open_runs = [clean(r.run, 28) for s in setups for r in s.runs if r.state == "running"]
    if open_runs:
        verb = "is" if len(open_runs) == 1 else "are"
        remarks.append(f"{listing(open_runs)} {verb} still running; the values may change.")
    broken = [clean(r.run, 28) for s in setups for r in s.runs if r.state in ("failed", "stopped")]
    if broken:
        remarks.append(f"{listing(broken)} ended early, and may have been better at the end.")
    return remarks


def _result(setup: Setup, measure: Yardstick | None) -> Result:
    bests = _bests(setup, measure) if measure else []
    rounds = sorted({run.rounds[-1].round if run.rounds else 0 for run in setup.runs})
    sent = [sum(r.bytes.down + r.bytes.up for r in run.rounds) for run in setup.runs]
    return Result(
        label=setup.label,
        runs=_run_names(setup, 4),
        seeds=listing([_seed(run) for run in setup.runs], 4),
        state=", ".join(dict.fromkeys(run.state for run in setup.runs)),
        best=_range(bests) if bests else _own_best(setup),
        last=_last(setup, measure) if measure else _own_last(setup),
        rounds=f"{rounds[0]:,}" if len(rounds) == 1 else f"{rounds[0]:,} to {rounds[-1]:,}",
        time=duration(fmean(run.seconds for run in setup.runs)),
        sent=byte_size(fmean(sent)),
    )


def _own_best(setup: Setup) -> str:
    """Return the best values by the runs' own account, where there is no common measure."""
    bests = [run.best for run in setup.runs if run.best]
    return listing([f"{clean(b.metric, 24)} {number(b.value)}" for b in bests], 2) or "none"


def _last(setup: Setup, measure: Yardstick) -> str:
    lasts = [measure.last(run) for run in setup.runs]
    known = [value for value in lasts if value is not None]
    return _range(known) if len(known) == len(lasts) else number(None)  # the model diverged


def _own_last(setup: Setup) -> str:
    """Return the final values as `_own_best` does the best ones."""
    own = [(run, measure) for run in setup.runs if (measure := yardstick([run]))]
    lasts = [f"{clean(by.metric, 24)} {number(by.last(run))}" for run, by in own]
    return listing(lasts, 2) or "none"


def _curves(setups: list[Setup], measure: Yardstick) -> Drawing:
    series, bands = [], []
    for slot, setup in enumerate(setups[:DRAWN_MAX], start=1):
        points = list(_over_seeds(setup, measure))
        series.append(
            Series(setup.label, [(at, fmean(v) if v else None) for at, v in points], slot)
        )
        if len(setup.runs) > 1:
            edges = [(at, min(v, default=None), max(v, default=None)) for at, v in points]
            bands.append(Band(f"{setup.label}, seeds", edges, slot))
    title = titled(measure.metric)
    svg = line_chart(series, title=title, x_label="round", y_label=measure.metric, bands=bands)
    said = [sentence(WHERE[measure.part])]
    said += ["Bands reach from the lowest to the highest run of a setting."] if bands else []
    if len(setups) > DRAWN_MAX:
        said.append(f"The best {DRAWN_MAX} of {len(setups)} settings are drawn.")
    return Drawing(svg, " ".join(said))


def _over_seeds(setup: Setup, measure: Yardstick) -> Iterator[tuple[float, list[float]]]:
    """Yield the values of all seeds by round; no values where one of them was lost.

    Rounds that some seed has not reached are left out: the mean over fewer seeds would jump.
    """
    runs = [dict(values_of(run, measure.metric, measure.part)) for run in setup.runs]
    for at in sorted(set.intersection(*(set(run) for run in runs))):
        means = [run[at].mean for run in runs]
        known = [mean for mean in means if mean is not None]
        yield at, known if len(known) == len(means) else []
