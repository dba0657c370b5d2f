"""Every message between a server, its sites and the people who use it, as types.

They travel as JSON, are decoded strictly against these types, and name neither code nor a class
(law L7).  Tensors travel beside them as blobs, known by digest and size.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from hansa.limits import (
    ATTRIBUTE_CHARS_MAX,
    ATTRIBUTES_MAX,
    COMBINER_SITES_MAX,
    EFFORT_S_MAX,
    LOCAL_STEPS_MAX,
    METRIC_NAME_CHARS_MAX,
    METRICS_MAX,
    PRIORITY_MAX,
    RESOURCES_MAX,
    SLOTS_MAX,
)

Digest = Annotated[str, Meta(pattern=r"^blake3:[0-9a-f]{64}\Z")]
"""BLAKE3 of a blob's bytes; its only address."""

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z")]
"""Of a member: a site or a person."""

RunName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,79}\Z")]
"""Of a run at its server: the plan's name and a number."""

Phase = Annotated[
    str, Meta(pattern=r"^(train|evaluate|ask\.[A-Za-z][A-Za-z0-9_-]{0,63}\.(0|[1-9][0-9]{0,5}))\Z")
]
"""What a cohort is asked to do: to train, to evaluate, or a named task and its step; see
`hansa.rounds.questions.phase_of`."""

RunState = Literal["waiting", "running", "finished", "failed", "stopped"]
"""Of a run; the last three are final.  `waiting`: for sites, with the reason beside it."""

ENDED: tuple[RunState, ...] = ("finished", "failed", "stopped")
"""The states that are final."""

StandingState = Literal["ready", "waiting", "refused"]
"""What a site says of a run: it takes part, its owner has not decided, or it does not."""

Text = Annotated[str, Meta(max_length=2_000)]
"""A sentence for people."""

Attributes = Annotated[
    dict[
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")],
        Annotated[str, Meta(max_length=ATTRIBUTE_CHARS_MAX)],
    ],
    Meta(max_length=ATTRIBUTES_MAX),
]
"""What a site says of itself: text by name."""
Resource = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,31}\Z")]
"""Name of what a site has several of, such as gpu."""

Slots = Annotated[
    dict[Resource, Annotated[int, Meta(ge=1, le=SLOTS_MAX)]], Meta(max_length=RESOURCES_MAX)
]
"""How many there are of each resource, or how many are asked for."""

Priority = Annotated[int, Meta(ge=-PRIORITY_MAX, le=PRIORITY_MAX)]
"""Of a run among those that wait: each step counts as if it had waited so much longer."""

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


class Fold(_Message, frozen=True):
    """What a combiner must know to fold a task's results as the server above it would."""

    clients: Annotated[list[Name], Meta(max_length=COMBINER_SITES_MAX)]  # of its own that are asked
    weight_limit: float  # of the whole round: it fixes the binary point of every sum
    seconds: float  # until the round's time is over there
    minimum: Annotated[int, Meta(ge=0)] = 0
    """of these clients, without whom the round would be in vain even if all others answer"""
    most: dict[Name, float] = {}  # weight that a client's update can have, where known
    steps: dict[Name, int] = {}  # local steps of those who take others than the plan says


class Task(_Message, frozen=True):
    """What a site is asked to do."""

    key: TaskKey
    message: BlobRef  # what the algorithm broadcasts, or a question: vectors, as a tensor file
    attempt: int = 1  # above 1: the server lost or never had the result; send it again
    steps: Annotated[int, Meta(ge=1)] | None = None  # local steps of `train`; None: the plan's
    settings: dict[str, Any] = {}  # what the cohort is told besides, from server functions
    fold: Fold | None = None  # of a combiner: which of its sites do it


class Offer(_Message, frozen=True):
    """A run that a site may take part in, with all that its owner needs in order to decide."""

    run: RunName
    identity: Digest  # of plan and code; what an approval is bound to
    plan: dict[str, Any]  # every value, as `Plan`
    package: BlobRef  # the project's code, as an archive
    tensors: list[tuple[str, str, list[int]]]  # the model: names, dtypes, shapes
    buffers: list[str]  # names of those that are averaged and not trained
    submitter: Name
    certificate: str  # of the submitter, PEM
    signature: str  # base64url Ed25519 over `submission_text(identity, package digest)`
    purpose: Text = ""  # in the submitter's words
    constants: list[str] = []  # names of tensors that never change: no update has them


class Poll(_Message, frozen=True):
    """What a site says each time it asks: it is alive, and this is what it has."""

    # Tuples, for an empty one takes no memory at a server of many idle sites.
    holding: tuple[TaskKey, ...] = ()  # at work, or waiting to be sent
    runs: tuple[RunName, ...] = ()  # whose standing it has reported, and which it has not forgotten
    version: Annotated[str, Meta(max_length=40)] = ""
    attributes: Attributes = {}  # as its owner has declared them
    wait: bool = True  # False: answer at once
    resources: Slots = {}  # that the site can lend to runs
    sites: Annotated[tuple[Name, ...], Meta(max_length=COMBINER_SITES_MAX)] = ()
    """of a combiner: who is there behind it"""
    instance: Annotated[str, Meta(max_length=32)] = ""  # drawn by the agent at its start


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
    taken: list[Name] = []  # of a combiner's sites: names that another has, so they are not asked
    twice: bool = False  # another agent has used the same key lately


