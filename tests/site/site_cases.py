"""A run as a site is offered it, and a site to run it, made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from hansa.client import Client
from hansa.code import identity
from hansa.params import Params, encode
from hansa.project import Project, open_project
from hansa.protocol.messages import BlobRef, Offer
from hansa.rounds import BUFFERS
from hansa.seeds import Key
from hansa.simulation import project_population
from hansa.site.policy import Policy
from hansa.site.settings import DataSource, SiteLimits, SiteSettings
from hansa.site.workers import Workers

NO_BLOB = BlobRef(digest="blake3:" + "0" * 64, size=0)


class Case(NamedTuple):
    """A run, opened as its server would."""

    project: Project
    offer: Offer
    package: Path
    message: Path  # of round 1
    client: Client


def make_case(package: Path, *sets: str, sample: object = None) -> Case:
    """Open the project in a folder; `sample` sizes the model, by default simulation's."""
    project = open_project(package, sets)
    plan = project.plan
    given = project_population(project).sample() if sample is None else sample
    seed = project.learner.init(given, Key.root(plan.seed).child("model"))
    x, buffers = seed.layout.split(seed.params)
    algorithm = project.method.algorithm
    message = dict(algorithm.broadcast(algorithm.init(np.array(x))))
    if len(buffers):
        message[BUFFERS] = buffers
    path = package.parent / f"{package.name}-message.safetensors"
    path.write_bytes(b"".join(encode(Params.of(message))))
    offer = Offer(
        run="run-1",
        identity=identity(plan, project.code),
        plan=msgspec.to_builtins(plan),
        package=NO_BLOB,
        tensors=[(n, d, list(s)) for n, d, s, _, _ in seed.layout.layout.specs],
        buffers=list(seed.layout.buffers.names),
        submitter="anna",
        certificate="",
        signature="",
    )
    client = Client(
        plan, project.method.algorithm, project.method.transform, project.learner, seed.layout
    )
    return Case(project, offer, package, path, client)


def make_workers(
    folder: Path,
    data: dict[str, DataSource],
    *,
    name: str = "client-0",
    sandbox: str = "preferred",
    limits: SiteLimits | None = None,
) -> Workers:
    """Return the workers of a site."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = SiteSettings(
        name=name,
        data=data,
        policy=Policy(sandbox=sandbox),  # type: ignore[arg-type]
        limits=limits or SiteLimits(),
    )
    return Workers(folder, settings)


FUNCTION_PLAN = """
seed = 3
{top}
[learner]
kind = "function"
module = "model.py"
[data]
clients = 2
"""
FUNCTION = """
import os, signal, sys, threading
import numpy as np


def data(client):
    return {{"train": [1.0, 2.0], "validation": [4.0]}}


def init(rng, sample):
    return {{"w": np.zeros(3, np.float32)}}


def train(params, data, ctx):
    if ctx.round == 1:
        pass
        {first}
    return {{"w": params["w"] + np.float32(sum(data))}}


def evaluate(params, data):
    return {{"first": float(params["w"][0]) + data[0]}}
"""


def function_package(folder: Path, first: str, *, top: str = "") -> Path:
    """Write a project that does `first` in round 1, and otherwise adds 3 to its model."""
    folder.mkdir(parents=True)
    (folder / "plan.toml").write_text(FUNCTION_PLAN.format(top=top))
    indented = first.strip().replace("\n", "\n        ")
    (folder / "model.py").write_text(FUNCTION.format(first=indented))
    return folder
