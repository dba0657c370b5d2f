"""A run at its server, followed into a run folder here: the same events, the same models."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from hansa.clock import monotonic
from hansa.errors import RequestRefused, RunError, ServerError
from hansa.failpoints import hit
from hansa.identity import Membership
from hansa.limits import AWAY_PAUSE_S, FOLLOW_MODEL_BYTES, FOLLOW_WAIT_S
from hansa.protocol.connection import Connection
from hansa.protocol.enrolment import renew_if_due
from hansa.protocol.messages import EventPage
from hansa.protocol.patience import is_passing, with_patience
from hansa.remote import asking
from hansa.remote.fetch import fetch_models
from hansa.remote.words import notice
from hansa.runs import RunFolder
from hansa.watch import View
from hansa.workflows import Problem

T = TypeVar("T")

_PHASES = {"train": "training", "evaluate": "evaluating"}


def follow(
    folder: RunFolder,
    connection: Connection,
    *,
    membership: Membership,
    view: View,
    heard: Callable[[dict[str, Any]], None] = lambda _: None,
) -> str:
    """Bring a run's events and models here until it has ended; return how it ended.

    It can be broken off and begun again at any time: the folder's log holds the server's events
    and nothing else, so their number says where to go on.  A server that is restarted or cannot be
    reached is waited for.

    Args:
      folder: of the run, handed over to its server already.
      connection: to that server.
      membership: whose certificate is renewed when the run takes long.
      view: is told what happens.
      heard: is called with each event, once it is here.

    Raises:
      RunError: another process follows the run, or the server knows less of it than is here.
      RequestRefused: the server does not let one see it.
    """
    with folder.locked():
        folder.reload()
        folder.sweep()
        folder.rewrite_metrics()
        story = Story(view, folder.log.events)
        _check_same(folder, connection, view)
        while folder.state == "running":
            events = _next_events(folder, connection, view)
            folder.mirror(events)
            hit("follow_after_events_kept")
            for event in events:
                story.tell(event)
                heard(event)
            if any(event["kind"] == "committed" for event in events):
                _patiently(lambda: _fetch_small(folder, connection), view)
                hit("follow_after_models_kept")
            _patiently(lambda: renew_if_due(connection, membership), view)
        _patiently(lambda: fetch_models(folder, connection), view)
    return folder.state


class Story:
    """Tells a view what the server's events say.

    Args:
      view: is told.
      before: events that are known already; what they began is gone on with, and not told.
    """

    def __init__(self, view: View, before: Iterable[dict[str, Any]] = ()) -> None:
        self._view: View | None = None
        self._open = ("", 0)
        self._total = 0
        self._done: set[str] = set()
        self._problems: dict[tuple[str, str], Problem] = {}
        for event in before:
            self.tell(event)
        self._view = view

    def tell(self, event: dict[str, Any]) -> None:
        """Take one event into account."""
        match event["kind"]:
            case "opened":
                self._open = (event["phase"], event["round"])
                self._total, self._done = len(event["cohort"]), set()
                self._working()
            case "result" if (event["phase"], event["round"]) == self._open:
                self._result(event)
            case "problem":
                told = Problem(
                    event["round"],
                    event["client"],
                    event["what"],
                    event["code"],
                    event["message"],
                    event.get("file"),
                )
                self._problems[event["phase"], event["client"]] = told
            case "committed" if event["round"]:
                problems = [p for p in self._problems.values() if p.round == event["round"]]
                self._problems.clear()
                if self._view is not None:
                    self._view.committed(event["row"], problems)
        if self._view is not None and (words := notice(event)):
            self._view.told(words)

    def _result(self, event: dict[str, Any]) -> None:
        # One that came back is at work again.
        (self._done.discard if event["state"] == "returned" else self._done.add)(event["client"])
        self._working()

    def _working(self) -> None:
        if self._view is not None:
            phase = self._open[0]
            self._view.working(_PHASES.get(phase, phase), len(self._done), self._total)


def _next_events(folder: RunFolder, connection: Connection, view: View) -> list[dict[str, Any]]:
    after = len(folder.log.events)
    run = (folder.remote or {})["run"]

    def ask() -> EventPage:
        return asking.events(connection, run, after=after, wait_s=FOLLOW_WAIT_S)

    asked = monotonic()
    page = _patiently(ask, view, back=lambda: _check_same(folder, connection, view))
    if not page.events and monotonic() - asked < 1.0:
        threading.Event().wait(1.0)  # a server that is about to stop does not let anybody wait
    if page.next != after + len(page.events):
        raise _set_back(folder)
    return page.events


def _check_same(folder: RunFolder, connection: Connection, view: View) -> None:
    """See that the server's run is the one that is followed here, and as far.

    A server that was set back to a backup may have done less of it by now, or have given its name
    to another run.

    Raises:
      RunError: run-changed.
    """
    known = folder.log.events
    if not known:
        return
    run = (folder.remote or {})["run"]
    ask = partial(asking.events, connection, run, after=len(known) - 1, wait_s=0.0)
    try:
        found = _patiently(ask, view).events
    except RequestRefused as refusal:
        if refusal.said == "run-not-found":
            raise _set_back(folder) from None
        raise
    if not found or found[0] != known[-1]:
        raise _set_back(folder)


def _set_back(folder: RunFolder) -> RunError:
    remote = folder.remote or {}
    return RunError(
        "run-changed",
        f"The server at {remote['url']} does not know what was read here of the run "
        f"{remote['run']} before, {len(folder.log.events)} events: it was set back to an older "
        "state. Nothing was changed here.",
        "Ask its operator; to have it done anew, type the command that began it, with --new.",
    )


def _fetch_small(folder: RunFolder, connection: Connection) -> None:
    fetch_models(folder, connection, largest=FOLLOW_MODEL_BYTES)


def _patiently(ask: Callable[[], T], view: View, *, back: Callable[[], None] = lambda: None) -> T:
    """Ask until the server answers; one who waits for its restart is told so once.

    Args:
      ask: what is asked.
      view: is told.
      back: called once the server, which was away, has answered.
    """
    away = False

    def tried() -> T:
        nonlocal away
        try:
            answer = ask()
        except (RequestRefused, ServerError) as error:
            if is_passing(error) and not away:
                view.told(f"The server is away, waiting for it: {error.happened}")
                away = True
            raise
        if away:
            view.told("The server is back.")
            back()
        return answer

    return with_patience(tried, until=None, most_s=AWAY_PAUSE_S)
