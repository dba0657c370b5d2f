"""The door for runs: what is submitted is checked whole before it is recorded (law L11)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from hansa.code import MADE_IN_PYTHON, identity
from hansa.errors import (
    HansaError,
    IdentityError,
    PackageError,
    PlanError,
    RunError,
    ServerError,
)
from hansa.functions import Place, with_functions
from hansa.hosting.confined import Limits
from hansa.hosting.process import Log
from hansa.hosting.sandbox import trouble
from hansa.identity import Authority, check_certificate, submission_text, verify
from hansa.identity.keys import from_text
from hansa.limits import FUNCTION_MEMORY_MB, FUNCTION_PROCESSES_MAX, PLAN_BYTES_MAX
from hansa.own import Model, check_files, own_parts, with_own
from hansa.own.naming import at_server
from hansa.packages import read_archive
from hansa.params import Layout
from hansa.params.model import ModelLayout
from hansa.plan import Method, Plan, build_method, check_plan
from hansa.plan.load import PLAN_FILE
from hansa.protocol.messages import BlobRef, Submission
from hansa.rounds import largest_parameter
from hansa.server.run_models import layout_of
from hansa.store.blobs import BlobStore
from hansa.store.files import load_params
from hansa.workflows import Workflow, build_workflow

FUNCTIONS_FOLDER = "functions"
"""In a server's folder: the code of server functions while they run; emptied at each start."""


class Serving(NamedTuple):
    """What an operator lets server functions do, and code of a project that a plan names."""

    allowed: str = "refused"  # as in `ServerSettings.server_functions`
    memory_mb: int = FUNCTION_MEMORY_MB
    folder: Path | None = None  # of the server, which they never see; what they print is kept there
    wanted: Callable[[], bool] = lambda: True  # as in `Place`

    def place(self, code: Mapping[str, bytes], own: str = "") -> Place:
        """Return where functions of this code run, or the parts of a plan that are its own.

        Args:
          code: of the project.
          own: such a part, in words, where the plan has one.

        Raises:
          ServerError: function-refused, the operator allows none, or there is no sandbox.
        """
        if self.allowed == "refused":
            what = f"{own}, code of the project" if own else "The plan has server functions"
            raise ServerError(
                "function-refused",
                f"{what}, and this server runs none. Nothing of it was run.",
                "Use what comes with Hansa, simulate the plan with hansa run without --on, or ask "
                'the operator for server_functions = "sandboxed" in server.toml.',
            )
        if (why := trouble()) is not None and self.allowed == "sandboxed":
            raise ServerError(
                "function-refused",
                f"This server runs code of a project in a sandbox only, and has none: {why}. "
                "Nothing of it was run.",
                "Its operator installs bubblewrap and lets it make namespaces.",
            )
        processes = FUNCTION_PROCESSES_MAX if why is None else None
        limits = Limits(self.memory_mb, None, processes)
        if self.folder is None:
            return Place(code, why is None, limits=limits, wanted=self.wanted)
        log = Log(self.folder / "functions.log")
        scratch = self.folder / FUNCTIONS_FOLDER
        hidden = (self.folder.resolve(),)
        return Place(code, why is None, hidden, limits, log, scratch, self.wanted)


def read_plan(
    submission: Submission, blobs: BlobStore, serving: Serving
) -> tuple[Plan, Method, Workflow]:
    """Return a submitted plan, and what it names, with its server functions.

    Code of the project runs in a process of its own, also to find out what parts it makes.

    Raises:
      PlanError: it cannot run, or not on a federation.
      RunError: function-failed or function-time, its own parts cannot be made.
      ServerError: function-refused.
    """
    plan = _plan_of(submission.plan)
    if any(own_parts(plan)):
        place = _place_of(plan, submission, blobs, serving)
        fixed = layout_of(submission, blobs).fixed
        model = Model(submission.tensors, submission.buffers, submission.constants, fixed)
        return plan, *with_own(plan, place, model)
    plan, method, workflow = read_method(submission.plan)
    if plan.server_functions.file is None:
        return plan, method, workflow
    place = _place_of(plan, submission, blobs, serving)
    return plan, *with_functions(plan, method, workflow, place)


def _place_of(plan: Plan, submission: Submission, blobs: BlobStore, serving: Serving) -> Place:
    """Return where code of a submitted package runs.

    Raises:
      ServerError: function-refused, before the package is read.
    """
    own = own_parts(plan)
    place = serving.place({}, own.told() if any(own) else "")
    return place._replace(code=read_archive(blobs.path(submission.package.digest)))


def _check_runs(submission: Submission, blobs: BlobStore, serving: Serving) -> Plan:
    """Return a submitted plan that can run, as far as that is known without running its code.

    Whoever submits is not kept waiting by code, nor holds up the door with it: parts that cannot be
    made, or do not work together, end their run, and the sentence is that of a simulation.

    Raises:
      HansaError: as `read_plan`.
    """
    plan = _plan_of(submission.plan)
    if not any(own := own_parts(plan)):
        plan, _, _ = read_plan(submission, blobs, serving)
        return plan
    check_files(own, _place_of(plan, submission, blobs, serving).code)
    return plan


def read_method(table: dict[str, Any]) -> tuple[Plan, Method, Workflow]:
    """Return a submitted plan, and what it names of Hansa's own.

    Raises:
      PlanError: it cannot run, or not on a federation, or names code of its project.
    """
    plan = _plan_of(table)

    def no_code(name: str) -> Any:
        raise PlanError(
            "plan-impossible",
            f"The plan takes a method from {name}, code of the project, which runs at the server "
            "that the run was submitted to and nowhere else.",
            "Use a method that comes with Hansa, or simulate: hansa run without --on",
        )

    method = build_method(at_server(plan), no_code)
    return plan, method, build_workflow(plan, method, no_code)


def _plan_of(table: dict[str, Any]) -> Plan:
    """Return a submitted plan.

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
    return plan


def check_submission(
    submission: Submission,
    submitter: str,
    *,
    authority: Authority,
    blobs: BlobStore,
    serving: Serving,
    at: float,
) -> Plan:
    """Return the plan of a submission that can run.

    Args:
      submission: what was sent.
      submitter: who has sent it, as proven by the request.
      authority: of the federation.
      blobs: where package and seed model must be already.
      serving: what the operator lets server functions do.
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
    _check_signature(submission, submitter, authority=authority, at=at)
    check_uploaded(submission, blobs)
    plan = _check_runs(submission, blobs, serving)
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
    layout = ModelLayout(Layout.of(tensors), submission.buffers, submission.constants)
    seed = load_params(blobs.path(submission.seed_model.digest))
    if seed.layout != layout.layout or layout.constants.keys() != set(submission.constants):
        raise RunError(
            "run-damaged",
            "The seed model's tensors are not those that the submission declares. Nothing was "
            "recorded.",
            "Submit again with the same release of Hansa on both sides.",
        )
    x, buffers = layout.split(seed)
    try:
        largest_parameter(x)
        sound = bool(np.isfinite(buffers).all())
    except RunError:
        sound = False
    if not sound:
        told = (*layout.trained, *layout.buffers)  # what updates have
        odd = [name for name in told if not np.isfinite(seed[name].astype(np.float64)).all()]
        where = f"'s tensor {odd[0]!r:.80}" if odd else ""
        raise RunError(
            "run-diverged",
            f"The seed model{where} holds NaN, infinity or values too large to sum. "
            "Nothing was recorded.",
            "Correct what makes it, or start from a sound model.",
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
