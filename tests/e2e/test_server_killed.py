"""C1: kill -9 the server at every failpoint; it comes back, and nothing is lost or counted twice.

Oracle: the digest of a simulation of the same plan, the server's table of receipts read straight
from its database, and the ledgers of the sites.  One server and two real sites serve all cases;
each begins with a server that is armed to die at one point, and is started again once it has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from federations import (
    FAST,
    LARGE,
    check_books,
    deaths,
    digest,
    killed_in_turn,
    points,
    project,
    rows,
    submitted,
)

from hansa.dev import SERVER, Rehearsal
from hansa.errors import HansaError
from hansa.identity import parse_invite
from hansa.protocol.enrolment import enrol
from hansa.remote.asking import invite

CHUNKS = ("before_chunk_recorded", "after_chunk_recorded")
MEMBERS = ("before_member_recorded", "after_member_recorded")
OF_RUNS = [point for point in points("") if point not in (*CHUNKS, *MEMBERS)]
LATER = {
    "before_blob_renamed": (1, 3, 6),  # of a package, a message, an update
    "after_blob_renamed": (1, 4),
    "before_update_recorded": (1, 2),  # the first and the last of a round
    "after_update_recorded": (1, 2),
    "after_update_folded": (1, 2),
    "after_round_committed": (2,),
}
CASES = [(point, count) for point in OF_RUNS for count in LATER.get(point, (1,))]


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    folder = tmp_path_factory.mktemp("killed")
    with Rehearsal(folder / "r", project(folder / "tiny"), settings=FAST) as rehearsal:
        yield rehearsal


def died(federation: Rehearsal) -> Counter[str]:
    """How often the server has died at which point."""
    return Counter(deaths(federation, SERVER))


def test_a_server_killed_at_every_point_of_one_run_gives_the_same_model(
    federation: Rehearsal,
) -> None:
    before = died(federation)
    watching = killed_in_turn(federation, SERVER, OF_RUNS)
    folder = submitted(federation)
    assert federation.follow(folder, seconds=100) == "finished"
    watching.join(60)
    assert died(federation) - before == Counter(OF_RUNS), "a point was not passed"
    assert digest(folder) == digest(federation.simulate())
    assert [row["round"] for row in folder.rows()] == [1, 2, 3]
    check_books(federation, folder)


@pytest.mark.slow
@pytest.mark.parametrize(("point", "count"), CASES, ids=lambda part: str(part))
def test_a_server_killed_at_any_point_goes_on_to_the_same_model(
    federation: Rehearsal, point: str, count: int
) -> None:
    before = died(federation)
    other = 0.01 + 0.001 * sum(before.values())  # else the store has all these blobs already
    another = f"learner.optimizer.lr={other:.3f}"
    watching = killed_in_turn(federation, SERVER, [f"{point}:{count}"])
    folder = submitted(federation, another)
    assert federation.follow(folder) == "finished"
    watching.join(60)
    assert died(federation) - before == Counter([point]), "the point was not passed"
    assert digest(folder) == digest(federation.simulate(sets=[another]))
    assert [row["round"] for row in folder.rows()] == [1, 2, 3]
    check_books(federation, folder)
    run = (folder.remote or {})["run"]
    assert rows(federation, f"select count(*) from runs where run = '{run}'") == [(1,)]


@pytest.mark.parametrize("point", MEMBERS)
def test_an_enrolment_broken_off_is_repeated_and_lets_one_member_in(
    federation: Rehearsal, tmp_path: Path, point: str
) -> None:
    watching = killed_in_turn(federation, SERVER, [point])
    name = point.replace("_", "-")
    line = invite(federation.connection, name)
    with pytest.raises(HansaError):
        enrol(parse_invite(line), tmp_path / "member")
    watching.join(60)
    member = enrol(parse_invite(line), tmp_path / "member")
    assert member.name == name
    assert rows(federation, f"select count(*) from members where name = '{name}'") == [(1,)]


@pytest.mark.slow
def test_a_server_killed_between_chunks_gets_the_rest(tmp_path: Path) -> None:
    with Rehearsal(tmp_path / "r", project(tmp_path / "large", LARGE), settings=FAST) as federation:
        watching = killed_in_turn(federation, SERVER, [f"{point}:3" for point in CHUNKS])
        folder = submitted(federation)
        assert federation.follow(folder) == "finished"
        watching.join(60)
        assert died(federation) == Counter(CHUNKS)
        assert digest(folder) == digest(federation.simulate())
        check_books(federation, folder)
