"""Goal: combiners change who speaks to whom, and nothing else: the same model, to the byte.

Method: real processes; the digest of a simulation, which knows no combiner, is the oracle.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from federations import CALM, deaths, digest, killed_in_turn, project, submitted, thawed

from hansa.dev import SERVER, Rehearsal
from hansa.site.ledger import LEDGER_FILE, Ledger

PLAN = """
name = "tiers"
rounds = 3
seed = 7
algorithm = { name = "fed_adam", lr = 0.01 }
transforms = [{ name = "clip", norm = 1.0 }]
[learner]
kind = "numpy"
[data]
set = "digits"
split = { scheme = "dirichlet", alpha = 0.5, clients = 4 }
[cohort]
minimum = 4
"""


@pytest.mark.parametrize("combiners", [1, 2])
def test_a_federation_with_combiners_gives_the_simulations_model(
    tmp_path: Path, combiners: int
) -> None:
    study = project(tmp_path / "study", PLAN)
    with Rehearsal(tmp_path / "r", study, settings=CALM, combiners=combiners) as federation:
        folder = federation.run()
        simulated = federation.simulate()
        assert digest(folder) == digest(simulated)
        for here, there in zip(folder.rows(), simulated.rows(), strict=True):
            assert here["clients"] == there["clients"]
            assert here["train"] == there["train"]


BEHIND = {"west": ["client-0", "client-2"], "east": ["client-1"]}
"""Two combiners, one of them with a single site; client-3 joins the server itself."""

COUNTS = ("before_update_recorded", "after_update_recorded", "after_update_folded")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    folder = tmp_path_factory.mktemp("tiers")
    study = project(folder / "study", PLAN)
    with Rehearsal(folder / "r", study, settings=CALM, combiners=BEHIND) as rehearsal:
        yield rehearsal


def test_combiners_of_unequal_size_beside_a_direct_site_give_the_simulations_model(
    federation: Rehearsal,
) -> None:
    """FEDn 6 gave each combiner the weight 1, whatever stood behind it."""
    folder = federation.run()
    assert digest(folder) == digest(federation.simulate())
    merged = [e for e in folder.log.events if e["kind"] == "merged"]
    assert {e["combiner"]: e["clients"] for e in merged} == BEHIND
    via = {m["name"]: m.get("via") for m in federation.members() if m["role"] == "site"}
    assert via == {"client-0": "west", "client-1": "east", "client-2": "west", "client-3": None}


def test_what_left_each_tier_is_in_its_ledger_with_the_receipt_of_the_tier_above(
    federation: Rehearsal,
) -> None:
    folder = federation.run()
    run = (folder.remote or {})["run"]
    sums = [e for e in folder.log.events if e["kind"] == "merged" and e["phase"] == "train"]
    west = list(Ledger(federation.combiner_folder("west") / LEDGER_FILE).entries())
    left = {(e.round, e.digest) for e in west if e.run == run and e.kind == "update"}
    assert left == {(e["round"], e["digest"]) for e in sums if e["combiner"] == "west"}
    receipts = [e.receipt for e in west if e.receipt is not None and e.receipt.run == run]
    assert {r.client for r in receipts} == {"west"}
    assert len(receipts) == 2 * len(left)  # of sums, and of evaluations
    for site in ("client-0", "client-2"):
        verified = federation.command(
            "site", "ledger", "--verify", "--folder", str(federation.site_folder(site))
        )
        assert verified.returncode == 0, verified.stdout + verified.stderr
    above = federation.command(
        "combiner", "ledger", "--verify", "--folder", str(federation.combiner_folder("west"))
    )
    assert above.returncode == 0, above.stdout + above.stderr


@pytest.mark.parametrize("who", ["west", SERVER])
def test_a_killed_tier_comes_back_and_counts_everybody_once(
    federation: Rehearsal, who: str
) -> None:
    """`kill -9` at each instant around the counting of an update, one after the other."""
    before = len(deaths(federation, who))
    watching = killed_in_turn(federation, who, list(COUNTS))
    folder = submitted(federation, "name=killed")
    assert federation.follow(folder, seconds=120) == "finished"
    watching.join(60)
    assert deaths(federation, who)[before:] == list(COUNTS)
    assert digest(folder) == digest(federation.simulate(sets=["name=killed"]))
    assert [row["clients"]["accepted"] for row in folder.rows()] == [4, 4, 4]


def test_a_combiner_that_is_gone_blocks_nobody(federation: Rehearsal) -> None:
    """FEDn 7: an unreachable combiner stopped every session; here the quorum of clients decides."""
    federation.stop("west")
    federation.start("west", failpoint="after_update_recorded")
    with thawed(federation, "west"):
        federation.wait_for("client-0", "client-2")
        folder = submitted(federation, "name=gone", "cohort.minimum=2", "rounds=2")
        assert federation.follow(folder, seconds=60) == "finished"
        accepted = [row["clients"]["accepted"] for row in folder.rows()]
        assert accepted == [2, 2]
        gone = {p["client"] for p in folder.log.events if p["kind"] == "problem"}
        assert gone >= {"client-0", "client-2"}


def test_a_site_that_dies_behind_a_combiner_does_not_stall_the_round(
    federation: Rehearsal,
) -> None:
    federation.wait_for("client-0", "client-2")
    federation.stop("client-2")
    federation.wait_for("client-2", state="silent")  # or it would count as there still
    federation.start("client-2", failpoint="site_after_message_fetched")
    with thawed(federation, "client-2"):
        federation.wait_for("client-2")
        folder = submitted(federation, "name=dead", "cohort.minimum=3", "rounds=1")
        assert federation.follow(folder, seconds=60) == "finished"
        assert folder.rows()[0]["clients"]["accepted"] == 3
        problems = [
            e for e in folder.log.events if e["kind"] == "problem" and e["phase"] == "train"
        ]
        assert [(e["client"], e["code"]) for e in problems] == [("client-2", "client-silent")]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("aggregator=median", "median"),
        ("workflow=cyclic", "cyclic"),
        ("algorithm=scaffold", "scaffold"),
    ],
)
def test_a_plan_that_cannot_work_through_a_combiner_is_refused_with_a_sentence(
    federation: Rehearsal, change: str, word: str
) -> None:
    sets = {
        "median": [change],
        "cyclic": [change, "algorithm=fed_avg"],
        "scaffold": [change, "transforms=[]"],
    }[word]
    done = federation.command(*federation.run_words("--new", *chained(sets)))
    assert done.returncode == 1
    assert "plan-impossible" in done.stderr
    assert word in done.stderr and "combiner" in done.stderr


def chained(sets: list[str]) -> list[str]:
    return [word for text in sets for word in ("--set", text)]
