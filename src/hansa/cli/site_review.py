"""`hansa site review`: everything an owner needs in order to decide about a plan."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from hansa.cli.options import at_folder, json_option, print_json
from hansa.cli.site import folder_option


@click.command()
@click.argument("request", metavar="ID")
@folder_option
@json_option
def command(request: str, folder: Path, as_json: bool) -> None:
    """Show the plan with this ID: code, imports, data asked for, and what would leave.

    Its code is shown beside what you approved last of this plan's name.  Nothing is run for it.

    \b
    Example:
      hansa site review 7f3a
    """
    from hansa.clock import wall
    from hansa.site.decision import decision_on, decision_told
    from hansa.site.review import plain, review
    from hansa.site.settings import load_settings

    settings = load_settings(folder)
    seen = review(folder, request)
    decision = decision_on(folder, seen.request, settings, at=wall())
    told = decision_told(seen.request, decision)
    if as_json:
        state = decision.state if seen.request.wanted else "over"
        print_json({**plain(seen), "state": state, "reason": told})
        return
    text = "\n".join([*_head(seen, told), *_code(seen), *_end(seen)])
    at = at_folder(folder)
    rounds = seen.request.offer.plan.get("rounds")
    text += f"\nAllow it:  hansa site approve {seen.request.short} --until DATE"
    text += f" --max-rounds {rounds}{at}"
    text += (
        f"\n           (a run takes {rounds}; with fewer it may wait for you when they are used up)"
    )
    text += f"\nRefuse it: hansa site deny {seen.request.short}{at}"
    if len(text.splitlines()) > 60 and sys.stdout.isatty():
        click.echo_via_pager(text)
    else:
        click.echo(text)


def _head(seen: Any, reason: str) -> Iterator[str]:
    from hansa.text import TEXT_CHARS, clean

    offer = seen.request.offer
    plan = offer.plan
    yield _title(f"Request {seen.request.short}")
    yield f"Identity    {seen.request.identity}"
    yield f"Plan        {clean(plan.get('name', ''))}, {plan.get('rounds')} rounds"
    yield f"Submitter   {offer.submitter}"
    yield f"Purpose     {clean(offer.purpose, TEXT_CHARS) or 'not told'}"
    yield f"Data        {seen.data}"
    yield f"Now         {clean(reason, TEXT_CHARS)}"


def _code(seen: Any) -> Iterator[str]:
    from hansa.text import clean

    yield ""
    if seen.previous is None:
        yield _title("Code: you have approved nothing of this plan's name, so all of it is new")
    else:
        before = seen.previous.removeprefix("blake3:")[:12]
        yield _title(f"Code, beside {before}, which you approved last")
    if not seen.files:
        yield "No code of its own: Hansa's alone, as the plan says."
    colours = {"-": "red", "+": "green", "@": "cyan"}
    for file in seen.files:
        yield click.style(f"{clean(file.name)}  ({file.change}, {file.size:,} bytes)", bold=True)
        yield from (
            click.style(line, fg=colours[line[0]]) if line[:1] in colours else line
            for line in file.diff
        )
    if seen.plan:
        yield _title("Plan: what differs")
        yield from (f"{c.key}: {c.before} -> {c.now}" for c in seen.plan)


def _end(seen: Any) -> Iterator[str]:
    from hansa.web.words import byte_size

    yield ""
    yield _title("Imports")
    words = {"project": "its own", "python": "Python's", "other": "installed packages"}
    for kind, told in words.items():
        yield f"{told:<20}{', '.join(seen.imports[kind]) or 'none'}"
    yield ""
    yield _title("What would leave, each round")
    for part in seen.leaving:
        size = "" if part.size is None else f", {byte_size(part.size)}"
        yield f"{part.what}: {part.shape}{size}"
    yield "Not your data itself; but what is learnt from few people can tell about them."
    if seen.warnings:
        yield ""
        yield _title("Look at these with care")
        yield from seen.warnings
    yield ""


def _title(text: str) -> str:
    return click.style(text, bold=True)
