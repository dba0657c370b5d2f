"""The files of one run's models: what is committed, what is held of clients, what sites fetch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from hansa.aggregators.aggregator import Vector
from hansa.algorithms import Algorithm, Vectors
from hansa.clock import monotonic
from hansa.failpoints import hit
from hansa.limits import AT_WORK_MAX
from hansa.params import Layout, Params, decode, encode
from hansa.params.model import ModelLayout
from hansa.protocol.messages import BlobRef, Submission
from hansa.rounds.messages import is_model, to_message
from hansa.server.exchange import Interrupted
from hansa.server.journal import HELD, EndedError, Event, Journal
from hansa.server.keeping import Keeping
from hansa.server.round_files import Stores
from hansa.spans import Spans, model_facts
from hansa.store.addresses import digest_of
from hansa.store.blobs import BlobStore
from hansa.store.files import load_params
from hansa.workflows import Commit, GlobalState
from hansa.workflows.state_files import from_files, to_files

File = tuple[bytes, memoryview]


def layout_of(submission: Submission, blobs: BlobStore) -> ModelLayout:
    """Return a run's model; its constants are the seed's, which is kept as long as the run."""
    tensors = ((n, d, tuple(shape)) for n, d, shape in submission.tensors)
    layout = ModelLayout(Layout.of(tensors), submission.buffers, submission.constants)
    if not submission.constants:
        return layout
    return layout.holding(load_params(blobs.path(submission.seed_model.digest)))


class _Held(NamedTuple):
    """Vectors of one client among the server's models."""

    key: int  # in the trail; 0 until the first commit that holds it
    digest: str
    file: File | None = None  # until that commit


