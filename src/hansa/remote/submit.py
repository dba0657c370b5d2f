"""A project handed to a federation: packed, signed, uploaded, and kept in a run folder here."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from blake3 import blake3

from hansa.code import Draft, identity
from hansa.errors import PlanError, RunError
from hansa.failpoints import hit
from hansa.identity import Membership, submission_text, to_text
from hansa.limits import MESSAGE_CHARS_MAX
from hansa.packages import build_archive
from hansa.protocol.connection import Connection
from hansa.protocol.messages import BlobRef, RunFacts, Submission
from hansa.protocol.transfer import upload
from hansa.remote.connecting import connected
from hansa.remote.deployable import check_deployable
from hansa.runs import RunFolder, all_runs
from hansa.runs.making import Clients, SeedFile, make_run, project_files, seed_file

if TYPE_CHECKING:
    from hansa.project import Project
    from hansa.runs.start import Start

ENGINE = "federation"
"""In place of an engine, in run.json of a run whose clients are sites."""

SUBMISSION_FILE = "submission.json"
"""In the run folder: what is sent, kept before it is sent, so that it is the same when repeated."""


def submit(
    project: Project | Draft,
    membership: Membership,
    *,
    runs: Path = Path("runs"),
    purpose: str = "",
    priority: int = 0,
    start: Start | None = None,
    new: bool = False,
    rehearsal: bool = False,
    on_known: Callable[[RunFolder], None] = lambda _: None,
) -> RunFolder:
    """Hand a project to a federation and return its run folder, which `follow` fills.

    Repeating it is safe: an unfinished run of this plan, code and federation is found again, and
    what was not handed over before a crash is sent with the same id, and the words of this call.

    Args:
      project: what to run; one that is only read is built, and checked, here.
      membership: where, and as whom.
      runs: folder of runs.
      purpose: for the data owners, who decide.
      priority: among the runs that wait at the server, from -PRIORITY_MAX to PRIORITY_MAX.
      start: model to start from; by default the learner makes them.
      new: start anew although an unfinished run of the same plan and code is there.
      rehearsal: the server ends with the command that has started it; the folder remembers it.
      on_known: told of an unfinished run that the server has already, so that nothing is sent.

    Raises:
      PlanError: a federation cannot run this, or the purpose is too long; nothing was sent.
      RequestRefused: the server does not take it.
      ServerError: the server cannot be reached.
    """
    check_deployable(project)
    _check_purpose(purpose)
    folder = None if new else _unfinished(runs, project, membership, start)
    if folder is None:
        remote = {"url": membership.url, "run": None} | ({"rehearsal": True} if rehearsal else {})
        seed = _seed(project, start)
        origin = start.origin if start is not None else ""
        sent = _submission(project, seed, purpose=purpose, origin=origin, priority=priority)
        folder = _make(runs, project, remote, seed=seed, submission=sent)
        hit("submit_after_folder_made")
    if (folder.remote or {}).get("run") is not None:
        on_known(folder)
        return folder
    with connected(membership) as connection:
        hand_over(folder, connection, membership=membership, purpose=purpose, priority=priority)
    return folder


def _check_purpose(purpose: str) -> None:
    if len(purpose) > MESSAGE_CHARS_MAX:
        raise PlanError(
            "plan-bad-value",
            f"The purpose has {len(purpose)} characters. Nothing was sent.",
            f"Tell data owners in at most {MESSAGE_CHARS_MAX} what the run is for.",
        )


def _seed(project: Project | Draft, start: Start | None) -> SeedFile:
    """Make the model that a run starts from; that takes the project's code."""
    from hansa.project import build_draft
    from hansa.remote.seed import seed_model

    built = build_draft(project) if isinstance(project, Draft) else project
    return seed_file(seed_model(built, start))


