"""A server in a process of its own, driven by the commands that an operator types."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from hansa.clock import wall
from hansa.dev.loopback import free_port
from hansa.identity import Membership, Role, parse_invite
from hansa.protocol.connection import Connection
from hansa.protocol.enrolment import enrol
from hansa.server.founding import found
from hansa.server.opening import invitation, opened
from hansa.server.settings import ServerSettings

HANSA = [sys.executable, "-m", "hansa"]


class Federation:
    """A folder with a server, and everybody's folders and home beside it."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.root = root
        self.folder = root / "server"
        self.port = settings.pop("port", None) or free_port()
        self.url = settings.pop("url", f"https://localhost:{self.port}")
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("HANSA_")}
        self.environment |= {"HANSA_HOME": str(root / "home"), "HOME": str(root)}
        chosen = {"name": "Heart", "url": self.url, "host": "127.0.0.1", "port": self.port}
        with mock.patch.dict(os.environ, self.environment):
            self.admin = found(self.folder, ServerSettings(**chosen | settings)).admin
        self.process: subprocess.Popen[str] | None = None
        self.told: list[str] = []  # standard output of the server
        self.log: list[str] = []  # its standard error

    def hansa(self, *words: Any, folder: bool = True, status: int = 0) -> str:
        """Run a command and return what it printed, errors included."""
        done = self.command(*words, folder=folder)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def command(self, *words: Any, folder: bool = True) -> subprocess.CompletedProcess[str]:
        at = ["--folder", str(self.folder)] if folder else []
        return subprocess.run(
            [*HANSA, *map(str, words), *at],
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=self.root,
            check=False,
        )

    def start(self, *options: str) -> None:
        """Start the server and wait until it takes requests."""
        process = subprocess.Popen(
            [*HANSA, "server", "start", "--folder", str(self.folder), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )
        assert process.stdout is not None and process.stderr is not None
        first = process.stdout.readline()
        assert first.startswith("Federation"), first + process.stderr.read()
        self.process, self.told, self.log = process, [first], []
        for pipe, lines in ((process.stdout, self.told), (process.stderr, self.log)):
            threading.Thread(target=lines.extend, args=(pipe,), daemon=True).start()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send the server a signal and return its status."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(20)
        self.process = None
        return status

    @contextlib.contextmanager
    def served(self, *options: str) -> Iterator[None]:
        self.start(*options)
        try:
            yield
        finally:
            if self.process is not None:
                self.end(signal.SIGKILL)

    def invite(self, name: str, role: Role = "site") -> str:
        """Return an invitation, as the operator's command makes it."""
        with opened(self.folder) as server:
            return invitation(server, name, role=role, org="", expires_s=900.0, at=wall())

    def join(self, name: str, role: Role = "site") -> Membership:
        """Let a member join, in this process."""
        return enrol(parse_invite(self.invite(name, role)), self.root / name)

    def ask(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Ask the server from its own machine, as nobody or with a token."""
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context)
        return _asked(connection, path, headers)

    def ask_plainly(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Ask without TLS, as a proxy would."""
        return _asked(http.client.HTTPConnection("127.0.0.1", self.port), path, headers)


def _asked(
    connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str] | None
) -> tuple[int, str]:
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def connected(member: Membership, url: str | None = None) -> Connection:
    return Connection(
        url or member.url,
        authority_pem=member.authority_pem,
        key=member.key(),
        certificate=member.certificate(),
    )
