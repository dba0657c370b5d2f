"""How it goes: the server, the sites, the runs; answered in FLARE's shape, and with the reasons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hansa
from hansa.clock import seconds_of, wall
from hansa.console import answers
from hansa.console.parsing import Command
from hansa.console.progress import Progress
from hansa.console.seat import Seat, heard
from hansa.errors import ConsoleError
from hansa.protocol.messages import ENDED, RunFacts
from hansa.remote import asking
from hansa.table import Table
from hansa.text import TEXT_CHARS, clean


def check_status(seat: Seat, command: Command) -> Iterator[str]:
    """Tell how the server, or its clients, are."""
    run = seat.current_run()
    facts = seat.facts(run) if run else None
    progress = seat.progress(run) if run else None
    if command.words[0] == "client":
        yield from _clients(seat, command.words[1:], facts, progress)
        return
    if command.words[1:]:
        raise ConsoleError(
            "console-verb",
            f"check_status server does not take {clean(command.words[1])!r}. Nothing was done.",
            "Type: check_status server, or check_status client SITE",
        )
    number = seat.workspace.number
    yield f"FL_app name: {seat.workspace.app(number) or '?'}" if number else "FL_app name: ?"
    yield f"Engine status: {answers.engine(facts)}"
    yield f"Current run number: {number}" if number else "Run number has not been set."
    if facts is not None and progress is not None:
        yield from answers.run_lines(facts, progress)
    yield from _others(seat, run)
    sites = seat.sites()
    if sites is None:
        yield "Registered clients: told to viewers and admins; those of this run:"
        yield from _clients(seat, (), facts, progress)
        return
    yield f"Registered clients: {len(sites)}"
    if sites:
        heads = ["CLIENT", "LAST CONNECT TIME", "STATUS"]
        yield answers.table(heads, _rows(sites, facts, progress))


def list_clients(seat: Seat, command: Command) -> Iterator[str]:
    """List the sites."""
    sites = _known_sites(seat)
    rows = [[s["name"], s["state"], heard(sites).get(s["name"], "never"), s["org"], s["joined_at"]]
            for s in sites]  # fmt: skip
    heads = ["CLIENT", "STATE", "LAST CONNECT TIME", "ORG", "JOINED"]
    yield answers.table(heads, rows) if rows else "No client has joined yet."


def show_users(seat: Seat, command: Command) -> Iterator[str]:
    """List the people."""
    people = [m for m in _members(seat) if m["kind"] != "site" and m["state"] != "revoked"]
    yield answers.table(
        ["USER", "ROLE", "JOINED"], [[p["name"], p["role"], p["joined_at"]] for p in people]
    )


def report_version(seat: Seat, command: Command) -> Iterator[str]:
    """Tell the releases that are at work."""
    rows = [["console", hansa.__version__]]
    rows += [[s["name"], s["version"] or "not heard of"] for s in _known_sites(seat)]
    yield answers.table(["WHO", "HANSA"], rows)


def report_resources(seat: Seat, command: Command) -> Iterator[str]:
    """List what sites lend to runs."""
    sites = _named(_known_sites(seat), command.words)
    rows = []
    for site in sites:
        lent = ", ".join(f"{count} {what}" for what, count in sorted(site["resources"].items()))
        rows.append([site["name"], site["state"], lent or "nothing by name"])
    yield answers.table(["CLIENT", "STATE", "LENDS"], rows) if rows else "No client has joined yet."
    for facts in asking.all_facts(seat.connection):
        if facts.state == "waiting":
            yield f"{clean(facts.run)} waits: {clean(facts.reason, TEXT_CHARS)}"


def list_jobs(seat: Seat, command: Command) -> Iterator[str]:
    """List runs, with the reason of each that waits."""
    found = asking.all_facts(seat.connection)
    seat.known_runs = [facts.run for facts in found]
    prefix = command.words[0] if command.words else ""
    name = command.options.get("-n", "")
    shown = [f for f in found if f.run.startswith(prefix) and f.name.startswith(name)]
    if not shown:
        yield "No jobs." if not found else f"None of {len(found)} jobs fits."
        return
    heads = ["JOB ID", "NAME", "STATUS", "ROUND", "SUBMIT TIME", "RUN DURATION", "WHY"]
    yield answers.table(heads, [_job(f) for f in shown])
    if "-d" in command.options:
        for facts in shown:
            for site in facts.sites:
                there = "connected" if site.online else "not heard of"
                why = f": {clean(site.reason, TEXT_CHARS)}" if site.reason else ""
                yield f"{clean(facts.run)}  {clean(site.site)}  {site.state}, {there}{why}"


def get_job_meta(seat: Seat, command: Command) -> Iterator[str]:
    """Show one run."""
    found = asking.details(seat.connection, command.words[0])
    facts, sent = found.facts, found.submission
    yield from answers.run_lines(facts, seat.progress(facts.run))
    algorithm = sent.plan.get("algorithm", "")
    name = algorithm if isinstance(algorithm, str) else algorithm.get("name", "")
    yield f"Algorithm: {clean(name)}"
    yield f"Submitted: {clean(facts.created)}" + (f", ended: {facts.ended}" if facts.ended else "")
    if sent.purpose:
        yield f"Purpose: {clean(sent.purpose, TEXT_CHARS)}"
    yield f"Plan and code: {sent.identity}"
    rows = [[s.site, s.state, "yes" if s.online else "no", s.reason] for s in facts.sites]
    yield (
        answers.table(["CLIENT", "PART", "CONNECTED", "WHY"], rows)
        if rows
        else ("No client has answered to it yet.")
    )


def show_stats(seat: Seat, command: Command) -> Iterator[str]:
    """Show the last rounds' metrics."""
    from hansa.watch import round_cells  # with NumPy, which no other verb here needs

    run = seat.started_run()
    progress = seat.progress(run)
    plan = asking.details(seat.connection, run).submission.plan
    rows = progress.rows
    measured = rows[-1].get("validation", {}) if rows else {}
    wanted = str((plan.get("stop") or {}).get("metric") or "")
    metric = wanted if wanted in measured else next(iter(measured), wanted)
    yield (
        str(Table(round_cells(row, metric) for row in rows))
        if rows
        else ("No round is committed yet.")
    )


