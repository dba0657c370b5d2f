"""A run's own copy of its project."""

from __future__ import annotations

import msgspec

from hansa.errors import RunError
from hansa.plan import Plan
from hansa.project import MADE_IN_PYTHON, Project, build_project, identity
from hansa.runs.folder import RunFolder


def saved_project(folder: RunFolder) -> Project:
    """Return the project as it was when the run began: its plan with `--set`, and its code.

    Raises:
      RunError: the run was made from Python values, or the copy has been changed.
    """
    if folder.plan()["learner"]["kind"] == MADE_IN_PYTHON:
        raise RunError(
            "run-not-reproduced",
            f"The run {folder.name} was made from Python values, which are not kept.",
            "Run the notebook or script again, and compare result.digest.",
        )
    plan = msgspec.convert(folder.plan(), Plan)
    project = build_project(plan, folder.path / "code", sources=folder.plan_sources())
    if folder.about["project"] is not None and identity(project) != folder.about["identity"]:
        raise RunError(
            "run-damaged",
            f"The code kept in {folder.path / 'code'} is not what the run was made with.",
            "Restore the folder from a backup.",
        )
    return project
