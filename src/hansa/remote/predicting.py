"""Predictions of a model at the sites of a federation: asked for as a run of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec

from hansa.identity import Membership
from hansa.packages import extract
from hansa.plan import Plan
from hansa.project import build_project
from hansa.protocol.transfer import download
from hansa.remote import asking
from hansa.remote.connecting import connected
from hansa.remote.submit import submit
from hansa.remote.trail import start_at
from hansa.runs import RunFolder
from hansa.runs.predicting import prediction_plan


def submit_prediction(
    membership: Membership, model: str, *, runs: Path = Path("runs"), purpose: str = ""
) -> RunFolder:
    """Hand over a run in which each site predicts with a model, and return its folder.

    It is the plan and the code of the run that made the model, so the sites' owners decide on it as
    on any other; what they predict stands in their ledgers.

    Args:
      membership: of the federation.
      model: RUN[:ROUND] at the server.
      runs: folder of runs here.
      purpose: for the data owners.

    Raises:
      RunError: model-missing, there is no such model, or it was not kept.
      RequestRefused: the server does not know the run, or does not take this one.
    """
    start = start_at(membership, model, runs)
    with tempfile.TemporaryDirectory(prefix="hansa-predict-") as place:
        with connected(membership) as connection:
            submission = asking.details(connection, model.partition(":")[0]).submission
            archive = Path(place) / "package.zip"
            download(connection, submission.package, archive)
        extract(archive, Path(place) / "project")
        plan = prediction_plan(msgspec.convert(submission.plan, Plan))
        project = build_project(plan, Path(place) / "project", sources=submission.sources)
        return submit(project, membership, runs=runs, purpose=purpose, start=start, new=True)
