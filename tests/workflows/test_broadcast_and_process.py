"""One named task to all clients, and what the server makes of the answers."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hansa
from hansa.errors import LearnerError, PlanError, RunError
from hansa.learners.learner import ClientData
from hansa.learners.named_tasks import TaskContext, perform
from hansa.learners.statistics import statistics
from hansa.params import Params
from hansa.params.model import ModelLayout
from hansa.plan import read_plan
from hansa.project import with_learner
from hansa.rounds.questions import Answer, asked_in, packed, unpacked
from hansa.runs.result import Result
from hansa.simulation import Asked, Simulation, continue_run, open_run
from hansa.workflows import broadcast_and_process
from hansa.workflows.answers import PROCESSES, mean_model
from hansa.workflows.outcome import Outcome, Turn
from hansa.workflows.statistics import statistics as summed

asking_module = importlib.import_module("hansa.workflows.broadcast_and_process")

ROWS = {
    f"client-{n}": np.random.default_rng(n).normal(3 - n, 1 + n, (5 + 7 * n, 3)) for n in range(4)
}
ROWS["client-2"][1, 0] = ROWS["client-3"][0, 2] = np.nan


def run(folder: Path, workflow: dict[str, Any], tasks: dict[str, Any], **plan: Any) -> Result:
    learner = hansa.function_learner(
        lambda rng, sample: {"w": np.array([1.5, -2.0], np.float32), "n": np.array(7)},
        lambda params, data, ctx: params,
        tasks=tasks,
    )
    data = hansa.clients(
        lambda client: {
            "train": hansa.Dataset(ROWS[client], np.zeros(len(ROWS[client])), None, "rows")
        },
        4,
    )
    workflow = {"name": "broadcast_and_process", **workflow}
    return hansa.run(learner=learner, data=data, workflow=workflow, runs=folder, rounds=1, **plan)


def test_federated_statistics_are_those_of_all_rows_together(tmp_path: Path) -> None:
    workflow = {"task": "statistics", "process": "statistics", "settings": {"bins": 6}}
    report = run(tmp_path, workflow, {"statistics": statistics}).folder.rows()[0]["report"]
    together = np.concatenate(list(ROWS.values()))
    assert report["count"] == (~np.isnan(together)).sum(0).tolist()
    assert report["missing"] == [1, 0, 1]
    np.testing.assert_allclose(report["sum"], np.nansum(together, 0), rtol=1e-14)
    np.testing.assert_allclose(report["mean"], np.nanmean(together, 0), rtol=1e-14)
    np.testing.assert_allclose(report["variance"], np.nanvar(together, 0, ddof=1), rtol=1e-13)
    assert report["min"] == np.nanmin(together, 0).tolist()
    assert report["max"] == np.nanmax(together, 0).tolist()
    for j, counts in enumerate(report["histogram"]):
        column = together[~np.isnan(together[:, j]), j]
        assert counts == np.histogram(column, 6)[0].tolist()
    assert report["clients"] == sorted(ROWS)


def test_sums_are_correctly_rounded_in_any_order_of_rows() -> None:
    """Of 1e16, 1 and -1e16, and of their squared deviations; the oracle is exact arithmetic."""
    columns = [[1e16, 1.0, -1e16, 0.1, -0.7], [3.0, -1e-17, 1e17, -1e17, 2.0**-60]]
    mean = [-4.5, 0.25]
    found = set()
    for order in itertools.permutations(range(5)):
        rows = np.array(columns).T[list(order)]
        data = ClientData(hansa.Dataset(rows, np.zeros(5), None, "rows"))
        rng = np.random.default_rng(0)
        first = statistics(None, data, TaskContext("north", 1, 1, {}, rng, {}))
        told = {"mean": mean, "low": [0.0, 0.0], "high": [1.0, 1.0], "bins": 0}
        second = statistics(None, data, TaskContext("north", 1, 2, told, rng, {}))
        found.add((*first["sum"], *second["squares"]))
    sums = [float(sum(map(Fraction, column))) for column in columns]
    squares = [
        float(sum(Fraction((value - m) ** 2) for value in column))
        for column, m in zip(columns, mean, strict=True)
    ]
    assert found == {(*sums, *squares)}


@pytest.mark.parametrize("wild", [[np.inf, -np.inf, 1.0], [1e308, 1e308, -3.0]])
def test_sums_that_are_no_numbers_are_not_counted(tmp_path: Path, wild: list[float]) -> None:
    data = hansa.clients(
        lambda name: {
            "train": hansa.Dataset(
                np.array([wild if name == "client-1" else [2.0, -5.0, 0.5]]).T,
                np.zeros(3), None, "rows",
            )
        },
        3,
    )  # fmt: skip
    learner = hansa.function_learner(
        lambda rng, sample: {"w": np.zeros(1)}, lambda p, d, c: p, tasks={"statistics": statistics}
    )
    workflow = {"name": "broadcast_and_process", "task": "statistics", "process": "statistics",
                "settings": {"bins": 0}}  # fmt: skip
    made = hansa.run(learner=learner, data=data, workflow=workflow, runs=tmp_path, rounds=1)
    (row,) = made.folder.rows()
    assert row["report"]["clients"] == ["client-0", "client-2"]
    assert row["report"]["sum"] == [-5.0]
    assert (row["clients"]["accepted"], row["clients"]["refused"]) == (2, 1)
    told = [e for e in made.folder.log.events if e["kind"] == "problem"]
    assert [(e["client"], e["what"], e["phase"]) for e in told] == [
        ("client-1", "refused", "round")
    ]


def test_a_client_with_too_few_rows_tells_nothing_of_them(tmp_path: Path) -> None:
    settings = {"bins": 2, "minimum": 6}
    workflow = {"task": "statistics", "process": "statistics", "settings": settings}
    row = run(tmp_path, workflow, {"statistics": statistics}).folder.rows()[0]
    assert row["report"]["clients"] == ["client-1", "client-2", "client-3"]
    assert row["clients"]["failed"] == 1


def answers_of(*names: str) -> dict[str, Answer]:
    facts = {
        "north": {"count": [2, 1], "missing": [0, 1], "sum": [3.0, -7.0], "low": [1.0, -7.0],
                  "high": [2.0, -7.0], "squares": [0.5, 0.0], "histogram": [[1, 1], [1, 0]]},
        "south": {"count": [1, 1], "missing": [0, 0], "sum": [9.0, 4.0], "low": [9.0, 4.0],
                  "high": [9.0, 4.0], "squares": [30.0, 2.0], "histogram": [[0, 1], [0, 1]]},
    }  # fmt: skip
    return {name: Answer(None, facts[name]) for name in names}


def turn_of(settings: Mapping[str, Any], step: int) -> Turn:
    seed = Params.of({"w": np.zeros(1)})
    return Turn(1, step, settings, ModelLayout(seed.layout), seed)


@pytest.mark.parametrize(
    "lie",
    [
        {"histogram": [[1, 1, 1], [1, 0, 0]]},
        {"histogram": [[1, 1], 4]},
        {"histogram": [[1, [1]], [1, 0]]},
        {"squares": [[1.0], [2.0]]},
        {"squares": [1.0, 10**400]},
        {"squares": [1.0, 2.0, 3.0], "histogram": [[1, 1]] * 3},
    ],
)
def test_statistics_that_fit_nobody_s_are_refused_and_end_no_run(lie: dict[str, Any]) -> None:
    asked = summed(answers_of("north", "south"), turn_of({"bins": 2}, 0)).ask
    assert asked is not None and asked["count"] == [3, 2]
    answers = answers_of("north", "south")
    answers["south"].facts.update(lie)
    outcome = summed(answers, turn_of(asked, 1))
    assert len(outcome.refused) == 1


def test_who_leaves_between_the_two_questions_is_in_no_mean_and_no_variance() -> None:
    """Oracle: the variance of north's rows alone, sum of squares over count - 1."""
    asked = summed(answers_of("north", "south"), turn_of({"bins": 2}, 0)).ask
    assert asked is not None
    again = summed(answers_of("north"), turn_of(asked, 1))
    assert again.ask == {"bins": 2}
    asked = summed(answers_of("north"), turn_of(again.ask, 2)).ask
    assert asked is not None and asked["count"] == [2, 1]
    report = summed(answers_of("north"), turn_of(asked, 3)).report
    assert report["variance"] == [0.5, None] and report["clients"] == ["north"]
    assert report["mean"] == [1.5, -7.0]


