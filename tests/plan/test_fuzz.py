"""Goal: whatever a plan says, only our own errors come out, and a plan that is taken can be kept.

Method: tables near the schema, with right keys and values that are right, of a wrong type, out of
range, huge or not numbers at all, and now and then a key that does not exist.
"""

from __future__ import annotations

import datetime
import math
import typing
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.errors import DataError, HansaError, LearnerError, PlanError
from hansa.plan import Plan, build_method, check_plan, hyper_at, read_plan

WORDS = [
    *("fed_avg", "fed_prox", "scaffold", "krum", "median", "clip", "cast", "my.py:f", "sgd"),
    *("adam", "cosine", "step", "all", "torch", "iid", "dirichlet", "labels", "natural", "x", ""),
]
SCALARS = st.one_of(
    st.sampled_from([0, 1, 2, -1, 2**63, 10**400, 0.5, 1.0, -0.0, math.nan, math.inf, 1e308]),
    st.sampled_from([True, False, None, datetime.date(2024, 1, 1), datetime.time(1, 2)]),
    st.sampled_from(WORDS) | st.text(max_size=4) | st.integers() | st.floats(),
)
NAMED = st.dictionaries(
    st.sampled_from(["name", "mu", "lr", "norm", "dtype", "byzantine", "keep", "x"]),
    st.sampled_from(WORDS) | SCALARS,
    max_size=3,
)
VALUES = SCALARS | NAMED | st.lists(SCALARS | NAMED, max_size=3)
RIGHT: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(1, 5),
    float: st.floats(0.125, 0.875),
    str: st.sampled_from(WORDS),
    bool: st.booleans(),
    type(None): st.sampled_from(WORDS),
    dict[str, Any]: NAMED,
}


@st.composite
def tables(draw: st.DrawFn, kind: Any) -> dict[str, Any]:
    """Draw a table near a struct type of the schema."""
    fields = msgspec.structs.fields(kind)
    chosen = draw(st.lists(st.sampled_from(fields), max_size=4)) if fields else []
    table = {field.name: draw(near(field.type)) for field in chosen}
    if tag := kind.__struct_config__.tag_field:
        table |= {field.name: draw(near(field.type)) for field in fields if field.required}
        table[tag] = kind.__struct_config__.tag
    if draw(st.integers(0, 15)) == 0:
        table[draw(st.text(max_size=4) | st.sampled_from(WORDS))] = draw(VALUES)
    return table


@st.composite
def near(draw: st.DrawFn, kind: Any) -> Any:
    """Draw a value for a field, mostly of its type."""
    if draw(st.integers(0, 15)) == 0:
        return draw(VALUES)
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return draw(st.sampled_from(arguments))
    if typing.get_origin(kind) is tuple:
        return draw(st.lists(near(arguments[0]), max_size=2))
    if kind in RIGHT:
        return draw(RIGHT[kind])
    if arguments:
        return draw(near(draw(st.sampled_from(arguments))))
    return draw(tables(kind))


def no_module(name: str) -> Any:
    raise LearnerError("learner-module", f"There is no {name}.", "Write it.")


def taken(table: dict[str, Any], sets: list[str]) -> Plan | None:
    """Return the plan, or None if it was refused as it should be."""
    try:
        plan = read_plan(table, sets).plan
    except (PlanError, DataError) as error:
        assert error.hint
        return None
    try:
        check_plan(plan)
        build_method(plan, no_module)
    except HansaError as error:
        assert error.hint
        return None
    return plan


sets = st.lists(
    st.tuples(st.sampled_from(["rounds", "algorithm.mu", "learner", "data.split.x"]), st.text()),
    max_size=1,
).map(lambda pairs: [f"{key}={value}" for key, value in pairs])


@settings(max_examples=300)
@given(tables(Plan), sets)
def test_only_our_own_errors_come_out_and_what_is_taken_can_be_kept(table, sets) -> None:
    plan = taken(table, sets)
    if plan is None:
        return
    written = msgspec.json.encode(msgspec.to_builtins(plan))  # as a run folder keeps it
    assert read_plan(msgspec.json.decode(written)).plan == plan
    for number in (1, 2, plan.rounds):
        hyper = hyper_at(plan, number)
        assert 0 <= hyper.lr < math.inf
        assert hyper.epochs >= 1
        assert (hyper.steps or 1) >= 1 and (hyper.batch_size or 1) >= 1
