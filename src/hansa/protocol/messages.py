"""Every message between a server, its sites and the people who use it, as types.

They travel as JSON, are decoded strictly against these types, and name neither code nor a class
(law L7).  Tensors travel beside them as blobs, known by digest and size.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from hansa.limits import METRIC_NAME_CHARS_MAX, METRICS_MAX

Digest = Annotated[str, Meta(pattern=r"^blake3:[0-9a-f]{64}\Z")]
"""BLAKE3 of a blob's bytes; its only address."""

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z")]
"""Of a member: a site or a person."""

RunName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,79}\Z")]
"""Of a run at its server: the plan's name and a number."""

Phase = Literal["train", "evaluate"]
"""What a cohort is asked to do."""

RunState = Literal["waiting", "running", "finished", "failed", "stopped"]
"""Of a run; the last three are final.  `waiting`: for sites, with the reason beside it."""

StandingState = Literal["ready", "waiting", "refused"]
"""What a site says of a run: it takes part, its owner has not decided, or it does not."""

Text = Annotated[str, Meta(max_length=2_000)]
"""A sentence for people."""

MetricName = Annotated[str, Meta(max_length=METRIC_NAME_CHARS_MAX)]

MetricPairs = Annotated[
    dict[MetricName, tuple[float | None, float | None]], Meta(max_length=METRICS_MAX)
]
"""Totals and weights by name; None is NaN."""


class _Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message; keys that are not known are ignored, so that releases can differ by one."""


class BlobRef(_Message, frozen=True):
    """A blob's address."""

    digest: Digest
    size: Annotated[int, Meta(ge=0)]  # bytes


class BlobChunks(_Message, frozen=True):
    """What a server has of a blob that travels in chunks."""

    size: Annotated[int, Meta(ge=0)]  # bytes of the whole
    chunk_bytes: int
    complete: bool = False
    have: list[int] = []  # numbers of the chunks that are there, while it is not complete
    digests: list[Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]] = []  # of each, once it is


class TaskKey(_Message, frozen=True):
    """Which task: there is one for each client of a round's phase."""

    run: RunName
    round: Annotated[int, Meta(ge=1)]
    phase: Phase


class Task(_Message, frozen=True):
    """What a site is asked to do."""

    key: TaskKey
    message: BlobRef  # what the algorithm broadcasts: vectors, as a tensor file
    attempt: int = 1  # above 1: the server lost or never had the result; send it again
    steps: Annotated[int, Meta(ge=1)] | None = None  # local steps of `train`; None: the plan's


class Offer(_Message, frozen=True):
    """A run that a site may take part in, with all that its owner needs in order to decide."""

    run: RunName
    identity: Digest  # of plan and code; what an approval is bound to
    plan: dict[str, Any]  # every value, as `Plan`
    package: BlobRef  # the project's code, as an archive
    tensors: list[tuple[str, str, list[int]]]  # the model: names, dtypes, shapes
    buffers: list[str]  # names of those that are not trained
    submitter: Name
    certificate: str  # of the submitter, PEM
    signature: str  # base64url Ed25519 over `submission_text(identity, package digest)`
    purpose: Text = ""  # in the submitter's words


class Poll(_Message, frozen=True):
    """What a site says each time it asks: it is alive, and this is what it has."""

    holding: list[TaskKey] = []  # at work, or waiting to be sent
    runs: list[RunName] = []  # whose standing it has reported, and which it has not forgotten
    version: Annotated[str, Meta(max_length=40)] = ""
    wait: bool = True  # False: answer at once


class Committed(_Message, frozen=True):
    """A round whose updates need not be kept any longer."""

    run: RunName
    round: int


class PollAnswer(_Message, frozen=True):
    """What a site shall do."""

    offers: list[Offer] = []
    tasks: list[Task] = []
    cancelled: list[TaskKey] = []  # of those it holds: closed, or never given out
    committed: list[Committed] = []
    ended: list[RunName] = []  # of those it named: over, or not known here
    again_s: float = 0.0  # wait so long before the next poll; the server's word against storms
    heartbeat_s: float = 5.0  # a site that is not heard of for two of these counts as lost


