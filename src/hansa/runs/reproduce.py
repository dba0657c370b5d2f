"""A run's own copy of its project."""

from __future__ import annotations

from pathlib import Path

import msgspec

from hansa.code import MADE_IN_PYTHON, identity, read_code
from hansa.errors import RunError
from hansa.plan import Plan
from hansa.project import Project, build_project
from hansa.runs.folder import RunFolder


def saved_project(folder: RunFolder) -> Project:
    """Return the project as it was when the run began: its plan with `--set`, and its code.

    Raises:
      RunError: the run was made from Python values or by a federation, or the copy has been
        changed.
    """
    if folder.remote is not None:
        raise RunError(
            "run-not-reproduced",
            f"The run {folder.name} was done by the sites of {folder.remote['url']}, and their "
            "data are not here.",
            "Submit the project once more with: hansa run --on URL --new, and compare the digests.",
        )
    if folder.plan()["learner"]["kind"] == MADE_IN_PYTHON:
        raise RunError(
            "run-not-reproduced",
            f"The run {folder.name} was made from Python values, which are not kept.",
            "Run the notebook or script again, and compare result.digest.",
        )
    plan = msgspec.convert(folder.plan(), Plan)
    origin, kept = folder.about["project"], folder.path / "code"
    # Before any of it runs: code that was changed here is nobody's.
    if (
        origin is not None
        and identity(plan, read_code(kept, plan.learner)) != folder.about["identity"]
    ):
        raise RunError(
            "run-damaged",
            f"The code kept in {folder.path / 'code'} is not what the run was made with.",
            "Restore the folder from a backup.",
        )
    project = build_project(plan, kept, sources=folder.plan_sources())
    return project._replace(data_folder=Path(origin) if origin else None)