def test_a_process_that_never_has_enough_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking_module, "PROCESS_STEPS_MAX", 3)
    monkeypatch.setitem(PROCESSES, "more", lambda answers, turn: Outcome({}, ask={}))
    workflow = {"task": "nothing", "process": "more"}
    with pytest.raises(RunError) as error:
        run(tmp_path, workflow, {"nothing": lambda params, data, ctx: {}})
    assert error.value.code == "task-question"


def test_the_mean_of_answers_is_the_next_model_whatever_their_order() -> None:
    """Oracle: sum w x / sum w in plain NumPy; float32 is rounded once, an integer to nearest."""
    seed = Params.of({"w": np.array([0.5, -4.0], np.float32), "n": np.array(3)})
    layout = ModelLayout(seed.layout, ["n"])
    told = {"north": (1, -7.25, 4), "south": (3, 2.5, 9), "west": (0.5, 1e-3, -8)}
    answers = {
        name: Answer(
            Params.of({"w": np.array([x, 2 * x], np.float32), "n": np.array(n)}), {"weight": w}
        )
        for name, (w, x, n) in told.items()
    }
    turn = Turn(1, 0, {}, layout, seed)
    outcome = mean_model(answers, turn)
    total = sum(w for w, _, _ in told.values())
    x = sum(w * np.float64(np.float32(x)) for w, x, _ in told.values()) / total
    assert outcome.model is not None
    np.testing.assert_allclose(outcome.model["w"], np.float32([x, 2 * x]), rtol=2e-7)
    assert outcome.model["n"] == np.rint(sum(w * n for w, _, n in told.values()) / total)
    again = mean_model(dict(reversed(answers.items())), turn).model
    assert again is not None and again.digest() == outcome.model.digest()


