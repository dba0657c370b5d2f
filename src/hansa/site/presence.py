"""Whether a site's agent is running, and how to end it; one agent a folder.

The system frees the lock when the agent dies, however it dies, so `agent.json` alone says nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hansa.clock import now
from hansa.errors import HansaError, RequestRefused, SiteError
from hansa.holding import Holder, born, is_held, noted
from hansa.store.files import write_durably

AGENT_FILE = "agent.json"

END_FILE = "agent-ended.json"
"""Why the last agent could not go on; gone once another has started."""


TROUBLE_FILE = "agent-trouble.json"
"""What keeps a running agent from its work, such as a server that is away; gone once it is over."""


class Agent(Holder, frozen=True, kw_only=True):
    """A running agent."""

    group: int  # process group, 0 where there are none


class End(msgspec.Struct, frozen=True):
    """Why an agent has ended by itself."""

    code: str
    reason: str
    at: str
    member: bool = True  # False: the server has said that the site is no member


class Trouble(msgspec.Struct, frozen=True):
    """What a running agent cannot get over by itself, and goes on trying."""

    reason: str
    since: str


class Troubles:
    """Keeps the trouble of a running agent where `hansa site status` finds it; thread-safe.

    Args:
      folder: of the site.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._lock = folder / TROUBLE_FILE, threading.Lock()
        self._last: Trouble | None = None

    def told(self, reason: str) -> None:
        """Note why something does not work; the time is that of the first reason in a row."""
        with self._lock:
            before = self._last
            if before is None or before.reason != reason:
                self._last = Trouble(reason, now() if before is None else before.since)
                with contextlib.suppress(OSError):  # a full disk is a trouble, too
                    write_durably(self._path, [msgspec.json.encode(self._last)])

    def over(self) -> bool:
        """Note that it works; return whether it did not before."""
        with self._lock:
            if self._last is None:
                return False
            self._last = None
            with contextlib.suppress(OSError):
                self._path.unlink()
            return True


def trouble_of(folder: Path) -> Trouble | None:
    """Return what keeps the running agent of a folder from its work."""
    try:
        return msgspec.json.decode((folder / TROUBLE_FILE).read_bytes(), type=Trouble)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


@contextlib.contextmanager
def present(folder: Path) -> Iterator[None]:
    """Be the one agent of a site's folder.

    Raises:
      SiteError: site-running, there is another.
    """
    import filelock  # slow to import, and only agents need it

    try:
        with filelock.FileLock(folder / "lock", timeout=1.0):  # somebody may only be asking
            group = os.getpgid(0) if hasattr(os, "getpgid") else 0
            me = Agent(pid=os.getpid(), group=group, started=now(), born=born(os.getpid()))
            write_durably(folder / AGENT_FILE, [msgspec.json.encode(me)])
            for old in (END_FILE, TROUBLE_FILE):
                (folder / old).unlink(missing_ok=True)
            try:
                yield
            finally:  # only one that is killed leaves it
                (folder / AGENT_FILE).unlink(missing_ok=True)
    except filelock.Timeout:
        raise SiteError(
            "site-running",
            f"The agent of {folder} is running already; no second one was started.",
            "See it with: hansa site status; end it with: hansa site stop",
        ) from None


def remember_end(folder: Path, error: Exception) -> None:
    """Keep why an agent could not go on, for its owner to be told later; a full disk keeps none."""
    code = error.said if isinstance(error, RequestRefused) else getattr(error, "code", "defect")
    told = error.sentences if isinstance(error, HansaError) else f"{type(error).__name__}: {error}"
    end = End(code, told, now(), member=code != "identity-member")
    with contextlib.suppress(OSError):
        write_durably(folder / END_FILE, [msgspec.json.encode(end)])


def last_end(folder: Path) -> End | None:
    """Return why the last agent could not go on; None if it was told to end, or runs."""
    try:
        return msgspec.json.decode((folder / END_FILE).read_bytes(), type=End)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def was_killed(folder: Path) -> bool:
    """Tell, of a folder without a running agent, whether the last one had no time to end."""
    return (folder / AGENT_FILE).exists()


def find_agent(folder: Path) -> Agent | None:
    """Return the running agent of a folder, if there is one.

    Raises:
      SiteError: site-running, there is one, and it is not known which process it is.
    """
    if not is_held(folder):  # what agent.json names, if it is there, has died
        return None
    found = noted(folder / AGENT_FILE, Agent)
    if found is None:
        raise SiteError(
            "site-running",
            f"An agent holds {folder / 'lock'}, and {folder / AGENT_FILE} does not say which.",
            "It may be starting or ending this moment: try again; or end the process by hand.",
        )
    return found


def stop_agent(agent: Agent, *, at_once: bool) -> None:
    """Ask an agent to end, or kill it with everything it started.

    Workers end with their agent in any case: they read from it, and a sandbox dies with it.
    """
    number = signal.SIGKILL if at_once and hasattr(signal, "SIGKILL") else signal.SIGTERM
    with contextlib.suppress(ProcessLookupError):
        if at_once and agent.group == agent.pid and hasattr(os, "killpg"):
            os.killpg(agent.group, number)
        else:  # its group is that of the shell or service that started it
            os.kill(agent.pid, number)
