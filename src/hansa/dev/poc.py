"""A federation laid out as in NVIDIA FLARE's walkthrough: a folder for each part, started by hand.

    poc/server/startup/start.sh       serves
    poc/site-1/startup/start.sh       one for each site
    poc/admin/startup/fl_admin.sh     the console
    poc/admin/transfer/               apps to upload
    poc/stop_fl.sh                    ends sites and server

Nothing is started and no port is taken: members are let in at the server's own database, with keys
that are made in their own folders.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from hansa.clock import wall
from hansa.dev.loopback import ADMIN, SERVER, environment_with, free_port
from hansa.errors import ServerError
from hansa.identity import (
    Membership,
    enrolment_text,
    load_authority,
    load_key,
    own_key,
    save_membership,
    to_text,
)
from hansa.limits import INVITE_S
from hansa.protocol.messages import Enrolment
from hansa.server.founding import found
from hansa.server.members import create_invite, redeem
from hansa.server.opening import OPERATOR, Opened, opened
from hansa.server.settings import ServerSettings
from hansa.server.sources import Guesses
from hansa.site.policy import Policy
from hansa.site.settings import SiteSettings, write_settings
from hansa.store.files import write_durably

_SCRIPT = '#!/bin/sh\n# {told}\ncd "$(dirname "$0")/{up}" || exit 1\n{command}\n'


def lay_out(folder: Path, sites: int, *, port: int | None = None) -> str:
    """Make the folders of a server, its sites and its admin; return the server's address.

    Args:
      folder: gets them; must not hold another server.
      sites: how many: site-1, site-2 ...
      port: of loopback; by default one that is free at this moment.

    Raises:
      ServerError: server-exists, the folder holds a server already.
    """
    if (folder / SERVER).exists():
        raise ServerError(
            "server-exists",
            f"{folder} holds a federation already. Nothing was changed.",
            f"Start it with {folder}/server/startup/start.sh, or remove the folder.",
        )
    port = free_port() if port is None else port
    settings = ServerSettings(
        name=folder.resolve().name or "poc",
        url=f"https://localhost:{port}",
        host="127.0.0.1",
        port=port,
    )
    names = [f"site-{number}" for number in range(1, sites + 1)]
    server, home = folder / SERVER, folder / ADMIN / "startup"
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with environment_with({"HANSA_HOME": str(home.resolve())}):
        found(server, settings, admin=ADMIN)
    (folder / ADMIN / "transfer").mkdir(exist_ok=True)
    with opened(server) as there:
        for name in names:
            _join(there, folder / name, name)
    _write_scripts(folder, names)
    return settings.url


def _join(server: Opened, folder: Path, name: str) -> None:
    """Let a site in, with its own key, and give it a policy that lets the admin's plans run."""
    folder.mkdir(parents=True, mode=0o700)
    token = create_invite(
        server.database, name, kind="site", role="site", expires_s=INVITE_S, by=OPERATOR, at=wall()
    )
    key = own_key(folder / "key.pem")
    enrolment = Enrolment(
        token=token,
        public_key=to_text(key.public),
        proof=to_text(key.sign(enrolment_text(token))),
        kind="site",
    )
    _, certificate = redeem(
        server.database,
        server.authority,
        enrolment,
        at=wall(),
        source=OPERATOR,
        guesses=Guesses(),
    )
    membership = Membership(
        folder,
        server.settings.url,
        name,
        "site",
        load_authority(server.folder).pem,
        to_text(load_key(server.folder / "receipt-key.pem").public),
        server.settings.name,
    )
    save_membership(membership, certificate)
    policy = Policy(submitters=(ADMIN,), approve="submitters", sandbox="preferred")
    write_settings(folder, SiteSettings(name=name, policy=policy))


def _write_scripts(folder: Path, names: list[str]) -> None:
    hansa = f"exec {shlex.quote(sys.executable)} -P -m hansa"
    # With the whole path, so that what they tell to type next works in every folder.
    at = '--folder "$PWD"'
    serve, work = f"{hansa} server start {at}", f"{hansa} site start {at}"
    _script(folder / SERVER / "startup" / "start.sh", "Serves.", serve, up="..")
    for name in names:
        _script(folder / name / "startup" / "start.sh", "Runs the site.", work, up="..")
    console = f"{hansa} console --server ../{SERVER} --sites .. --workspace ."
    _script(
        folder / ADMIN / "startup" / "fl_admin.sh",
        "The console; a host name, as FLARE's script takes one, is passed over.",
        'HANSA_HOME="$PWD/startup" && export HANSA_HOME\n'
        'case "$1" in localhost | 127.0.0.1) shift ;; esac\n'
        f'{console} "$@"',
        up="..",
    )
    _script(
        folder / "stop_fl.sh",
        "Ends the sites, then the server.",
        f"exec {ADMIN}/startup/fl_admin.sh -c 'shutdown client' -c 'shutdown server'",
        up=".",
    )


def _script(path: Path, told: str, command: str, *, up: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, [_SCRIPT.format(told=told, up=up, command=command).encode()])
    path.chmod(0o700)