def show_errors(seat: Seat, command: Command) -> Iterator[str]:
    """Show what went wrong."""
    progress = seat.progress(seat.started_run())
    for event in progress.problems:
        what = f"{clean(event['client'])} {clean(event['what'])}"
        told = clean(event["message"], TEXT_CHARS)
        yield f"round {event['round']}: {what}: {told} [{clean(event['code'])}]"
    if progress.ended and progress.ended["state"] != "finished":
        yield f"{progress.ended['state']}: {clean(progress.ended.get('reason'), TEXT_CHARS)}"
    elif not progress.problems:
        yield "No errors."


def _clients(
    seat: Seat, names: tuple[str, ...], facts: RunFacts | None, progress: Progress | None
) -> Iterator[str]:
    """Yield the table of what sites do."""
    sites = seat.sites()
    if sites is None:  # a submitter sees those of its run
        there = {s.site: s for s in facts.sites} if facts else {}
        sites = [{"name": n, "state": "active" if s.online else "silent"} for n, s in there.items()]
    chosen = _named(sites, names)
    if not chosen:
        yield "No client is known."
        return
    app = seat.workspace.app(seat.workspace.number) or "?"
    number = seat.workspace.number or "?"
    rows = _rows(chosen, facts, progress)
    yield answers.table(
        ["CLIENT", "APP_NAME", "RUN_NUMBER", "LAST CONNECT TIME", "STATUS"],
        [[name, app, number, at, part] for name, at, part in rows],
    )


def _named(sites: list[dict[str, Any]], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the sites that are named, all if none is.

    Raises:
      ConsoleError: console-order, there is none of that name.
    """
    known = {site["name"] for site in sites}
    if missing := [name for name in names if name not in known]:
        raise ConsoleError(
            "console-order",
            f"There is no client {clean(missing[0])!r}. Nothing was done.",
            "There are: " + (", ".join(sorted(known)) or "none yet"),
        )
    return [site for site in sites if not names or site["name"] in names]


def _rows(
    sites: list[dict[str, Any]], facts: RunFacts | None, progress: Progress | None
) -> list[list[str]]:
    standings = {s.site: (s.state, s.reason) for s in facts.sites} if facts else {}
    names = [site["name"] for site in sites]
    by_name = {site["name"]: site for site in sites}
    return answers.client_rows(names, by_name, progress, standings, heard(sites))


def _others(seat: Seat, own: str | None) -> Iterator[str]:
    """Yield the runs that go on beside the one that is looked at."""
    found = asking.all_facts(seat.connection)
    seat.known_runs = [facts.run for facts in found]
    for facts in found:
        if facts.state not in ENDED and facts.run != own:
            done = f"round {facts.rounds_done} of {facts.rounds}"
            yield f"Also: {clean(facts.run)} of {clean(facts.submitter)}, {facts.state}, {done}"


def _job(facts: RunFacts) -> list[str]:
    ended = seconds_of(facts.ended) if facts.ended else wall()
    took = max(0.0, ended - seconds_of(facts.created)) if facts.created else 0.0
    hours, rest = divmod(round(took), 3600)
    return [
        facts.run,
        facts.name,
        facts.state.upper(),
        f"{facts.rounds_done}/{facts.rounds}",
        facts.created,
        f"{hours}:{rest // 60:02}:{rest % 60:02}",
        facts.reason,
    ]


def _members(seat: Seat) -> list[dict[str, Any]]:
    members = seat.members()
    if members is None:
        raise ConsoleError(
            "console-refused",
            f"{seat.membership.name} is a {seat.membership.role}; members are told to viewers and "
            "admins. Nothing was done.",
            "Look at the sites of your own run: check_status client; or ask an admin.",
        )
    return members


def _known_sites(seat: Seat) -> list[dict[str, Any]]:
    found = [m for m in _members(seat) if m["kind"] == "site" and m["state"] != "revoked"]
    seat.known_sites = [site["name"] for site in found]
    return found
