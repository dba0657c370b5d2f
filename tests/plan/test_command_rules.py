"""What a plan with commands may say, and what is refused before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from hansa.algorithms import fed_avg, scaffold
from hansa.code import named_files
from hansa.errors import PlanError
from hansa.learners.command import CommandLearner
from hansa.plan import build_method, check_capabilities, check_plan, read_plan, weighting_of

LEARNER: dict[str, Any] = {"kind": "command", "train": ["python", "train.py", "{update_out}"]}
DATA: dict[str, Any] = {"set": "digits", "split": {"scheme": "iid", "clients": 2}}


def plan(data: dict[str, Any] | None = None, *, top: dict[str, Any] | None = None, **learner: Any):  # type: ignore[no-untyped-def]
    return read_plan({"learner": LEARNER | learner, "data": data or DATA, **(top or {})}).plan


def test_a_plan_with_commands_is_taken() -> None:
    check_plan(plan(validate=["sh", "v.sh"], init=["./init"], files=["lib"], rows="csv"))


@pytest.mark.parametrize(
    ("learner", "words"),
    [
        ({"train": []}, "learner.train"),
        ({"train": [""]}, "learner.train"),
        ({"train": ["sh", "a\0b"]}, "learner.train"),
        ({"train": ["sh", "{model_out}"]}, "{model_out}"),
        ({"validate": ["sh", "{update_out}"]}, "{update_out}"),
        ({"init": ["sh", "{model_in}"]}, "{model_in}"),
        ({"time_s": 0}, "learner.time_s"),
        ({"time_s": 1e12}, "learner.time_s"),
        ({"time_s": float("nan")}, "learner.time_s"),
        ({"module": "model.py"}, "learner.module"),
        ({"files": ["../secret"]}, "learner.files"),
        ({"files": ["/etc"]}, "learner.files"),
        ({"files": ["C:\\data"]}, "learner.files"),
        ({"requirements": "../needs.txt"}, "learner.requirements"),
        ({"kind": "numpy", "train": ["sh"]}, "learner.train"),
        ({"kind": "numpy", "train": [], "files": ["lib"]}, "learner.files"),
        ({"kind": "numpy", "train": [], "rows": "csv"}, "learner.rows"),
    ],
)
def test_what_cannot_work_is_refused_by_its_key(learner: dict[str, Any], words: str) -> None:
    with pytest.raises(PlanError) as error:
        check_plan(plan(**learner))
    assert error.value.code == "plan-bad-value"
    assert words in error.value.happened and "Nothing was started" in error.value.happened


def test_braces_of_a_program_s_own_language_are_left_alone() -> None:
    check_plan(plan(train=["awk", "{print $1} END {print}", "{data}"]))


def test_commands_need_named_data() -> None:
    with pytest.raises(PlanError, match=r"data\.set"):
        check_plan(plan({"clients": 3}))


@pytest.mark.parametrize(
    ("data", "top"),
    [
        (DATA, {}),
        ({"set": "hospitals"}, {"weighting": "examples"}),
        ({"set": "hospitals"}, {"weighting": "steps"}),
    ],
)
def test_files_that_hansa_does_not_read_can_be_neither_split_nor_counted(
    data: dict[str, Any], top: dict[str, Any]
) -> None:
    with pytest.raises(PlanError, match="path"):
        check_plan(plan(data, top=top, rows="path"))


def test_the_command_says_what_an_update_weighs_where_only_it_can_count() -> None:
    given = plan({"set": "hospitals"}, rows="path")
    check_plan(given)
    assert weighting_of(given, fed_avg()) == "user"
    assert weighting_of(plan(), fed_avg()) == "examples"


def test_scaffold_on_commands_is_refused_when_the_plan_is_read() -> None:
    with pytest.raises(PlanError, match="this command learner cannot") as error:
        check_capabilities(scaffold(), CommandLearner.capabilities, "command")
    assert error.value.code == "plan-impossible"
    check_capabilities(fed_avg(), CommandLearner.capabilities, "command")
    build_method(plan(), lambda name: None)


def test_only_what_a_plan_names_belongs_to_a_package() -> None:
    learner = plan(
        train=["./bin/run", "-f", "./train.awk", "/etc/passwd", "../up", ".hidden", "{data}"],
        files=["lib", "wheels/"],
    ).learner
    named = named_files(learner)
    assert named.files == {"bin/run", "-f", "train.awk", "{data}"}
    assert named.parts == {"lib", "wheels"}