class Standing(_Message, frozen=True):
    """A site's word on a run."""

    state: StandingState
    reason: Text = ""  # for people, of `waiting` and `refused`
    examples: Annotated[int, Meta(ge=0)] = 0  # rows of training and validation, of `ready`


class Effort(_Message, frozen=True):
    """How long a site was at a task, by its own clock; it decides nothing."""

    wait_s: Annotated[float, Meta(ge=0)] = 0.0  # from hearing of the task to beginning with it
    work_s: Annotated[float, Meta(ge=0)] = 0.0  # in the worker
    steps: Annotated[int, Meta(ge=0)] = 0  # local steps that were taken
    epoch_steps: Annotated[int, Meta(ge=0)] = 0  # local steps of one pass over the examples


class TaskResult(_Message, frozen=True):
    """What came of a task."""

    state: Literal["done", "failed"]
    metrics: MetricPairs = {}
    update: BlobRef | None = None  # of `train`, once it is uploaded
    weight: float = 0.0
    code: Annotated[str, Meta(max_length=80)] = ""  # of `failed`
    reason: Text = ""  # of `failed`; a traceback stays with the data owner
    effort: Effort | None = None  # of `done`


class Receipt(_Message, frozen=True):
    """The server's signed word that a result counts, and is never counted twice."""

    run: RunName
    round: int
    phase: Phase
    client: Name
    digest: str  # of the update, or of the metrics' canonical JSON
    size: int  # bytes of the update, 0 for metrics
    at: str
    signature: str = ""  # base64url Ed25519 over the rest, by the server's receipt key


class Submission(_Message, frozen=True, kw_only=True):
    """A run to be done."""

    id: Annotated[
        str, Meta(pattern=r"^[0-9a-f]{32}\Z")
    ]  # chosen by the submitter: sent twice, run once
    identity: Digest
    plan: dict[str, Any]
    sources: dict[str, str] = {}
    package: BlobRef
    seed_model: BlobRef
    tensors: list[tuple[str, str, list[int]]]
    buffers: list[str]
    signature: str
    certificate: str
    purpose: Text = ""


class SiteStanding(_Message, frozen=True):
    """One site's part in a run, for people."""

    site: Name
    state: Literal["ready", "waiting", "refused", "not-asked"]
    reason: str = ""
    online: bool = False


class RunFacts(_Message, frozen=True):
    """A run at its server."""

    run: RunName
    state: RunState
    reason: str = ""  # why it waits, or how it ended
    name: str = ""  # the plan's
    submitter: str = ""
    created: str = ""
    ended: str = ""
    rounds_done: int = 0
    rounds: int = 0
    sites: list[SiteStanding] = []


class RunDetails(_Message, frozen=True):
    """A run with what is needed to follow it into a run folder."""

    facts: RunFacts
    submission: Submission
    hansa: str  # the server's version


class EventPage(_Message, frozen=True):
    """Events of a run from a position on; empty after the wait if nothing has happened."""

    events: list[dict[str, Any]]
    next: int  # ask from here
    state: RunState


class Enrolment(_Message, frozen=True):
    """Redeems an invitation."""

    token: Annotated[str, Meta(max_length=80)]
    public_key: Annotated[str, Meta(max_length=80)]  # base64url, 32 bytes
    proof: Annotated[str, Meta(max_length=120)]  # by that key over `enrolment_text(token)`
    kind: Literal["site", "person"] | None = None  # what it would be; None: as it was invited


class Enrolled(_Message, frozen=True):
    """Answers an enrolment, and a renewal."""

    name: Name
    role: str
    certificate: str  # PEM
    authority: str  # PEM of the federation's CA
    receipt_key: str  # base64url public key that signs receipts
    federation: str  # name of the federation, for people


class SessionRequest(_Message, frozen=True):
    """Opens a session: shows who asks; the proofs of its requests show it is true."""

    certificate: Annotated[str, Meta(max_length=4_000)]


class SessionAnswer(_Message, frozen=True):
    """A session; requests carry it with a counter that never repeats."""

    session: str
    seconds: float  # it ends then; open another


class ErrorAnswer(_Message, frozen=True):
    """Every refusal."""

    error: dict[str, str]  # code, message, hint
