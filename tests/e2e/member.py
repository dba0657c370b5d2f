"""A member without an agent: a test speaks to the server in its name, one request at a time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from hansa.dev import Rehearsal
from hansa.identity import Membership, parse_invite
from hansa.params import Params, encode
from hansa.protocol.connection import Connection
from hansa.protocol.enrolment import enrol
from hansa.protocol.messages import (
    Poll,
    PollAnswer,
    Receipt,
    Standing,
    Task,
    TaskResult,
)
from hansa.protocol.transfer import upload
from hansa.remote.asking import invite


def joined(federation: Rehearsal, folder: Path, *, role: Any = "site", port: int = 0) -> Membership:
    line = parse_invite(invite(federation.connection, folder.name, role=role))
    return enrol(line._replace(url=f"https://localhost:{port}") if port else line, folder)


def connection(member: Membership, *, timeout_s: float = 30.0) -> Connection:
    return Connection(
        member.url,
        authority_pem=member.authority_pem,
        key=member.key(),
        certificate=member.certificate,
        timeout_s=timeout_s,
    )


class Site:
    """Takes part as a site does, and sends an update of its own making."""

    def __init__(self, member: Membership) -> None:
        self.name = member.name
        self.connection = connection(member)
        self.runs: list[str] = []

    def poll(self, *, wait: bool = True) -> PollAnswer:
        poll = Poll(runs=tuple(self.runs), wait=wait)
        return self.connection.call("POST", "/v1/poll", poll, kind=PollAnswer)

    def task(self, run: str, phase: str = "train", *, seconds: float = 30.0) -> Task:
        """Say that it is ready, and wait for a task."""
        ready = Standing(state="ready", examples=100)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            answer = self.poll()
            self.runs = [name for name in self.runs if name not in answer.ended]
            for offer in answer.offers:
                path = f"/v1/runs/{offer.run}/standing"
                self.connection.call("POST", path, ready, kind=dict[str, str])
                self.runs.append(offer.run)
            for task in answer.tasks:
                if task.key.run == run and task.key.phase == phase:
                    self.asked = task.key
                    return task
            time.sleep(0.05)  # tasks of another run may be there all the time
        raise AssertionError(f"{self.name} was not asked to {phase} in {run}")

    def update(self, values: int, *, value: float = 0.001) -> bytes:
        header, body = encode(Params.of({"delta": np.full(values, value, np.float32)}))
        return bytes(header) + bytes(body)

    def sent(self, content: bytes) -> TaskResult:
        ref = upload(self.connection, content, to="updates", task=self.asked)
        return TaskResult(state="done", update=ref, weight=100.0, metrics={"loss": (1.0, 1.0)})

    def report(self, task: Task, result: TaskResult) -> Receipt:
        key = task.key
        path = f"/v1/runs/{key.run}/rounds/{key.round}/{key.phase}/result"
        return self.connection.call("POST", path, result, kind=Receipt)
