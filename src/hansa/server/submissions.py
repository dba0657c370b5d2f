"""The door for runs: what is submitted is checked whole before it is recorded (law L11)."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from hansa.errors import HansaError, IdentityError, PackageError, PlanError, RunError
from hansa.identity import Authority, check_certificate, submission_text, verify
from hansa.identity.keys import from_text
from hansa.limits import PLAN_BYTES_MAX
from hansa.packages import read_archive
from hansa.params import Layout
from hansa.params.model import ModelLayout
from hansa.plan import Method, Plan, build_method, check_plan
from hansa.plan.load import PLAN_FILE
from hansa.project import MADE_IN_PYTHON, identity
from hansa.protocol.messages import BlobRef, Submission
from hansa.rounds import largest_parameter
from hansa.store.blobs import BlobStore
from hansa.store.files import load_params
from hansa.workflows import Workflow, build_workflow


def read_plan(table: dict[str, Any]) -> tuple[Plan, Method, Workflow]:
    """Return a submitted plan, and what it names; project code never runs at a server.

    Raises:
      PlanError: it cannot run, or not on a federation.
    """
    try:
        plan = msgspec.convert(table, Plan)
    except msgspec.ValidationError as error:
        raise PlanError(
            "plan-bad-value",
            f"The submitted plan cannot be read: {error}. Nothing was recorded.",
            "Use the server's release of Hansa, or one beside it.",
        ) from None
    check_plan(plan)
    if plan.learner.kind == MADE_IN_PYTHON:
        raise PlanError(
            "plan-impossible",
            "The plan's learner was made in Python; sites could not make it again.",
            "Put the code into a project folder: hansa init my-study",
        )

    if plan.keep.store == "memory":
        raise PlanError(
            "plan-impossible",
            'The plan says keep.store = "memory", which is the memory of a simulation; a server '
            "may be restarted at any time. Nothing was recorded.",
            'Use keep.store = "disk", or "redis" if the server has one.',
        )

    def no_code(name: str) -> Any:
        raise PlanError(
            "plan-impossible",
            f"The plan takes a method from {name}; a server runs no code of a project.",
            "Use a method that comes with Hansa, or simulate: hansa run without --on",
        )

    method = build_method(plan, no_code)
    return plan, method, build_workflow(plan, method, no_code)


def check_submission(
    submission: Submission, submitter: str, *, authority: Authority, blobs: BlobStore, at: float
) -> Plan:
    """Return the plan of a submission that can run.

    Args:
      submission: what was sent.
      submitter: who has sent it, as proven by the request.
      authority: of the federation.
      blobs: where package and seed model must be already.
      at: seconds since the epoch, for the certificate.

    Raises:
      HansaError: something is missing, does not fit, or was signed by somebody else.
    """
    if len(msgspec.json.encode(submission.plan)) > PLAN_BYTES_MAX:
        raise PlanError(
            "plan-bad-value",
            f"The submitted plan is longer than {PLAN_BYTES_MAX} bytes. Nothing was recorded.",
            "Leave out what it does not need.",
        )
    plan, _, _ = read_plan(submission.plan)
    _check_signature(submission, submitter, authority=authority, at=at)
    check_uploaded(submission, blobs)
    _check_package(submission, plan, blobs)
    _check_seed(submission, blobs)
    return plan


def _check_signature(
    submission: Submission, submitter: str, *, authority: Authority, at: float
) -> None:
    certificate = check_certificate(submission.certificate, authority.pem, at=at)
    if certificate.name != submitter:
        raise IdentityError(
            "identity-signature",
            f"The submission bears the certificate of {certificate.name} and was sent by "
            f"{submitter}. Nothing was recorded.",
            "Submit under your own name.",
        )
    text = submission_text(submission.identity, submission.package.digest)
    try:
        signature = from_text(submission.signature)
    except ValueError:
        signature = b""
    verify(certificate.public, signature, text)


def check_uploaded(submission: Submission, blobs: BlobStore) -> None:
    """Refuse a submission whose package or seed model is not there; reads neither.

    Raises:
      HansaError: one is missing, or has another size than the submission says.
    """
    _check_there(blobs, submission.package, "package")
    _check_there(blobs, submission.seed_model, "seed model")


def _check_package(submission: Submission, plan: Plan, blobs: BlobStore) -> None:
    files = read_archive(blobs.path(submission.package.digest))
    code = {name: content for name, content in files.items() if name != PLAN_FILE}
    if identity(plan, code) != submission.identity:
        raise PackageError(
            "package-identity",
            f"The package and the plan make {identity(plan, code)[:19]}, and the submission says "
            f"{submission.identity[:19]}. Nothing was recorded.",
            "Submit again with the same release of Hansa on both sides.",
        )


def _check_seed(submission: Submission, blobs: BlobStore) -> None:
    tensors = ((n, d, tuple(shape)) for n, d, shape in submission.tensors)
    layout = ModelLayout(Layout.of(tensors), submission.buffers)
    seed = load_params(blobs.path(submission.seed_model.digest))
    if seed.layout != layout.layout:
        raise RunError(
            "run-damaged",
            "The seed model's tensors are not those that the submission declares. Nothing was "
            "recorded.",
            "Submit again with the same release of Hansa on both sides.",
        )
    x, buffers = layout.split(seed)
    largest_parameter(x)
    if not np.isfinite(buffers).all():
        raise RunError(
            "run-diverged",
            "The seed model's buffers hold NaN or infinity. Nothing was recorded.",
            "Start from a sound model.",
        )


def _check_there(blobs: BlobStore, ref: BlobRef, what: str) -> None:
    if not blobs.has(ref.digest):
        raise HansaError(
            "blob-missing",
            f"The submission's {what} {ref.digest[:19]} has not been uploaded. "
            "Nothing was recorded.",
            "Upload it, then submit again.",
        )
    size = blobs.size(ref.digest)
    if size != ref.size:  # sites fetch as many bytes as they are told
        raise HansaError(
            "blob-digest",
            f"The submission's {what} has {size} bytes, and the submission says {ref.size}. "
            "Nothing was recorded.",
            "Submit again with the same release of Hansa on both sides.",
        )
