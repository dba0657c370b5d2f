"""`hansa show`: one run, round by round."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hansa.cli.options import json_option, on_option, print_json, runs_option

if TYPE_CHECKING:
    from hansa.runs import RunFolder

CLIENTS_SHOWN = 40
"""Clients in the table of times, the slowest first; spans.jsonl has them all."""

ANSWER_LINES = 60
"""Lines of a named task's answers that are printed; metrics.jsonl has them all."""


@click.command()
@click.argument("run", required=False)
@click.option("--open", "open_page", is_flag=True, help="Open the report page.")
@click.option("--validations", is_flag=True, help="List what each client measured of each model.")
@click.option("--timing", is_flag=True, help="Show where the time of each round went.")
@click.option(
    "--otlp",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="With --timing: write these times for OpenTelemetry, as OTLP/JSON lines.",
)
@on_option("Show the run of this name at a federation's server: its sites, and why it waits.")
@runs_option
@json_option
def command(
    run: str | None,
    open_page: bool,
    validations: bool,
    timing: bool,
    otlp: Path | None,
    on: str | None,
    runs: Path,
    as_json: bool,
) -> None:
    """Show a run and write its report page anew; by default the newest run.

    With --on it is the server that is asked, and no page is written.

    \b
    Examples:
      hansa show
      hansa show digits-1 --open
      hansa show digits-1 --timing
      hansa show digits-1 --timing --otlp digits-1.jsonl
      hansa show digits-1 --on hansa.example.org
      hansa show digits-1 --validations
    """
    if otlp is not None and not timing:
        raise click.UsageError("--otlp belongs to --timing.")
    if validations:
        _show_validations(run, on, runs, as_json=as_json)
        return
    if on is not None:
        if timing:
            raise click.UsageError("--timing is of a run folder; follow the run first.")
        _show_remote(run, on, as_json)
        return
    from hansa.runs import find_run
    from hansa.runs.record import run_record
    from hansa.runs.result import cross_site_table
    from hansa.table import Table
    from hansa.text import ERROR_CHARS, TEXT_CHARS, clean
    from hansa.watch import round_cells

    folder = find_run(runs, run)
    if timing:
        if otlp is not None:
            _write_otlp(folder, otlp)
        else:
            _show_timing(folder, as_json)
        return
    record = run_record(folder)
    page = _page_of(folder)
    if as_json:
        print_json(record)
        return
    metric = record["plan"]["stop"]["metric"]
    reason = clean(record["reason"], ERROR_CHARS)
    click.echo(f"{clean(record['run'])}: {clean(record['state'])}, {reason}")
    click.echo(str(Table(round_cells(row, metric) for row in record["rounds"])))
    if matrix := cross_site_table(record):
        click.echo(f"each model at each client\n{matrix}")
    _tell_answers(folder)
    for problem in record["problems"]:
        click.echo(
            f"round {problem['round']}: {clean(problem['client'])} {clean(problem['kind'])}: "
            f"{clean(problem['message'], TEXT_CHARS)} [{clean(problem['code'])}]"
        )
    click.echo(f"plan    {record['plan_digest']}\nmodel   {record['model_digest'] or 'none yet'}")
    if folder.remote is not None and folder.remote["run"] is not None:
        click.echo(f"server  {folder.remote['url']}, where it is {folder.remote['run']}")
    _tell_page(page, open_page=open_page)


def _tell_page(page: Path | None, *, open_page: bool) -> None:
    from hansa.runs.record import relative

    if page is None:
        click.echo("report  not written: you may not write there")
        return
    click.echo(f"report  {relative(page)}")
    if open_page:
        click.launch(str(page))


def _page_of(folder: RunFolder) -> Path | None:
    """Write a run's page and return it; None in a folder that one may only read."""
    from hansa.runs.record import write_report

    try:
        return write_report(folder)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return None


