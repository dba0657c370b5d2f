"""Who is at work and who waits: each case worked out by hand."""

from __future__ import annotations

import random

import pytest

from hansa.server.places import Places, Wish

CARDS = {"north": {"gpu": 2}, "south": {"gpu": 1}}


def wish(run: str, rank: float = 0.0, *, gpu: int = 0, minimum: int = 1, sites=CARDS, mandatory=()):
    asks = {"gpu": gpu} if gpu else {}
    return Wish(run, rank, sites, minimum, mandatory, asks)


def test_a_place_is_free_or_it_is_waited_for_in_the_order_of_rank() -> None:
    places = Places(1)
    assert places.claim(wish("a", 3)) == ["north", "south"]
    assert places.claim(wish("b", 2)) == places.claim(wish("c", 1)) == []
    places.leave("a")
    assert places.claim(wish("b", 2)) == [], "c is before it"
    assert places.claim(wish("c", 1)) == ["north", "south"]
    assert not places.claim(wish("b", 2))
    places.leave("c")
    assert places.claim(wish("b", 2))


def test_of_equal_rank_who_came_first_is_first_however_often_others_look() -> None:
    places = Places(1)
    places.claim(wish("a"))
    for run in ("b", "c", "b", "c"):
        places.claim(wish(run))
    places.leave("a")
    assert places.claim(wish("c")) == []
    assert places.claim(wish("b"))


def test_two_runs_never_share_a_slot() -> None:
    places = Places(9)
    assert places.claim(wish("a", gpu=1)) == ["north", "south"]
    assert places.claim(wish("b", gpu=1)) == ["north"], "south has lent its one"
    assert places.claim(wish("c", gpu=1)) == []
    places.leave("a")
    assert places.claim(wish("c", gpu=1)) == ["north", "south"]


def test_a_run_without_slots_needs_a_place_alone() -> None:
    places = Places(2)
    assert places.claim(wish("a", gpu=2)) == ["north"]
    assert places.claim(wish("b")) == ["north", "south"]


def test_k_of_n_sites_are_enough_and_the_mandatory_one_is_among_them() -> None:
    places = Places(9)
    places.claim(wish("a", gpu=2))  # all of north
    assert places.claim(wish("two", gpu=1, minimum=2)) == []
    places.leave("two")
    assert places.claim(wish("north", gpu=1, mandatory=("north",))) == []
    places.leave("north")
    assert places.claim(wish("south", gpu=1, mandatory=("south",))) == ["south"]


def test_nobody_waits_for_ever_behind_small_runs_that_keep_coming() -> None:
    """big needs both cards of north; small ones would take one each, for ever."""
    north = {"north": {"gpu": 2}}
    places = Places(9)
    assert places.claim(wish("s0", 0, gpu=1, sites=north))
    assert places.claim(wish("big", 1, gpu=2, sites=north)) == []
    for n in range(1, 50):
        assert places.claim(wish(f"s{n}", 1 + n, gpu=1, sites=north)) == []
    assert places.claim(wish("other", 99)), "who needs no card passes"
    places.leave("s0")
    assert places.claim(wish("s1", 2, gpu=1, sites=north)) == [], "big is about to take both"
    assert places.claim(wish("big", 1, gpu=2, sites=north)) == ["north"]


def test_a_run_at_work_keeps_its_slots_whoever_waits_and_takes_up_free_ones() -> None:
    places = Places(9)
    south = {"south": CARDS["south"]}
    assert places.claim(wish("a", 5, gpu=1, sites=south)) == ["south"]
    assert places.claim(wish("b", 1, gpu=1, sites=south)) == []
    assert places.claim(wish("a", 5, gpu=1)) == ["north", "south"], "north has come, too"


