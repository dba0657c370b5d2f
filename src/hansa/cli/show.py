"""`hansa show`: one run, round by round."""

from __future__ import annotations

from pathlib import Path

import click

from hansa.cli.options import json_option, print_json, runs_option


@click.command()
@click.argument("run", required=False)
@click.option("--open", "open_page", is_flag=True, help="Open the report page.")
@runs_option
@json_option
def command(run: str | None, open_page: bool, runs: Path, as_json: bool) -> None:
    """Show a run and write its report page anew; by default the newest run.

    \b
    Examples:
      hansa show
      hansa show digits-1 --open
    """
    from hansa.runs import find_run
    from hansa.runs.record import relative, run_record, write_report
    from hansa.runs.result import Table
    from hansa.text import ERROR_CHARS, TEXT_CHARS, clean
    from hansa.watch import round_cells

    folder = find_run(runs, run)
    record = run_record(folder)
    page = write_report(folder)
    if as_json:
        print_json(record)
        return
    metric = record["plan"]["stop"]["metric"]
    reason = clean(record["reason"], ERROR_CHARS)
    click.echo(f"{clean(record['run'])}: {clean(record['state'])}, {reason}")
    click.echo(str(Table(round_cells(row, metric) for row in record["rounds"])))
    for problem in record["problems"]:
        click.echo(
            f"round {problem['round']}: {clean(problem['client'])} {clean(problem['kind'])}: "
            f"{clean(problem['message'], TEXT_CHARS)} [{clean(problem['code'])}]"
        )
    click.echo(f"plan    {record['plan_digest']}\nmodel   {record['model_digest']}")
    click.echo(f"report  {relative(page)}")
    if open_page:
        click.launch(str(page))