def _tell_answers(folder: RunFolder) -> None:
    """Print what a named task's answers came to in the newest round that has such a report."""
    from hansa.text import ERROR_CHARS, clean

    row = next((row for row in reversed(folder.rows()) if row.get("report")), None)
    if row is None:
        return
    # In ASCII: what sites say commands no terminal.
    lines = [f"{json.dumps(key)}: {json.dumps(told)}" for key, told in row["report"].items()]
    more = [f"... {len(lines) - ANSWER_LINES:,} lines more"] if len(lines) > ANSWER_LINES else []
    click.echo(f"answers of round {row['round']}; all are in {folder.path / 'metrics.jsonl'}")
    click.echo("\n".join([*(clean(line, ERROR_CHARS) for line in lines[:ANSWER_LINES]), *more]))


def _show_validations(run: str | None, on: str | None, runs: Path, *, as_json: bool) -> None:
    from hansa.runs import find_run
    from hansa.runs.result import validation_table

    if on is None:
        folder = find_run(runs, run)
        name, rows = folder.name, [event["row"] for event in folder.commits()]
    else:
        from hansa.remote import asking
        from hansa.remote.connecting import connected, membership_at

        if run is None:
            raise click.UsageError("Name the run; hansa ls --on lists them.")
        with connected(membership_at(on)) as connection:
            events = asking.all_events(connection, run)
        name, rows = run, [event["row"] for event in events if event["kind"] == "committed"]
    table = validation_table(name, rows)
    if as_json:
        print_json(table)
    else:
        click.echo(str(table) if table else f"No client has measured a model of {name}.")


def _show_timing(folder: RunFolder, as_json: bool) -> None:
    from hansa.runs.timing import client_cells, round_cells, timing_record
    from hansa.table import Table
    from hansa.text import clean

    entries = timing_record(folder)
    if as_json:
        print_json(entries)
        return
    click.echo(f"{clean(folder.name)}: seconds of each round, and of each client's training")
    if not entries:
        click.echo("No times were kept of this run.")
        return
    click.echo(str(Table(round_cells(entry) for entry in entries)))
    click.echo(str(Table(client_cells(entries)[:CLIENTS_SHOWN])))
    click.echo(f"spans   {folder.path / 'spans.jsonl'}")


def _write_otlp(folder: RunFolder, path: Path) -> None:
    from hansa.runs.otlp import otlp_lines
    from hansa.store.files import write_durably
    from hansa.text import clean

    lines = list(otlp_lines(folder))
    if not lines:
        click.echo(f"No times were kept of {clean(folder.name)}; nothing was written.")
        return
    write_durably(path, lines)
    rounds = f"{len(lines) - 1:,} round{'s' * (len(lines) != 2)}"
    click.echo(
        f"Wrote the times of {rounds} of {clean(folder.name)} to {path}, as OTLP/JSON lines."
    )


def _show_remote(run: str | None, on: str, as_json: bool) -> None:
    from hansa.remote import asking
    from hansa.remote.connecting import connected, membership_at
    from hansa.table import Table
    from hansa.text import ERROR_CHARS, clean

    if run is None:
        raise click.UsageError("Name the run; hansa ls --on lists them.")
    with connected(membership_at(on)) as connection:
        found = asking.details(connection, run)
    facts = found.facts
    if as_json:
        identity, purpose = found.submission.identity, found.submission.purpose
        record = asking.facts_record(facts)
        print_json({**record, "plan": found.submission.plan, "identity": identity,
                    "purpose": purpose, "hansa": found.hansa})  # fmt: skip
        return
    reason = f", {clean(facts.reason, ERROR_CHARS)}" if facts.reason else ""
    click.echo(f"{clean(facts.run)}: {clean(facts.state)}{reason}")
    click.echo(f"round {facts.rounds_done} of {facts.rounds}, from {clean(facts.submitter)}, "
               f"{clean(facts.created)}")  # fmt: skip
    if found.submission.purpose:
        click.echo(f"purpose {clean(found.submission.purpose, ERROR_CHARS)}")
    click.echo(f"plan    {found.submission.identity}")
    sites = (
        {
            "site": site.site,
            "part": site.state,
            "online": "yes" if site.online else "no",
            "reason": site.reason or None,
        }
        for site in facts.sites
    )
    click.echo(str(Table(sites)) if facts.sites else "No site has been asked yet.")
