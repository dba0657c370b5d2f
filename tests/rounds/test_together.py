"""A combiner's sum answers for several clients at once: all of them count, or none."""

from __future__ import annotations

import pytest

from hansa.rounds.round import (
    Answered,
    ClientStatus,
    Close,
    Count,
    Deadline,
    Effect,
    Failed,
    Lost,
    Reject,
    Repeat,
    RoundEvent,
    RoundState,
    Status,
    Terms,
    Together,
    open_round,
    step,
)

COHORT = ("east", "north", "south", "west")
TIER = Together("tier", ("north", "south"), "blake3:sum")


def play(*events: RoundEvent, minimum: int = 1) -> tuple[RoundState, tuple[Effect, ...]]:
    state, effects = open_round(COHORT, Terms(minimum)), tuple[Effect, ...]()
    for event in events:
        state, effects = step(state, event)
    return state, effects


def test_a_sum_counts_for_each_client_in_it() -> None:
    state, effects = play(TIER)
    assert effects == (Count("tier", "blake3:sum"),)
    assert state.digests == {"north": "blake3:sum", "south": "blake3:sum"}
    assert state.clients["west"] is ClientStatus.WAITING
    assert state.status is Status.OPEN


def test_it_ends_the_round_when_it_was_the_last_answer() -> None:
    state, effects = play(Answered("east", "e"), Answered("west", "w"), TIER)
    assert effects == (Count("tier", "blake3:sum"), Close(("east", "north", "south", "west")))
    assert state.why == "all clients are heard"


def test_lost_clients_may_come_in_a_sum() -> None:
    state, _ = play(Lost("north"), Lost("south"), TIER)
    assert state.clients["north"] is state.clients["south"] is ClientStatus.ANSWERED


def test_the_same_sum_is_only_receipted_again() -> None:
    once, _ = play(TIER)
    state, effects = play(TIER, TIER)
    assert (state, effects) == (once, (Repeat("tier", "blake3:sum"),))
    ended, effects = play(TIER, Deadline(), TIER)
    assert effects == (Repeat("tier", "blake3:sum"),)
    assert ended.digests == once.digests


@pytest.mark.parametrize(
    ("before", "code"),
    [
        ((Answered("north", "own"),), "update-conflict"),
        ((Failed("south", "client-failed"),), "update-failed"),
        ((Together("tier", ("north",), "blake3:part"),), "update-conflict"),
        ((Together("tier", ("north",), "blake3:sum"),), "update-conflict"),
        ((Deadline(),), "update-late"),
    ],
    ids=["one came by itself", "one has failed", "another sum", "a part of it", "too late"],
)
def test_a_sum_of_which_anybody_cannot_count_counts_for_nobody(
    before: tuple[RoundEvent, ...], code: str
) -> None:
    kept, _ = play(*before)
    state, effects = play(*before, TIER)
    assert effects == (Reject("tier", code),)
    assert state == kept


def test_a_sum_with_a_stranger_in_it_counts_for_nobody() -> None:
    state, effects = play(Together("tier", ("north", "nobody"), "blake3:sum"))
    assert effects == (Reject("tier", "update-not-asked"),)
    assert not state.digests


def test_the_minimum_counts_clients() -> None:
    state, effects = play(Lost("east"), Lost("west"), TIER, minimum=2)
    assert effects[-1] == Close(("north", "south"))
    state, _ = play(Lost("east"), Lost("west"), TIER, minimum=3)
    assert state.status is Status.OPEN