class Standing(_Message, frozen=True):
    """A site's word on a run."""

    state: StandingState
    reason: Text = ""  # for people, of `waiting` and `refused`
    examples: Annotated[int, Meta(ge=0)] = 0  # rows there are, of `ready`; 0: not counted


class Effort(_Message, frozen=True):
    """How long a site was at a task, by its own clock; it decides nothing."""

    wait_s: Annotated[float, Meta(ge=0, le=EFFORT_S_MAX)] = (
        0.0  # from hearing of the task to beginning with it
    )
    work_s: Annotated[float, Meta(ge=0, le=EFFORT_S_MAX)] = 0.0  # in the worker
    steps: Annotated[int, Meta(ge=0, le=LOCAL_STEPS_MAX)] = 0  # local steps that were taken
    epoch_steps: Annotated[int, Meta(ge=0, le=LOCAL_STEPS_MAX)] = (
        0  # local steps of one pass over the examples
    )


class TaskResult(_Message, frozen=True):
    """What came of a task."""

    state: Literal["done", "failed"]
    metrics: MetricPairs = {}
    update: BlobRef | None = None  # of `train` and of named tasks, once it is uploaded
    weight: float = 0.0
    code: Annotated[str, Meta(max_length=80)] = ""  # of `failed`
    reason: Text = ""  # of `failed`; a traceback stays with the data owner
    effort: Effort | None = None  # of `done`


class Standings(_Message, frozen=True):
    """What sites behind a combiner say of a run."""

    sites: Annotated[dict[Name, Standing], Meta(max_length=COMBINER_SITES_MAX)]


class Unable(_Message, frozen=True):
    """Why a client behind a combiner does not count."""

    code: Annotated[str, Meta(max_length=80)]
    reason: Text = ""
    refused: bool = False  # its update could not be aggregated; otherwise it gave none


class Partial(_Message, frozen=True):
    """What came of a task at a combiner: one sum, and who is in it."""

    metrics: Annotated[dict[Name, MetricPairs], Meta(max_length=COMBINER_SITES_MAX)] = {}
    """by client, of all those that count"""
    problems: Annotated[dict[Name, Unable], Meta(max_length=COMBINER_SITES_MAX)] = {}
    update: BlobRef | None = None  # the partial sum of `train`, once it is uploaded
    weight: float = 0.0  # of all that are in it together


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
    constants: list[str] = []
    signature: str
    certificate: str
    purpose: Text = ""
    origin: Text = ""  # the model that the seed is, RUN:ROUND at this server, or other words
    priority: Priority = 0


class ModelFacts(_Message, frozen=True):
    """One committed global model of the trail."""

    run: RunName
    round: Annotated[int, Meta(ge=0)]  # 0: the seed model
    digest: Digest
    size: int = 0  # bytes of its file
    at: str = ""
    origin: str = ""  # of a seed model: what it was taken from, RUN:ROUND or a file
    kept: bool = True  # whether its tensors are still there
    clients: int = 0  # whose updates are in it
    metric: str = ""  # that the run is judged by, where it was measured
    value: float | None = None
    best: bool = False  # the best of its run when it was committed

    @property
    def name(self) -> str:
        """What commands call it."""
        return f"{self.run}:{self.round}"


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


class RunPage(_Message, frozen=True):
    """Runs from a position on, the oldest first."""

    runs: list[RunFacts]
    next: int | None = None  # ask from here; None: these were the last


class RunDetails(_Message, frozen=True):
    """A run with what is needed to follow it into a run folder."""

    facts: RunFacts
    submission: Submission
    hansa: str  # the server's version


class ModelPage(_Message, frozen=True):
    """Models from a position on, run by run, the oldest run first."""

    models: list[ModelFacts]
    next: int | None = None  # ask from here; None: these were the last


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
    kind: Literal["site", "combiner", "person"] | None = (
        None  # what it would be; None: as it was invited
    )


class Enrolled(_Message, frozen=True):
    """Answers an enrolment, and a renewal."""

    name: Name
    role: str
    certificate: str  # PEM
    authority: str  # PEM of the federation's CA
    receipt_key: str  # base64url public key that signs receipts
    federation: str  # name of the federation, for people
    submitters: str = ""  # PEM of the CA that certifies submitters, where it is another: a combiner


class SessionRequest(_Message, frozen=True):
    """Opens a session: shows who asks; the proofs of its requests show it is true."""

    certificate: Annotated[str, Meta(max_length=4_000)]


class SessionAnswer(_Message, frozen=True):
    """A session; requests carry it with a counter that never repeats."""

    session: str
    seconds: float  # it ends then; open another
    renew: bool = False  # half of the certificate's time is over, by the server's clock


class ErrorAnswer(_Message, frozen=True):
    """Every refusal."""

    error: dict[str, str]  # code, message, hint
