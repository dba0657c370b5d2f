"""Two agents with one key are noticed, and one alone never is."""

from __future__ import annotations

import random

import pytest
from league import League

from hansa.limits import INSTANCE_QUIET_S, INSTANCES_KEPT
from hansa.protocol.messages import Poll, PollAnswer
from hansa.server import doctor
from hansa.server.instances import Instances
from hansa.server.opening import opened


def noticed(polls: str, *, step_s: float = 5.0) -> list[int]:
    """Return which polls show that there are two, one letter for the agent that each is of."""
    instances = Instances()
    return [n for n, who in enumerate(polls) if instances.heard("north", who, n * step_s)]


@pytest.mark.parametrize(
    "polls",
    [
        "aaaaaaaaaa",
        "abcdefghijklmnopqrstuvwxyz",  # an agent that is restarted after each poll
        "aaaabbbbbb",
        "aaababbbbbbb",  # a poll of the old one was held back
        "aabababbbbbbbbcccc",  # two were, one after the other
        "aabababbbbbbcbcbcccccdcdcddd",  # and so at each restart
    ],
)
def test_one_agent_is_never_taken_for_two(polls):
    assert noticed(polls) == []


@pytest.mark.parametrize("polls", ["abababab", "aaabbbaaabbbaaabbbaaabbb", "abcabcabcabcabcabc"])
def test_agents_that_take_turns_are_noticed_once(polls):
    assert len(noticed(polls)) == 1


def test_however_two_agents_are_mixed_they_are_noticed_and_whoever_restarts_is_not():
    draw = random.Random(6)
    for _ in range(200):
        mixed = "".join(draw.choice("ab") for _ in range(40))
        assert len(noticed(mixed)) == 1, mixed
        restarts = "".join(chr(97 + n) * draw.randint(1, 5) for n in range(20))
        assert noticed(restarts) == [], restarts


def test_what_is_over_is_forgotten_and_noticed_anew():
    instances, later = Instances(), 40.0 + INSTANCE_QUIET_S
    for n, who in enumerate("abababab"):
        instances.heard("north", who, n * 5.0)
    assert instances.doubled("north", 40.0) and not instances.doubled("south", 40.0)
    assert not instances.doubled("north", later)
    assert [instances.heard("north", who, later) for who in "cacaca"].count(True) == 0
    assert [instances.heard("north", who, later) for who in "cacaca"].count(True) == 1
    assert instances.doubled("north", later)


def test_whoever_makes_up_names_fills_no_memory_and_one_that_says_none_is_let_be():
    instances = Instances()
    for n in range(1000):
        assert not instances.heard("north", str(n), float(n))
        assert not instances.heard("south", "", float(n))
    assert len(instances._heard["north"].returns) == INSTANCES_KEPT
    assert "south" not in instances._heard


def test_a_key_in_two_places_is_told_to_the_operator_and_to_both_agents(league: League) -> None:
    server = league.server

    def poll(instance: str) -> PollAnswer:
        asked = Poll(wait=False, version="1", instance=instance)
        return league.north.ask("POST", "/v1/poll", asked).read(PollAnswer)

    def lines() -> list[dict]:
        rows = server.ask(root, "GET", "/v1/audit").read(dict)["audit"]
        return [row for row in rows if row["action"] == "member.twice"]

    root = server.join("root", "admin")
    assert not any(poll(who).twice for who in "abab")
    server.restart()  # of which the agents know nothing
    assert not any(poll(who).twice for who in "abbbb") and lines() == []
    told = [poll(who).twice for who in "abababababab"]
    assert told[-1] and sorted(told) == told
    assert [(line["who"], line["object"]) for line in lines()] == [("north", "north")]
    facts = {row["name"]: row for row in server.state.member_facts()}
    assert facts["north"]["twice"] and not facts["south"]["twice"]
    assert facts["north"]["state"] == "active"  # and is let work
    with opened(server.folder) as folder:
        found = [f for f in doctor.examine(folder, quick=True) if f.about == "agents"]
    assert [f.grade for f in found] == ["warn"] and "north" in found[0].told
    assert found[0].command == "hansa server revoke north"
