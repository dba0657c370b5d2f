"""Whether a site's agent is running, and how to end it; one agent a folder.

The system frees the lock when the agent dies, however it dies, so `agent.json` alone says nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
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


class Agent(Holder, frozen=True, kw_only=True):
    """A running agent."""

    group: int  # process group, 0 where there are none


class End(msgspec.Struct, frozen=True):
    """Why an agent has ended by itself."""

    code: str
    reason: str
    at: str
    member: bool = True  # False: the server has said that the site is no member


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
            (folder / END_FILE).unlink(missing_ok=True)
            yield
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
    reason = error.happened if isinstance(error, HansaError) else f"{type(error).__name__}: {error}"
    end = End(code, reason, now(), member=code != "identity-member")
    with contextlib.suppress(OSError):
        write_durably(folder / END_FILE, [msgspec.json.encode(end)])


def last_end(folder: Path) -> End | None:
    """Return why the last agent could not go on; None if it was told to end, or runs."""
    try:
        return msgspec.json.decode((folder / END_FILE).read_bytes(), type=End)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


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
