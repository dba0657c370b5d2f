"""`hansa site start`, `status` and `stop`: the agent of a site."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hansa.cli.options import at_folder, json_option, print_json
from hansa.cli.site import folder_option

if TYPE_CHECKING:
    from hansa.site.presence import Agent, End, Trouble
    from hansa.site.settings import SiteSettings


@click.command()
@folder_option
def start(folder: Path) -> None:
    """Start this site's agent and keep it running.

    It connects outward to the server and opens no port.  Ctrl-C ends it; a task at work is then
    done again later.

    \b
    Example:
      hansa site start --folder ward-3
    """
    from hansa.identity import load_membership
    from hansa.site.settings import load_settings

    load_settings(folder)  # a folder that is no site is told as that
    membership = load_membership(folder)
    from hansa.site.agent import run_agent
    from hansa.site.sandbox import sandbox_told

    at = at_folder(folder)

    def started(settings: SiteSettings) -> None:
        none = f"none yet; declare some with: hansa site data add{at}"
        data = _data_told(settings, folder) or none
        click.echo(f"Site {settings.name}, outward to {membership.url}; no port is opened.")
        click.echo(f"Data: {data}")
        click.echo(f"Policy: {_policy(settings, folder)}")
        click.echo(f"Sandbox: {sandbox_told(settings.policy)}")
        click.echo(f"Plans that ask: hansa site requests{at} · What left: hansa site ledger{at}")
        click.echo(f"Its log: {folder / 'agent.log'}")
        key = folder / "key.pem"
        if os.name == "posix" and key.stat().st_mode & 0o077:
            click.echo(f"Others may read this site's key: chmod 600 {key}")
        click.echo(f"End it with Ctrl-C, or from anywhere with: hansa site stop{at}")

    run_agent(folder, started=started)
    click.echo("The agent has ended. Nothing runs here now.")


@click.command()
@folder_option
@json_option
def status(folder: Path, as_json: bool) -> None:
    """Tell whether the agent runs, what waits for you, and what left last.

    \b
    Example:
      hansa site status
    """
    import msgspec

    from hansa.clock import wall
    from hansa.identity import load_membership
    from hansa.site.decision import decision_on
    from hansa.site.ledger import LEDGER_FILE, Ledger
    from hansa.site.presence import find_agent, last_end, trouble_of
    from hansa.site.requests import list_requests
    from hansa.site.sandbox import sandbox_told
    from hansa.site.settings import load_settings

    settings, membership = load_settings(folder), load_membership(folder)
    agent = find_agent(folder)
    ended = None if agent else last_end(folder)
    trouble = trouble_of(folder) if agent else None
    found = [(r, decision_on(folder, r, settings, at=wall())) for r in list_requests(folder)]
    states = [d.state for r, d in found if d.state != "ask" or r.wanted]
    left, last = 0, None
    for entry in Ledger(folder / LEDGER_FILE).entries():
        left += entry.size
        last = entry.at
    facts: dict[str, Any] = {
        "site": settings.name,
        "federation": membership.federation,
        "server": membership.url,
        "agent": msgspec.structs.asdict(agent) if agent else None,
        "ended": msgspec.structs.asdict(ended) if ended else None,
        "trouble": msgspec.structs.asdict(trouble) if trouble else None,
        "data": list(settings.data),
        "policy": _policy(settings, folder),
        "sandbox": sandbox_told(settings.policy),
        "waiting": states.count("ask"),
        "allowed": states.count("run"),
        "refused": states.count("refuse"),
        "bytes_left": left,
        "last_left": last,
    }
    if as_json:
        print_json(facts)
        return
    from hansa.web.words import byte_size

    asks, at = states.count("ask"), at_folder(folder)
    waits = f"{asks} for you: hansa site requests{at}" if asks else "none"
    lines = {
        "Site": f"{settings.name} of {membership.federation or membership.url}",
        "Server": membership.url,
        **_agent_told(folder, agent, ended, trouble),
        "Data": _data_told(settings, folder) or "none declared",
        "Policy": facts["policy"],
        "Sandbox": facts["sandbox"],
        "Waiting": waits,
        "Left": f"{byte_size(left)}, the last at {last}" if last else "nothing yet",
    }
    for head, told in lines.items():
        click.echo(f"{head:<9}{told}")


def _data_told(settings: SiteSettings, folder: Path) -> str:
    """Return the names of declared data, and of which the files are gone."""
    gone = {n: s.path for n, s in settings.data.items() if not (folder / s.path).exists()}
    told = (f"{name} (NOT THERE: {gone[name]})" if name in gone else name for name in settings.data)
    return ", ".join(told)


def _agent_told(
    folder: Path, agent: Agent | None, ended: End | None, trouble: Trouble | None
) -> dict[str, str]:
    """Return the lines about an agent: whether it runs, and what it cannot get over."""
    from hansa.site.presence import was_killed
    from hansa.text import TEXT_CHARS, clean

    if agent is not None:
        told = {"Agent": f"runs since {agent.started} (process {agent.pid})"}
        if trouble is not None:
            told["Trouble"] = f"since {trouble.since}: {clean(trouble.reason, TEXT_CHARS)}"
        return told
    if ended is not None:
        told = {"Agent": f"does not run; it ended at {ended.at}: {clean(ended.reason, TEXT_CHARS)}"}
        gone = "no longer: the server does not know this site as a member; ask its operator"
        return told if ended.member else {**told, "Member": gone}
    killed = "; the last one was killed, or the machine went down" if was_killed(folder) else ""
    return {"Agent": f"does not run{killed}"}


@click.command()
@folder_option
@click.option("--now", "at_once", is_flag=True, help="Kill it at once, and all that it started.")
def stop(folder: Path, at_once: bool) -> None:
    """End this site's agent.

    Without --now it gets some seconds to end by itself.  Nothing is lost either way: what was not
    finished is done again when the agent starts, and what is counted stays counted.

    \b
    Example:
      hansa site stop --now
    """
    from hansa.holding import wait_until_free
    from hansa.limits import SITE_END_S
    from hansa.site.presence import find_agent, stop_agent
    from hansa.site.settings import load_settings

    if not (folder / "lock").exists():  # a kill switch needs no settings that are right
        load_settings(folder)
    agent = find_agent(folder)
    if agent is None:
        click.echo("No agent runs here; nothing of this site is at work.")
        return
    stop_agent(agent, at_once=at_once)
    if wait_until_free(folder, seconds=SITE_END_S):
        how = "was killed" if at_once else "has ended"
        click.echo(f"The agent (process {agent.pid}) {how}. Nothing runs or leaves here now.")
        return
    from hansa.errors import SiteError

    raise SiteError(
        "site-running",
        f"The agent (process {agent.pid}) was told to end, and still runs after {SITE_END_S:.0f} "
        "seconds.",
        "Kill it with: hansa site stop --now",
    )


def _policy(settings: Any, folder: Path) -> str:
    """Return a policy in a few words."""
    policy = settings.policy
    if policy is None:
        return f"none, so nothing runs. Write one with: hansa site policy edit{at_folder(folder)}"
    who = "anyone" if policy.submitters is None else ", ".join(policy.submitters) or "nobody"
    if policy.approve == "submitters":
        return f"plans of {who} run without being asked"
    return f"{who} may ask; you approve each plan"
