"""Facts as the console tells them: the shape of FLARE's answers, with what those leave out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hansa.console.parsing import usage
from hansa.console.progress import Progress
from hansa.console.verbs import SCOPES, VERBS, in_scope
from hansa.errors import HansaError
from hansa.protocol.messages import ENDED, RunFacts
from hansa.table import CELL_CHARS
from hansa.text import ERROR_CHARS, TEXT_CHARS, clean

GREETING = 'Type ? to list commands; type "? cmdName" to show usage of a command.'


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table with a frame.

    >>> print(table(["CLIENT", "RESPONSE"], [["site-1", "OK"]]))
    ---------------------
    | CLIENT | RESPONSE |
    ---------------------
    | site-1 | OK       |
    ---------------------
    """
    lines = [list(heads), *([clean(cell, CELL_CHARS) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    shown = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    rule = "-" * len(shown[0])
    return "\n".join([rule, shown[0], rule, *shown[1:], *([rule] if rows else [])])


def done(seconds: float, at: str) -> str:
    """Return the line that closes an answer of the server.

    Args:
      seconds: that it took.
      at: when, in ISO 8601.
    """
    return f"Done [{round(seconds * 1e6)} usecs] {at}"


_OWN_HINTS = {"run-not-found": "List them with: list_jobs"}
"""What a server advises as a command of the shell, by code."""


def error(problem: HansaError) -> str:
    """Return an error as the console tells it."""
    hint = _OWN_HINTS.get(problem.code, problem.hint)
    return (
        f"Error: {clean(problem.happened, ERROR_CHARS)}\n"
        f"{clean(hint, ERROR_CHARS)}  [{problem.code}]"
    )


def help_lines() -> Iterator[str]:
    """Yield the list of verbs."""
    for scope, told in SCOPES.items():
        yield f"{told}:"
        for name, verb in in_scope(scope):
            if verb.done:
                yield f"  {usage(name):<38} {verb.told}"
    others = ", ".join(name for name, verb in VERBS.items() if not verb.done)
    yield "Known and not done here; `? VERB` says what to do instead:"
    yield f"  {others}"


def help_on(name: str) -> str:
    """Return what there is to know of a verb."""
    verb = VERBS[name]
    if verb.done:
        return f"{usage(name)}\n  {verb.told}"
    return f"{usage(name)}\n  Not done in Hansa. {verb.instead}"


def client_rows(
    names: Sequence[str],
    members: Mapping[str, Mapping[str, Any]],
    progress: Progress | None,
    standings: Mapping[str, tuple[str, str]],
    heard: Mapping[str, str],
) -> list[list[str]]:
    """Return what each site does: its part in the round, or why it has none.

    Args:
      names: of the sites.
      members: facts of members by name; may lack some.
      progress: of the run that is looked at.
      standings: state and reason that sites gave to the run.
      heard: when each was last heard of.
    """
    rows = []
    for name in names:
        state = members.get(name, {}).get("state", "")
        rows.append(
            [name, heard.get(name, "never"), _part(name, state, progress, standings, heard)]
        )
    return rows


def _part(
    name: str,
    state: str,
    progress: Progress | None,
    standings: Mapping[str, tuple[str, str]],
    heard: Mapping[str, str],
) -> str:
    if state == "silent":
        return f"No Reply since {heard[name]}" if name in heard else "No Reply; never connected"
    if progress is None or progress.ended is not None:
        return "ready"
    said, reason = standings.get(name, ("", ""))
    if said in ("waiting", "refused") or not said:
        told = {"waiting": "its owner has not decided", "refused": "does not take part"}
        why = f": {reason}" if reason else ""
        return told.get(said, "has not answered to the run yet") + why
    part = progress.parts.get(name)
    if part is None:
        return f"not asked in round {progress.round}" if progress.round else "takes part"
    what, since = part
    return f"round {progress.round}: {what} since {since}" if since else f"{what}"


def run_lines(facts: RunFacts, progress: Progress) -> Iterator[str]:
    """Yield where a run stands: its round, who has not answered, why it waits."""
    of = f"round {facts.rounds_done} of {facts.rounds} is committed"
    yield f"Run: {clean(facts.run)} of {clean(facts.submitter)}, {facts.state}; {of}"
    if facts.state == "waiting" and facts.reason:
        yield f"Waiting: {clean(facts.reason, TEXT_CHARS)}"
    if facts.state in ENDED and facts.reason:
        yield f"Ended: {clean(facts.reason, TEXT_CHARS)}"
    if progress.phase and not progress.ended:
        silent = progress.silent()
        total = len(progress.parts)
        verb = "train" if progress.phase == "train" else "evaluate"
        who = ", ".join(clean(s) for s in silent[:8]) + (" ..." if len(silent) > 8 else "")
        told = f"; not yet: {who}" if silent else ""
        yield (
            f"Round {progress.round}: {total} asked to {verb} since {progress.since}, "
            f"{total - len(silent)} answered{told}"
        )


def engine(facts: RunFacts | None) -> str:
    """Return FLARE's word for what the server does with a run."""
    if facts is None:
        return "stopped"
    return {"waiting": "starting", "running": "started"}.get(facts.state, "stopped")
