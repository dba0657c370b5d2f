"""One page per run, and one page to compare runs: self-contained HTML without script or network.

>>> page = render_report({"run": "digits-3", "state": "running"})
>>> "digits-3 has started; no round is finished yet." in page, "<script" in page
(True, False)
"""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup, escape

from hansa.web import comparison, diagnosis, drawings, summary
from hansa.web.charts.scales import spaced
from hansa.web.record import PARTS, RunRecord, metrics_of, parts_of, read_record, values_of
from hansa.web.style import chart_css, palette_css
from hansa.web.words import byte_size, clean, number

__all__ = ["RunRecord", "render_compare", "render_report"]

ROUNDS_MAX = 120
"""Rounds listed in the table."""

CLIENTS_MAX = 150
"""Clients listed in the table."""

SITES_MAX = 20
"""Columns of the tables of every model at every client."""

PROBLEMS_MAX = 40
"""Kinds of problems listed."""


class Table(NamedTuple):
    """Texts in rows and columns."""

    columns: list[str]
    rows: list[list[str]]
    note: str = ""


def render_report(record: RunRecord | Mapping[str, Any]) -> str:
    """Return the page of one run as HTML.

    Args:
      record: a `RunRecord`, or the same as plain JSON data.

    Raises:
      RunError: `run-record-invalid`.

    """
    run = read_record(record)
    groups = summary.problem_groups(run.problems)
    chosen, default = summary.settings(run)
    return _page(
        "report.html",
        title=f"{clean(run.run)} · Hansa",
        run=clean(run.run),
        command_name=summary.quoted(run.run),
        started=_date(run.started),
        headline=summary.headline(run),
        status=summary.status(run),
        notices=diagnosis.notices(run),
        figures=summary.figures(run),
        curves=drawings.curves(run),
        spread=drawings.spread_words(run),
        fairness=drawings.fairness(run),
        clients=_client_table(run),
        cross_site=_cross_site_tables(run),
        partition=drawings.partition(run.partition),
        timeline=drawings.timeline(run),
        rounds=_round_table(run),
        problems=groups[:PROBLEMS_MAX],
        problems_left=len(groups) - PROBLEMS_MAX,
        all_counted=bool(run.rounds)
        and all(row.clients.accepted == row.clients.asked for row in run.rounds),
        problems_count=len(run.problems),
        chosen=chosen,
        default=default,
        plan_digest=clean(run.plan_digest, 120),
        engine=clean(run.engine, 120),
        final=run.final,
        environment={clean(k): clean(v, 120) for k, v in run.environment.items()},
        model_digest=clean(run.model_digest, 120),
    )


def render_compare(records: Sequence[RunRecord | Mapping[str, Any]]) -> str:
    """Return the page that compares runs as HTML.

    Raises:
      RunError: `run-record-invalid`.

    """
    found = comparison.compare([read_record(record) for record in records])
    return _page("compare.html", title="Compare · Hansa", **found._asdict())


def _page(template: str, **values: object) -> str:
    return _environment().get_template(template).render(values)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates", encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # Our own text, not a user's; charts escape what they print.
    environment.filters["svg"] = Markup
    environment.filters["unbroken"] = _unbroken
    environment.globals["palette"] = Markup(palette_css())
    environment.globals["chart_rules"] = Markup(chart_css())
    return environment


def _unbroken(text: str) -> Markup:
    """Keep lines from ending between a number and its unit, or within "held-out"."""
    whole = r'<span class="whole">\g<0></span>'
    return Markup(re.sub(r"held-out|\d (?:ms|s|min|h)\b", whole, str(escape(text))))


def _date(iso: str) -> str:
    """Return a date as people write it; what is no ISO date stays as it is."""
    try:
        at = datetime.datetime.fromisoformat(iso)
    except ValueError:
        return clean(iso, 40)
    zone = f" {at:%Z}" if at.tzinfo else ""
    return f"{at.day} {at:%b %Y, %H:%M}{zone}"


def _round_table(run: RunRecord) -> Table:
    measured = [
        (metric, part)
        for metric in metrics_of(run)[:3]
        for part in PARTS
        if part in parts_of(run, metric)
    ]
    means = [{at: s.mean for at, s in values_of(run, *pair)} for pair in measured]
    names = [f"{drawings.LINES[part][0]} {clean(metric, 24)}" for metric, part in measured]
    columns = ["round", *names, "seconds", "counted", "failed", "refused", "down", "up", "digest"]
    shown = spaced(len(run.rounds), ROUNDS_MAX)
    rows = []
    for row in (run.rounds[i] for i in shown):
        values = [number(mean[row.round]) if row.round in mean else "" for mean in means]
        who = row.clients
        attendance = [f"{who.accepted} of {who.asked}", str(who.failed), str(who.refused)]
        traffic = [byte_size(row.bytes.down), byte_size(row.bytes.up)]
        digest = clean(row.digest.rpartition(":")[2][:12])
        rows.append([str(row.round), *values, f"{row.seconds:.2f}", *attendance, *traffic, digest])
    left = len(run.rounds) - len(shown)
    return Table(columns, rows, f"{left:,} rounds between these are left out." if left else "")


def _cross_site_tables(run: RunRecord) -> dict[str, Table]:
    """Return every model at every client, a table for each metric."""
    found = run.cross_site
    if found is None:
        return {}
    clients = [clean(name, 24) for name in found.clients[:SITES_MAX]]
    left = len(found.clients) - len(clients)
    note = f"{left:,} more clients are left out." if left > 0 else ""
    return {
        clean(metric, 24): Table(
            ["model", *clients],
            [
                [clean(model, 40), *("" if v is None else number(v) for v in row[:SITES_MAX])]
                for model, row in zip(found.models, values, strict=False)
            ],
            note,
        )
        for metric, values in list(found.metrics.items())[:3]
    }


def _client_table(run: RunRecord) -> Table:
    latest = {
        f"validation {clean(metric, 24)}": values[-1][1].by_client
        for metric in metrics_of(run)[:3]
        if (values := values_of(run, metric, "validation"))
    }
    split = run.partition
    sizes = dict(zip(split.clients, map(sum, split.counts), strict=False)) if split else {}
    problems = [problem.client for problem in run.problems]
    names = sorted({*sizes, *problems, *(name for by in latest.values() for name in by)})
    rows = [
        [
            clean(name),
            f"{sizes[name]:,}" if name in sizes else "",
            *(number(by[name]) if name in by else "" for by in latest.values()),
            str(problems.count(name)),
        ]
        for name in names[:CLIENTS_MAX]
    ]
    left = len(names) - len(rows)
    note = f"{left:,} more clients are left out." if left > 0 else ""
    return Table(["client", "examples", *latest, "problems"], rows, note)
