"""Which plans cannot work through a combiner, each with the word that its sentence must have."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hansa.errors import PlanError
from hansa.plan.load import read_plan
from hansa.server.combining import check_combiners

PLAIN: dict[str, Any] = {"name": "study", "rounds": 1, "learner": {"module": "model.py"}}

IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"aggregator": "median"}, "median must see"),
    ({"server_functions": {"file": "server.py"}}, "server functions see each"),
    ({"initial": "random_client"}, 'initial = "random_client"'),
    ({"algorithm": "scaffold"}, "scaffold keeps at each client"),
    ({"workflow": "asynchronous"}, "the workflow asynchronous"),
    ({"workflow": "cyclic"}, "the workflow cyclic"),
    ({"cohort": {"over": 1.5, "count": 2}}, "cohort.over is 1.5"),
    ({"cohort": {"late": "discount"}}, 'cohort.late is "discount"'),
]


def table(**change: Any) -> dict[str, Any]:
    plan: dict[str, Any] = msgspec.to_builtins(read_plan(PLAIN | change).plan)
    return plan


@pytest.mark.parametrize(("change", "words"), IMPOSSIBLE, ids=[w for _, w in IMPOSSIBLE])
def test_a_plan_that_a_combiner_cannot_carry_is_refused_with_its_reason(
    change: dict[str, Any], words: str
) -> None:
    with pytest.raises(PlanError) as raised:
        check_combiners(table(**change), ["west"])
    assert raised.value.code == "plan-impossible"
    assert words in raised.value.happened and "combiner west" in raised.value.happened
    check_combiners(table(**change), [])


def test_a_plain_plan_works_through_combiners() -> None:
    check_combiners(table(), ["west"])
