"""The laws of a handle whose rounds overlap: `arrivals`, and what commits keep for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from hansa.algorithms import Vectors
from hansa.testing.case import EXAMPLES, STEPS, Array, Case
from hansa.testing.laws import law
from hansa.workflows import (
    Arrival,
    Arrived,
    AtWork,
    Commit,
    Federation,
    GlobalState,
    Progress,
    drive,
)

MODELS: tuple[Array, ...] = (
    np.array([0.5, -1.25, 2.0], np.float32),  # the case's seed
    np.array([4.0, 0.5, -8.0], np.float32),
    np.array([-2.0, 16.0, 1.0], np.float32),
)
"""Of rounds 0, 1 and 2; what clients send says which of them they began with."""


def check_overlap(opened: Callable[[Case, Path], AbstractContextManager[Federation]],
                  folder: Path) -> None:  # fmt: skip
    """Let two rounds wait for two of five clients, and a third, of its own life, for all.

    Raises:
      LawBroken: an update comes twice or never, or is not of the model that its client was given;
        or what a commit keeps is not there after a start.
    """
    case = Case(plan={"algorithm": "fed_avg"})
    cohort: Sequence[str] = case.clients
    at_work: Mapping[str, AtWork] = {}
    came: list[Arrival] = []
    for number in (1, 2, 3):
        with opened(case, folder) as handle:
            count = 2 if number < 3 else len(cohort) + len(at_work)
            arrived = _arrived(handle, number, cohort, at_work=at_work, count=count)
            came += [u._replace(vectors=_copied(u.vectors)) for u in arrived.updates]
            at_work = _left(arrived, number, cohort, at_work=at_work, count=count)
            cohort = [update.client for update in arrived.updates]
            if number < 3:
                drive(handle.commit(_commit(handle, number, at_work), []))
                continue
            held = handle.held("client-1", 2)["x"]
            _require(
                np.array_equal(held, MODELS[2]),
                f"what was held is {held} instead of {MODELS[2]} after a start",
                hint="Keep what `Commit.holds` names.",
            )
    for update in came:
        _require_own(update)
    tasks = [(update.client, update.asked) for update in came]
    _require(
        len(tasks) == 2 + 2 + 5 == len(set(tasks)),
        f"the updates of {sorted(tasks)} have come",
        hint="Use each update once, also one that was here before a commit or a start.",
    )


def _arrived(
    handle: Federation,
    number: int,
    cohort: Sequence[str],
    *,
    at_work: Mapping[str, AtWork],
    count: int,
) -> Arrived:
    state = handle.resume().state
    drive(handle.roster(number))
    work = handle.arrivals(number, state, cohort, at_work=at_work, count=count)
    arrived = drive(work)
    for update in arrived.updates:
        given = handle.recall(update.asked - 1).algorithm.x
        _require(
            np.array_equal(given, MODELS[update.asked - 1]),
            f"{update.client} began in round {update.asked}, and the model of the round before is "
            f"recalled as {given}",
            hint="Keep the models that `Commit.needs` names.",
        )
    return arrived


def _left(
    arrived: Arrived,
    number: int,
    cohort: Sequence[str],
    *,
    at_work: Mapping[str, AtWork],
    count: int,
) -> Mapping[str, AtWork]:
    """Return who is at work, which must be all that were and have not come."""
    names = [update.client for update in arrived.updates]
    _require(
        len(names) == count and names == sorted(names) and not arrived.problems,
        f"{count} updates are waited for, and those of {names} come with the problems "
        f"{list(arrived.problems)}",
        hint="Return as soon as there are so many, by name, and no more of them.",
    )
    left = {client: work.round for client, work in at_work.items()}
    left |= dict.fromkeys(cohort, number)
    expected = {client: asked for client, asked in left.items() if client not in names}
    found = {client: work.round for client, work in arrived.at_work.items()}
    _require(
        found == expected and sorted(arrived.metrics) == names,
        f"{found} are said to be at work, and {expected} are; metrics are of "
        f"{sorted(arrived.metrics)}",
        hint="Who has not come and has no problem is at work since the round of its task.",
    )
    return arrived.at_work


def _commit(handle: Federation, number: int, at_work: Mapping[str, AtWork]) -> Commit:
    x = MODELS[number]
    handle.hold("client-1", number, {"x": x})
    row: dict[str, Any] = {"round": number, "clients": {}, "bytes": {}, "seconds": 0.0}
    state = handle.stored(GlobalState(Vectors(x=x), np.array([number + 4.25])))
    _require(
        state.buffers.tolist() == [number + 4.0],
        f"a state is stored with the buffers {state.buffers}, which are integers",
        hint="Use `hansa.workflows.as_stored`.",
    )
    progress, holds = Progress()._asdict(), frozenset({("client-1", number)})
    return Commit(number, state, row, progress, at_work=at_work, holds=holds)


def _require_own(update: Arrival) -> None:
    """Require what a client makes of the model that it was given in its round."""
    given = MODELS[update.asked - 1]
    expected = given / 2 + np.array(STEPS[update.client]) * update.asked - given
    found = update.vectors["delta"]
    _require(
        np.allclose(found, expected, rtol=3e-7, atol=1e-7)
        and update.weight == EXAMPLES[update.client],
        f"{update.client} sends {found} of weight {update.weight} in round {update.asked} instead "
        f"of {expected}",
        hint="A client trains on the model of the round before its task, whenever it comes.",
    )


def _copied(vectors: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.array(vector) for name, vector in vectors.items()}


def _require(holds: bool, sentence: str, *, hint: str) -> None:
    law(bool(holds), "The federation handle", sentence, hint=hint)