@pytest.mark.parametrize(
    ("weights", "left"),
    [([0.7, 0.1, 0.1], 3), ([0.1] * 10, 10), ([2.0**52, 1e-5, 3.0], 1), ([1e-300, 2.0], 1)],
)
def test_no_weight_of_a_client_ends_the_run(weights: list[float], left: int) -> None:
    """Oracle: sum w x / sum w over those that count; fractions add up to less than their sum."""
    seed = Params.of({"w": np.zeros(1)})
    answers = {
        f"c-{n}": Answer(Params.of({"w": np.array([1.5 * n - 1])}), {"weight": w})
        for n, w in enumerate(weights)
    }
    outcome = mean_model(answers, Turn(1, 0, {}, ModelLayout(seed.layout), seed))
    counted = outcome.report["weights"]
    assert len(counted) == left and len(outcome.refused) == len(weights) - left
    total = sum(w * (1.5 * int(name[2:]) - 1) for name, w in counted.items())
    assert outcome.model is not None
    np.testing.assert_allclose(outcome.model["w"], [total / sum(counted.values())], rtol=1e-12)


def test_answers_that_cannot_be_averaged_do_not_count() -> None:
    seed = Params.of({"w": np.array([0.5, -4.0], np.float32)})
    good = Answer(seed, {})
    answers = {
        "good": good,
        "nan": Answer(Params.of({"w": np.array([np.nan, 1], np.float32)}), {}),
        "other": Answer(Params.of({"v": np.array([1.0, 1], np.float32)}), {}),
        "weight": Answer(seed, {"weight": -1}),
        "nothing": Answer(None, {}),
    }
    outcome = mean_model(answers, Turn(1, 0, {}, ModelLayout(seed.layout), seed))
    assert outcome.model == seed
    assert {name: error.code for name, error in outcome.refused.items()} == {
        "nan": "update-not-finite",
        "other": "update-names",
        "weight": "update-weight",
        "nothing": "update-names",
    }


