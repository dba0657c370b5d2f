"""What looks wrong in the numbers of a run, with the usual cause and a next step."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from hansa.plan import flatten
from hansa.web.record import WHERE, RunRecord, lower_is_better, metrics_of, parts_of, values_of
from hansa.web.words import clean, listing, number, spans, titled


class Notice(NamedTuple):
    """Something that looks wrong, with its usual cause and a next step."""

    what: str
    advice: str
    command: str = ""


def notices(record: RunRecord) -> list[Notice]:
    """Return what looks wrong in the numbers, most serious first."""
    return [
        *_lost_numbers(record),
        *_divergence(record),
        *_guessing(record),
        *_unreliable_clients(record),
    ]


def _lower_rate(record: RunRecord) -> str:
    rate = flatten(record.plan).get("learner.optimizer.lr")
    if isinstance(rate, int | float) and not isinstance(rate, bool) and rate > 0:
        return f"hansa run --set learner.optimizer.lr={rate / 10:g}"
    return "hansa run --set learner.optimizer.lr=0.01"


def _lost_numbers(record: RunRecord) -> list[Notice]:
    for metric in metrics_of(record):
        for part in parts_of(record, metric):
            values = values_of(record, metric, part)
            lost = [at for at, summary in values if summary.mean is None]
            if lost:
                kept = [at for at, summary in values if summary.mean is not None]
                when = f"is not a number since round {min(lost)}"
                if kept and max(kept) > min(lost):
                    rounds = "rounds" if len(lost) > 1 else "round"
                    when = f"was not a number in {rounds} {spans(lost)}"
                what = f"{titled(metric)} {WHERE[part]} {when}."
                advice = "Usually the learning rate is too large, or an input is not finite. Try:"
                return [Notice(what, advice, _lower_rate(record))]
    return []


def _divergence(record: RunRecord) -> list[Notice]:
    for metric in metrics_of(record):
        known = [
            (at, summary.mean)
            for at, summary in values_of(record, metric, "train")
            if summary.mean is not None
        ]
        if len(known) < 3 or not lower_is_better(record, metric):
            continue
        low_at, low = min(known, key=lambda pair: pair[1])
        if known[-1][1] > max(2 * low, known[0][1]) and low > 0:
            what = (
                f"Training {clean(metric)} rose from {number(low)} in round {low_at} "
                f"to {number(known[-1][1])}: the model gets worse."
            )
            return [Notice(what, "Try smaller local steps:", _lower_rate(record))]
    return []


def _guessing(record: RunRecord) -> list[Notice]:
    best, classes = record.best, record.partition.classes if record.partition else []
    if best is None or best.value is None or len(record.rounds) < 3 or not classes:
        return []
    if best.metric != "accuracy" or best.value > 1.3 / len(classes):
        return []
    what = (
        f"Accuracy {number(best.value)} is what guessing among {len(classes)} classes reaches: "
        "nothing was learnt."
    )
    return [Notice(what, "Try smaller local steps, and look at the inputs:", _lower_rate(record))]


def _unreliable_clients(record: RunRecord) -> list[Notice]:
    # A dictionary, not a set: its order is the same in every process.
    pairs = dict.fromkeys((problem.client, problem.round) for problem in record.problems)
    times = Counter(client for client, _ in pairs)
    often = [clean(c, 30) for c, n in times.most_common() if n * 2 > max(2, len(record.rounds))]
    if not often:
        return []
    who = listing(often, 5)
    what = f"{who} did not count in most rounds, so the model knows little of their data."
    return [Notice(what, "The reasons are under Problems below.")]
