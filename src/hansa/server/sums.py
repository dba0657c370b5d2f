"""The sum of one round: updates are checked at its door, and folded as they come.

Which of them count is not decided here; see `hansa.rounds.round` and `exchange`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from hansa.aggregators import Aggregate, AggregationSpec, Aggregator, Contribution, admit, mean
from hansa.aggregators.members import Members
from hansa.clock import monotonic
from hansa.errors import AggregationError, HansaError, ParamsError, RequestRefused, UpdateRefused
from hansa.params import Params
from hansa.protocol.messages import BlobRef, Phase, TaskResult
from hansa.rounds import BUFFERS
from hansa.rounds.round import Terms
from hansa.server.round_files import Updates
from hansa.spans import Spans
from hansa.store.blobs import BlobStore
from hansa.store.client_states import ClientStates
from hansa.store.faults import disk_faults
from hansa.store.files import load_params
from hansa.transforms import Transform, chain

_UNCHANGED = chain()


class Ask(NamedTuple):
    """What a cohort is asked, and how its answers are combined."""

    run: str
    number: int
    phase: Phase
    cohort: tuple[str, ...]
    terms: Terms
    deadline_s: float
    spec: AggregationSpec | None = None  # None when answers carry no update
    aggregator: Aggregator = mean
    transform: Transform = _UNCHANGED
    most: Mapping[str, float] = {}  # weight that a client's update can have at most, where known
    steps: Mapping[str, int] = {}  # local steps of those who take others than the plan says
    settings: Mapping[str, Any] = {}  # what all are told besides
    grace_s: float | None = None  # of waiting once the minimum has answered
    questions: Mapping[str, BlobRef] = {}  # of a named task: what each client is asked
    spans: Spans | None = None  # where the times of the round are noted


class RoundSum:
    """The aggregate of a round while it grows; thread-safe.

    Args:
      ask: of the round; its spec is not None.
      updates: where sites' updates are.
      spill: where updates of rules that are not sums are kept, of this run alone.
    """

    def __init__(self, ask: Ask, updates: Updates, spill: ClientStates) -> None:
        assert ask.spec is not None
        self._ask, self._spec, self._updates, self._spill = ask, ask.spec, updates, spill
        self._lock = threading.Lock()  # of the weights
        self._fold_lock = threading.Lock()
        self._partial: Any = ask.aggregator.zero(ask.spec)
        self._weights: dict[str, Fraction] = {}  # kept free in the sum, by client or client@round
        self._weight = Fraction(0)  # of all these

    def admitted(self, client: str, result: TaskResult, *, most: float | None) -> Contribution:
        """Read an uploaded update and let it through the door, or not.

        Args:
          client: whose, or client@round for one of an earlier round.
          result: names the update and its weight.
          most: weight that this client can have, where that is known.

        Raises:
          UpdateRefused: it must not be aggregated.
          RequestRefused: it has not been uploaded.
          ServerError: server-disk-full or server-disk, one of an earlier round cannot be kept.
        """
        began = monotonic()
        updates = self._updates_of(client)
        if result.update is None or not updates.has(result.update.digest):
            raise RequestRefused(
                "update-missing",
                f"The update of {client} has not been uploaded.",
                "Upload it, then report it again.",
                status=409,
            )
        size = updates.size(result.update.digest)
        if result.update.size != size:  # a receipt says how many bytes have come
            raise UpdateRefused(
                "update-names",
                f"The update of {client} has {size} bytes, and its report says "
                f"{result.update.size}. The update was not counted.",
                "Send what the learner made, as it is.",
            )
        try:
            params = load_params(updates.path(result.update.digest))
        except ParamsError as error:
            raise UpdateRefused(
                "update-names",
                f"The update of {client} is no tensor file: {error.happened}",
                "Send what the learner made, as it is.",
            ) from None
        found = Contribution(client, decoded(params, self._ask), result.weight)
        contribution = admit(found, self._spec)
        self._harden_late(client, result.update.digest)
        self._keep_free(client, Fraction(contribution.weight), most=most)
        self._lasted(client, "select_s", began)
        return contribution

    def again(self, client: str, digest: str, *, weight: float) -> Contribution | None:
        """Return an update that counted before a crash; None if it is lost or damaged."""
        updates = self._updates_of(client)
        try:
            if not updates.intact(digest):
                return None
            params = load_params(updates.path(digest))
            found = Contribution(client, decoded(params, self._ask), weight)
            contribution = admit(found, self._spec)
            self._keep_free(client, Fraction(weight), most=None)
        except HansaError:
            return None
        return contribution

    def fold(self, contribution: Contribution) -> None:
        """Add an update that counts.

        Raises:
          ServerError: server-disk-full or server-disk, it could not be kept beside the others.
        """
        began = monotonic()
        if not self._ask.aggregator.streaming:
            number, client = self._ask.number, contribution.client
            with disk_faults(f"the update of {client}"):
                stored = self._spill.spill(client, number, contribution.vectors)
            contribution = contribution._replace(vectors=stored)
        with self._fold_lock:
            self._partial = self._ask.aggregator.add(self._partial, contribution)
        self._lasted(contribution.client, "fold_s", began)

    def partial(
        self, combiner: str, ref: BlobRef, clients: Collection[str], *, again: bool = False
    ) -> Any:
        """Read a combiner's partial sum and let it through the door, or not.

        Args:
          combiner: whose.
          ref: the uploaded sum.
          clients: whose updates are said to be in it.
          again: it counted before a crash, so its bytes are looked through once more.

        Returns:
          the sum, for `merge`.

        Raises:
          UpdateRefused: it must not be merged.
          RequestRefused: it has not been uploaded.
        """
        updates = self._updates_of(combiner)
        if not updates.has(ref.digest) or (again and not updates.intact(ref.digest)):
            raise RequestRefused(
                "update-missing",
                f"The partial sum of {combiner} has not been uploaded.",
                "Upload it, then report it again.",
                status=409,
            )
        try:
            params = load_params(updates.path(ref.digest))
            found = self._ask.aggregator.load(self._spec, params)
        except (ParamsError, AggregationError) as error:
            raise _bad_partial(combiner, error.happened) from None
        members: Members = found.members
        if members.clients != set(clients) or updates.size(ref.digest) != ref.size:
            raise _bad_partial(combiner, "it holds others than its report says")
        known = [self._ask.most.get(client) for client in clients]
        most = math.fsum(m for m in known if m is not None) if None not in known else None
        self._keep_free(combiner, members.weight, most=most)
        return found

    def merge(self, partial: Any) -> None:
        """Add a partial sum that counts."""
        with self._fold_lock:
            self._partial = self._ask.aggregator.merge(self._partial, partial)

    @property
    def weight(self) -> float:
        """Return what the updates of a sum weigh that have been folded so far."""
        members: Members = self._partial.members
        return float(members.weight)

    def dump(self) -> Params:
        """Return all that has been folded so far, as a partial sum for the server above."""
        with self._fold_lock:
            return self._ask.aggregator.dump(self._partial)

    def finish(self) -> Aggregate:
        """Return the aggregate, and let go of the sum."""
        partial, self._partial = self._partial, None
        return self._ask.aggregator.finish(partial)

    def _lasted(self, client: str, what: str, began: float) -> None:
        if self._ask.spans is not None:
            self._ask.spans.lasted(self._ask.phase, client, what, began)

    def give_up(self, label: str) -> None:
        """Give back the room of an update that does not count."""
        with self._lock:
            self._weight -= self._weights.pop(label, Fraction(0))

    def _updates_of(self, label: str) -> BlobStore:
        """Return what a client, or client@round, has uploaded for its round."""
        client, _, earlier = label.partition("@")  # no name holds one
        return self._updates.of(self._ask.run, int(earlier or self._ask.number), client)

    def _harden_late(self, label: str, digest: str) -> None:
        """Make an update of an earlier round durable: that is committed, so its site drops it."""
        client, _, earlier = label.partition("@")
        if earlier:
            self._updates.harden(self._ask.run, int(earlier), site=client, digest=digest)

    def _keep_free(self, label: str, weight: Fraction, *, most: float | None) -> None:
        """Keep room for a weight in the round's sum, which holds no more than its limit.

        Raises:
          UpdateRefused: the client cannot have so much, or the sum has no room for it.
        """
        with self._lock:
            mine = self._weights.get(label, Fraction(0))
            after = self._weight + max(weight - mine, Fraction(0))
            if after <= Fraction(self._spec.weight_limit) and (
                most is None or weight <= Fraction(most)
            ):
                self._weights[label], self._weight = max(weight, mine), after
                return
        room = f"this client can have at most {most:g}" if most else "the round has no room for it"
        raise UpdateRefused(
            "update-weight",
            f"The weight of client {label!r} is {float(weight):g}; {room}. "
            "The update was not counted.",
            "Let the client send what the plan weighs: its examples, its steps, or 1.",
        )


def _bad_partial(combiner: str, what: str) -> UpdateRefused:
    return UpdateRefused(
        "update-partial",
        f"The partial sum of {combiner} cannot be merged: {what}. None of its clients was counted.",
        "Run the same release of Hansa at the combiner and at the server above it.",
    )


def decoded(params: Params, ask: Ask) -> dict[str, Any]:
    """Return an update's vectors in the precision in which the round sums."""
    assert ask.spec is not None
    vectors = params.to_dict()
    buffers = vectors.pop(BUFFERS, None)
    declared = ask.spec.vectors
    plain = {
        name: v.astype(declared[name].dtype, copy=False)
        if name in declared and v.dtype.kind == "f"
        else v
        for name, v in ask.transform.decode(vectors).items()
    }
    return plain if buffers is None else {**plain, BUFFERS: buffers}
