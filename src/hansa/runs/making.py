"""A new run's folder: what is recorded of every run, wherever its clients are."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

import hansa
from hansa.clock import now
from hansa.code import MADE_IN_PYTHON, Draft, code_digest, identity
from hansa.plan import PLAN_FILE
from hansa.runs.folder import RunFolder

if TYPE_CHECKING:
    from hansa.learners.learner import Seed
    from hansa.project import Project


class Clients(NamedTuple):
    """What is known of a run's clients when it begins."""

    number: int = 0
    data: str | None = None  # digest of all data; None where only the clients know
    partition: dict[str, Any] | None = None  # label counts, for the report


class SeedFile(NamedTuple):
    """A seed model as the bytes of its file, and what is recorded of it."""

    digest: str
    parts: Sequence[bytes | memoryview]  # one after the other
    tensors: list[tuple[str, str, list[int]]]
    buffers: list[str]
    constants: list[str]
    environment: dict[str, str]  # in which it was made

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return sum(memoryview(part).nbytes for part in self.parts)


def seed_file(seed: Seed) -> SeedFile:
    """Return a seed model, just made here, as a file; nothing is copied."""
    from hansa.params import encode  # NumPy, which whoever has a seed has

    tensors = [(s.name, s.dtype, list(s.shape)) for s in seed.params.layout.specs]
    return SeedFile(
        seed.params.digest(),
        encode(seed.params),
        tensors,
        list(seed.layout.buffers.names),
        list(seed.layout.constants.names),
        environment(),
    )


def make_run(
    runs: Path,
    project: Project | Draft,
    seed: SeedFile,
    *,
    engine: str,
    clients: Clients,
    origin: str = "",
    remote: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> RunFolder:
    """Make the folder of a new run; its first commit is the caller's.

    Args:
      runs: folder of runs.
      project: plan and code, both of which are kept.
      seed: the model that the run starts from.
      engine: what runs the clients.
      clients: what is known of them.
      origin: what the seed model was taken from, where it was given.
      remote: where the run itself will be, if not here; the seed model is then kept at once.
      files: further files by relative path.
    """
    plan = project.plan
    about = {
        "identity": identity(plan, project.code),
        "created": now(),
        "hansa": hansa.__version__,
        "engine": engine,
        "project": str(project.folder.resolve()) if project.folder else None,
        "seed_model": {
            "digest": seed.digest,
            "buffers": seed.buffers,
            "constants": seed.constants,
            **({"origin": origin} if origin else {}),
        },
        "data": clients.data,
        "code": None if plan.learner.kind == MADE_IN_PYTHON else _digest(project),
        "clients": clients.number,
        "partition": clients.partition,
        **({"remote": dict(remote)} if remote is not None else {}),
    }
    facts = {"plan": msgspec.to_builtins(plan), "sources": project.sources}
    kept = {
        **{f"code/{name}": content for name, content in project_files(project).items()},
        "plan.json": _json(facts),
        "environment.json": _json(seed.environment),
        **(files or {}),
    }
    model = seed.parts if remote is not None else None
    return RunFolder.create(runs, plan.name, about=about, files=kept, seed=model)


def project_files(project: Project | Draft) -> dict[str, bytes]:
    """Return a project's files and its plan.toml as it was written."""
    files = dict(project.code)
    if project.folder is not None and (project.folder / PLAN_FILE).is_file():
        files[PLAN_FILE] = (project.folder / PLAN_FILE).read_bytes()
    return files


def environment() -> dict[str, str]:
    """Return versions and machine, for the record."""
    import numpy as np

    facts = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "hansa": hansa.__version__,
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cores": str(os.cpu_count()),
    }
    for package in ("torch", "sklearn"):
        if package in sys.modules:
            facts[package] = str(getattr(sys.modules[package], "__version__", "?"))
    return facts


def _digest(project: Project | Draft) -> str:
    return f"blake3:{code_digest(project.code).hex()}"


def _json(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2)
