"""Whom a round asks and when it ends, against a federation that only takes notes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from hansa.aggregators import Aggregate
from hansa.algorithms import Vectors, fed_avg
from hansa.errors import PlanError, RunError
from hansa.plan import read_plan
from hansa.rounds import Terms
from hansa.seeds import Key
from hansa.workflows import (
    Commit,
    Evaluated,
    GlobalState,
    Problem,
    Progress,
    Trained,
    drive,
    synchronous,
)
from hansa.workflows.sampling import sample
from hansa.workflows.synchronous import all_failed, choose, reasons

NAMES = [f"site-{i:02}" for i in range(20)]


def plan_of(**cohort: Any) -> Any:
    return read_plan({"rounds": 3, "seed": 4, "cohort": cohort, "evaluate": {"clients": 3}}).plan


@pytest.mark.parametrize(
    ("cohort", "asked", "terms"),
    [
        ({}, 20, Terms(1)),
        ({"fraction": 0.5, "minimum": 3}, 10, Terms(3)),
        ({"fraction": 0.5, "over": 1.3}, 13, Terms(1, 10)),
        ({"count": 10, "over": 1.1}, 11, Terms(1, 10)),
        ({"count": 3, "over": 1.1}, 4, Terms(1, 3)),
        ({"count": 18, "over": 1.5}, 20, Terms(1, 18)),
        ({"count": 30, "over": 1.5}, 20, Terms(1)),
        ({"fraction": 0.1, "over": 2, "minimum": 3}, 6, Terms(3, 3)),
        ({"fraction": 0.1, "minimum": 5}, 5, Terms(5)),  # asked of 2 it could never be met
        ({"count": 2, "minimum": 30}, 20, Terms(30)),
    ],
)
def test_a_round_asks_so_many_and_ends_with_so_many(cohort: dict, asked: int, terms: Terms) -> None:
    chosen, found = choose(plan_of(**cohort), NAMES, 1)
    assert len(chosen) == len(set(chosen)) == asked
    assert found == terms


def test_mandatory_clients_are_in_every_cohort_and_count_among_its_size() -> None:
    wanted = ["site-07", "site-19"]
    others: set[str] = set()
    for number in range(1, 30):
        cohort, terms = choose(plan_of(count=4, mandatory=wanted), NAMES, number)
        assert len(cohort) == 4 and {*wanted} <= {*cohort} and cohort == sorted(cohort)
        assert terms == Terms(1, None, tuple(wanted))
        others |= {*cohort} - {*wanted}
    assert len(others) > 10, "the rest is drawn anew each time"
    cohort, _ = choose(plan_of(fraction=0.05, mandatory=wanted), NAMES, 1)
    assert cohort == wanted
    over, terms = choose(plan_of(count=4, over=1.5, mandatory=wanted), NAMES, 1)
    assert {*wanted} <= {*over[:4]} and len(over) == 6
    assert terms == Terms(1, 4, tuple(wanted))


def test_a_mandatory_client_that_nobody_knows_is_refused_by_name() -> None:
    with pytest.raises(PlanError, match=r"cohort\.mandatory names 'site-x', and there is no such"):
        choose(plan_of(mandatory=["site-x"]), NAMES, 1)


def test_a_round_without_its_mandatory_client_fails_whoever_else_has_answered() -> None:
    with pytest.raises(RunError) as caught:
        drive(synchronous(Notes(accepts=3), plan_of(mandatory=["site-03"]), fed_avg()))
    assert caught.value.code == "run-too-few"
    assert "has no update of site-03" in caught.value.happened


def test_the_wanted_clients_come_first_and_are_those_of_the_plan_without_spare_ones() -> None:
    for number in range(1, 9):
        plain, _ = choose(plan_of(count=6), NAMES, number)
        over, terms = choose(plan_of(count=6, over=1.5), NAMES, number)
        assert over[: terms.goal] == plain
        assert len(set(over)) == 9


class Notes:
    """A handle that notes what it is asked; its roster grows from round to round."""

    def __init__(self, *, accepts: int | None = None) -> None:
        self.trained: list[tuple[list[str], Terms]] = []
        self.evaluated: list[list[str]] = []
        self.committed: list[Commit] = []
        self.accepts = accepts

    def resume(self) -> Commit:
        state = GlobalState(Vectors(x=np.zeros(2, np.float32)), np.empty(0))
        return Commit(0, state, {}, Progress()._asdict())

    def elapsed(self) -> float:
        return 1.0

    async def roster(self, round_number: int) -> Sequence[str]:
        return NAMES[: 4 * round_number]

    async def train(
        self, round_number: int, state: GlobalState, cohort: Sequence[str], *, terms: Terms
    ) -> Trained:
        self.trained.append((list(cohort), terms))
        number = len(cohort) if self.accepts is None else self.accepts
        mean = {"delta": np.ones(2, np.float32)}
        lost = [Problem(round_number, c, "failed", "client-lost", "gone") for c in cohort[number:]]
        return Trained(Aggregate(mean, 1.0, number) if number else None, {}, lost, 1, 2)

    async def evaluate(
        self, round_number: int, state: GlobalState, clients: Sequence[str]
    ) -> Evaluated:
        self.evaluated.append(list(clients))
        return Evaluated({}, [])

    async def test(self, round_number: int, state: GlobalState) -> dict[str, Any]:
        return {}

    async def commit(self, commit: Commit, problems: Sequence[Problem]) -> None:
        self.committed.append(commit)


def test_each_round_chooses_from_the_roster_of_that_round() -> None:
    notes, plan = Notes(), plan_of(fraction=0.5)
    drive(synchronous(notes, plan, fed_avg()))
    for i, (cohort, _) in enumerate(notes.trained):
        there = NAMES[: 4 * (i + 1)]
        assert cohort == sample(there, 2 * (i + 1), Key.root(4).child("cohort", i + 1))
        assert set(notes.evaluated[i]) <= set(there)
    assert [c.row["clients"]["asked"] for c in notes.committed] == [2, 4, 6]


def test_the_share_of_a_round_is_of_the_roster_of_that_round() -> None:
    shares = []

    def server(state: Vectors, mean: Vectors, share: float) -> Vectors:
        shares.append(share)
        return state

    drive(synchronous(Notes(accepts=1), plan_of(), fed_avg()._replace(server=server)))
    assert shares == [1 / 4, 1 / 8, 1 / 12]


@pytest.mark.parametrize(("accepts", "code"), [(0, "run-all-failed"), (2, "run-too-few")])
def test_the_minimum_holds_at_the_end_of_a_round(accepts: int, code: str) -> None:
    notes = Notes(accepts=accepts)
    with pytest.raises(RunError) as caught:
        drive(synchronous(notes, plan_of(minimum=3), fed_avg()))
    assert caught.value.code == code
    assert ("Round 1 closed with no update that counts" in caught.value.happened) == (not accepts)
    assert notes.trained == [(NAMES[:4], Terms(3))]
    assert not notes.committed


def test_the_cause_of_a_round_s_failure_comes_before_those_who_were_only_not_waited_for():
    """A healthy site whose neighbour had failed was named first."""
    problems = [
        Problem(1, "north", "failed", "client-silent", "it had not answered when it closed"),
        Problem(1, "south", "failed", "client-failed", "ValueError: no."),
        Problem(1, "west", "failed", "client-silent", "it had not answered when it closed"),
    ]
    told = "south: ValueError: no; north, west: it had not answered when it closed"
    assert reasons(problems) == told
    assert f"why not: {told}. The run" in all_failed(problems, 1).happened
