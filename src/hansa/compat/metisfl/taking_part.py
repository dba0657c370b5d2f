"""A learner's process: it joins the federation as a site, and is itself the worker of that site."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from hansa.compat.metisfl import present
from hansa.compat.metisfl.config import ClientParams, ServerParams
from hansa.compat.metisfl.learner import Learner
from hansa.compat.metisfl.place import (
    ADMIN,
    Place,
    end_when_over,
    learner_name,
    place_at,
    spoken,
    wait_until,
)
from hansa.compat.metisfl.project import HAND_OVER
from hansa.compat.own_process import OwnProcess
from hansa.errors import HansaError
from hansa.identity import parse_invite
from hansa.params import Params, encode
from hansa.protocol.enrolment import enrol
from hansa.remote import asking
from hansa.remote.connecting import connected
from hansa.site.agent import run_agent
from hansa.site.policy import Policy
from hansa.site.settings import SITE_FILE, SiteSettings, write_settings
from hansa.store.files import write_durably


def app(
    learner: Learner, server_params: ServerParams, client_params: ClientParams, **unused: Any
) -> None:
    """Take part until a driver has ended its run, SIGTERM or Ctrl-C.

    Args:
      learner: has its data; it stays in this process, as the data do.
      server_params: gives the learner its name; nothing listens there.
      client_params: where the controller is.
      unused: other arguments of MetisFL, which mean nothing here.

    Raises:
      SystemExit: it cannot take part; the sentence says why.
    """
    with spoken():
        place, name = place_at(client_params), learner_name(server_params)
        folder = place.learner(name)
        _leave_weights(place.weights(name), learner)
        if not (folder / SITE_FILE).exists():
            where = f"if it is on another machine, put an invitation into {place.invite(name)}"
            told = f"{name} waits for {place.url}; {where}"
            wait_until(lambda: _joined(place, name, folder), told)
        present.bring(learner)
        end_when_over(place)
        told = f"{name} takes part at {place.url}"
        workers = partial(OwnProcess, hand_over=HAND_OVER)
        run_agent(folder, started=lambda _: print(told, flush=True), workers=workers)


def _leave_weights(path: Path, learner: Learner) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, encode(Params.of(present.weights_of(learner))))


def _joined(place: Place, name: str, folder: Path) -> bool:
    """Join, invited by a file or by oneself, who started the controller; False if it is not up.

    Raises:
      HansaError: the server answers, and refuses.
    """
    try:
        if not (folder / "member.json").exists():
            enrol(parse_invite(invitation(place, name)), folder)
    except HansaError as error:
        if error.code == "server-unreachable":
            return False
        raise
    # What runs here is the learner that this process was started with, and nothing else.
    policy = Policy(submitters=(ADMIN,), approve="submitters")
    write_settings(folder, SiteSettings(name=name, policy=policy))
    return True


def invitation(place: Place, name: str) -> str:
    """Return the invitation that lies in the place, or one that its founder makes.

    Raises:
      HansaError: there is none, and no server here that would make one.
    """
    path = place.invite(name)
    if path.exists():
        said = path.read_text(encoding="utf-8", errors="replace").split()
        return next((word.strip("'") for word in said if "#" in word), "")
    with connected(place.admin()) as connection:
        return asking.invite(connection, name)