class RunModels:
    """The models of one run; of its thread.

    Args:
      run: its name.
      layout: of the model.
      algorithm: whose state is kept.
      stores: of the server.
      journal: of the server.
      keeping: which of them stay, and where else.
      spans: where the times of the round are noted.
    """

    def __init__(
        self,
        run: str,
        layout: ModelLayout,
        algorithm: Algorithm,
        *,
        stores: Stores,
        journal: Journal,
        keeping: Keeping,
        spans: Spans,
    ) -> None:
        self.run, self.layout, self._algorithm = run, layout, algorithm
        self._stores, self._journal = stores, journal
        self._keeping, self._spans = keeping, spans
        self._facts: dict[str, Any] | None = None  # of the model that is evaluated
        self.last = BlobRef(digest=digest_of(b""), size=0)  # the committed one
        self._last_state: GlobalState | None = None
        self._used: dict[int, BlobRef] = {}  # from which somebody at work began, by round
        self._held: dict[tuple[str, int], _Held] = {}
        self._light: list[str] = []  # digests of files that may be fetched by two names
        self._messages: list[str] = []  # digests of those that are still there
        self._old_messages: list[str] = []  # of rounds that are committed

    def resume(self, event: Event) -> GlobalState:
        """Return the state of a commit, read back from its files; go on from there."""
        model = self._stored(event["model"])
        extra = None if event["state"] is None else self._stored(event["state"])
        state = from_files(self._algorithm, self.layout, model=model, extra=extra)
        self.last = BlobRef(digest=event["model"], size=event["model_size"])
        self._held = {(c, n): _Held(*rest) for c, (n, *rest) in event.get("held", {}).items()}
        return state

    def recall(self, number: int) -> GlobalState:
        """Return a model that was kept, read back from its file."""
        model = self._stored(self.of(number).digest)
        return from_files(self._algorithm, self.layout, model=model, extra=None)

    def of(self, number: int) -> BlobRef:
        """Return where the model of a round is that was kept."""
        if number not in self._used:
            events = self._journal.all_events(self.run, "committed")
            event = next(e for e in events if e["round"] == number)
            return BlobRef(digest=event["model"], size=event["model_size"])
        return self._used[number]

    def use(self, number: int) -> None:
        """Note that clients begin with the last model, which is of this round."""
        self._used[number] = self.last

    def hold(self, client: str, number: int, vectors: Mapping[str, Vector]) -> None:
        """Keep vectors of a client, for as long as commits name them."""
        file = encode(Params.of(dict(vectors)))
        self._held[client, number] = _Held(0, digest_of(*file), file)

    def held(self, client: str, number: int) -> Mapping[str, Vector]:
        """Return what was held."""
        found = self._held[client, number]
        if found.file is not None:
            return decode(b"".join(found.file)).to_dict()
        return self._stored(found.digest).to_dict()

    def record(
        self,
        commit: Commit,
        closings: Sequence[Event],
        *,
        elapsed: float,
        settle: Callable[[], None],
    ) -> Callable[[], None]:
        """Write the model, so that sites can fetch it; return what makes the commit durable.

        That must be called before anything else of the run is recorded.  It raises Interrupted if
        the run was stopped meanwhile.

        Args:
          commit: the round.
          closings: of its exchanges, as far as they are not recorded.
          elapsed: seconds of work so far.
          settle: waits until all updates are durable that are in the model.
        """
        blobs, held, began = self._stores.blobs, self._held_by(commit), monotonic()
        model, extra = to_files(self.layout, commit.state)
        files = [encode(params) for params in (model, extra) if params is not None]
        (digest, size), *others = [blobs.put_bytes(file, durable=False) for file in files]
        needed = {found.digest: found.file for found in held.values() if found.file is not None}
        for file in needed.values():
            blobs.put_bytes(file, durable=False)
        needed |= zip((digest, *(other for other, _ in others)), files, strict=True)
        facts = {
            "kind": "committed",
            "round": commit.round,
            "model": digest,
            "model_size": size,
            "state": others[0][0] if others else None,
            "row": commit.row,
            "progress": commit.progress,
            "elapsed": elapsed,
        }
        if commit.at_work:
            facts["at_work"] = {client: work.round for client, work in commit.at_work.items()}
        if held:
            facts["held"] = {c: [n, *found[:2]] for (c, n), found in held.items()}
        keep = self._keeps(commit, {found.key for found in held.values()})
        self._keeping.add_global(commit)
        saved = self._spans.note("save", began)
        settle()
        known, self._facts = self._facts, None
        timed = self._spans.close(commit.round)
        self.last, self._last_state = BlobRef(digest=digest, size=size), commit.state
        self._held = {at: found._replace(file=None) for at, found in held.items()}
        self._used = {n: ref for n, ref in self._used.items() if n in commit.needs}

        def make_durable() -> None:
            saved.update(known or model_facts(model))
            self._make_durable(needed, (*closings, timed, facts), keep)

        return make_durable

    def _make_durable(
        self, needed: Mapping[str, File], facts: Sequence[Event], keep: Callable[[int], bool]
    ) -> None:
        """Synchronise the files, then record the commit, then remove what no run needs any longer.

        Raises:
          Interrupted: the run was stopped meanwhile.
        """
        self._harden(needed)
        hit("after_model_written")
        # Between finding that a model is there and recording that this run needs it, no other
        # run may remove it; writing it may take long, so that was done before.
        with self._stores.trail:
            self._harden(needed)
            try:
                stale = self._journal.commit(self.run, *facts, keep=keep)
            except EndedError:
                raise Interrupted from None  # stopped meanwhile
            for old in stale:
                self._stores.let_go(old)
        self.close()  # sites have fetched what was committed before
        self._light = list(needed)

    def _harden(self, needed: Mapping[str, File]) -> None:
        for digest, file in needed.items():
            if not self._stores.blobs.harden(digest):
                self._stores.blobs.put_bytes(file)

    def close(self) -> None:
        """Leave each file of the last commit the one name that it will keep."""
        for digest in self._light:
            self._stores.blobs.settle(digest)
        self._light.clear()

    def look_at(self, state: GlobalState) -> None:
        """Count what a commit says of its model, while sites evaluate that."""
        self._facts = model_facts(to_files(self.layout, state)[0])

    def message_ref(self, state: GlobalState, message: Vectors) -> BlobRef:
        """Return a message's address, under which sites can fetch it from now on."""
        same = state is self._last_state and message.x is state.algorithm.x
        if same and is_model(self.layout, message):  # most often, and then nothing need be done
            return self.last
        return self._placed(encode(to_message(self.layout, message)))

    def outdate(self) -> None:
        """Note that the messages of the round that was committed will not be fetched again."""
        self._old_messages += self._messages[:-1]
        del self._messages[:-1]

    def forget_messages(self) -> None:
        """Remove messages that nobody will fetch again."""
        self._stores.messages.drop(self.run, self._old_messages)
        self._old_messages.clear()

    def _placed(self, message: File) -> BlobRef:
        """Put a message where sites can fetch it; the committed model is there already.

        Another run's model may be equal, but it goes when that run no longer needs it.
        """
        digest, size = digest_of(*message), sum(len(part) for part in message)
        if digest != self.last.digest:
            self._stores.messages.put(self.run, digest, message)
            self._messages = [d for d in self._messages if d != digest] + [digest]
            self._old_messages = [d for d in self._old_messages if d != digest]
        return BlobRef(digest=digest, size=size)

    def _held_by(self, commit: Commit) -> dict[tuple[str, int], _Held]:
        """Return what a commit holds, each with a number of its own in the run's trail."""
        found = {}
        for index, at in enumerate(sorted(commit.holds)):
            held = self._held[at]
            key = held.key or HELD - commit.round * AT_WORK_MAX - index
            found[at] = held._replace(key=key)
        return found

    def _stored(self, digest: str) -> Params:
        return load_params(self._stores.blobs.path(digest))

    def _keeps(self, commit: Commit, held: set[int]) -> Callable[[int], bool]:
        """Return which stay in the trail: what the plan keeps, what is in use, what is held."""
        stays, needs = self._keeping.stays(commit), set(commit.needs)
        return lambda number: number in held if number <= HELD else number in needs or stays(number)