def test_a_project_s_own_process_may_ask_again_and_report(tmp_path: Path) -> None:
    def count(params: Any, data: Any, ctx: Any) -> dict[str, Any]:
        return {"rows": len(data.train.x) if ctx.step == 0 else ctx.settings["limit"] - 1}

    def most(answers: Mapping[str, Answer], turn: Turn) -> Outcome:
        rows = {name: answer.facts["rows"] for name, answer in answers.items()}
        if turn.step == 0:
            return Outcome({}, ask={"limit": max(rows.values())})
        return Outcome({"below": rows})

    made = broadcast_and_process("count", process=most, clients=["client-3", "client-1"])
    assert made.name == "broadcast_and_process" and "count" in made.tells
    learner = hansa.function_learner(
        lambda rng, sample: {"w": np.zeros(1)}, lambda p, d, c: p, tasks={"count": count}
    )
    project = with_learner(read_plan({"rounds": 1}).plan, learner)._replace(workflow=made)
    population = hansa.clients(
        lambda client: (np.nan_to_num(ROWS[client]), np.zeros(len(ROWS[client]))), 4
    )
    assert isinstance(population, Asked)
    run_folder, _ = open_run(project, Simulation(tmp_path / "runs"), population)
    continue_run(run_folder, project, population, simulation=Simulation(tmp_path / "runs"))
    rows = len(ROWS["client-3"]) - 3 - 1  # three are kept for evaluation
    report = run_folder.rows()[0]["report"]["below"]
    assert sorted(report) == ["client-1", "client-3"] and set(report.values()) == {rows}


def test_a_task_that_nobody_answers_fails_the_run_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has no task 'absent'") as error:
        run(tmp_path, {"task": "absent"}, {})
    assert error.value.code == "run-too-few" and ".." not in str(error.value)
    with pytest.raises(RunError, match="of north none is there"):
        run(tmp_path, {"task": "absent", "clients": ["north"]}, {})
    with pytest.raises(LearnerError) as unknown:
        perform({}, "absent", None, None, Any)  # type: ignore[arg-type]
    assert unknown.value.code == "task-unknown"


@pytest.mark.parametrize("task", ["", "a b", "../x", "train.0", "x" * 65])
def test_a_name_that_no_task_can_have_is_not_asked_for(tmp_path: Path, task: str) -> None:
    with pytest.raises(RunError) as error:
        run(tmp_path, {"task": task}, {})
    assert error.value.code == "task-question"


def test_a_process_that_does_not_exist_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="colect"):
        run(tmp_path, {"task": "x", "process": "colect"}, {})


@pytest.mark.parametrize("facts", [{"x": np.zeros(3)}, {"x": object()}, 12, {"x": "y" * 2**20}])
def test_facts_that_cannot_travel_are_their_client_s_failure(tmp_path: Path, facts: Any) -> None:
    def odd(params: Any, data: Any, ctx: Any) -> Any:
        return facts if ctx.client == "client-1" else {}

    made = run(tmp_path, {"task": "odd"}, {"odd": odd})
    told = [e for e in made.folder.log.events if e["kind"] == "problem"]
    assert [(e["client"], e["code"]) for e in told] == [("client-1", "task-answer")]


def test_an_answer_is_what_was_packed_and_nothing_else_is_one() -> None:
    params = Params.of({"w": np.array([1.0, -2.0])})
    found = unpacked(packed(params, {"n": np.int64(3), "x": [1.5, None]}))
    assert found.params == params and found.facts == {"n": 3, "x": [1.5, None]}
    for bad in (
        params,
        Params.of({}, {"hansa.facts": "[1]"}),
        Params.of({}, {"hansa.facts": "{}", "more": ""}),
        Params.of({}, {"hansa.facts": "[" * 100_000}),
    ):
        with pytest.raises(ValueError, match="facts"):
            unpacked(bad)


def test_names_of_exchanges_are_read_back_and_nothing_else_is() -> None:
    assert asked_in("ask.a-B_9.17") == ("a-B_9", 17)
    for odd in (
        "ask..0",
        "ask.a.00",
        "ask.a.1000000",
        "ask.a/b.0",
        "ask.a.0\n",
        "train",
        "ask.ä.0",
    ):
        assert asked_in(odd) is None
