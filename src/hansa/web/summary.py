"""A run in plain words: the headline, how it stands, its key figures, problems and settings."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from hansa.plan import flatten
from hansa.web.record import (
    PARTS,
    WHERE,
    Part,
    Problem,
    RunRecord,
    client_count,
    lower_is_better,
    rounds_planned,
    values_of,
)
from hansa.web.words import (
    TEXT_CHARS,
    byte_size,
    clean,
    count,
    duration,
    listing,
    number,
    sentence,
    setting,
    spans,
)


class Step(NamedTuple):
    """A command to type, and what it does."""

    command: str
    effect: str


class Status(NamedTuple):
    """How the run stands; the tone names a colour and an icon."""

    word: str
    tone: str  # good, busy, warn or bad
    cause: str
    steps: list[Step]


class Figure(NamedTuple):
    """One key figure."""

    label: str
    value: str
    note: str = ""


class ProblemGroup(NamedTuple):
    """Problems with one cause, together in one line of the table."""

    kind: str
    code: str
    message: str
    times: int
    rounds: str
    clients: str
    file: str


class Setting(NamedTuple):
    """One value of the plan and where it came from."""

    key: str
    value: str
    source: str


def headline(record: RunRecord) -> str:
    """Return what happened, in one sentence."""
    name, reached = clean(record.run), _reached(record)
    if not record.rounds:
        return {
            "running": f"{name} has started; no round is finished yet.",
            "finished": f"{name} finished without a single round.",
            "stopped": f"{name} was stopped before its first round was finished.",
            "failed": f"{name} failed before its first round was finished.",
        }[record.state]
    done = _rounds_done(record)
    if record.state == "finished":
        effort = f"with {count(client_count(record), 'client')} in {duration(record.seconds)}"
        if not reached:
            return f"{name} {_unjudged(record, done)}."
        best_at = record.best.round if record.best else 0
        last_at = record.rounds[-1].round
        when = f"after {done}" if best_at == last_at else f"in round {best_at:,} of {last_at:,}"
        return f"{name} reached {reached} {when} {effort}{_beaten(record)}."
    if record.state == "running":
        return f"{name} is at {reached or 'work'} after {done}{_beaten(record)}."
    verb = "was stopped" if record.state == "stopped" else "failed"
    best = f"; the best it reached is {reached}" if reached else ""
    return f"{name} {verb} after {done}{best}{_beaten(record)}."


def _unjudged(record: RunRecord, done: str) -> str:
    """Say what a run did whose stop.metric nobody has measured."""
    workflow = record.plan.get("workflow", "")
    named = workflow.get("name") if isinstance(workflow, Mapping) else workflow
    clients, time = count(client_count(record), "client"), duration(record.seconds)
    if named == "broadcast_and_process":
        return f"asked {clients} in {done} and {time}"
    other = any(row.validation or row.test for row in record.rounds)
    told = f"was trained for {done} with {clients} in {time}"
    return told if other else f"{told}, but never evaluated"


def _reached(record: RunRecord) -> str:
    """Return the best value with its metric and data, such as "accuracy 0.953 on held-out data"."""
    best = record.best
    if best is None or best.value is None:
        return ""
    return f"{clean(best.metric)} {number(best.value)} {WHERE[judged_on(record)]}"


def judged_on(record: RunRecord) -> Part:
    """Return the part on which the best value was measured."""
    best = record.best
    for part in reversed(PARTS):
        for row in record.rounds if best else ():
            summary = row.part(part).get(best.metric) if best else None
            if best and row.round == best.round and summary and summary.mean == best.value:
                return part
    return "validation"


def _rounds_done(record: RunRecord) -> str:
    done, planned = record.rounds[-1].round, rounds_planned(record)
    if planned and done < planned:
        return f"{done:,} of {count(planned, 'round')}"
    return count(done, "round")


def _beaten(record: RunRecord) -> str:
    baseline = record.baseline
    if baseline is None or baseline.value is None:
        return ""
    return f"; the {clean(baseline.name)} reached {number(baseline.value)}"


def status(record: RunRecord) -> Status:
    """Return the state with its cause, and the commands that come next."""
    run = quoted(record.run)
    show = Step(f"hansa show {run}", "prints every round, and where each traceback lies")
    cause = sentence(record.reason)
    if record.state == "finished":
        return Status("Finished", "good", cause, [])
    if record.state == "running":
        said = cause or "This page shows the run as it was when the page was written."
        return Status("Running", "busy", said, [Step(f"hansa show {run}", "shows it as it is now")])
    done = record.rounds[-1].round if record.rounds else 0
    resume = f"continues with round {done + 1}; nothing that was finished is lost"
    if record.state == "stopped" and record.final:
        return Status("Stopped", "warn", cause, [show, Step("hansa run", "starts anew")])
    if record.state == "stopped":
        return Status("Stopped", "warn", cause, [Step("hansa run", resume), show])
    cause = cause or "The run did not say why."
    return Status("Failed", "bad", cause, [show, Step("hansa run", "after the fix, starts anew")])


def quoted(run: str) -> str:
    """Return the name of a run as a shell understands it."""
    return shlex.quote(clean(run, 120))


def figures(record: RunRecord) -> list[Figure]:
    """Return the numbers that a reader looks for first."""
    return [*_quality(record), *_effort(record)]


def _quality(record: RunRecord) -> Iterator[Figure]:
    best, baseline = record.best, record.baseline
    if best is None:
        return
    name = clean(best.metric, 24)
    where = f"round {best.round}, {WHERE[judged_on(record)]}"
    yield Figure(f"Best {name}", number(best.value), where)
    if baseline and baseline.value is not None and best.value is not None:
        gain = best.value - baseline.value
        better = (gain < 0) == lower_is_better(record, best.metric)
        word = "the same as" if gain == 0 else "better than" if better else "worse than"
        # As many decimals as the two values are shown with.
        size = f"{abs(gain):.3f}" if abs(best.value) <= 1 else number(abs(gain))
        size = ("+" if gain > 0 else "\u2212" if gain < 0 else "") + size
        yield Figure("Gain", size, f"{word} the {clean(baseline.name, 30)}")
    spread = values_of(record, best.metric, "validation")
    if spread and spread[-1][1].min is not None:
        low, high = number(spread[-1][1].min), number(spread[-1][1].max)
        yield Figure("Over the clients", f"{low}\u2013{high}", f"{name} on their validation data")


def _effort(record: RunRecord) -> Iterator[Figure]:
    rows = record.rounds
    if not rows:
        return
    done, planned = rows[-1].round, rounds_planned(record)
    each = duration(sum(row.seconds for row in rows) / len(rows))
    progress = f"{done:,} of {planned:,}" if planned else f"{done:,}"
    yield Figure("Rounds", progress, f"{duration(record.seconds)} in all, {each} each")
    asked = sum(row.clients.asked for row in rows)
    accepted = sum(row.clients.accepted for row in rows)
    counted = f"{accepted:,} of {count(asked, 'update')} counted"
    yield Figure("Clients", f"{client_count(record):,}", counted)
    down, up = sum(row.bytes.down for row in rows), sum(row.bytes.up for row in rows)
    yield Figure("Sent", byte_size(down + up), f"{byte_size(down)} down, {byte_size(up)} up")


def problem_groups(problems: list[Problem]) -> list[ProblemGroup]:
    """Return problems of one kind, code and message as one group, the most frequent first."""
    groups: dict[tuple[str, str, str], list[Problem]] = {}
    for problem in problems:
        key = (problem.kind, problem.code, clean(problem.message, TEXT_CHARS))
        groups.setdefault(key, []).append(problem)
    return [
        ProblemGroup(
            kind=kind,
            code=clean(code),
            message=message,
            times=len(found),
            rounds=spans([problem.round for problem in found]),
            clients=listing(list(dict.fromkeys(clean(p.client, 30) for p in found))),
            file=clean(next((p.file for p in found if p.file), ""), 120),
        )
        for (kind, code, message), found in sorted(groups.items(), key=lambda g: -len(g[1]))
    ]


def settings(record: RunRecord) -> tuple[list[Setting], list[Setting]]:
    """Return the settings that someone chose, and those left at their default."""
    chosen: list[Setting] = []
    default: list[Setting] = []
    for key, value in flatten(record.plan).items():
        source = record.sources.get(key, "default")
        row = Setting(clean(key, 80), setting(value), clean(source, 40))
        (default if source == "default" else chosen).append(row)
    return chosen, default
