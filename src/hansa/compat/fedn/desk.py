"""What FEDn's controller keeps for a person and Hansa's server does not, beside the membership.

    fedn/state.json        which package, seed model and sessions there are
    fedn/packages/ID.tgz   as it was uploaded
    fedn/models/ID.bin     seed models, as they were uploaded
    fedn/sessions/         the project of each session
    fedn/runs/             the runs that were handed over from here

In Hansa a package and a seed model travel with the run that uses them, under the submitter's
signature.  So they wait here, on the machine of whoever has set them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
from blake3 import blake3

from hansa.errors import RunError
from hansa.identity import Membership
from hansa.store.files import write_durably


class PackageNote(msgspec.Struct, frozen=True, kw_only=True):
    """A compute package that was set."""

    id: str
    name: str
    file_name: str
    helper: str
    description: str = ""
    at: str = ""
    data: str = "data"
    env: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    environment: bool = True


class SeedNote(msgspec.Struct, frozen=True, kw_only=True):
    """A seed model that was set."""

    id: str
    file_name: str
    helper: str
    at: str = ""


class SessionNote(msgspec.Struct, frozen=True, kw_only=True):
    """How a session was begun, and goes on."""

    aggregator: str
    aggregator_kwargs: dict[str, Any] = {}
    validate: bool = True
    helper: str | None = None
    min_clients: int = 1
    client_ids: str | list[str] | None = None
    server_functions: str | None = None  # text of the class
    package: Literal["local", "remote"]
    uploaded: str = ""  # id of its package
    labels: str | None = None
    features: int


class State(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    packages: dict[str, PackageNote] = {}
    seeds: dict[str, SeedNote] = {}
    package: str = ""  # the active one
    model: str = ""  # the active one: a seed's id, or a session's name
    sessions: dict[str, list[str]] = {}  # runs by the name that the script has for them
    begun: dict[str, SessionNote] = {}  # by the same name


class Desk:
    """A person's packages, seed models and sessions at one federation.

    Args:
      membership: of the person.
    """

    def __init__(self, membership: Membership) -> None:
        self.folder = membership.folder / "fedn"

    @property
    def state(self) -> State:
        """What is kept.

        Raises:
          RunError: run-damaged, the file cannot be read.
        """
        path = self.folder / "state.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=State)
        except FileNotFoundError:
            return State()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RunError(
                "run-damaged",
                f"{path} cannot be read: {error}.",
                "Remove the file, and set package and model again; runs at the server stay.",
            ) from None

    def change(self, **values: object) -> None:
        """Keep other values."""
        changed = msgspec.structs.replace(self.state, **values)
        _write(self.folder / "state.json", msgspec.json.encode(changed))

    def add_package(self, content: bytes, note: PackageNote) -> None:
        """Keep a package, and make it the active one."""
        _write(self.package_file(note), content)
        self.change(packages={**self.state.packages, note.id: note}, package=note.id)

    def add_seed(self, content: bytes, note: SeedNote) -> None:
        """Keep a seed model, and make it the active one."""
        _write(self.seed_file(note.id), content)
        self.change(seeds={**self.state.seeds, note.id: note}, model=note.id)

    def add_run(self, session: str, run: str, note: SessionNote) -> None:
        """Keep that a session has gone on as a run; its newest model is the active one."""
        runs = [*self.state.sessions.get(session, ()), run]
        self.change(
            sessions={**self.state.sessions, session: runs},
            begun={**self.state.begun, session: note},
            model=session,
        )

    def add_alias(self, name: str, run: str) -> None:
        """Keep a name for a run; which model is active stays."""
        self.change(sessions={**self.state.sessions, name: [run]})

    def package_file(self, note: PackageNote) -> Path:
        """Return where a package lies, under a suffix that says what it is."""
        suffix = ".tar.bz2" if note.file_name.endswith(".bz2") else ".tgz"
        return self.folder / "packages" / f"{note.id}{suffix}"

    def seed_file(self, seed: str) -> Path:
        """Return where a seed model lies."""
        return self.folder / "models" / f"{seed}.bin"

    def runs_of(self, session: str) -> list[str]:
        """Return the runs of a session; any run at the server is a session of its own name."""
        return self.state.sessions.get(session, [session])

    def session_of(self, run: str) -> str:
        """Return the session that a run belongs to."""
        for session, runs in self.state.sessions.items():
            if run in runs:
                return session
        return run


def note_id(prefix: str, content: bytes) -> str:
    """Return an id of a content."""
    return f"{prefix}-{blake3(content).hexdigest()[:12]}"


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, [content])