def hand_over(
    folder: RunFolder,
    connection: Connection,
    *,
    membership: Membership,
    purpose: str = "",
    priority: int = 0,
) -> str:
    """Send a run that is kept here and not yet known to be at the server; return its name there.

    What was kept is signed anew: the certificate of that day may have expired.

    Args:
      purpose: instead of the kept one.
      priority: instead of the kept one, unless it is 0.

    Raises:
      RunError: the submission kept in the folder cannot be read.
      RequestRefused: the server does not take it.
    """
    with folder.locked():
        kept = _kept_submission(folder)
        kept = msgspec.structs.replace(
            kept, purpose=purpose or kept.purpose, priority=priority or kept.priority
        )
        submission = _signed(kept, membership)
        package = _package(folder, submission)
        upload(connection, package, to="blobs")
        upload(connection, folder.model_path(0), to="blobs")
        hit("submit_after_uploaded")
        facts = connection.call("POST", "/v1/runs", submission, kind=RunFacts)
        hit("submit_after_accepted")
        folder.accepted(facts.run)
    return facts.run


def _begins_with(folder: RunFolder, start: Start) -> bool:
    from hansa.runs.start import begins_with  # which compares tensors

    return begins_with(folder, start)


def _unfinished(
    runs: Path, project: Project | Draft, membership: Membership, start: Start | None
) -> RunFolder | None:
    """Return the newest unfinished run of this very plan, code, federation and given model."""
    digest = identity(project.plan, project.code)
    for run in reversed(list(all_runs(runs))):
        here = run.about["identity"] == digest and not run.rehearsed
        # A crash may have come when its end was here and its last model was not.
        here = here and (run.state == "running" or (run.state == "finished" and run.lacks_model()))
        here = here and (run.remote or {}).get("url") == membership.url
        if here and (start is None or _begins_with(run, start)):
            return run
    return None


def _make(
    runs: Path,
    project: Project | Draft,
    remote: dict[str, Any],
    *,
    seed: SeedFile,
    submission: Submission,
) -> RunFolder:
    return make_run(
        runs,
        project,
        seed,
        engine=ENGINE,
        clients=Clients(),
        origin=submission.origin,
        remote=remote,
        files={SUBMISSION_FILE: msgspec.json.encode(submission)},
    )


def _submission(
    project: Project | Draft, seed: SeedFile, *, purpose: str, origin: str, priority: int
) -> Submission:
    """Return what is sent, without its signature."""
    package = build_archive(project_files(project))
    digest = _digest(package)
    plan: dict[str, Any] = msgspec.to_builtins(project.plan)
    return Submission(
        id=os.urandom(16).hex(),
        identity=identity(project.plan, project.code),
        plan=plan,
        sources=project.sources,
        package=BlobRef(digest=digest, size=len(package)),
        seed_model=BlobRef(digest=seed.digest, size=seed.size),
        tensors=seed.tensors,
        buffers=seed.buffers,
        constants=seed.constants,
        signature="",
        certificate="",
        purpose=purpose,
        origin=origin,
        priority=priority,
    )


def _signed(submission: Submission, membership: Membership) -> Submission:
    text = submission_text(submission.identity, submission.package.digest)
    return msgspec.structs.replace(
        submission,
        signature=to_text(membership.key().sign(text)),
        certificate=membership.certificate(),
    )


def _kept_submission(folder: RunFolder) -> Submission:
    path = folder.path / SUBMISSION_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Submission)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RunError(
            "run-damaged",
            f"{path} cannot be read: {error}. Nothing was sent.",
            "Submit the project again with --new.",
        ) from None


def _package(folder: RunFolder, submission: Submission) -> bytes:
    """Return the archive once more, from the run's own copy of the project."""
    code = folder.path / "code"
    found = (path for path in code.rglob("*") if path.is_file())
    archive = build_archive({p.relative_to(code).as_posix(): p.read_bytes() for p in found})
    if _digest(archive) != submission.package.digest:
        raise RunError(
            "run-damaged",
            f"The code kept in {code} is not what was signed. Nothing was sent.",
            "Submit the project again with --new.",
        )
    return archive


def _digest(content: bytes) -> str:
    return f"blake3:{blake3(content).hexdigest()}"
