"""A server in this process, its submitter, and three sites whose updates have a closed form."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from in_process import SEED, InProcess, Reply, Site

D = {"north": [1.0, -2.0, 4.0], "south": [-0.5, 8.0, 0.25], "west": [3.0, 1.0, -16.0]}
"""What each site adds to the model: signed, unequal, and exact in binary."""

N = {"north": 1, "south": 3, "west": 4}
"""Examples that each site holds."""


def mean(*names: str) -> np.ndarray:
    total = sum(N[n] for n in names)
    return sum(N[n] * np.array(D[n]) for n in names) / total  # exact: all are dyadic


def expected(*names: str, seed: np.ndarray = SEED) -> np.ndarray:
    return (seed + mean(*names).astype(np.float32)).astype(np.float32)


def refused(answer: Reply) -> tuple[int, str]:
    return answer.status, answer.code


class League:
    """A server, its submitter ada, and the sites of `D`."""

    def __init__(self, server: InProcess) -> None:
        self.server = server
        self.ada = server.join("ada", "submitter")
        self.sites = {name: Site(server, name) for name in D}
        self.north, self.south, self.west = self.sites.values()

    def begin(self, *names: str, **plan: Any) -> str:
        chosen = names or tuple(D)
        return self.server.begin(self.ada, {self.sites[n]: N[n] for n in chosen}, **plan)

    def send(self, name: str, run: str, number: int = 1) -> Reply:
        site = self.sites[name]
        return site.send(site.task(run, number).key, D[name], N[name])

    def stop(self, run: str) -> Reply:
        return self.server.ask(self.ada, "POST", f"/v1/runs/{run}/stop", {})

    def restart(self, run: str) -> None:
        """Start the server again; all sites come back to it at once."""
        self.server.restart()
        for site in self.sites.values():
            site.poll([run])

    def updates(self) -> list[str]:
        """Return the files of all updates that are there; some may go meanwhile."""
        folder = self.server.state.updates.folder
        return [name for _, _, files in os.walk(folder) for name in files]

    def audit(self) -> list[tuple[str, str, str]]:
        root = self.server.join(f"root-{len(self.server.state.member_facts())}", "admin")
        rows = self.server.ask(root, "GET", "/v1/audit").read(dict[str, Any])["audit"]
        return [(r["who"], r["object"], r["outcome"]) for r in rows if r["action"] == "result"]
