"""Which updates of a round count: each rule by an example, and all of them against a model."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hansa.aggregators import AggregationSpec, Contribution, VectorSpec, mean
from hansa.params import encode
from hansa.rounds.round import (
    TABLE,
    Answered,
    ClientStatus,
    Close,
    Count,
    Deadline,
    Effect,
    Failed,
    Heard,
    Lost,
    Refused,
    Reject,
    Repeat,
    Returned,
    RoundEvent,
    RoundState,
    Status,
    Stop,
    Terms,
    accepted,
    open_round,
    step,
)

COHORT = ["west", "north", "south", "east"]
ANY = Terms(1)


def play(
    events: Iterable[RoundEvent], *, terms: Terms = ANY, cohort: Sequence[str] = COHORT
) -> tuple[RoundState, list[Effect]]:
    state, effects = open_round(cohort, terms), []
    for event in events:
        state, more = step(state, event)
        effects += more
    return state, effects


def answers(*clients: str) -> list[Answered]:
    return [Answered(client, f"of {client}") for client in clients]


def test_a_mandatory_client_is_waited_for_though_the_goal_is_reached() -> None:
    terms = Terms(1, goal=2, mandatory=("south",))
    state, _ = play(answers("north", "east"), terms=terms)
    assert state.status is Status.OPEN
    state, more = step(state, Answered("south", "of south"))
    assert more[-1] == Close(("east", "north", "south"))


def test_a_mandatory_client_that_is_lost_may_come_back_until_the_deadline() -> None:
    events = [*answers("north", "east", "west"), Lost("south")]
    terms = Terms(1, mandatory=("south",))
    state, _ = play(events, terms=terms)
    assert state.status is Status.OPEN, "of others a loss would have closed the round"
    again, effects = step(state, Answered("south", "of south"))
    assert again.status is Status.CLOSED and effects[-1] == Close(tuple(sorted(COHORT)))
    _, effects = step(state, Deadline())
    assert effects == (Close(("east", "north", "west")),)


@pytest.mark.parametrize("event", [Failed("south", "oh"), Refused("south", "update-shape")])
def test_a_round_whose_mandatory_client_never_will_answer_is_over(event: RoundEvent) -> None:
    state, effects = play([*answers("north"), event], terms=Terms(1, mandatory=("south",)))
    assert (state.status, effects[-1]) == (Status.CLOSED, Close(("north",)))
    assert state.why == "a mandatory client has not answered and never will"


def test_a_mandatory_client_that_is_not_asked_ends_the_round_at_once() -> None:
    assert open_round(COHORT, Terms(1, mandatory=("nobody",))).status is Status.CLOSED


def test_the_first_answer_counts_and_leaves_the_round_open() -> None:
    state, effects = play(answers("north"))
    assert effects == [Count("north", "of north")]
    assert (state.status, state.why) == (Status.OPEN, "")
    assert state.clients["north"] is ClientStatus.ANSWERED
    assert state.clients["south"] is ClientStatus.WAITING


def test_it_closes_when_all_clients_are_heard_with_the_accepted_in_order_of_name() -> None:
    events = [*answers("west", "north"), Failed("south", "oh"), Refused("east", "update-shape")]
    state, effects = play(events)
    assert effects[-1] == Close(("north", "west"))
    assert (state.status, state.why) == (Status.CLOSED, "all clients are heard")
    assert state.clients == {
        "west": ClientStatus.ANSWERED,
        "north": ClientStatus.ANSWERED,
        "south": ClientStatus.FAILED,
        "east": ClientStatus.REFUSED,
    }


def test_the_goal_closes_it_at_once_and_leaves_the_rest_out() -> None:
    state, effects = play(answers("south", "east", "west"), terms=Terms(1, goal=2))
    assert effects == [
        Count("south", "of south"),
        Count("east", "of east"),
        Close(("east", "south")),
        Reject("west", "update-late"),
    ]
    assert state.clients["west"] is state.clients["north"] is ClientStatus.LEFT_OUT
    assert state.why == "2 clients have answered, as many as were wanted"


def test_a_goal_that_failures_put_out_of_reach_waits_for_the_others() -> None:
    events = [Failed("west", "oh"), Failed("east", "oh"), *answers("north")]
    state, _ = play(events, terms=Terms(1, goal=3))
    assert state.status is Status.OPEN
    state, effects = step(state, Answered("south", "of south"))
    assert effects[-1] == Close(("north", "south"))


def test_it_closes_when_all_others_are_lost_and_the_minimum_has_answered() -> None:
    lost = [Lost("west"), Lost("east")]
    state, effects = play([*lost, *answers("north"), Lost("south")], terms=Terms(1))
    assert effects[-1] == Close(("north",))
    assert state.why == "the clients that have not answered are lost"


def test_it_waits_for_lost_clients_while_the_minimum_has_not_answered() -> None:
    events = [*answers("north"), Lost("south"), Lost("west"), Lost("east")]
    state, effects = play(events, terms=Terms(2))
    assert (state.status, effects) == (Status.OPEN, [Count("north", "of north")])


def test_a_lost_client_may_answer_while_the_round_is_open() -> None:
    events = [Lost("south"), *answers("south")]
    state, effects = play(events, terms=Terms(2))
    assert effects == [Count("south", "of south")]
    assert state.clients["south"] is ClientStatus.ANSWERED


def test_a_lost_client_may_fail_and_be_refused_too() -> None:
    events = [Lost("south"), Failed("south", "oh"), Lost("west"), Refused("west", "update-shape")]
    state, effects = play(events)
    assert not effects
    assert state.clients["south"] is ClientStatus.FAILED
    assert state.clients["west"] is ClientStatus.REFUSED


def test_a_client_that_returned_is_waited_for_again() -> None:
    events = [Lost("south"), Lost("west"), Returned("south"), *answers("north", "east")]
    state, _ = play(events)
    assert state.status is Status.OPEN
    assert state.clients["south"] is ClientStatus.WAITING


def test_a_round_that_can_no_longer_meet_its_minimum_closes_at_once() -> None:
    events = [*answers("north"), Failed("south", "oh"), Refused("west", "update-shape")]
    state, effects = play(events, terms=Terms(3))
    assert effects == [Count("north", "of north"), Close(("north",))]
    assert state.why == "the minimum of 3 answers can no longer be met"
    assert state.clients["east"] is ClientStatus.LEFT_OUT


@pytest.mark.parametrize(("cohort", "terms"), [([], Terms(1)), ([], Terms(0)), (["a"], Terms(2))])
def test_a_round_that_cannot_succeed_is_closed_from_the_start(
    cohort: list[str], terms: Terms
) -> None:
    state = open_round(cohort, terms)
    assert state.status is Status.CLOSED and state.why
    assert set(state.clients.values()) <= {ClientStatus.LEFT_OUT}
    assert step(state, Deadline()) == (state, ())


def test_the_deadline_closes_it_with_what_it_has_and_only_once() -> None:
    state, effects = play([*answers("north"), Deadline(), Deadline()], terms=Terms(3))
    assert effects == [Count("north", "of north"), Close(("north",))]
    assert state.why == "its time is over"
    assert state.clients["south"] is ClientStatus.LEFT_OUT


def test_a_stopped_round_has_no_result_and_its_reason_is_kept() -> None:
    events = [*answers("north"), Stop("the owner said so"), Stop("again"), Deadline()]
    state, effects = play(events)
    assert effects == [Count("north", "of north")]
    assert (state.status, state.why) == (Status.STOPPED, "the owner said so")


def test_the_same_answer_is_receipted_again_and_counts_once_even_after_the_end() -> None:
    north = Answered("north", "of north")
    for end in (Deadline(), Stop("enough")):
        state, effects = play([north, north, end, north])
        repeats = [e for e in effects if isinstance(e, Repeat)]
        assert repeats == [Repeat("north", "of north")] * 2
        assert sum(isinstance(e, Count) for e in effects) == 1
        assert accepted(state) == ("north",)


def test_a_second_different_answer_is_a_conflict_and_the_first_one_stays() -> None:
    state, effects = play([*answers("north"), Answered("north", "other")])
    assert effects[-1] == Reject("north", "update-conflict")
    assert state.digests == {"north": "of north"}


def test_an_answer_from_somebody_who_was_not_asked_does_not_count() -> None:
    state, effects = play(answers("stranger"))
    assert effects == [Reject("stranger", "update-not-asked")]
    assert state == open_round(COHORT, Terms(1))


@pytest.mark.parametrize("event", [Failed("x", "c"), Refused("x", "c"), Lost("x"), Returned("x")])
def test_what_else_a_stranger_does_is_of_no_concern(event: RoundEvent) -> None:
    state = open_round(COHORT, Terms(1))
    assert step(state, event) == (state, ())


@pytest.mark.parametrize("event", [Failed("north", "oh"), Refused("north", "update-shape")])
def test_an_answer_after_a_failure_or_a_refusal_is_rejected(event: RoundEvent) -> None:
    state, effects = play([event, event, *answers("north")])
    assert effects == [Reject("north", "update-failed")]
    assert not state.digests


def test_a_failure_or_loss_after_an_answer_changes_nothing() -> None:
    before, _ = play(answers("north"))
    for event in (Failed("north", "c"), Refused("north", "c"), Lost("north"), Returned("north")):
        assert step(before, event) == (before, ())


@pytest.mark.parametrize("end", [Deadline(), Stop("enough")])
@pytest.mark.parametrize(
    "late", [*answers("west", "north", "south", "stranger"), Answered("east", "other")]
)
def test_an_answer_after_the_end_is_late_whoever_sends_it(end: RoundEvent, late: Answered) -> None:
    events = [*answers("east"), Failed("north", "oh"), Lost("south"), end, late]
    state, effects = play(events, terms=Terms(2))
    assert effects[-1] == Reject(late.client, "update-late")
    assert accepted(state) == ("east",)


def test_every_answer_that_can_arrive_has_a_reply_in_the_table() -> None:
    pending = {ClientStatus.WAITING, ClientStatus.LOST}
    for status, who in itertools.product(Status, [*ClientStatus, None]):
        ended = status is not Status.OPEN
        if (who in pending and ended) or (who is ClientStatus.LEFT_OUT and not ended):
            continue
        counted = who is ClientStatus.ANSWERED
        for heard in (Heard.SAME, Heard.OTHER) if counted else (Heard.ANSWER,):
            assert TABLE[status, who, heard].reply, (status, who, heard)


def test_the_table_lets_nobody_out_of_a_settled_word() -> None:
    settled = set(ClientStatus) - {ClientStatus.WAITING, ClientStatus.LOST}
    for (status, who, heard), found in TABLE.items():
        if who in settled or who is None or status is not Status.OPEN:
            assert found.status is who, (status, who, heard)
        assert (found.reply == "count") == (
            found.status is ClientStatus.ANSWERED and who is not ClientStatus.ANSWERED
        )


# ---- D3: order, duplicates and delays do not matter

NAMES = [f"c{i}" for i in range(7)]
SPEC = AggregationSpec({"delta": VectorSpec(3, "float32", bound=64.0)}, weight_limit=200.0)
VECTORS = {
    name: np.array([1.75 * i - 3.1, (-1.7) ** i, 0.3 - i * i], np.float32)
    for i, name in enumerate(NAMES)
}
WEIGHTS = {name: float(3 * i % 11 + 1) for i, name in enumerate(NAMES)}


def fold(effects: Iterable[Effect]) -> tuple[bytes, bytes]:
    """Aggregate what was counted, in the order in which it was."""
    acc = mean.zero(SPEC)
    for effect in effects:
        if isinstance(effect, Count):
            name = effect.client
            acc = mean.add(acc, Contribution(name, {"delta": VECTORS[name]}, WEIGHTS[name]))
    header, body = encode(mean.dump(acc))
    result = mean.finish(acc).vectors["delta"] if acc.members.clients else np.empty(0)
    return header + bytes(body), result.tobytes()


@settings(max_examples=500)
@given(st.data())
def test_order_and_repetition_of_messages_change_neither_who_counts_nor_the_bytes(data) -> None:
    """Goal: law L3 and L4.  Method: one message for each client, mixed, doubled, among losses.

    The minimum is the number of clients that answer, so that losses end no round before they have.
    """
    fates = data.draw(st.lists(st.sampled_from("aaafr"), min_size=7, max_size=7))
    kinds = {"a": Answered, "f": Failed, "r": Refused}
    messages = [kinds[f](name, f"{f} {name}") for f, name in zip(fates, NAMES, strict=True)]
    answering = [name for f, name in zip(fates, NAMES, strict=True) if f == "a"]
    terms = Terms(len(answering))
    repeats = data.draw(st.lists(st.sampled_from(messages), max_size=7))
    moods = st.builds(lambda kind, name: kind(name), st.sampled_from([Lost, Returned]),
                      st.sampled_from(NAMES))  # fmt: skip
    mixed = data.draw(st.permutations([*messages, *repeats, *data.draw(st.lists(moods))]))
    state, effects = play(mixed, terms=terms, cohort=NAMES)
    _, plain = play(messages, terms=terms, cohort=NAMES)
    assert accepted(state) == tuple(answering)
    assert [e.accepted for e in effects if isinstance(e, Close)] == [tuple(answering)]
    assert fold(effects) == fold(plain)
    if answering:
        weights = np.array([WEIGHTS[name] for name in answering])
        values = np.array([VECTORS[name] for name in answering], np.float64)
        found = np.frombuffer(fold(effects)[1], np.float32)
        np.testing.assert_allclose(found, weights @ values / weights.sum(), rtol=1e-6, atol=1e-6)


# ---- X2: against a model that knows no table


class AgainstAModel(RuleBasedStateMachine):
    """The model keeps who has said what, and derives everything else from that."""

    clients = st.sampled_from([*NAMES[:5], "stranger"])
    digests = st.sampled_from(["one", "two"])

    @initialize(size=st.integers(1, 5), minimum=st.integers(0, 5), goal=st.integers(0, 5))
    def begin(self, size: int, minimum: int, goal: int) -> None:
        self.cohort, self.minimum, self.goal = NAMES[:size], minimum, goal or None
        self.state = open_round(self.cohort, Terms(minimum, self.goal))
        self.counted: dict[str, str] = {}
        self.out: set[str] = set()
        self.lost: set[str] = set()
        self.closed = minimum > size
        self.stopped = False
        self.folds: list[str] = []

    def happens(self, event: RoundEvent) -> list[Effect]:
        before, ended = self.state, self.closed or self.stopped
        self.state, effects = step(self.state, event)
        self.folds += [e.client for e in effects if isinstance(e, Count)]
        assert step(before, event) == (self.state, effects), "a step has no memory"
        if ended:
            assert self.state == before, "what is over stays as it is"
        return list(effects)

    def expects(self, effects: list[Effect], replies: list[Effect]) -> None:
        """Derive whether the round has just closed, and compare what was to be done."""
        open_ = not (self.closed or self.stopped)
        rest = len(self.cohort) - len(self.counted) - len(self.out)
        over = (
            rest == 0
            or (self.goal is not None and len(self.counted) >= self.goal)
            or len(self.counted) + rest < self.minimum
            or (rest == len(self.lost) and len(self.counted) >= self.minimum)
        )
        if open_ and over:
            self.closed = True
            replies = [*replies, Close(tuple(sorted(self.counted)))]
        assert effects == replies

    @rule(client=clients, digest=digests)
    def answers(self, client: str, digest: str) -> None:
        over, same = self.closed or self.stopped, self.counted.get(client) == digest
        reply: Effect
        if same:
            reply = Repeat(client, digest)
        elif over:
            reply = Reject(client, "update-late")
        elif client not in self.cohort:
            reply = Reject(client, "update-not-asked")
        elif client in self.counted:
            reply = Reject(client, "update-conflict")
        elif client in self.out:
            reply = Reject(client, "update-failed")
        else:
            reply = Count(client, digest)
            self.counted[client] = digest
            self.lost.discard(client)
        self.expects(self.happens(Answered(client, digest)), [reply])

    @rule(client=clients, kind=st.sampled_from([Failed, Refused]))
    def drops_out(self, client: str, kind: type[Failed] | type[Refused]) -> None:
        over = self.closed or self.stopped
        if client in self.cohort and client not in self.counted and not over:
            self.out.add(client)
            self.lost.discard(client)
        self.expects(self.happens(kind(client, "why")), [])

    @rule(client=clients)
    def is_lost(self, client: str) -> None:
        pending = client in self.cohort and client not in self.counted and client not in self.out
        if pending and not (self.closed or self.stopped):
            self.lost.add(client)
        self.expects(self.happens(Lost(client)), [])

    @rule(client=clients)
    def returns(self, client: str) -> None:
        if not (self.closed or self.stopped):
            self.lost.discard(client)
        self.expects(self.happens(Returned(client)), [])

    @precondition(lambda self: len(self.folds) > 1)
    @rule()
    def time_is_over(self) -> None:
        effects = self.happens(Deadline())
        over, self.closed = self.closed or self.stopped, self.closed or not self.stopped
        assert effects == ([] if over else [Close(tuple(sorted(self.counted)))])

    @precondition(lambda self: len(self.folds) > 1)
    @rule()
    def is_stopped(self) -> None:
        assert self.happens(Stop("enough")) == []
        self.stopped = self.stopped or not self.closed

    @invariant()
    def agrees(self) -> None:
        ended = Status.CLOSED if self.closed else Status.STOPPED
        assert self.state.status is (ended if self.closed or self.stopped else Status.OPEN)
        assert self.state.digests == self.counted
        assert sorted(self.folds) == sorted(self.counted), "each is folded once"
        assert bool(self.state.why) == (self.closed or self.stopped)
        pending = set(self.cohort) - set(self.counted) - self.out
        for client, word in self.state.clients.items():
            assert (word is ClientStatus.ANSWERED) == (client in self.counted)
            assert (word in (ClientStatus.FAILED, ClientStatus.REFUSED)) == (client in self.out)
            left_out = client in pending and (self.closed or self.stopped)
            assert (word is ClientStatus.LEFT_OUT) == left_out


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(max_examples=200, stateful_step_count=40)
