"""Where a controller, its learners and its driver meet: a folder of this person on this machine.

HANSA_HOME/metisfl/HOST-PORT/
  controller.json   the controller's configuration
  server/           the Hansa server
  learners/NAME/    a learner's site: its key, its ledger
  weights/NAME      the weights that a learner had when it came
  project/, runs/   what the driver has made and followed
  programs/         what `hansa run` makes of an environment, and what it printed
  over              written when a driver has ended its run: who sees it anew ends
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from hansa.clock import wall
from hansa.compat.metisfl.config import (
    ClientParams,
    ControllerConfig,
    ModelStoreConfig,
    ServerParams,
)
from hansa.errors import HansaError, ServerError
from hansa.identity import Membership, load_membership, membership_folder
from hansa.identity.home import hansa_home
from hansa.store.files import write_durably

ADMIN = "admin"
"""Who founds the server, invites learners and submits."""

_LOOK_S = 0.3
_THIS_MACHINE = ("localhost", "127.0.0.1", "0.0.0.0", "::", "::1")


class Agreed(msgspec.Struct, frozen=True):
    """What the controller tells the driver."""

    config: ControllerConfig
    store: ModelStoreConfig


class Place(NamedTuple):
    """The meeting place of one controller."""

    folder: Path
    url: str

    @property
    def server(self) -> Path:
        """Folder of the server."""
        return self.folder / "server"

    @property
    def over(self) -> Path:
        """The file that says that a driver has ended its run."""
        return self.folder / "over"

    def ended(self) -> str:
        """Return what the last driver that ended its run has written; "" if none has."""
        try:
            return self.over.read_text(encoding="utf-8")
        except OSError:
            return ""

    def learner(self, name: str) -> Path:
        """Return the folder of a learner's site."""
        return self.folder / "learners" / name

    def invite(self, name: str) -> Path:
        """Return the file where a learner looks for an invitation, on another machine."""
        return self.folder / f"{name}.invite"

    def weights(self, name: str) -> Path:
        """Return the file with the weights that a learner came with."""
        return self.folder / "weights" / f"{name}.safetensors"

    @property
    def programs(self) -> Path:
        """Folder of the programs that `hansa run` makes anew at each start."""
        return self.folder / "programs"

    def agree(self, agreed: Agreed) -> None:
        """Write the controller's configuration down."""
        write_durably(self.folder / "controller.json", [msgspec.json.encode(agreed)])

    def agreed(self) -> Agreed | None:
        """Return the controller's configuration; None if there is none here."""
        try:
            return msgspec.json.decode((self.folder / "controller.json").read_bytes(), type=Agreed)
        except (OSError, msgspec.MsgspecError):
            return None

    def admin(self) -> Membership:
        """Return the membership of the person who has founded the server.

        Raises:
          ServerError: server-unreachable, no controller was started by this person here.
        """
        folder = membership_folder(self.url)
        if not (folder / "member.json").exists():
            raise ServerError(
                "server-unreachable",
                f"No controller at {self.url} was started by you on this machine.",
                "Start it first: python controller.py. If it runs on another machine, join with "
                "the invitation of its operator.",
            )
        return load_membership(folder)


def place_at(params: ServerParams | ClientParams) -> Place:
    """Return the meeting place of the controller at an address."""
    host = _host_of(params)
    name = re.sub(r"[^a-z0-9.-]", "_", host)
    shown = f"[{host}]" if ":" in host else host
    return Place(
        hansa_home() / "metisfl" / f"{name}-{params.port}", f"https://{shown}:{params.port}"
    )


def is_here(params: ServerParams) -> bool:
    """Tell whether a name or an address is of this machine: one on which a program can listen."""
    host = _host_of(params)
    if host in ("localhost", socket.gethostname().lower()):
        return True
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False  # nobody knows that name, or it is none
    return any(_can_listen(family, address) for family, _, _, _, address in found)


def _can_listen(family: int, address: Any) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.bind(address)
    except OSError:
        return False
    return True


def learner_name(params: ServerParams) -> str:
    """Return the name of the site of the learner at an address, such as learner-50002."""
    host = _host_of(params)
    if host == "localhost":
        return f"learner-{params.port}"
    return f"learner-{re.sub(r'[^a-z0-9.-]', '-', host)}-{params.port}"[:64]


def _host_of(params: ServerParams | ClientParams) -> str:
    """Return a host as everybody finds it who spells it in another way."""
    host = params.hostname.strip("[]").lower()
    return "localhost" if host in _THIS_MACHINE else host


def end_when_over(place: Place) -> None:
    """End this process as SIGTERM does, once a driver has ended a run from now on."""
    before = place.ended()

    def look() -> None:
        pause = threading.Event()
        while place.ended() == before:
            pause.wait(_LOOK_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=look, daemon=True).start()


def tell_over(place: Place, run: str) -> None:
    """Tell the controller and the learners of this place that they may end."""
    write_durably(place.over, [f"{run} {wall()}\n".encode()])


def wait_until(reached: Callable[[], bool], told: str) -> None:
    """Wait for something of another process, and say once for what; Ctrl-C is safe."""
    if reached():
        return
    print(told, flush=True)
    pause = threading.Event()
    while not reached():
        pause.wait(_LOOK_S)


@contextmanager
def spoken() -> Iterator[None]:
    """End the program with a sentence, not a traceback, where Hansa says what is wrong."""
    try:
        yield
    except HansaError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("Interrupted. What was started before goes on.", file=sys.stderr)
        raise SystemExit(130) from None
