"""`hansa dev`: a federation on this machine, for rehearsal."""

from __future__ import annotations

import contextlib
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hansa.cli.options import runs_option

if TYPE_CHECKING:
    from hansa.dev import Rehearsal
    from hansa.runs import RunFolder


@click.command()
@click.argument("project", type=click.Path(path_type=Path), default=Path("."))
@click.option(
    "--sites", type=click.IntRange(1, 100), help="So many sites; by default as in the plan."
)
@click.option("--rounds", type=click.IntRange(1), help="Run at most so many rounds.")
@click.option(
    "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change any key of the plan."
)
@click.option("--combiners", type=click.IntRange(0), default=0, metavar="N",
              help="Put N combiners between the server and the sites.")  # fmt: skip
@click.option("--chaos", is_flag=True, help="Kill and cut things while it runs, then compare.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="New folder for server and sites; it stays.  [default: a temporary one]",
)
@click.option("--keep", is_flag=True, help="Keep the temporary folder too.")
@runs_option
def command(
    project: Path,
    sites: int | None,
    rounds: int | None,
    sets: tuple[str, ...],
    combiners: int,
    chaos: bool,
    folder: Path | None,
    keep: bool,
    runs: Path,
) -> None:
    """Rehearse: run a project on a real server and real sites, all on this machine.

    Every site is a process with the rows of one simulated client; they speak TLS with a server
    that is another process.  With --chaos these are killed and their connections cut while it
    runs; the model must be that of an undisturbed simulation.  Ctrl-C ends everything.

    \b
    Examples:
      hansa dev --sites 2
      hansa dev my-study --rounds 20 --chaos
      hansa dev my-study --sites 4 --combiners 2
    """
    from hansa.clock import monotonic
    from hansa.dev import Rehearsal

    began = monotonic()

    def told(text: str) -> None:
        click.echo(f"{monotonic() - began:5.1f} s  {text}")

    changes = [*sets, *([f"rounds={rounds}"] if rounds is not None else [])]
    if chaos:
        changes += _everybody(project, changes, sites)
    with _interruptible(), _place(folder, keep=keep) as place:
        settings: dict[str, Any] = {"heartbeat_s": 1.0} if chaos else {}
        rehearsal = Rehearsal(
            place / "rehearsal" if folder is None else place,
            project,
            sites=sites,
            sets=changes,
            settings=settings,
            proxied=chaos,
            combiners=combiners,
            told=told,
        )
        with rehearsal:
            run = _run(rehearsal, runs, told, chaos=chaos)
        if chaos:
            _compare(rehearsal, run, told)
        told("server and sites have ended")
        if folder is not None or keep:
            click.echo(f"Server, sites and logs: {rehearsal.folder}")


def _everybody(project: Path, changes: list[str], sites: int | None) -> list[str]:
    """Return the change that lets no round go on without a site that chaos has taken away.

    Raises:
      PlanError: the plan's workflow measures times, so that no simulation gives the same model.
    """
    from hansa.errors import PlanError
    from hansa.project import open_project
    from hansa.simulation import project_population
    from hansa.workflows.sampling import cohort_size

    opened = open_project(project, changes)
    if opened.workflow.timed or opened.workflow.raced:
        raise PlanError(
            "plan-impossible",
            f"--chaos compares the model with that of a simulation; {opened.workflow.name} goes by "
            "the time that sites need, which a simulation draws. Nothing was started.",
            "Rehearse it without --chaos, or with --set workflow=synchronous.",
        )
    there = sites or len(project_population(opened).names)
    cohort = opened.plan.cohort
    return [
        f"cohort.minimum={cohort_size(there, fraction=cohort.fraction, count=cohort.count)}",
    ]


@contextlib.contextmanager
def _place(folder: Path | None, *, keep: bool) -> Iterator[Path]:
    """Give the folder of the rehearsal; a temporary one is removed unless it shall stay."""
    if folder is not None:
        yield folder
        return
    if keep:
        yield Path(tempfile.mkdtemp(prefix="hansa-dev-"))
        return
    from hansa.dev.place import temporary_place

    with temporary_place() as temporary:
        yield temporary


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM and the end of the terminal do what Ctrl-C does; each of them once."""
    names = ("SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}

    def interrupt(*_: object) -> None:
        for number in numbers:  # what is being cleaned up is not interrupted again
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        if before[number] != signal.SIG_IGN:  # as under nohup
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])


def _run(
    rehearsal: Rehearsal, runs: Path, told: Callable[[str], None], *, chaos: bool
) -> RunFolder:
    """Submit the project, follow it to its end, and say what came of it.

    Raises:
      RunError: the run failed.
    """
    from hansa.cli.remote import ended_badly
    from hansa.cli.session import closing
    from hansa.dev import Chaos
    from hansa.dev.refusals import Refusals
    from hansa.remote import asking
    from hansa.remote.connecting import connected
    from hansa.remote.follow import follow
    from hansa.remote.submit import submit
    from hansa.runs.record import write_report
    from hansa.watch import watching

    membership, plan = rehearsal.membership, rehearsal.project.plan
    folder = submit(
        rehearsal.deployed(),
        membership,
        runs=runs,
        start=rehearsal.start_model(),
        new=True,
        rehearsal=True,
    )
    told(f"run {folder.name} submitted: {plan.rounds} round{'s' * (plan.rounds != 1)}")
    refusals = Refusals(len(rehearsal.names), rehearsal.project)
    disturbed = Chaos(rehearsal, told) if chaos else contextlib.nullcontext()
    with connected(membership) as connection:

        def heard(event: dict[str, Any]) -> None:
            if not chaos and refusals.leave_too_few(event):
                asking.stop(connection, (folder.remote or {})["run"])

        try:
            with watching(plan.rounds, plan.stop.metric) as view, disturbed:
                follow(folder, connection, membership=membership, view=view, heard=heard)
        except KeyboardInterrupt:
            _give_up(connection, folder)
            write_report(folder)
            click.echo(f"\nInterrupted after round {len(folder.rows())}; everything is ended.")
            raise click.exceptions.Exit(130) from None
    write_report(folder)
    if folder.state == "stopped" and refusals.over:
        raise refusals.error(folder.name)
    if folder.state != "finished":
        raise ended_badly(folder, runs)
    click.echo(closing(folder, runs))
    return folder


def _give_up(connection: Any, folder: RunFolder) -> None:
    """Have an interrupted run end at its server, so that its folder says so too."""
    from hansa.errors import HansaError
    from hansa.remote import asking

    with contextlib.suppress(HansaError, KeyboardInterrupt):
        run = (folder.remote or {})["run"]
        asking.stop(connection, run)
        page = asking.events(connection, run, after=len(folder.log.events))
        with folder.locked():
            folder.reload()
            folder.mirror(page.events)


def _compare(rehearsal: Rehearsal, run: RunFolder, told: Callable[[str], None]) -> None:
    """Simulate the same plan undisturbed, and see that the model is the same.

    Raises:
      RunError: it is not.
    """
    from hansa.errors import RunError
    from hansa.runs.record import run_record

    here = run_record(run)["model_digest"]
    simulated = run_record(rehearsal.simulate())["model_digest"]
    if here == simulated:
        told(f"the same model as an undisturbed simulation: {here[:19]}")
        return
    raise RunError(
        "run-not-reproduced",
        f"The model is {here[:19]}; an undisturbed simulation gives {simulated[:19]}.",
        "Sites may have been away when a cohort was drawn: with cohort.fraction = 1 this must not "
        "be; please report it.",
    )
