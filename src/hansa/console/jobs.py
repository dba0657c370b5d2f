"""Runs that were started: ended, waited for, told and brought here."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from hansa.clock import monotonic
from hansa.console.answers import table
from hansa.console.parsing import Command
from hansa.console.progress import Progress
from hansa.console.seat import Seat
from hansa.errors import CODES, ConsoleError, RunError
from hansa.limits import CONSOLE_EVENT_PAGES, FOLLOW_WAIT_S
from hansa.protocol.messages import ENDED, RunFacts
from hansa.remote import asking
from hansa.remote.fetch import fetch_models
from hansa.remote.words import sentence
from hansa.runs.record import write_report
from hansa.text import ERROR_CHARS, clean


def abort(seat: Seat, command: Command) -> Iterator[str]:
    """End the run of the current run number."""
    target, *names = command.words
    if names:
        raise ConsoleError(
            "console-refused",
            f"A run is not ended for {clean(names[0])} alone. Nothing was done.",
            "abort all ends it everywhere; a round goes on without a site that is away "
            "(cohort.minimum); its owner can end its agent: hansa site stop",
        )
    facts = asking.stop(seat.connection, seat.started_run())
    if target != "server":
        yield "Trying to abort all clients before abort server ..."
        rows = [[s.site, "Abort signal has been sent to the client App." if s.online
                 else "No Reply; told when it is back"] for s in facts.sites]  # fmt: skip
        if rows:
            yield table(["CLIENT", "RESPONSE"], rows)
    yield "Abort signal has been sent to the server app."
    if target != "all":
        yield "The run has ended for server and clients: neither goes on without the other."
    yield _how(facts)


def abort_job(seat: Seat, command: Command) -> Iterator[str]:
    """End a run by its name."""
    yield _how(asking.stop(seat.connection, command.words[0]))


def get_job_log(seat: Seat, command: Command) -> Iterator[str]:
    """Tell what happened."""
    after = 0
    for _ in range(CONSOLE_EVENT_PAGES):
        page = asking.events(seat.connection, command.words[0], after=after)
        for event in page.events:
            if event["kind"] != "timed":  # spans, for programs
                yield f"{clean(event.get('at', ''))}  {sentence(event)}"
        after = page.next
        if not page.events:
            return


def monitor_job(seat: Seat, command: Command) -> Iterator[str]:
    """Wait until a run has ended, telling its rounds.

    Raises:
      RunError: it failed or was stopped, so that a script does not go on.
    """
    run = command.words[0] if command.words else seat.started_run()
    told = Told()
    began = monotonic()
    progress = seat.progress(run)
    while True:
        facts = seat.facts(run)
        yield from told.lines(facts, progress, monotonic() - began)
        if facts.state in ENDED:
            break
        asked = monotonic()
        before = progress.read
        progress = seat.progress(run, wait_s=FOLLOW_WAIT_S)
        if progress.read == before and monotonic() - asked < 1.0:
            threading.Event().wait(1.0)  # a server that is about to stop does not let anybody wait
    code = str((progress.ended or {}).get("code") or "")
    if facts.state != "finished":
        known = code if code in CODES else "run-stopped"
        reason = clean(facts.reason, ERROR_CHARS).removesuffix(f"[{code}]").rstrip()
        raise RunError(
            known, f"Job {run} status: {facts.state.upper()}: {reason}", f"See: get_job_log {run}"
        )


class Told:
    """What `monitor_job` has said already."""

    def __init__(self) -> None:
        self._last: tuple[object, ...] = ()

    def lines(self, facts: RunFacts, progress: Progress, elapsed_s: float) -> Iterator[str]:
        """Yield a line if there is something new."""
        silent = ", ".join(clean(site) for site in progress.silent()[:8])
        state = (facts.state, progress.committed, facts.reason)
        if state == self._last:
            return
        self._last = state
        why = ""
        if facts.state == "waiting":
            why = f" waiting: {clean(facts.reason, ERROR_CHARS) or 'for sites'}"
        elif silent and facts.state not in ENDED:
            why = f" at work: {silent}"
        yield (
            f"status: {facts.state.upper()} elapsed_s: {elapsed_s:.1f} "
            f"round: {min(progress.committed, facts.rounds)}/{facts.rounds}{why}"
        )


def download_job(seat: Seat, command: Command) -> Iterator[str]:
    """Bring events, models and the report of a run of this workspace here."""
    _, folder = seat.own_run(command.words[0])
    seat.bring_events(folder)
    with folder.locked():
        folder.reload()
        folder.rewrite_metrics()
        fetch_models(folder, seat.connection)
    write_report(folder)
    models = len(list(folder.path.glob("models/*.safetensors")))
    yield f"Downloaded to {folder.path}: {len(folder.rows())} rounds, {models} models, report.html"
    if folder.state == "running":
        yield "The run goes on; download it again when it has ended."
    else:
        yield f"Model: hansa export {folder.name} --runs {folder.path.parent} --to npz"


def _how(facts: RunFacts) -> str:
    return f"{clean(facts.run)}: {facts.state} after round {facts.rounds_done} of {facts.rounds}."
