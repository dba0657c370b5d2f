"""C3: kill -9 a site at each of its failpoints; the run ends as if nothing had happened.

Oracle: the digest of a simulation, the processes that the system lists, and for what is sent again
the bytes that a proxy between site and server has counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from federations import (
    ALONE,
    FAST,
    LARGE,
    check_books,
    deaths,
    digest,
    eventually,
    killed_in_turn,
    orphans,
    points,
    project,
    rows,
    workers,
)

from hansa.dev import Rehearsal
from hansa.limits import CHUNK_BYTES

SITE = "client-1"
POINTS = points("site_")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    folder = tmp_path_factory.mktemp("killed")
    with Rehearsal(folder / "r", project(folder / "tiny"), settings=FAST) as rehearsal:
        yield rehearsal
    eventually(lambda: not workers(rehearsal), what="a worker outlived its federation")


def check_killed(federation: Rehearsal, armed: list[str], names: list[str]) -> None:
    before = len(deaths(federation, SITE))
    watching = killed_in_turn(federation, SITE, armed)
    folder = federation.submit()
    assert federation.follow(folder, seconds=100) == "finished"
    watching.join(60)
    assert deaths(federation, SITE)[before:] == names, "a point was not passed"
    assert digest(folder) == digest(federation.simulate())
    assert [row["clients"]["accepted"] for row in folder.rows()] == [2, 2, 2]
    check_books(federation, folder)
    eventually(lambda: not orphans(federation), what="a worker outlived its agent")


def test_a_site_killed_at_every_point_of_one_run_changes_nothing(federation: Rehearsal) -> None:
    check_killed(federation, POINTS, POINTS)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("point", POINTS)
def test_a_site_killed_at_any_point_changes_nothing(
    federation: Rehearsal, point: str, count: int
) -> None:
    check_killed(federation, [f"{point}:{count}"], [point])


def test_a_site_that_comes_back_repeats_only_what_had_not_arrived(tmp_path: Path) -> None:
    study = project(tmp_path / "large", LARGE)
    with Rehearsal(tmp_path / "r", study, settings=FAST, proxied=True) as federation:
        child = federation.children[SITE]
        federation.stop(SITE)
        federation.start(SITE, failpoint="site_after_chunk_sent:2")
        proxy = federation.proxies[SITE]
        proxy.count_anew()
        folder = federation.submit()
        child.wait(60)
        federation.start(SITE)
        assert federation.follow(folder) == "finished"
        counted = [e for e in folder.log.events if e.get("state") == "accepted"]
        sent = next(e["size"] for e in counted if e["client"] == SITE and e["phase"] == "train")
        assert sent > 2 * CHUNK_BYTES, "the update must travel in several chunks"
        assert proxy.moved["up"] <= sent + CHUNK_BYTES + 2**18
        assert digest(folder) == digest(federation.simulate())


def test_what_a_client_learned_in_a_round_that_closed_without_it_is_forgotten(
    tmp_path: Path,
) -> None:
    study = project(tmp_path / "alone", ALONE)
    with Rehearsal(tmp_path / "r", study, settings=FAST) as federation:
        child = federation.children[SITE]

        def rounds_of_states() -> set[int]:
            states = federation.site_folder(SITE) / "states"
            return {int(path.name.split(".")[1]) for path in states.rglob("*.safetensors")}

        federation.stop(SITE)
        federation.start(SITE, failpoint="site_after_update_kept")
        federation.submit()
        child.wait(60)
        [lost] = rounds_of_states()  # it has trained, and nobody knows
        query = "select count(*) from events where kind = 'committed'"
        eventually(lambda: int(rows(federation, query)[0][0]) > lost, what="no round closed")
        federation.start(SITE, failpoint="site_before_update_kept")
        child.wait(60)
        assert deaths(federation, SITE)[-1] == "site_before_update_kept"
        [number] = rounds_of_states()
        assert number > lost