def test_a_run_that_has_too_few_sites_left_keeps_all_it_has_until_it_leaves() -> None:
    told: list[int] = []
    places = Places(1, lambda: told.append(1))
    assert places.claim(wish("a", gpu=1, minimum=2)) == ["north", "south"]
    assert places.claim(wish("b", -1, gpu=1)) == []
    assert places.claim(wish("a", gpu=1, minimum=2, sites={"north": {"gpu": 2}})) == []
    assert places.claim(wish("b", -1, gpu=1)) == [] and not told
    assert places.claim(wish("a", gpu=1, minimum=2)) == ["north", "south"]
    places.leave("a")
    assert told, "others look again"
    assert places.claim(wish("b", -1, gpu=1)) == ["north", "south"]


def test_what_was_held_before_a_restart_is_held_after_it() -> None:
    places = Places(1)
    places.hold("a", ["south"], {"gpu": 1})
    assert places.claim(wish("b", -1)) == []
    assert places.has("a") and not places.has("b")
    assert places.claim(wish("a", gpu=1, sites={"south": {"gpu": 1}})) == ["south"]


def test_why_a_run_waits_is_said_with_who_has_it_and_how_many_are_before_it() -> None:
    places = Places(2)
    places.claim(wish("a", gpu=1))
    north = {"south": CARDS["south"]}
    places.claim(wish("b", 1, gpu=1, sites=north))
    said = "it needs 1 gpu at each site, and south lends 1 of its 1 gpu, to a"
    assert places.why("b") == said
    assert places.why("b", exactly=False) == "other runs use gpu at south"
    places.claim(wish("c", 2, gpu=1, sites=north))
    assert places.why("c") == f"{said}; 1 run is before it"
    places.claim(wish("d", 3))
    assert places.why("c") == "other runs are at work: a, d, of 2 at a time; 1 run is before it"
    assert places.why("c", exactly=False) == "other runs are at work"
    assert places.why("a") == places.why("nobody") == ""


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_no_slot_is_lent_twice_and_all_come_to_their_turn(seed: int) -> None:
    """Random runs come and end; the oracle is a plain count of who uses what."""
    rng = random.Random(seed)
    places, number = Places(3), 0
    at_work: dict[str, tuple[list[str], int]] = {}
    waiting: dict[str, Wish] = {}
    for _ in range(300):
        if rng.random() < 0.5 and len(waiting) < 6:
            number += 1
            gpu, minimum = rng.choice([(0, 1), (1, 1), (1, 2), (2, 1)])
            run = f"r{number}"
            waiting[run] = wish(run, number - 5 * rng.choice([0, 0, 1]), gpu=gpu, minimum=minimum)
        elif at_work:
            ended = rng.choice(sorted(at_work))
            del at_work[ended]
            places.leave(ended)
        for run in rng.sample(sorted(waiting), len(waiting)):
            if sites := places.claim(waiting[run]):
                at_work[run] = (sites, waiting.pop(run).asks.get("gpu", 0))
        assert len(at_work) <= 3
        for site, has in CARDS.items():
            assert sum(gpu for sites, gpu in at_work.values() if site in sites) <= has["gpu"]
    while waiting:
        assert at_work, f"{sorted(waiting)} wait, and nobody is at work"
        ended = min(at_work)
        del at_work[ended]
        places.leave(ended)
        for run in sorted(waiting):
            if sites := places.claim(waiting[run]):
                at_work[run] = (sites, waiting.pop(run).asks.get("gpu", 0))


def test_who_waits_for_a_slot_is_told_when_a_run_goes_on_with_fewer_sites() -> None:
    told: list[int] = []
    places = Places(2, lambda: told.append(1))
    assert places.claim(wish("a", gpu=1)) == ["north", "south"]
    assert places.claim(wish("b", gpu=1, mandatory=("south",))) == [] and told == []
    north = {"north": CARDS["north"]}
    assert places.claim(wish("a", gpu=1, sites=north)) == ["north"] and told == [1]
    assert places.claim(wish("b", gpu=1, mandatory=("south",))) == ["north", "south"]
